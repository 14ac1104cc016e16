"""A circuit of one DES S-box as the search finds it: gates given by their truth tables, on six inputs.

The text form is what `anneal.c` writes and reads: a line `function a b c` per gate, numbered from 6 on, whose function is a byte with
the value for inputs a, b, c at bit 4a + 2b + c, and a line `outputs o0 o1 o2 o3`, most significant first, with `~` before a net that
is the complement of the output. A gate of two inputs has c = 0 and a function that does not look at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

INPUTS = 6
CASES = 1 << INPUTS
ONES = (1 << CASES) - 1

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


def table(box: int) -> list[int]:
    """S-box `box` (1..8) as 64 values indexed by the six input bits b1..b6, b1 most significant (row = b1b6, column = b2..b5)."""
    digits = [int(digit, 16) for digit in _TABLES[box - 1]]
    return [digits[((x >> 5 & 1) << 1 | (x & 1)) * 16 + (x >> 1 & 15)] for x in range(CASES)]


@dataclass(frozen=True)
class Gate:
    """`function` of the nets a, b, c."""

    function: int
    inputs: tuple[int, int, int]

    def value(self, a: int, b: int, c: int) -> int:
        """On bit-parallel integers of 64 cases."""
        nets = (a, b, c)
        result = 0
        for row in range(8):
            if self.function >> row & 1:
                term = ONES
                for position, net in enumerate(nets):
                    term &= net if row >> (2 - position) & 1 else ~net & ONES
                result |= term
        return result

    def support(self) -> tuple[int, ...]:
        """The nets the value depends on."""
        seen = []
        for position, net in enumerate(self.inputs):
            bit = 4 >> position
            if any((self.function >> row & 1) != (self.function >> (row ^ bit) & 1) for row in range(8)) and net not in seen:
                seen.append(net)
        return tuple(seen)


@dataclass(frozen=True)
class Circuit:
    """Nets 0..5 are b1..b6, the gates follow in topological order; an output is a net and whether it is the complement."""

    gates: tuple[Gate, ...]
    outputs: tuple[tuple[int, bool], ...]

    def table(self) -> list[int]:
        """The circuit on all 64 inputs."""
        nets = [sum(1 << x for x in range(CASES) if x >> (5 - i) & 1) for i in range(INPUTS)]
        for gate in self.gates:
            a, b, c = gate.inputs
            nets.append(gate.value(nets[a], nets[b], nets[c]))
        values = [nets[net] ^ (ONES if complement else 0) for net, complement in self.outputs]
        return [sum((value >> x & 1) << (3 - bit) for bit, value in enumerate(values)) for x in range(CASES)]

    def two_input(self) -> bool:
        """Whether every gate is one of and, or, xor, and-not, so that any CPU has it."""
        return not any(complement for _, complement in self.outputs) and all(gate.function in TWO_INPUT for gate in self.gates)

    def readers(self, net: int) -> int:
        """How many gate inputs and outputs read the net."""
        return sum(net in gate.inputs for gate in self.gates) + sum(net == output for output, _ in self.outputs)

    def folded(self, index: int) -> bool:
        """Whether output `index` can be computed together with the XOR into its destination: a gate of its own, of two nets."""
        net = self.outputs[index][0]
        return net >= INPUTS and self.readers(net) == 1 and len(self.gates[net - INPUTS].support()) <= 2

    def cost(self) -> int:
        """Instructions, with those that XOR the four outputs into the other half: what a round of DES needs for this box."""
        return len(self.gates) + 4 - (0 if self.two_input() else sum(self.folded(index) for index in range(4)))

    def lines(self) -> Iterator[str]:
        """The text form, line by line."""
        for gate in self.gates:
            yield f"{gate.function} {' '.join(map(str, gate.inputs))}"
        yield "outputs " + " ".join(("~" if complement else "") + str(net) for net, complement in self.outputs)


# Gates of two inputs that are one instruction everywhere, by their function: and, or, xor, a and not b, b and not a; and not a.
TWO_INPUT = {192: "{a} & {b}", 252: "{a} | {b}", 60: "{a} ^ {b}", 48: "{a} & ~{b}", 12: "{b} & ~{a}", 15: "~{a}"}


def parse(lines: Sequence[str]) -> Circuit:
    """The last circuit in a search's output. ValueError if there is none, or it is not of the text form."""
    gates: list[Gate] = []
    circuit: Circuit | None = None
    for line in lines:
        words = line.split()
        if words and words[0] == "outputs":
            circuit = Circuit(tuple(gates), tuple((int(word.lstrip("~")), word.startswith("~")) for word in words[1:]))
            gates = []
        elif len(words) == 4 and all(word.isdigit() for word in words):
            function, a, b, c = map(int, words)
            if max(a, b, c) >= INPUTS + len(gates) or function > 255:
                raise ValueError(f"gate {INPUTS + len(gates)} reads a net that does not exist yet, or its function is no byte: {line!r}")
            gates.append(Gate(function, (a, b, c)))
    if circuit is None or len(circuit.outputs) != 4:
        raise ValueError("no circuit with four outputs")
    return circuit


def box_of(circuit: Circuit) -> int:
    """Which S-box 1..8 the circuit computes; ValueError if none."""
    found = circuit.table()
    for box in range(1, 9):
        if found == table(box):
            return box
    raise ValueError("the circuit is no DES S-box")
