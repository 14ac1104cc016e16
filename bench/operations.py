"""The operations that are compared: inputs, our call, and the same work by each peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

import cext
from bench import peers, segments
from bench.peers import ByteArray, Result, Work, rows
from cext import cpu

BATCH: Final = 16_384
PER_KEY: Final = 512
MESSAGE: Final = 256
MASTER: Final = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
KEK: Final = bytes.fromhex("404142434445464748494A4B4C4D4E4F")


@dataclass(frozen=True)
class Peer:
    """Another library's way, on the first `count` rows of the same inputs."""

    count: int
    work: Work


@dataclass(frozen=True)
class Case:
    """One operation. Every side gives the same arrays."""

    operation: str
    unit: str
    kernel: str
    batch: int
    ours: Work
    peers: dict[str, Peer]


def array(octets: bytes) -> ByteArray:
    return np.frombuffer(octets, np.uint8)


def random_bytes(*shape: int) -> ByteArray:
    made: ByteArray = np.random.default_rng(20261123).integers(0, 256, shape, np.uint8)
    return made


def bcd_factors(n: int) -> ByteArray:
    """Factors that are digits, as card numbers are: what every library takes."""
    digits = np.random.default_rng(20261123).integers(0, 10, (n, 16), np.uint8)
    packed: ByteArray = digits[:, 0::2] << np.uint8(4) | digits[:, 1::2]
    return packed


def _one(derive: Callable[[], list[bytes]]) -> Work:
    return lambda: (rows(derive()),)


def tdes() -> Iterator[Case]:
    """3DES dispersion with odd parity; `full` adds the check value and one ECB wrap."""
    kernel = cpu.running()["tdes"]
    factors, out, kcvs = bcd_factors(BATCH), np.empty((BATCH, 16), np.uint8), np.empty((BATCH, 3), np.uint8)
    few = factors[:PER_KEY]
    bulk = peers.dispersion_bulk("3des", MASTER, factors)
    yield Case(
        "3des-derive",
        "keys/s",
        kernel,
        BATCH,
        lambda: (cext.tdes_pboc(array(MASTER), factors, True, out=out),),
        {
            "pyca-bulk": Peer(BATCH, lambda: (bulk(),)),
            "pyca-per-key": Peer(PER_KEY, _one(peers.dispersion_per_key("3des", MASTER, few))),
            "psec": Peer(PER_KEY, _one(peers.psec_derive(MASTER, few))),
            "pyemv": Peer(PER_KEY, peers.pyemv_derive(MASTER, few)),
            "pycryptodome": Peer(BATCH, peers.crypto_derive(MASTER, factors)),
        },
    )
    some = factors[: 8 * PER_KEY]
    yield Case(
        "3des-full",
        "keys/s",
        kernel,
        BATCH,
        lambda: cext.tdes_pboc_wrapped(array(MASTER), factors, True, array(KEK), out=out, kcv_out=kcvs),
        {
            "pyca-bulk": Peer(len(some), peers.full_bulk("3des", peers.dispersion_bulk("3des", MASTER, some), KEK, len(some))),
            "pyca-per-key": Peer(PER_KEY, peers.full_per_key("3des", peers.dispersion_per_key("3des", MASTER, few), KEK)),
            "psec": Peer(PER_KEY, peers.psec_full(MASTER, few, KEK)),
        },
    )


def sm4() -> Iterator[Case]:
    """SM4 dispersion; `full` adds the check value and one ECB wrap. No other library of the field has SM4."""
    kernel = cpu.running()["sm4"]
    factors, out, kcvs = bcd_factors(BATCH), np.empty((BATCH, 16), np.uint8), np.empty((BATCH, 3), np.uint8)
    few, some = factors[:PER_KEY], factors[: 8 * PER_KEY]
    bulk = peers.dispersion_bulk("sm4", MASTER, factors)
    yield Case(
        "sm4-derive",
        "keys/s",
        kernel,
        BATCH,
        lambda: (cext.sm4_pboc(array(MASTER), factors, out=out),),
        {
            "pyca-bulk": Peer(BATCH, lambda: (bulk(),)),
            "pyca-per-key": Peer(PER_KEY, _one(peers.dispersion_per_key("sm4", MASTER, few))),
        },
    )
    yield Case(
        "sm4-full",
        "keys/s",
        kernel,
        BATCH,
        lambda: cext.sm4_pboc_wrapped(array(MASTER), factors, array(KEK), out=out, kcv_out=kcvs),
        {
            "pyca-bulk": Peer(len(some), peers.full_bulk("sm4", peers.dispersion_bulk("sm4", MASTER, some), KEK, len(some))),
            "pyca-per-key": Peer(PER_KEY, peers.full_per_key("sm4", peers.dispersion_per_key("sm4", MASTER, few), KEK)),
        },
    )


def aes() -> Iterator[Case]:
    """AES-128 keys that are CMACs of two blocks under one master; `full` adds the check value and one ECB wrap."""
    kernel = cpu.running()["aes"]
    messages, out, kcvs = random_bytes(BATCH, 32), np.empty((BATCH, 16), np.uint8), np.empty((BATCH, 3), np.uint8)
    first, second = (np.ascontiguousarray(messages[:, at : at + 16]) for at in (0, 16))
    few = [message.tobytes() for message in messages[:PER_KEY]]
    some = 8 * PER_KEY
    bulk = peers.cmac2_bulk(MASTER, first, second)

    def per_key() -> list[bytes]:
        return peers.cmac_per_message([MASTER] * PER_KEY, few)

    yield Case(
        "aes-derive",
        "keys/s",
        kernel,
        BATCH,
        lambda: (cext.aes_cmac(array(MASTER), messages, out=out),),
        {
            "pyca-bulk": Peer(BATCH, lambda: (bulk(),)),
            "pyca-per-key": Peer(PER_KEY, _one(per_key)),
            "pycryptodome": Peer(BATCH, peers.crypto_cmac2(MASTER, first, second)),
        },
    )
    yield Case(
        "aes-full",
        "keys/s",
        kernel,
        BATCH,
        lambda: cext.aes_cmac_wrapped(array(MASTER), messages, array(KEK), out=out, kcv_out=kcvs),
        {
            "pyca-bulk": Peer(some, peers.full_bulk("aes", peers.cmac2_bulk(MASTER, first[:some], second[:some]), KEK, some)),
            "pyca-per-key": Peer(PER_KEY, peers.full_per_key("aes", per_key, KEK)),
        },
    )
    clear, wrapped = random_bytes(BATCH, 16), np.empty((BATCH, 24), np.uint8)
    yield Case(
        "aes-kw",
        "keys/s",
        kernel,
        BATCH,
        lambda: (cext.aes_kw(array(KEK), clear, out=wrapped),),
        {"pyca-per-key": Peer(PER_KEY, lambda: (rows(peers.key_wraps(KEK, clear[:PER_KEY])),))},
    )


def macs() -> Iterator[Case]:
    """Message authentication with a key for every card."""
    n = 2048
    keys, messages = random_bytes(n, 16), random_bytes(n, MESSAGE)
    out = np.empty((n, 16), np.uint8)
    few_keys, few = [key.tobytes() for key in keys[:PER_KEY]], [message.tobytes() for message in messages[:PER_KEY]]

    def peer(work: Callable[[list[bytes], list[bytes]], list[bytes]]) -> Peer:
        return Peer(PER_KEY, lambda: (rows(work(few_keys, few)),))

    yield Case(
        f"retail-mac-{MESSAGE}",
        "cards/s",
        cpu.running()["tdes"],
        n,
        lambda: (cext.tdes_retail_mac(keys, messages),),
        {
            "pyca-per-key": peer(peers.retail_pyca),
            "psec": peer(peers.retail_psec),
            "pyemv": peer(peers.retail_pyemv),
            "pycryptodome": peer(peers.retail_crypto),
        },
    )
    yield Case(
        f"aes-cmac-{MESSAGE}",
        "cards/s",
        cpu.running()["aes"],
        n,
        lambda: (cext.aes_cmac(keys, messages, out=out),),
        {"pyca-per-key": peer(peers.cmac_per_message), "pycryptodome": peer(peers.crypto_cmac)},
    )


def channels() -> Iterator[Case]:
    """A card's whole personalization segment, cards as lanes."""
    for operation, family in (("scp03-segment", "aes"), ("scp02-segment", "tdes")):
        inputs = segments.Inputs(operation)
        peer = Peer(segments.FEW, inputs.theirs)
        yield Case(operation, "cards/s", cpu.running()[family], segments.CARDS, inputs.ours, {"pyca-per-key": peer})


def all_cases() -> Iterator[Case]:
    """Every operation; inputs are made when its turn comes."""
    yield from tdes()
    yield from sm4()
    yield from aes()
    yield from macs()
    yield from channels()


__all__ = ["Case", "Peer", "Result", "all_cases"]
