import dataclasses
import hashlib
from pathlib import Path

import pytest

from faceblur_engine.errors import ModelError
from faceblur_engine.models import MODELS, Model

FOLDER = Path(MODELS[0].path).parent


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_is_the_pinned_file_and_has_its_licence_beside_it(model: Model):
    assert hashlib.sha256(model.load()).hexdigest() == model.sha256
    assert (FOLDER / f"LICENSE-{model.name}").read_text().strip()


def test_no_model_lies_in_the_folder_unlisted():
    listed = {model.file for model in MODELS}
    assert {path.name for path in FOLDER.iterdir() if path.suffix in (".onnx", ".tflite")} == listed


def test_a_changed_model_is_refused_and_the_message_names_it():
    changed = dataclasses.replace(MODELS[0], sha256="0" * 64)
    with pytest.raises(ModelError, match=MODELS[0].file):
        changed.load()


def test_a_missing_model_is_refused_and_the_message_says_what_to_do():
    missing = dataclasses.replace(MODELS[0], file="gone.onnx")
    with pytest.raises(ModelError, match=r"gone\.onnx.*install faceblur again"):
        missing.load()
