"""Makes cext/selftest.json: what every kernel must answer, from the standards' definitions over `cryptography`.

    python tests/keys/selftest_answers.py

The block ciphers underneath are held to published vectors by the tests of `cext`.
"""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

FILE = Path(__file__).parents[2] / "cext" / "selftest.json"
BLOCK = {"tdes": 8, "sm4": 16, "aes": 16}
KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
KEK = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
LONG = bytes.fromhex("603DEB1015CA71BE2B73AEF0857D77811F352C073B6108D72D9810A30914DFF4")
TEXT = bytes(range(0x51, 0x51 + 64))
IV = bytes.fromhex("F0E1D2C3B4A5968778695A4B3C2D1E0F")
FACTORS = [bytes.fromhex(text) for text in ("4101000000000001", "9900112233445566", "0A0B0C0D0E0F1011")]
# offset, length, cla, ins, p1, p2, encrypt, le, counter: encrypted, plain, without data, with Le
APDUS = [[0, 20, 0x80, 0xE2, 0, 0, 1, -1, 1], [20, 16, 0x80, 0xE2, 0, 1, 0, -1, 2], [36, 0, 0x80, 0xF0, 0x80, 7, 1, 0, 3]]


def algorithm(family, key):
    if family == "tdes":
        return TripleDES((key * 3)[:24] if len(key) == 8 else key + key[:8])
    return SM4(key) if family == "sm4" else AES(key)


def ecb(family, key, blocks):
    return Cipher(algorithm(family, key), ECB()).encryptor().update(blocks)


def cbc(family, key, plain, iv=None):
    return Cipher(algorithm(family, key), CBC(bytes(BLOCK[family]) if iv is None else iv)).encryptor().update(plain)


def cmac(family, key, message):
    mac = CMAC(algorithm(family, key))
    mac.update(message)
    return mac.finalize()


def retail_mac(key, message, iv=bytes(8)):
    chain = cbc("tdes", key[:8], message[:-8], iv)[-8:] if len(message) > 8 else iv
    return ecb("tdes", key, bytes(a ^ b for a, b in zip(chain, message[-8:], strict=True)))


def kcv(family, key, method):
    if method == "cmac":
        return cmac(family, key, bytes(BLOCK[family]))[:5]
    return ecb(family, key, bytes([method == "one-block"]) * BLOCK[family])[:3]


def odd(key):
    return bytes(b & 0xFE | (b.bit_count() - (b & 1) + 1) % 2 for b in key)


def pboc(family, master, factors, parity=False):
    for factor in factors:
        inverse = bytes(b ^ 0xFF for b in factor)
        master = ecb(family, master, factor + inverse)
        master = odd(master) if parity else master
    return master


def wrap(family, kek, key, mode, iv):
    return ecb(family, kek, key) if mode == "ecb" else cbc(family, kek, key, iv)


def scp03(enc, mac, chain, plain, join=b"".join):
    """GlobalPlatform Amendment D 6.2.4, 6.2.6."""
    out = []
    for offset, length, cla, ins, p1, p2, encrypt, le, counter in APDUS:
        body = plain[offset : offset + length]
        if encrypt and body:
            body = cbc("aes", enc, pad80(body, 16), ecb("aes", enc, counter.to_bytes(16, "big")))
        secured = bytes([cla | 4, ins, p1, p2, len(body) + 8]) + body
        chain = cmac("aes", mac, chain + secured)
        out.append(secured + chain[:8] + (b"" if le < 0 else bytes([le])))
    return join(out)


def scp02(enc, mac, chain, plain, join=b"".join):
    """GlobalPlatform Card Specification E.4.4, E.4.5: ICV encryption, C-MAC on the unmodified length and data."""
    out = []
    for offset, length, cla, ins, p1, p2, encrypt, le, _ in APDUS:
        body = plain[offset : offset + length]
        iv = ecb("tdes", mac[:8], chain) if any(chain) else chain
        chain = retail_mac(mac, pad80(bytes([cla | 4, ins, p1, p2, len(body) + 8]) + body, 8), iv)
        if encrypt and body:
            body = cbc("tdes", enc, pad80(body, 8))
        out.append(bytes([cla | 4, ins, p1, p2, len(body) + 8]) + body + chain + (b"" if le < 0 else bytes([le])))
    return join(out)


def slab(items):
    return b"".join(len(item).to_bytes(2, "big") + item for item in items)


def pad80(message, block):
    return message + b"\x80" + bytes(-(len(message) + 1) % block)


class Answers:
    """The list of known answers; `shared` are arguments that all rows have in common, `rows` those with a row each."""

    def __init__(self):
        self.tests = []

    def add(self, kernel, expect, *, shared=None, rows=None, options=None):
        number = sum(test["kernel"] == kernel for test in self.tests) + 1
        spelled = {"shared": spell(shared or {}), "rows": spell(rows or {}), "options": options or {}}
        answers = [expect] if isinstance(expect, bytes) else expect
        self.tests.append({"id": f"{kernel}-{number}", "kernel": kernel, **spelled, "expect": [answer.hex().upper() for answer in answers]})

    def ciphers(self, family, keys):
        block = BLOCK[family]
        for key in keys:
            for where in ("shared", "rows"):
                self.both(where, f"{family}_ecb", ecb(family, key, TEXT[:block]), key, {"blocks": TEXT[:block]})
                iv = IV[:block]
                self.both(where, f"{family}_cbc", cbc(family, key, TEXT, iv), key, {"plain": TEXT}, {"iv": iv})
                self.both(where, f"{family}_cmac", cmac(family, key, TEXT[:37]), key, {"messages": TEXT[:37]})
                self.both(where, f"{family}_cmac", cmac(family, key, TEXT[:32]), key, {"messages": TEXT[:32]})
            for method in ("zero-block", "one-block", "cmac"):
                self.add(f"{family}_kcv", kcv(family, key, method), rows={"keys": key}, options={"method": method})

    def both(self, where, kernel, expect, key, rows, shared=None):
        """The same with one key for all rows, or with a key for each."""
        given = {"shared": dict(shared or {}), "rows": dict(rows)}
        given[where] = {"keys": key} | given[where]
        self.add(kernel, expect, shared=given["shared"], rows=given["rows"])

    def macs(self):
        for where in ("shared", "rows"):
            self.both(where, "tdes_retail_mac", retail_mac(KEY, TEXT), KEY, {"messages": TEXT})
            for family, key in (("sm4", KEY), ("aes", KEK), ("aes", LONG)):
                self.both(where, f"{family}_cbc_mac", cbc(family, key, TEXT)[-16:], key, {"messages": TEXT})

    def derivations(self):
        for depth in (1, 3):
            factors = FACTORS[:depth]
            rows = {"factors": factors[0] if depth == 1 else factors}
            for parity in (False, True):
                key = pboc("tdes", KEY, factors, parity)
                self.add("tdes_pboc", key, shared={"masters": KEY}, rows=rows, options={"parity": parity})
                self.add("tdes_pboc", key, rows={"masters": KEY, **rows}, options={"parity": parity})
            key = pboc("sm4", KEY, factors)
            self.add("sm4_pboc", key, shared={"masters": KEY}, rows=rows)
            self.add("sm4_pboc", key, rows={"masters": KEY, **rows})
            for mode in ("ecb", "cbc"):
                for method in ("zero-block", "one-block", "cmac"):
                    self.wrapped("tdes", factors, rows, mode, method)
                    self.wrapped("sm4", factors, rows, mode, method)
        for mode, kek in (("ecb", KEK), ("cbc", LONG)):
            key = cmac("aes", KEY, TEXT[:32])
            expect = [wrap("aes", kek, key, mode, IV), kcv("aes", key, "one-block")]
            shared = {"masters": KEY, "kek": kek} | ({"iv": IV} if mode == "cbc" else {})
            self.add("aes_cmac_wrapped", expect, shared=shared, rows={"messages": TEXT[:32]}, options={"mode": mode, "kcv": "one-block"})
        for kek, key in ((KEK, KEY), (LONG, LONG)):
            self.add("aes_kw", aes_key_wrap(kek, key), shared={"kek": kek}, rows={"keys": key})

    def wrapped(self, family, factors, rows, mode, method):
        key = pboc(family, KEY, factors, parity=family == "tdes")
        iv = IV[: BLOCK[family]]
        expect = [wrap(family, KEK, key, mode, iv), kcv(family, key, method)]
        options = {"mode": mode, "kcv": method} | ({"parity": True} if family == "tdes" else {})
        shared = {"masters": KEY, "kek": KEK} | ({"iv": iv} if mode == "cbc" else {})
        self.add(f"{family}_pboc_wrapped", expect, shared=shared, rows=rows, options=options)

    def channels(self):
        for chain, join, form in ((IV, slab, {"slab": True}), (bytes(16), b"".join, {})):
            rows, options = {"enc_keys": KEY, "mac_keys": KEK, "chain": chain, "plain": TEXT}, {"apdus": APDUS} | form
            self.add("scp03_wrap", scp03(KEY, KEK, chain, TEXT, join), rows=rows, options=options)
            rows["chain"] = chain[:8]
            self.add("scp02_wrap", scp02(KEY, KEK, chain[:8], TEXT, join), rows=rows, options=options)


def spell(arguments):
    return {name: [v.hex().upper() for v in value] if isinstance(value, list) else value.hex().upper() for name, value in arguments.items()}


def answers():
    made = Answers()
    made.ciphers("tdes", [KEY])
    made.ciphers("sm4", [KEY])
    made.ciphers("aes", [KEK, LONG[:24], LONG])
    made.macs()
    made.derivations()
    made.channels()
    return {
        "source": "tests/keys/selftest_answers.py over cryptography 50.0.2",
        "standard": "ISO/IEC 18033-3, GB/T 32907-2016, FIPS 197, ISO/IEC 9797-1, NIST SP 800-38B, RFC 3394, GlobalPlatform",
        "provenance": "independent",
        "tests": made.tests,
    }


def text():
    made = answers()
    lines = ",\n".join("  " + json.dumps(test) for test in made.pop("tests"))
    return json.dumps(made, indent=1)[:-2] + f',\n "tests": [\n{lines}\n ]\n}}\n'


if __name__ == "__main__":
    FILE.write_text(text())
