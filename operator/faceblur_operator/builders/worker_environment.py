"""Turns what a cluster asks for into the worker's own settings.

The names are those of the worker's configuration (docs/worker-configuration.md). Since the environment is part of the
pod template, a change of any of them rolls the workers by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import naming, quantities
from ..api.v1alpha1 import FaceBlurCluster, Resources

PREFIX = "FACEBLUR_WORKER_"
TLS_FOLDER = "/etc/faceblur/tls"
CLIENT_CA_FOLDER = "/etc/faceblur/client-ca"


def worker_environment(cluster: FaceBlurCluster) -> dict[str, str]:
    """Return the variables of a worker. What the spec leaves unset is left to the worker."""
    spec = cluster.spec
    detection, redaction, limits, workers = spec.detection, spec.redaction, spec.limits, spec.workers
    margin = redaction.margin
    settings: dict[str, Any] = {
        "address": f"0.0.0.0:{naming.GRPC_PORT}",
        "health_address": f"0.0.0.0:{naming.HEALTH_PORT}",
        "metrics_address": f"0.0.0.0:{naming.METRICS_PORT}",
        "profiles": (detection.profile, *detection.also_serve),
        "threads": workers.threads or whole_cores(workers.resources),
        "method": redaction.method,
        "cells": redaction.cells,
        "shape": redaction.shape,
        "margin_sides": margin and margin.sides,
        "margin_top": margin and margin.top,
        "margin_bottom": margin and margin.bottom,
        "margin_pixels": margin and margin.pixels,
        "feather": redaction.feather,
        "min_score": detection.min_score,
        "min_face": detection.min_face,
        "max_face": detection.max_face,
        "verify": redaction.verify,
        "keep": spec.metadata.keep,
        "max_image_bytes": limits.max_bytes,
        "max_image_width": limits.max_width,
        "max_image_height": limits.max_height,
        "max_image_pixels": limits.max_pixels,
        "max_image_scans": limits.max_scans,
        "max_waiting": limits.max_waiting,
        "max_message_bytes": limits.max_message_bytes,
        "max_bytes_in_flight": limits.max_bytes_in_flight,
        "max_connection_age_seconds": workers.max_connection_age_seconds,
        "settle_seconds": workers.settle_seconds,
        "grace_seconds": workers.grace_seconds,
        "log_level": workers.log_level,
        "log_format": "json",
        "trace_endpoint": workers.trace_endpoint,
        **_tls(cluster),
    }
    return {PREFIX + name.upper(): _text(value) for name, value in settings.items() if value is not None}


def whole_cores(resources: Resources) -> int | None:
    """Return the cores that a worker has for itself, rounded up; None where neither limit nor request says.

    Without a limit a worker sees all cores of its node, and as many threads would only be in each other's way.
    """
    cpu = resources.limits.get("cpu", resources.requests.get("cpu"))
    cores = quantities.parse(cpu)
    return max(1, math.ceil(cores)) if cores is not None else None


def _tls(cluster: FaceBlurCluster) -> Mapping[str, Any]:
    tls = cluster.spec.tls
    if tls is None:
        return {}
    settings: dict[str, Any] = {"tls_certificate": f"{TLS_FOLDER}/tls.crt", "tls_key": f"{TLS_FOLDER}/tls.key"}
    if tls.mutual:
        settings["tls_client_ca"] = f"{CLIENT_CA_FOLDER}/ca.crt"
        settings["allowed_identities"] = tls.mutual.allowed_identities or None
    return settings


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
