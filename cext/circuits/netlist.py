"""A list of two-input gates in topological order, and its form as C text.

The text is both code and data: one gate a line, in a fixed shape, so that `parse` can read a checked-in header back and a test
can evaluate exactly what the compiler sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_GATE = re.compile(r"^\s*lane (?P<out>[a-z]\d+) = (?P<a>[a-z]\d+) (?P<op>[&|^]) (?P<neg>~?)(?P<b>[a-z]\d+|ONES);$")
_OUTPUT = re.compile(r"^\s*out\[(?P<index>\d+)\] (?P<how>\^?=) (?P<net>[a-z]\d+);$")
_START = re.compile(r"^static inline ALWAYS_INLINE void (?P<name>\w+)\(")


@dataclass(frozen=True)
class Gate:
    """`a op b`, where `op` is one of & | ^ and `andn` (a & ~b); b == -1 with ^ means all ones, that is NOT."""

    op: str
    a: int
    b: int


@dataclass
class Netlist:
    """Nets 0..inputs-1 are inputs, the gates follow; `outputs` names the net of each output bit."""

    inputs: int
    gates: list[Gate] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def add(self, op: str, a: int, b: int) -> int:
        """Append a gate unless the very same one exists; returns its net."""
        if op != "andn" and b != -1 and a > b:
            a, b = b, a
        gate = Gate(op, a, b)
        if gate in self.gates:
            return self.inputs + self.gates.index(gate)
        self.gates.append(gate)
        return self.inputs + len(self.gates) - 1

    def evaluate(self, inputs: list[int], ones: int) -> list[int]:
        """Run on bit-parallel integers: inputs[i] holds input i for every case, `ones` has a 1 for every case."""
        nets = list(inputs)
        for gate in self.gates:
            left = nets[gate.a]
            right = ones if gate.b == -1 else nets[gate.b]
            if gate.op == "&":
                nets.append(left & right)
            elif gate.op == "|":
                nets.append(left | right)
            elif gate.op == "^":
                nets.append(left ^ right)
            else:
                nets.append(left & ~right & ones)
        return [nets[net] for net in self.outputs]

    def pruned(self) -> Netlist:
        """The same circuit without the gates no output depends on."""
        needed = set(self.outputs)
        for index in range(len(self.gates) - 1, -1, -1):
            if self.inputs + index in needed:
                needed.update((self.gates[index].a, self.gates[index].b))
        result = Netlist(self.inputs)
        renamed = {-1: -1} | {net: net for net in range(self.inputs)}
        for index, gate in enumerate(self.gates):
            if self.inputs + index in needed:
                renamed[self.inputs + index] = result.add(gate.op, renamed[gate.a], renamed[gate.b])
        result.outputs = [renamed[net] for net in self.outputs]
        return result

    def to_c(self, name: str, accumulate: bool) -> str:
        """One always-inlined C function `name(in, out)`; with `accumulate` it XORs into `out` instead of storing."""

        def net(index: int) -> str:
            return "ONES" if index == -1 else f"a{index}" if index < self.inputs else f"t{index - self.inputs}"

        lines = [
            f"/* {len(self.gates)} gates */",
            f"static inline ALWAYS_INLINE void {name}(const lane in[{self.inputs}], lane out[{len(self.outputs)}])",
            "{",
        ]
        lines += [f"    const lane a{i} = in[{i}];" for i in range(self.inputs)]
        for index, gate in enumerate(self.gates):
            op, negation = ("&", "~") if gate.op == "andn" else (gate.op, "")
            lines.append(f"    lane t{index} = {net(gate.a)} {op} {negation}{net(gate.b)};")
        assign = "^=" if accumulate else "="
        lines += [f"    out[{bit}] {assign} {net(index)};" for bit, index in enumerate(self.outputs)]
        return "\n".join([*lines, "}", ""])


def parse(header: str) -> dict[str, Netlist]:
    """Read back every circuit of a generated header. Raises ValueError on a line that is not of the fixed shape."""
    found: dict[str, Netlist] = {}
    current: Netlist | None = None
    for line in header.splitlines():
        start = _START.match(line)
        if start:
            current = Netlist(0)
            found[start["name"]] = current
            continue
        if current is None or line.strip() == "{":
            continue
        if line == "}":
            current = None
        elif line.strip().startswith("const lane a"):
            current.inputs += 1
        elif gate := _GATE.match(line):
            op = "andn" if gate["neg"] else gate["op"]
            current.gates.append(Gate(op, _net(gate["a"], current), _net(gate["b"], current)))
        elif output := _OUTPUT.match(line):
            current.outputs.append(_net(output["net"], current))
        else:
            raise ValueError(f"not a circuit line: {line!r}")
    return found


def _net(text: str, netlist: Netlist) -> int:
    if text == "ONES":
        return -1
    return int(text[1:]) + (netlist.inputs if text[0] == "t" else 0)
