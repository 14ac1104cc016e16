"""The personalization of a profile as one script: every command after EXTERNAL AUTHENTICATE, the same for each card but for its bytes.

A card's data lie in one row: what selects the applications, the image with its secrets under the DEK, the PUT KEY data. Commands only
name places in the row, so that a card's whole segment, or those of a thousand cards, is wrapped by one call of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

import cext
from engine.profiles.compile import CompiledProfile

ByteArray = npt.NDArray[np.uint8]
Apdus = npt.NDArray[np.void]

C_DECRYPTION: Final = 0x02
MAC_LEN: Final = 8
CRYPTOGRAM_LEN: Final = 8
SECURE_MESSAGING: Final = 0x04
# What goes before a key in PUT KEY: type 80 DES, type 88 AES with the key's own length (GPCS 11.8.2.3.1; GPC Amendment D 7.2).
KEY_BLOCK_HEAD: Final = {"scp02": b"\x80\x10", "scp03": b"\x88\x11\x10"}
KCV_LEN: Final = 3


@dataclass(frozen=True)
class Script:
    """`apdus` are `cext.APDU`, counters from 1; `segment` are the same behind EXTERNAL AUTHENTICATE, whose host cryptogram is at
    `authenticate_at`. `row` is a card's data with image, keys and that cryptogram still empty.

    The image begins at `image_at`; the issuer's three keys have their cryptograms at `keys_at` and their check values at `kcvs_at`.
    """

    apdus: Apdus
    segment: Apdus
    authenticate_at: int
    row: ByteArray
    image_at: int
    image_len: int
    keys_at: tuple[int, int, int]
    kcvs_at: tuple[int, int, int]
    # Places of the image that the DEK encrypts: (offset, length), and those of 16 bytes as an index (count, 16) into a row.
    spans: tuple[tuple[int, int], ...]
    single: npt.NDArray[np.intp]
    longer: tuple[tuple[int, int], ...]

    def rows(self, images: ByteArray) -> ByteArray:
        """Rows (n, row length) with images (n, image_len) in the clear: the caller encrypts the spans and wipes what it must."""
        rows = np.empty((len(images), len(self.row)), np.uint8)
        self.fill(rows, images)
        return rows

    def fill(self, rows: ByteArray, images: ByteArray) -> None:
        """`rows`, into memory of the caller's."""
        rows[:] = self.row
        rows[:, self.image_at : self.image_at + self.image_len] = images

    def gather(self, rows: ByteArray, out: ByteArray) -> None:
        """The spans of 16 bytes of a row (length,) or of rows (n, length) into `out` (..., count, 16): without a copy in between, which
        nobody would wipe (an index or mode "raise" makes one).
        """
        np.take(rows, self.single, axis=-1, out=out, mode="clip")


def script_of(compiled: CompiledProfile) -> Script:
    """INSTALL [for personalization] and STORE DATA for every application, then PUT KEY and SET STATUS. Made once for a profile."""
    return _made(ById(compiled))


class ById:
    """A compiled profile as a key of a cache: by identity, which it keeps for as long as it is cached."""

    def __init__(self, compiled: CompiledProfile) -> None:
        self.compiled = compiled

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.compiled is self.compiled

    def __hash__(self) -> int:
        return id(self.compiled)


@lru_cache(maxsize=64)
def _made(by_id: ById) -> Script:
    compiled = by_id.compiled
    channel = compiled.loaded.profile.channel
    encrypt = int(channel.level, 16) & C_DECRYPTION
    row = bytearray()
    commands: list[tuple[int, int, int, int, int, int]] = []
    image_at = sum(len(applet.aid) + 6 for applet in compiled.applets)
    for applet in compiled.applets:
        target = b"\x00\x00" + bytes([len(applet.aid)]) + applet.aid + b"\x00\x00\x00"
        commands.append((0x80, 0xE6, 0x20, 0x00, len(row), len(target)))
        row += target
        commands += [(0x80, 0xE2, c.p1, c.p2, image_at + c.start, c.end - c.start) for c in applet.commands]
    row += bytes(compiled.image_len)
    put_key = len(row)
    row.append(int(channel.issuer.kvn, 16))
    keys_at, kcvs_at = [], []
    for _ in range(3):
        row += KEY_BLOCK_HEAD[channel.protocol]
        keys_at.append(len(row))
        row += bytes(16) + bytes([KCV_LEN])
        kcvs_at.append(len(row))
        row += bytes(KCV_LEN)
    commands.append((0x80, 0xD8, int(channel.transport.kvn, 16), 0x81, put_key, len(row) - put_key))
    commands.append((0x80, 0xF0, 0x80, 0x0F, len(row), 0))
    authenticate_at = len(row)
    row += bytes(CRYPTOGRAM_LEN)
    commands.insert(0, (0x84, 0x82, int(channel.level, 16), 0x00, authenticate_at, CRYPTOGRAM_LEN))
    apdus = np.zeros(len(commands), cext.APDU)
    for at, name in enumerate(("cla", "ins", "p1", "p2", "offset", "length")):
        apdus[name] = [command[at] for command in commands]
    apdus["encrypt"] = 1 if encrypt else 0
    # EXTERNAL AUTHENTICATE has a C-MAC, but what it authenticates is not yet open
    apdus["encrypt"][0] = 0
    apdus["le"] = -1
    apdus["counter"] = np.arange(len(commands))
    spans = tuple((image_at + offset, length) for offset, length in compiled.spans)
    single = np.array([offset for offset, length in spans if length == 16], np.intp)[:, None] + np.arange(16)
    return Script(
        apdus=np.ascontiguousarray(apdus[1:]),
        segment=apdus,
        authenticate_at=authenticate_at,
        row=np.frombuffer(bytes(row), np.uint8),
        image_at=image_at,
        image_len=compiled.image_len,
        keys_at=(keys_at[0], keys_at[1], keys_at[2]),
        kcvs_at=(kcvs_at[0], kcvs_at[1], kcvs_at[2]),
        spans=spans,
        single=single,
        longer=tuple((offset, length) for offset, length in spans if length != 16),
    )


def secured_lengths(apdus: Apdus, block: int) -> npt.NDArray[np.intp]:
    """How long each command is once it is secured, for a cipher of that block length."""
    length = apdus["length"].astype(np.intp)
    padded = np.where((apdus["encrypt"] != 0) & (length > 0), length - length % block + block, length)
    return 5 + padded + MAC_LEN + (apdus["le"] >= 0)


def cut(row: ByteArray, lengths: npt.NDArray[np.intp]) -> list[bytes]:
    """The commands of one secured row."""
    octets, ends = row.tobytes(), np.cumsum(lengths).tolist()
    return [octets[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
