"""What a re-key has done so far, in `rekey.json` beside its part files: a run that was stopped goes on behind its last whole part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from engine.rekey.request import Request
from engine.rekey.sink import disk_error
from keys.errors import Conflict, Corrupt

NAME: Final = "rekey.json"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One finished part file. `witnessed`: keys of it that the derivation witness recomputed."""

    name: str
    first: int
    cards: int
    bytes: int
    sha256: str
    witnessed: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run. Everything but `parts` must be the same for a run to go on. Holds no key and no personal data."""

    format: str
    profile: str
    profile_sha256: str
    population: str
    cards: int
    part_rows: int
    wrap: str
    file_format: str
    keys: tuple[str, ...]
    keks: tuple[str, ...]
    masters: dict[str, str]
    test: bool
    parts: tuple[Part, ...] = ()

    def of(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)


def begin(request: Request, *, test: bool) -> Manifest:
    """The manifest of a run in which nothing is done yet."""
    loaded = request.compiled.loaded
    return Manifest(
        format="citycard-rekey-1",
        profile=loaded.profile.name,
        profile_sha256=loaded.sha256,
        population=request.population.digest,
        cards=request.population.cards,
        part_rows=request.part_rows,
        wrap=request.scheme,
        file_format=request.file_format,
        keys=tuple(key.label for key in request.keys),
        keks=request.keks,
        masters=dict(request.master_kcvs),
        test=test,
    )


def read(directory: Path, wanted: Manifest) -> Manifest:
    """The manifest to go on with: the one in the directory if it is of this very run, else `wanted` where there is none.

    Raises Conflict (REKEY_OTHER_RUN) naming what differs, Corrupt REKEY_MANIFEST.
    """
    path = directory / NAME
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return wanted
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt("REKEY_MANIFEST", f"{path} is damaged: {error}") from None
    old, new = msgspec.structs.asdict(found), msgspec.structs.asdict(wanted)
    different = [name for name in new if name != "parts" and old[name] != new[name]]
    if different:
        raise Conflict("REKEY_OTHER_RUN", f"{directory} holds another run: {', '.join(different)} differ; give a fresh directory")
    return found


def write(directory: Path, manifest: Manifest) -> None:
    """Replaces the manifest durably."""
    path = directory / NAME
    temporary = path.with_suffix(".new")
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise disk_error(error, path) from None


def still_whole(directory: Path, manifest: Manifest, checked: Callable[[Part], None]) -> Manifest:
    """The manifest without parts whose file is gone or is not what was written: they are made again. `checked` sees each whole one."""
    whole = []
    for part in manifest.parts:
        try:
            with (directory / part.name).open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest().upper() == part.sha256
        except OSError:
            same = False
        if same:
            whole.append(part)
            checked(part)
    return msgspec.structs.replace(manifest, parts=tuple(whole))
