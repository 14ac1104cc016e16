"""Which custody a data directory has: `custody.toml`, and the opening of what it names.

    custody = "token"                                  software | token | sealed
    module = "/usr/lib/softhsm/libsofthsm2.so"         of a token: any vendor's PKCS#11 module, the label, the serial number
    label = "city"
    serial = "5a7c0d1e2f304152"

Without that file it is the software custody. A sealed store (`sealed.json`) beside a token holds what the token cannot, SM4 masters above
all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, Literal

import msgspec

from keys.custody.sealedstore import FILE_NAME as SEALED_FILE
from keys.custody.token import TokenConfig
from keys.errors import Conflict, InvalidInput

Kind = Literal["software", "token", "sealed"]
Mode = Literal["test", "production"]
SETUP_FILE: Final = "custody.toml"
KEYSTORE_FILE: Final = "keystore.json"


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `custody.toml`."""

    custody: Kind = "software"
    module: str = ""
    label: str = ""
    serial: str = ""

    def token(self) -> TokenConfig:
        """Which token."""
        return TokenConfig(Path(self.module), self.label, self.serial or None)


def read_setup(data: Path) -> Setup:
    """The custody of a data directory. Raises InvalidInput CUSTODY_SETUP naming what is wrong."""
    path = data / SETUP_FILE
    try:
        setup = msgspec.toml.decode(path.read_bytes(), type=Setup)
    except FileNotFoundError:
        return Setup()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput("CUSTODY_SETUP", f"{path}: {error}") from None
    if (setup.custody == "token") != bool(setup.module and setup.label):
        raise InvalidInput("CUSTODY_SETUP", f"{path}: custody token, and no other, has a module and a label")
    return setup


def write_setup(data: Path, setup: Setup) -> None:
    """Writes it once. Raises Conflict KEYSTORE_EXISTS when the directory has a custody."""
    for name in (SETUP_FILE, KEYSTORE_FILE, SEALED_FILE):
        if (data / name).exists():
            raise Conflict("KEYSTORE_EXISTS", f"{data / name} exists: a data directory has one custody, which is never made anew")
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    given = {name: value for name, value in msgspec.structs.asdict(setup).items() if value}
    # a JSON string of printable text is a TOML string
    (data / SETUP_FILE).write_text("".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in given.items()))


def require_kind(setup: Setup, wanted: str | None, data: Path) -> None:
    """Raises InvalidInput CUSTODY_OTHER unless the directory has the custody somebody asks for; None asks for none in particular."""
    if wanted is not None and wanted != setup.custody:
        raise InvalidInput("CUSTODY_OTHER", f"the keys of {data} are in custody {setup.custody}, not {wanted}")
