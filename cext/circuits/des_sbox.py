"""Finds small two-input circuits for the eight DES S-boxes (FIPS 46-3, appendix 1) and writes `cext/src/des_sbox.h`.

The method is Shannon expansion with don't-cares and reuse, after M. Kwan's idea: to make a function on a set of cases, take an
existing net that agrees there; else one gate of two existing nets; else split the cases on an input variable x and make
f0 ^ (x & d), where f0 serves the cases x=0 and d only has to repair the cases x=1. The order of outputs and variables is drawn at
random; a recipe is the seed of the best draw seen, so the header is reproduced in seconds and a longer search only changes
recipes.

    python -m cext.circuits.des_sbox            write the header from the recorded recipes
    python -m cext.circuits.des_sbox --search N try N more seeds per box and print better recipes
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cext.circuits.netlist import Gate, Netlist

HEADER = Path(__file__).parent.parent / "src" / "des_sbox.h"
ONES = (1 << 64) - 1
EXHAUSTIVE = 5  # with so few variables left every split is tried

# FIPS 46-3, appendix 1: four rows of sixteen per box, printed as hex digits.
_TABLES = (
    "E4D12FB83A6C59070F74E2D1A6CB953841E8D62BFC973A50FC8249175B3EA06D",
    "F18E6B34972DC05A3D47F28EC01A69B50E7BA4D158C6932FD8A13F42B67C05E9",
    "A09E63F51DC7B428D709346A285ECBF1D6498F30B12C5AE71AD069874FE3B52C",
    "7DE3069A1285BC4FD8B56F03472C1AE9A690CB7DF13E52843F06A1D8945BC72E",
    "2C417AB6853FD0E9EB2C47D150FA3986421BAD78F9C5630EB8C71E2D6F09A453",
    "C1AF92680D34E75BAF427C9561DE0B389EF528C3704A1DB6432C95FABE17608D",
    "4B2EF08D3C975A61D0B7491AE35C2F8614BDC37EAF6805926BD814A7950FE23C",
    "D2846FB1A93E50C71FD8A374C56B0E927B419CE206ADF35821E74A8DFC90356B",
)

# Seed of the best circuit found so far, per box.
RECIPES = (56, 106, 57, 94, 80, 125, 141, 127)


class _TooLarge(Exception):
    """The draw already needs as many gates as the best one."""


def table(box: int) -> list[int]:
    """S-box `box` (0..7) as 64 values indexed by the six input bits b1..b6, b1 most significant (row = b1b6, column = b2..b5)."""
    digits = [int(digit, 16) for digit in _TABLES[box]]
    return [digits[((x >> 5 & 1) << 1 | (x & 1)) * 16 + (x >> 1 & 15)] for x in range(64)]


def input_tables() -> list[int]:
    """Truth tables of the six inputs; input 0 is b1, and bit x of a table belongs to input value x."""
    return [sum(1 << x for x in range(64) if x >> (5 - i) & 1) for i in range(6)]


def output_tables(box: int) -> list[int]:
    """Truth tables of the four outputs, most significant first."""
    values = table(box)
    return [sum(1 << x for x in range(64) if values[x] >> (3 - bit) & 1) for bit in range(4)]


class _Search:
    """One random draw for one box."""

    def __init__(self, box: int, seed: int, limit: int) -> None:
        self._random = random.Random(f"{box}/{seed}")  # noqa: S311 - a search order, not a secret
        self._netlist = Netlist(6)
        self._tables = np.zeros(128, dtype=np.uint64)
        self._inputs = input_tables()
        self._tables[:6] = self._inputs
        self._targets = output_tables(box)
        self._limit = limit

    def run(self) -> Netlist:
        order = list(range(4))
        self._random.shuffle(order)
        outputs = [0] * 4
        variables = list(range(6))
        self._random.shuffle(variables)
        for bit in order:
            outputs[bit] = self._make(self._targets[bit], ONES, variables)
        self._netlist.outputs = outputs
        return self._netlist

    def _count(self) -> int:
        return 6 + len(self._netlist.gates)

    def _gate(self, op: str, a: int, b: int) -> int:
        net = self._netlist.add(op, a, b)
        left, right = int(self._tables[a]), ONES if b == -1 else int(self._tables[b])
        value = {"&": left & right, "|": left | right, "^": left ^ right, "andn": left & ~right & ONES}[op]
        self._tables[net] = value
        if len(self._netlist.gates) >= self._limit:
            raise _TooLarge
        return net

    def _existing(self, target: int, mask: int) -> int | None:
        """A net, or one new gate, that equals `target` on `mask`."""
        known: npt.NDArray[np.uint64] = self._tables[: self._count()]
        cases = np.uint64(mask)
        wanted = np.uint64(target & mask)
        masked = known & cases
        hits = np.flatnonzero(masked == wanted)
        if hits.size:
            return int(hits[0])
        inverted = np.flatnonzero(masked == (wanted ^ cases))
        if inverted.size:
            return self._gate("^", int(inverted[0]), -1)
        for op, grid in (
            ("^", masked[:, None] ^ masked[None, :]),
            ("&", masked[:, None] & masked[None, :]),
            ("|", masked[:, None] | masked[None, :]),
            ("andn", masked[:, None] & ~masked[None, :]),
        ):
            pairs = np.argwhere(grid == wanted)
            if len(pairs):
                a, b = pairs[self._random.randrange(len(pairs))]
                return self._gate(op, int(a), int(b))
        return None

    def _make(self, target: int, mask: int, variables: list[int]) -> int:
        found = self._existing(target, mask)
        if found is not None:
            return found
        start = len(self._netlist.gates)
        splits = [(x, above) for x in variables for above in (False, True)]
        if len(variables) > EXHAUSTIVE:
            # Trying every split here would multiply with every split below; one random split and many draws find as much.
            return self._split(target, mask, variables, *splits[self._random.randrange(len(splits))])
        best: tuple[list[Gate], int] | None = None
        self._random.shuffle(splits)
        for x, above in splits:
            outer_limit = self._limit
            if best is not None:
                self._limit = min(self._limit, start + len(best[0]))
            try:
                net = self._split(target, mask, variables, x, above)
                best = (self._netlist.gates[start:], net)
            except _TooLarge:
                pass
            finally:
                self._limit = outer_limit
                del self._netlist.gates[start:]
        if best is None:
            raise _TooLarge
        for gate in best[0]:
            self._gate(gate.op, gate.a, gate.b)
        return best[1]

    def _split(self, target: int, mask: int, variables: list[int], x: int, above: bool) -> int:
        """Serve the cases of one value of x, then repair those of the other."""
        rest = [variable for variable in variables if variable != x]
        ones = self._inputs[x]
        base_cases, repair_cases = (mask & ones, mask & ~ones) if above else (mask & ~ones, mask & ones)
        base = self._make(target, base_cases, rest)
        repair = self._make((target ^ int(self._tables[base])) & ONES, repair_cases, rest)
        return self._gate("^", base, self._gate("andn", repair, x) if above else self._gate("&", *sorted((repair, x))))


def draw(box: int, seed: int, limit: int = 120) -> Netlist | None:
    """The circuit seed `seed` gives for box 0..7, or None when it reaches `limit` gates."""
    try:
        return _Search(box, seed, limit).run().pruned()
    except _TooLarge:
        return None


def header() -> str:
    """The text of des_sbox.h from RECIPES."""
    title = "DES S-boxes as boolean circuits. Written by cext/circuits/des_sbox.py; do not edit. in[0] is b1, out[0] highest."
    parts = [f"/* {title} */\n"]
    for box, seed in enumerate(RECIPES):
        netlist = draw(box, seed)
        if netlist is None:
            raise ValueError(f"recipe {seed} of S-box {box + 1} gives no circuit")
        parts.append(netlist.to_c(f"des_s{box + 1}", accumulate=False))
    return "\n".join(parts)


def _search(count: int) -> None:
    for box in range(8):
        first = draw(box, RECIPES[box])
        best = len(first.gates) if first else 120
        for seed in range(count):
            netlist = draw(box, seed, best)
            if netlist is not None and len(netlist.gates) < best:
                best = len(netlist.gates)
                sys.stdout.write(f"S{box + 1}: seed {seed} gives {best} gates\n")
                sys.stdout.flush()


def main() -> None:
    """Command-line entry."""
    parser = argparse.ArgumentParser(description="DES S-box circuits")
    parser.add_argument("--search", type=int, metavar="N")
    arguments = parser.parse_args()
    if arguments.search:
        _search(arguments.search)
    else:
        HEADER.write_text(header(), encoding="ascii")


if __name__ == "__main__":
    main()
