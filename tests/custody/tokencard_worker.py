"""The host of one card in a process of its own: argument software or token; answers of the chip come by lines, commands leave by lines.

python -m tests.custody.tokencard_worker KIND PLACE [MODULE LABEL PIN_FILE]
"""

import json
import sys
from pathlib import Path

from engine.cli.token import read_pin
from engine.personalize.segment import to_slab
from engine.production.tokencard import card_in_making
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenConfig, TokenCustody


def say(stage, commands=()):
    print(json.dumps([stage, [command.hex() for command in commands]]), flush=True)
    return [bytes.fromhex(answer) for answer in json.loads(sys.stdin.readline())]


def open_custody(kind, place, *token):
    if kind == "software":
        return SoftwareCustody.open(Path(place), "x", mode="test")
    module, label, pin_file = token
    return TokenCustody.open(TokenConfig(Path(module), label), read_pin(Path(pin_file), "user"), mode="test")


def main(kind, place, *token):
    from tests.personalize.perso_tools import attempt_columns, order, pan_of

    custody = open_custody(kind, place, *token)
    profile = load(str(Path(__file__).parent / "token_only_card.toml"))
    compiled = compile_profile(profile, 19)
    challenge, response = say("ready")
    card = card_in_making(compiled, custody, 5)
    serial = card.open(challenge, response).serial
    say("opened")
    card.prepare(attempt_columns(profile.profile, order(pan_of(19)), {"transport": 77}, 0, serial))
    say("prepared")
    slab = to_slab(say("personalized", card.personalization().commands))
    card.accept_personalization(slab)
    say("accepted")
    segment = card.first_proof(slab)
    while segment is not None:
        segment = card.next_proof(to_slab(say("proving", segment.commands)))
    say("proven")
    card.close()
    say("closed")
    custody.close()
    say("left")


main(*sys.argv[1:])
