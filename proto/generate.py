"""Writes the Python stubs under python/faceblur/v1 from the contract; `--check` only says whether they would change.

The stubs are committed, so that nobody who installs the SDK needs a compiler, and are made by the oldest
supported grpcio-tools: older output runs on newer protobuf and grpcio, never the other way round. That tool needs an
old protobuf, hence an environment of its own (`make generate` makes it from requirements.txt).
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.metadata
import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

PROTO = Path(__file__).resolve().parent
SOURCES = sorted((PROTO / "faceblur" / "v1").glob("*.proto"))
TARGET = PROTO / "python" / "faceblur" / "v1"
SERVICES = "*_service.proto"


def check_tools() -> None:
    """End unless the tools are exactly the pinned ones."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (PROTO / "requirements.in").read_text(), re.MULTILINE))
    for name, version in pinned.items():
        found = importlib.metadata.version(name)
        if found != version:
            sys.exit(f"{name} is {found}, the stubs are made with {version}: run `make generate`")


def generate(into: Path) -> None:
    """Compile every file of the contract; gRPC code only for services.

    Args:
        into: The folder that gets ``faceblur/v1``.
    """
    from grpc_tools import protoc

    tools = Path(sys.executable).parent
    plugins = [f"--plugin={tools / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    common = ["protoc", *plugins, f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}"]
    names = [str(source.relative_to(PROTO)) for source in SOURCES]
    services = [str(source.relative_to(PROTO)) for source in SOURCES if source.match(SERVICES)]
    for arguments in (
        [f"--python_out={into}", f"--mypy_out=quiet:{into}", *names],
        [f"--grpc_python_out={into}", f"--mypy_grpc_out=quiet:{into}", *services],
    ):
        if protoc.main([*common, *arguments]) != 0:
            sys.exit("protoc failed, see above")
    package = into / "faceblur" / "v1"
    package.joinpath("__init__.py").write_text('"""Generated from proto/faceblur/v1 by `make generate`."""\n')


def differences(left: Path, right: Path) -> list[str]:
    """Names of files that are not the same in both folders."""
    names = {path.name for folder in (left, right) for path in folder.glob("*.py*") if path.is_file()}
    _, mismatch, errors = filecmp.cmpfiles(left, right, names, shallow=False)
    return sorted([*mismatch, *errors])


def main() -> None:
    """Generate or check, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if the committed stubs are not up to date")
    check = parser.parse_args().check
    check_tools()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = Path(folder) / "faceblur" / "v1"
        if check:
            if changed := differences(made, TARGET):
                sys.exit(f"not up to date, run `make generate`: {', '.join(changed)}")
        else:
            shutil.rmtree(TARGET, ignore_errors=True)
            shutil.copytree(made, TARGET)


if __name__ == "__main__":
    main()
