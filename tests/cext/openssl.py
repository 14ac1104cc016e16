"""OpenSSL through `cryptography`, a key at a time: the oracle for the kernels of SM4 and AES."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.cmac import CMAC

ALGORITHMS = {"sm4": SM4, "aes": AES}
KCV_METHODS = ("zero-block", "one-block", "cmac")


def random_bytes(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def ecb(algorithm, key, data):
    return Cipher(ALGORITHMS[algorithm](bytes(key)), modes.ECB()).encryptor().update(bytes(data))


def cbc(algorithm, key, iv, data):
    return Cipher(ALGORITHMS[algorithm](bytes(key)), modes.CBC(bytes(iv))).encryptor().update(bytes(data))


def cmac(algorithm, key, message):
    mac = CMAC(ALGORITHMS[algorithm](bytes(key)))
    mac.update(bytes(message))
    return mac.finalize()


def kcv(algorithm, key, method):
    if method == "cmac":
        return cmac(algorithm, key, bytes(16))[:5]
    return ecb(algorithm, key, bytes(16) if method == "zero-block" else b"\x01" * 16)[:3]


def rows(array):
    return [row.tobytes() for row in array]
