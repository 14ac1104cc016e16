"""The derivation witness of a job: before its first card, keys made the fast way are compared with keys made the plain way.

Every key of the profile, over random factors: a fault of kernel, compiler, memory or key table shows before a blank is drawn.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

import numpy as np

from engine.personalize.columns import Bytes2D
from engine.personalize.image import key_check_values
from engine.personalize.tokencard import require_possible
from engine.profiles.compile import CompiledProfile, channel_derivations
from keys import witness
from keys.custody import Custody, Derivation
from keys.custody.policy import working_for
from keys.custody.token import TokenCustody
from keys.custody.token.custody import holder_of
from keys.diversify import KDD_LEN
from keys.errors import Corrupt
from keys.kcv import DEFAULT_METHOD, kcv_array

SAMPLES: Final = 2
_CARD_FACTOR_LEN: Final = 8


def prove_derivations(compiled: CompiledProfile, custody: Custody) -> int:
    """Compares every key of the profile, its channel's included, and every check value, for random factors; how many were compared.

    Raises Corrupt DERIVATION_WITNESS naming the first key that differs, and what `Custody.derive` raises.
    """
    with working_for(compiled.loaded.profile.name):
        return _prove(compiled, custody)


def _prove(compiled: CompiledProfile, custody: Custody) -> int:
    holder = holder_of(custody, compiled.loaded.profile.channel.transport.master)
    return _prove_in_host(compiled, custody) if holder is None else _prove_inside(compiled, holder)


def _prove_inside(compiled: CompiledProfile, token: TokenCustody) -> int:
    """The same for cards that are made in a token: there the keys are compared, and only there."""
    require_possible(compiled)
    channel = compiled.loaded.profile.channel
    channels = [*channel_derivations(channel.transport), *channel_derivations(channel.issuer)]
    for derivation in compiled.derivations:
        token.prove_inside(derivation, _random(_CARD_FACTOR_LEN))
    for derivation in channels:
        token.prove_inside(derivation, _random(KDD_LEN))
    return SAMPLES * (len(compiled.keys) + len(channels))


def _prove_in_host(compiled: CompiledProfile, custody: Custody) -> int:
    factors = {key.card_factor: _random(_CARD_FACTOR_LEN) for key in compiled.keys}
    each = [factors[key.card_factor] for key in compiled.keys]
    with custody.derive(compiled.derivations, each) as made:
        kcvs = key_check_values(compiled, made)
        for at, (key, derivation) in enumerate(zip(compiled.keys, compiled.derivations, strict=True)):
            _compare(custody, derivation, key.label, each[at], made.array[at], kcvs[at])
    channel = compiled.loaded.profile.channel
    for source in (channel.transport, channel.issuer):
        derivations, kdds = channel_derivations(source), _random(KDD_LEN)
        with custody.derive(derivations, [kdds] * len(derivations)) as made:
            for at, derivation in enumerate(derivations):
                _compare(
                    custody,
                    derivation,
                    f"{source.master}/{derivation.purpose}",
                    kdds,
                    made.array[at],
                    kcv_array(source.algorithm, made.array[at]),
                )
    return SAMPLES * (len(compiled.keys) + 6)


def _random(width: int) -> Bytes2D:
    return np.frombuffer(secrets.token_bytes(width * SAMPLES), np.uint8).reshape(SAMPLES, width)


def _compare(custody: Custody, derivation: Derivation, label: str, factors: Bytes2D, keys: Bytes2D, kcvs: Bytes2D) -> None:
    """The same keys (SAMPLES, 16) and check values by the witness. Raises Corrupt DERIVATION_WITNESS."""
    for row in range(SAMPLES):
        with custody.witness(derivation, factors[row].tobytes()) as plain:
            expected = witness.check_value(derivation.algorithm, plain.reveal(), DEFAULT_METHOD[derivation.algorithm])
            same = hmac.compare_digest(keys[row].data, plain.reveal())
            if not same or not hmac.compare_digest(expected, kcvs[row].data):
                raise Corrupt("DERIVATION_WITNESS", f"key {label}: the kernels and the derivation witness disagree; no card is made")
