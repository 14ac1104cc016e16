"""Envelopes: what is printed can be read, goes to the device that was named and nowhere else, and is never printed over another."""

import os
import subprocess

import pytest

from keys.ceremony.envelopes import DevicePrinter, Envelope, envelope_page
from keys.ceremony.plan import Output
from keys.errors import Conflict, Unavailable
from keys.secrets import SecretBytes

WORDS = " ".join(["academic", "acid", "zero"] * 11)
ENVELOPE = Envelope(1001, "zz-2026-00000000", "li.wei", "ss.dks1 version 1", "1 of 2, xor, 2 needed", "08D7B4", False)


@pytest.mark.parametrize("text", ["0123 4567 89AB CDEF FEDC BA98 7654 3210", WORDS])
@pytest.mark.parametrize("rehearsal", [True, False])
def test_both_forms_say_everything(tmp_path, text, rehearsal):
    secret = SecretBytes(text.encode())
    envelope = ENVELOPE._replace(rehearsal=rehearsal)
    plain = bytes(envelope_page(envelope, secret, pdf=False)).decode()
    assert plain.endswith("\f")
    (tmp_path / "e.pdf").write_bytes(envelope_page(envelope, secret, pdf=True))
    drawn = subprocess.run(["pdftotext", "-layout", str(tmp_path / "e.pdf"), "-"], capture_output=True, text=True, check=True)
    assert not drawn.stderr
    for page in (plain, drawn.stdout):
        words = page.split()
        assert " ".join(words).endswith(text)
        assert ("REHEARSAL" in words) is rehearsal
        for wanted in ("1001", "zz-2026-00000000", "li.wei", "ss.dks1", "08D7B4"):
            assert wanted in words


@pytest.mark.parametrize("form", ["text", "pdf"])
def test_a_directory_takes_one_new_file_an_envelope(tmp_path, form):
    printer = DevicePrinter(Output(str(tmp_path), form, 1001))
    assert printer.keeps
    printer.print_envelope(ENVELOPE, SecretBytes(b"0123"))
    (made,) = tmp_path.iterdir()
    assert made.name == f"1001.{'pdf' if form == 'pdf' else 'txt'}"
    assert made.stat().st_mode & 0o777 == 0o600
    before = made.read_bytes()
    with pytest.raises(Conflict):
        printer.print_envelope(ENVELOPE, SecretBytes(b"4567"))
    assert made.read_bytes() == before


def test_a_device_keeps_nothing_here(tmp_path):
    path = tmp_path / "printer"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    printer = DevicePrinter(Output(str(path), "text", 1001))
    assert not printer.keeps
    printer.print_envelope(ENVELOPE, SecretBytes(b"0123"))
    assert b"0123" in os.read(reader, 4096)
    os.close(reader)
    assert [item.name for item in tmp_path.iterdir()] == ["printer"]


def test_a_device_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(Unavailable):
        DevicePrinter(Output(str(tmp_path / "none"), "text", 1001))
    assert not list(tmp_path.iterdir())
    with pytest.raises(Unavailable) as refused:
        DevicePrinter(Output("/dev/full", "text", 1001)).print_envelope(ENVELOPE, SecretBytes(b"0123"))
    assert "0123" not in refused.value.message
