"""The shape of a profile file. Data only; meaning that spans several fields is checked by `lint`, not here.

Hex is text with an upper-case pattern, never a `bytes` field: msgspec decodes text into `bytes` as base64 and would turn a
32-digit test key into 24 wrong bytes without a word.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from keys.errors import InvalidInput, NotFound

# \Z, not $: the latter also matches before a line break at the end, and int() and bytes.fromhex() would not mind it.
Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{2})+\Z")]
HexByte = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{2}\Z")]
HexWord = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{4}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
Algorithm = Literal["3des", "sm4", "aes"]
Codec = Literal["an", "cn", "n", "raw", "gb"]
Proof = Literal["internal-authenticate", "external-authenticate", "initialize-for-load", "generate-ac", "sample", "kcv-only"]
KeyLayout = Literal["capp", "bare", "tunion"]
DomainName = Literal["social-security", "finance", "transport", "health", "city"]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every table: an unknown key is an error, and nothing changes after loading."""


class Item(Strict, frozen=True, kw_only=True):
    """One piece of text that goes into a field: an order column, a drawn serial, a chip fact, or constant text."""

    field: str | None = None
    text: str | None = None
    # Half-open character range of the field, as in Python.
    slice: tuple[int, int] | None = None


class Part(Strict, frozen=True, kw_only=True):
    """One piece of a DGI's value. Exactly one of the kinds is given."""

    hex: Hex | None = None
    field: str | None = None
    concat: list[Item] | None = None
    tlv: Hex | None = None
    files: list[FileEntry] | None = None
    keys: str | None = None
    kcvs: str | None = None
    pin_block: bool | None = None
    # With field and concat: how text becomes bytes, and how many. No length: as long as the text, so by PAN length.
    codec: Codec | None = None
    length: Annotated[int, msgspec.Meta(ge=1, le=255)] | None = None
    slice: tuple[int, int] | None = None
    # With tlv: the value. With files: the DF they belong to. With keys: how they lie.
    parts: list[Part] | None = None
    df: Hex | None = None
    layout: KeyLayout | None = None


class FileEntry(Strict, frozen=True, kw_only=True):
    """One file of a DF, as the maker's A001 lists it. Access: 00 free, FF never, else the KID to be authenticated."""

    fid: HexWord
    sfi: HexByte
    type: Literal["transparent", "linear", "cyclic"]
    size: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    read: HexByte
    update: HexByte


class Dgi(Strict, frozen=True, kw_only=True):
    """One data grouping (EMV CPS): number and value."""

    id: HexWord
    note: str = ""
    parts: list[Part]


class KeyEntry(Strict, frozen=True, kw_only=True):
    """One key of a key set: what it is called, how the card names it, and how production proves it."""

    name: Name
    kid: HexByte
    purpose: HexByte
    version: HexByte = "01"
    retry: HexByte = "0F"
    prove: Proof = "kcv-only"
    # Dispersed from another key of the same owner; default: the key's own name.
    master: str | None = None


class KeySet(Strict, frozen=True, kw_only=True):
    """Keys that lie together and descend the same way. Master ids are `<masters>.<key name>`."""

    name: Name
    masters: str
    algorithm: Algorithm
    method: Literal["pboc", "emv-a", "emv-b"]
    # Root to card, 8 bytes each: "ascii:" and 8 characters, "hex:" and 16 digits; last one of "chip-serial", "serial:<pool>", "pan-psn".
    factors: list[str]
    parity: Literal["none", "odd"] = "none"
    table: str | None = None
    keys: list[KeyEntry] = []
    df: Hex | None = None


class GenerateAc(Strict, frozen=True, kw_only=True):
    """What a terminal would send so that the card answers with an ARQC; used by `prove = "generate-ac"`."""

    pdol_data: Hex
    cdol1_data: Hex
    keyset: str


class Load(Strict, frozen=True, kw_only=True):
    """INITIALIZE FOR LOAD: one key index, amount and terminal; used by `prove = "initialize-for-load"`."""

    keyset: str
    key: str
    key_index: HexByte
    amount: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{8}\Z")]
    terminal: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{12}\Z")]


class Purchase(Strict, frozen=True, kw_only=True):
    """INITIALIZE FOR PURCHASE and DEBIT on a quality sample, paid from the key set's load; used by `prove = "sample"`."""

    keyset: str
    key: str
    tac: str
    key_index: HexByte
    amount: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{8}\Z")]
    terminal: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{12}\Z")]


class Application(Strict, frozen=True, kw_only=True):
    """One applet instance on the chip: its identity, its data, its keys and how they are proven."""

    name: Name
    domain: DomainName
    aid: Hex
    keysets: list[KeySet] = []
    dgis: list[Dgi]
    generate_ac: list[GenerateAc] = []
    load: list[Load] = []
    purchase: list[Purchase] = []
    # A remake keeps PAN and so the finance key: "next" raises the PSN, "same" leaves PSN to the bank and waits for destruction.
    remake_psn: Literal["next", "same"] | None = None


class ChannelKeys(Strict, frozen=True, kw_only=True):
    """One set of secure channel keys: the version on the chip and the master they descend from by the chip's KDD."""

    kvn: HexByte
    master: str
    method: Literal["gp-kdf3", "gp-emv", "gp-visa2"]

    @property
    def algorithm(self) -> Algorithm:
        """Cipher of the master and of the card's keys, which the method decides."""
        return "aes" if self.method == "gp-kdf3" else "3des"


class Channel(Strict, frozen=True, kw_only=True):
    """The secure channel and what becomes of its keys."""

    protocol: Literal["scp02", "scp03"]
    i: HexByte
    level: Literal["01", "03", "11", "13", "33"]
    transport: ChannelKeys
    issuer: ChannelKeys


class Chip(Strict, frozen=True, kw_only=True):
    """The blank this profile is made for."""

    chip_type: str
    isd_aid: Hex
    # A card at or past INTENT that is not finished after this many seconds is torn.
    max_chip_time_s: Annotated[int, msgspec.Meta(ge=5, le=3600)]
    lease_s: Annotated[int, msgspec.Meta(ge=2, le=600)] = 30


class SerialPool(Strict, frozen=True, kw_only=True):
    """Numbers that go on one card each and are never reused: `prefix` digits, then the number, `digits` in all."""

    name: Name
    prefix: Annotated[str, msgspec.Meta(pattern=r"^[0-9]*\Z")]
    digits: Annotated[int, msgspec.Meta(ge=8, le=20)]
    first: Annotated[int, msgspec.Meta(ge=1)]
    last: Annotated[int, msgspec.Meta(ge=1)]


class Pin(Strict, frozen=True, kw_only=True):
    """Where a card's PIN comes from, since orders carry none."""

    # derived: four to six digits from a keyed function of the attempt; nobody is told; the holder sets one at a counter.
    source: Literal["derived"]
    digits: Annotated[int, msgspec.Meta(ge=4, le=6)] = 6


class Profile(Strict, frozen=True, kw_only=True):
    """A whole card."""

    schema_version: Literal[1]
    name: Name
    version: str
    title: str
    assumptions: list[str] = []
    chip: Chip
    channel: Channel
    pin: Pin
    serials: list[SerialPool] = []
    key_tables: dict[str, list[KeyEntry]] = {}
    applications: list[Application]

    def keys_of(self, keyset: KeySet) -> list[KeyEntry]:
        """The set's own keys, or those of the table it names."""
        return self.key_tables.get(keyset.table, []) if keyset.table else keyset.keys

    def keysets(self) -> Iterator[tuple[Application, KeySet]]:
        for application in self.applications:
            for keyset in application.keysets:
                yield application, keyset


class LoadedProfile(msgspec.Struct, frozen=True):
    """A profile with the digest of the very bytes it was read from, those of the profile it extends included."""

    profile: Profile
    sha256: str
    path: Path


SHIPPED = Path(__file__).parent / "data"


def parse(text: bytes, where: str, base: bytes | None = None) -> Profile:
    """Decodes a profile; InvalidInput PROFILE_INVALID names the place in the file.

    With `base`, the text of the profile that `extends` names, what the file says replaces the base's at the top of the file, and its
    assumptions come after the base's.
    """
    try:
        values = tomllib.loads(text.decode())
        if base is not None:
            values = _extended(tomllib.loads(base.decode()), values)
        return msgspec.convert(values, Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput("PROFILE_INVALID", f"{where}: {error}") from None
    except RecursionError:
        raise InvalidInput("PROFILE_INVALID", f"{where}: tables or lists are nested too deeply") from None


def load(name_or_path: str) -> LoadedProfile:
    """Reads a shipped profile by name, or any profile by the path of its .toml file."""
    path = Path(name_or_path) if name_or_path.endswith(".toml") else SHIPPED / f"{name_or_path}.toml"
    if not name_or_path.endswith(".toml") and ("/" in name_or_path or name_or_path not in shipped()):
        raise NotFound("PROFILE_UNKNOWN", f"no profile is called {name_or_path!r}; there are: {', '.join(shipped())}")
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise NotFound("PROFILE_UNREADABLE", f"profile file {path}: {getattr(error, 'strerror', None) or error}") from None
    base = _base_of(text)
    digest = hashlib.sha256(text + (base or b"")).hexdigest().upper()
    return LoadedProfile(profile=parse(text, str(path.name), base), sha256=digest, path=path)


def _base_of(text: bytes) -> bytes | None:
    """The text of the shipped profile that this one extends. What cannot be read here is for `parse` to report."""
    try:
        name = tomllib.loads(text.decode()).get("extends")
    except (ValueError, RecursionError):
        return None
    if name is None:
        return None
    if name not in shipped():
        raise NotFound("PROFILE_UNKNOWN", f"extends: no profile is called {name!r}; there are: {', '.join(shipped())}")
    return (SHIPPED / f"{name}.toml").read_bytes()


def _extended(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in values.items() if name != "extends"}
    said = own.get("assumptions", [])
    if isinstance(said, list):  # anything else is for the model to refuse
        own["assumptions"] = [*base.get("assumptions", []), *said]
    return base | own


def shipped() -> list[str]:
    """Names of the profiles that come with citycard."""
    return sorted(p.stem for p in SHIPPED.glob("*.toml"))
