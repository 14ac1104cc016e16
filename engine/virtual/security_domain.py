"""The issuer security domain: keys, secure channel, personalization of applets, key change, life cycle.

GlobalPlatform Card Specification v2.3.1 clause 11, annex E and Amendment D, in the parts a personalization bureau uses. A chip does
SCP02 or SCP03, not both. The blank is
INITIALIZED with the maker's transport keys; the bureau replaces them and sets it SECURED.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from engine.virtual import identity
from engine.virtual.channel import C_MAC, Channel, Scp
from engine.virtual.faults import Faults
from engine.virtual.nvm import Nvm
from engine.virtual.put_key import read_key_blocks
from engine.virtual.scp02_card import Scp02
from engine.virtual.scp03_card import Scp03
from engine.virtual.store_data import StoreData
from engine.virtual.wire import Command, Refused, tlv

INITIALIZED, SECURED = 0x07, 0x0F
_PERSONALIZED = 0x0F
_SELECTABLE = 0x07


class Instance(Protocol):
    """What the security domain needs to know of an applet instance."""

    aid: bytes

    @property
    def personalized(self) -> bool:
        """True after its last STORE DATA block."""

    def begin_personalization(self) -> None:
        """Forgets what an unfinished personalization left."""

    def is_sensitive(self, dgi: int) -> bool:
        """True when the DGI carries spans encrypted under the DEK."""

    def spans(self, dgi: int, value: bytes) -> list[tuple[int, int]]:
        """Half-open byte ranges that are encrypted under the DEK, each on its own."""

    def store(self, dgi: int, value: bytes) -> None:
        """Applies one decrypted DGI; Refused 6A80 when it is unknown or does not fit."""

    def finish_personalization(self) -> None:
        """The last block has been applied."""


class SecurityDomain:
    """State of the ISD while the chip has power; everything durable is in the chip's memory."""

    def __init__(self, nvm: Nvm, instances: Sequence[Instance], faults: Faults) -> None:
        self._nvm = nvm
        self._instances = instances
        self._faults = faults
        self.aid = nvm.get_bytes("isd.aid") or b""
        self._kdd = (nvm.get_bytes("lot") or b"") + (nvm.get_bytes("serial") or b"")
        self._scp: Scp = Scp02() if nvm.get_int("isd.scp", 3) == Scp02.number else Scp03()
        self._channel: Channel | None = None
        self._open = False
        self._kvn = 0
        self._store: StoreData | None = None
        self._dispatch = {
            0xCA: self._get_data,
            0xF2: self._get_status,
            0xE6: self._install,
            0xE2: self._store_data,
            0xD8: self._put_key,
            0xF0: self._set_status,
            0xE4: self._not_here,
            0xE8: self._not_here,
        }

    def close(self) -> None:
        """Ends the secure channel, as SELECT and reset do."""
        self._channel = None
        self._open = False
        self._store = None

    def select(self) -> bytes:
        self.close()
        return identity.isd_fci(self.aid, self._scp.number, self._scp.option)

    def process(self, command: Command) -> tuple[bytes, int]:
        """One command, plain or in the channel. Raises Refused for every status word that changes nothing."""
        ins = command.ins
        if ins == 0x50 and command.cla == 0x80:
            return self._initialize_update(command)
        if ins == 0x82 and command.cla in (0x80, 0x84):
            return self._external_authenticate(command)
        channel = self._channel if self._open else None
        if channel is None or not channel.level & C_MAC:
            if command.cla & 0x04:
                raise Refused(0x6882)
            return self._plain(command)
        if not command.cla & 0x04:
            self.close()
            raise Refused(0x6982)
        try:
            plain = channel.unwrap(command)
        except Refused:
            self.close()
            raise
        data, sw = self._plain(plain)
        return channel.wrap_response(data, sw), sw

    # Secure channel

    def _initialize_update(self, command: Command) -> tuple[bytes, int]:
        self.close()
        if len(command.data) != 8:
            raise Refused(0x6700)
        if command.p2 not in (0x00, 0x01):
            raise Refused(0x6A86)
        versions = self._key_versions()
        kvn = command.p1 or versions[0]
        if kvn not in versions:
            raise Refused(0x6A88)
        self._kvn = kvn
        self._refuse_blocked(kvn)
        self._channel, answer = self._scp.begin(self._nvm, kvn, self._keys(kvn), command.data, self.aid)
        return self._kdd + bytes((kvn,)) + answer, 0x9000

    def _external_authenticate(self, command: Command) -> tuple[bytes, int]:
        channel, self._channel = self._channel, None
        if channel is None or self._open:
            self.close()
            self._refuse_blocked(self._kvn or self._key_versions()[0])
            raise Refused(0x6985)
        if not command.cla & 0x04:
            raise Refused(0x6982)
        if command.p1 not in self._scp.levels or command.p2:
            raise Refused(0x6A86)
        if len(command.data) != 16:
            raise Refused(0x6700)
        failures = f"isd.failures.{self._kvn:02X}"
        wrong = 0
        if not channel.host_cryptogram_fits(command.data[:8]):
            wrong = 0x6300
        elif not channel.check_mac(command):
            wrong = 0x6982
        if wrong:
            self._nvm.put(failures, self._nvm.get_int(failures) + 1)
            return b"", wrong
        if self._nvm.get_int(failures):
            self._nvm.put(failures, 0)
        self._scp.authenticated(self._nvm, self._kvn)
        channel.level = command.p1
        self._channel = channel
        self._open = True
        return b"", 0x9000

    def _refuse_blocked(self, kvn: int) -> None:
        failures, limit = self._nvm.get_int(f"isd.failures.{kvn:02X}"), self._nvm.get_int("isd.max_failures", 10)
        if self._faults.locked_key_set or failures >= limit:
            raise Refused(0x6983)

    def _key_versions(self) -> list[int]:
        return list(self._nvm.get_bytes("isd.kvns") or b"")

    def _keys(self, kvn: int) -> tuple[bytes, bytes, bytes]:
        keys = self._nvm.get_bytes(f"isd.keys.{kvn:02X}") or bytes(48)
        if self._faults.wrong_transport_keys:
            keys = bytes(byte ^ 0x5A for byte in keys)
        return keys[:16], keys[16:32], keys[32:48]

    # Commands

    def _plain(self, command: Command) -> tuple[bytes, int]:
        handler = self._dispatch.get(command.ins)
        if handler is None:
            raise Refused(0x6D00)
        if command.cla not in (0x00, 0x80):
            raise Refused(0x6E00)
        return handler(command)

    def _need_channel(self) -> Channel:
        if not self._open or self._channel is None:
            raise Refused(0x6982)
        return self._channel

    def _get_data(self, command: Command) -> tuple[bytes, int]:
        tag = command.p1 << 8 | command.p2
        nvm = self._nvm
        if tag == 0x9F7F:
            lot, serial = nvm.get_bytes("lot") or b"", nvm.get_bytes("serial") or b""
            return tlv(0x9F7F, identity.cplc(lot, serial)), 0x9000
        if tag in (0x00E0, 0x0066):
            value = (
                identity.key_information(self._key_versions(), self._scp.key_type)
                if tag == 0x00E0
                else identity.recognition_data(self._scp.number, self._scp.option)
            )
            # ISO/IEC 7816-4 GET DATA (CLA 00) answers with the content of a template, GlobalPlatform's (CLA 80) with the
            # whole data object. Clients rely on one or the other.
            return (value if command.cla == 0x00 else tlv(tag, value)), 0x9000
        if tag == 0x0042:
            return tlv(0x42, self._kdd[:2]), 0x9000
        if tag == 0x0045:
            return tlv(0x45, self._kdd), 0x9000
        if tag == 0x00C1:
            return tlv(0xC1, self._scp.sequence(nvm, self._key_versions()[0])), 0x9000
        raise Refused(0x6A88)

    def _get_status(self, command: Command) -> tuple[bytes, int]:
        if command.p2 not in (0x00, 0x02):
            raise Refused(0x6A86)
        data = command.data
        if len(data) < 2 or data[0] != 0x4F or data[1] != len(data) - 2:
            raise Refused(0x6A80)
        found = [entry for entry in self._status_entries(command.p1) if entry[0].startswith(data[2:])]
        if not found:
            raise Refused(0x6A88)
        if command.p2 == 0x00:
            return b"".join(bytes((len(aid),)) + aid + bytes((state, privileges[0])) for aid, state, privileges in found), 0x9000
        return b"".join(
            tlv(0xE3, tlv(0x4F, aid) + tlv(0x9F70, bytes((state,))) + tlv(0xC5, privileges)) for aid, state, privileges in found
        ), 0x9000

    def _status_entries(self, p1: int) -> Iterator[tuple[bytes, int, bytes]]:
        if p1 == 0x80:
            # Security domain, card lock, card terminate, CVM management (GPCS 6.6.1).
            yield self.aid, self._nvm.get_int("isd.state"), b"\x9a\x00\x00"
        elif p1 == 0x40:
            for instance in self._instances:
                yield instance.aid, _PERSONALIZED if instance.personalized else _SELECTABLE, b"\x00\x00\x00"
        elif p1 not in (0x20, 0x10):
            raise Refused(0x6A86)

    def _install(self, command: Command) -> tuple[bytes, int]:
        """INSTALL [for personalization] only (GPCS 11.5.2.3.6): the blank comes with its applets installed."""
        channel = self._need_channel()
        if command.p1 != 0x20 or command.p2:
            raise Refused(0x6A81)
        data = command.data
        size = data[2] if len(data) > 2 else 0
        if data[:2] != b"\x00\x00" or not 5 <= size <= 16 or data[3 + size :] != b"\x00\x00\x00":
            raise Refused(0x6A80)
        aid = data[3 : 3 + size]
        target = next((instance for instance in self._instances if instance.aid == aid), None)
        if target is None:
            raise Refused(0x6A88)
        if target.personalized:
            raise Refused(0x6985)
        target.begin_personalization()
        self._store = StoreData(target, channel)
        return b"\x00", 0x9000

    def _store_data(self, command: Command) -> tuple[bytes, int]:
        self._need_channel()
        if self._store is None:
            raise Refused(0x6985)
        if self._store.process(command.p1, command.p2, command.data):
            self._store = None
        return b"", 0x9000

    def _put_key(self, command: Command) -> tuple[bytes, int]:
        """PUT KEY of a whole secure channel key set (GPCS 11.8, Amendment D 7.2): key ids 1 to 3."""
        channel = self._need_channel()
        if command.p2 != 0x81 or command.p1 > 0x7F:
            raise Refused(0x6A86)
        if not command.data:
            raise Refused(0x6700)
        old, new = command.p1, command.data[0]
        versions = self._key_versions()
        if old and old not in versions:
            raise Refused(0x6A88)
        if not 0x01 <= new <= 0x7F or (new != old and new in versions):
            raise Refused(0x6A80)
        keys, check_values = read_key_blocks(command.data[1:], channel, self._scp)
        if old:
            versions[versions.index(old)] = new
            for what in ("keys", "failures", "seq"):
                self._nvm.put(f"isd.{what}.{old:02X}", None)
        else:
            versions.append(new)
        self._nvm.put("isd.kvns", bytes(versions))
        self._nvm.put(f"isd.keys.{new:02X}", keys)
        return bytes((new,)) + check_values, 0x9000

    def _set_status(self, command: Command) -> tuple[bytes, int]:
        self._need_channel()
        if command.p1 != 0x80:
            raise Refused(0x6A86)
        if command.p2 != SECURED:
            raise Refused(0x6A80)
        if self._nvm.get_int("isd.state") != INITIALIZED:
            raise Refused(0x6985)
        self._nvm.put("isd.state", SECURED)
        return b"", 0x9000

    def _not_here(self, command: Command) -> tuple[bytes, int]:
        """LOAD and DELETE exist, but this chip's content is fixed by its maker."""
        self._need_channel()
        raise Refused(0x6985 if command.ins == 0xE4 else 0x6A81)
