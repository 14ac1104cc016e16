"""Components and shares: every fault is found in the single piece, with its own reason and without a digit of it."""

import json
import random
import re
from pathlib import Path

import pytest
from shamir_mnemonic import combine_mnemonics, generate_mnemonics

from keys import components, shares
from keys.errors import CitycardError, Denied, InvalidInput
from keys.parity import has_odd_parity
from keys.secrets import SecretBytes

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "components_xor.json").read_text())["tests"][0]
GOOD = "0123456789ABCDEFFEDCBA9876543210"


def piece(hex_text):
    return components.parse_hex(hex_text.encode(), 16)


def test_components_make_the_published_key():
    pieces = [piece(one) for one in VECTOR["components"]]
    assert [components.component_kcv("3des", one).hex().upper() for one in pieces] == VECTOR["kcvs"]
    key = components.combine(VECTOR["algorithm"], pieces)
    assert bytes(key.reveal()).hex().upper() == VECTOR["key"]
    assert components.component_kcv("3des", key).hex().upper() == VECTOR["kcv"]


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (GOOD[:-1], "COMPONENT_LENGTH"),
        (GOOD + "0", "COMPONENT_LENGTH"),
        ("", "COMPONENT_LENGTH"),
        (GOOD[:-1] + "G", "COMPONENT_NOT_HEX"),
        (GOOD[:-1] + "\x00", "COMPONENT_NOT_HEX"),
        (GOOD[:-1] + "@", "COMPONENT_NOT_HEX"),
        (GOOD[:-1] + "`", "COMPONENT_NOT_HEX"),
        (GOOD[:-1] + ":", "COMPONENT_NOT_HEX"),
    ],
)
def test_typed_digits_that_are_none(typed, reason):
    with pytest.raises(InvalidInput) as refused:
        piece(typed)
    assert refused.value.reason == reason


def test_digits_may_be_typed_in_groups_and_small_letters():
    spaced = " ".join(GOOD.lower()[at : at + 4] for at in range(0, 32, 4)).replace(" ", "-", 1)
    assert piece(spaced) == piece(GOOD)
    assert bytes(components.format_hex(piece(GOOD)).reveal()).decode() == "0123 4567 89AB CDEF FEDC BA98 7654 3210"


def refuse(algorithm, hex_text, check, earlier=()):
    with pytest.raises(CitycardError) as refused:
        components.check_component(algorithm, piece(hex_text), [piece(one) for one in earlier], bytes.fromhex(check))
    message = refused.value.message.upper()
    assert not any(hex_text[at : at + 4] in message for at in range(0, 32, 4))
    return refused.value.reason


def kcv_of(hex_text, algorithm="3des"):
    return components.component_kcv(algorithm, piece(hex_text)).hex()


def test_each_fault_of_a_component_has_its_reason():
    even = "00" + GOOD[2:]
    weak = "0101010101010101" + "FEDCBA9876543210"
    equal = "0123456789ABCDEF" * 2
    assert refuse("3des", "00" * 16, "000000") == "COMPONENT_ZERO"
    assert refuse("sm4", "00" * 16, "000000") == "COMPONENT_ZERO"
    assert refuse("3des", GOOD, "08D7B5") == "COMPONENT_KCV"
    assert refuse("3des", GOOD, "") == "COMPONENT_KCV"
    assert refuse("3des", even, kcv_of(even)) == "COMPONENT_PARITY"
    assert refuse("3des", weak, kcv_of(weak)) == "COMPONENT_WEAK"
    assert refuse("3des", equal, kcv_of(equal)) == "COMPONENT_WEAK"
    assert refuse("3des", GOOD, "08D7B4", [VECTOR["components"][1], GOOD]) == "COMPONENT_REPEATED"
    assert refuse("aes", GOOD, kcv_of(GOOD, "aes"), [GOOD]) == "COMPONENT_REPEATED"


def test_every_single_mistyped_digit_is_found():
    """One wrong digit changes the check value or the parity: a custodian is told at once."""
    for algorithm in ("3des", "aes", "sm4"):
        check = kcv_of(GOOD, algorithm)
        for at in range(32):
            for digit in "0123456789ABCDEF":
                if digit != GOOD[at]:
                    assert refuse(algorithm, GOOD[:at] + digit + GOOD[at + 1 :], check) in {"COMPONENT_KCV", "COMPONENT_PARITY"}


@pytest.mark.parametrize("algorithm", ["3des", "aes", "sm4"])
def test_made_components_pass_their_own_check_and_make_up_a_key(algorithm):
    for count in range(2, 10):
        key = components.make_component(algorithm, 16)
        others = [components.make_component(algorithm, 16) for _ in range(count - 1)]
        pieces = [*others, components.last_component(algorithm, key, others)]
        for at, one in enumerate(pieces):
            components.check_component(algorithm, one, pieces[:at], components.component_kcv(algorithm, one))
        assert components.combine(algorithm, pieces) == key
        if algorithm == "3des":
            import numpy as np

            assert has_odd_parity(np.frombuffer(key.reveal(), np.uint8))


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([GOOD], "COMPONENT_COUNT"),
        ([GOOD] * 10, "COMPONENT_COUNT"),
        ([GOOD, GOOD], "WEAK_KEY"),
        ([GOOD, "0123456789ABCDEE" + "FEDCBA9876543211"], "WEAK_KEY"),
    ],
)
def test_keys_that_come_out_wrong(pieces, reason):
    with pytest.raises(InvalidInput) as refused:
        components.combine("3des", [piece(one) for one in pieces])
    assert refused.value.reason == reason
    with pytest.raises(InvalidInput) as refused:
        components.combine("aes", [piece(GOOD), piece(GOOD)])
    assert refused.value.reason == "KEY_ZERO"
    with pytest.raises(InvalidInput):
        components.last_component("3des", piece(GOOD), [piece(GOOD)])
    with pytest.raises(InvalidInput):
        components.combine("aes", [piece(GOOD), SecretBytes(b"short")])


def lines(made):
    return [bytes(one.reveal()).decode() for one in made]


@pytest.mark.parametrize("length", [16, 32])
def test_shares_agree_with_the_reference_implementation_both_ways(length):
    rng = random.Random(length)
    for _ in range(8):
        threshold = rng.randrange(2, 6)
        count = rng.randrange(threshold, 10)
        raw = rng.randbytes(length)
        made = lines(shares.split(SecretBytes(raw), threshold, count))
        assert combine_mnemonics(rng.sample(made, threshold)) == raw
        theirs = generate_mnemonics(1, [(threshold, count)], raw)[0]
        chosen = [shares.parse_share(one.upper().encode()) for one in rng.sample(theirs, threshold)]
        assert bytes(shares.combine_shares(chosen).reveal()) == raw


def test_each_fault_of_a_share_has_its_reason():
    # a word that a fixed message has anyway ("secret") would pass for one of the share's: such shares are drawn again
    fixed = set(re.findall("[a-z]+", Path(shares.__file__).read_text()))
    drawn = (shares.split(SecretBytes(bytes(range(16))), 2, 3) for _ in range(200))
    first, second, third = next(split for split in drawn if not fixed & set(lines([split[0]])[0].split()))
    other = shares.split(SecretBytes(bytes(range(16))), 2, 2)[0]
    words = lines([first])[0].split()

    def reason(call, *values):
        with pytest.raises(CitycardError) as refused:
            call(*values)
        assert not set(refused.value.message.split()) & set(words)
        return refused.value.reason

    def typed(changed):
        return reason(shares.parse_share, " ".join(changed).encode())

    assert typed(words[:-1]) == "SHARE_LENGTH"
    assert typed([*words, "academic"]) == "SHARE_LENGTH"
    assert typed([]) == "SHARE_LENGTH"
    assert typed([*words[:6], "zebras", *words[7:]]) == "SHARE_WORD"
    assert typed([*words[:6], "x" * 50, *words[7:]]) == "SHARE_WORD"
    assert typed([*words[:6], words[7], words[6], *words[8:]]) == "SHARE_CHECKSUM"
    assert typed([*words[:6], "academic" if words[6] != "academic" else "acid", *words[7:]]) == "SHARE_CHECKSUM"
    grouped = generate_mnemonics(2, [(2, 2), (2, 2)], bytes(16))[1][0]
    assert typed(grouped.split()) == "SHARE_GROUPS"
    assert reason(shares.check_share, first, [second, first]) == "SHARE_REPEATED"
    assert reason(shares.check_share, first, [other]) == "SHARE_OTHER_SET"
    assert reason(shares.combine_shares, [first]) == "SHARE_COUNT"
    assert reason(shares.combine_shares, []) == "SHARE_COUNT"
    assert reason(shares.split, SecretBytes(bytes(16)), 1, 3) == "SHARE_COUNT"
    assert reason(shares.split, SecretBytes(bytes(16)), 4, 3) == "SHARE_COUNT"
    assert reason(shares.split, SecretBytes(bytes(15)), 2, 3) == "SHARE_LENGTH"
    shares.check_share(third, [first, second])


def test_shares_that_do_not_fit_together_rebuild_nothing():
    """A share with a sound checksum and a changed value: the digest of the secret finds it."""
    from shamir_mnemonic.share import Share

    made = shares.split(SecretBytes(bytes(range(16))), 2, 2)
    parsed = Share.from_mnemonic(lines(made)[0])
    forged = Share(**{**parsed.__dict__, "value": bytes(16)})
    with pytest.raises(Denied) as refused:
        shares.combine_shares([shares.parse_share(forged.mnemonic().encode()), made[1]])
    assert refused.value.reason == "SHARE_DIGEST"
