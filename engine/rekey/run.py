"""The run itself: threads that each make one part after another. The kernels work outside Python's lock, so two cores do twice the work.

A part is cut into chunks that a worker has in hand: factors, then cryptograms and check values from the custody, then the file. Before
a part counts as done, cards of it drawn at random are made again by the derivation witness; one difference stops the whole run.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from engine.personalize.columns import Column
from engine.personalize.image import card_factors
from engine.rekey import manifest as manifests
from engine.rekey.manifest import Manifest, Part
from engine.rekey.parquet import ParquetPart
from engine.rekey.request import Request
from engine.rekey.sink import HashingSink, disk_error
from engine.rekey.tunion import TUnionPart
from keys.custody import Custody
from keys.custody.policy import working_for
from keys.custody.wrapping import KCV_LEN, WRAPPED_LEN
from keys.errors import Corrupt

ByteArray = npt.NDArray[np.uint8]

# Cards of each part whose every key the witness makes again.
WITNESS_CARDS: Final = 2
_DISK_THREADS: Final = 2


@dataclass
class Timing:
    """Seconds of all workers together, by what they did."""

    factors: float = 0.0
    crypto: float = 0.0
    files: float = 0.0
    disk: float = 0.0
    witness: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, what: str, began: float) -> float:
        """Books the time since `began`; the time now."""
        now = time.monotonic()
        with self.lock:
            setattr(self, what, getattr(self, what) + now - began)
        return now


@dataclass(frozen=True)
class Outcome:
    """A finished run: the manifest, what this process made of it, and where its time went."""

    manifest: Manifest
    made_keys: int
    resumed_parts: int
    seconds: float
    timing: Timing


class Rekey:
    """One run into one directory."""

    def __init__(
        self, request: Request, custody: Custody, directory: Path, *, test: bool, workers: int, progress: Callable[[int], None]
    ) -> None:
        """`progress` is told, from any thread, how many more cards are done."""
        self._request = request
        self._custody = custody
        self._directory = directory
        self._wanted = manifests.begin(request, test=test)
        self._workers = workers
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        # parts that are being made or wait for the disk: what bounds the pages that are not written yet
        self._backlog = threading.Semaphore(workers + _DISK_THREADS)
        self._timing = Timing()
        self._manifest = self._wanted

    def run(self) -> Outcome:
        """Makes every part that is not there yet.

        Raises Conflict REKEY_OTHER_RUN, Corrupt (REKEY_MANIFEST, DERIVATION_WITNESS), Exhausted DISK_FULL, Unavailable FILE_WRITE, and
        what population and custody raise.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise disk_error(error, self._directory) from None
        found = manifests.read(self._directory, self._wanted)
        self._manifest = manifests.still_whole(self._directory, found, lambda part: self._progress(part.cards))
        manifests.write(self._directory, self._manifest)
        resumed = len(self._manifest.parts)
        left = [at for at in range(self._request.parts) if self._manifest.of(self._request.part_name(at)) is None]
        began = time.monotonic()
        with ThreadPoolExecutor(_DISK_THREADS, "disk") as self._disk, ThreadPoolExecutor(self._workers, "rekey") as pool:
            futures = [pool.submit(self._make, at) for at in left]
            try:
                for future in futures:
                    future.result().result()
            except BaseException:
                self._stop.set()
                for future in futures:
                    future.cancel()
                raise
        made = sum(len(self._request.rows_of(at)) for at in left) * len(self._request.keys)
        return Outcome(self._manifest, made, resumed, time.monotonic() - began, self._timing)

    def _make(self, at: int) -> Future[None]:
        """Makes one part; its last way to disk is a task of its own, so that the worker can go on."""
        request, cards = self._request, self._request.rows_of(at)
        path = self._directory / request.part_name(at)
        self._backlog.acquire()
        try:
            sample = sorted(cards.start + secrets.randbelow(len(cards)) for _ in range(WITNESS_CARDS))
            sink = HashingSink(path)
            try:
                with working_for(request.compiled.loaded.profile.name):
                    witnessed = self._write(sink, cards, sample)
            except BaseException:
                sink.close()
                raise
            return self._disk.submit(self._finish, sink, path, cards, witnessed)
        except OSError as error:
            self._backlog.release()
            raise disk_error(error, path) from None
        except BaseException:
            self._backlog.release()
            raise

    def _finish(self, sink: HashingSink, path: Path, cards: range, witnessed: int) -> None:
        """The part under its name and in the manifest, both durable."""
        began = time.monotonic()
        try:
            with closing(sink):
                if self._stop.is_set():
                    return
                size, sha256 = sink.size, sink.finish()
        except OSError as error:
            raise disk_error(error, path) from None
        else:
            part = Part(name=path.name, first=cards.start, cards=len(cards), bytes=size, sha256=sha256, witnessed=witnessed)
            with self._lock:
                parts = sorted((*self._manifest.parts, part), key=lambda item: item.name)
                self._manifest = msgspec.structs.replace(self._manifest, parts=tuple(parts))
                manifests.write(self._directory, self._manifest)
            self._timing.add("disk", began)
        finally:
            self._backlog.release()

    def _write(self, sink: HashingSink, cards: range, sample: list[int]) -> int:
        """The whole part into the sink; how many of its keys the witness confirmed."""
        request, timing = self._request, self._timing
        writer = (ParquetPart if request.file_format == "parquet" else TUnionPart)(sink, request, cards)
        shape = len(request.keys), request.chunk_rows
        cryptograms = np.empty(shape[0] * shape[1] * WRAPPED_LEN[request.scheme], np.uint8)
        kcvs = np.empty(shape[0] * shape[1] * KCV_LEN, np.uint8)
        witnessed = 0
        for first in range(cards.start, cards.stop, request.chunk_rows):
            if self._stop.is_set():
                break
            rows = min(request.chunk_rows, cards.stop - first)
            began = time.monotonic()
            columns = request.population.columns(first, rows)
            factors = self._factors(columns)
            began = timing.add("factors", began)
            wrapped = cryptograms[: shape[0] * rows * WRAPPED_LEN[request.scheme]].reshape(shape[0], rows, -1)
            checks = kcvs[: shape[0] * rows * KCV_LEN].reshape(shape[0], rows, KCV_LEN)
            self._custody.derive_wrapped(request.derivations, factors, request.keks, request.scheme, wrapped, checks)
            began = timing.add("crypto", began)
            for card in sample:
                if first <= card < first + rows:
                    witnessed += self._confirm(card, card - first, factors, wrapped, checks)
            began = timing.add("witness", began)
            writer.add(columns, wrapped, checks)
            timing.add("files", began)
            self._progress(rows)
        writer.close()
        return witnessed

    def _factors(self, columns: Mapping[str, Column]) -> list[ByteArray]:
        """A factor array for each key; keys with the same card factor share it."""
        cache: dict[tuple[str, str], ByteArray] = {}
        for key in self._request.keys:
            if (key.card_factor, key.method) not in cache:
                cache[key.card_factor, key.method] = np.ascontiguousarray(card_factors(key, columns))
        return [cache[key.card_factor, key.method] for key in self._request.keys]

    def _confirm(self, card: int, row: int, factors: list[ByteArray], cryptograms: ByteArray, kcvs: ByteArray) -> int:
        """Every key of one card by the derivation witness. Raises Corrupt DERIVATION_WITNESS."""
        request = self._request
        for at, (key, derivation, kek) in enumerate(zip(request.keys, request.derivations, request.keks, strict=True)):
            cryptogram, kcv = self._custody.witness_wrapped(derivation, factors[at][row].tobytes(), kek, request.scheme)
            same = hmac.compare_digest(cryptogram, cryptograms[at, row].data)
            if not same or not hmac.compare_digest(kcv, kcvs[at, row].data):
                message = (
                    f"key {key.label} of card {card}: kernels and derivation witness disagree; the run is stopped, use none of its files"
                )
                raise Corrupt("DERIVATION_WITNESS", message)
        return len(request.keys)
