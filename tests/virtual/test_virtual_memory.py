from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.virtual.factory import make_blank, make_blanks, open_chip
from engine.virtual.nvm import Moved, Nvm
from engine.virtual.recordlog import RecordLog
from keys.errors import Corrupt, InvalidInput, NotFound
from tests.virtual.card_driver import (
    CITY,
    TEST_KMC,
    Host,
    cmac,
    df,
    dgi,
    file_entry,
    social_image,
    transport_image,
    transport_keys,
)

ROOT = Path(__file__).parents[2]
LOT = bytes.fromhex("4101")


def test_a_file_cut_at_any_byte_holds_a_prefix_of_the_commits(tmp_path):
    path = tmp_path / "a.nvm"
    nvm = Nvm(path)
    ends = {0: 0}
    for number in range(1, 6):
        nvm.put("n", number)
        nvm.put(f"v{number}", bytes(number * 7))
        nvm.commit()
        ends[number] = path.stat().st_size
    nvm.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        opened = Nvm(path)
        number = opened.get_int("n")
        assert number == max(n for n, end in ends.items() if end <= cut)
        assert opened.get_bytes(f"v{number}") == (bytes(number * 7) if number else None)
        assert f"v{number + 1}" not in opened
        # What was torn off is gone, and the next commit stands directly behind what is whole.
        opened.put("n", 99)
        opened.commit()
        opened.close()
        assert Nvm(path).get_int("n") == 99


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_inside_the_file_is_refused_not_guessed(tmp_path, data):
    path = tmp_path / "a.nvm"
    path.unlink(missing_ok=True)
    nvm = Nvm(path)
    for number in range(4):
        nvm.put("n", number)
        nvm.commit()
    nvm.close()
    whole = bytearray(path.read_bytes())
    record = len(whole) // 4
    at = data.draw(st.integers(4, record - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    with pytest.raises(Corrupt, match="offset 0"):
        Nvm(path)


def test_rollback_restores_every_value(tmp_path):
    nvm = Nvm(tmp_path / "a.nvm")
    nvm.put("kept", 1)
    nvm.put("gone", b"x")
    nvm.commit()
    nvm.put("kept", 2)
    nvm.put("kept", 3)
    nvm.put("gone", None)
    nvm.put("new", 1)
    nvm.rollback()
    assert (nvm.get_int("kept"), nvm.get_bytes("gone"), "new" in nvm) == (1, b"x", False)
    nvm.commit()
    nvm.close()
    again = Nvm(tmp_path / "a.nvm")
    assert (again.get_int("kept"), again.get_bytes("gone"), "new" in again) == (1, b"x", False)


def test_two_owners_of_one_memory_do_not_mix(tmp_path):
    first, second = Nvm(tmp_path / "a.nvm"), Nvm(tmp_path / "a.nvm")
    second.put("n", 2)
    second.commit()
    first.put("n", 1)
    with pytest.raises(Moved):
        first.commit()
    assert Nvm(tmp_path / "a.nvm").get_int("n") == 2


def test_a_piece_that_was_moved_answers_no_more_where_it_was(tmp_path):
    here = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    here.power_on()
    there = open_chip(tmp_path, here.chip_id)
    there.power_on()
    assert Host(there.transmit, transport_keys(here.chip_id)).initialize_update()[1] == 0x9000
    assert here.transmit(bytes.fromhex("8050300008000000000000000000")) == b""
    assert here.transmit(bytes.fromhex("00A4040000")) == b""


def test_a_full_disk_leaves_no_half_record(tmp_path, monkeypatch):
    log = RecordLog(tmp_path / "a.log")
    log.append(b"first")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
    with pytest.raises(OSError, match="no space"):
        log.append(b"second")
    monkeypatch.undo()
    log.append(b"third")
    assert RecordLog(tmp_path / "a.log").read_new() == [b"first", b"third"]


KILLED = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from engine.virtual.factory import open_chip
    chip = open_chip(Path(sys.argv[1]), sys.argv[2])
    while True:
        chip.power_on()
        answer = chip.transmit(bytes.fromhex("8050300008" + "11" * 8 + "00"))
        sys.stdout.write(answer[-5:-2].hex() + "\\n")
        sys.stdout.flush()
    """
)


def test_kill_9_loses_nothing_the_chip_has_answered(tmp_path):
    chip = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    last = 0
    for pause in (0.01, 0.023, 0.05, 0.031, 0.017, 0.04):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), chip.chip_id], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        first = child.stdout.readline()
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split("\n")
        child.wait()
        child.stdout.close()
        seen = [int(line, 16) for line in [first.strip(), *rest] if len(line) == 6]
        assert seen[0] == last + 1
        chip.power_on()
        sequence = int.from_bytes(chip.transmit(bytes.fromhex("80CA00C100"))[2:5], "big")
        chip.power_off()
        # Everything answered is there; at most the one command whose answer was still on its way besides.
        assert seen[-1] <= sequence <= seen[-1] + 1
        last = sequence


def test_a_thousand_blanks_cost_nothing_until_they_have_power(tmp_path):
    started = time.perf_counter()
    chips = make_blanks(tmp_path, LOT, 10, 1000)
    assert time.perf_counter() - started < 2
    assert len(set(chips)) == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["blanks.log"]
    chip = open_chip(tmp_path, chips[7])
    atr = chip.power_on()
    assert atr[9:17] == (17).to_bytes(8, "big")
    host = Host(chip.transmit, transport_keys(chips[7]))
    host.open()
    host.put_key(0x20, [bytes(16)] * 3)
    chip.power_off()
    again = open_chip(tmp_path, chips[7])
    again.power_on()
    assert Host(again.transmit, []).initialize_update(kvn=0x30)[1] == 0x6A88


def test_blanks_of_another_kmc(tmp_path):
    kmc = bytes(range(16))
    chip_id = make_blanks(tmp_path, LOT, 1, 1, kmc=kmc)[0]
    chip = open_chip(tmp_path, chip_id)
    chip.power_on()
    Host(chip.transmit, [cmac(kmc, bytes((1, 0, 0, 0, k, 0)) + bytes.fromhex(chip_id)) for k in (1, 2, 3)]).open()
    assert transport_keys(chip_id, TEST_KMC) != transport_keys(chip_id, kmc)


@pytest.mark.parametrize("chip_id", ["41010000000000000005", "42010000000000000001"])
def test_unknown_chips(tmp_path, chip_id):
    make_blanks(tmp_path, LOT, 1, 4)
    with pytest.raises(NotFound, match=chip_id):
        open_chip(tmp_path, chip_id)


@pytest.mark.parametrize("chip_id", ["", "41", "zz010000000000000005", "4101000000000000000a", "../../../etc/passwd"])
def test_chip_ids_that_are_none(tmp_path, chip_id):
    with pytest.raises(InvalidInput) as caught:
        open_chip(tmp_path, chip_id)
    assert caught.value.reason == "CHIP_ID_INVALID"


@pytest.mark.parametrize(("lot", "serial"), [(b"1", bytes(8)), (LOT, bytes(7))])
def test_blanks_with_wrong_identities(tmp_path, lot, serial):
    with pytest.raises(InvalidInput) as caught:
        make_blank(tmp_path, lot=lot, serial=serial)
    assert caught.value.reason == "BLANK_INVALID"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=12))
def test_random_bytes_never_crash_a_blank(tmp_path, apdus):
    chip = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    chip.power_on()
    for apdu in apdus:
        assert len(chip.transmit(apdu)) >= 2
    chip.power_off()


HEADERS = st.tuples(
    st.sampled_from([0x00, 0x80, 0x84, 0x04, 0x0C]),
    st.sampled_from([0xA4, 0xB0, 0xB2, 0xD6, 0xDC, 0x84, 0x82, 0x88, 0x20, 0xA8, 0xAE, 0xCA, 0x50, 0x52, 0x54, 0x5C, 0xF2, 0xE6, 0xE2]),
    st.one_of(st.sampled_from([0, 1, 2, 4, 0x80]), st.integers(0, 255)),
    st.one_of(st.sampled_from([0, 2, 4, 0x0C, 0x2C, 0x80, 0x81]), st.integers(0, 255)),
)
AIDS = st.sampled_from(["7378312E73682EC9E7BBE1B1A3D5CF", "A000000333010101", "A000000632010105", "D15600000501", "A000000151"])
PLAUSIBLE = st.one_of(
    st.builds(
        lambda h, d, le: bytes(h) + bytes((len(d),)) + d + le,
        HEADERS,
        st.binary(max_size=40),
        st.sampled_from([b"", b"\x00", b"\x08"]),
    ),
    AIDS.map(lambda aid: b"\x00\xa4\x04\x00" + bytes((len(aid) // 2,)) + bytes.fromhex(aid)),
)


@pytest.fixture(scope="module")
def personalized(tmp_path_factory):
    from tests.virtual.card_driver import FINANCE, SOCIAL, TRANSPORT, finance_image

    chip = make_blank(tmp_path_factory.mktemp("fuzz"), lot=LOT, serial=bytes(8))
    chip.power_on()
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    host.open()
    for aid, image in ((SOCIAL, social_image), (FINANCE, finance_image), (TRANSPORT, transport_image)):
        host.personalize(aid, image(host))
    yield chip
    chip.power_off()


@settings(max_examples=300, deadline=None)
@given(apdus=st.lists(PLAUSIBLE, min_size=1, max_size=15))
def test_plausible_commands_never_crash_a_personalized_chip(personalized, apdus):
    for apdu in apdus:
        answer = personalized.transmit(apdu)
        assert len(answer) >= 2
        assert answer[-2] in (0x90, 0x63, 0x64, 0x67, 0x68, 0x69, 0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x93, 0x94)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(st.tuples(st.sampled_from([0x00, 0x60, 0x80, 0xE0]), st.binary(min_size=1, max_size=200)), min_size=1, max_size=6))
@pytest.mark.parametrize("aid", ["F05A5A4349545931", "A000000333010101", "A000000632010105"])
def test_random_store_data_never_crashes(tmp_path, aid, blocks):
    chip = make_blank(tmp_path, lot=LOT, serial=bytes(8))
    chip.power_on()
    host = Host(chip.transmit, transport_keys(chip.chip_id))
    host.open(0x01)
    host.install(bytes.fromhex(aid))
    if aid == CITY.hex().upper():
        host.store(0x00, 0, dgi(0xA001, df(CITY, file_entry(0xEF05, 5, 2, 3))))
    for number, (p1, data) in enumerate(blocks):
        assert host.store(p1, number + 1, data) in (0x9000, 0x6A80, 0x6A86, 0x6985, 0x6A84)
    chip.power_off()
    (tmp_path / f"{chip.chip_id}.nvm").unlink()
