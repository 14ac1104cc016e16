"""Before a job's first card every key of its profile is made twice, in two ways; one difference, and the job does not start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from engine.personalize import witness
from engine.personalize.witness import SAMPLES, prove_derivations
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from keys.custody import Derivation
from keys.custody.software import SoftwareCustody
from keys.errors import Corrupt
from keys.secrets import SecretArray
from tests.personalize.perso_tools import make_custody
from tests.profiles.profile_tools import NAME

PROFILE = load(NAME)
COMPILED = compile_profile(PROFILE, 19)


@pytest.fixture(scope="module")
def custody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareCustody]:
    with make_custody(tmp_path_factory.mktemp("custody"), PROFILE.profile) as store:
        yield store


def test_every_key_is_compared(custody: SoftwareCustody) -> None:
    assert prove_derivations(COMPILED, custody) >= SAMPLES * len(COMPILED.keys)


@pytest.mark.parametrize("number", [0, len(COMPILED.keys) // 2, len(COMPILED.keys) - 1])
def test_one_wrong_bit_in_one_key_is_found_and_named(number: int, custody: SoftwareCustody, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = SoftwareCustody.derive

    def faulty(self: SoftwareCustody, derivations: Sequence[Derivation], factors: Sequence[npt.NDArray[np.uint8]]) -> SecretArray:
        made = honest(self, derivations, factors)
        made.array[number % len(derivations), -1, 15] ^= 0x80
        return made

    monkeypatch.setattr(SoftwareCustody, "derive", faulty)
    with pytest.raises(Corrupt) as caught:
        prove_derivations(COMPILED, custody)
    assert caught.value.reason == "DERIVATION_WITNESS"
    assert COMPILED.keys[number].label in caught.value.message


def test_a_wrong_check_value_is_found(custody: SoftwareCustody, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = witness.key_check_values

    def faulty(compiled: object, keys: SecretArray) -> npt.NDArray[np.uint8]:
        values = honest(COMPILED, keys)
        values[7, 0, 0] ^= 1
        return values

    monkeypatch.setattr(witness, "key_check_values", faulty)
    with pytest.raises(Corrupt, match=COMPILED.keys[7].label):
        prove_derivations(COMPILED, custody)
