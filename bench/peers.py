"""What other libraries need for the work of our kernels, each called the best way it offers; outputs must equal ours.

`pyca-bulk` keeps one cipher context and hands it whole arrays with `update_into`, numpy around it; a key that is used once still costs a
context of its own. `pyca-per-key` is the straightforward loop. `psec` and `pyemv` are the field's own libraries, called as documented.
`pycryptodome` takes whole buffers where one key serves many blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psec.des
import psec.mac
import pyemv.kd
import pyemv.mac
from Crypto.Cipher import AES as CRYPTO_AES
from Crypto.Cipher import DES, DES3
from Crypto.Hash import CMAC as CRYPTO_CMAC
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

warnings.filterwarnings("ignore", module="cryptography")
warnings.filterwarnings("ignore", module="psec")
warnings.filterwarnings("ignore", module="pyemv")

ByteArray = npt.NDArray[np.uint8]
Result = tuple[ByteArray, ...]
Work = Callable[[], Result]

ODD: Final[ByteArray] = np.array([byte & 0xFE | (byte >> 1).bit_count() + 1 & 1 for byte in range(256)], np.uint8)
_ODD: Final = ODD.tobytes()
_ZERO8: Final = bytes(8)
_ONES: Final = b"\x01" * 16


def triple(key: bytes) -> TripleDES:
    return TripleDES(key + key[:8])


def context(algorithm: Any) -> CipherContext:
    return Cipher(algorithm, ECB()).encryptor()


def cipher_of(family: str, key: bytes) -> Any:
    return triple(key) if family == "3des" else SM4(key) if family == "sm4" else AES(key)


def into(encryptor: CipherContext, blocks: ByteArray, out: bytearray) -> ByteArray:
    """One call for all blocks; `out` has the extra block that update_into wants."""
    count = encryptor.update_into(blocks.data.cast("B"), out)
    return np.frombuffer(out, np.uint8, count)


def rows(items: list[bytes]) -> ByteArray:
    return np.frombuffer(b"".join(items), np.uint8).reshape(len(items), -1)


def dispersion_bulk(family: str, master: bytes, factors: ByteArray) -> Callable[[], ByteArray]:
    """X || ~X of every factor, in one call; odd parity for 3DES by table look-up."""
    encryptor = context(cipher_of(family, master))
    blocks = np.empty((len(factors), 16), np.uint8)
    out = bytearray(blocks.nbytes + 16)

    def run() -> ByteArray:
        blocks[:, :8] = factors
        np.invert(factors, out=blocks[:, 8:])
        keys = into(encryptor, blocks, out).reshape(-1, 16)
        return ODD[keys] if family == "3des" else keys

    return run


def full_bulk(family: str, derive: Callable[[], ByteArray], kek: bytes, n: int) -> Work:
    """Derive and wrap in one call each; the check value needs a fresh key schedule, so a context, for every key."""
    wrapper, out = context(cipher_of(family, kek)), bytearray(16 * n + 16)
    block = _ONES if family == "aes" else bytes(8 if family == "3des" else 16)

    def run() -> Result:
        keys = derive()
        raw = keys.tobytes()
        checks = [context(cipher_of(family, raw[i : i + 16])).update(block)[:3] for i in range(0, len(raw), 16)]
        return into(wrapper, np.ascontiguousarray(keys), out).reshape(-1, 16), rows(checks)

    return run


def dispersion_per_key(family: str, master: bytes, factors: ByteArray) -> Callable[[], list[bytes]]:
    cipher = cipher_of(family, master)
    each = [factor.tobytes() for factor in factors]
    inverted = [(~factor).tobytes() for factor in factors]

    def run() -> list[bytes]:
        made = [context(cipher).update(x + y) for x, y in zip(each, inverted, strict=True)]
        return [key.translate(_ODD) for key in made] if family == "3des" else made

    return run


def full_per_key(family: str, derive: Callable[[], list[bytes]], kek: bytes) -> Work:
    over = cipher_of(family, kek)
    block = _ONES if family == "aes" else bytes(8 if family == "3des" else 16)

    def run() -> Result:
        keys = derive()
        checks = [context(cipher_of(family, key)).update(block)[:3] for key in keys]
        return rows([context(over).update(key) for key in keys]), rows(checks)

    return run


def psec_derive(master: bytes, factors: ByteArray) -> Callable[[], list[bytes]]:
    each = [factor.tobytes() + (~factor).tobytes() for factor in factors]
    return lambda: [psec.des.adjust_key_parity(psec.des.encrypt_tdes_ecb(master, text)) for text in each]


def psec_full(master: bytes, factors: ByteArray, kek: bytes) -> Work:
    derive = psec_derive(master, factors)

    def run() -> Result:
        keys = derive()
        return rows([psec.des.encrypt_tdes_ecb(kek, key) for key in keys]), rows([psec.des.generate_kcv(key, 3) for key in keys])

    return run


def pyemv_derive(master: bytes, factors: ByteArray) -> Work:
    digits = [factor.tobytes().hex() for factor in factors]
    return lambda: (rows([pyemv.kd.derive_icc_mk_a(master, text[:14], text[14:]) for text in digits]),)


def crypto_derive(master: bytes, factors: ByteArray) -> Work:
    cipher: Any = DES3.new(master, DES3.MODE_ECB)  # its types forget the output argument
    blocks = np.empty((len(factors), 16), np.uint8)
    keys = np.empty_like(blocks)

    def run() -> Result:
        blocks[:, :8] = factors
        np.invert(factors, out=blocks[:, 8:])
        cipher.encrypt(blocks.data.cast("B"), keys.data.cast("B"))
        return (ODD[keys],)

    return run


def cmac2_bulk(master: bytes, first: ByteArray, second: ByteArray, chunk: int = 16_384) -> Callable[[], ByteArray]:
    """CMAC of two whole blocks by bulk ECB calls, in chunks that stay in a core's cache; the blocks lie in arrays of their own, which
    suits this library best.
    """
    encryptor = context(AES(master))
    l_value = int.from_bytes(context(AES(master)).update(bytes(16)), "big")
    k1 = np.frombuffer(((l_value << 1) ^ (0x87 if l_value >> 127 else 0)).to_bytes(17, "big")[1:], np.uint8)
    # one more operand for the chunk, not one more operation for each block
    k1_words = np.tile(k1.view(np.uint64), (min(chunk, len(first)), 1))
    middle = bytearray(16 * chunk + 16)
    words = np.frombuffer(middle, np.uint64, 2 * chunk).reshape(-1, 2)
    out = bytearray(first.nbytes + 16)
    view = memoryview(out)
    starts = range(0, len(first), chunk)
    sources = [(first[at : at + chunk].data.cast("B"), second[at : at + chunk].view(np.uint64)) for at in starts]
    targets = [view[16 * at : 16 * min(at + chunk, len(first)) + 16] for at in starts]
    result = np.frombuffer(out, np.uint8, first.nbytes).reshape(-1, 16)

    def run() -> ByteArray:
        for (source, other), target in zip(sources, targets, strict=True):
            encryptor.update_into(source, middle)
            mine = words[: len(other)]
            np.bitwise_xor(mine, other, out=mine)
            np.bitwise_xor(mine, k1_words[: len(other)], out=mine)
            encryptor.update_into(mine.data.cast("B"), target)
        return result

    return run


def cmac_per_message(keys: list[bytes], messages: list[bytes]) -> list[bytes]:
    """A CMAC object for each message."""
    made = []
    for key, message in zip(keys, messages, strict=True):
        mac = CMAC(AES(key))
        mac.update(message)
        made.append(mac.finalize())
    return made


def crypto_cmac(keys: list[bytes], messages: list[bytes]) -> list[bytes]:
    return [CRYPTO_CMAC.new(key, message, CRYPTO_AES).digest() for key, message in zip(keys, messages, strict=True)]


def crypto_cmac2(master: bytes, first: ByteArray, second: ByteArray) -> Work:
    cipher: Any = CRYPTO_AES.new(master, CRYPTO_AES.MODE_ECB)
    l_value = int.from_bytes(cipher.encrypt(bytes(16)), "big")
    k1 = np.frombuffer(((l_value << 1) ^ (0x87 if l_value >> 127 else 0)).to_bytes(17, "big")[1:], np.uint8)

    mixed, out = np.empty_like(first), np.empty_like(first)

    def run() -> Result:
        cipher.encrypt(first.data.cast("B"), mixed.data.cast("B"))
        np.bitwise_xor(mixed, second, out=mixed)
        np.bitwise_xor(mixed, k1, out=mixed)
        cipher.encrypt(mixed.data.cast("B"), out.data.cast("B"))
        return (out,)

    return run


def retail_pyca(keys: list[bytes], messages: list[bytes]) -> list[bytes]:
    """ISO/IEC 9797-1 algorithm 3: single-DES CBC (as 3DES of one key three times), then D with the right key, E with the left."""
    made = []
    for key, message in zip(keys, messages, strict=True):
        left, right = key[:8], key[8:]
        last = Cipher(TripleDES(left * 3), CBC(_ZERO8)).encryptor().update(message)[-8:]
        made.append(context(TripleDES(left * 3)).update(Cipher(TripleDES(right * 3), ECB()).decryptor().update(last)))
    return made


def retail_crypto(keys: list[bytes], messages: list[bytes]) -> list[bytes]:
    made = []
    for key, message in zip(keys, messages, strict=True):
        left = DES.new(key[:8], DES.MODE_ECB)
        last = DES.new(key[:8], DES.MODE_CBC, _ZERO8).encrypt(message)[-8:]
        made.append(left.encrypt(DES.new(key[8:], DES.MODE_ECB).decrypt(last)))
    return made


def retail_psec(keys: list[bytes], messages: list[bytes]) -> list[bytes]:
    return [psec.mac.generate_retail_mac(key[:8], key[8:], message, 1) for key, message in zip(keys, messages, strict=True)]


def retail_pyemv(keys: list[bytes], messages: list[bytes]) -> list[bytes]:
    return [pyemv.mac.mac_iso9797_3(key[:8], key[8:], message, 1) for key, message in zip(keys, messages, strict=True)]


def key_wraps(kek: bytes, keys: ByteArray) -> list[bytes]:
    """RFC 3394, a call for each key: this library has no other."""
    return [aes_key_wrap(kek, key.tobytes()) for key in keys]
