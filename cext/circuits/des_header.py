"""DES S-box circuits as C: one function per box that does a box's whole share of a round.

The expansion, the key bits that PC-2 picks and the permutation P are only numbers here, so the functions read the right half and the
rotated key slices where they lie and XOR their outputs into the left half. Gates come in an order that keeps few values alive, each
input is made where it is first read, and of a three-input gate's operands the one that is ready last comes first: on Zen 4 the
instruction waits a cycle longer, and takes a second slot, for an operand that is ready after the one that it overwrites.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from cext.circuits.des_circuit import INPUTS, TWO_INPUT, Circuit, Gate

# FIPS 46-3 appendix 1: PC-2 (bits of C || D, from 1) and P (bit of the S-boxes' output that becomes bit 1..32).
_PC2 = (
    *(14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2),
    *(41, 52, 31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32),
)
_P = (16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25)
_ORDERS = 400  # random orders tried per circuit


def expanded(box: int) -> list[int]:
    """Slices of the right half that are b1..b6 of box 1..8 (FIPS 46-3, table E)."""
    return [(4 * box - 5 + i) % 32 for i in range(6)]


def key_bits(box: int) -> list[int]:
    """Slices of C (boxes 1..4) or D that meet b1..b6."""
    return [(bit - 1) % 28 for bit in _PC2[6 * box - 6 : 6 * box]]


def destinations(box: int) -> list[int]:
    """Slices of the left half that the four outputs change."""
    return [_P.index(4 * box - 3 + i) for i in range(4)]


def header(circuits: Sequence[Circuit], ternary: bool) -> str:
    """The text of a header with boxes 1..8."""
    kind = "three-input gates, which AVX-512 has" if ternary else "two-input gates, which every CPU has"
    places = ",\n".join("    {" + ", ".join(map(str, destinations(box))) + "}" for box in range(1, 9))
    title = (
        f"/* DES S-boxes as circuits of {kind}. Written by cext/circuits/des_sbox.py from des_circuits.json; do not edit.\n"
        " *\n"
        " * l ^= P(S(E(r) ^ k)) for one box: r, l are the halves; k is C (boxes 1 to 4) or D, rotated. A pair does it for two states. */\n"
    )
    table = f"static const uint8_t des_destinations[8][4] = {{\n{places}}};\n"
    parts = [title, f"/* Where the outputs of box 1..8 go, most significant first. */\n{table}"]
    for box, circuit in enumerate(circuits, 1):
        function = _Function(box, circuit, ternary)
        parts.append(f"/* {len(circuit.gates)} gates */\n" + _text(f"des_s{box}(lane *l, const lane *r, const lane *k)", function.lines()))
        if ternary:
            signature = f"des_pair_s{box}(lane *l, lane *l2, const lane *r, const lane *r2, const lane *k)"
            parts.append(_text(signature, [twin for line in function.lines() for twin in _pair(line)]))
    return "\n".join(parts)


def _text(signature: str, body: Sequence[str]) -> str:
    return "\n".join([f"static inline ALWAYS_INLINE void {signature}", "{", *body, "}", ""])


def _pair(line: str) -> Iterator[str]:
    """A statement for two states under one key: the two need nothing of each other, so one fills the other's waits."""
    if key := re.search(r"(a\d) = .* (k\[\d+\]);", line):
        yield f"    const lane k{key[1]} = {key[2]};"
        line = line.replace(key[2], f"k{key[1]}")
    yield line
    yield re.sub(r"\b([lr])\[", r"\g<1>2[", re.sub(r"\b([at]\d+)\b", r"\1b", line))


class _Function:
    """The statements of one box, in an order found by a seeded search."""

    def __init__(self, box: int, circuit: Circuit, ternary: bool) -> None:
        self._box = box
        self._circuit = circuit
        self._ternary = ternary
        self._folded = {circuit.outputs[i][0]: i for i in range(4) if ternary and circuit.folded(i)}

    def lines(self) -> list[str]:
        draw = random.Random(f"{self._box}/{len(self._circuit.gates)}")  # noqa: S311 - an order of gates, not a secret
        order = min((self._order(draw) for _ in range(_ORDERS)), key=self._alive)
        ready = self._ready(order)
        made: set[int] = set()
        result = []
        for net in order:
            gate = self._gate(net)
            for source in gate.support():
                if source < INPUTS and source not in made:
                    made.add(source)
                    place = f"r[{expanded(self._box)[source]}] ^ k[{key_bits(self._box)[source]}]"
                    result.append(f"    const lane a{source} = {place};")
            result += self._statement(net, gate, ready)
        return result

    def _gate(self, net: int) -> Gate:
        return self._circuit.gates[net - INPUTS]

    def _ready(self, order: list[int]) -> dict[int, tuple[int, int]]:
        """When each net has its value: gates deep, then position in the order."""
        ready = {net: (0, net - INPUTS) for net in range(INPUTS)}
        for step, net in enumerate(order):
            ready[net] = (max(ready[source][0] for source in self._gate(net).support()) + 1, step)
        return ready

    def _order(self, draw: random.Random) -> list[int]:
        """A topological order that prefers gates that end a value's life."""
        waiting = {INPUTS + i: set(gate.support()) for i, gate in enumerate(self._circuit.gates)}
        readers = {net: sum(net in sources for sources in waiting.values()) for net in range(INPUTS + len(waiting))}
        done = set(range(INPUTS))
        order = []
        while waiting:
            ready = [net for net, sources in waiting.items() if sources <= done]
            ends = {net: sum(readers[source] == 1 for source in waiting[net]) + draw.random() * 1.5 for net in ready}
            net = max(ready, key=lambda candidate: ends[candidate])
            for source in waiting.pop(net):
                readers[source] -= 1
            done.add(net)
            order.append(net)
        return order

    def _alive(self, order: list[int]) -> tuple[int, int]:
        """The most values alive at once, and their sum over all steps."""
        last = {net: step for step, net in enumerate(order) for net in self._gate(net).support()}
        first = {net: step for step, net in reversed(list(enumerate(order)))}
        for step, net in reversed(list(enumerate(order))):
            first |= {source: step for source in self._gate(net).support() if source < INPUTS}
        counts = [sum(first[net] <= step < last.get(net, step) for net in first) for step in range(len(order))]
        return max(counts), sum(counts)

    def _statement(self, net: int, gate: Gate, ready: dict[int, tuple[int, int]]) -> list[str]:
        if net in self._folded:
            output = self._folded[net]
            complement = self._circuit.outputs[output][1]
            right, left = sorted((*gate.support(), gate.support()[0])[:2], key=lambda source: ready[source])
            rows = [self._two(gate, left, right, row >> 2 & 1, row >> 1 & 1) ^ (row & 1) ^ complement for row in range(8)]
            function = sum(bit << row for row, bit in enumerate(rows))
            place = f"l[{destinations(self._box)[output]}]"
            return [f"    {place} = TERNARY(0x{function:02X}, {_name(left)}, {_name(right)}, {place});"]
        return [f"    const lane {_name(net)} = {self._expression(gate, ready)};", *self._outputs(net)]

    def _expression(self, gate: Gate, ready: dict[int, tuple[int, int]]) -> str:
        a, b, c = gate.inputs
        if gate.function in TWO_INPUT:
            return TWO_INPUT[gate.function].format(a=_name(a), b=_name(b))
        used = gate.support()
        names = sorted(used, key=lambda net: ready[net], reverse=True)
        names += [names[-1]] * (3 - len(names))
        function = 0
        for row in range(8):
            value = {net: row >> (2 - position) & 1 for position, net in reversed(list(enumerate(names)))}
            index = sum((value.get(net, 0)) << (2 - position) for position, net in enumerate((a, b, c)))
            function |= (gate.function >> index & 1) << row
        return f"TERNARY(0x{function:02X}, {', '.join(map(_name, names))})"

    @staticmethod
    def _two(gate: Gate, left: int, right: int, left_value: int, right_value: int) -> int:
        """The gate's value when all nets but left and right are 0."""
        value = {right: right_value, left: left_value}
        index = sum(value.get(net, 0) << (2 - position) for position, net in enumerate(gate.inputs))
        return gate.function >> index & 1

    def _outputs(self, net: int) -> list[str]:
        result = []
        for output, (source, complement) in enumerate(self._circuit.outputs):
            if source == net:
                place = f"l[{destinations(self._box)[output]}]"
                xor = f"{place} = TERNARY(0xC3, {_name(net)}, {place}, {place})" if complement else f"{place} ^= {_name(net)}"
                result.append(f"    {xor};")
        return result


def _name(net: int) -> str:
    return f"a{net}" if net < INPUTS else f"t{net - INPUTS}"
