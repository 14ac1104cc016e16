"""No clear key outside locked memory: a real server makes cards, and its whole memory is searched for every key of store and cards."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.ledger.attempts import Attempt
from engine.production.card import CardInMaking, static_keys
from engine.virtual.birth import TEST_KMC
from keys.custody.software import SoftwareCustody
from tests.plant.test_plant_canary import cards_of

if TYPE_CHECKING:
    from conftest import Works

PURPOSES = ("duplicates", "pin", "image-digest")


class Region(NamedTuple):
    """A stretch of a process's memory that can be read."""

    name: str
    locked: bool
    content: bytes


def regions(pid: int) -> Iterator[Region]:
    """All of a process, which only root may ask for once it cannot be dumped."""
    span: tuple[int, int, str, str] | None = None
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
            if head:
                span = int(head[1], 16), int(head[2], 16), head[3], head[4]
            # io and pf: pages of a device or of the kernel (vvar), which cannot be read so
            elif line.startswith("VmFlags:") and span is not None and span[2][0] == "r" and not {"io", "pf"} & set(line.split()):
                memory.seek(span[0])
                yield Region(span[3] or hex(span[0]), "lo" in line.split(), memory.read(span[1] - span[0]))


class Keys:
    """Keys by what they are, looked for at every position: by their first two bytes, then by the next two, then whole."""

    def __init__(self, named: dict[str, bytes]) -> None:
        kept = {name: key for name, key in named.items() if len(set(key)) > 4 and key != TEST_KMC}
        self._named: dict[bytes, list[tuple[str, bytes]]] = {}
        self._heads = np.zeros((2, 1 << 16), bool)
        for name, key in kept.items():
            self._named.setdefault(key[:4], []).append((name, key))
            self._heads[[0, 1], np.frombuffer(key[:4], np.uint16)] = True
        self.count = len(kept)

    def hits(self, region: Region) -> list[str]:
        found: list[str] = []
        for start in (0, 1):
            content = memoryview(region.content)[start:]
            words = np.frombuffer(content[: len(content) // 2 * 2], np.uint16)
            places = np.flatnonzero(self._heads[0][words[:-1]])
            for at in places[self._heads[1][words[places + 1]]] * 2 + start:
                found += [name for name, key in self._named.get(region.content[at : at + 4], ()) if region.content.startswith(key, at)]
        return found


def all_keys(custody: SoftwareCustody, cards: list[CardInMaking], found: list[Attempt], wrapped: list[bytes]) -> Keys:
    named = {f"master {key_id}": bytes(key.reveal()) for (key_id, _), key in custody._masters.items()}
    named["root"] = bytes(custody._root.reveal())
    named |= {f"hmac {purpose}": bytes(custody.hmac_key(purpose).reveal()) for purpose in PURPOSES}
    named |= {f"data key {n}": bytes(custody.unwrap_data_key(key).reveal()) for n, key in enumerate(wrapped)}
    for n, (card, attempt) in enumerate(zip(cards, found, strict=True)):
        for key, value in zip(card.compiled.keys, card._keys.array[:, 0], strict=True):
            named[f"card {n} {key.label}"] = value.tobytes()
        for part, value in zip(("enc", "mac", "dek"), card._issuer.array[:, 0], strict=True):
            named[f"card {n} issuer {part}"] = value.tobytes()
        with static_keys(custody, card.profile.channel.transport, bytes.fromhex(attempt.chip_id or "")) as keys:
            for part, value in zip(("enc", "mac", "dek"), keys.array[:, 0], strict=True):
                named[f"card {n} transport {part}"] = value.tobytes()
    return Keys(named)


def test_no_key_lies_in_memory_that_is_not_locked(works: Works, orders: Callable[..., Path]) -> None:
    assert os.geteuid() == 0
    works.add_station("one", 8)
    job = works.submit(orders(5))
    works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert works.plant.stop("one") == 0
    seen = list(regions(works.plant.pid("server")))
    works.plant.stop("server")
    with SoftwareCustody.open(works.plant.server_data, works.plant.passphrase_file.read_text().strip(), mode="test") as custody:
        cards, found = asyncio.run(cards_of(works, custody))
        with sqlite3.connect(works.plant.server_data / "ledger.sqlite") as database:
            wrapped = [bytes(w) for (w,) in database.execute("select pii_key_wrapped from jobs")]
        keys = all_keys(custody, cards, found, wrapped)
        assert keys.count > 120 + 5 * 100
        # the search finds what is there: the store is open, and its masters lie in locked memory
        assert any(hit.startswith("master ") for region in seen if region.locked for hit in keys.hits(region))
        assert [(region.name, hits) for region in seen if not region.locked and (hits := keys.hits(region))] == []
        for card in cards:
            card.close()
