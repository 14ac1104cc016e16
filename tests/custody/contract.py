"""What every custody must do, run against each: the same master gives the same card keys wherever it lives."""

import numpy as np
import pytest

from keys import diversify
from keys.algorithms import ALGORITHMS
from keys.custody import Custody, Derivation
from keys.custody.working import KeySpec
from keys.errors import CitycardError, Corrupt, Denied, InvalidInput, NotFound, Precondition
from keys.hierarchy import Domain, KeyState, Purpose
from keys.kcv import kcv

TDES = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
SM4 = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
AES = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
KEK_AES = bytes.fromhex("000102030405060708090A0B0C0D0E0F")
KEK_TDES = bytes.fromhex("1F1E1D1C1B1A19180706050403020100")
MASTERS = {
    "t.3des": (KeySpec("t.3des", Domain.TRANSPORT, "3des"), TDES),
    "maker.kmc": (KeySpec("maker.kmc", Domain.CHIP, "aes", Purpose.SECURITY_DOMAIN), AES),
    "old.kmc": (KeySpec("old.kmc", Domain.CHIP, "3des", Purpose.SECURITY_DOMAIN), AES),
    "kek.aes": (KeySpec("kek.aes", Domain.CITY, "aes", Purpose.KEY_ENCRYPTION), KEK_AES),
    "kek.3des": (KeySpec("kek.3des", Domain.CITY, "3des", Purpose.KEY_ENCRYPTION), KEK_TDES),
    "t.sm4": (KeySpec("t.sm4", Domain.TRANSPORT, "sm4"), SM4),
    "kek.sm4": (KeySpec("kek.sm4", Domain.CITY, "sm4", Purpose.KEY_ENCRYPTION), KEK_AES),
}
UPPER = (b"410000sh", b"410100sx")
WRAPPED_LEN = {"aes-kw": 24, "ecb": 16, "cbc": 16}

DERIVATIONS = [
    Derivation("t.3des", "pboc", "3des"),
    Derivation("t.3des", "pboc", "3des", (), "odd"),
    Derivation("t.3des", "pboc", "3des", UPPER[:1]),
    Derivation("t.3des", "pboc", "3des", UPPER),
    Derivation("t.3des", "pboc", "3des", UPPER, "odd"),
    *(Derivation("old.kmc", method, "3des", purpose=purpose) for method in ("gp-emv", "gp-visa2") for purpose in ("enc", "mac", "dek")),
    *(Derivation("maker.kmc", "gp-kdf3", "aes", purpose=purpose) for purpose in ("enc", "mac", "dek")),
    Derivation("maker.kmc", "emv-c", "aes"),
    Derivation("maker.kmc", "an10922", "aes"),
    Derivation("old.kmc", "an10922", "3des"),
    Derivation("maker.kmc", "sp800-108", "aes", label=b"city"),
    Derivation("maker.kmc", "sp800-108", "aes", label=b"a label longer than one block"),
    Derivation("t.sm4", "pboc", "sm4"),
    Derivation("t.sm4", "pboc", "sm4", UPPER),
]


def name(derivation):
    return f"{derivation.key_id}-{derivation.method}-{derivation.purpose or len(derivation.upper_factors)}-{derivation.parity}"


def factors_for(derivation, n, seed=1, width=None):
    widths = derivation.factor_lens
    width = width or {"an10922": widths[-1] // 2, "sp800-108": 7}.get(derivation.method, widths[0])
    return np.random.default_rng(seed).integers(0, 256, (n, width), np.uint8)


def known_answer(derivation, factor):
    """The card key straight from the key's bytes by `keys.diversify`."""
    key, method = MASTERS[derivation.key_id][1], derivation.method
    for upper in derivation.upper_factors:
        key = diversify.pboc(derivation.algorithm, key, upper, derivation.parity).tobytes()
    match method:
        case "pboc":
            return diversify.pboc(derivation.algorithm, key, factor, derivation.parity).tobytes()
        case "gp-emv":
            return diversify.gp_emv(key, factor, derivation.purpose, derivation.parity).tobytes()
        case "gp-visa2":
            return diversify.gp_visa2(key, factor, derivation.purpose, derivation.parity).tobytes()
        case "gp-kdf3":
            return diversify.gp_kdf3(key, factor, derivation.purpose).tobytes()
        case "emv-c":
            return diversify.emv_c(key, np.frombuffer(factor, np.uint8).reshape(1, -1)).tobytes()
        case "an10922":
            return diversify.an10922(derivation.algorithm, key, factor).tobytes()
        case "sp800-108":
            return diversify.sp800_108(key, derivation.label, factor, 16).tobytes()


def reason_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, CitycardError)
    return caught.value.reason


class CustodyContract:
    """A subclass gives the fixture `custody`, which holds MASTERS of `algorithms`; `fresh_custody` the same store opened anew."""

    algorithms = ALGORITHMS
    derives_clear = True
    without = ()

    def schemes(self, algorithm):
        return ("aes-kw", "cbc", "ecb")

    def derivations(self):
        return [wanted for wanted in DERIVATIONS if wanted.algorithm in self.algorithms]

    def kek(self, scheme, algorithm):
        return "kek.aes" if scheme == "aes-kw" else f"kek.{algorithm}"

    def wrapped(self, custody, derivation, factors, scheme):
        n = len(factors)
        cryptograms, kcvs = np.empty((1, n, WRAPPED_LEN[scheme]), np.uint8), np.empty((1, n, 3), np.uint8)
        custody.derive_wrapped([derivation], [factors], [self.kek(scheme, derivation.algorithm)], scheme, cryptograms, kcvs)
        return cryptograms[0], kcvs[0]

    def by_software(self, derivation, factor, scheme):
        from keys import witness

        clear = known_answer(derivation, factor)
        kek = MASTERS[self.kek(scheme, derivation.algorithm)][1]
        return witness.wrap(scheme, derivation.algorithm, kek, clear), kcv(derivation.algorithm, clear)

    def test_it_is_a_custody_and_says_what_its_keys_are(self, custody):
        held: Custody = custody
        records = {record.key_id: record for record in held.inventory()}
        for key_id, (spec, key) in MASTERS.items():
            if spec.algorithm in self.algorithms and key_id not in self.without:
                assert records[key_id].kcv == kcv(spec.algorithm, key).hex().upper()
                assert held.record(key_id) == records[key_id]
                assert records[key_id].test

    def test_the_same_master_gives_the_same_card_keys(self, custody):
        wanted = self.derivations()
        for n in (1, 3, 70):
            factors = [factors_for(one, n, seed) for seed, one in enumerate(wanted)]
            if not self.derives_clear:
                assert reason_of(Denied, lambda factors=factors: custody.derive(wanted, factors)) == "TOKEN_ONLY"
                continue
            with custody.derive(wanted, factors) as made:
                assert made.shape == (len(wanted), n, 16)
                for i, one in enumerate(wanted):
                    for row in {0, n - 1}:
                        assert made.array[i, row].tobytes() == known_answer(one, factors[i][row].tobytes()), name(one)

    def test_inputs_of_every_length(self, custody):
        for derivation, widths in (
            (Derivation("maker.kmc", "an10922", "aes"), (1, 14, 15, 16, 30, 31)),
            (Derivation("old.kmc", "an10922", "3des"), (1, 6, 7, 8, 14, 15)),
            (Derivation("maker.kmc", "sp800-108", "aes", label=b"x"), (0, 1, 6, 7, 8, 22, 23, 24, 40)),
        ):
            for width in widths:
                factors = np.random.default_rng(width).integers(0, 256, (2, width), np.uint8)
                cryptograms, kcvs = self.wrapped(custody, derivation, factors, "aes-kw")
                assert (cryptograms[1].tobytes(), kcvs[1].tobytes()) == self.by_software(derivation, factors[1].tobytes(), "aes-kw")

    def test_wrapped_card_keys_are_the_same(self, custody):
        for seed, derivation in enumerate(self.derivations()):
            for scheme in self.schemes(derivation.algorithm):
                factors = factors_for(derivation, 5, seed)
                cryptograms, kcvs = self.wrapped(custody, derivation, factors, scheme)
                for row in (0, 4):
                    expected = self.by_software(derivation, factors[row].tobytes(), scheme)
                    assert (cryptograms[row].tobytes(), kcvs[row].tobytes()) == expected, (name(derivation), scheme)

    def test_the_witness_finds_the_same_keys(self, custody):
        for seed, derivation in enumerate(self.derivations()):
            factor = factors_for(derivation, 1, seed)[0].tobytes()
            if self.derives_clear:
                with custody.witness(derivation, factor) as key:
                    assert key.reveal() == known_answer(derivation, factor), name(derivation)
            else:
                assert reason_of(Denied, lambda d=derivation, f=factor: custody.witness(d, f)) == "TOKEN_ONLY"
            for scheme in self.schemes(derivation.algorithm):
                found = custody.witness_wrapped(derivation, factor, self.kek(scheme, derivation.algorithm), scheme)
                assert found == self.by_software(derivation, factor, scheme), (name(derivation), scheme)

    def test_data_keys_and_hmac_keys_last(self, custody, reopen):
        wrapped = custody.wrap_data_key(b"k" * 32)
        mac = bytes(custody.hmac_key("duplicates").reveal())
        assert len(wrapped) == 40
        assert custody.hmac_key("other").reveal() != mac
        with reopen(custody) as again:
            assert again.unwrap_data_key(wrapped).reveal() == b"k" * 32
            assert again.hmac_key("duplicates").reveal() == mac
            damaged = bytes([wrapped[0] ^ 1]) + wrapped[1:]
            assert reason_of(Corrupt, lambda: again.unwrap_data_key(damaged)) == "DATA_KEY_CORRUPT"
            assert reason_of(InvalidInput, lambda: again.wrap_data_key(b"short")) == "DATA_KEY_LENGTH"

    @pytest.mark.parametrize(
        ("kind", "reason", "derivation", "shape"),
        [
            (NotFound, "KEY_UNKNOWN", Derivation("no.such", "pboc", "3des"), (1, 8)),
            (InvalidInput, "KEY_ALGORITHM", Derivation("t.3des", "pboc", "sm4"), (1, 8)),
            (Denied, "KEY_PURPOSE", Derivation("kek.aes", "emv-c", "aes"), (1, 16)),
            (InvalidInput, "WRONG_SHAPE", Derivation("t.3des", "pboc", "3des"), (1, 7)),
            (InvalidInput, "NO_ROWS", Derivation("t.3des", "pboc", "3des"), (0, 8)),
        ],
    )
    def test_wrong_requests_are_named(self, custody, kind, reason, derivation, shape):
        factors = np.zeros(shape, np.uint8)
        out, kcvs = np.empty((1, shape[0], 24), np.uint8), np.empty((1, shape[0], 3), np.uint8)
        assert reason_of(kind, lambda: custody.derive_wrapped([derivation], [factors], ["kek.aes"], "aes-kw", out, kcvs)) == reason
        if self.derives_clear:
            assert reason_of(kind, lambda: custody.derive([derivation], [factors])) == reason

    @pytest.mark.parametrize(
        ("kind", "reason", "kek", "scheme"),
        [
            (InvalidInput, "WRAP_UNKNOWN", "kek.aes", "rot13"),
            (InvalidInput, "KEK_ALGORITHM", "kek.3des", "aes-kw"),
            (Denied, "KEY_PURPOSE", "maker.kmc", "aes-kw"),
            (NotFound, "KEY_UNKNOWN", "no.such", "aes-kw"),
        ],
    )
    def test_wrong_wrappings_are_named(self, custody, kind, reason, kek, scheme):
        out, kcvs = np.empty((1, 1, 24), np.uint8), np.empty((1, 1, 3), np.uint8)
        wanted = [Derivation("t.3des", "pboc", "3des")]
        if kek in self.without:
            kind, reason = NotFound, "KEY_UNKNOWN"
        found = reason_of(kind, lambda: custody.derive_wrapped(wanted, [np.zeros((1, 8), np.uint8)], [kek], scheme, out, kcvs))
        assert found == reason

    def test_nothing_shows_a_key(self, custody):
        shown = repr(custody) + "".join(map(repr, custody.inventory()))
        for _, key in MASTERS.values():
            assert key.hex().lower() not in shown.lower()

    def test_a_deactivated_key_derives_nothing(self, custody):
        custody.set_state("old.kmc", 1, KeyState.DEACTIVATED)
        wanted = [Derivation("old.kmc", "gp-emv", "3des", purpose="enc")]
        out, kcvs = np.empty((1, 1, 24), np.uint8), np.empty((1, 1, 3), np.uint8)

        def derive():
            custody.derive_wrapped(wanted, [np.zeros((1, 10), np.uint8)], ["kek.aes"], "aes-kw", out, kcvs)

        assert reason_of(Precondition, derive) == "KEY_NOT_ACTIVE"
        assert custody.record("old.kmc").state is KeyState.DEACTIVATED
