"""Every S-box circuit, as text and as compiled, equals the published table on all inputs."""

import json
from pathlib import Path

import pytest

import cext
from cext.circuits import des_sbox, netlist, tower

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sboxes.json").read_text())["tests"]
NAMES = [vector["id"] for vector in VECTORS]


def published(vector):
    """The table by input value 0..63 or 0..255."""
    if "table" in vector:
        return list(bytes.fromhex(vector["table"]))
    rows = vector["rows"]
    return [int(rows[(x >> 5) * 2 + (x & 1)][x >> 1 & 15], 16) for x in range(64)]


def circuits():
    found = netlist.parse(des_sbox.HEADER.read_text()) | netlist.parse(tower.HEADER.read_text())
    return {f"des-{name[-1]}" if name.startswith("des") else name.removesuffix("_sbox"): found[name] for name in found}


def outputs(circuit):
    """The circuit on every input at once, bit-parallel."""
    cases = 1 << circuit.inputs
    inputs = [sum(1 << x for x in range(cases) if x >> (circuit.inputs - 1 - bit) & 1) for bit in range(circuit.inputs)]
    nets = circuit.evaluate(inputs, (1 << cases) - 1)
    width = len(nets)
    return [sum((net >> x & 1) << (width - 1 - bit) for bit, net in enumerate(nets)) for x in range(cases)]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_checked_in_circuit_equals_the_published_table(vector):
    assert outputs(circuits()[vector["id"]]) == published(vector)


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_compiled_circuit_equals_the_published_table(vector, level):
    assert cext.sbox_table(vector["id"]).tolist() == published(vector)


def test_there_are_ten_circuits_and_no_more():
    assert sorted(circuits()) == sorted(NAMES)


def test_a_changed_gate_is_noticed():
    circuit = circuits()["des-1"]
    gate = circuit.gates[20]
    circuit.gates[20] = netlist.Gate("|" if gate.op != "|" else "&", gate.a, gate.b)
    assert outputs(circuit) != published(VECTORS[0])


def test_headers_are_what_the_programs_write():
    assert des_sbox.HEADER.read_text() == des_sbox.header()
    assert tower.HEADER.read_text() == tower.header()


def test_no_des_circuit_grew():
    assert [len(circuits()[f"des-{box}"].gates) for box in range(1, 9)] == [68, 62, 63, 54, 66, 64, 63, 63]


def test_field_definition_of_the_tower_equals_the_published_tables():
    by_name = {vector["id"]: published(vector) for vector in VECTORS}
    assert tower.table(tower.AES) == by_name["aes"]
    assert tower.table(tower.SM4) == by_name["sm4"]


def test_parse_refuses_a_line_of_another_shape():
    text = "static inline ALWAYS_INLINE void f(const lane in[1], lane out[1])\n{\n    lane t0 = a0 + a0;\n}\n"
    with pytest.raises(ValueError, match="not a circuit line"):
        netlist.parse(text)


def test_an_unknown_sbox_is_refused():
    with pytest.raises(ValueError, match="no S-box"):
        cext.sbox_table("des-9")
