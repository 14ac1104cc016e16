"""Order file -> sealed lines in the ledger. The upload rests encrypted, and goes on where it was cut off; rows are checked, hashed, sealed
and stored in batches.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.ledger import lines
from engine.ledger.store import Ledger
from engine.ledger.tx import Tx
from engine.orders.parquet import csv_of, is_parquet
from engine.orders.pii import JobSeal
from engine.orders.reading import Batch, read_orders
from engine.orders.records import encode_records
from engine.orders.rules import Rules
from engine.orders.source import OrderSource
from engine.orders.spool import SpoolReader, SpoolWriter
from keys.errors import Corrupt, InvalidInput, NotFound, Precondition
from keys.secrets import SecretBytes

Encoding = Literal["utf-8", "gb18030"]


@dataclass
class Upload:
    """One order file on its way in: spooled, encrypted under the job's own key."""

    job_id: str
    encoding: Encoding | None
    writer: SpoolWriter
    data_key: SecretBytes


def encoding_of(text: str) -> Encoding | None:
    """The encoding a client names, None to detect it; InvalidInput ENCODING_UNKNOWN."""
    match text.lower():
        case "":
            return None
        case "utf-8" | "utf8":
            return "utf-8"
        case "gb18030" | "gbk" | "gb2312":
            return "gb18030"  # the later standard holds the earlier ones
    raise InvalidInput("ENCODING_UNKNOWN", f"encoding {text!r} is not known: utf-8 or gb18030")


@dataclass(frozen=True)
class Kept:
    """What of an order file is here after its upload was cut off: so many bytes from its beginning, and their SHA-256."""

    size: int
    sha256: bytes


def spool_path(directory: Path, job_id: str) -> Path:
    """Where the order file of a job rests while it is uploaded."""
    return directory / f"{job_id}.spool"


def begin(job_id: str, directory: Path, encoding: Encoding | None, data_key: SecretBytes, offset: int = 0) -> Upload:
    """Opens the spool: a new one, or, with an offset, the one that is kept. Blocks. Precondition UPLOAD_OFFSET where the kept bytes end
    elsewhere.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = spool_path(directory, job_id)
    if offset == 0:
        path.unlink(missing_ok=True)
        return Upload(job_id, encoding, SpoolWriter(path, data_key.reveal()), data_key)
    writer = _taken_up(path, data_key)
    size = 0 if writer is None else writer.size
    if writer is None or size != offset:
        if writer is not None:
            writer.suspend()
        raise Precondition("UPLOAD_OFFSET", f"the upload of job {job_id} goes on at byte {size}, not at {offset}")
    return Upload(job_id, encoding, writer, data_key)


def kept(job_id: str, directory: Path, data_key: SecretBytes) -> Kept:
    """What is here of the order file. Blocks: all of it is read and proven to be what was written."""
    writer = _taken_up(spool_path(directory, job_id), data_key)
    if writer is None:
        return Kept(0, hashlib.sha256().digest())
    found = Kept(writer.size, writer.sha256)
    writer.suspend()
    return found


def _taken_up(path: Path, data_key: SecretBytes) -> SpoolWriter | None:
    try:
        return SpoolWriter.resume(path, data_key.reveal())
    except NotFound:
        return None
    except Corrupt:  # the server died before the first byte was whole
        path.unlink(missing_ok=True)
        return None


def suspend(upload: Upload) -> int:
    """Leaves what arrived for a later `begin`; how many bytes."""
    try:
        return upload.writer.suspend()
    finally:
        upload.data_key.close()


def finish(upload: Upload, sha256: bytes) -> None:
    """Closes the spool; Corrupt UPLOAD_CORRUPT when it is not the file the client sent."""
    if not hmac.compare_digest(upload.writer.finish(), sha256):
        raise Corrupt("UPLOAD_CORRUPT", "the order file arrived changed: its SHA-256 is not the one announced; submit it again")


def drop(upload: Upload) -> None:
    """Removes the spool, whether the upload came to an end or not."""
    upload.writer.discard()
    upload.data_key.close()


@dataclass(frozen=True)
class Taken:
    """What came of an order file."""

    encoding: str
    notes: tuple[str, ...]


def take_in(ledger: Ledger, upload: Upload, hash_key: SecretBytes) -> Taken:
    """Reads the spooled file and stores good lines and rejects. Blocks; run it in a thread. Raises what the order reader raises."""

    def issued(person_hashes: Sequence[bytes], card_hashes: Sequence[bytes]) -> tuple[Mapping[bytes, object], Mapping[bytes, bytes]]:
        people, numbers = ledger.read(lambda conn: lines.issued(conn, person_hashes, card_hashes))
        return people, {card: person for card, (person, _) in numbers.items()}

    with _text(upload) as reader, JobSeal(upload.data_key.reveal(), upload.job_id) as seal:
        source = OrderSource(reader, encoding=upload.encoding)
        for batch in read_orders(source, Rules(), hash_key.reveal(), issued):
            _store(ledger, upload.job_id, seal, batch)
    return Taken(source.encoding, source.notes)


@contextmanager
def _text(upload: Upload) -> Iterator[SpoolReader]:
    """The spooled order file as CSV text; a Parquet file is rewritten into a second spool, which is gone afterwards.

    Raises InvalidInput ORDERS_PARQUET; ORDERS_ENCODING where another encoding than UTF-8 was named for a Parquet file.
    """
    key = upload.data_key.reveal()
    with SpoolReader(upload.writer.path, key) as reader:
        if not is_parquet(reader):
            yield reader
            return
        if upload.encoding not in (None, "utf-8"):
            raise InvalidInput("ORDERS_ENCODING", f"text in a Parquet file is always UTF-8, not {upload.encoding}")
        path = upload.writer.path.with_suffix(".csv.spool")
        path.unlink(missing_ok=True)
        with SpoolWriter(path, key) as writer:
            for chunk in csv_of(reader):
                writer.write(chunk)
            writer.finish()
    try:
        with SpoolReader(path, key) as text:
            yield text
    finally:
        path.unlink(missing_ok=True)


def _store(ledger: Ledger, job_id: str, seal: JobSeal, batch: Batch) -> None:
    numbers = batch.lines.tolist()
    blobs = seal.seal_rows(numbers, encode_records(batch.columns))
    persons, cards = batch.person_hash.tobytes(), batch.card_hash.tobytes()
    rows = [(n, persons[16 * i : 16 * i + 16], cards[16 * i : 16 * i + 16], blobs[i]) for i, n in enumerate(numbers)]
    rejects = [reject.as_dict() for reject in batch.rejects]

    def write(tx: Tx) -> None:
        if rows:
            lines.add_batch(tx, job_id, rows)
        if rejects:
            lines.add_rejects(tx, job_id, rejects)

    ledger.run(write)
