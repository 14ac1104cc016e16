"""Recorded chips: they answer as a true virtual chip did, with their own identity, keys and data, for a small part of its work.

The recording is made by the first card of a run (`engine.load.rehearsal`). A recorded chip is true enough for the server's checks, and
no more: it believes every command that its channel does not refute, and an outside cryptogram is always right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from engine.load.cardside import OK, SIDES, makers_keys
from engine.load.layout import ByteArray, Layout, layout_of
from engine.load.proofs import PROVEN, Recipes
from engine.personalize import verification
from engine.personalize.segment import from_slab
from engine.profiles.compile import compile_profile
from engine.profiles.fields import PAN_DIGITS
from engine.profiles.model import LoadedProfile
from engine.virtual import identity
from engine.virtual.wire import tlv
from keys.errors import Unsupported

_SECURED: Final = 0x04
_INITIALIZE_UPDATE, _GET_CPLC = b"\x80\x50", b"\x80\xca\x9f\x7f"
_KEY: Final = 16


class Chip(Protocol):
    """A chip in a head: what a station needs of it."""

    def power_on(self) -> bytes:
        """The answer to reset."""

    def play(self, slab: bytes) -> list[bytes]:
        """Answers, with status words, to the commands of a slab."""


@dataclass
class Recording:
    """What all chips of one profile have in common. `constants` fills while the first card is made."""

    loaded: LoadedProfile
    constants: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        profile = self.loaded.profile
        self.protocol = profile.channel.protocol
        self.aid = bytes.fromhex(profile.chip.isd_aid)
        self.select = verification.select(self.aid)
        self.chip_type = profile.chip.chip_type.encode()
        level = {"scp02": 0x03, "scp03": 0x33}[self.protocol]
        if int(profile.channel.level, 16) != level:
            raise Unsupported("LEVEL_NOT_RECORDED", f"recorded chips speak {self.protocol} at level {level:02X}, {profile.name} does not")
        self._layouts: list[tuple[Layout, Recipes]] = []
        self._pan_digits = list(reversed(PAN_DIGITS))

    def layouts(self, commands: Sequence[bytes]) -> Iterator[tuple[Layout, Recipes]]:
        """The layouts whose secured commands have the lengths of these, one for each PAN length that could be meant."""
        signature = tuple([len(c) for c in commands])
        at = 0
        while at < len(self._layouts) or self._pan_digits:
            if at == len(self._layouts):
                made = layout_of(compile_profile(self.loaded, self._pan_digits.pop(0)))
                self._layouts.append((made, Recipes(made, self.constants)))
            if self._layouts[at][0].signature == signature:
                yield self._layouts[at]
            at += 1

    def make(self, kdds: Sequence[bytes]) -> list[RecordedChip]:
        """Blanks with these diversification data (10 bytes each), their maker's keys made all at once."""
        return [RecordedChip(self, kdd, keys) for kdd, keys in zip(kdds, makers_keys(self.protocol, kdds), strict=True)]


class RecordedChip:
    """One chip, good for one card."""

    def __init__(self, recording: Recording, kdd: bytes, keys: bytes) -> None:
        self._recording = recording
        self._kdd = kdd
        self._channel = SIDES[recording.protocol](kdd, keys, recording.aid)
        self._recipes: Recipes | None = None
        self._image = b""
        self._keys: dict[int, bytes] = {}
        self._df = b""

    def __repr__(self) -> str:
        return f"RecordedChip({self._kdd.hex().upper()})"

    def power_on(self) -> bytes:
        """The answer to reset."""
        return identity.atr(self._recording.chip_type, self._kdd[2:])

    def play(self, slab: bytes) -> list[bytes]:
        """Answers to the commands of a slab. Unsupported NOT_RECORDED, Corrupt COMMAND_MAC."""
        commands = from_slab(slab)
        answers: list[bytes] = []
        if len(commands) > 1 and commands[0][0] & _SECURED and commands[1][0] & _SECURED:
            answers = self._personalize(commands, slab)
        return answers + self._plain(commands[len(answers) :])

    def random(self, size: int) -> bytes:
        """A random number of the chip's."""
        return os.urandom(size)

    def key(self, index: int) -> bytes:
        """A proven key, by its place in the profile's keys."""
        return self._keys[index]

    def image(self, start: int, end: int) -> bytes:
        """Bytes of the image that personalization brought."""
        return self._image[start:end]

    def _personalize(self, commands: Sequence[bytes], slab: bytes) -> list[bytes]:
        """EXTERNAL AUTHENTICATE and the whole script."""
        count = next((at for at, command in enumerate(commands) if not command[0] & _SECURED), len(commands))
        octets = np.frombuffer(slab, np.uint8)
        layout, row = self._decipher(commands[1:count], octets)
        script = layout.script
        data = [b"\x00" if command[1] == 0xE6 else b"" for command in commands[1:count]]
        version_at = int(script.apdus["offset"][-2])
        check_values = b"".join(row[at : at + 3].tobytes() for at in script.kcvs_at)
        data[-2] = row[version_at : version_at + 1].tobytes() + check_values
        answers = [OK, *self._channel.answers(layout, octets, row, data)]
        self._keep(layout, row)
        return answers

    def _decipher(self, commands: Sequence[bytes], slab: ByteArray) -> tuple[Layout, ByteArray]:
        for layout, recipes in self._recording.layouts(commands):
            blocks = self._channel.decipher(layout, slab)
            if layout.fits(blocks):
                self._recipes = recipes
                return layout, layout.row(blocks)
        name = self._recording.loaded.profile.name
        raise Unsupported("NOT_RECORDED", f"the server's personalization is not that of profile {name} as it is here")

    def _keep(self, layout: Layout, row: ByteArray) -> None:
        """What the proof will need: the image, the proven keys, and the issuer's keys for the next channel."""
        script, compiled = layout.script, layout.compiled
        self._image = row[script.image_at : script.image_at + script.image_len].tobytes()
        proven = [(offset, index) for offset, index in compiled.key_offsets if compiled.keys[index].prove in PROVEN]
        hidden = b"".join(self._image[offset : offset + _KEY] for offset, _ in proven)
        hidden += b"".join(row[at : at + _KEY].tobytes() for at in script.keys_at)
        clear = self._channel.reveal(hidden)
        self._keys = {index: clear[_KEY * n : _KEY * n + _KEY] for n, (_, index) in enumerate(proven)}
        self._channel.change_keys(clear[-3 * _KEY :])

    def _plain(self, commands: Sequence[bytes]) -> list[bytes]:
        """Commands outside of the personalization channel."""
        answers: list[bytes] = []
        proof = commands
        for at, command in enumerate(commands):
            if command[:2] == _INITIALIZE_UPDATE and command[4] == 8:
                answers.append(self._channel.initialize_update(command[2], command[5:13]) + OK)
            elif command[:4] == _GET_CPLC:
                answers.append(tlv(0x9F7F, identity.cplc(self._kdd[:2], self._kdd[2:])) + OK)
            elif command[0] == 0x84:
                answers.append(OK)
            elif command == self._recording.select:
                answers.append(self._recording.constants[command])
            else:
                proof = commands[at:]
                break
        else:
            return answers
        if self._recipes is None:
            raise Unsupported("NOT_RECORDED", "the server sends a command of the proof before the personalization")
        recipes, self._df = self._recipes.of(self._df, proof)
        answers += [r if type(r) is bytes else r(self, command) for r, command in zip(recipes, proof, strict=True)]  # type: ignore[operator]
        return answers
