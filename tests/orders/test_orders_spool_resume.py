"""A spool that was cut off goes on behind its last whole frame: nothing of what is kept is lost, nothing is kept twice, damage is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.orders import SpoolReader, SpoolWriter, spool
from keys.errors import Corrupt, NotFound

KEY = bytes(range(32))
FRAME = 10
SEALED = FRAME + 28
HEADER = 24


@pytest.fixture(autouse=True, scope="module")
def small_frames():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "FRAME", FRAME)
        yield


def read(path: Path) -> bytes:
    with SpoolReader(path, KEY) as reader:
        return reader.read()


@given(plain=st.binary(max_size=95), cuts=st.lists(st.tuples(st.integers(0, 95), st.integers(0, 400)), max_size=4), suspend=st.booleans())
def test_however_often_it_is_cut_the_whole_arrives(
    tmp_path_factory: pytest.TempPathFactory, plain: bytes, cuts: list[tuple[int, int]], suspend: bool
) -> None:
    """Each time so much more is sent, then the process dies or suspends, and the file ends somewhere."""
    path = tmp_path_factory.mktemp("spool") / "upload"
    writer, before = SpoolWriter(path, KEY), 0
    for more, end in cuts:
        writer.write(plain[writer.size : writer.size + more])
        if suspend:
            kept = writer.suspend()
            assert kept == writer.size // FRAME * FRAME >= before
            assert path.exists() == (kept > 0)
            before = kept
        else:
            writer._close()  # as a killed process leaves it
            with path.open("r+b") as file:
                file.truncate(min(path.stat().st_size, end))
        try:
            writer = SpoolWriter.resume(path, KEY)
        except (NotFound, Corrupt):
            path.unlink(missing_ok=True)
            writer, before = SpoolWriter(path, KEY), 0
        assert writer.size % FRAME == 0
        assert writer.size <= len(plain)
        assert writer.sha256 == hashlib.sha256(plain[: writer.size]).digest()
        assert not suspend or writer.size == before
    writer.write(plain[writer.size :])
    assert writer.finish() == hashlib.sha256(plain).digest()
    assert read(path) == plain


@pytest.mark.parametrize("frame", range(3))
def test_what_is_damaged_and_what_follows_is_not_kept(tmp_path: Path, frame: int) -> None:
    path = tmp_path / "upload"
    plain = bytes(range(35))
    with SpoolWriter(path, KEY) as writer:
        writer.write(plain)
        writer.suspend()
    octets = bytearray(path.read_bytes())
    octets[HEADER + frame * SEALED + 20] ^= 1
    path.write_bytes(octets)
    resumed = SpoolWriter.resume(path, KEY)
    assert resumed.size == frame * FRAME
    assert path.stat().st_size == HEADER + frame * SEALED
    resumed.write(plain[resumed.size :])
    resumed.finish()
    assert read(path) == plain


def test_the_end_of_a_finished_spool_is_written_anew(tmp_path: Path) -> None:
    """A server that died between the last byte and the intake: the last frame says so, and comes once more."""
    for size in (0, 9, 10, 20, 25):
        path = tmp_path / f"upload-{size}"
        with SpoolWriter(path, KEY) as writer:
            writer.write(bytes(size))
            writer.finish()
        resumed = SpoolWriter.resume(path, KEY)
        assert resumed.size == max(0, size - 1) // FRAME * FRAME
        resumed.write(bytes(size - resumed.size))
        resumed.finish()
        assert read(path) == bytes(size)


def test_frames_of_another_key_or_file_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    writer = SpoolWriter(path, KEY)
    writer.write(bytes(45))
    writer.suspend()
    assert spool.plain_size(path.stat().st_size) == 40
    other = SpoolWriter.resume(path, bytes(32))
    assert other.size == 0
    assert other.suspend() == 0
    assert not path.exists()
    path.write_bytes(b"no spool at all, though long enough")
    with pytest.raises(Corrupt) as caught:
        SpoolWriter.resume(path, KEY)
    assert caught.value.reason == "SPOOL_CORRUPT"
    assert path.exists()
