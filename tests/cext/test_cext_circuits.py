"""Every S-box circuit, as text and as compiled, equals the published table on all inputs."""

import json
from pathlib import Path

import pytest

import cext
from cext.circuits import des_circuit, des_sbox, netlist, tower

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sboxes.json").read_text())["tests"]
NAMES = [vector["id"] for vector in VECTORS]


def published(vector):
    """The table by input value 0..63 or 0..255."""
    if "table" in vector:
        return list(bytes.fromhex(vector["table"]))
    rows = vector["rows"]
    return [int(rows[(x >> 5) * 2 + (x & 1)][x >> 1 & 15], 16) for x in range(64)]


def tower_circuits():
    found = netlist.parse(tower.HEADER.read_text())
    return {name.removesuffix("_sbox"): found[name] for name in found}


def outputs(circuit):
    """The circuit on every input at once, bit-parallel."""
    cases = 1 << circuit.inputs
    inputs = [sum(1 << x for x in range(cases) if x >> (circuit.inputs - 1 - bit) & 1) for bit in range(circuit.inputs)]
    nets = circuit.evaluate(inputs, (1 << cases) - 1)
    width = len(nets)
    return [sum((net >> x & 1) << (width - 1 - bit) for bit, net in enumerate(nets)) for x in range(cases)]


@pytest.mark.parametrize("vector", VECTORS[8:], ids=NAMES[8:])
def test_checked_in_tower_circuit_equals_the_published_table(vector):
    assert outputs(tower_circuits()[vector["id"]]) == published(vector)


@pytest.mark.parametrize("kind", ["two-input", "three-input"])
@pytest.mark.parametrize("vector", VECTORS[:8], ids=NAMES[:8])
def test_every_des_circuit_in_the_data_equals_the_published_table(vector, kind):
    assert des_sbox.load()[kind][int(vector["id"][-1])].table() == published(vector)


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_compiled_circuit_equals_the_published_table(vector, level):
    assert cext.sbox_table(vector["id"]).tolist() == published(vector)


def test_there_are_two_tower_circuits_and_no_more():
    assert sorted(tower_circuits()) == sorted(NAMES[8:])


def test_a_changed_gate_is_noticed():
    circuit = tower_circuits()["aes"]
    gate = circuit.gates[20]
    circuit.gates[20] = netlist.Gate("|" if gate.op != "|" else "&", gate.a, gate.b)
    assert outputs(circuit) != published(VECTORS[8])
    found = des_sbox.load()["three-input"][1]
    gates = list(found.gates)
    gates[10] = des_circuit.Gate(gates[10].function ^ 0xFF, gates[10].inputs)
    assert des_circuit.Circuit(tuple(gates), found.outputs).table() != published(VECTORS[0])


def test_headers_are_what_the_programs_write():
    found = des_sbox.load()
    for kind, path in des_sbox.HEADERS.items():
        assert path.read_text() == des_sbox.header(kind, found)
    assert tower.HEADER.read_text() == tower.header()


def test_counts_in_the_data_are_those_of_the_circuits():
    content = json.loads(des_sbox.DATA.read_text())
    for kind, boxes in des_sbox.load().items():
        for box, circuit in boxes.items():
            entry = content[kind][f"des-{box}"]
            assert (entry["gates"], entry["instructions"]) == (len(circuit.gates), circuit.cost())
        assert content[f"{kind} average"] * 8 == sum(len(circuit.gates) for circuit in boxes.values())
        assert all(circuit.two_input() for circuit in boxes.values()) == (kind == "two-input")


def test_no_des_circuit_grew():
    """The counts when this was written; a better circuit may lower them, nothing may raise them."""
    most = {"two-input": [58, 56, 52, 54, 54, 58, 56, 39], "three-input": [27, 24, 23, 20, 26, 26, 23, 22]}
    for kind, boxes in des_sbox.load().items():
        assert all(len(boxes[box].gates) <= most[kind][box - 1] for box in range(1, 9))


def test_a_worse_circuit_and_a_wrong_one_are_not_taken_over():
    found = des_sbox.load()
    best = found["three-input"][4]
    # 0x55 copies nothing anybody reads: one gate more
    longer = des_circuit.Circuit((*best.gates, des_circuit.Gate(0x55, (0, 1, 2))), best.outputs)
    assert des_sbox.better(found, longer) is None
    assert des_sbox.better({"two-input": {}, "three-input": {4: longer}}, best) is not None
    with pytest.raises(ValueError, match="no DES S-box"):
        des_sbox.better(found, des_circuit.Circuit(best.gates, best.outputs[::-1]))


@pytest.mark.parametrize(
    "text",
    ["", "192 0 1 0\n", "192 0 6 0\noutputs 6 6 6 6\n", "256 0 1 2\noutputs 6 6 6 6\n", "192 0 1 0\noutputs 6 6 6\n"],
)
def test_a_text_that_is_no_circuit_is_refused(text):
    with pytest.raises(ValueError, match=r"gate|outputs"):
        des_circuit.parse(text.splitlines())


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
