"""The finance application: PBOC 3.0 debit/credit as far as production proves it, in 3DES and in SM4.

DGIs (the maker's specification): sfi||record (template 70), 9102/9103 FCI, 9104/9105 GPO answers, 9200/9201 issuer application
data, 0D01/0E01 internal data, 8000/8400 keys AC||MAC||ENC, 9000/9400 their check values, 8010 PIN, 9010 PIN tries.
The key set is chosen by DF69 in the PDOL: 01 is SM4, anything else 3DES.
"""

from __future__ import annotations

from engine.virtual.applets.base import Applet, trim
from engine.virtual.crypto import SM4, TDES, cbc_mac, ecb, kcv, retail_mac, same, unpad80
from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command, Refused, read_tlvs, tlv

_KEYS = {0x8000: TDES, 0x8400: SM4}
_KCVS = {0x9000: TDES, 0x9400: SM4}
_GPO = {0x9104: TDES, 0x9105: SM4}
_IAD = {0x9200: TDES, 0x9201: SM4}
_FCI, _FCI_CONTACTLESS = 0x9102, 0x9103
_INTERNAL = (0x0D01, 0x0E01)
_PIN, _PIN_TRIES = 0x8010, 0x9010
_ALGORITHM_TAG = 0xDF69
_CID = {0x00: 0x00, 0x40: 0x80, 0x80: 0x80}


class Finance(Applet):
    """One PBOC application."""

    def __init__(self, nvm: Nvm, aid: bytes) -> None:
        super().__init__(nvm, aid)
        # Chosen by GET PROCESSING OPTIONS; a transaction allows one GENERATE AC here.
        self._algorithm: str | None = None
        self._sfi = 0
        self.handlers |= {
            0xB2: self._read_record,
            0xA8: self._get_processing_options,
            0xAE: self._generate_ac,
            0xCA: self._get_data,
            0x20: self._verify,
        }

    # Personalization

    def is_sensitive(self, dgi: int) -> bool:
        return dgi in _KEYS or dgi == _PIN

    def spans(self, dgi: int, value: bytes) -> list[tuple[int, int]]:
        # the PIN block alone under a DES key, padded to a block under an AES key
        if len(value) not in ((8, 16) if dgi == _PIN else (48,)):
            raise Refused(0x6A80)
        return [(0, len(value))]

    def store(self, dgi: int, value: bytes) -> None:
        if dgi in _KEYS:
            self._put(dgi, value)
        elif dgi in (_FCI, _FCI_CONTACTLESS) or dgi in _INTERNAL:
            read_tlvs(value)
            self._put(dgi, value)
        elif dgi in _KCVS:
            self._check_kcvs(_KCVS[dgi], value)
        elif dgi in _GPO:
            self._store_gpo(dgi, value)
        elif dgi in _IAD:
            if not 1 <= len(value) <= 32:
                raise Refused(0x6A80)
            self._put(dgi, value)
        elif dgi == _PIN:
            self._store_pin(value)
        elif dgi == _PIN_TRIES:
            if len(value) != 2 or not value[1] or value[0] > value[1]:
                raise Refused(0x6A80)
            self.nvm.put(self.prefix + "ptc", value[0])
            self.nvm.put(self.prefix + "ptl", value[1])
        elif 0x01 <= dgi >> 8 <= 0x1E and 0x01 <= dgi & 0xFF <= 0xFE:
            self._store_record(dgi, value)
        else:
            raise Refused(0x6A80)

    def _store_record(self, dgi: int, value: bytes) -> None:
        items = read_tlvs(value)
        if len(value) > 0xFF or len(items) != 1 or items[0][0] != 0x70:
            raise Refused(0x6A80)
        read_tlvs(items[0][1])
        self._put(dgi, value)

    def _store_gpo(self, dgi: int, value: bytes) -> None:
        found = dict(read_tlvs(value))
        if len(found.get(0x82, b"")) != 2 or not found.get(0x94) or len(found[0x94]) % 4:
            raise Refused(0x6A80)
        self._put(dgi, value)

    def _store_pin(self, value: bytes) -> None:
        block = unpad80(value) if len(value) == 16 else value
        # Format 2: 2, number of digits, digits, F (EMV Book 3 6.5.12).
        if block is None or len(block) != 8 or block[0] >> 4 != 2 or not 4 <= block[0] & 0x0F <= 12:
            raise Refused(0x6A80)
        digits = block[0] & 0x0F
        text = block.hex()[2:]
        if not text[:digits].isdecimal() or set(text[digits:]) - {"f"}:
            raise Refused(0x6A80)
        self._put(_PIN, block)

    def _check_kcvs(self, algorithm: str, value: bytes) -> None:
        keys = self._keys(algorithm)
        if keys is None or not same(b"".join(kcv(algorithm, keys[at : at + 16]) for at in (0, 16, 32)), value):
            raise Refused(0x6A80)

    # Commands

    def fci_content(self) -> bytes:
        content = self._get(_FCI) if self.personalized else None
        return super().fci_content() if content is None else content

    def deselect(self) -> None:
        super().deselect()
        self._algorithm = None
        self._sfi = 0

    def _read_record(self, command: Command) -> tuple[bytes, int]:
        if command.cla:
            raise Refused(0x6E00)
        sfi = command.p2 >> 3 or self._sfi
        if command.p2 & 0x07 != 0x04 or sfi == 0x1F:
            raise Refused(0x6A86)
        if command.data:
            raise Refused(0x6700)
        # 0D01 and 0E01 look like records and are not: internal data is never read out.
        content = None if sfi << 8 | command.p1 in _INTERNAL else self._get(sfi << 8 | command.p1)
        if content is None:
            known = any(int(name[-4:], 16) not in _INTERNAL for name in self.nvm.names(f"{self.prefix}dgi.{sfi:02X}"))
            raise Refused(0x6A83 if sfi and known else 0x6A82)
        self._sfi = sfi
        return trim(content, command.le)

    def _get_processing_options(self, command: Command) -> tuple[bytes, int]:
        if command.cla != 0x80:
            raise Refused(0x6E00)
        if command.p1 or command.p2:
            raise Refused(0x6A86)
        items = read_tlvs(command.data)
        if len(items) != 1 or items[0][0] != 0x83:
            raise Refused(0x6A80)
        algorithm = self._choose(items[0][1])
        gpo = self._get(0x9105 if algorithm == SM4 else 0x9104)
        atc = self.nvm.get_int(self.prefix + "atc") + 1
        if gpo is None or self._keys(algorithm) is None or atc > 0xFFFF:
            raise Refused(0x6985)
        self.nvm.put(self.prefix + "atc", atc)
        self._algorithm = algorithm
        return tlv(0x77, gpo), 0x9000

    def _choose(self, pdol_data: bytes) -> str:
        """The algorithm the terminal asks for: DF69 at its place in the PDOL of our own FCI."""
        pdol = dict(read_tlvs(self._get(_FCI) or b"")).get(0x9F38, b"")
        at = 0
        wanted = b""
        for tag, size in _dol(pdol):
            if tag == _ALGORITHM_TAG:
                wanted = pdol_data[at : at + size]
            at += size
        if at != len(pdol_data):
            raise Refused(0x6A80)
        return SM4 if wanted == b"\x01" else TDES

    def _generate_ac(self, command: Command) -> tuple[bytes, int]:
        """AC over pad80(CDOL1 data || AIP || ATC || IAD); an offline approval is never given, a TC request gets an ARQC."""
        if command.cla != 0x80:
            raise Refused(0x6E00)
        if command.p1 not in _CID or command.p2:
            raise Refused(0x6A86)
        if not command.data:
            raise Refused(0x6700)
        algorithm, self._algorithm = self._algorithm, None
        if algorithm is None:
            raise Refused(0x6985)
        iad = self._get(0x9201 if algorithm == SM4 else 0x9200)
        keys = self._keys(algorithm)
        gpo = self._get(0x9105 if algorithm == SM4 else 0x9104)
        if iad is None or keys is None or gpo is None:
            raise Refused(0x6985)
        atc = self.nvm.get_int(self.prefix + "atc").to_bytes(2, "big")
        message = command.data + dict(read_tlvs(gpo))[0x82] + atc + iad
        session = _ac_session_key(algorithm, keys[:16], atc)
        ac = retail_mac(session, message) if algorithm == TDES else cbc_mac(SM4, session, message)[:8]
        cid = bytes((_CID[command.p1],))
        return tlv(0x77, tlv(0x9F27, cid) + tlv(0x9F36, atc) + tlv(0x9F26, ac) + tlv(0x9F10, iad)), 0x9000

    def _get_data(self, command: Command) -> tuple[bytes, int]:
        if command.cla != 0x80:
            raise Refused(0x6E00)
        tag = command.p1 << 8 | command.p2
        if tag == 0x9F36:
            return tlv(tag, self.nvm.get_int(self.prefix + "atc").to_bytes(2, "big")), 0x9000
        if tag == 0x9F13:
            # Last online ATC: no online transaction has ever been completed on this chip.
            return tlv(tag, b"\x00\x00"), 0x9000
        if tag == 0x9F17 and self.prefix + "ptc" in self.nvm:
            return tlv(tag, bytes((self.nvm.get_int(self.prefix + "ptc"),))), 0x9000
        raise Refused(0x6A88)

    def _verify(self, command: Command) -> tuple[bytes, int]:
        if command.cla:
            raise Refused(0x6E00)
        if command.p1 or command.p2 != 0x80:
            raise Refused(0x6A86)
        pin = self._get(_PIN)
        limit = self.nvm.get_int(self.prefix + "ptl")
        if pin is None or not limit:
            raise Refused(0x6A88)
        left = self.nvm.get_int(self.prefix + "ptc")
        if not left:
            raise Refused(0x6983)
        if len(command.data) != 8:
            raise Refused(0x6700)
        if same(pin, command.data):
            if left != limit:
                self.nvm.put(self.prefix + "ptc", limit)
            return b"", 0x9000
        self.nvm.put(self.prefix + "ptc", left - 1)
        return b"", 0x63C0 | min(left - 1, 15)

    # Memory

    def _put(self, dgi: int, value: bytes) -> None:
        self.nvm.put(f"{self.prefix}dgi.{dgi:04X}", value)

    def _get(self, dgi: int) -> bytes | None:
        return self.nvm.get_bytes(f"{self.prefix}dgi.{dgi:04X}")

    def _keys(self, algorithm: str) -> bytes | None:
        return self._get(0x8400 if algorithm == SM4 else 0x8000)


def _ac_session_key(algorithm: str, master: bytes, atc: bytes) -> bytes:
    """PBOC application cryptogram key: X || ~X over the counter, where X is 00x6 || ATC and only the ATC is inverted."""
    inverted = bytes(byte ^ 0xFF for byte in atc)
    return ecb(algorithm, master, bytes(6) + atc + bytes(6) + inverted)


def _dol(dol: bytes) -> list[tuple[int, int]]:
    """Tags and lengths of a data object list (EMV Book 3 5.4); Refused 6A80."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(dol):
        end = at + 1
        if dol[at] & 0x1F == 0x1F:
            while end < len(dol) and dol[end] & 0x80:
                end += 1
            end += 1
        if end >= len(dol):
            raise Refused(0x6A80)
        found.append((int.from_bytes(dol[at:end], "big"), dol[end]))
        at = end + 1
    return found
