"""Records of key ceremonies in a data directory: which there are, what each says, and whether its chain and signatures hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from keys.ceremony.custodians import RECORD_NAME
from keys.ceremony.record import fingerprint, read_record, verify_record
from keys.errors import CitycardError, NotFound

DIRECTORY: Final = "ceremonies"
# What an entry carries beside its own facts.
_FRAME: Final = frozenset({"seq", "prev", "type", "time"})
_OPENING: Final = frozenset({"plan", "public_key", "format"})


def list_all(directory: Path) -> list[dict[str, Any]]:
    """All records, by id: as `look_at`, without their entries. A record that is damaged is listed with what is wrong."""
    found = sorted(path.parent.name for path in directory.glob(f"*/{RECORD_NAME}"))
    return [{name: value for name, value in look_at(directory, ceremony_id).items() if name != "entries"} for ceremony_id in found]


def look_at(directory: Path, ceremony_id: str) -> dict[str, Any]:
    """One record: kind, state, times, signer and entries. `fault` is empty while chain and signatures hold.

    Raises NotFound CEREMONY_UNKNOWN.
    """
    path = directory / ceremony_id / RECORD_NAME
    if path.parent.parent != directory or not path.is_file():
        raise NotFound("CEREMONY_UNKNOWN", f"there is no record of a ceremony {ceremony_id!r}")
    try:
        record = verify_record(read_record(path), complete=False)
    except CitycardError as error:
        return {"ceremony": ceremony_id, "state": "damaged", "fault": error.message, "entries": []}
    first, last = record.entries[0], record.entries[-1]
    return {
        "ceremony": ceremony_id,
        "kind": str(first.get("kind", "")),
        "state": str(last["type"]) if record.complete else "open",
        "test": bool(first.get("test", False)),
        "opened": str(first["time"]),
        "last": str(last["time"]),
        "signer": fingerprint(first["public_key"]),
        "fault": "",
        "entries": [
            {"type": entry["type"], "time": entry["time"]} | {k: v for k, v in entry.items() if k not in _FRAME | _OPENING}
            for entry in record.entries
        ],
    }
