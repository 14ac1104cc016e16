"""DES S-box circuits: the search, its results as data, and the C headers made from them.

    python -m cext.circuits.des_sbox                      write the headers from des_circuits.json
    python -m cext.circuits.des_sbox --search SECONDS     search on all cores, keep what is better, write the headers
    python -m cext.circuits.des_sbox --import FILE ...    take over circuits in the search's text form where they are better
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cext.circuits import des_circuit, des_header
from cext.circuits.des_circuit import Circuit

FOLDER = Path(__file__).parent
DATA = FOLDER / "des_circuits.json"
HEADERS = {
    "two-input": FOLDER.parent / "src" / "des_sbox.h",
    "three-input": FOLDER.parent / "src" / "des_sbox_ternary.h",
}
GATE_INPUTS = {"two-input": 2, "three-input": 3}

Circuits = dict[str, dict[int, Circuit]]


def load() -> Circuits:
    """The best circuits so far: by kind of gate, then by box 1..8."""
    content = json.loads(DATA.read_text(encoding="ascii"))
    return {kind: {box: des_circuit.parse(content[kind][f"des-{box}"]["circuit"]) for box in range(1, 9)} for kind in HEADERS}


def save(circuits: Circuits) -> None:
    """Write the data file: per box the gate count, the instructions in a round, and the circuit in the search's text form."""
    content: dict[str, object] = {"standard": "FIPS 46-3", "format": "see cext/circuits/des_circuit.py"}
    for kind, boxes in circuits.items():
        content[f"{kind} average"] = sum(len(circuit.gates) for circuit in boxes.values()) / 8
        content[kind] = {
            f"des-{box}": {"gates": len(boxes[box].gates), "instructions": boxes[box].cost(), "circuit": list(boxes[box].lines())}
            for box in sorted(boxes)
        }
    DATA.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")


def header(kind: str, circuits: Circuits) -> str:
    """The text of the header for gates of that kind."""
    return des_header.header([circuits[kind][box] for box in range(1, 9)], ternary=kind == "three-input")


def write_headers(circuits: Circuits) -> None:
    for kind, path in HEADERS.items():
        path.write_text(header(kind, circuits), encoding="ascii")


def better(circuits: Circuits, found: Circuit) -> str | None:
    """Take `found` over where it costs less than what is known; returns a line that says so.

    ValueError if it is no S-box: whatever a file claims, the table decides.
    """
    box = des_circuit.box_of(found)
    kind = "two-input" if found.two_input() else "three-input"
    known = circuits[kind].get(box)
    if known is not None and found.cost() >= known.cost():
        return None
    circuits[kind][box] = found
    before = f"{len(known.gates)}" if known else "none"
    return f"S{box}, {kind}: {len(found.gates)} gates, before {before}"


def take_over(files: Iterable[Path]) -> None:
    """Import circuits from files of the text form."""
    circuits = load() if DATA.exists() else {kind: {} for kind in HEADERS}
    for path in files:
        line = better(circuits, des_circuit.parse(path.read_text(encoding="ascii").splitlines()))
        if line:
            sys.stdout.write(f"{line}\n")
    save(circuits)


def _compile(folder: Path) -> Path:
    program = folder / "anneal"
    options = ["-O3", "-std=c11", "-D_POSIX_C_SOURCE=199309L", "-Wall", "-Wextra"]
    subprocess.run(["cc", *options, str(FOLDER / "anneal.c"), "-lm", "-o", str(program)], check=True)  # noqa: S603, S607 - our own program
    return program


def _anneal(program: Path, folder: Path, kind: str, box: int, seconds: float, known: Circuit | None) -> Circuit:
    """One run of the search, from `known` or from nothing; returns the best circuit it met."""
    seed, heat = random.getrandbits(48), random.uniform(0.2, 0.5)  # noqa: S311 - a search order, not a secret
    command = [str(program), str(GATE_INPUTS[kind]), str(box - 1), f"{seconds:.0f}", str(seed), f"{heat:.3f}"]
    if known is not None:
        start = folder / f"{kind}-{box}-{seed}.txt"
        start.write_text("\n".join([*known.lines(), ""]), encoding="ascii")
        command.append(str(start))
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - as above
    return des_circuit.parse(output.splitlines())


def search(seconds: float, run: float = 120.0) -> None:
    """Search on all cores for about that long, in runs over random boxes; every improvement is saved at once."""
    circuits = load()
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = _compile(folder)

        def work() -> None:
            while (left := until - time.monotonic()) > 1:
                kind, box = random.choice(list(HEADERS)), random.randrange(1, 9)  # noqa: S311 - as above
                # Two-input circuits start from the best, three-input ones mostly from nothing: that is what found more.
                known = circuits[kind][box] if kind == "two-input" or random.random() < 0.3 else None  # noqa: S311 - as above
                line = better(circuits, _anneal(program, folder, kind, box, min(run, left), known))
                if line:
                    sys.stdout.write(f"{line}\n")
                    sys.stdout.flush()
                    save(circuits)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for job in [pool.submit(work) for _ in range(os.cpu_count() or 1)]:
                job.result()


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description="DES S-box circuits")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--search", type=float, metavar="SECONDS")
    action.add_argument("--import", dest="files", type=Path, nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.search:
        search(arguments.search)
    elif arguments.files:
        take_over(arguments.files)
    write_headers(load())


if __name__ == "__main__":
    main()
