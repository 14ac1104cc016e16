"""Sealed rows and spooled uploads: only the right key, job, line and place open them, and damage anywhere is noticed."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.orders import JobSeal, OrderSource, Rules, SpoolReader, SpoolWriter, read_orders, spool
from engine.orders.synthetic import order_file
from keys.errors import Conflict, Corrupt, Exhausted, InvalidInput, NotFound, Precondition, Unavailable

KEY = bytes(range(32))


def test_rows_open_only_as_what_they_were_sealed_for() -> None:
    records = [b"first", b"", b"third" * 50]
    with JobSeal(bytearray(KEY), "job-1") as seal:
        blobs = seal.seal_rows([2, 3, 9], records)
        assert [seal.open_row(line, blob) for line, blob in zip((2, 3, 9), blobs, strict=True)] == records
        assert [len(blob) - len(record) for blob, record in zip(blobs, records, strict=True)] == [28] * 3
        attempts = [
            (seal, 3, blobs[0]),  # another line
            (JobSeal(KEY, "job-2"), 2, blobs[0]),  # another job
            (JobSeal(bytes(32), "job-1"), 2, blobs[0]),  # another key
            (seal, 2, blobs[0][:-1]),
            (seal, 2, blobs[0][:20]),
            (seal, 2, b""),
            *((seal, 2, blobs[0][:at] + bytes([blobs[0][at] ^ 1]) + blobs[0][at + 1 :]) for at in range(len(blobs[0]))),
        ]
        for opener, line, blob in attempts:
            with pytest.raises(Corrupt) as caught:
                opener.open_row(line, blob)
            assert caught.value.reason == "ROW_CORRUPT"
            assert f"line {line}" in caught.value.message
    with pytest.raises(Precondition):
        seal.open_row(2, blobs[0])
    with pytest.raises(Precondition):
        seal.seal_rows([2], [b"x"])


def test_equal_rows_seal_differently_and_the_seal_prints_no_key() -> None:
    seal = JobSeal(KEY, "job-1")
    blobs = seal.seal_rows(range(1000), [b"same"] * 1000) + seal.seal_rows(range(1000), [b"same"] * 1000)
    assert len({blob[:12] for blob in blobs}) == 2000
    assert KEY.hex() not in repr(seal).lower()
    assert repr(seal) == "JobSeal(job_id='job-1')"
    for length in (0, 16, 31, 33):
        with pytest.raises(InvalidInput):
            JobSeal(bytes(length), "job-1")


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.binary(max_size=120), max_size=12), frame=st.integers(1, 100), reads=st.lists(st.integers(0, 300), max_size=8))
def test_a_spool_reads_as_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], frame: int, reads: list[int]
) -> None:
    path = tmp_path_factory.mktemp("spool") / "upload"
    plain = b"".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "FRAME", frame)
        with SpoolWriter(path, KEY) as writer:
            for part in parts:
                writer.write(part)
            assert writer.finish() == writer.sha256 == hashlib.sha256(plain).digest()
            assert writer.size == len(plain)
        with SpoolReader(path, KEY) as reader:
            assert reader.size == len(plain)
            assert reader.read() == plain
            model = io.BytesIO(plain)
            for position in reads:
                assert reader.seek(position) == model.seek(position)
                assert reader.read(position // 2 + 1) == model.read(position // 2 + 1)
                assert reader.tell() == model.tell()
            assert reader.seek(-1 if plain else 0, os.SEEK_END) == max(0, len(plain) - 1)
            assert reader.read() == plain[-1:]


def spooled(path: Path, plain: bytes, key: bytes = KEY) -> Path:
    with SpoolWriter(path, key) as writer:
        writer.write(plain)
        writer.finish()
    return path


def test_a_spool_is_ciphertext_for_its_owner_only(tmp_path: Path) -> None:
    path = spooled(tmp_path / "upload", b"6299992310208077029" * 100)
    assert b"6299992310208077029" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for key in (bytes(32), KEY[::-1]):
        with pytest.raises(Corrupt):
            SpoolReader(path, key)
    with pytest.raises(InvalidInput):
        SpoolReader(path, b"short")


def test_damage_anywhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FRAME", 10)
    path = spooled(tmp_path / "upload", bytes(range(35)))
    whole = path.read_bytes()
    other = spooled(tmp_path / "other", bytes(range(35))).read_bytes()
    step = 10 + 28
    header = 24
    frames = [whole[header + step * at : header + step * (at + 1)] for at in range(4)]
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole + b"x", whole + frames[3], whole[:header] + frames[1] + frames[0] + frames[2] + frames[3]]
    damaged += [whole[:header] + b"".join(frames[1:]), other[:header] + whole[header:], whole[:header] + other[header:]]
    for octets in damaged:
        path.write_bytes(octets)
        with pytest.raises(Corrupt) as caught, SpoolReader(path, KEY) as reader:
            reader.read()
        assert caught.value.reason == "SPOOL_CORRUPT"
    path.write_bytes(whole)
    with SpoolReader(path, KEY) as reader:
        assert reader.read() == bytes(range(35))


def test_an_unfinished_spool_is_none(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    with SpoolWriter(path, KEY) as writer:
        writer.write(b"x" * 100)
    assert not path.exists()
    with pytest.raises(NotFound):
        SpoolReader(path, KEY)
    with pytest.raises(Precondition):
        writer.write(b"x")
    with pytest.raises(Precondition):
        writer.finish()
    spooled(path, b"there")
    with pytest.raises(Conflict):
        SpoolWriter(path, KEY)
    assert SpoolReader(path, KEY).readall() == b"there"


def test_full_and_broken_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable) as missing:
        SpoolWriter(tmp_path / "no" / "upload", KEY)
    assert missing.value.reason == "SPOOL_WRITE"

    def full(fd: int, octets: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Exhausted) as caught:
        SpoolWriter(tmp_path / "upload", KEY)
    assert caught.value.reason == "DISK_FULL"
    assert list(tmp_path.iterdir()) == []


def test_orders_are_read_from_a_spool_in_bounded_memory(tmp_path: Path) -> None:
    plain = b"".join(order_file(30_000))
    path = tmp_path / "upload"
    tracemalloc.start()
    try:
        with SpoolWriter(path, KEY) as writer:
            for at in range(0, len(plain), 50_000):
                writer.write(plain[at : at + 50_000])
            writer.finish()
        written = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written < 4 << 20
    with SpoolReader(path, KEY) as reader:
        batches = list(read_orders(OrderSource(reader), Rules(), KEY))
    assert sum(len(batch.lines) for batch in batches) == 30_000
