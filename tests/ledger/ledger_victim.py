"""A process that makes cards as fast as it can and says on standard output what was acknowledged, until somebody kills it.

`ledger_victim.py FILE FIRST_LINE`: every line printed names an attempt and the state that is durable.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from engine.ledger import attempts, lines
from engine.ledger.serials import SerialAllocator
from engine.ledger.store import Ledger
from keys.errors import CitycardError


def main() -> int:
    path, base = Path(sys.argv[1]), int(sys.argv[2])
    try:
        ledger = Ledger.open(path)
    except CitycardError as error:
        print("refused", error.reason, flush=True)
        return 3
    allocator = SerialAllocator(ledger)
    output = threading.Lock()

    def tell(attempt: attempts.Attempt) -> None:
        with output:
            print("ack", attempt.attempt_id, attempt.state.value, flush=True)

    def make(line: int) -> None:
        attempt = ledger.run(lambda tx: attempts.reserve(tx, "J1", line, "S1", 60_000_000, b"challeng"))
        tell(attempt)
        chip = f"{base:010X}{attempt.attempt_id:010X}"
        answer = b"r" * 29
        tell(
            ledger.run(lambda tx: attempts.present(tx, attempt.token, chip_id=chip, atr=b"a", cplc=b"c", initialize_update_response=answer))
        )
        facts = {
            "chip_id": chip,
            "host_challenge": b"challeng",
            "initialize_update_response": answer,
            "kvn": 1,
            "profile_hash": "AB" * 32,
            "image_digest": b"d" * 32,
            "serials": {"city": allocator.draw("city")},
            "psn": ledger.read(lambda conn: attempts.psn_for(conn, "J1", line)),
            "max_chip_us": 120_000_000,
        }
        tell(ledger.run(lambda tx: attempts.intent(tx, attempt.token, **facts)))
        for step in (attempts.encoded, lambda tx, token: attempts.verified(tx, token, {}), attempts.printed, attempts.good):
            tell(ledger.run(lambda tx, step=step: step(tx, attempt.token)))
        tell(ledger.run(lambda tx: attempts.stacked(tx, attempt.token, "good")))

    failed: list[str] = []

    def work(mine: list[int]) -> None:
        try:
            for line in mine:
                make(line)
        except CitycardError as error:
            failed.append(error.reason)

    ready = ledger.read(lambda conn: lines.ready(conn, "J1", -1, 100_000))
    threads = [threading.Thread(target=work, args=(ready[part::4],)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        ledger.close()
    except CitycardError as error:
        failed.append(error.reason)
    print("failed", *failed, flush=True)
    return 4 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
