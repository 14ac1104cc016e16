"""A card made in the token, step by step, against a virtual chip; and what its keys are, computed from the masters."""

import hashlib
import os
from pathlib import Path

from engine.personalize.image import all_factors
from engine.production.card import lease_commands
from engine.production.context import attempt_columns
from engine.production.tokencard import card_in_making
from engine.profiles.compile import channel_derivations, compile_profile
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from engine.virtual.factory import make_blank
from keys import diversify, sessions
from keys.custody.policy import KeyPolicy
from keys.parity import odd_parity
from tests.personalize.perso_tools import LOT, order, pan_of, play

TOML = Path(__file__).parent / "token_only_card.toml"
PROFILE = load(str(TOML))
COMPILED = compile_profile(PROFILE, 19)
SPECS = list(dict.fromkeys(master_specs(PROFILE.profile)))
TOKEN = 5


def master(key_id):
    """A test master anyone can compute. The maker's too: the public test key is in every process that knows virtual chips."""
    return hashlib.sha256(f"token-only {key_id}".encode()).digest()[:16]


def fill(custody, **policy):
    for spec in SPECS:
        custody.import_key(spec, master(spec.key_id), KeyPolicy(**({"custody": "token-only"} | policy)))
    return custody


def columns_for(serial):
    return attempt_columns(PROFILE.profile, order(pan_of(19)), {"transport": 77}, 0, serial)


class Line:
    """A blank in a head, up to its INITIALIZE UPDATE answer."""

    def __init__(self, directory, compiled=COMPILED):
        self.compiled = compiled
        self.chip = make_blank(directory, lot=LOT, serial=os.urandom(8), kmc=master("maker.kmc"))
        self.chip.power_on()
        self.challenge = os.urandom(8)
        self.response = [self.chip.transmit(command) for command in lease_commands(compiled, self.challenge)][-1][:-2]

    def card(self, custody):
        return card_in_making(self.compiled, custody, TOKEN)

    def prepared(self, custody):
        card = self.card(custody)
        self.columns = columns_for(card.open(self.challenge, self.response).serial)
        self.digest = card.prepare(self.columns)
        return card

    def encoded(self, custody):
        card = self.prepared(custody)
        self.slab = play(self.chip, card.personalization())
        card.accept_personalization(self.slab)
        return card

    def finish(self, card, segment):
        while segment is not None:
            segment = card.next_proof(play(self.chip, segment))
        card.close()


def secrets_of_the_card(challenge, response, columns):
    """Every key that a host must not see, by name: masters, keys between, static and session keys, card keys with either parity."""
    found = {f"master {spec.key_id}": master(spec.key_id) for spec in SPECS}
    kdd, channel = response[:10], PROFILE.profile.channel
    for source in (channel.transport, channel.issuer):
        for wanted in channel_derivations(source):
            found[f"{source.master} {wanted.purpose}"] = diversify.gp_kdf3(master(source.master), kdd, wanted.purpose).tobytes()
    challenges = challenge, response[13:21]
    made = sessions.scp03_session_keys(found["maker.kmc enc"], found["maker.kmc mac"], *challenges)
    found |= {f"session {name}": key.tobytes() for name, key in made._asdict().items()}
    for key, wanted, factor in zip(COMPILED.keys, COMPILED.derivations, all_factors(COMPILED, columns), strict=True):
        value = master(wanted.key_id)
        for depth, upper in enumerate(wanted.upper_factors):
            value = diversify.pboc("3des", value, upper, wanted.parity).tobytes()
            found[f"{key.label} level {depth}"] = value
        card_key = diversify.pboc("3des", value, factor[0].tobytes(), wanted.parity)
        found[key.label] = card_key.tobytes()
        if wanted.parity == "none":
            found[f"{key.label} odd"] = odd_parity(card_key).tobytes()
    return found
