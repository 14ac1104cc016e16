"""One virtual chip: power, the operating system's share of the commands (SELECT, dispatch), and the faults it was given."""

from __future__ import annotations

import time
from pathlib import Path

from engine.virtual import identity
from engine.virtual.applets.base import Applet
from engine.virtual.applets.capp import Capp
from engine.virtual.applets.finance import Finance
from engine.virtual.applets.transport import Transport
from engine.virtual.birth import Birth, applet_aids, birth_faults
from engine.virtual.faults import Faults
from engine.virtual.nvm import Moved, Nvm
from engine.virtual.security_domain import SecurityDomain
from engine.virtual.wire import Command, Refused, parse

_APPLETS: dict[str, type[Applet]] = {"capp": Capp, "finance": Finance, "transport": Transport}
_SELECT = 0xA4


class VirtualChip:
    """One piece of plastic's chip. Not thread-safe, as a chip is not.

    `path` is its memory file. `birth` is used once, at the first power-on of a chip that has no memory yet. `faults` replaces
    the faults the chip was made with. Without power, or dead, it answers b"" to everything.
    """

    def __init__(self, path: Path, chip_id: str, birth: Birth | None = None, faults: Faults | None = None) -> None:
        self.chip_id = chip_id
        self._path = path
        self._birth = birth
        self._given = faults
        self._faults = faults or Faults()
        self._per_command = False
        self._nvm: Nvm | None = None
        self._received = 0
        self._mute = False

    def power_on(self) -> bytes:
        """Resets the chip and gives its ATR; b"" when it is dead. Raises Corrupt for a damaged memory file."""
        self.power_off()
        nvm = Nvm(self._path)
        if nvm.blank:
            if self._birth is None:
                nvm.close()
                return b""
            self._birth.write(nvm, self._given)
        self._faults = self._given if self._given is not None else birth_faults(nvm)
        self._per_command = self._faults.any_per_command
        if nvm.get_int("dead"):
            nvm.close()
            return b""
        self._mute = False
        self._nvm = nvm
        self._applets = [_APPLETS[kind](nvm, aid) for kind, aid in applet_aids(nvm)]
        self._isd = SecurityDomain(nvm, self._applets, self._faults)
        self._current: Applet | None = None
        return identity.atr(nvm.get_bytes("chip_type") or bytes(5), nvm.get_bytes("serial") or bytes(8))

    def power_off(self) -> None:
        if self._nvm is not None:
            self._nvm.close()
            self._nvm = None

    def transmit(self, apdu: bytes) -> bytes:
        """data || SW1 SW2, or b"" when nothing answers. Any bytes may be sent."""
        if self._nvm is None or self._mute:
            return b""
        if not self._per_command:
            return self._answer(apdu)
        index, self._received = self._received, self._received + 1
        if self._faults.slow_ms:
            time.sleep(self._faults.slow_ms / 1000)
        death = self._faults.die
        if death is not None and death.at == index:
            if death.when == "after":
                self._answer(apdu)
            self._die(durable=not death.revive)
            return b""
        return self._faults.spoil(index, apdu, self._answer(apdu))

    @property
    def key_versions(self) -> list[int]:
        """Key version numbers of the security domain, first set first; needs power."""
        return list(self._nvm.get_bytes("isd.kvns") or b"") if self._nvm is not None else []

    def _die(self, *, durable: bool) -> None:
        self._mute = True
        if durable and self._nvm is not None:
            self._nvm.put("dead", 1)
            self._nvm.commit()

    def _answer(self, apdu: bytes) -> bytes:
        nvm = self._nvm
        if nvm is None:
            return b""
        try:
            try:
                data, sw = self._process(parse(apdu))
            except Refused as refused:
                nvm.rollback()
                return refused.sw.to_bytes(2, "big")
            nvm.commit()
        except Moved:
            # The piece was put into another head while this one still had it powered: here it is gone.
            self._mute = True
            return b""
        return data + sw.to_bytes(2, "big")

    def _process(self, command: Command) -> tuple[bytes, int]:
        if command.ins == _SELECT and command.cla & 0xFB == 0x00:
            return self._select(command)
        if self._current is None:
            return self._isd.process(command)
        return self._current.process(command)

    def _select(self, command: Command) -> tuple[bytes, int]:
        # Whatever is selected, the secure channel is over.
        self._isd.close()
        if command.p1 == 0x04:
            return self._select_by_aid(command)
        if command.p1 not in (0x00, 0x02) or command.p2 not in (0x00, 0x0C):
            raise Refused(0x6A86)
        if len(command.data) != 2:
            raise Refused(0x6700)
        if not isinstance(self._current, Capp | Transport):
            raise Refused(0x6A82)
        self._current.challenge = None
        fci = self._current.select_file(int.from_bytes(command.data, "big"))
        return (b"" if command.p2 == 0x0C else fci), 0x9000

    def _select_by_aid(self, command: Command) -> tuple[bytes, int]:
        if command.p2 not in (0x00, 0x0C):
            raise Refused(0x6A82 if command.p2 == 0x02 else 0x6A86)
        aid = command.data
        fci = self._fci_of(aid, exact=True)
        if fci is None and (not aid or 5 <= len(aid) <= 16):
            fci = self._fci_of(aid, exact=False)
        if fci is None:
            # A failed SELECT leaves the selected application as it was (GPCS 6.4.2.1).
            raise Refused(0x6A82)
        return (b"" if command.p2 == 0x0C else fci), 0x9000

    def _fci_of(self, aid: bytes, *, exact: bool) -> bytes | None:
        """Selects what the name means: the ISD first, then the current instance, then the others in their order."""
        if self._isd.aid == aid or (not exact and self._isd.aid.startswith(aid)):
            self._switch(None)
            return self._isd.select()
        candidates = [] if self._current is None else [self._current]
        for applet in (*candidates, *self._applets):
            df_name = applet.names(aid, exact=exact)
            if df_name is not None:
                self._switch(applet)
                return applet.select(df_name)
        return None

    def _switch(self, applet: Applet | None) -> None:
        if self._current is not None:
            self._current.deselect()
        self._current = applet
