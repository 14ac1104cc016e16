"""Compiles a profile into a byte template of the card image and a fill plan, once per job and PAN length.

The image is the concatenation of every application's STORE DATA payload, in the clear. Preparing n cards then is: repeat the
template n times, write columns at offsets, write keys and check values at offsets. No loop over cards x fields anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final, Literal

import numpy as np

from engine.profiles.fields import PAN_DIGITS, byte_length, items_of, widths
from engine.profiles.model import (
    Algorithm,
    Application,
    ChannelKeys,
    GenerateAc,
    KeyEntry,
    KeySet,
    Load,
    LoadedProfile,
    Part,
    Proof,
)
from engine.profiles.plan import Places, Run, TextFill, TextPlan, plan_runs, plan_texts
from keys.custody import Derivation
from keys.errors import InvalidInput

# Short APDUs: 255 less the 8-byte C-MAC and pad80, to 16 with SCP03 in S8 mode, to 8 with SCP02: the same.
MAX_PLAIN: Final = 239
# P2 numbers the STORE DATA commands of one application (GPC 2.3.1, 11.11).
MAX_BLOCKS: Final = 256
# Le 00 in a short APDU.
MAX_READ: Final = 256
FILE_TYPES: Final = {"transparent": 1, "linear": 2, "cyclic": 4}
PIN_PADDING: Final = {"scp02": "", "scp03": "8000000000000000"}
# Files of the e-purse that T-Union personalization writes whole (JT/T 978): DGI -> short file identifier.
PURSE_FILES: Final = {"B001": 0x15, "B002": 0x16, "B003": 0x17}


@dataclass(frozen=True)
class CardKey:
    """One key of the card: where its master is, how it descends, where it lies, and how it is proven."""

    application: str
    domain: str
    keyset: str
    name: str
    master_id: str
    algorithm: Algorithm
    method: str
    upper_factors: tuple[bytes, ...]
    card_factor: str
    parity: Literal["none", "odd"]
    df: bytes
    kid: int
    purpose: int
    prove: Proof

    @property
    def label(self) -> str:
        return f"{self.application}/{self.keyset}/{self.name}"


@dataclass(frozen=True)
class Command:
    """One STORE DATA: P1, P2 and its plain data image[start:end]."""

    p1: int
    p2: int
    start: int
    end: int


@dataclass(frozen=True)
class AppletImage:
    """One application's part of the image."""

    name: str
    aid: bytes
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class ReadCheck:
    """A public file's content that must read back as image[start:end]. record 0: transparent file."""

    application: str
    df: bytes
    sfi: int
    record: int
    start: int
    end: int


@dataclass(frozen=True)
class CompiledProfile:
    """Everything that does not change from card to card. Offsets are bytes into the image."""

    loaded: LoadedProfile
    pan_digits: int
    template: bytes
    texts: tuple[TextFill, ...]
    keys: tuple[CardKey, ...]
    # (offset, index into keys); a key may lie in one place only.
    key_offsets: tuple[tuple[int, int], ...]
    kcv_offsets: tuple[tuple[int, int], ...]
    pin_offsets: tuple[int, ...]
    # The same as indexes: what images are built with.
    derivations: tuple[Derivation, ...]
    text_plan: TextPlan
    key_runs: tuple[Run, ...]
    kcv_runs: tuple[Run, ...]
    # (algorithm, first, after): keys of one algorithm lie together.
    algorithms: tuple[tuple[Algorithm, int, int], ...]
    # (offset, length) of what the DEK encrypts before STORE DATA, each on its own.
    spans: tuple[tuple[int, int], ...]
    applets: tuple[AppletImage, ...]
    reads: tuple[ReadCheck, ...]
    generate_acs: tuple[tuple[Application, GenerateAc, int], ...]
    loads: tuple[tuple[Application, Load, int], ...]
    # (application, DGI id) -> value's place in the image; of DGIs that occur once.
    values: dict[tuple[str, str], tuple[int, int]]

    @property
    def image_len(self) -> int:
        return len(self.template)

    @cached_property
    def factor_kinds(self) -> tuple[tuple[CardKey, ...], tuple[int, ...]]:
        """One key for each kind of card level factor, and for every key which of these kinds is its own."""
        kinds = {(key.card_factor, key.method): key for key in reversed(self.keys)}
        order = {at: number for number, at in enumerate(kinds)}
        return tuple(kinds.values()), tuple(order[key.card_factor, key.method] for key in self.keys)

    @cached_property
    def key_index(self) -> Places | None:
        """The place in the image of every byte of every key (k, 16); None where a key does not lie in it."""
        if sorted(number for _, number in self.key_offsets) != list(range(len(self.keys))):
            return None
        first = np.empty(len(self.keys), np.intp)
        for offset, number in self.key_offsets:
            first[number] = offset
        return first[:, None] + np.arange(16)

    @cached_property
    def kcv_index(self) -> tuple[Places, Places]:
        """Numbers of the keys whose check values lie in the image (c,), and the place of every byte of these (c, 3)."""
        offsets = np.array([offset for offset, _ in self.kcv_offsets], np.intp)
        return np.array([number for _, number in self.kcv_offsets], np.intp), offsets[:, None] + np.arange(3)


@dataclass
class _Value:
    """A DGI value being put together; offsets are relative to its start."""

    data: bytearray = field(default_factory=bytearray)
    texts: list[TextFill] = field(default_factory=list)
    keys: list[tuple[int, int]] = field(default_factory=list)
    kcvs: list[tuple[int, int]] = field(default_factory=list)
    pins: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)

    def append(self, other: _Value) -> None:
        at = len(self.data)
        self.data += other.data
        self.texts += [replace(t, offset=t.offset + at) for t in other.texts]
        self.keys += [(o + at, k) for o, k in other.keys]
        self.kcvs += [(o + at, k) for o, k in other.kcvs]
        self.pins += [o + at for o in other.pins]
        self.spans += [(o + at, n) for o, n in other.spans]


def factor_bytes(text: str) -> bytes:
    """The eight bytes of a constant factor, "ascii:410100sx" or "hex:…"; InvalidInput FACTOR_INVALID otherwise."""
    kind, _, value = text.partition(":")
    try:
        factor = value.encode("ascii") if kind == "ascii" else bytes.fromhex(value) if kind == "hex" else b""
    except ValueError:
        factor = b""
    if len(factor) != 8:
        raise InvalidInput("FACTOR_INVALID", f"factor {text!r} is not eight bytes written ascii:… or hex:…")
    return factor


def length_field(count: int) -> bytes:
    """DGI length: one byte below 255, else FF and two bytes (EMV CPS 1.1). InvalidInput VALUE_TOO_LONG above 65,535."""
    _require_length(count)
    return bytes([count]) if count < 255 else b"\xff" + count.to_bytes(2, "big")


def ber_length(count: int) -> bytes:
    """BER-TLV length; InvalidInput VALUE_TOO_LONG above 65,535."""
    _require_length(count)
    if count < 0x80:
        return bytes([count])
    return b"\x81" + bytes([count]) if count < 0x100 else b"\x82" + count.to_bytes(2, "big")


def _require_length(count: int) -> None:
    if count > 0xFFFF:
        raise InvalidInput("VALUE_TOO_LONG", f"a value of {count} bytes has no two-byte length")


class _Compiler:
    def __init__(self, loaded: LoadedProfile, pan_digits: int) -> None:
        self.loaded = loaded
        self.profile = loaded.profile
        self.pan_digits = pan_digits
        self.known = widths(self.profile, pan_digits)
        self.image = _Value()
        self.keys: list[CardKey] = []
        self.first_key: dict[tuple[str, str], int] = {}
        self.applets: list[AppletImage] = []
        self.reads: list[ReadCheck] = []
        self.values: dict[tuple[str, str], tuple[int, int]] = {}
        # by algorithm, so that each cipher works on one stretch of keys
        for application, keyset in sorted(self.profile.keysets(), key=lambda pair: pair[1].algorithm):
            self._add_keys(application, keyset)

    def _add_keys(self, application: Application, keyset: KeySet) -> None:
        self.first_key[application.name, keyset.name] = len(self.keys)
        df = bytes.fromhex(keyset.df or application.aid)
        for entry in self.profile.keys_of(keyset):
            self.keys.append(
                CardKey(
                    application=application.name,
                    domain=application.domain,
                    keyset=keyset.name,
                    name=entry.name,
                    master_id=f"{keyset.masters}.{entry.master or entry.name}",
                    algorithm=keyset.algorithm,
                    method=keyset.method,
                    upper_factors=tuple(factor_bytes(f) for f in keyset.factors[:-1]),
                    card_factor=keyset.factors[-1],
                    parity=keyset.parity,
                    df=df,
                    kid=int(entry.kid, 16),
                    purpose=int(entry.purpose, 16),
                    prove=entry.prove,
                )
            )

    def compile(self) -> CompiledProfile:
        for application in self.profile.applications:
            self._application(application)
        return CompiledProfile(
            loaded=self.loaded,
            pan_digits=self.pan_digits,
            template=bytes(self.image.data),
            texts=tuple(self.image.texts),
            keys=tuple(self.keys),
            key_offsets=tuple(self.image.keys),
            kcv_offsets=tuple(self.image.kcvs),
            pin_offsets=tuple(self.image.pins),
            derivations=tuple(derivation_of(key) for key in self.keys),
            text_plan=plan_texts(self.image.texts, self.known),
            key_runs=plan_runs(self.image.keys),
            kcv_runs=plan_runs(self.image.kcvs),
            algorithms=tuple(self._algorithms()),
            spans=tuple(self.image.spans),
            applets=tuple(self.applets),
            reads=tuple(self.reads),
            generate_acs=tuple((a, g, self._key(a, g.keyset, "ac")) for a in self.profile.applications for g in a.generate_ac),
            loads=tuple((a, load, self._key(a, load.keyset, load.key)) for a in self.profile.applications for load in a.load),
            values=self.values,
        )

    def _algorithms(self) -> Iterator[tuple[Algorithm, int, int]]:
        names = [key.algorithm for key in self.keys]
        for name in dict.fromkeys(names):
            first = names.index(name)
            yield name, first, first + names.count(name)

    def _key(self, application: Application, keyset: str, name: str) -> int:
        for index, key in enumerate(self.keys):
            if (key.application, key.keyset, key.name) == (application.name, keyset, name):
                return index
        raise InvalidInput("KEY_UNKNOWN_IN_PROFILE", f"{application.name}: no key {name!r} in key set {keyset!r}")

    def _application(self, application: Application) -> None:
        blocks: list[tuple[bool, int, int]] = []  # (encrypted, start, end) of each whole DGI
        df, capp = bytes.fromhex(application.aid), False
        public: dict[int, bool] = {}
        for dgi in application.dgis:
            value = self._parts(application, dgi.parts)
            start = len(self.image.data)
            head = bytes.fromhex(dgi.id) + length_field(len(value.data))
            self.image.append(_Value(bytearray(head)))
            place = len(self.image.data), len(self.image.data) + len(value.data)
            self.image.append(value)
            blocks.append((bool(value.spans), start, len(self.image.data)))
            self.values[application.name, dgi.id] = place
            for part in dgi.parts:
                if part.files is not None:
                    capp, df = True, bytes.fromhex(part.df or application.aid)
                    public = {int(f.sfi, 16): f.read == "00" for f in part.files}
            sfi, record = bytes.fromhex(dgi.id)
            if dgi.id in PURSE_FILES:
                self._read(ReadCheck(application.name, df, PURSE_FILES[dgi.id], 0, *place))
            elif 1 <= sfi <= (0x1E if capp else 10) and 1 <= record <= 0xFE and (public.get(sfi, False) if capp else True):
                self._read(ReadCheck(application.name, df, sfi, record, *place))
        self.applets.append(AppletImage(application.name, bytes.fromhex(application.aid), tuple(pack(blocks))))

    def _read(self, read: ReadCheck) -> None:
        if read.end - read.start > MAX_READ:
            raise InvalidInput("RECORD_TOO_LONG", f"{read.application} file {read.sfi:02X}: more than {MAX_READ} bytes cannot be read back")
        self.reads.append(read)

    def _parts(self, application: Application, parts: list[Part]) -> _Value:
        value = _Value()
        for part in parts:
            value.append(self._part(application, part))
        return value

    def _part(self, application: Application, part: Part) -> _Value:  # noqa: PLR0911 - one return for each kind of part
        if part.hex is not None:
            return _Value(bytearray.fromhex(part.hex))
        if part.tlv is not None:
            inner = self._parts(application, part.parts or [])
            value = _Value(bytearray(bytes.fromhex(part.tlv) + ber_length(len(inner.data))))
            value.append(inner)
            return value
        if part.files is not None:
            df = bytes.fromhex(part.df or application.aid)
            value = _Value(bytearray([len(df)]) + df)
            for f in part.files:
                value.data += bytes.fromhex(f.fid + f.sfi) + bytes([FILE_TYPES[f.type]]) + f.size.to_bytes(2, "big")
                value.data += bytes.fromhex(f.read + f.update)
            return value
        if part.keys is not None:
            return self._keys(application, part)
        if part.kcvs is not None:
            first, entries = self._keyset(application, part.kcvs)
            return _Value(bytearray(3 * len(entries)), kcvs=[(3 * i, first + i) for i in range(len(entries))])
        if part.pin_block:
            # a DES key takes the 8-byte PIN block as it is (EMV CPS 3.2.7); an AES key works on 16 bytes: pad80
            padding = bytes.fromhex(PIN_PADDING[self.profile.channel.protocol])
            return _Value(bytearray(8) + padding, pins=[0], spans=[(0, 8 + len(padding))])
        length, items = byte_length(part, self.known), tuple(items_of(part))
        full = part.length is None or len(items) > 1
        return _Value(bytearray(length), texts=[TextFill(0, length, items, part.codec or "raw", full)])

    def _keyset(self, application: Application, name: str) -> tuple[int, list[KeyEntry]]:
        for keyset in application.keysets:
            if keyset.name == name:
                return self.first_key[application.name, name], self.profile.keys_of(keyset)
        raise InvalidInput("KEYSET_UNKNOWN", f"{application.name}: no key set is called {name!r}")

    def _keys(self, application: Application, part: Part) -> _Value:
        first, entries = self._keyset(application, part.keys or "")
        value = _Value()
        for i, entry in enumerate(entries):
            if part.layout == "capp":
                value.data += bytes.fromhex(entry.kid + entry.purpose + entry.version + entry.retry)
            at = len(value.data)
            value.data += bytes(16)
            value.keys.append((at, first + i))
            if part.layout != "bare":
                value.spans.append((at, 16))
            if part.layout == "tunion":
                value.kcvs.append((at + 16, first + i))
                value.data += bytes(3)
        if part.layout == "bare":
            value.spans.append((0, len(value.data)))
        return value


def pack(blocks: list[tuple[bool, int, int]]) -> list[Command]:
    """Packs whole DGIs into STORE DATA commands: several per command where they fit and are of one class, a longer one continued.

    Raises InvalidInput NO_DATA without any DGI and TOO_MANY_BLOCKS when P2 would have to count beyond FF.
    """
    if not blocks:
        raise InvalidInput("NO_DATA", "an application without data cannot be personalized")
    runs: list[tuple[bool, int, int]] = []
    for encrypted, start, end in blocks:
        if runs and runs[-1][0] == encrypted and end - runs[-1][1] <= MAX_PLAIN:
            runs[-1] = (encrypted, runs[-1][1], end)
            continue
        cuts = [*range(start, end, MAX_PLAIN), end]
        runs += [(encrypted, first, after) for first, after in pairwise(cuts)]
    if len(runs) > MAX_BLOCKS:
        raise InvalidInput("TOO_MANY_BLOCKS", f"an application needs {len(runs)} STORE DATA commands; P2 can number {MAX_BLOCKS}")
    commands = [Command(0x60 if encrypted else 0, i, start, end) for i, (encrypted, start, end) in enumerate(runs)]
    last = commands[-1]
    commands[-1] = Command(last.p1 | 0x80, last.p2, last.start, last.end)
    return commands


def derivation_of(key: CardKey) -> Derivation:
    """What the custody is asked for. EMV option A and B are a dispersion by Y, so `pboc`."""
    return Derivation(key.master_id, "pboc", key.algorithm, key.upper_factors, key.parity)


def channel_derivations(source: ChannelKeys) -> tuple[Derivation, ...]:
    """ENC, MAC and DEK of a chip, from a channel master by the chip's KDD; one and the same tuple each time, as a custody likes it."""
    return _channel_derivations(source.master, source.method, source.algorithm)


@lru_cache(maxsize=64)
def _channel_derivations(master: str, method: Literal["gp-kdf3", "gp-emv", "gp-visa2"], algorithm: Algorithm) -> tuple[Derivation, ...]:
    return tuple(Derivation(key_id=master, method=method, algorithm=algorithm, purpose=purpose) for purpose in ("enc", "mac", "dek"))


def compile_profile(loaded: LoadedProfile, pan_digits: int = 19) -> CompiledProfile:
    """Template and fill plan for cards whose PAN has `pan_digits` digits. The profile must have passed lint.

    Raises InvalidInput: PAN_LENGTH outside of 12 to 19 (ISO/IEC 7812-1), and what the profile's parts are too long or too many for.
    """
    if pan_digits not in PAN_DIGITS:
        raise InvalidInput("PAN_LENGTH", f"a PAN has 12 to 19 digits, not {pan_digits}")
    return _Compiler(loaded, pan_digits).compile()
