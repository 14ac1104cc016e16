"""A card whose keys never leave the token: the same bytes as the software makes, proven on a chip, whatever happens to the token."""

from dataclasses import replace

import numpy as np
import pkcs11
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, exceptions

from engine.personalize.segment import from_slab, to_slab
from engine.personalize.tokencard import spans_of
from engine.personalize.witness import prove_derivations
from engine.production.card import CardInMaking
from engine.production.context import Context
from engine.production.keyroom import KeyRoom
from engine.production.keysetup import Setup, write_setup
from engine.production.tokencard import TokenCard, card_in_making
from engine.profiles import lint
from engine.profiles.compile import compile_profile
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from keys import diversify, sessions
from keys.custody import Derivation
from keys.custody.composite import CompositeCustody
from keys.custody.policy import KeyPolicy
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenState, compose, objects
from keys.custody.token.cardkeys import CardKey
from keys.custody.token.cryptoki import Cryptoki, MechanismCall
from keys.custody.token.custody import holder_of
from keys.errors import Corrupt, Denied, Precondition, Unavailable, Unsupported
from keys.kcv import kcv
from keys.secrets import SecretBytes
from tests.custody.conftest import PIN
from tests.custody.contract import AES, reason_of
from tests.custody.tokencard_tools import COMPILED, PROFILE, SPECS, Line, columns_for, fill, master
from tests.personalize.perso_tools import play
from tests.profiles.profile_tools import NAME

KDD, HOST, CARD = bytes(range(10)), b"\x11" * 8, b"\x22" * 8


@pytest.fixture
def filled(token):
    return fill(token)


@pytest.fixture
def software(filled, tmp_path, monkeypatch):
    """The same masters in the host, and the token's own root, of which PINs are made."""
    with SoftwareCustody.create(tmp_path / "software", "x", test=True, scrypt_n=16) as store:
        for spec in SPECS:
            store.import_key(spec, master(spec.key_id))
        monkeypatch.setattr(store, "hmac_key", filled.hmac_key)
        yield store


def cbc(key, blocks, iv=bytes(16)):
    return Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor().update(blocks)


def static(purpose):
    return diversify.gp_kdf3(master("maker.kmc"), KDD, purpose).tobytes()


def objects_of_sessions(custody):
    """Secret keys that are not the token's own: handles of session objects."""
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: False}
    return custody.session.run(lambda live: {key.handle for key in live.python.get_objects(wanted)})


# -- the channel -----------------------------------------------------------------------------------------------------------


def test_a_token_has_session_keys_that_it_cannot_derive_by_name(filled):
    """SoftHSM has no SP 800-108 KDF and no mechanism that makes a key of a CMAC; the composed keys are those of Amendment D."""
    with_keys = sessions.scp03_session_keys(static("enc"), static("mac"), HOST, CARD)
    channel = filled.channel("maker.kmc", KDD, HOST, CARD)
    expected = sessions.scp03_cryptograms(with_keys.s_mac, HOST, CARD)
    assert channel.cryptograms() == (expected.card.tobytes(), expected.host.tobytes())
    s_enc = with_keys.s_enc[0].tobytes()
    assert channel.icv(b"\x05" * 16) == cbc(s_enc, b"\x05" * 16)
    assert channel.encrypt(b"\x06" * 16, b"\x07" * 48) == cbc(s_enc, b"\x07" * 48, b"\x06" * 16)
    assert channel.decrypt(b"\x06" * 16, cbc(s_enc, b"\x07" * 48, b"\x06" * 16)) == b"\x07" * 48
    for mac, key in ((channel.c_mac, with_keys.s_mac), (channel.r_mac, with_keys.s_rmac)):
        for size in (1, 16, 33):
            found = sessions.counter_mode(key, np.empty((1, 0), np.uint8), 1, np.zeros((1, size), np.uint8), 16)
            assert mac(b"\x01" + bytes(size)) == found.tobytes()
    channel.close()


def test_the_objects_of_a_channel_can_do_one_thing_and_cannot_be_read(filled):
    before = objects_of_sessions(filled)
    channel = filled.channel("maker.kmc", KDD, HOST, CARD)
    channel.cryptograms()
    allowed = {"s_enc": {"ENCRYPT", "DECRYPT"}, "s_mac": {"SIGN"}, "s_rmac": {"SIGN"}, "dek": {"WRAP"}}
    uses = [Attribute[name] for name in ("ENCRYPT", "DECRYPT", "SIGN", "WRAP", "UNWRAP", "DERIVE")]

    def look(live):
        found = live.python.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: False})
        keys = {key.handle: key for key in list(found)}
        for name, able in allowed.items():
            key = keys[getattr(channel._made, name)]
            has = key.get_attributes([*uses, Attribute.SENSITIVE, Attribute.EXTRACTABLE, Attribute.PRIVATE])
            assert {use.name for use in uses if has[use]} == able
            assert (has[Attribute.SENSITIVE], has[Attribute.EXTRACTABLE], has[Attribute.PRIVATE]) == (True, False, True)
            with pytest.raises(exceptions.PKCS11Error):
                bytes(key[Attribute.VALUE])

    filled.session.run(look)
    assert len(objects_of_sessions(filled) - before) == 4
    channel.close()
    channel.close()
    assert objects_of_sessions(filled) == before
    assert reason_of(Precondition, channel.cryptograms) == "SECRET_WIPED"


def test_spans_under_the_dek_are_those_of_software(filled, token):
    factor = np.arange(8, dtype=np.uint8)
    cases = [
        (Derivation("transport.3des.load", "pboc", "3des"), factor),
        (Derivation("transport.3des.load", "pboc", "3des", (b"\x49" * 8, b"\x10" * 8)), factor),
        (Derivation("finance.3des.ac", "pboc", "3des", (), "odd"), factor),
        (Derivation("issuer.kmc", "an10922", "aes"), factor),
        (Derivation("issuer.kmc", "gp-kdf3", "aes", purpose="dek"), np.frombuffer(KDD, np.uint8)),
    ]
    clear = []
    for one, own in cases:
        key = master(one.key_id)
        for upper in one.upper_factors:
            key = diversify.pboc("3des", key, upper, one.parity).tobytes()
        match one.method:
            case "pboc":
                clear.append(diversify.pboc("3des", key, own.tobytes(), one.parity).tobytes())
            case "an10922":
                clear.append(diversify.an10922("aes", key, own.tobytes()).tobytes())
            case _:
                clear.append(diversify.gp_kdf3(key, own.tobytes(), "dek").tobytes())
    pin = b"2612345678FFFFFF"
    channel = filled.channel("maker.kmc", KDD, HOST, CARD)
    wanted = [CardKey(*case) for case in cases]
    alone = channel.wrap([[key] for key in wanted])
    assert [span[0] for span in alone] == [
        (cbc(static("dek"), key), kcv(one.algorithm, key)) for (one, _), key in zip(cases, clear, strict=True)
    ]
    (together,) = channel.wrap([[*wanted, pin]])
    assert b"".join(secret.cryptogram for secret in together) == cbc(static("dek"), b"".join(clear) + pin)
    assert together[-1].kcv == b""
    # the case that a forced parity would spoil: a key whose bytes SoftHSM would have changed
    assert any(byte.bit_count() % 2 == 0 for byte in clear[0])
    channel.close()


def test_a_key_that_is_not_token_only_is_refused(token):
    for spec in SPECS:
        loose = spec.key_id in ("transport.3des.load", "issuer.kmc")
        token.import_key(spec, master(spec.key_id), KeyPolicy(custody="host-clear" if loose else "token-only"))
    assert reason_of(Denied, lambda: token.channel("issuer.kmc", KDD, HOST, CARD)) == "KEY_POLICY"
    channel = token.channel("maker.kmc", KDD, HOST, CARD)
    wanted = CardKey(Derivation("transport.3des.load", "pboc", "3des"), np.zeros(8, np.uint8))
    assert reason_of(Denied, lambda: channel.wrap([[wanted]])) == "KEY_POLICY"
    assert reason_of(Denied, lambda: token.card_ecb(wanted, bytes(8))) == "KEY_POLICY"
    assert reason_of(Denied, lambda: token.card_session_cbc_mac(wanted, bytes(16), bytes(8))) == "KEY_POLICY"
    assert reason_of(Denied, lambda: token.prove_inside(wanted.derivation, np.zeros((1, 8), np.uint8))) == "KEY_POLICY"
    channel.close()


# -- the card --------------------------------------------------------------------------------------------------------------


def test_the_profile_of_these_tests_is_clean():
    lint.require_clean(PROFILE)
    proofs = {key.prove for key in COMPILED.keys}
    assert {"internal-authenticate", "external-authenticate", "initialize-for-load", "generate-ac"} <= proofs
    assert {key.parity for key in COMPILED.keys} == {"none", "odd"}
    assert any(len(span) == 3 for span in spans_of(COMPILED))


def test_a_card_is_made_and_proven_and_every_byte_is_the_softwares(filled, software, tmp_path):
    before = objects_of_sessions(filled)
    line = Line(tmp_path / "chips")
    card = line.prepared(filled)
    assert isinstance(card, TokenCard)
    same = line.card(software)
    assert type(same) is CardInMaking
    same.open(line.challenge, line.response)
    same.prepare(line.columns)
    segment = card.personalization()
    # all but INITIALIZE UPDATE, which carries a random of its own
    assert segment.commands[:-1] == same.personalization().commands[:-1]
    slab = play(line.chip, segment)
    card.accept_personalization(slab)
    same.accept_personalization(slab)
    same.close()
    first = card.first_proof(slab)
    proved = {step.proves for step in card._steps} - {None}
    while first is not None:
        first = card.next_proof(play(line.chip, first))
        proved |= {step.proves for step in card._steps} - {None}
    assert proved == {key.label for key in COMPILED.keys if key.prove != "kcv-only"}
    card.close()
    # the issuer's keys are in, the maker's are gone
    line.chip.transmit(bytes.fromhex("00A4040008A00000015100000000"))
    assert line.chip.transmit(bytes.fromhex("8050300008" + "11" * 8 + "00")) == b"\x6a\x88"
    assert line.chip.transmit(bytes.fromhex("8050310008" + "11" * 8 + "00"))[10:12] == b"\x31\x03"
    # what stays are the keys between masters and cards
    chains = filled.session.run(lambda live: set(live.chains.values()))
    assert objects_of_sessions(filled) - before == chains


def test_the_image_holds_no_secret(filled, software, tmp_path):
    line = Line(tmp_path / "chips")
    card = line.prepared(filled)
    clear = line.card(software)
    clear.open(line.challenge, line.response)
    clear.prepare(line.columns)
    image, other = card._image.array[0], clear._image.array[0]
    secret = {at for offset, length in COMPILED.spans for at in range(offset, offset + length)}
    assert all(image[at] == other[at] for at in range(len(image)) if at not in secret)
    for offset, length in COMPILED.spans:
        assert image[offset : offset + length].tobytes() != other[offset : offset + length].tobytes()
    assert card._keys is None
    assert not np.array_equal(card._issuer.array, clear._issuer.array)
    for one in (card, clear):
        one.close()


def test_answers_that_are_not_the_cards_are_found(filled, tmp_path):
    line = Line(tmp_path / "chips")
    card = line.encoded(filled)
    segment = card.first_proof(line.slab)
    denied = set()
    while segment is not None:
        slab = play(line.chip, segment)
        answers = from_slab(slab)
        for at, step in enumerate(card._steps):
            if step.proves and len(answers[at]) > 2:
                with pytest.raises(Denied) as caught:
                    step.check(bytes([*answers[at][:-3], answers[at][-3] ^ 1]))
                assert caught.value.reason == "VERIFY_FAILED"
                denied.add(step.proves)
        segment = card.next_proof(slab)
    # those that the card proves; an EXTERNAL AUTHENTICATE is proven by its status word
    assert denied == {key.label for key in COMPILED.keys if key.prove not in ("kcv-only", "external-authenticate")}
    card.close()


def test_wrong_answers_of_the_channel_are_refused(filled, tmp_path):
    line = Line(tmp_path / "chips")
    for at in range(21, 29):
        changed = bytearray(line.response)
        changed[at] ^= 1
        assert reason_of(Denied, lambda changed=changed: line.card(filled).open(line.challenge, bytes(changed))) == "CARD_CRYPTOGRAM"
    card = line.prepared(filled)
    answers = from_slab(play(line.chip, card.personalization()))
    for at in (1, len(answers) - 4, len(answers) - 3):
        spoiled = list(answers)
        spoiled[at] = bytes([spoiled[at][0] ^ 1]) + spoiled[at][1:]
        again = line.card(filled)
        again.rebuild(line.challenge, line.response, line.columns, line.digest)
        assert reason_of(Denied, lambda again=again, spoiled=spoiled: again.personalization_again(to_slab(spoiled))) == "RESPONSE_MAC"
        again.close()
    card.close()


def test_a_restart_goes_on_with_the_journaled_answers(filled, tmp_path):
    line = Line(tmp_path / "chips")
    first = line.prepared(filled)
    slab = play(line.chip, first.personalization())
    first.close()
    again = line.card(filled)
    again.rebuild(line.challenge, line.response, line.columns, line.digest)
    again.personalization_again(slab)
    line.finish(again, again.first_proof(play(line.chip, again.reopen())))


def test_rebuild_refuses_other_keys_and_other_data(filled, tmp_path):
    line = Line(tmp_path / "chips")
    line.prepared(filled).close()
    changed = line.columns | {"card_number": np.array([b"G00000016"])}
    assert reason_of(Corrupt, lambda: line.card(filled).rebuild(line.challenge, line.response, changed, line.digest)) == "IMAGE_CHANGED"
    # a key of which the card tells nobody a check value is bound as well
    spec = next(spec for spec in SPECS if spec.key_id == "transport.3des.reserve-2")
    filled.import_key(spec, AES, KeyPolicy(custody="token-only"), version=2)
    found = reason_of(Corrupt, lambda: line.card(filled).rebuild(line.challenge, line.response, line.columns, line.digest))
    assert found == "IMAGE_CHANGED"


def test_keys_of_one_profile_work_for_its_cards_only(token, tmp_path):
    fill(token, profiles=("token-only-card",))
    line = Line(tmp_path / "chips")
    card = line.encoded(token)
    line.finish(card, card.first_proof(line.slab))
    assert reason_of(Denied, lambda: token.channel("maker.kmc", KDD, HOST, CARD)) == "KEY_PROFILE"


# -- what a token cannot ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "mechanism"),
    [("derive", 0x3AC), ("derive", 0x364), ("derive", 0x360), ("derive", Mechanism.AES_CMAC), ("wrap", Mechanism.DES3_ECB)],
    ids=["sp800-108-counter-kdf", "xor-base-and-data", "concatenate-base-and-key", "a-key-of-a-cmac", "scp02-dek"],
)
def test_the_mechanisms_that_softhsm_does_not_have(filled, operation, mechanism):
    """Why session keys are composed, TAC keys are not folded, and SCP02 is refused. One that comes some day would simplify or allow."""
    call = MechanismCall(mechanism)
    target = objects.session_template(KeyType.AES, Attribute.SIGN, extractable=True)
    blocks = np.zeros(16, np.uint8)

    def work(live):
        base = live.handle("maker.kmc", objects.ident(1))
        if operation == "derive":
            live.cryptoki.derive(live.session, base, call, target)
        root = live.handle("city.root.iak", objects.ident(1))
        dek = objects.derive(live, root, "3des", blocks, objects.session_template(KeyType.DES2, Attribute.WRAP, extractable=False))
        key = objects.derive(live, root, "3des", blocks, objects.session_template(KeyType.DES2, Attribute.ENCRYPT, extractable=True))
        live.cryptoki.wrap(live.session, dek, call, key, blocks.ctypes.data, 16)

    assert reason_of(Unsupported, lambda: filled.session.run(work)) == "TOKEN_MECHANISM"


@pytest.mark.parametrize(("profile", "reason"), [(NAME, "TOKEN_ALGORITHM"), (f"{NAME}-scp02", "TOKEN_ONLY_SCP02")], ids=["sm4", "scp02"])
def test_cards_that_cannot_be_made_in_a_token(token, profile, reason):
    loaded = load(profile)
    compiled = compile_profile(loaded, 19)
    for spec in dict.fromkeys(master_specs(loaded.profile)):
        if spec.algorithm != "sm4":
            token.import_key(spec, master(spec.key_id), KeyPolicy(custody="token-only"))
    assert reason_of(Unsupported, lambda: card_in_making(compiled, token, 1)) == reason
    assert reason_of(Unsupported, lambda: prove_derivations(compiled, token)) == reason


def test_secrets_that_are_no_whole_keys_are_refused(filled):
    offset, length = COMPILED.spans[0]
    for spans in (((offset + 1, length),), ((offset, length - 1),)):
        odd = replace(COMPILED, spans=spans)
        assert reason_of(Unsupported, lambda odd=odd: card_in_making(odd, filled, 1)) == "TOKEN_LAYOUT"


def test_a_sample_is_not_tested(filled, tmp_path):
    line = Line(tmp_path / "chips")
    card = line.encoded(filled)
    assert reason_of(Unsupported, card.material) == "TOKEN_ONLY_SAMPLE"
    card.close()


def test_card_keys_of_a_token_only_master_do_not_go_onto_a_card_of_the_host(token, tmp_path):
    for spec in SPECS:
        token.import_key(spec, master(spec.key_id), KeyPolicy(custody="token-only" if spec.key_id == "city.root.iak" else "host-clear"))
    line = Line(tmp_path / "chips")
    card = line.card(token)
    assert type(card) is CardInMaking
    assert reason_of(Denied, lambda: line.prepared(token)) == "TOKEN_ONLY"


def test_who_holds_the_keys_is_seen_through_a_composite(filled, software):
    assert holder_of(CompositeCustody([filled]), "maker.kmc") is filled
    assert holder_of(software, "maker.kmc") is None


def test_the_line_makes_its_cards_in_the_token(rig, filled, tmp_path):
    write_setup(tmp_path / "data", Setup(custody="token", module=str(rig.config.module), label=rig.config.label))
    with KeyRoom(tmp_path / "data", mode="test") as room:
        room.unseal(SecretBytes(PIN))
        assert type(Context(None, room, None).card(COMPILED, 1)) is TokenCard


# -- the witness -----------------------------------------------------------------------------------------------------------


def test_the_witness_compares_in_the_token(filled, monkeypatch):
    before = objects_of_sessions(filled)
    assert prove_derivations(COMPILED, filled) == 2 * (len(COMPILED.keys) + 6)
    right = compose.halves
    monkeypatch.setattr(compose, "halves", lambda factors: right(factors ^ np.uint8(factors.sum() % 2 == 0)))
    found = reason_of(Corrupt, lambda: [prove_derivations(COMPILED, filled) for _ in range(20)])
    assert found == "DERIVATION_WITNESS"
    chains = filled.session.run(lambda live: set(live.chains.values()))
    assert objects_of_sessions(filled) - before == chains


# -- what happens to a token -----------------------------------------------------------------------------------------------


def restart(custody):
    """Somebody finalizes the module: every session in it ends, every object of a session is gone."""
    library = pkcs11.lib(str(custody.session.config.module))
    custody.session.run(lambda _: library.finalize())


@pytest.mark.parametrize("step", ["opened", "prepared", "personalized", "accepted", "proving"])
def test_a_card_goes_on_after_a_restart_of_the_module(filled, tmp_path, step):
    line = Line(tmp_path / "chips")
    card = line.card(filled)

    def reach(now):
        if now == step:
            restart(filled)

    serial = card.open(line.challenge, line.response).serial
    reach("opened")
    card.prepare(columns_for(serial))
    reach("prepared")
    slab = play(line.chip, card.personalization())
    reach("personalized")
    card.accept_personalization(slab)
    reach("accepted")
    segment = card.first_proof(slab)
    reach("proving")
    line.finish(card, segment)
    assert filled.state is TokenState.READY


@pytest.mark.parametrize("when", [1, 7, 15], ids=["at-once", "in-the-midst", "near-the-end"])
@pytest.mark.parametrize("call", ["sign", "wrap", "derive"])
def test_a_loss_in_the_midst_of_a_piece_begins_it_again(filled, software, tmp_path, monkeypatch, call, when):
    line = Line(tmp_path / "chips")
    card = line.card(filled)
    columns = columns_for(card.open(line.challenge, line.response).serial)
    right, left = getattr(Cryptoki, call), [when]

    def interrupted(self, *arguments):
        left[0] -= 1
        if left[0] == 0:
            pkcs11.lib(str(filled.session.config.module)).finalize()
        return right(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Cryptoki, call, interrupted)
        card.prepare(columns)
    assert left[0] < 0, "the loss came, and the piece began again"
    same = line.card(software)
    same.open(line.challenge, line.response)
    same.prepare(columns)
    segment = card.personalization()
    assert segment.commands[:-1] == same.personalization().commands[:-1]
    same.close()
    slab = play(line.chip, segment)
    card.accept_personalization(slab)
    line.finish(card, card.first_proof(slab))


def test_a_token_that_is_away_is_waited_for(rig, filled, tmp_path):
    line = Line(tmp_path / "chips")
    card = line.prepared(filled)
    slab = play(line.chip, card.personalization())
    elsewhere = rig.tokens.with_name("elsewhere")
    rig.tokens.rename(elsewhere)
    restart(filled)
    for _ in range(2):
        assert reason_of(Unavailable, lambda: card.accept_personalization(slab)) == "TOKEN_GONE"
    elsewhere.rename(rig.tokens)
    card.accept_personalization(slab)
    line.finish(card, card.first_proof(slab))


def test_after_zeroize_a_card_in_making_is_dead(filled, tmp_path):
    line = Line(tmp_path / "chips")
    card = line.prepared(filled)
    slab = play(line.chip, card.personalization())
    filled.zeroize()
    assert reason_of(Precondition, lambda: card.accept_personalization(slab)) == "ZEROIZED"
    card.close()
    assert card._image is None


def test_a_handle_of_a_session_that_ended_destroys_nothing(filled):
    """After a restart handles are given out anew: closing a channel of before must not hit a master."""
    channel = filled.channel("maker.kmc", KDD, HOST, CARD)
    channel.cryptograms()
    restart(filled)
    there = filled.session.run(lambda live: dict(live.handles))
    stale = channel._made
    channel._made = stale._replace(dek=there["maker.kmc", b"\x01"])
    channel.close()
    again = filled.channel("maker.kmc", KDD, HOST, CARD)
    assert again.cryptograms()
    again.close()
