"""A chip in the same process, behind the same interface as a real reader."""

from __future__ import annotations

from typing import Protocol

from engine.chip.transport import chip_gone, exchange
from keys.errors import Precondition


class ChipSlot(Protocol):
    """Anything that can be powered and spoken to. An empty answer means that nothing answered."""

    def power_on(self) -> bytes:
        """The ATR, or b"" when no chip answers to reset."""

    def transmit(self, apdu: bytes) -> bytes:
        """data || SW1 SW2, or b""."""

    def power_off(self) -> None:
        """Takes the power away."""


class InProcessTransport:
    """Transport over a `ChipSlot`."""

    def __init__(self, slot: ChipSlot, name: str = "in-process") -> None:
        self._slot = slot
        self._name = name
        self._connected = False

    @property
    def name(self) -> str:
        return self._name

    def connect(self) -> bytes:
        self.disconnect()
        atr = self._slot.power_on()
        if not atr:
            raise chip_gone(self._name, "no answer to reset")
        self._connected = True
        return atr

    def transmit(self, apdu: bytes) -> bytes:
        if not self._connected:
            raise Precondition("NOT_CONNECTED", f"reader {self._name}: connect before transmit")
        return exchange(self._slot.transmit, apdu, self._name)

    def disconnect(self) -> None:
        if self._connected:
            self._connected = False
            self._slot.power_off()
