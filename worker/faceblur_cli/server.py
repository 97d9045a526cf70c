"""`--server`: the same command, with the pictures obscured by workers that the SDK reaches.

What the command line does not say, the server decides: only what was given is sent. What the server's defaults are is
asked once, so that a rerun knows whether they, its version or its models have changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import faceblur
from faceblur import FaceBlurClient, FaceBlurError
from faceblur_engine import errors
from faceblur_engine.models import MODELS
from faceblur_engine.types import (
    Box,
    Face,
    Format,
    Keep,
    Limits,
    Margin,
    Method,
    ModelInfo,
    Options,
    Profile,
    Receipt,
    Region,
    Result,
    Shape,
)

from .arguments import asked_of
from .exits import CannotGoOnError, UsageError
from .files import FileProblem
from .interruption import Interrupted

# A run has time: what may succeed later is tried until then, also while workers are replaced. The first question is
# different: nothing has been done yet, and most likely the address is wrong.
_PATIENCE = 300.0
_FIRST_ANSWER = 10.0
_RETRY = faceblur.RetryConfig(attempts=1_000_000)

_SAME: dict[type[FaceBlurError], type[errors.EngineError]] = {
    faceblur.InvalidOptionsError: errors.InvalidOptions,
    faceblur.InvalidImageError: errors.ImageError,
    faceblur.EmptyImageError: errors.EmptyImage,
    faceblur.UnsupportedFormatError: errors.UnsupportedFormat,
    faceblur.UnreadableImageError: errors.UnreadableImage,
    faceblur.MultipleFramesError: errors.MultipleFrames,
    faceblur.VerificationFailedError: errors.VerificationFailed,
    faceblur.ModelUnusableError: errors.ModelError,
    faceblur.RuntimeUnavailableError: errors.RuntimeUnavailable,
}
_NO_RESULT: dict[type[FaceBlurError], str] = {
    faceblur.OverloadedError: "OVERLOADED",
    faceblur.DeadlineTooShortError: "DEADLINE_TOO_SHORT",
    faceblur.DeadlineExceededError: "DEADLINE_EXCEEDED",
    faceblur.MessageTooLargeError: "MESSAGE_TOO_LARGE",
    faceblur.ServerError: "INTERNAL_ERROR",
}
"""Reasons that the engine in this process does not have; other pictures go on. All other errors concern them too."""


def error_of(error: FaceBlurError) -> BaseException:
    """Return what the command does about an error of the SDK, as if the engine in this process had raised it."""
    message = str(error)
    if isinstance(error, faceblur.ClientClosedError):
        return Interrupted()
    if isinstance(error, faceblur.LimitExceededError):
        return errors.LimitExceeded(error.limit, error.value, error.allowed)
    if type(error) in _SAME:
        return _SAME[type(error)](message)
    if type(error) in _NO_RESULT:
        return FileProblem(_NO_RESULT[type(error)], message)
    return CannotGoOnError(message)


class ServerRedactor:
    """What obscures pictures, elsewhere. A `redactor.Redactor`.

    Attributes:
        version: Of the server.
        defaults: What it does where nothing is asked for.
        models: That it has loaded for the profile in use.
    """

    def __init__(self, client: FaceBlurClient, info: faceblur.ServerInfo, asked: Mapping[str, Any]) -> None:
        """Note what the server is.

        Args:
            client: How it is reached.
            info: What it says of itself.
            asked: The fields of `Options` that the command line gives; no others are sent.

        Raises:
            UsageError: The profile is not served there.
        """
        self._client = client
        self.version = info.version
        self.defaults = _options_from(info.defaults)
        profile = asked.get("profile", self.defaults.profile)
        if profile not in info.profiles:
            raise UsageError(f"the server does not have the profile {profile}, only {', '.join(info.profiles)}")
        others = {model.name for model in MODELS if profile not in model.profiles}
        self.models = tuple(
            ModelInfo(model.name, model.sha256, model.runtime) for model in info.models if model.name not in others
        )
        self._asked = frozenset(asked)

    def redact(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Result:
        """See `redactor.Redactor.redact`; the call is ended by `close`, not by the checkpoint."""
        result = self._do(self._client.blur, data, options)
        receipt = _receipt_from(result.receipt)
        # The receipt goes into an audit trail, so it is not taken on trust.
        for content, digest in ((data, receipt.input_sha256), (result.image, receipt.output_sha256)):
            if hashlib.sha256(content).hexdigest() != digest:
                raise CannotGoOnError("the server's receipt is not about this picture and this result")
        return Result(result.image, receipt)

    def detect(self, data: bytes, options: Options, *, checkpoint: Callable[[], None] | None = None) -> Receipt:
        """See `redactor.Redactor.detect`; the call is ended by `close`, not by the checkpoint."""
        return _receipt_from(self._do(self._client.detect, data, options))

    def close(self) -> None:
        """End; calls in other threads end with `Interrupted`."""
        self._client.close()

    def _do(self, call: Callable[..., Any], data: bytes, options: Options) -> Any:
        # The SDK's options have the same names, and the same strings, numbers and boxes for values.
        asked = faceblur.Options(**{name: getattr(options, name) for name in self._asked})
        try:
            return call(data, asked)
        except FaceBlurError as error:
            raise error_of(error) from error


def open_server(args: argparse.Namespace) -> ServerRedactor:
    """Reach the server that the command line names.

    Raises:
        UsageError: The address, a certificate or the profile makes no sense.
        CannotGoOnError: There is no answer, or not a worker's.
    """
    files = {"ca": args.server_ca, "certificate": args.server_certificate, "key": args.server_key}
    try:
        tls = faceblur.TlsConfig(**files) if any(files.values()) else None
        client = FaceBlurClient(args.server, tls=tls, timeout=_PATIENCE, retry=_RETRY)
    except ValueError as error:
        raise UsageError(f"--server: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}, given for --server: {error.strerror}") from error
    try:
        return ServerRedactor(client, client.info(timeout=_FIRST_ANSWER), asked_of(args))
    except FaceBlurError as error:
        client.close()
        raise CannotGoOnError(str(error)) from error
    except UsageError:
        client.close()
        raise


def _options_from(options: faceblur.Options) -> Options:
    """The engine's options; what a server does not tell is as in the engine."""
    told = {field.name: getattr(options, field.name) for field in dataclasses.fields(Options)}
    make: dict[str, Callable[[Any], Any]] = {
        "profile": Profile,
        "method": Method,
        "shape": Shape,
        "format": Format,
        "keep": lambda items: frozenset(map(Keep, items)),
        "margin": lambda margin: Margin(**dataclasses.asdict(margin)),
        "limits": lambda limits: Limits(**dataclasses.asdict(limits)),
        "regions": lambda boxes: tuple(map(_box_from, boxes)),
    }
    return Options(**{name: make.get(name, lambda it: it)(value) for name, value in told.items() if value is not None})


def _receipt_from(receipt: faceblur.Receipt) -> Receipt:
    return Receipt(
        version=receipt.version,
        input_sha256=receipt.input_sha256,
        output_sha256=receipt.output_sha256,
        input_bytes=receipt.input_bytes,
        output_bytes=receipt.output_bytes,
        format=Format(receipt.format or ""),
        output_format=Format(receipt.output_format) if receipt.output_format else None,
        width=receipt.width,
        height=receipt.height,
        faces=tuple(Face(_box_from(face.box), face.score, face.model) for face in receipt.faces),
        regions=tuple(Region(_box_from(r.box), Shape(r.shape), r.radius) for r in receipt.regions),
        models=tuple(ModelInfo(model.name, model.sha256, model.runtime) for model in receipt.models),
        options=receipt.options.as_dict(),
        milliseconds=receipt.milliseconds,
    )


def _box_from(box: faceblur.Box) -> Box:
    return Box(box.x, box.y, box.w, box.h)
