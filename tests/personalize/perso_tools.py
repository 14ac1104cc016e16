"""A card the slow way: one at a time, dicts and strings, keys from plain ciphers; and a virtual chip to play segments to."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import numpy as np
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from engine.personalize.segment import Segment, to_slab
from engine.production.context import attempt_columns
from engine.profiles.masters import master_specs
from engine.profiles.model import Profile, load
from engine.virtual.chip import VirtualChip
from keys.custody.software import SoftwareCustody
from tests.profiles.profile_tools import NAME, Blank, keyset

KMC = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
LOT = bytes.fromhex("0A01")
SERIALS = {"transport": 77, "city": 123}


def master(key_id: str) -> bytes:
    """Test masters anyone can compute: the first half of a hash of the id."""
    return KMC if key_id.startswith("maker.kmc") else hashlib.sha256(key_id.encode()).digest()[:16]


def make_custody(directory: Path, profile: Profile) -> SoftwareCustody:
    custody = SoftwareCustody.create(directory, "test", test=True, scrypt_n=1024)
    for spec in dict.fromkeys(master_specs(profile)):
        custody.import_key(spec, master(spec.key_id))
    return custody


def pan_of(digits: int, number: int = 0) -> bytes:
    return (f"622{number:03d}" + "9310208077029").encode()[:digits].ljust(digits, b"7")


def order(pan: bytes, **changes: bytes) -> dict:
    """One order line, as columns of one row."""
    line = {
        "social_security_number": b"41010419870124868X",
        "name_field": "欧阳陈磊海峰".encode("gb18030"),
        "name_extension": b"",
        "sex": b"2",
        "ethnicity": b"03",
        "birth_date": b"19870124",
        "issuing_region": b"410100",
        "card_number": b"G00000015",
        "issue_date": b"20261123",
        "expiry_date": b"20361123",
        "pan": pan,
        "phone": b"10065479012",
        **changes,
    }
    return {name: np.array([value]) for name, value in line.items()}


def columns_for(serial: bytes, pan: bytes, psn: int = 0) -> dict:
    return attempt_columns(load(NAME).profile, order(pan), SERIALS, psn, serial)


def play(chip: VirtualChip, segment: Segment) -> bytes:
    """What a station does: in order, until an answer is not the expected one."""
    answers = []
    for command, expected in zip(segment.commands, segment.expected, strict=True):
        answers.append(chip.transmit(command))
        if int.from_bytes(answers[-1][-2:], "big") != expected:
            break
    return to_slab(answers)


def ecb(algorithm: str, key: bytes, block: bytes) -> bytes:
    cipher = TripleDES(key + key[:8]) if algorithm == "3des" else algorithms.SM4(key)
    return Cipher(cipher, modes.ECB()).encryptor().update(block)


def disperse(algorithm: str, key: bytes, factor: bytes, parity: str) -> bytes:
    both = factor + bytes(255 - b for b in factor)
    made = ecb(algorithm, key, both)
    if parity == "odd":
        made = bytes(b if b.bit_count() % 2 else b ^ 1 for b in made)
    return made


class Card(Blank):
    """One card: its fields as bytes, and every key by the textbook."""

    def __init__(self, data: dict, fields: dict[str, bytes], pin_key: bytes, token: int) -> None:
        super().__init__(len(fields["pan"]))
        self.data, self.fields, self.pin_key, self.token = data, fields, pin_key, token

    def text(self, part: dict) -> bytes:
        size = len(super().text(part))
        chars = b""
        for item in part.get("concat") or [part]:
            if "text" in item:
                chars += item["text"].encode()
            else:
                first, after = item.get("slice", (0, 999))
                chars += self.fields[item["field"]][first:after]
        if part["codec"] == "cn":
            return bytes.fromhex(chars.decode().ljust(2 * size, "F"))
        if part["codec"] == "gb":
            while len(chars) > size:
                chars = chars.decode("gb18030")[:-1].encode("gb18030")
        return chars.ljust(size, b"\0")

    def factor(self, name: str) -> bytes:
        kind, _, value = name.partition(":")
        if kind == "ascii":
            return value.encode()
        if kind == "hex":
            return bytes.fromhex(value)
        if kind == "serial":
            return bytes.fromhex(self.fields[f"{value}_serial"].decode()[-16:])
        if kind == "pan-psn":
            return bytes.fromhex((self.fields["pan"] + self.fields["psn"]).decode()[-16:].rjust(16, "0"))
        return self.fields["chip_serial"]

    def key(self, app: str, keyset_name: str, entry: dict) -> bytes:
        key_set = keyset(self.data, app, keyset_name)
        key = master(f"{key_set['masters']}.{entry.get('master', entry['name'])}")
        for name in key_set["factors"]:
            key = disperse(key_set["algorithm"], key, self.factor(name), key_set.get("parity", "none"))
        return key

    def kcv(self, app: str, keyset_name: str, entry: dict) -> bytes:
        algorithm = keyset(self.data, app, keyset_name)["algorithm"]
        return ecb(algorithm, self.key(app, keyset_name, entry), bytes(8 if algorithm == "3des" else 16))[:3]

    def pin(self) -> bytes:
        digest = hmac.new(self.pin_key, b"pin" + self.token.to_bytes(8, "big"), "sha256").digest()
        digits = self.data["pin"]["digits"]
        pin = str(int.from_bytes(digest[:16], "big") % 10**digits).rjust(digits, "0")
        return bytes.fromhex(f"2{digits}{pin}".ljust(16, "F"))
