"""The memorandum: rendered to pixels and text by another program, with everything two people sign for and nothing secret."""

import shutil
import subprocess

import pytest

from keys.ceremony import memorandum as module
from keys.ceremony.desk import Topic
from keys.ceremony.memorandum import memorandum
from keys.ceremony.record import fingerprint, verify_record
from keys.ceremony.rehearsal import rehearse
from keys.errors import Unavailable
from tests.ceremony.ceremony_tools import CHINESE, KEY, Clock, Desk, plan
from tests.ceremony.test_ceremony_run import Room


def text_of(pdf, tmp_path):
    (tmp_path / "m.pdf").write_bytes(pdf)
    run = subprocess.run(["pdftotext", "-layout", str(tmp_path / "m.pdf"), "-"], capture_output=True, text=True, check=True)
    return run.stdout


@pytest.fixture
def room(tmp_path):
    made = Room(tmp_path)
    yield made
    made.vault.close()


def hold(room, **fields):
    desk = Desk(plan(**fields))
    desk.script(Topic.ENVELOPE_READ, "?", "?", "?")
    room.hold(desk.plan, desk)
    content = (room.directory / "record.jsonl").read_bytes()
    return desk, content, verify_record(content)


def test_it_says_who_what_when_and_how_it_is_checked(room, tmp_path):
    desk, content, record = hold(room, custodians=3, keys=(KEY, {**KEY, "id": "ss.sm4", "algorithm": "sm4"}))
    text = text_of(memorandum(record, content), tmp_path)
    for name in CHINESE[:3]:
        assert text.count(name) >= 3, name
    for wanted in ("密钥交接备忘录", "Key Hand-over Memorandum", "孙伟", "密钥室 2", "ss.dks1", "ss.sm4", "已完成", record.ceremony_id):
        assert wanted in text
    for key in ("ss.dks1", "ss.sm4"):
        assert room.vault.find(key, 1).kcv in text
    for serial in desk.printed:
        assert str(serial) in text
    assert "信封作废" in text
    assert fingerprint(record.public_key) in text
    assert "2026-11-23 08:00:" in text
    for piece in desk.printed.values():
        assert piece not in text


def test_chinese_is_drawn_and_fonts_are_inside(room, tmp_path):
    """Rendered pages: the title's strip holds ink, and no font is left to the reader's machine."""
    _, content, record = hold(room, custodians=2)
    pdf = memorandum(record, content)
    (tmp_path / "m.pdf").write_bytes(pdf)
    fonts = subprocess.run(["pdffonts", str(tmp_path / "m.pdf")], capture_output=True, text=True, check=True).stdout.splitlines()[2:]
    assert fonts
    assert all(" yes yes " in line for line in fonts), fonts
    subprocess.run(["pdftoppm", "-r", "50", "-gray", "-f", "1", "-l", "1", str(tmp_path / "m.pdf"), str(tmp_path / "p")], check=True)
    (page,) = tmp_path.glob("p*.pgm")
    head, pixels = page.read_bytes().split(b"\n255\n", 1)
    width, height = map(int, head.split(b"\n")[1].split())
    strip = pixels[width * (height // 20) : width * (height // 9)]
    assert sum(value < 128 for value in strip) > 200


def test_the_same_record_gives_the_same_file(room):
    _, content, record = hold(room)
    assert memorandum(record, content) == memorandum(record, content)


def test_a_rehearsal_says_so(tmp_path):
    record = rehearse(plan(), clock=Clock()).record
    assert "演练 REHEARSAL" in text_of(memorandum(verify_record(record), record), tmp_path)


@pytest.mark.parametrize("custodians", [2, 9])
def test_many_keys_go_over_several_pages(room, tmp_path, custodians):
    keys = tuple({**KEY, "id": f"ss.key{number:02d}"} for number in range(20))
    _, content, record = hold(room, custodians=custodians, keys=keys)
    text = text_of(memorandum(record, content), tmp_path)
    assert text.count("\f") >= 2
    assert all(key["id"] in text for key in keys)


def test_without_its_font_it_says_what_to_install(room, monkeypatch, tmp_path):
    _, content, record = hold(room)
    monkeypatch.setattr(module, "FONT_FILE", tmp_path / "none.ttc")
    monkeypatch.setattr(module, "_FONT", "another")
    with pytest.raises(Unavailable, match=r"fonts-wqy-microhei"):
        memorandum(record, content)


def test_the_tools_that_look_at_pages_are_there():
    assert all(map(shutil.which, ("pdftotext", "pdftoppm", "pdffonts")))
