"""The derivation witness: one card key at a time, by a second way that shares no code with the kernels.

Plain Python over the ciphers of `cryptography`, slow and easy to read against the standards. What kernels made in bulk is compared
with it on a sample: at the start of every job, and in every partition of a re-key. It imports neither `cext` nor `keys.diversify`
nor `keys.kcv`: a fault there must not be a fault here too.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from keys.errors import Unsupported

if TYPE_CHECKING:
    from keys.custody import Derivation

Bytes = bytes | bytearray | memoryview
Oracle = Callable[[bytes], bytes]
"""A key that cannot be taken in hand, such as one in a token: encrypts whole blocks under it, each on its own."""
Key = Bytes | Oracle

_GP_PURPOSES: Final = {"enc": 1, "mac": 2, "dek": 3}


def cipher(algorithm: str, key: Bytes) -> BlockCipherAlgorithm:
    """The block cipher of `cryptography`; a two-key 3DES key is given as K1, K2, K1."""
    if algorithm == "3des":
        return TripleDES(bytes(key) + bytes(key[:8]) if len(key) == 16 else bytes(key))
    return SM4(bytes(key)) if algorithm == "sm4" else AES(bytes(key))


def ecb(algorithm: str, key: Key, blocks: Bytes) -> bytes:
    """Whole blocks encrypted, each on its own."""
    if callable(key):
        return key(bytes(blocks))
    return Cipher(cipher(algorithm, key), modes.ECB()).encryptor().update(blocks)  # noqa: S305 - what the standards say


def cmac(algorithm: str, key: Key, message: Bytes) -> bytes:
    """NIST SP 800-38B."""
    if callable(key):
        return _cmac_by_blocks(algorithm, key, bytes(message))
    mac = CMAC(cipher(algorithm, key))
    mac.update(bytes(message))
    return mac.finalize()


def key_len(key: Key) -> int:
    """Bytes of a key; a key that is not in hand has 16."""
    return 16 if callable(key) else len(key)


def odd_parity(key: Bytes) -> bytes:
    """The key with every byte's last bit set for an odd count of ones (FIPS 46-3)."""
    return bytes(byte & 0xFE | (byte >> 1).bit_count() + 1 & 1 for byte in key)


def invert(octets: Bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in octets)


def disperse(algorithm: str, master: Key, factor: Bytes) -> bytes:
    """One level of PBOC dispersion: the master encrypts X || ~X."""
    return ecb(algorithm, master, bytes(factor) + invert(factor))


def gp_emv(master: Key, kdd: Bytes, purpose: str) -> bytes:
    """EMV CPS card keys (GlobalPlatform "emv"): six bytes of the KDD, F0 k, again with 0F k."""
    k = bytes([_GP_PURPOSES[purpose]])
    six = bytes(kdd[4:10])
    return ecb("3des", master, six + b"\xf0" + k + six + b"\x0f" + k)


def gp_visa2(master: Key, kdd: Bytes, purpose: str) -> bytes:
    """GlobalPlatform "visa2": bytes 0, 1 and 4 to 7 of the KDD."""
    k = bytes([_GP_PURPOSES[purpose]])
    six = bytes(kdd[:2]) + bytes(kdd[4:8])
    return ecb("3des", master, six + b"\xf0" + k + six + b"\x0f" + k)


def gp_kdf3(master: Key, kdd: Bytes, purpose: str) -> bytes:
    """NIST SP 800-108 counter mode over CMAC, without a length field; the card key is as long as the master."""
    fixed = bytes(3) + bytes([_GP_PURPOSES[purpose], 0]) + bytes(kdd)
    blocks = [cmac("aes", master, bytes([counter]) + fixed) for counter in (1, 2)]
    return b"".join(blocks)[: key_len(master)]


def double(block: bytes) -> bytes:
    """Multiplication by x in the binary field of NIST SP 800-38B 6.1."""
    number = int.from_bytes(block, "big") << 1
    size = len(block)
    if number >> 8 * size:
        number ^= 1 << 8 * size | (0x87 if size == 16 else 0x1B)
    return number.to_bytes(size, "big")


def an10922(algorithm: str, master: Key, diversification: Bytes) -> bytes:
    """NXP AN10922 for keys of 16 bytes: the last block of a CBC over constant || input, padded to two blocks of the cipher.

    AES-128 has one such key block, of constant 01; two-key 3DES has two, of constants 21 and 22.
    """
    size = 8 if algorithm == "3des" else 16
    subkey1 = double(ecb(algorithm, master, bytes(size)))
    made = b""
    for constant in (b"\x21", b"\x22") if algorithm == "3des" else (b"\x01",):
        text = constant + bytes(diversification)
        padded = text if len(text) == 2 * size else (text + b"\x80").ljust(2 * size, b"\x00")
        mask = subkey1 if len(text) == 2 * size else double(subkey1)
        first = ecb(algorithm, master, padded[:size])
        last = bytes(a ^ b ^ c for a, b, c in zip(padded[size:], mask, first, strict=True))
        made += ecb(algorithm, master, last)
    return made


def sp800_108(master: Key, label: bytes, context: Bytes, length: int) -> bytes:
    """NIST SP 800-108 counter mode over CMAC: counter[4] || label || 00 || context || bits[4]."""
    fixed = label + b"\x00" + bytes(context) + (8 * length).to_bytes(4, "big")
    blocks = [cmac("aes", master, counter.to_bytes(4, "big") + fixed) for counter in range(1, -(-length // 16) + 1)]
    return b"".join(blocks)[:length]


def card_key(derivation: Derivation, master: Key, factor: Bytes) -> bytearray:
    """The card key of 16 bytes that a master gives; the caller wipes it.

    Raises Unsupported METHOD_UNKNOWN for a method that the witness does not know.
    """
    method, algorithm, purpose = derivation.method, derivation.algorithm, derivation.purpose
    odd = derivation.parity == "odd"
    if method == "pboc":
        levels = (*derivation.upper_factors, bytes(factor))
        key = disperse(algorithm, master, levels[0])
        for level in levels[1:]:
            key = disperse(algorithm, odd_parity(key) if odd else key, level)
        return bytearray(odd_parity(key) if odd else key)
    if purpose is not None and method in _GP:
        made = _GP[method](master, factor, purpose)
    elif method == "emv-c":
        made = ecb("aes", master, factor)
    elif method == "an10922":
        made = an10922(algorithm, master, factor)
    elif method == "sp800-108":
        made = sp800_108(master, derivation.label, factor, key_len(master))
    else:
        raise Unsupported("METHOD_UNKNOWN", f"the derivation witness does not know method {method}")
    return bytearray(odd_parity(made) if odd else made)


_GP: Final[dict[str, Callable[[Key, Bytes, str], bytes]]] = {"gp-emv": gp_emv, "gp-visa2": gp_visa2, "gp-kdf3": gp_kdf3}


def check_value(algorithm: str, key: Bytes, method: str) -> bytes:
    """KCV: zero-block and one-block three bytes, cmac five."""
    if method == "cmac":
        return cmac(algorithm, key, bytes(8 if algorithm == "3des" else 16))[:5]
    block = bytes([method == "one-block"]) * (8 if algorithm == "3des" else 16)
    return ecb(algorithm, key, block)[:3]


def wrap(scheme: str, algorithm: str, kek: Key, key: Bytes) -> bytes:
    """A key under a KEK: "aes-kw" (RFC 3394), or "ecb" or "cbc" (zero IV) with the key's own algorithm."""
    if scheme == "ecb":
        return ecb(algorithm, kek, key)
    if callable(kek):
        return _wrap_by_blocks(scheme, algorithm, kek, bytes(key))
    if scheme == "aes-kw":
        return aes_key_wrap(bytes(kek), bytes(key))
    iv = bytes(8 if algorithm == "3des" else 16)
    return Cipher(cipher(algorithm, kek), modes.CBC(iv)).encryptor().update(bytes(key))


def _cmac_by_blocks(algorithm: str, key: Oracle, message: bytes) -> bytes:
    """NIST SP 800-38B 6.2, a block at a time."""
    size = 8 if algorithm == "3des" else 16
    mask = double(ecb(algorithm, key, bytes(size)))
    if not message or len(message) % size:
        mask = double(mask)
        message += b"\x80" + bytes(-(len(message) + 1) % size)
    state = bytes(size)
    for at in range(0, len(message) - size, size):
        state = ecb(algorithm, key, _xor(state, message[at : at + size]))
    return ecb(algorithm, key, _xor(state, message[-size:], mask))


def _wrap_by_blocks(scheme: str, algorithm: str, kek: Oracle, key: bytes) -> bytes:
    """CBC with zero IV; or RFC 3394 2.2.1, with the initial value of RFC 5649 for "aes-kwp"."""
    if scheme == "cbc":
        size = 8 if algorithm == "3des" else 16
        chain = [bytes(size)]
        for at in range(0, len(key), size):
            chain.append(ecb(algorithm, kek, _xor(chain[-1], key[at : at + size])))
        return b"".join(chain[1:])
    a = bytes.fromhex("A65959A6") + len(key).to_bytes(4, "big") if scheme == "aes-kwp" else b"\xa6" * 8
    halves = [key[:8], key[8:]]
    for step in range(12):
        b = ecb("aes", kek, a + halves[step % 2])
        a, halves[step % 2] = _xor(b[:8], (step + 1).to_bytes(8, "big")), b[8:]
    return a + b"".join(halves)


def _xor(*parts: bytes) -> bytes:
    return bytes(functools.reduce(operator.xor, column) for column in zip(*parts, strict=True))
