"""Hand-over sets: signed, whole, and taken in only at the agreed level, by the agreed factors and with the right check value."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keys.errors import CitycardError, Corrupt, Denied, InvalidInput
from keys.hierarchy import Domain, KeyState, Level, MasterKeyRecord, Purpose
from keys.kcv import kcv
from keys.keyblock.handover import FORMAT, KEK_ALGORITHM, Agreed, HandoverSet, handed, open_handed, sign_set, verify_set, wrap_for_export
from keys.secrets import SecretBytes

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = SIGNER.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
KEY = bytes.fromhex("9FAD81B103CF92960E17D86323CA8C37")
KEK = SecretBytes(bytes(range(16)))
FACTORS = (b"410000sh", b"410100sx")
ALGORITHM = {"x9.143-b": "3des", "x9.143-c": "3des", "x9.143-d": "aes", "sm4-block": "sm4", "aes-kw": "sm4"}


def record(algorithm="3des", purpose=Purpose.APPLICATION, key=KEY):
    return MasterKeyRecord(
        key_id="ss.dks1",
        domain=Domain.SOCIAL_SECURITY,
        purpose=purpose,
        algorithm=algorithm,
        level=Level.CITY,
        version=3,
        state=KeyState.ACTIVE,
        kcv=kcv(algorithm, key).hex().upper(),
        kcv_method={"3des": "zero-block", "sm4": "zero-block", "aes": "one-block"}[algorithm],
        origin="test",
        test=True,
    )


def entry(scheme="x9.143-b", **fields):
    which = record(ALGORITHM[scheme], **fields)
    return handed(which, wrap_for_export(scheme, KEK_ALGORITHM[scheme], KEK, which, SecretBytes(KEY)), FACTORS)


def signed(keys, scheme="x9.143-b"):
    unsigned = HandoverSet(
        format=FORMAT, set_id="s1", sender="province", recipient="city", time="now", scheme=scheme, kek="kek", kek_kcv="AABBCC", keys=keys
    )
    return sign_set(unsigned, SIGNER.sign)


@pytest.mark.parametrize("scheme", list(KEK_ALGORITHM))
@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_set_goes_there_and_back(scheme, purpose):
    found = verify_set(signed([entry(scheme, purpose=purpose)], scheme), PUBLIC)
    assert found.keys[0].factors == ["3431303030307368", "3431303130307378"], "root first"
    assert open_handed(found.keys[0], found.scheme, KEK, Agreed(Level.CITY, FACTORS)) == SecretBytes(KEY)
    assert KEY.hex().upper() not in signed([entry(scheme)], scheme).decode().upper()


@pytest.mark.parametrize(
    ("agreed", "reason"),
    [
        (Agreed(Level.PROVINCE, FACTORS), "LEVEL_NOT_AGREED"),
        (Agreed(Level.CITY, FACTORS[::-1]), "FACTORS_NOT_AGREED"),
        (Agreed(Level.CITY), "FACTORS_NOT_AGREED"),
    ],
)
def test_what_was_not_agreed_is_refused(agreed, reason):
    with pytest.raises(Denied) as refused:
        open_handed(entry(), "x9.143-b", KEK, agreed)
    assert refused.value.reason == reason


def changed(key, **fields):
    return type(key)(**{name: fields.get(name, getattr(key, name)) for name in key.__struct_fields__})


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"kcv": "000000"}, Denied, "KCV_MISMATCH"),
        ({"kcv": ""}, Denied, "KCV_MISMATCH"),
        ({"kcv": "xx"}, Corrupt, "HANDOVER_SET"),
        ({"kcv_method": "sum"}, Corrupt, "HANDOVER_SET"),
        ({"purpose": "cryptogram"}, Denied, "KEY_USAGE"),
        ({"purpose": "fun"}, Corrupt, "HANDOVER_SET"),
        ({"algorithm": "des"}, InvalidInput, "ALGORITHM_UNKNOWN"),
        ({"wrapped": "B0"}, InvalidInput, "KEY_BLOCK_SYNTAX"),
    ],
    ids=str,
)
def test_keys_that_do_not_fit_their_entry_are_refused(fields, error, reason):
    with pytest.raises(error) as refused:
        open_handed(changed(entry(), **fields), "x9.143-b", KEK, Agreed(Level.CITY, FACTORS))
    assert refused.value.reason == reason


def test_wrong_kek_scheme_and_hex():
    with pytest.raises(Denied) as refused:
        open_handed(entry(), "x9.143-b", SecretBytes(b"w" * 16), Agreed(Level.CITY, FACTORS))
    assert refused.value.reason == "KEY_BLOCK"
    with pytest.raises(InvalidInput):
        open_handed(entry(), "rot13", KEK, Agreed(Level.CITY, FACTORS))
    with pytest.raises(Corrupt):
        open_handed(changed(entry("aes-kw"), wrapped="zz"), "aes-kw", KEK, Agreed(Level.CITY, FACTORS))
    with pytest.raises(InvalidInput):
        wrap_for_export("rot13", "aes", KEK, record(), SecretBytes(KEY))
    with pytest.raises(InvalidInput):
        wrap_for_export("aes-kw", "3des", KEK, record(), SecretBytes(KEY))


def test_every_changed_value_of_a_set_is_found():
    content = signed([entry()])
    whole = json.loads(content)

    def paths(value, at=()):
        if isinstance(value, dict | list):
            for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from paths(inner, (*at, name))
        else:
            yield at

    seen = 0
    for path in paths(whole):
        copy = json.loads(content)
        place = copy
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = place[path[-1]] + 1 if isinstance(place[path[-1]], int) else place[path[-1]] + "0"
        with pytest.raises((Denied, Corrupt)):
            verify_set(json.dumps(copy).encode(), PUBLIC)
        seen += 1
    assert seen > 15
    with pytest.raises(Denied):
        verify_set(content, bytes(32))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"format": "other"}'])
def test_other_files_are_no_sets(content):
    with pytest.raises(CitycardError) as refused:
        verify_set(content, PUBLIC)
    assert refused.value.reason == "HANDOVER_SET"
