"""A whole city's keys: the cryptography alone, on one core and on two, and the same with files beside what a bare write of them takes.

    python -m bench.rekey [--cards 12800000] [--out DIR] [--json]

Cryptography: 40 keys a card, a third of each algorithm (3DES and SM4 dispersion, AES-128 as a CMAC of two blocks), each with its
check value and wrapped in one ECB pass. Files: `engine.rekey` with 40 keys of the shipped profile, as Parquet; then as many bytes are
written and made durable by nothing but write and fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import cext
from bench.context import context
from engine.cli.teststore import create_test_store
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from engine.rekey.population import MadeUp
from engine.rekey.request import build
from engine.rekey.run import Rekey
from keys.custody.software import SoftwareCustody

ByteArray = npt.NDArray[np.uint8]

CARDS: Final = 12_800_000
CHUNK: Final = 16_384
PART: Final = 262_144
KEYS: Final = (("3des", 14), ("sm4", 13), ("aes", 13))
SELECT: Final = ("transport/*", "finance/*", "social-security/ssse/mk", "social-security/ssse/irk")


class Cards:
    """The factors, masters and results of one worker, used again for every chunk."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.masters = {name: random.integers(0, 256, (count, 16), np.uint8) for name, count in KEYS}
        self.keks = {name: random.integers(0, 256, 16, np.uint8) for name, _ in KEYS}
        self.factors = random.integers(0, 256, (CHUNK, 8), np.uint8)
        self.messages = random.integers(0, 256, (CHUNK, 32), np.uint8)
        self.out, self.kcvs = np.empty((CHUNK, 16), np.uint8), np.empty((CHUNK, 3), np.uint8)

    def chunk(self, rows: int) -> None:
        """Every key of `rows` cards."""
        factors, messages, out, kcvs = self.factors[:rows], self.messages[:rows], self.out[:rows], self.kcvs[:rows]
        for master in self.masters["3des"]:
            cext.tdes_pboc_wrapped(master, factors, True, self.keks["3des"], out=out, kcv_out=kcvs)
        for master in self.masters["sm4"]:
            cext.sm4_pboc_wrapped(master, factors, self.keks["sm4"], out=out, kcv_out=kcvs)
        for master in self.masters["aes"]:
            cext.aes_cmac_wrapped(master, messages, self.keks["aes"], out=out, kcv_out=kcvs)

    def all(self, cards: int) -> None:
        for first in range(0, cards, CHUNK):
            self.chunk(min(CHUNK, cards - first))


def crypto_seconds(cards: int, threads: int) -> float:
    """Wall seconds for all cards, shared out evenly over threads that are bound to a core each."""
    cores = sorted(os.sched_getaffinity(0))
    workers = [Cards(seed) for seed in range(threads)]
    for worker in workers:
        worker.chunk(CHUNK)
    start = threading.Barrier(threads + 1)

    def work(at: int) -> None:
        os.sched_setaffinity(0, {cores[-1 - at]})
        start.wait()
        workers[at].all(cards // threads)

    running = [threading.Thread(target=work, args=(at,)) for at in range(threads)]
    for thread in running:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in running:
        thread.join()
    return time.perf_counter() - began


def open_test_store(place: Path) -> SoftwareCustody:
    create_test_store(place, "bench", ["zhengzhou-citizen-card"], scrypt_n=1024)
    return SoftwareCustody.open(place, "bench", mode="test")


def file_seconds(cards: int, out: Path) -> dict[str, Any]:
    """The engine's own run into `out`, which must be empty, with as many workers as there are cores."""
    compiled = compile_profile(load("zhengzhou-citizen-card"))
    with open_test_store(out / "keys") as custody:
        request = build(
            compiled,
            MadeUp(compiled.loaded.profile, cards, ("chip_serial", "transport_serial", "pan", "psn")),
            custody,
            patterns=SELECT,
            scheme="ecb",
            file_format="parquet",
            keks=[],
            part_rows=PART,
        )
        outcome = Rekey(request, custody, out / "parts", test=True, workers=len(os.sched_getaffinity(0)), progress=lambda _: None).run()
    timing = outcome.timing
    return {
        "workers": len(os.sched_getaffinity(0)),
        "seconds": round(outcome.seconds, 2),
        "bytes": sum(part.bytes for part in outcome.manifest.parts),
        "keys": outcome.made_keys,
        "worker_seconds": {name: round(getattr(timing, name), 2) for name in ("crypto", "files", "factors", "witness", "disk")},
    }


def raw_write_seconds(total: int, out: Path) -> float:
    """As many bytes in as large parts by write and fsync, from two threads as the run has."""
    block = np.random.default_rng(1).integers(0, 256, 16 << 20, np.uint8).data
    part = PART * 800
    began = time.perf_counter()

    def work(sizes: list[int], number: int) -> None:
        for at, size in enumerate(sizes):
            with (out / f"raw-{number}-{at}").open("wb", buffering=0) as file:
                for first in range(0, size, len(block)):
                    file.write(block[: min(len(block), size - first)])
                os.fsync(file.fileno())

    sizes = [min(part, total - first) for first in range(0, total, part)]
    threads = [threading.Thread(target=work, args=(sizes[number::2], number)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def measure(cards: int, out: Path | None) -> dict[str, Any]:
    """Everything asked for, in one run."""
    keys = sum(count for _, count in KEYS)
    one = crypto_seconds(cards, 1)
    two = crypto_seconds(cards, 2)
    result: dict[str, Any] = {
        "cards": cards,
        "keys_per_card": keys,
        "crypto_one_core_s": round(one, 2),
        "crypto_two_cores_s": round(two, 2),
        "two_cores_ratio": round(one / two, 2),
        "keys_per_second_one_core": round(cards * keys / one),
        "kernel": cext.kernel_level(),
    }
    if out is not None:
        place = Path(tempfile.mkdtemp(prefix="citycard-rekey-", dir=out))
        try:
            result["files"] = file_seconds(cards, place)
            shutil.rmtree(place / "parts")
            raw = raw_write_seconds(result["files"]["bytes"], place)
        finally:
            shutil.rmtree(place)
        result["raw_write_s"] = round(raw, 2)
        result["files_over_larger"] = round(result["files"]["seconds"] / max(one, raw), 2)
    result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result | context()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rekey", description="A whole city's keys.")
    parser.add_argument("--cards", type=int, default=CARDS)
    parser.add_argument("--out", type=Path, help="also write files below this directory, and remove them again")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.cards, arguments.out)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        sys.stdout.write("".join(f"{name:26} {value}\n" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
