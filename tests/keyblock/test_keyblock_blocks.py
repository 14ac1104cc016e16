"""Key blocks: published ones open, psec and this code read each other, and whatever is changed or wrong is refused by one error."""

import json
import random
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psec import tr31

from keys.errors import CitycardError, Denied, InvalidInput
from keys.keyblock import Header, key_unwrap, key_wrap, open_block, parse_header, rewrap, unwrap, wrap
from keys.keyblock.header import ALGORITHM_CODES, MODES_OF_USAGE
from keys.secrets import SecretBytes

FOLDER = Path(__file__).parents[1] / "vectors"
HEX = set("0123456789ABCDEFabcdef")
STRENGTH = {("T", 16): 80, ("T", 24): 112, ("A", 16): 128, ("A", 24): 192, ("A", 32): 256}


def vectors(name):
    return [pytest.param(test, id=test["id"]) for test in json.loads((FOLDER / f"{name}.json").read_text())["tests"]]


def secret(hex_text):
    return SecretBytes(bytes.fromhex(hex_text))


BLOCKS = [param.values[0] for param in vectors("keyblock_tr31")]


@pytest.mark.parametrize("test", vectors("keyblock_tr31"))
def test_published_blocks_open(test):
    opened = unwrap(secret(test["kbpk"]), test["block"], test["usage"], test["mode"], test["algorithm"])
    assert opened.key == secret(test["key"])


@pytest.mark.parametrize("test", vectors("keyblock_keywrap"))
def test_key_wrap_vectors(test):
    wrapped = key_wrap(test["scheme"], secret(test["kek"]), secret(test["key"]))
    assert wrapped.hex().upper() == test["wrapped"]
    assert key_unwrap(test["scheme"], secret(test["kek"]), wrapped) == secret(test["key"])


def test_every_changed_byte_of_a_wrapped_key_gives_one_error():
    kek, key = SecretBytes(bytes(range(16))), SecretBytes(bytes(range(16, 32)))
    for scheme in ("aes-kw", "aes-kwp"):
        wrapped = key_wrap(scheme, kek, key)
        bad = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(len(wrapped))]
        for changed in [*bad, wrapped[:-8], wrapped + bytes(8), b""]:
            with pytest.raises(Denied) as refused:
                key_unwrap(scheme, kek, changed)
            assert refused.value.reason == "KEY_BLOCK"


def test_key_wrap_refuses_lengths():
    for kek, key, reason in ((8, 16, "KEK_LENGTH"), (16, 15, "KEY_LENGTH"), (16, 8, "KEY_LENGTH"), (16, 0, "KEY_LENGTH")):
        with pytest.raises(InvalidInput) as refused:
            key_wrap("aes-kw", SecretBytes(bytes(kek)), SecretBytes(bytes(key)))
        assert refused.value.reason == reason


def random_case(rng):
    version = rng.choice("BCD")
    kbpk = rng.randbytes(rng.choice((16, 24, 32) if version == "D" else (16, 24)))
    strength = STRENGTH["A" if version == "D" else "T", len(kbpk)]
    algorithm, length = rng.choice([which for which, bits in STRENGTH.items() if bits <= strength])
    usage = rng.choice(list(MODES_OF_USAGE))
    blocks = {}
    for _ in range(rng.randrange(3)):
        blocks["".join(rng.choices(string.ascii_uppercase, k=2))] = "".join(
            rng.choices(string.ascii_letters + string.digits, k=rng.randrange(40))
        )
    blocks.pop("PB", None)
    header = Header(
        version_id=version,
        key_usage=usage,
        algorithm=algorithm,
        mode_of_use=rng.choice(MODES_OF_USAGE[usage]),
        key_version=f"{rng.randrange(100):02d}",
        exportability=rng.choice("ENS"),
        optional_blocks=tuple(blocks.items()),
    )
    return kbpk, header, rng.randbytes(length)


# psec uses 3DES in ways that cryptography has announced to remove
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_psec_and_this_code_read_each_other():
    """10,000 random blocks of every version, usage, mode and key length, both ways."""
    rng = random.Random(20261123)
    for _ in range(10_000):
        kbpk, header, key = random_case(rng)
        block = wrap(SecretBytes(kbpk), header, SecretBytes(key))
        their_header, their_key = tr31.unwrap(kbpk, block)
        assert their_key == key
        assert len(tr31.wrap(kbpk, their_header, key)) == len(block)
        theirs = open_block(SecretBytes(kbpk), tr31.wrap(kbpk, their_header, key))
        assert (theirs.header, bytes(theirs.key.reveal())) == (header, key)
        assert dict(their_header.blocks) == dict(header.optional_blocks)
        ours = open_block(SecretBytes(kbpk), block)
        assert ours.header == header
        assert bytes(ours.key.reveal()) == key


@pytest.mark.parametrize("test", BLOCKS, ids=lambda test: test["id"])
def test_every_changed_character_is_refused(test):
    """Form is named by its place; everything cryptographic, whatever it was, by one and the same error."""
    kbpk, block = secret(test["kbpk"]), test["block"]
    messages = set()
    for at, character in enumerate(block):
        changed = block[:at] + ("1" if character == "0" else "0") + block[at + 1 :]
        with pytest.raises(CitycardError) as refused:
            open_block(kbpk, changed)
        if refused.value.reason == "KEY_BLOCK":
            messages.add(refused.value.message)
        else:
            assert refused.value.reason == "KEY_BLOCK_SYNTAX"
            assert at < parse_header(block)[1]
            assert "character" in refused.value.message
    with pytest.raises(Denied) as wrong_key:
        open_block(SecretBytes(bytes(reversed(kbpk.reveal()))), block)
    assert wrong_key.value.reason == "KEY_BLOCK"
    assert messages == {wrong_key.value.message}


@pytest.mark.parametrize(
    ("usage", "mode", "algorithm"), [("P0", "D", "3des"), ("K0", "E", "3des"), ("P0", "E", "aes"), ("D0", "E", "3des")], ids=str
)
def test_a_block_for_another_use_is_refused(usage, mode, algorithm):
    test = BLOCKS[0]
    with pytest.raises(Denied) as refused:
        unwrap(secret(test["kbpk"]), test["block"], usage, mode, algorithm)
    assert refused.value.reason == "KEY_USAGE"


def test_a_wrong_use_is_not_told_before_the_mac_fits():
    test = BLOCKS[0]
    with pytest.raises(Denied) as refused:
        unwrap(SecretBytes(bytes(16)), test["block"], "K0", "B", "3des")
    assert refused.value.reason == "KEY_BLOCK"


def header(**fields):
    return Header(**{"version_id": "D", "key_usage": "K0", "algorithm": "A", "mode_of_use": "B", **fields})


@pytest.mark.parametrize(
    ("fields", "kbpk", "key", "reason"),
    [
        ({"mode_of_use": "X"}, 32, 16, "KEY_USAGE"),
        ({"key_usage": "ZZ"}, 32, 16, "KEY_USAGE"),
        ({"algorithm": "R"}, 32, 16, "KEY_USAGE"),
        ({}, 32, 20, "KEY_LENGTH"),
        ({}, 20, 16, "KBPK_LENGTH"),
        ({"version_id": "B"}, 16, 16, "KBPK_WEAKER"),
        ({}, 16, 32, "KBPK_WEAKER"),
        ({"optional_blocks": tuple((f"{a}{b}", "x" * 250) for a in "ABCDE" for b in string.digits)}, 32, 16, "KEY_BLOCK_SYNTAX"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_blocks_without_sense_are_not_made(fields, kbpk, key, reason):
    with pytest.raises(InvalidInput) as refused:
        wrap(SecretBytes(bytes(kbpk)), header(**fields), SecretBytes(bytes(key)))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("version_id", "A", 1),
        ("version_id", "X", 1),
        ("key_usage", "K", 6),
        ("algorithm", "", 8),
        ("mode_of_use", "??", 9),
        ("exportability", "Q", 12),
    ],
)
def test_wrong_fields_are_named_by_their_place(field, value, place):
    with pytest.raises(InvalidInput, match=f"character {place}:"):
        header(**{field: value})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda b: "A" + b[1:], 1),
        (lambda b: b[:10], 11),
        (lambda b: b[:1] + "00x0" + b[5:], 2),
        (lambda b: b[:-2], 2),
        (lambda b: b[:12] + "xx" + b[14:], 13),
        (lambda b: b[:20] + "G" + b[21:], 21),
        (lambda b: b[:12] + "01" + b[14:16] + "KSXX" + b[20:], 19),
    ],
)
def test_faults_of_form_name_the_character(change, place):
    block = BLOCKS[3]["block"]
    with pytest.raises(InvalidInput, match=f"character {place}:"):
        open_block(secret(BLOCKS[3]["kbpk"]), change(block))


def test_what_must_not_leave_does_not_leave():
    kbpk, other, key = SecretBytes(b"k" * 32), SecretBytes(b"o" * 32), SecretBytes(b"s" * 16)
    for exportability in ("E", "S"):
        opened = open_block(kbpk, wrap(kbpk, header(exportability=exportability), key))
        onward = open_block(other, rewrap(opened, other, "D"))
        assert onward.key == key
        assert onward.header == opened.header
    opened = open_block(kbpk, wrap(kbpk, header(exportability="N"), key))
    with pytest.raises(Denied) as refused:
        rewrap(opened, other, "D")
    assert refused.value.reason == "KEY_NOT_EXPORTABLE"


def test_the_private_sm4_block_goes_there_and_back_and_refuses_every_change():
    kbpk, key = SecretBytes(bytes(range(16))), SecretBytes(bytes(range(16, 32)))
    made = header(version_id="S", algorithm="4", optional_blocks=(("KS", "0123"),))
    block = wrap(kbpk, made, key)
    opened = unwrap(kbpk, block, "K0", "B", "sm4")
    assert (opened.header, opened.key) == (made, key)
    assert block != wrap(kbpk, made, key), "the padding is random"
    for at in range(parse_header(block)[1], len(block)):
        changed = block[:at] + ("1" if block[at] == "0" else "0") + block[at + 1 :]
        with pytest.raises(Denied) as refused:
            open_block(kbpk, changed)
        assert refused.value.reason == "KEY_BLOCK"


def test_the_private_sm4_block_by_its_definition():
    """Version D's construction with SM4, put together from the cipher alone."""
    from cryptography.hazmat.primitives.ciphers import Cipher, modes
    from cryptography.hazmat.primitives.ciphers.algorithms import SM4
    from cryptography.hazmat.primitives.cmac import CMAC

    def mac(key, message):
        made = CMAC(SM4(key))
        made.update(message)
        return made.finalize()

    kbpk, key = bytes(range(16)), bytes(range(16, 32))
    block = wrap(SecretBytes(kbpk), header(version_id="S", algorithm="4"), SecretBytes(key))
    enc, auth = (mac(kbpk, bytes.fromhex(f"01{use:04X}0080010080")) for use in (0, 1))
    sealed, received = bytes.fromhex(block[16:-32]), bytes.fromhex(block[-32:])
    context = Cipher(SM4(enc), modes.CBC(received)).decryptor()
    clear = context.update(sealed)
    assert clear[:2] == b"\x00\x80"
    assert clear[2:18] == key
    assert mac(auth, block[:16].encode() + clear) == received


def test_algorithm_codes_are_all_usable():
    assert set(ALGORITHM_CODES.values()) == {"T", "A", "4"}


def test_no_key_in_repr_or_errors():
    test = BLOCKS[0]
    opened = open_block(secret(test["kbpk"]), test["block"])
    assert test["key"].lower() not in repr(opened).lower()


@given(
    st.one_of(st.text(max_size=200), st.builds(lambda tail: BLOCKS[1]["block"][:20] + tail, st.text("0123456789ABCDEFKSPB ", max_size=120)))
)
def test_no_text_crashes_the_reader(text):
    try:
        open_block(secret(BLOCKS[1]["kbpk"]), text)
    except CitycardError as refused:
        assert refused.reason in {"KEY_BLOCK", "KEY_BLOCK_SYNTAX"}
