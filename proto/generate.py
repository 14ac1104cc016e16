"""Regenerates the checked-in gRPC stubs: `python proto/generate.py`; `--check` fails when they differ from the .proto files."""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("citycard/v1")


def generate(out: Path) -> None:
    """Writes messages, services and their type stubs for every .proto below citycard/v1 to `out`."""
    scripts = Path(sysconfig.get_path("scripts"))
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / PACKAGE).glob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out={out}",
            f"--mypy_grpc_out=only_async:{out}",
            *sources,
        ]
    )
    if status:
        raise SystemExit(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        generate(out)
        made = sorted((out / PACKAGE).iterdir())
        stale = [
            p.name
            for p in made
            if not (ROOT / PACKAGE / p.name).exists() or not filecmp.cmp(p, ROOT / PACKAGE / p.name, shallow=False)
        ]
        if check and stale:
            print("stubs differ from the .proto files, run `python proto/generate.py`:", ", ".join(stale))
            return 1
        for path in () if check else made:
            shutil.copyfile(path, ROOT / PACKAGE / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
