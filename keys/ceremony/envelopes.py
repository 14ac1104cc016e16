"""What goes into a custodian's envelope, printed and not kept: plain text with a form feed, or a PDF of one page.

The page is put together in one bytearray that is overwritten after printing; a PDF library would leave the component in text it cannot
wipe. Printed in ASCII, because printers set the fonts: custodians are named by their ids.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from keys.ceremony.plan import Output
from keys.errors import Conflict, Unavailable
from keys.secrets import SecretBytes

_LINE_LEN: Final = 60
_PDF_HEAD: Final = b"%PDF-1.4\n"


class Envelope(NamedTuple):
    """One piece for one custodian; `check_value` is empty for shares, which check themselves."""

    serial: int
    ceremony_id: str
    custodian: str
    key_name: str
    piece: str
    check_value: str
    rehearsal: bool


class EnvelopePrinter(Protocol):
    """Prints envelopes."""

    def print_envelope(self, envelope: Envelope, secret: SecretBytes) -> None:
        """`secret` is the text to print. Raises Unavailable OUTPUT_DEVICE, Conflict ENVELOPE_EXISTS."""


class DevicePrinter:
    """Prints on the device, file or directory of a plan. A directory takes one new file an envelope."""

    def __init__(self, output: Output) -> None:
        """Raises Unavailable OUTPUT_DEVICE when it is not there: nothing is created in its place."""
        self._path = Path(output.device)
        self._pdf = output.format == "pdf"
        if not self._path.exists():
            raise Unavailable("OUTPUT_DEVICE", f"there is no output device {self._path}")

    @property
    def keeps(self) -> bool:
        """Whether what is printed stays on a disk, where it must be destroyed: true for files and directories."""
        mode = self._path.stat().st_mode
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    def print_envelope(self, envelope: Envelope, secret: SecretBytes) -> None:
        """See `EnvelopePrinter.print_envelope`."""
        page = envelope_page(envelope, secret, pdf=self._pdf)
        try:
            self._send(envelope, page)
        except FileExistsError:
            raise Conflict("ENVELOPE_EXISTS", f"envelope {envelope.serial} was printed before") from None
        except OSError as error:
            raise Unavailable("OUTPUT_DEVICE", f"output device {self._path}: {error.strerror}") from None
        finally:
            page[:] = bytes(len(page))

    def _send(self, envelope: Envelope, page: bytearray) -> None:
        path, flags = self._path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
        if path.is_dir():
            path = path / f"{envelope.serial}.{'pdf' if self._pdf else 'txt'}"
            flags |= os.O_CREAT | os.O_EXCL
        handle = os.open(path, flags, 0o600)
        try:
            with memoryview(page) as whole:
                sent = 0
                while sent < len(whole):
                    sent += os.write(handle, whole[sent:])
            if stat.S_ISREG(os.fstat(handle).st_mode):
                os.fsync(handle)
        finally:
            os.close(handle)


def envelope_page(envelope: Envelope, secret: SecretBytes, *, pdf: bool) -> bytearray:
    """The page; the caller overwrites it."""
    head = [
        b"REHEARSAL - NOT A KEY" if envelope.rehearsal else b"KEY COMPONENT - SECRET",
        b"envelope   %d" % envelope.serial,
        b"ceremony   " + envelope.ceremony_id.encode(),
        b"custodian  " + envelope.custodian.encode(),
        b"key        " + envelope.key_name.encode(),
        b"piece      " + envelope.piece.encode(),
    ]
    if envelope.check_value:
        head.append(b"check      " + envelope.check_value.encode())
    with secret.reveal() as text:
        lines = [*(memoryview(line) for line in [*head, b""]), *_folded(text)]
        return _pdf_page(lines) if pdf else _text_page(lines)


def _folded(text: memoryview) -> list[memoryview]:
    """Views of the lines of `text`, broken at spaces: no copy is made."""
    lines = []
    start = 0
    while len(text) - start > _LINE_LEN:
        end = start + _LINE_LEN
        while text[end] != 0x20:
            end -= 1
        lines.append(text[start:end])
        start = end + 1
    return [*lines, text[start:]]


def _text_page(lines: list[memoryview]) -> bytearray:
    page = bytearray(sum(len(line) + 2 for line in lines) + 1)
    at = 0
    for line in lines:
        page[at : at + len(line)] = line
        page[at + len(line) : at + len(line) + 2] = b"\r\n"
        at += len(line) + 2
    page[at:] = b"\f"
    return page


def _pdf_page(lines: list[memoryview]) -> bytearray:
    """PDF 1.4 (ISO 32000-1), one A5 page in Courier, uncompressed. Lines hold letters, digits and spaces: nothing to escape."""
    before, between, after = b"BT /F1 11 Tf 16 TL 40 540 Td (", b") Tj T* (", b") Tj ET"
    length = len(before) + len(after) + sum(map(len, lines)) + len(between) * (len(lines) - 1)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 420 595]/Contents 5 0 R/Resources<</Font<</F1 4 0 R>>>>>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Courier>>",
    ]
    head = _PDF_HEAD
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(head))
        head += b"%d 0 obj%b endobj\n" % (number, body)
    places.append(len(head))
    head += b"5 0 obj<</Length %d>>stream\n" % length
    tail = b"\nendstream endobj\n"
    table = len(head) + length + len(tail)
    tail += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    tail += b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % table
    page = bytearray(len(head) + length + len(tail))
    at = 0
    # written in place, piece by piece: joining would leave a second copy of the component
    for place, line in enumerate([memoryview(head), *lines, memoryview(after + tail)]):
        glue = b"" if place == 0 else before if place == 1 else between if place <= len(lines) else b""
        page[at : at + len(glue)] = glue
        at += len(glue)
        page[at : at + len(line)] = line
        at += len(line)
    return page
