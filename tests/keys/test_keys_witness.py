"""The derivation witness against published vectors, and against the kernels on random inputs; it shares nothing with them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys import witness
from keys.custody import Derivation
from keys.custody.plan import Plan
from keys.kcv import kcv
from keys.secrets import SecretBytes

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"


def load(name: str) -> list[Any]:
    return [pytest.param(test, id=test["id"]) for test in json.loads((VECTORS / f"{name}.json").read_text())["tests"]]


@pytest.mark.parametrize("test", load("diversify_pboc"))
def test_dispersion_vectors(test: dict[str, Any]) -> None:
    *upper, card = (bytes.fromhex(factor) for factor in test["factors"])
    wanted = Derivation("any", "pboc", test["algorithm"], tuple(upper))
    assert witness.card_key(wanted, bytes.fromhex(test["key"]), card).hex().upper() == test["derived"]


@pytest.mark.parametrize("test", load("kcv_published") + load("kcv_definition"))
def test_check_value_vectors(test: dict[str, Any]) -> None:
    assert witness.check_value(test["algorithm"], bytes.fromhex(test["key"]), test["method"]).hex().upper() == test["kcv"]


def test_an10922_published() -> None:
    """NXP AN10922: AES-128 and 2TDEA examples; the second without the key version in its parity bits."""
    wide, narrow = "04782E21801D803042F54E585020416275", "04782E21801D803042F54E58502041"
    master = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
    made = witness.card_key(Derivation("any", "an10922", "aes"), master, bytes.fromhex(wide))
    assert made.hex().upper() == "A8DD63A3B89D54B37CA802473FDA9175"
    made = witness.card_key(Derivation("any", "an10922", "3des"), master, bytes.fromhex(narrow))
    assert made.hex().upper() == "16F8597C9E8910C86B9648D006107DD7"


DERIVATIONS = [
    Derivation("any", "pboc", "3des", parity="odd"),
    Derivation("any", "pboc", "3des", (b"410000sh", b"410100sx")),
    Derivation("any", "pboc", "sm4", (b"410000sh",)),
    Derivation("any", "gp-emv", "3des", purpose="mac"),
    Derivation("any", "gp-visa2", "3des", parity="odd", purpose="dek"),
    Derivation("any", "gp-kdf3", "aes", purpose="enc"),
    Derivation("any", "emv-c", "aes"),
    Derivation("any", "an10922", "aes"),
    Derivation("any", "an10922", "3des"),
    Derivation("any", "sp800-108", "aes", label=b"card"),
]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), wanted=st.sampled_from(DERIVATIONS), master=st.binary(min_size=16, max_size=16), rows=st.integers(1, 70))
def test_witness_and_kernels_agree(data: st.DataObject, wanted: Derivation, master: bytes, rows: int) -> None:
    lens = wanted.factor_lens
    length = data.draw(st.integers(max(lens.start, 1), min(lens.stop - 1, 40)))
    factors = np.frombuffer(data.draw(st.binary(min_size=rows * length, max_size=rows * length)), np.uint8).reshape(rows, length)
    key = bytearray(master)
    for factor in wanted.upper_factors:
        key = bytearray(witness.disperse(wanted.algorithm, key, factor))
        if wanted.parity == "odd":
            key = bytearray(witness.odd_parity(key))
    with SecretBytes(key) as upper:
        plan = Plan([wanted], lambda _: upper)
        with plan.run([factors]) as keys:
            for row in {0, rows // 2, rows - 1}:
                plain = witness.card_key(wanted, master, factors[row].tobytes())
                assert keys.array[0, row].tobytes() == bytes(plain)
                assert kcv(wanted.algorithm, keys.array[0, row].tobytes()) == witness.check_value(
                    wanted.algorithm, plain, "one-block" if wanted.algorithm == "aes" else "zero-block"
                )
        plan.close()


def test_the_witness_imports_nothing_of_what_it_watches() -> None:
    tree = ast.parse((ROOT / "keys" / "witness.py").read_text())
    typing_only = {id(node) for branch in ast.walk(tree) if isinstance(branch, ast.If) for node in ast.walk(branch)}
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and id(node) not in typing_only}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in imported if name and name.split(".")[0] in ("cext", "keys", "engine", "numpy")} == {"keys.errors"}
