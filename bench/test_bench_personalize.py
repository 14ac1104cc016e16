"""Card images in batches, and one card's whole segment; one core.

    python -m pytest bench/test_bench_personalize.py --benchmark-only

`extra_info` states CPU, the kernels' level, commit, batch, cards a second, and what a card costs on the wire.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import cext
from engine.personalize.columns import Column
from engine.personalize.image import build_images, derive_keys, pin_blocks
from engine.production.card import CardInMaking, lease_commands
from engine.production.context import attempt_columns
from engine.profiles.compile import CompiledProfile, compile_profile
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from engine.virtual.birth import TEST_KMC
from engine.virtual.factory import make_blank
from keys.custody.software import SoftwareCustody, provision_test_keys

PROFILE = "zhengzhou-citizen-card"
BATCH = 4096
SERIALS = {"transport": 1, "city": 1}


def facts() -> dict[str, object]:
    """What a figure means nothing without."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return {"cpu": cpu, "cores_used": 1, "kernel": cext.kernel_level(), "commit": git.stdout.strip() or "unknown"}


@pytest.fixture(scope="module")
def compiled() -> CompiledProfile:
    return compile_profile(load(PROFILE))


@pytest.fixture(scope="module")
def custody(compiled: CompiledProfile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareCustody]:
    with SoftwareCustody.create(tmp_path_factory.mktemp("custody"), "bench", test=True, scrypt_n=1024) as store:
        specs = {spec.key_id: spec for spec in master_specs(compiled.loaded.profile)}
        store.import_key(specs.pop("maker.kmc"), TEST_KMC, origin="TEST maker key")
        provision_test_keys(store, specs.values())
        yield store


def order(rows: int) -> dict[str, Column]:
    """As many order lines as wanted; every card has its own number, name and PAN."""
    names = [name.encode("gb18030") for name in ("陈磊", "王海峰", "李娜", "欧阳海峰")] * 8
    names[-1] = "阿卜杜热西提·买买提明".encode("gb18030")  # is cut in file 0016
    return {
        "social_security_number": np.array([f"4101041987{i % 10000:04d}868X".encode() for i in range(rows)]),
        "name_field": np.array([names[i % 32] for i in range(rows)]),
        "name_extension": np.zeros(rows, "S30"),
        "sex": np.array([b"12"[i % 2 : i % 2 + 1] for i in range(rows)]),
        "ethnicity": np.full(rows, b"01"),
        "birth_date": np.full(rows, b"19870124"),
        "issuing_region": np.full(rows, b"410100"),
        "card_number": np.array([f"G{i:08d}".encode() for i in range(rows)]),
        "issue_date": np.full(rows, b"20261123"),
        "expiry_date": np.full(rows, b"20361123"),
        "pan": np.array([f"622848{i:013d}".encode() for i in range(rows)]),
        "phone": np.array([f"138{i:08d}".encode() for i in range(rows)]),
    }


def columns_of(compiled: CompiledProfile, rows: int) -> Mapping[str, Column]:
    first = attempt_columns(compiled.loaded.profile, order(1), SERIALS, 0, bytes(8))
    columns = {name: np.repeat(column, rows, axis=0) for name, column in first.items()} | order(rows)
    columns["chip_serial"] = np.arange(rows, dtype=">u8").view(np.uint8).reshape(rows, 8)
    columns["transport_serial"] = np.array([f"4910{i:016d}".encode() for i in range(rows)])
    columns["city_serial"] = np.array([f"4101{i:012d}".encode() for i in range(rows)])
    return columns


def test_images(benchmark: BenchmarkFixture, compiled: CompiledProfile, custody: SoftwareCustody) -> None:
    """A batch from columns to finished images: all card keys derived, all check values, every text, and everything wiped after."""
    columns = columns_of(compiled, BATCH)
    pins = pin_blocks(custody.hmac_key("pin"), range(BATCH), 6)

    def run() -> int:
        with derive_keys(compiled, columns, custody) as keys, build_images(compiled, columns, keys, pins) as images:
            return len(images.array)

    assert benchmark(run) == BATCH
    benchmark.extra_info |= facts() | {"batch": BATCH, "keys_per_card": len(compiled.keys), "image_bytes": compiled.image_len}
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["cards_per_second"] = round(BATCH / benchmark.stats["median"])
        benchmark.extra_info["cards_per_second_best"] = round(BATCH / benchmark.stats["min"])


def test_segment(benchmark: BenchmarkFixture, compiled: CompiledProfile, custody: SoftwareCustody, tmp_path: Path) -> None:
    """One card with its chip's challenge in hand: keys, image, digest, and every secured command of the personalization."""
    chip = make_blank(tmp_path, lot=b"\x0a\x01", serial=bytes(7) + b"\x01")
    chip.power_on()
    challenge = os.urandom(8)
    response = [chip.transmit(command) for command in lease_commands(compiled, challenge)][-1][:-2]
    columns = attempt_columns(compiled.loaded.profile, order(1), SERIALS, 0, response[2:10])

    def run() -> tuple[bytes, ...]:
        card = CardInMaking(compiled, custody, 1)
        try:
            card.open(challenge, response)
            card.prepare(columns)
            return card.personalization().commands
        finally:
            card.close()

    commands = benchmark(run)
    assert [chip.transmit(command)[-2:] for command in commands] == [b"\x90\x00"] * len(commands)
    benchmark.extra_info |= facts() | {"batch": 1, "apdus_per_card": len(commands), "bytes_per_card": sum(map(len, commands))}
    if benchmark.stats is not None:
        benchmark.extra_info["milliseconds"] = round(benchmark.stats["median"] * 1000, 3)
