"""The first card of a run: a true virtual chip is made, every answer is recorded, and a recorded chip has to give the same ones.

So nothing that other chips answer is guessed: what the server later refuses cannot be the recording's fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.load.chips import RecordedChip, Recording
from engine.personalize.segment import from_slab
from engine.virtual.birth import Birth
from engine.virtual.chip import VirtualChip
from keys.errors import Corrupt

_SELECT, _CHALLENGE, _LOAD = 0xA4, 0x84, 0x50


class RehearsedChip:
    """A true virtual chip with a recorded one beside it. Its memory is a file in `directory`."""

    def __init__(self, recording: Recording, kdd: bytes, directory: Path) -> None:
        birth = Birth(kdd[:2], kdd[2:], chip_type=recording.chip_type, isd_aid=recording.aid)
        self._true = VirtualChip(directory / f"{birth.chip_id}.nvm", birth.chip_id, birth)
        self._recording = recording
        self._twin = _Twin(recording, kdd)

    def power_on(self) -> bytes:
        """The answer to reset."""
        atr = self._true.power_on()
        _same(0, b"", atr, self._twin.power_on())
        return atr

    def play(self, slab: bytes) -> list[bytes]:
        """The true chip's answers. Corrupt RECORDING_DIFFERS where the recorded chip has another."""
        commands = from_slab(slab)
        answers = [self._true.transmit(command) for command in commands]
        for command, answer in zip(commands, answers, strict=True):
            if command[1] == _SELECT:
                self._recording.constants[command] = answer
        self._twin.randoms = _randoms(commands, answers)
        for at, (command, answer, recorded) in enumerate(zip(commands, answers, self._twin.play(slab), strict=True)):
            _same(at, command, answer, recorded)
        return answers


class _Twin(RecordedChip):
    """A recorded chip that draws the random numbers that the true one drew."""

    def __init__(self, recording: Recording, kdd: bytes) -> None:
        twin = recording.make([kdd])[0]
        self.__dict__.update(twin.__dict__)
        self.randoms: list[bytes] = []

    def random(self, size: int) -> bytes:
        del size
        return self.randoms.pop(0)


def _randoms(commands: Sequence[bytes], answers: Sequence[bytes]) -> list[bytes]:
    """The random numbers in the answers, in order: those of GET CHALLENGE, and of INITIALIZE FOR LOAD."""
    found = []
    for command, answer in zip(commands, answers, strict=True):
        if command[:2] == bytes((0x00, _CHALLENGE)):
            found.append(answer[:-2])
        elif command[:2] == bytes((0x80, _LOAD)) and command[3] == 0x02:
            found.append(answer[8:12])
    return found


def _same(at: int, command: bytes, true: bytes, recorded: bytes) -> None:
    if true != recorded:
        what = f"command {at} (INS {command[1]:02X})" if command else "the reset"
        raise Corrupt("RECORDING_DIFFERS", f"a recorded chip answers {what} otherwise than a true one: it cannot stand in for it")
