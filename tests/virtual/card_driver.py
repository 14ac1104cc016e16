"""A small host side for the tests, written from the standards and sharing no code with the card or with the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

TEST_KMC = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
SOCIAL = bytes.fromhex("7378312E73682EC9E7BBE1B1A3D5CF")
FINANCE = bytes.fromhex("A000000333010101")
TRANSPORT = bytes.fromhex("A000000632010105")
HEALTH = bytes.fromhex("F04845414C544831")
CITY = bytes.fromhex("F05A5A4349545931")
ISD = bytes.fromhex("A000000151000000")


def cmac(key: bytes, message: bytes) -> bytes:
    mac = CMAC(algorithms.AES(key))
    mac.update(message)
    return mac.finalize()


def cbc(key: bytes, iv: bytes, data: bytes, *, decrypt: bool = False) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.CBC(iv))
    return (cipher.decryptor() if decrypt else cipher.encryptor()).update(data)


def ecb(algorithm: str, key: bytes, blocks: bytes) -> bytes:
    kind = {"3des": lambda k: TripleDES(k + k[:8] if len(k) == 16 else k), "sm4": algorithms.SM4, "aes": algorithms.AES}[algorithm]
    return Cipher(kind(key), modes.ECB()).encryptor().update(blocks)


def pad80(data: bytes, block: int = 16) -> bytes:
    data += b"\x80"
    return data + bytes(-len(data) % block)


def kcv(algorithm: str, key: bytes) -> bytes:
    return ecb(algorithm, key, b"\x01" * 16 if algorithm == "aes" else bytes(8 if algorithm == "3des" else 16))[:3]


def kdf(key: bytes, constant: int, context: bytes, length: int) -> bytes:
    fixed = bytes(11) + bytes((constant, 0)) + (length * 8).to_bytes(2, "big") + context
    return KBKDFCMAC(
        algorithm=algorithms.AES,
        mode=Mode.CounterMode,
        length=length,
        rlen=1,
        llen=None,
        location=CounterLocation.MiddleFixed,
        break_location=15,
        label=None,
        context=None,
        fixed=fixed,
    ).derive(key)


def transport_keys(chip_id: str, kmc: bytes = TEST_KMC) -> list[bytes]:
    kdd = bytes.fromhex(chip_id)
    return [cmac(kmc, bytes((1, 0, 0, 0, k, 0)) + kdd) for k in (1, 2, 3)]


class Host:
    """One SCP03 session from the host's side; also plain commands."""

    def __init__(self, transmit: Callable[[bytes], bytes], keys: list[bytes]) -> None:
        self.transmit = transmit
        self.keys = keys
        self.level = 0

    def plain(self, apdu: str | bytes) -> tuple[bytes, int]:
        answer = self.transmit(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu)
        return answer[:-2], int.from_bytes(answer[-2:], "big")

    def initialize_update(self, kvn: int = 0x30, host_challenge: bytes = b"\x11" * 8) -> tuple[bytes, int]:
        data, sw = self.plain(bytes((0x80, 0x50, kvn, 0, 8)) + host_challenge + b"\x00")
        if sw != 0x9000:
            return data, sw
        context = host_challenge + data[13:21]
        self.s_enc = kdf(self.keys[0], 4, context, 16)
        self.s_mac = kdf(self.keys[1], 6, context, 16)
        self.s_rmac = kdf(self.keys[1], 7, context, 16)
        self.card_cryptogram_fits = kdf(self.s_mac, 0, context, 8) == data[21:29]
        self.host_cryptogram = kdf(self.s_mac, 1, context, 8)
        return data, sw

    def external_authenticate(self, level: int, *, spoil_cryptogram: int = 0, spoil_mac: int = 0) -> int:
        cryptogram = bytes((self.host_cryptogram[0] ^ spoil_cryptogram,)) + self.host_cryptogram[1:]
        header = bytes((0x84, 0x82, level, 0, 16))
        self.chain = cmac(self.s_mac, bytes(16) + header + cryptogram)
        self.level, self.counter = level, 0
        mac = bytes((self.chain[0] ^ spoil_mac,)) + self.chain[1:8]
        return self.plain(header + cryptogram + mac)[1]

    def open(self, level: int = 0x33, kvn: int = 0x30) -> None:
        _, sw = self.initialize_update(kvn)
        assert sw == 0x9000
        assert self.card_cryptogram_fits
        assert self.external_authenticate(level) == 0x9000

    def wrap(self, apdu: bytes) -> bytes:
        if not self.level & 1:
            return apdu
        lc = apdu[4] if len(apdu) > 5 else 0
        data, le = apdu[5 : 5 + lc], apdu[5 + lc :] if lc else apdu[4:]
        self.counter += 1
        if self.level & 2 and data:
            icv = ecb("aes", self.s_enc, self.counter.to_bytes(16, "big"))
            data = cbc(self.s_enc, icv, pad80(data))
        header = bytes((apdu[0] | 4, *apdu[1:4], len(data) + 8))
        self.chain = cmac(self.s_mac, self.chain + header + data)
        return header + data + self.chain[:8] + le

    def send(self, apdu: str | bytes) -> tuple[bytes, int]:
        data, sw = self.plain(self.wrap(bytes.fromhex(apdu) if isinstance(apdu, str) else apdu))
        if self.level & 0x10 and (sw == 0x9000 or sw >> 8 in (0x62, 0x63)):
            data, mac = data[:-8], data[-8:]
            assert cmac(self.s_rmac, self.chain + data + sw.to_bytes(2, "big"))[:8] == mac
            if self.level & 0x20 and data:
                icv = ecb("aes", self.s_enc, b"\x80" + self.counter.to_bytes(15, "big"))
                data = cbc(self.s_enc, icv, data, decrypt=True).rstrip(b"\x00")[:-1]
        return data, sw

    def sealed(self, span: bytes) -> bytes:
        """A span under the static DEK."""
        return cbc(self.keys[2], bytes(16), span)

    def install(self, aid: bytes) -> tuple[bytes, int]:
        data = b"\x00\x00" + bytes((len(aid),)) + aid + bytes(3)
        return self.send(b"\x80\xe6\x20\x00" + bytes((len(data),)) + data + b"\x00")

    def store(self, p1: int, p2: int, data: bytes) -> int:
        return self.send(bytes((0x80, 0xE2, p1, p2, len(data))) + data)[1]

    def personalize(self, aid: bytes, groupings: Iterable[tuple[int, bytes, bool]], chunk: int = 200) -> None:
        """INSTALL and STORE DATA: plain groupings share commands, those with encrypted spans go on their own."""
        assert self.install(aid) == (b"\x00", 0x9000)
        commands: list[tuple[int, bytes]] = []
        for number, value, encrypted in groupings:
            raw = dgi(number, value)
            if not encrypted and commands and not commands[-1][0] and len(commands[-1][1]) + len(raw) <= chunk:
                commands[-1] = (0, commands[-1][1] + raw)
                continue
            parts = [raw[at : at + chunk] for at in range(0, len(raw), chunk)]
            commands += [(0x60 if encrypted else 0, part) for part in parts]
        for block, (p1, data) in enumerate(commands):
            last = 0x80 if block == len(commands) - 1 else 0
            assert self.store(p1 | last, block, data) == 0x9000, f"block {block}"

    def put_key(self, kvn: int, keys: list[bytes], replace: int = 0x30, kcvs: list[bytes] | None = None) -> tuple[bytes, int]:
        checks = kcvs or [kcv("aes", key) for key in keys]
        blocks = (b"\x88\x11\x10" + self.sealed(key) + b"\x03" + check for key, check in zip(keys, checks, strict=True))
        data = bytes((kvn,)) + b"".join(blocks)
        return self.send(bytes((0x80, 0xD8, replace, 0x81, len(data))) + data + b"\x00")


def dgi(number: int, value: bytes) -> bytes:
    length = bytes((len(value),)) if len(value) < 255 else b"\xff" + len(value).to_bytes(2, "big")
    return number.to_bytes(2, "big") + length + value


def tlv(tag: str, value: bytes) -> bytes:
    return bytes.fromhex(tag) + (b"\x81" if len(value) > 127 else b"") + bytes((len(value),)) + value


def key(number: int) -> bytes:
    """Test keys, all different."""
    return bytes((number * 16 + at) & 0xFF for at in range(16))


def file_entry(fid: int, sfi: int, kind: int, size: int, read: int = 0, update: int = 0xFF) -> bytes:
    return fid.to_bytes(2, "big") + bytes((sfi, kind)) + size.to_bytes(2, "big") + bytes((read, update))


def df(aid: bytes, *entries: bytes) -> bytes:
    return bytes((len(aid),)) + aid + b"".join(entries)


def capp_keys(host: Host, *entries: tuple[int, int, int, bytes]) -> bytes:
    """kid, purpose, retry, key."""
    return b"".join(bytes((kid, purpose, 1, retry)) + host.sealed(value) for kid, purpose, retry, value in entries)


DF01 = bytes.fromhex("D15600000501")
DF02 = bytes.fromhex("D15600000502")


def social_image(host: Host) -> list[tuple[int, bytes, bool]]:
    """A root with three files and 3DES and SM4 keys, and two DFs with their own."""
    return [
        (
            0xA001,
            df(
                SOCIAL,
                file_entry(0xEF05, 5, 2, 7),
                file_entry(0xEF06, 6, 2, 6, read=0x02, update=0x02),
                file_entry(0xEF08, 8, 1, 20, update=0x82),
            ),
            False,
        ),
        (0x0501, b"\x01\x02AB", False),
        (0x0507, b"\x07\x09123456788", False),
        (0x0601, b"secret of the holder", False),
        (0x0801, b"photo", False),
        (0x8020, capp_keys(host, (0x01, 1, 15, key(1)), (0x02, 2, 3, key(2)), (0x0B, 0x0B, 5, key(3))), True),
        (0x9020, kcv("3des", key(1)) + kcv("3des", key(2)) + kcv("3des", key(3)), False),
        (0x8021, capp_keys(host, (0x81, 1, 15, key(4)), (0x82, 2, 3, key(5))), True),
        (0x9021, kcv("sm4", key(4)) + kcv("sm4", key(5)), False),
        (0xA001, df(DF01, file_entry(0xEF05, 5, 4, 3, update=0), file_entry(0xEF15, 0x15, 1, 4, read=0xFF)), False),
        (0x0501, b"oldest", False),
        (0xA001, df(DF02, file_entry(0xEF05, 5, 2, 2)), False),
        (0x0502, b"second", False),
        (0x8022, capp_keys(host, (0x05, 1, 15, key(6))), True),
        (0x9022, kcv("aes", key(6)), False),
    ]


IAD_3DES = bytes.fromhex("07010103A00000010A0100000000001122334455")
IAD_SM4 = bytes.fromhex("07010203A00000040A010000000000112233")
FCI_A5 = tlv("50", b"TEST DEBIT") + tlv("9F38", bytes.fromhex("9F6604DF6901"))
PIN_BLOCK = bytes.fromhex("26123456FFFFFFFF")


def finance_image(host: Host) -> list[tuple[int, bytes, bool]]:
    des, sm4 = [key(7), key(8), key(9)], [key(10), key(11), key(12)]
    return [
        (0x0101, tlv("70", tlv("57", bytes(19))), False),
        (0x0102, tlv("70", tlv("5F20", b"A" * 150)), False),
        (0x0D01, tlv("9F58", b"\x01"), False),
        (0x0E01, tlv("9F51", b"\x01\x56"), False),
        (0x9102, FCI_A5, False),
        (0x9103, FCI_A5, False),
        (0x9104, bytes.fromhex("82027C00940408010200"), False),
        (0x9105, bytes.fromhex("82027D00940408010200"), False),
        (0x9200, IAD_3DES, False),
        (0x9201, IAD_SM4, False),
        (0x8000, host.sealed(b"".join(des)), True),
        (0x9000, b"".join(kcv("3des", k) for k in des), False),
        (0x8400, host.sealed(b"".join(sm4)), True),
        (0x9400, b"".join(kcv("sm4", k) for k in sm4), False),
        (0x8010, host.sealed(pad80(PIN_BLOCK)), True),
        (0x9010, b"\x03\x03", False),
    ]


def transport_keys_of(algorithm: str) -> list[bytes]:
    return [key((16 if algorithm == "3des" else 48) + at) for at in range(1, 17)]


def transport_image(host: Host) -> list[tuple[int, bytes, bool]]:
    image = [(0x9102, FCI_A5, False)]
    image += [(0xB001, bytes(range(30)), False), (0xB002, bytes(range(55)), False), (0xB003, bytes(range(60)), False)]
    for number, algorithm in ((0xB0A0, "3des"), (0xB1A0, "sm4")):
        keys = transport_keys_of(algorithm)
        entries = [host.sealed(k) + kcv(algorithm, k) for k in keys]
        image += [(number, b"".join(entries[:15]), True), (number + 5, entries[15], True)]
    return image


LOT, SERIAL = bytes.fromhex("4101"), bytes.fromhex("1122334455667788")


def select(host: Host, aid: bytes) -> bytes:
    fci, sw = host.plain(b"\x00\xa4\x04\x00" + bytes((len(aid),)) + aid + b"\x00")
    assert sw == 0x9000
    return fci


def mac_blocks(algorithm: str, key_: bytes, message: bytes) -> bytes:
    """CBC-MAC written out block by block, so that it shares no shortcut with the card."""
    size = 8 if algorithm == "3des" else 16
    state = bytes(size)
    padded = pad80(message, size)
    for at in range(0, len(padded), size):
        state = ecb(algorithm, key_, bytes(a ^ b for a, b in zip(state, padded[at : at + size], strict=True)))
    return state
