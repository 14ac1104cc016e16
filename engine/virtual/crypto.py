"""Raw ciphers and the MACs made of them, as the card side needs them. Written from the standards, not from the host side.

3DES keys are 16 bytes, used as KL || KR || KL; single DES is 3DES with the same key three times.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

TDES, SM4, AES = "3des", "sm4", "aes"
BLOCK = {TDES: 8, SM4: 16, AES: 16}


def _algorithm(name: str, key: bytes) -> CipherAlgorithm:
    if name == TDES:
        return TripleDES(key + key[:8] if len(key) == 16 else key)
    return algorithms.SM4(key) if name == SM4 else algorithms.AES(key)


def ecb(name: str, key: bytes, blocks: bytes) -> bytes:
    """E_K over whole blocks."""
    return Cipher(_algorithm(name, key), modes.ECB()).encryptor().update(blocks)  # noqa: S305 - the standards' own building block


def ecb_decrypt(name: str, key: bytes, blocks: bytes) -> bytes:
    """D_K over whole blocks."""
    return Cipher(_algorithm(name, key), modes.ECB()).decryptor().update(blocks)  # noqa: S305 - GPCS E.4.7 enciphers keys so


def cbc_encrypt(name: str, key: bytes, iv: bytes, blocks: bytes) -> bytes:
    return Cipher(_algorithm(name, key), modes.CBC(iv)).encryptor().update(blocks)


def cbc_decrypt(name: str, key: bytes, iv: bytes, blocks: bytes) -> bytes:
    return Cipher(_algorithm(name, key), modes.CBC(iv)).decryptor().update(blocks)


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC, NIST SP 800-38B, 16 bytes."""
    mac = CMAC(algorithms.AES(key))
    mac.update(message)
    return mac.finalize()


def pad80(message: bytes, block: int) -> bytes:
    """80 and as many 00 as fill the block; always at least the 80 (ISO/IEC 9797-1 padding method 2)."""
    return message + b"\x80" + bytes(block - 1 - len(message) % block)


def unpad80(padded: bytes) -> bytes | None:
    """The message, or None when the padding is wrong."""
    message = padded.rstrip(b"\x00")
    return message[:-1] if message.endswith(b"\x80") else None


def kcv(name: str, key: bytes) -> bytes:
    """Three bytes: E_K(00..) for 3DES and SM4 (GP B.6), E_K(01..) for AES (Amendment D 7.2.2)."""
    block = b"\x01" * 16 if name == AES else bytes(BLOCK[name])
    return ecb(name, key, block)[:3]


def cbc_mac(name: str, key: bytes, message: bytes) -> bytes:
    """Last block of CBC with zero IV over pad80(message)."""
    block = BLOCK[name]
    return cbc_encrypt(name, key, bytes(block), pad80(message, block))[-block:]


def des_mac(key8: bytes, message: bytes) -> bytes:
    """Single-DES CBC-MAC, 8 bytes (ISO/IEC 9797-1 algorithm 1)."""
    return cbc_mac(TDES, key8 * 3, message)


def retail_mac(key: bytes, message: bytes) -> bytes:
    """ISO/IEC 9797-1 algorithm 3 with DES, padding method 2: 8 bytes."""
    left, right = key[:8], key[8:16]
    last = des_mac(left, message)
    return ecb(TDES, left * 3, ecb_decrypt(TDES, right * 3, last))


def same(a: bytes, b: bytes) -> bool:
    """Comparison in constant time."""
    return hmac.compare_digest(a, b)
