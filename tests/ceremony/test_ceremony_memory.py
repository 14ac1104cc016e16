"""What a ceremony leaves in the memory of its process once its work is done: nothing of components or keys, found by another process."""

from collections import defaultdict

import pytest

from keys.components import combine, component_kcv, make_component, parse_hex
from tests.ceremony.ceremony_tools import KEY
from tests.ceremony.terminal_tools import Screen
from tests.ceremony.test_ceremony_terminal import Office
from tests.ceremony.test_ceremony_token import token_office
from tests.custody.test_custody_memory import found_in


def canaries(named):
    """Every half of every secret, as bytes and as the digits that are typed and printed: half a residue is one too."""
    wanted = {}
    for name, raw in named.items():
        digits = raw.hex().upper()
        forms = {"bytes": raw, "digits": digits.encode(), "small digits": digits.lower().encode()}
        forms["printed"] = " ".join(digits[at : at + 4] for at in range(0, len(digits), 4)).encode()
        for form, text in forms.items():
            half = len(text) // 2
            wanted |= {f"{name} {form} 1": text[:half], f"{name} {form} 2": text[half:]}
    return wanted


def play_and_look(office, canaries_now):
    """Plays the run to its end; what is found in its memory while check digits are asked for, and when its work is done."""
    screen = Screen.command("ceremony", "run", office.plan, *office.options, module="tests.ceremony.lingering")
    found = defaultdict(set)

    def look(name):
        if name in ("digits", "read", "done"):
            found[name] |= found_in(screen.pid, canaries_now())

    status, _ = office.play(screen, look=look)
    assert status == 0, screen.output
    return found


@pytest.mark.parametrize("algorithm", ["3des", "aes", "sm4"])
def test_components_and_key_of_an_import_are_gone(tmp_path, algorithm):
    office = Office(tmp_path, custodians=3, keys=({**KEY, "algorithm": algorithm},))
    made = [make_component(algorithm, 16) for _ in range(3)]
    office.texts = [bytes(piece.reveal()).hex().upper() for piece in made]
    office.digits = [component_kcv(algorithm, piece).hex().upper() for piece in made]
    named = {f"component {at}": bytes(piece.reveal()) for at, piece in enumerate(made, 1)}
    named["key"] = bytes(combine(algorithm, made).reveal())
    found = play_and_look(office, lambda: canaries(named))
    assert {"component 1 digits 1", "component 1 digits 2"} <= found["digits"], "the search finds what is there"
    assert found["done"] == set()


def printed(office):
    """The components in the envelopes so far, and the key when they are all there."""
    texts = [office.envelope(int(path.stem))[0] for path in sorted(office.envelopes.iterdir())]
    pieces = [parse_hex(text.encode(), 16) for text in texts]
    named = {f"component {at}": bytes(piece.reveal()) for at, piece in enumerate(pieces, 1)}
    return canaries(named | ({"key": bytes(combine("3des", pieces).reveal())} if len(pieces) == 3 else {}))


def test_components_and_key_of_a_generation_are_gone(tmp_path):
    office = Office(tmp_path, "generate", custodians=3)
    found = play_and_look(office, lambda: printed(office))
    assert {"component 1 bytes 1", "component 1 bytes 2"} <= found["read"]
    assert found["done"] == set()


def test_nor_do_they_stay_when_the_key_goes_into_a_token(rig, tmp_path):
    office = token_office(rig, tmp_path, kind="generate", custodians=3)
    found = play_and_look(office, lambda: printed(office))
    assert found["read"]
    assert found["done"] == set()
