"""Where everything of a profile's personalization lies in the bytes on the wire: taken apart with a few array operations a card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.personalize.script import Script, script_of, secured_lengths
from engine.profiles.compile import CompiledProfile

ByteArray = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]

BLOCK: Final = {"scp02": 8, "scp03": 16}
# EXTERNAL AUTHENTICATE in a slab: two bytes of length, header, host cryptogram, C-MAC
AUTHENTICATE_LEN: Final = 2 + 5 + 8 + 8
_HEADER: Final = 5


@dataclass(frozen=True)
class Layout:
    """One profile with PANs of one length.

    `signature` are the lengths of all secured commands, by which a segment is known. `cipher` (blocks, block) are the places of every
    enciphered block in the segment's slab; `first` those blocks that begin a command, and `counter_blocks` the commands' counters as
    SCP03 makes ICVs of them, 16 bytes each. `plain` maps every byte of the script's row to its place in the deciphered blocks, and
    `wire` lists the places of the secured commands themselves, `padding` those of the padding in the deciphered blocks, 80 and 00.
    """

    compiled: CompiledProfile
    script: Script
    block: int
    signature: tuple[int, ...]
    cipher: Places
    first: Places
    counter_blocks: bytes
    plain: Places
    wire: Places
    padding: Places
    padding_bytes: bytes

    def row(self, deciphered: ByteArray) -> ByteArray:
        """The script's data of one card from its deciphered blocks (blocks, block)."""
        found: ByteArray = deciphered.reshape(-1)[self.plain]
        return found

    def fits(self, deciphered: ByteArray) -> bool:
        """Whether the padding lies where this layout has it: PANs of other lengths may give commands of the same lengths."""
        return deciphered.reshape(-1)[self.padding].tobytes() == self.padding_bytes

    def commands(self, slab: ByteArray) -> bytes:
        """The secured commands of a segment, one after another."""
        return slab[self.wire].tobytes()


def layout_of(compiled: CompiledProfile) -> Layout:
    """The layout of a compiled profile whose channel enciphers command data."""
    script = script_of(compiled)
    block = BLOCK[compiled.loaded.profile.channel.protocol]
    lengths = secured_lengths(script.apdus, block)
    plain = np.full(len(script.row), -1, np.intp)
    cipher: list[Places] = []
    first: list[int] = []
    counters: list[bytes] = []
    wire: list[Places] = []
    padding: list[Places] = []
    padding_bytes = b""
    at, blocks = AUTHENTICATE_LEN, 0
    for apdu, length in zip(script.apdus, lengths.tolist(), strict=True):
        offset, size = int(apdu["offset"]), int(apdu["length"])
        if size:
            count = size // block + 1
            cipher.append(at + 2 + _HEADER + np.arange(count * block).reshape(count, block))
            first.append(blocks)
            counters.append(int(apdu["counter"]).to_bytes(16, "big"))
            plain[offset : offset + size] = blocks * block + np.arange(size)
            padding.append(blocks * block + np.arange(size, count * block))
            padding_bytes += b"\x80".ljust(count * block - size, b"\x00")
            blocks += count
        wire.append(at + 2 + np.arange(length))
        at += 2 + length
    return Layout(
        compiled=compiled,
        script=script,
        block=block,
        signature=tuple(lengths.tolist()),
        cipher=np.concatenate(cipher),
        first=np.array(first, np.intp),
        counter_blocks=b"".join(counters),
        plain=plain,
        wire=np.concatenate(wire),
        padding=np.concatenate(padding),
        padding_bytes=padding_bytes,
    )
