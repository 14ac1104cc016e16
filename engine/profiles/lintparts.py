"""Lint of one application's data groupings: every part is one clear thing, fits its place, and goes where the card has room for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from engine.profiles.fields import BINARY_FIELDS, LETTER_FIELDS, PAN_DIGITS, byte_length, items_of, text_width, widths
from engine.profiles.findings import Finding, error
from engine.profiles.model import Application, Codec, Dgi, FileEntry, Item, Part, Profile
from engine.profiles.plan import capacity

# Each kind of part, and what may stand beside it.
KINDS: Final = {
    "hex": (),
    "field": ("codec", "length", "slice"),
    "concat": ("codec", "length"),
    "tlv": ("parts",),
    "files": ("df",),
    "keys": ("layout",),
    "kcvs": (),
    "pin_block": (),
}
BESIDE: Final = ("codec", "length", "slice", "parts", "df", "layout")
LAYOUT_COUNT: Final = {"bare": (3, 3), "tunion": (1, 15), "capp": (1, 12)}
# Data groupings whose number says which cipher's keys they hold.
KEY_DGIS: Final = {
    "8000": "3des",
    "8020": "3des",
    "B0A0": "3des",
    "B0A5": "3des",
    "8400": "sm4",
    "8021": "sm4",
    "B1A0": "sm4",
    "B1A5": "sm4",
    "8022": "aes",
}
DEEPEST: Final = 6


def check_parts(profile: Profile, application: Application) -> Iterator[Finding]:
    """All findings about the application's DGIs."""
    place = _Place(application)
    for dgi in application.dgis:
        where = f"{application.name}.{dgi.id}"
        yield from place.enter(dgi, where)
        for part in flat(dgi.parts):
            yield from _part(profile, application, dgi, part, where)
            yield from place.keys(part, where)


def flat(parts: list[Part]) -> Iterator[Part]:
    """The parts and what lies inside of them, as far down as parts may lie."""
    return (part for part, depth in _with_depth(parts) if depth <= DEEPEST)


def _with_depth(parts: list[Part]) -> Iterator[tuple[Part, int]]:
    stack = [(part, 1) for part in reversed(parts)]
    while stack:
        part, depth = stack.pop()
        yield part, depth
        stack += [(inner, depth + 1) for inner in reversed(part.parts or [])] if depth <= DEEPEST else []


class _Place:
    """The DF that data goes to, DGI by DGI, and what it holds so far."""

    def __init__(self, application: Application) -> None:
        self._aid = application.aid
        self._keysets = {keyset.name: keyset for keyset in application.keysets}
        self._df = application.aid
        self._files: dict[int, FileEntry] | None = None
        self._seen: set[tuple[str, str]] = set()
        self._loaded: set[str] = set()

    def enter(self, dgi: Dgi, where: str) -> Iterator[Finding]:
        if any(depth > DEEPEST for _, depth in _with_depth(dgi.parts)):
            yield error("part-depth", where, f"parts lie deeper than {DEEPEST} inside of each other")
        for part in dgi.parts:
            if part.files is not None:
                self._df = part.df or self._aid
                self._files = {int(f.sfi, 16): f for f in part.files}
                yield from _files(self._df, part.files, where)
        if (self._df, dgi.id) in self._seen:
            yield error("dgi-twice", where, f"data grouping {dgi.id} appears twice in one DF")
        self._seen.add((self._df, dgi.id))
        sfi, record = bytes.fromhex(dgi.id)
        if self._files is None or not 1 <= sfi <= 0x1E:
            return
        file = self._files.get(sfi)
        if file is None:
            yield error("record-file", where, f"DF {self._df} has no file with SFI {sfi:02X}")
        elif not 1 <= record <= (1 if file.type == "transparent" else file.size):
            yield error("record-number", where, f"file {file.fid} has no record {record}")

    def keys(self, part: Part, where: str) -> Iterator[Finding]:
        keyset = self._keysets.get(part.keys or "")
        if keyset is not None:
            self._loaded.add(keyset.name)
            if part.layout == "capp" and (keyset.df or self._aid) != self._df:
                yield error("keyset-df", where, f"key set {keyset.name} belongs to another DF than {self._df}, where its keys would go")
        if part.kcvs in self._keysets and part.kcvs not in self._loaded:
            yield error("kcvs-first", where, f"check values of {part.kcvs} come before its keys")


def _files(df: str, files: list[FileEntry], where: str) -> Iterator[Finding]:
    if not 5 <= len(df) // 2 <= 16:
        yield error("df-length", where, "a DF name has 5 to 16 bytes (ISO 7816-4)")
    for kind, values in (("fid", [f.fid for f in files]), ("sfi", [f.sfi for f in files])):
        for value, count in Counter(values).items():
            if count > 1:
                yield error("file-twice", where, f"{kind} {value} appears {count} times in DF {df}")
    for f in files:
        if not 1 <= int(f.sfi, 16) <= 0x1E:
            yield error("file-sfi", where, f"file {f.fid}: an SFI is 01 to 1E (ISO 7816-4)")
        if f.type != "transparent" and f.size > 0xFE:
            yield error("file-size", where, f"file {f.fid}: a record file has 254 records at most (ISO 7816-4)")


def _part(profile: Profile, application: Application, dgi: Dgi, part: Part, where: str) -> Iterator[Finding]:
    given = [kind for kind in KINDS if getattr(part, kind) is not None]
    if len(given) != 1:
        yield error("part-kind", where, f"a part is exactly one of {', '.join(KINDS)}; here: {', '.join(given) or 'none'}")
        return
    kind = given[0]
    for name in BESIDE:
        if getattr(part, name) is not None and name not in KINDS[kind]:
            yield error("part-extra", where, f"{name} means nothing beside {kind}")
    if part.pin_block is False:
        yield error("part-kind", where, "pin_block is true or not there")
    if part.tlv is not None:
        yield from _tlv(part, where)
    if part.files is not None and part not in dgi.parts:
        yield error("part-kind", where, "files do not lie inside of another part")
    if part.field is not None or part.concat is not None:
        yield from _text(profile, where, part)
    yield from _key_parts(profile, application, dgi, part, where)


def _tlv(part: Part, where: str) -> Iterator[Finding]:
    tag = bytes.fromhex(part.tlv or "")
    long_form = tag[0] & 0x1F == 0x1F
    ends = [i for i, byte in enumerate(tag[1:], 1) if not byte & 0x80]
    if (long_form and ends[:1] != [len(tag) - 1]) or (not long_form and len(tag) != 1):
        yield error("tag", where, f"{part.tlv} is no BER-TLV tag (ISO 8825-1)")
    if not part.parts:
        yield error("tlv-empty", where, f"tag {part.tlv} has no parts")


def _key_parts(profile: Profile, application: Application, dgi: Dgi, part: Part, where: str) -> Iterator[Finding]:
    names = {k.name: k for k in application.keysets}
    for name in (part.keys, part.kcvs):
        if name is not None and name not in names:
            yield error("keyset-unknown", where, f"no key set is called {name!r}")
    if part.keys not in names:
        return
    keyset = names[part.keys]
    count = len(profile.keys_of(keyset))
    low, high = LAYOUT_COUNT.get(part.layout or "", (1, 0))
    if not low <= count <= high:
        yield error("layout", where, f"layout {part.layout} does not hold {count} keys")
    if KEY_DGIS.get(dgi.id, keyset.algorithm) != keyset.algorithm:
        yield error("key-dgi", where, f"data grouping {dgi.id} holds {KEY_DGIS[dgi.id]} keys, {keyset.name} has {keyset.algorithm} keys")


def _text(profile: Profile, where: str, part: Part) -> Iterator[Finding]:
    known = widths(profile, PAN_DIGITS[-1])
    items = items_of(part)
    sound = True
    for item in items:
        for finding in _item(item, known, part.codec, where, alone=len(items) == 1):
            sound = False
            yield finding
    if not items:
        yield error("item", where, "concat is a list of at least one item")
    if part.codec is None:
        yield error("codec", where, "text needs a codec: an, cn, n, raw or gb")
    if byte_length(part, known) == 0:
        yield error("length", where, "text of varying length needs a length in bytes")
    elif sound and part.codec not in (None, "gb") and text_width(items, known) > capacity(part.codec, byte_length(part, known)):
        yield error("text-too-long", where, f"{text_width(items, known)} characters do not fit in {part.length} bytes")


def _item(item: Item, known: dict[str, int], codec: Codec | None, where: str, *, alone: bool) -> Iterator[Finding]:
    digits = codec in ("cn", "n")
    if (item.field is None) == (item.text is None) or (item.text is not None and item.slice is not None):
        yield error("item", where, "an item is either a field, with a range or without, or a text")
    elif item.text is not None:
        allowed = "0123456789D" if codec == "cn" else "0123456789"
        if not item.text.isascii() or not item.text or (digits and set(item.text) - set(allowed)):
            yield error("item", where, f"text {item.text!r} does not suit codec {codec}")
    elif item.field not in known:
        yield error("field-unknown", where, f"there is no field {item.field!r}; there are: {', '.join(known)}")
    else:
        yield from _field(item.field or "", item.slice, known, codec, where, alone=alone)


def _field(
    name: str, chosen: tuple[int, int] | None, known: dict[str, int], codec: Codec | None, where: str, *, alone: bool
) -> Iterator[Finding]:
    width = PAN_DIGITS[0] if name == "pan" else known[name] or 255
    if chosen is not None and not 0 <= chosen[0] < chosen[1] <= width:
        yield error("slice", where, f"range {chosen} does not lie in every {name}")
    if not known[name] and (not alone or codec == "n"):
        yield error("varies", where, f"{name} varies in length: it stands alone, and not as a number")
    last = chosen[1] if chosen is not None else 255
    if codec in ("cn", "n") and last > LETTER_FIELDS.get(name, 255):
        yield error("digits", where, f"{name} may hold something other than digits: codec {codec} is not for it")
    if name in BINARY_FIELDS and codec not in ("raw", None):
        yield error("digits", where, f"{name} is bytes: its codec is raw")
