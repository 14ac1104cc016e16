"""The transport application: T-Union electronic purse (JT/T 978) as far as production proves it, in 3DES and in SM4.

DGIs (the maker's specification): 9102 FCI; B001/B002/B003 files 0015, 0016, 0017; B0A0/B1A0 the 15 keys with their check
values (3DES, SM4), B0A5/B1A5 the second load key. KIDs: 01..0F in the 3DES set, 81..8F in the SM4 set.
"""

from __future__ import annotations

from engine.virtual.applets.base import Applet
from engine.virtual.applets.purse import LOAD, PURCHASE, Purse, PurseKeys
from engine.virtual.crypto import BLOCK, SM4, TDES, ecb, kcv, same
from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command, Refused, read_tlvs, tlv

# DGI -> sfi, length. The files' fids are 00 || sfi.
_FILES = {0xB001: (0x15, 30), 0xB002: (0x16, 55), 0xB003: (0x17, 60)}
_KEY_SETS = {0xB0A0: TDES, 0xB1A0: SM4}
_LOAD_2 = {0xB0A5: TDES, 0xB1A5: SM4}
_FCI = 0x9102
_KEYS = 15
_ENTRY = 19
_LOG_SFI = 0x18
_LOG_RECORDS = 10
# Order of the keys in the set, 1..15.
_CARD_MASTER, _APP_MASTER, _PURCHASE, _LOAD, _TAC = 1, 3, 5, 6, 7
_TRIES = 3


class Transport(Applet):
    """One e-purse with its three public files and two key sets."""

    def __init__(self, nvm: Nvm, aid: bytes) -> None:
        super().__init__(nvm, aid)
        self._sfi = 0
        self._purse = Purse(nvm, self.prefix, self._purse_keys)
        self.handlers |= {
            0xB0: self._read_binary,
            0xB2: self._read_log,
            0xD6: self._never,
            0xDC: self._never,
            0x88: self._internal_authenticate,
            0x5C: self._get_balance,
            0x50: self._initialize,
            0x52: self._purse.credit_for_load,
            0x54: self._purse.debit,
        }

    # Personalization

    def is_sensitive(self, dgi: int) -> bool:
        return dgi in _KEY_SETS or dgi in _LOAD_2

    def spans(self, dgi: int, value: bytes) -> list[tuple[int, int]]:
        if len(value) != _ENTRY * (_KEYS if dgi in _KEY_SETS else 1):
            raise Refused(0x6A80)
        return [(at, at + 16) for at in range(0, len(value), _ENTRY)]

    def store(self, dgi: int, value: bytes) -> None:
        if dgi == _FCI:
            read_tlvs(value)
            self.nvm.put(self.prefix + "fci", value)
        elif dgi in _FILES:
            sfi, size = _FILES[dgi]
            if len(value) != size:
                raise Refused(0x6A80)
            self.nvm.put(f"{self.prefix}file.{sfi:02X}", value)
        elif dgi in _KEY_SETS:
            algorithm = _KEY_SETS[dgi]
            self.nvm.put(f"{self.prefix}keys.{algorithm}", _checked_keys(algorithm, value))
        elif dgi in _LOAD_2:
            algorithm = _LOAD_2[dgi]
            self.nvm.put(f"{self.prefix}load2.{algorithm}", _checked_keys(algorithm, value))
        else:
            raise Refused(0x6A80)

    # Selection

    def fci_content(self) -> bytes:
        content = self.nvm.get_bytes(self.prefix + "fci") if self.personalized else None
        return super().fci_content() if content is None else content

    def deselect(self) -> None:
        super().deselect()
        self._sfi = 0
        self._purse.forget()

    def select_file(self, fid: int) -> bytes:
        """SELECT of one of the public files by fid; Refused 6A82."""
        if not self.personalized:
            raise Refused(0x6985)
        content = self.nvm.get_bytes(f"{self.prefix}file.{fid:02X}")
        if content is None:
            raise Refused(0x6A82)
        self._sfi = fid
        size = len(content).to_bytes(2, "big")
        return tlv(0x6F, tlv(0x82, b"\x01") + tlv(0x83, fid.to_bytes(2, "big")) + tlv(0x88, bytes((fid << 3,))) + tlv(0x80, size))

    # Commands

    def process(self, command: Command) -> tuple[bytes, int]:
        if command.ins not in (0x52, 0x54):
            # A purse transaction ends with the very next command, whatever that is.
            self._purse.forget()
        return super().process(command)

    def _read_binary(self, command: Command) -> tuple[bytes, int]:
        if command.cla:
            raise Refused(0x6E00)
        if command.data:
            raise Refused(0x6700)
        if command.p1 & 0x80:
            sfi, offset = command.p1 & 0x1F, command.p2
        else:
            sfi, offset = self._sfi, command.p1 << 8 | command.p2
        if not sfi:
            raise Refused(0x6986)
        content = self.nvm.get_bytes(f"{self.prefix}file.{sfi:02X}")
        if content is None:
            raise Refused(0x6A82)
        if offset >= len(content):
            raise Refused(0x6B00)
        self._sfi = sfi
        return content[offset : offset + (command.le or 256)], 0x9000

    def _read_log(self, command: Command) -> tuple[bytes, int]:
        if command.cla:
            raise Refused(0x6E00)
        if command.p2 != _LOG_SFI << 3 | 0x04:
            raise Refused(0x6A82 if command.p2 & 0x07 == 0x04 else 0x6A86)
        entry = self._purse.log_entry(command.p1) if 1 <= command.p1 <= _LOG_RECORDS else None
        if entry is None:
            raise Refused(0x6A83)
        return entry, 0x9000

    def _never(self, command: Command) -> tuple[bytes, int]:
        raise Refused(0x6E00 if command.cla else 0x6982)

    def _internal_authenticate(self, command: Command) -> tuple[bytes, int]:
        """No key of this application is for internal authentication."""
        if command.cla:
            raise Refused(0x6E00)
        self._key(command.p2)
        raise Refused(0x6985)

    def external_authenticate(self, command: Command, challenge: bytes | None) -> tuple[bytes, int]:
        """With card master or application master key only."""
        if command.cla:
            raise Refused(0x6E00)
        if command.p1:
            raise Refused(0x6A86)
        algorithm, key = self._key(command.p2)
        if command.p2 & 0x7F not in (_CARD_MASTER, _APP_MASTER):
            raise Refused(0x6985)
        if len(command.data) != BLOCK[algorithm]:
            raise Refused(0x6700)
        if challenge is None or len(challenge) != BLOCK[algorithm]:
            raise Refused(0x6985)
        tries = f"{self.prefix}tries.{command.p2:02X}"
        return self.check_cryptogram(ecb(algorithm, key, challenge), command.data, tries, _TRIES)

    def _get_balance(self, command: Command) -> tuple[bytes, int]:
        if command.cla != 0x80:
            raise Refused(0x6E00)
        if command.p1 or command.p2 != 0x02:
            raise Refused(0x6A86)
        return self._purse.balance.to_bytes(4, "big"), 0x9000

    def _initialize(self, command: Command) -> tuple[bytes, int]:
        if command.cla != 0x80:
            raise Refused(0x6E00)
        if (command.p1, command.p2) == (0x00, 0x02):
            return self._purse.initialize_for_load(command)
        if (command.p1, command.p2) == (0x01, 0x02):
            return self._purse.initialize_for_purchase(command)
        raise Refused(0x6A86)

    # Keys

    def _key(self, kid: int) -> tuple[str, bytes]:
        algorithm = SM4 if kid & 0x80 else TDES
        keys = self.nvm.get_bytes(f"{self.prefix}keys.{algorithm}")
        index = kid & 0x7F
        if keys is None or not 1 <= index <= _KEYS:
            raise Refused(0x6A88)
        return algorithm, keys[16 * (index - 1) : 16 * index]

    def _purse_keys(self, kind: str, key_index: int) -> PurseKeys:
        """Keys of one transaction: index 01 and 02 choose the load key, 81 and 82 their SM4 twins; Refused 9403."""
        algorithm, index = (SM4 if key_index & 0x80 else TDES), key_index & 0x7F
        keys = self.nvm.get_bytes(f"{self.prefix}keys.{algorithm}")
        position = {PURCHASE: _PURCHASE, LOAD: _LOAD}[kind]
        key = keys[16 * (position - 1) : 16 * position] if keys and index == 1 else None
        if kind == LOAD and index == 2:
            key = self.nvm.get_bytes(f"{self.prefix}load2.{algorithm}")
        if key is None or keys is None:
            raise Refused(0x9403)
        return PurseKeys(algorithm, key, keys[16 * (_TAC - 1) : 16 * _TAC])


def _checked_keys(algorithm: str, value: bytes) -> bytes:
    """The keys of `key[16] || kcv[3]` entries, without their check values; Refused 6A80 when one does not fit."""
    entries = [value[at : at + _ENTRY] for at in range(0, len(value), _ENTRY)]
    if not all(same(kcv(algorithm, entry[:16]), entry[16:]) for entry in entries):
        raise Refused(0x6A80)
    return b"".join(entry[:16] for entry in entries)
