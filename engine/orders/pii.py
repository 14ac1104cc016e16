"""Personal data at rest: every stored row sealed under its job's key, so that destroying the key destroys the data.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce a row: under one key at most 2^32 rows may be sealed, which no job comes
near. The job and the line number are authenticated with the row, so a blob put in another row's place does not open.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keys.errors import Corrupt, InvalidInput, Precondition

KEY_LEN: Final = 32
NONCE_LEN: Final = 12
TAG_LEN: Final = 16


def aead(key: bytes | bytearray | memoryview) -> AESGCM:
    """AES-256-GCM under a job's key. InvalidInput JOB_KEY_LENGTH."""
    if len(key) != KEY_LEN:
        raise InvalidInput("JOB_KEY_LENGTH", f"a job's key for personal data has {KEY_LEN} bytes")
    return AESGCM(key)


class JobSeal:
    """Seals and opens the rows of one job. Holds the key until `close`; may be used as a context manager. Prints no key."""

    def __init__(self, key: bytes | bytearray | memoryview, job_id: str) -> None:
        self._aead: AESGCM | None = aead(key)
        job = job_id.encode("utf-8")
        # The length in front keeps job "a" line 1 apart from every other job's name and line.
        self._context = b"citycard row" + len(job).to_bytes(4, "big") + job
        self.job_id = job_id

    def __repr__(self) -> str:
        return f"JobSeal(job_id={self.job_id!r})"

    def __enter__(self) -> JobSeal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the key; the seal is of no use after that."""
        self._aead = None

    def _cipher(self) -> AESGCM:
        if self._aead is None:
            raise Precondition("JOB_KEY_CLOSED", f"the key of job {self.job_id} was given up")
        return self._aead

    def seal_rows(self, lines: Iterable[int], records: Sequence[bytes]) -> list[bytes]:
        """One blob per record: nonce, ciphertext, tag; 28 bytes longer than the record."""
        encrypt, context = self._cipher().encrypt, self._context
        nonces = os.urandom(NONCE_LEN * len(records))
        blobs: list[bytes] = []
        for at, (line, record) in enumerate(zip(lines, records, strict=True)):
            nonce = nonces[NONCE_LEN * at : NONCE_LEN * (at + 1)]
            blobs.append(nonce + encrypt(nonce, record, context + int(line).to_bytes(8, "big")))
        return blobs

    def open_row(self, line: int, blob: bytes) -> bytes:
        """The record of one line. Corrupt ROW_CORRUPT when the blob is not what was sealed for this line of this job."""
        if len(blob) < NONCE_LEN + TAG_LEN:
            raise Corrupt("ROW_CORRUPT", f"the stored row of line {line} of job {self.job_id} is cut short")
        try:
            return self._cipher().decrypt(blob[:NONCE_LEN], blob[NONCE_LEN:], self._context + int(line).to_bytes(8, "big"))
        except InvalidTag:
            message = f"the stored row of line {line} of job {self.job_id} does not open under the job's key"
            raise Corrupt("ROW_CORRUPT", message) from None
