"""Turns a list of derivations into as few kernel calls as the data allows.

For one card a hundred different keys are wanted: they become lanes of one call per algorithm and method, each lane with its
own master. For thousands of cards each master becomes one call over all factors. The plan (masters after their upper factors)
is made once per list of derivations and reused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

import cext
from keys import diversify
from keys.algorithms import Algorithm
from keys.custody import Derivation, Method
from keys.diversify import KDD_LEN, Purpose
from keys.diversify.globalplatform import kdf3_messages
from keys.errors import InvalidInput
from keys.parity import Parity, odd_parity
from keys.secrets import SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]

KEY_LEN: Final = 16
# Below this many cards lanes are better filled by different keys than by one key's factors (a kernel pass has 128 lanes).
ONE_KEY_PER_CALL_FROM: Final = 64


@dataclass
class _Group:
    """Derivations that one kernel call can do: places in the result, and a master for each."""

    method: Method
    algorithm: Algorithm
    parity: Parity
    label: bytes
    places: list[int] = field(default_factory=list)
    purposes: list[Purpose] = field(default_factory=list)
    masters: SecretArray = field(init=False)
    # the places as a slice where they lie together, which is nearly always
    at: slice | npt.NDArray[np.intp] = field(init=False)
    # of KDF3: a chip's messages but for its KDD
    messages: ByteArray | None = None


class Plan:
    """A list of derivations, ready to run. Holds intermediate keys; `close` wipes them."""

    def __init__(self, derivations: Sequence[Derivation], master: Callable[[Derivation], SecretBytes]) -> None:
        """`master` gives the key of a derivation after its upper factors; the plan copies it."""
        groups: dict[tuple[object, ...], _Group] = {}
        self._derivations = tuple(derivations)
        sources: dict[int, SecretBytes] = {}
        for place, wanted in enumerate(derivations):
            # inputs of varying length cannot stand in one array: such a derivation is a group of its own
            alone = place if len(wanted.factor_lens) > 1 else None
            at = (wanted.method, wanted.algorithm, wanted.parity, wanted.label, alone)
            group = groups.setdefault(at, _Group(wanted.method, wanted.algorithm, wanted.parity, wanted.label))
            group.places.append(place)
            if wanted.purpose is not None:
                group.purposes.append(wanted.purpose)
            sources[place] = master(wanted)
        self._groups = list(groups.values())
        for group in self._groups:
            masters = np.empty((len(group.places), KEY_LEN), np.uint8)
            for row, place in enumerate(group.places):
                with sources[place].reveal() as raw:
                    masters[row] = np.frombuffer(raw, np.uint8)
            group.masters = SecretArray(masters)
            first, last = group.places[0], group.places[-1]
            group.at = slice(first, last + 1) if last - first + 1 == len(group.places) else np.array(group.places, np.intp)
            if group.method == "gp-kdf3":
                group.messages = kdf3_messages(np.zeros((len(group.places), KDD_LEN), np.uint8), group.purposes)
        self._widths = [wanted.factor_lens for wanted in self._derivations]

    def run(self, factors: Sequence[ByteArray]) -> SecretArray:
        """Card keys (k, n, 16); raises InvalidInput WRONG_SHAPE naming the derivation whose factors do not fit."""
        n = check_factors(self._derivations, factors, self._widths)
        result = SecretArray.empty((len(self._derivations), n, KEY_LEN))
        for group in self._groups:
            if n == 1 and isinstance(group.at, slice) and group.method in ("pboc", "gp-kdf3"):
                self._of_one_card(group, factors, result.array[group.at, 0])
            elif n < ONE_KEY_PER_CALL_FROM:
                self._by_lane(group, factors, n, result.array)
            else:
                self._by_key(group, factors, result.array)
        return result

    def close(self) -> None:
        """Wipes the masters held."""
        for group in self._groups:
            group.masters.close()

    @staticmethod
    def _of_one_card(group: _Group, factors: Sequence[ByteArray], out: ByteArray) -> None:
        """`_by_lane` for the two methods that every card of a line is made with: straight into locked memory."""
        lanes, masters = _stacked([factors[place] for place in group.places]), group.masters.array
        if group.messages is not None:
            messages = group.messages.copy()
            messages[:, -KDD_LEN:] = lanes
            cext.aes_cmac(masters, messages, out=out)
        elif group.algorithm == "3des":
            cext.tdes_pboc(masters, lanes, group.parity == "odd", out=out)
        else:
            cext.sm4_pboc(masters, lanes, out=out)

    @staticmethod
    def _by_lane(group: _Group, factors: Sequence[ByteArray], n: int, result: ByteArray) -> None:
        lanes = _stacked([factors[place] for place in group.places])
        masters = group.masters.array if n == 1 else np.repeat(group.masters.array, n, axis=0)
        purposes = [purpose for purpose in group.purposes for _ in range(n)]
        made = _derive(group, masters, lanes, purposes)
        result[group.at] = made.reshape(len(group.places), n, KEY_LEN)
        made[...] = 0
        if n != 1:
            masters[...] = 0

    @staticmethod
    def _by_key(group: _Group, factors: Sequence[ByteArray], result: ByteArray) -> None:
        for row, place in enumerate(group.places):
            master, column = group.masters.array[row], np.ascontiguousarray(factors[place])
            if group.method == "pboc":
                # straight into locked memory: a copy would cost as much as the derivation
                if group.algorithm == "3des":
                    cext.tdes_pboc(master, column, group.parity == "odd", out=result[place])
                else:
                    cext.sm4_pboc(master, column, out=result[place])
                continue
            made = _derive(group, master, column, group.purposes[row : row + 1] * len(column))
            result[place] = made
            made[...] = 0


def _stacked(columns: Sequence[ByteArray]) -> ByteArray:
    """All columns, one under the other. Neighbours are mostly one and the same array: each stretch of them is one copy."""
    out = np.empty((len(columns), *columns[0].shape), np.uint8)
    first = 0
    for at, column in enumerate(columns):
        if column is not columns[first]:
            out[first:at] = columns[first]
            first = at
    out[first:] = columns[first]
    return out.reshape(len(columns) * len(columns[0]), out.shape[-1])


def check_factors(derivations: Sequence[Derivation], factors: Sequence[ByteArray], allowed: Sequence[range] | None = None) -> int:
    """The number of cards; raises InvalidInput (WRONG_SHAPE, NO_ROWS) naming the derivation whose factors do not fit.

    `allowed` are the derivations' `factor_lens`, where somebody has them at hand.
    """
    if len(factors) != len(derivations):
        raise InvalidInput("WRONG_SHAPE", f"{len(factors)} factor arrays for {len(derivations)} derivations")
    n = factors[0].shape[0] if factors and factors[0].ndim == 2 else 0
    allowed = [derivation.factor_lens for derivation in derivations] if allowed is None else allowed
    known_widths, known = None, None
    for derivation, widths, array in zip(derivations, allowed, factors, strict=True):
        # one array serves many keys of one kind
        if array is known and widths is known_widths:
            continue
        known_widths, known = widths, array
        if array.ndim != 2 or array.shape[0] != n or array.shape[1] not in widths or array.dtype != np.uint8:
            wanted = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]} to {widths[-1]}"
            found = f"{array.dtype} of {array.shape}"
            raise InvalidInput("WRONG_SHAPE", f"factors of key {derivation.key_id} must be uint8 of ({n}, {wanted}), not {found}")
    if factors and not n:
        raise InvalidInput("NO_ROWS", "factors for no card at all")
    return n


def _derive(group: _Group, masters: ByteArray, factors: ByteArray, purposes: list[Purpose]) -> ByteArray:  # noqa: PLR0911 - one a method
    """`allow_weak` because a custody refuses weak masters when they come in; looking again would cost as much as the derivation."""
    match group.method:
        case "pboc":
            return diversify.pboc(group.algorithm, masters, factors, group.parity, allow_weak=True)
        case "gp-emv":
            return diversify.gp_emv(masters, factors, purposes, group.parity, allow_weak=True)
        case "gp-visa2":
            return diversify.gp_visa2(masters, factors, purposes, group.parity, allow_weak=True)
        case "gp-kdf3":
            return diversify.gp_kdf3(masters, factors, purposes)
        case "emv-c":
            return diversify.emv_c(masters, factors)
        case "an10922":
            made = diversify.an10922(group.algorithm, masters, factors, allow_weak=True)
            return odd_parity(made) if group.parity == "odd" else made
        case "sp800-108":
            return diversify.sp800_108(masters, group.label, factors, KEY_LEN)
