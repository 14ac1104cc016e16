"""The compiled kernels and their known answers are what was built: compared with the digests that the build wrote beside them.

Checked before the extension is loaded, because a changed one may do anything once it is. This finds accidents of disk, copy and
memory; it is no signature: who can change the extension can change its digest too.
"""

import hashlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ANSWERS: Final = HERE / "selftest.json"
RECORD_SUFFIX: Final = ".sha256"


def extension() -> Path:
    """The file that `import cext._kernels` loads; ImportError when there is none."""
    for suffix in EXTENSION_SUFFIXES:
        path = HERE / f"_kernels{suffix}"
        if path.exists():
            return path
    raise _error("the kernels are not built for this Python: run `python setup.py build_ext --inplace`", HERE / "_kernels")


def verify() -> None:
    """Raises ImportError, its `name` cext._kernels, unless extension and known answers have the digests of the build."""
    path = extension()
    record = path.with_name(path.name + RECORD_SUFFIX)
    try:
        wanted = record.read_bytes()
    except FileNotFoundError:
        raise _error(f"{record} is missing: build the kernels again", record) from None
    if wanted != digests(path):
        raise _error(f"{path.name} or {ANSWERS.name} in {HERE} is not the file that was built: install or build it again", path)


def digests(path: Path) -> bytes:
    """What the build records for an extension: SHA-256 of it and of the known answers, as sha256sum prints them."""
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in (path, ANSWERS)).encode()


def _error(message: str, path: Path) -> ImportError:
    return ImportError(message, name="cext._kernels", path=str(path))
