"""Random and parity of single secrets, made in locked memory: the same as the kernels for columns, and really random."""

import numpy as np

from keys.custody.sealing import random_secret
from keys.parity import has_odd_parity, odd_parity, with_odd_parity
from keys.secrets import SecretBytes


def test_every_byte_gets_its_parity():
    raw = bytes(range(256))
    with SecretBytes(raw) as secret, with_odd_parity(secret) as made:
        assert bytes(made.reveal()) == odd_parity(np.frombuffer(raw, np.uint8)).tobytes()
        assert all((byte).bit_count() % 2 for byte in made.reveal())
    for byte in range(256):
        assert has_odd_parity(np.array([1, byte], np.uint8)) == bool((byte).bit_count() % 2)


def test_random_secrets_are_as_long_as_asked_and_never_alike():
    seen = set()
    for length in (16, 24, 32) * 50:
        with random_secret(length) as secret:
            assert len(secret) == length
            seen.add(bytes(secret.reveal()))
    assert len(seen) == 150
