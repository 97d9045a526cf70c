"""What is public, what it costs to import, and what it needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import faceblur
from faceblur import KeepaliveConfig, _types
from faceblur._config import target_of
from faceblur_engine import types as engine

NAMES = [
    "AccessDeniedError",
    "AsyncFaceBlurClient",
    "BlurResult",
    "Box",
    "ClientClosedError",
    "DeadlineExceededError",
    "DeadlineTooShortError",
    "EmptyImageError",
    "Face",
    "FaceBlurClient",
    "FaceBlurError",
    "Format",
    "InvalidImageError",
    "InvalidOptionsError",
    "Keep",
    "KeepaliveConfig",
    "LimitExceededError",
    "Limits",
    "Margin",
    "MessageTooLargeError",
    "Method",
    "ModelInfo",
    "ModelUnusableError",
    "MultipleFramesError",
    "Options",
    "Outcome",
    "OverloadedError",
    "Profile",
    "ProtocolError",
    "Receipt",
    "Region",
    "RetryConfig",
    "RuntimeUnavailableError",
    "ServerError",
    "ServerInfo",
    "Shape",
    "Source",
    "TlsConfig",
    "TransientError",
    "UnavailableError",
    "UnreadableImageError",
    "UnsupportedFormatError",
    "VerificationFailedError",
    "__version__",
]


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the code."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_the_public_names_are_these() -> None:
    assert sorted(faceblur.__all__) == sorted(NAMES) == sorted(dir(faceblur))
    for name in NAMES:
        assert getattr(faceblur, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="blurr"):
        faceblur.blurr  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_alone_loads_nothing_heavy() -> None:
    loaded = loaded_by("import faceblur; faceblur.__version__")
    assert not {"grpc", "google.protobuf", "asyncio"} & loaded
    assert not {"grpc", "google.protobuf"} & loaded_by("import faceblur; faceblur.Options()")


def test_the_sdk_needs_nothing_but_grpc_and_protobuf() -> None:
    loaded = loaded_by("import faceblur._client, faceblur.testing")
    # grpc imports the last two where they are installed.
    ours = {"faceblur", "grpc", "google", "typing_extensions", "grpc_health", "grpc_reflection"}
    before = loaded_by("pass")
    strange = {name.partition(".")[0] for name in loaded - before} - ours - set(sys.stdlib_module_names)
    assert not {name for name in strange if not name.startswith(("_", "cython_"))}


@pytest.mark.parametrize("name", ["Profile", "Method", "Shape", "Format", "Keep"])
def test_the_values_are_those_of_the_engine(name: str) -> None:
    assert {m.name: m.value for m in getattr(_types, name)} == {m.name: m.value for m in getattr(engine, name)}


@pytest.mark.parametrize("name", ["Options", "Limits", "Margin", "Box", "Face", "Region", "Receipt"])
def test_the_fields_are_those_of_the_engine(name: str) -> None:
    assert getattr(_types, name).__slots__ == getattr(engine, name).__slots__


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("localhost:50051", "dns:///localhost:50051"),
        ("[::1]:50051", "dns:///[::1]:50051"),
        ("dns:///workers:1", "dns:///workers:1"),
        ("dns://10.0.0.2/workers:1", "dns://10.0.0.2/workers:1"),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
        ("unix:/run/faceblur.sock", "unix:/run/faceblur.sock"),
    ],
)
def test_a_server_is_an_address_or_a_target(written: str, target: str) -> None:
    assert target_of(written) == target


@pytest.mark.parametrize("written", ["", "localhost", ":50051", "host:port", "http://host:50051"])
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        target_of(written)


@pytest.mark.parametrize("wrong", [{"interval": 5}, {"timeout": 0}])
def test_a_keepalive_that_servers_do_not_allow_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KeepaliveConfig(**wrong)
