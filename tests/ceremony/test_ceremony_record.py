"""Records: a changed byte, a dropped, swapped or added entry anywhere is found, and the first bad entry is named."""

import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keys.ceremony.record import RecordWriter, canonical, fingerprint, read_record, verify_record
from keys.errors import CitycardError, Conflict, Corrupt, Denied, NotFound
from tests.ceremony.ceremony_tools import Clock

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = SIGNER.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def write(path, entries=4, end="closed"):
    writer = RecordWriter.create(path, PUBLIC, SIGNER.sign, Clock(), ceremony="c1", mode="run")
    for number in range(entries - 2):
        writer.add("sitting", custodian="李伟", number=number)
    if end:
        writer.add(end)
    return path.read_bytes()


def bad_entry(content, **options):
    with pytest.raises(CitycardError) as refused:
        verify_record(content, **options)
    assert refused.value.reason == "RECORD_BAD"
    return int(re.match(r"record entry (\d+) \(line \1\)", refused.value.message)[1])


def test_a_whole_record_verifies(tmp_path):
    content = write(tmp_path / "r")
    record = verify_record(content, public_key=PUBLIC.hex())
    assert (len(record.entries), record.complete, record.ceremony_id, record.public_key) == (4, True, "c1", PUBLIC.hex())
    assert [entry["seq"] for entry in record.entries] == [1, 2, 3, 4]


def test_a_changed_byte_anywhere_is_found_and_its_entry_named(tmp_path):
    """Each byte with each of its bits flipped in turn over the bytes, and every byte with all values at the structural ones."""
    content = write(tmp_path / "r")
    for at in range(len(content)):
        line = content[:at].count(b"\n") + 1
        for flip in {1 << at % 8, 0x20, 0xFF}:
            changed = content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
            assert bad_entry(changed) == line, (at, flip)


def test_dropped_swapped_doubled_and_inserted_entries_are_found(tmp_path):
    lines = write(tmp_path / "r", entries=6).splitlines(keepends=True)
    for at in range(len(lines)):
        assert bad_entry(b"".join(lines[:at] + lines[at + 1 :])) == at + 1
        assert bad_entry(b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])) == at + 2
    for at in range(len(lines) - 1):
        swapped = [*lines]
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        assert bad_entry(b"".join(swapped)) == at + 1
    assert bad_entry(b"".join(lines[:3]) + b"\n" + b"".join(lines[3:])) == 4
    assert bad_entry(b"") == 1


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_a_record_cut_short_is_found(tmp_path, cut):
    content = write(tmp_path / "r")
    assert bad_entry(content[:-cut]) == 4


def test_an_unfinished_record_is_complete_only_where_that_is_allowed(tmp_path):
    content = write(tmp_path / "r", end=None)
    assert bad_entry(content) == 4
    assert not verify_record(content, complete=False).complete


def test_one_spelling_only(tmp_path):
    lines = write(tmp_path / "r").splitlines()
    spaced = json.dumps(json.loads(lines[1]), ensure_ascii=False, sort_keys=True).encode()
    assert bad_entry(b"\n".join([lines[0], spaced, *lines[2:], b""])) == 2
    upper = json.loads(lines[1])
    upper["signature"] = upper["signature"].upper()
    assert bad_entry(b"\n".join([lines[0], canonical(upper), *lines[2:], b""])) == 2
    for other in (
        b"[]",
        b"{}",
        b"1",
        b"null",
        b'{"entry":1,"signature":"00"}',
        b'{"entry":{},"signature":"00"}',
        b"[" * 100_000,
        b'{"a":NaN}',
    ):
        assert bad_entry(b"\n".join([lines[0], other, b""])) == 2


def test_a_record_of_another_signer_is_refused(tmp_path):
    content = write(tmp_path / "r")
    with pytest.raises(Denied) as refused:
        verify_record(content, public_key="00" * 32)
    assert refused.value.reason == "RECORD_KEY"
    assert fingerprint(PUBLIC.hex()) in refused.value.message
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    writer = RecordWriter.create(tmp_path / "forged", PUBLIC, other.sign, Clock(), ceremony="c1", mode="run")
    writer.add("closed")
    assert bad_entry((tmp_path / "forged").read_bytes()) == 1


def test_first_entries_that_open_nothing(tmp_path):
    for name, opening in (("a", {"format": "other"}), ("b", {"public_key": "zz"}), ("c", {"public_key": "00"})):
        writer = RecordWriter(tmp_path / name, SIGNER.sign, Clock(), [], "0" * 64)
        writer.add("opened", **{"format": "citycard-ceremony-record 1", "public_key": PUBLIC.hex(), **opening})
        assert bad_entry((tmp_path / name).read_bytes(), complete=False) == 1


def test_writing_goes_on_after_a_crash_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "r"
    content = write(path, end=None)
    path.write_bytes(content + b'{"entry":{"half')
    writer = RecordWriter.reopen(path, PUBLIC, SIGNER.sign, Clock())
    writer.add("closed")
    assert [entry["type"] for entry in verify_record(path.read_bytes()).entries] == ["opened", "sitting", "sitting", "closed"]
    assert writer.ended


def test_a_damaged_record_is_not_continued(tmp_path):
    path = tmp_path / "r"
    content = write(path, end=None)
    path.write_bytes(content.replace(b'"number":0', b'"number":9'))
    with pytest.raises(Corrupt):
        RecordWriter.reopen(path, PUBLIC, SIGNER.sign, Clock())
    with pytest.raises(NotFound):
        RecordWriter.reopen(tmp_path / "none", PUBLIC, SIGNER.sign, Clock())
    with pytest.raises(Conflict):
        write(path)
    with pytest.raises(NotFound):
        read_record(tmp_path)
