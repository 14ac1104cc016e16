"""Card paths of the virtual equipment: a hopper's feeder and bins, with the chip reached in process or through a real pcscd."""

from __future__ import annotations

from engine.chip.inprocess import InProcessTransport
from engine.chip.transport import Transport
from engine.virtual.hopper import Hopper
from engine.virtual.pcscd_rig import PcscdRig
from keys.errors import NotFound


class VirtualPath:
    """One head of a hopper; the chip in it answers in this process."""

    def __init__(self, hopper: Hopper, head: int) -> None:
        self._hopper = hopper
        self._head = head
        self._slot = hopper.slot(head)

    def available(self) -> bool:
        return self._hopper.feeder.remaining > 0

    def take(self) -> Transport | None:
        if self._hopper.feeder.draw(self._head) is None:
            return None
        return self._contact()

    def current(self) -> Transport | None:
        return None if self._hopper.head(self._head) is None else self._contact()

    def _contact(self) -> Transport:
        return InProcessTransport(self._slot, f"in-process {self._head}")

    def eject(self, bin_name: str) -> None:
        chip_id = self._hopper.head(self._head)
        if chip_id is None:
            raise NotFound("PIECE_NOT_HERE", f"head {self._head} is empty")
        self._hopper.bins.drop(bin_name, chip_id)

    def close(self) -> None:
        self._slot.power_off()


class PcscPath(VirtualPath):
    """The same mechanics, but the chip is put into a slot of a private pcscd and reached through the PC/SC reader over it."""

    def __init__(self, hopper: Hopper, head: int, rig: PcscdRig, slot: int) -> None:
        super().__init__(hopper, head)
        self._rig = rig
        self._rig_slot = slot
        self._inserted = False
        self._transport: Transport | None = None

    def _contact(self) -> Transport:
        from engine.chip.pcsc import PcscTransport

        if not self._inserted:
            self._rig.insert(self._slot, self._rig_slot)
            self._inserted = True
        if self._transport is None:
            self._transport = PcscTransport(self._rig.readers[self._rig_slot])
        return self._transport

    def eject(self, bin_name: str) -> None:
        self._pull()
        super().eject(bin_name)

    def close(self) -> None:
        self._pull()
        super().close()

    def _pull(self) -> None:
        if self._transport is not None:
            self._transport.disconnect()
            self._transport = None
        if self._inserted:
            self._rig.remove(self._rig_slot)
            self._inserted = False
