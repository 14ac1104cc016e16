"""Builds the AES and SM4 S-boxes as circuits over a tower field and writes `cext/src/tower_sbox.h`.

Both S-boxes are an inversion in GF(2^8) between two affine maps (FIPS 197, 5.1.1; GB/T 32907, 6.2). Inversion is small in
GF(((2^2)^2)^2) with normal bases (D. Canright, "A very compact S-box for AES", CHES 2005). Every isomorphism to the tower is
tried, for each the linear layers are shortened by C. Paar's greedy pairing, and the smallest circuit is written. No search is
random: the output is a function of this file.

    python -m cext.circuits.tower
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from cext.circuits.netlist import Netlist

HEADER = Path(__file__).parent.parent / "src" / "tower_sbox.h"

Nets = tuple[int, ...]


@dataclass(frozen=True)
class SboxSpec:
    """y = out_matrix * inverse(in_matrix * x + in_constant) + out_constant, over GF(2)[x]/polynomial. Matrix rows are bit
    masks, row i makes bit i.
    """

    name: str
    polynomial: int
    in_matrix: tuple[int, ...]
    in_constant: int
    out_matrix: tuple[int, ...]
    out_constant: int


def _circulant(byte: int, step: int) -> tuple[int, ...]:
    """Row i is `byte` rotated by i*step bits."""
    return tuple(((byte << (i * step % 8)) | (byte >> (8 - i * step % 8))) & 0xFF for i in range(8))


IDENTITY = tuple(1 << i for i in range(8))
AES = SboxSpec("aes_sbox", 0x11B, IDENTITY, 0x00, _circulant(0xF1, 1), 0x63)
SM4 = SboxSpec("sm4_sbox", 0x1F5, _circulant(0xA7, 1), 0xD3, _circulant(0xA7, 1), 0xD3)


def apply(matrix: tuple[int, ...], value: int) -> int:
    """Matrix times bit vector."""
    return sum(((row & value).bit_count() & 1) << i for i, row in enumerate(matrix))


def field_multiply(a: int, b: int, polynomial: int) -> int:
    """Product in GF(2)[x]/polynomial."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= polynomial << (bit - 8)
    return product


def table(spec: SboxSpec) -> list[int]:
    """The S-box straight from its definition: the oracle every circuit is compared with."""
    inverse = [0] * 256
    for value in range(1, 256):
        power = value
        for _ in range(6):  # value^254 = value^(2+4+...+128)
            power = field_multiply(field_multiply(power, power, spec.polynomial), value, spec.polynomial)
        inverse[value] = field_multiply(power, power, spec.polynomial)
    return [
        apply(spec.out_matrix, inverse[apply(spec.in_matrix, x) ^ spec.in_constant]) ^ spec.out_constant for x in range(256)
    ]


class _Tower:
    """Arithmetic of one tower on nets of a netlist. Coefficient 0 comes first (little end)."""

    def __init__(self, netlist: Netlist, scale2: int, scale4: int) -> None:
        self.net = netlist
        self.scale2 = scale2  # Z * Z^4, an element of GF(4) written in its normal basis
        self.scale4 = scale4  # Y * Y^16, an element of GF(16)

    def xor(self, a: Nets, b: Nets) -> Nets:
        return tuple(self.net.add("^", x, y) for x, y in zip(a, b, strict=True))

    def linear(self, value: Nets, function: Callable[[int], int]) -> Nets:
        """Any linear map on up to 4 bits, given as an integer function."""
        rows = []
        images = [function(1 << i) for i in range(len(value))]
        for bit in range(len(value)):
            terms = [value[i] for i, image in enumerate(images) if image >> bit & 1]
            total = terms[0]
            for term in terms[1:]:
                total = self.net.add("^", total, term)
            rows.append(total)
        return tuple(rows)

    def multiply2(self, a: Nets, b: Nets) -> Nets:
        shared = self.net.add("&", self.net.add("^", a[0], a[1]), self.net.add("^", b[0], b[1]))
        return tuple(self.net.add("^", self.net.add("&", a[i], b[i]), shared) for i in (0, 1))

    def multiply4(self, a: Nets, b: Nets) -> Nets:
        low_a, high_a, low_b, high_b = a[:2], a[2:], b[:2], b[2:]
        shared = self.linear(self.multiply2(self.xor(low_a, high_a), self.xor(low_b, high_b)), lambda v: mul2(v, self.scale2))
        low = self.xor(self.multiply2(low_a, low_b), shared)
        high = self.xor(self.multiply2(high_a, high_b), shared)
        return low + high

    def inverse4(self, a: Nets) -> Nets:
        low, high = a[:2], a[2:]
        square = self.linear(self.xor(low, high), lambda v: mul2(mul2(v, v), self.scale2))
        norm = self.xor(square, self.multiply2(low, high))
        inverse = (norm[1], norm[0])  # in GF(4) inversion is squaring, in a normal basis a swap
        return self.multiply2(inverse, high) + self.multiply2(inverse, low)

    def inverse8(self, a: Nets) -> Nets:
        low, high = a[:4], a[4:]
        square = self.linear(self.xor(low, high), lambda v: mul4(mul4(v, v, self.scale2), self.scale4, self.scale2))
        norm = self.xor(square, self.multiply4(low, high))
        inverse = self.inverse4(norm)
        return self.multiply4(inverse, high) + self.multiply4(inverse, low)


def mul2(a: int, b: int) -> int:
    """GF(4), normal basis (W, W^2): bit 0 is the coefficient of W."""
    a0, a1, b0, b1 = a & 1, a >> 1, b & 1, b >> 1
    shared = (a0 ^ a1) & (b0 ^ b1)
    return ((a0 & b0) ^ shared) | ((a1 & b1) ^ shared) << 1


def mul4(a: int, b: int, scale2: int) -> int:
    """GF(16) over GF(4), normal basis with trace 1 and norm `scale2`."""
    a0, a1, b0, b1 = a & 3, a >> 2, b & 3, b >> 2
    shared = mul2(mul2(a0 ^ a1, b0 ^ b1), scale2)
    return (mul2(a0, b0) ^ shared) | (mul2(a1, b1) ^ shared) << 2


def mul8(a: int, b: int, scale2: int, scale4: int) -> int:
    """GF(256) over GF(16), normal basis with trace 1 and norm `scale4`."""
    a0, a1, b0, b1 = a & 15, a >> 4, b & 15, b >> 4
    shared = mul4(mul4(a0 ^ a1, b0 ^ b1, scale2), scale4, scale2)
    return (mul4(a0, b0, scale2) ^ shared) | (mul4(a1, b1, scale2) ^ shared) << 4


def isomorphisms(polynomial: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Every (scale2, scale4, matrix) whose matrix maps GF(2)[x]/polynomial onto that tower."""
    for scale2 in (1, 2):
        for scale4 in range(1, 16):
            # t^2 + t + scale4 must be irreducible over GF(16); in the normal basis the one is 1111.
            if any(mul4(t, t, scale2) ^ t ^ scale4 == 0 for t in range(16)):
                continue
            for root in range(2, 255):
                powers = [255]
                for _ in range(8):
                    powers.append(mul8(powers[-1], root, scale2, scale4))
                total = 0
                for degree in range(9):
                    total ^= powers[degree] if polynomial >> degree & 1 else 0
                if total == 0:
                    yield scale2, scale4, tuple(sum((powers[j] >> i & 1) << j for j in range(8)) for i in range(8))


def multiply_matrices(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """a*b over GF(2)."""
    rows = []
    for row in a:
        total = 0
        for j in range(8):
            total ^= b[j] if row >> j & 1 else 0
        rows.append(total)
    return tuple(rows)


def invert_matrix(matrix: tuple[int, ...]) -> tuple[int, ...]:
    """Gauss-Jordan over GF(2); raises ValueError when singular."""
    rows = [(row, 1 << i) for i, row in enumerate(matrix)]
    for column in range(8):
        pivot = next((i for i in range(column, 8) if rows[i][0] >> column & 1), None)
        if pivot is None:
            raise ValueError("singular matrix")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for i in range(8):
            if i != column and rows[i][0] >> column & 1:
                rows[i] = (rows[i][0] ^ rows[column][0], rows[i][1] ^ rows[column][1])
    return tuple(right for _, right in rows)


def linear_layer(net: Netlist, inputs: Nets, matrix: tuple[int, ...]) -> Nets:
    """`matrix` as XOR gates: the pair of terms that most rows share becomes one gate, until every row is one net."""
    rows = [{inputs[j] for j in range(8) if row >> j & 1} for row in matrix]
    while any(len(row) > 1 for row in rows):
        shared: dict[tuple[int, int], int] = {}
        for row in rows:
            for pair in combinations(sorted(row), 2):
                shared[pair] = shared.get(pair, 0) + 1
        (a, b), _ = max(shared.items(), key=lambda item: (item[1], item[0]))
        made = net.add("^", a, b)
        for row in rows:
            if a in row and b in row:
                row -= {a, b}
                row ^= {made}
    return tuple(row.pop() for row in rows)


def _complement(net: Netlist, values: Nets, constant: int) -> Nets:
    return tuple(net.add("^", value, -1) if constant >> i & 1 else value for i, value in enumerate(values))


def circuit(spec: SboxSpec) -> Netlist:
    """The smallest circuit over all isomorphisms; input and output 0 are the most significant bits."""
    best: Netlist | None = None
    for scale2, scale4, matrix in isomorphisms(spec.polynomial):
        net = Netlist(8)
        bits = tuple(range(7, -1, -1))
        into = linear_layer(net, bits, multiply_matrices(matrix, spec.in_matrix))
        into = _complement(net, into, apply(matrix, spec.in_constant))
        inverse = _Tower(net, scale2, scale4).inverse8(into)
        out = linear_layer(net, inverse, multiply_matrices(spec.out_matrix, invert_matrix(matrix)))
        out = _complement(net, out, spec.out_constant)
        net.outputs = list(reversed(out))
        if best is None or len(net.gates) < len(best.gates):
            best = net
    if best is None:
        raise ValueError(f"no tower isomorphism for polynomial {spec.polynomial:#x}")
    return best


def header() -> str:
    """The text of tower_sbox.h."""
    title = "AES and SM4 S-boxes over a tower field. Written by cext/circuits/tower.py; do not edit. in[0], out[0]: highest bit."
    parts = [f"/* {title} */\n"]
    parts += [circuit(spec).pruned().to_c(spec.name, accumulate=False) for spec in (AES, SM4)]
    return "\n".join(parts)


if __name__ == "__main__":
    HEADER.write_text(header(), encoding="ascii")
