"""Policies are enforced wherever keys are derived, and several custodies act as one."""

from datetime import date

import numpy as np
import pytest

from keys.custody import Derivation
from keys.custody.composite import CompositeCustody
from keys.custody.policy import KeyPolicy, working_for
from keys.custody.sealed import RebuiltKey, SealedCustody
from keys.custody.token import TokenSealer
from keys.custody.working import KeySpec
from keys.errors import Conflict, Denied, InvalidInput, NotFound, Precondition
from keys.hierarchy import Domain, KeyState, Purpose
from keys.secrets import SecretBytes
from tests.custody.contract import TDES, reason_of

START, END = date(2026, 1, 1), date(2026, 12, 31)
WANTED = [Derivation("t.3des", "pboc", "3des")]
FACTORS = [np.zeros((1, 8), np.uint8)]
SPEC = KeySpec("t.3des", Domain.TRANSPORT, "3des")
KEK = KeySpec("kek", Domain.CITY, "aes", Purpose.KEY_ENCRYPTION)


class Clock:
    day = date(2026, 11, 23)

    def __call__(self):
        return self.day


@pytest.fixture(params=["sealed", "host-clear", "token-only"])
def held(request, rig, tmp_path):
    """A custody, the policy's holder in it, and its clock."""
    clock = Clock()
    if request.param == "sealed":
        custody = SealedCustody.create(tmp_path, RebuiltKey(SecretBytes(bytes(32))), test=True, clock=clock)
    else:
        custody = rig.create(clock=clock)
    with custody:
        custody.generate(KEK, KeyPolicy(custody=request.param))
        yield custody, request.param, clock


def wrap(custody, wanted=WANTED, factors=FACTORS):
    out, kcvs = np.empty((1, 1, 24), np.uint8), np.empty((1, 1, 3), np.uint8)
    custody.derive_wrapped(wanted, factors, ["kek"], "aes-kw", out, kcvs)
    return out.tobytes()


def test_methods(held):
    custody, holder, _ = held
    custody.import_key(SPEC, TDES, KeyPolicy(custody=holder, methods=("pboc",)))
    wrap(custody)
    other = [Derivation("t.3des", "gp-emv", "3des", purpose="enc")]
    assert reason_of(Denied, lambda: wrap(custody, other, [np.zeros((1, 10), np.uint8)])) == "KEY_METHOD"
    assert reason_of(Denied, lambda: custody.derive(other, [np.zeros((1, 10), np.uint8)])) == "KEY_METHOD"
    assert reason_of(Denied, lambda: custody.witness(other[0], bytes(10))) == "KEY_METHOD"


def test_profiles(held):
    custody, holder, _ = held
    custody.import_key(SPEC, TDES, KeyPolicy(custody=holder, profiles=("citizen",)))
    assert reason_of(Denied, lambda: wrap(custody)) == "KEY_PROFILE"
    with working_for("student"):
        assert reason_of(Denied, lambda: wrap(custody)) == "KEY_PROFILE"
        with working_for("citizen"):
            wrap(custody)
        assert reason_of(Denied, lambda: wrap(custody)) == "KEY_PROFILE"


def test_cryptoperiod(held):
    custody, holder, clock = held
    custody.import_key(SPEC, TDES, KeyPolicy(custody=holder, not_before=START, not_after=END, warn_days=60))
    for day, reason in (
        (START.replace(year=2025, month=12, day=31), "KEY_NOT_YET"),
        (END.replace(year=2027, month=1, day=1), "KEY_EXPIRED"),
    ):
        clock.day = day
        assert reason_of(Precondition, lambda: wrap(custody)) == reason
    for day in (START, END):
        clock.day = day
        wrap(custody)


def test_warnings_come_before_the_end_and_only_for_living_keys(held):
    custody, holder, clock = held
    custody.import_key(SPEC, TDES, KeyPolicy(custody=holder, not_after=END, warn_days=60))

    def warning():
        (found,) = [entry for entry in custody.entries() if entry.record.key_id == "t.3des"]
        return found.warning

    for day, expected in (
        (date(2026, 10, 31), None),
        (date(2026, 11, 1), "cryptoperiod ends on 2026-12-31, in 60 days"),
        (END, "cryptoperiod ends on 2026-12-31, in 0 days"),
        (date(2027, 1, 1), "cryptoperiod ended on 2026-12-31"),
    ):
        clock.day = day
        assert warning() == expected
    custody.set_state("t.3des", 1, KeyState.DEACTIVATED)
    assert warning() is None


def test_policies_last(held, rig, tmp_path):
    custody, holder, _ = held
    policy = KeyPolicy(custody=holder, methods=("pboc",), profiles=("citizen",), not_before=START, not_after=END, warn_days=7)
    custody.import_key(SPEC, TDES, policy)
    with SealedCustody.open(tmp_path, mode="test") if holder == "sealed" else rig.open() as again:
        assert again.policy("t.3des") == policy
        assert reason_of(NotFound, lambda: again.policy("no.such")) == "KEY_UNKNOWN"


def test_an_inventory_entry_has_everything_but_the_key(held):
    custody, holder, _ = held
    custody.import_key(SPEC, TDES, KeyPolicy(custody=holder, not_after=END), origin="ministry")
    (found,) = [entry.as_dict() for entry in custody.entries() if entry.record.key_id == "t.3des"]
    assert found == {
        "key": "t.3des",
        "version": 1,
        "domain": "transport",
        "purpose": "application",
        "level": "city",
        "algorithm": "3des",
        "state": "active",
        "kcv": "08D7B4",
        "kcv_method": "zero-block",
        "origin": "ministry",
        "test": True,
        "custody": holder,
        "exportable": False,
        "methods": [],
        "profiles": [],
        "not_before": None,
        "not_after": "2026-12-31",
        "warning": "cryptoperiod ends on 2026-12-31, in 38 days",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"custody": "drawer"},
        {"custody": "sealed", "methods": ("rot13",)},
        {"custody": "sealed", "not_before": END, "not_after": START},
        {"custody": "token-only", "exportable": True},
    ],
)
def test_impossible_policies(wrong):
    assert reason_of(InvalidInput, lambda: KeyPolicy(**wrong)) == "KEY_POLICY"


# -- several custodies ---------------------------------------------------------------------------------------------------


@pytest.fixture
def both(token, tmp_path):
    with SealedCustody.create(tmp_path, TokenSealer(token.session), test=True) as sealed:
        token.import_key(SPEC, TDES, KeyPolicy(custody="host-clear"))
        token.import_key(KeySpec("inside", Domain.CITY, "3des"), TDES, KeyPolicy(custody="token-only"))
        token.generate(KeySpec("kek.only", Domain.CITY, "aes", Purpose.KEY_ENCRYPTION), KeyPolicy(custody="token-only"))
        token.generate(KeySpec("kek.clear", Domain.CITY, "aes", Purpose.KEY_ENCRYPTION), KeyPolicy(custody="host-clear"))
        sealed.import_key(KeySpec("t.sm4", Domain.CITY, "sm4"), TDES, KeyPolicy(custody="sealed"))
        sealed.generate(KeySpec("kek.sealed", Domain.CITY, "aes", Purpose.KEY_ENCRYPTION), KeyPolicy(custody="sealed"))
        yield token, sealed, CompositeCustody([token, sealed])


@pytest.mark.parametrize("kek", ["kek.only", "kek.clear", "kek.sealed"])
@pytest.mark.parametrize("key_id", ["t.3des", "t.sm4", "inside"])
def test_any_kek_wraps_any_key_that_may_leave(both, key_id, kek):
    _, _, custody = both
    wanted = Derivation(key_id, "pboc", "sm4" if key_id == "t.sm4" else "3des")
    out, kcvs = np.empty((1, 300, 24), np.uint8), np.empty((1, 300, 3), np.uint8)
    factors = np.random.default_rng(1).integers(0, 256, (300, 8), np.uint8)

    def derive():
        custody.derive_wrapped([wanted], [factors], [kek], "aes-kw", out, kcvs)

    if key_id == "inside" and kek != "kek.only":
        assert reason_of(Denied, derive) == ("KEY_POLICY" if kek == "kek.clear" else "TOKEN_ONLY")
        return
    derive()
    for row in (0, 299):
        assert custody.witness_wrapped(wanted, factors[row].tobytes(), kek, "aes-kw") == (out[0, row].tobytes(), kcvs[0, row].tobytes())


def test_token_schemes(both):
    token, _, _ = both
    wanted = [Derivation("inside", "pboc", "3des", (b"410000sh",))]
    out, kcvs = np.empty((1, 2, 24), np.uint8), np.empty((1, 2, 3), np.uint8)
    factors = np.arange(16, dtype=np.uint8).reshape(2, 8)
    token.derive_wrapped(wanted, [factors], ["kek.only"], "aes-kwp", out, kcvs)
    assert token.witness_wrapped(wanted[0], factors[1].tobytes(), "kek.only", "aes-kwp") == (out[0, 1].tobytes(), kcvs[0, 1].tobytes())
    token.generate(KeySpec("kek.des", Domain.CITY, "3des", Purpose.KEY_ENCRYPTION), KeyPolicy(custody="host-clear"))
    narrow = np.empty((1, 2, 16), np.uint8)
    assert reason_of(Denied, lambda: token.derive_wrapped(wanted, [factors], ["kek.des"], "ecb", narrow, kcvs)) == "KEY_POLICY"
    clear = [Derivation("t.3des", "pboc", "3des")]
    assert reason_of(InvalidInput, lambda: token.derive_wrapped(clear, [factors], ["kek.only"], "ecb", narrow, kcvs)) == "KEK_ALGORITHM"


def test_one_name_in_two_custodies_is_refused(both):
    token, sealed, _ = both
    sealed.import_key(SPEC, TDES, KeyPolicy(custody="sealed"))
    assert reason_of(Conflict, lambda: CompositeCustody([token, sealed])) == "KEY_EXISTS"
    assert reason_of(InvalidInput, lambda: CompositeCustody([])) == "CUSTODY_NONE"


def test_zeroizing_reaches_every_custody(both):
    token, sealed, custody = both
    custody.zeroize()
    for derivation in (WANTED[0], Derivation("t.sm4", "pboc", "sm4")):
        assert reason_of(Precondition, lambda wanted=derivation: custody.derive([wanted], FACTORS)) == "ZEROIZED"
    assert reason_of(Precondition, lambda: custody.hmac_key("x")) == "ZEROIZED"
    assert str(token.state) == str(sealed.state) == "zeroized"


def test_a_sealed_root_serves_data_keys(both):
    token, sealed, _ = both
    custody = CompositeCustody([sealed, token])
    wrapped = custody.wrap_data_key(bytes(32))
    assert sealed.unwrap_data_key(wrapped).reveal() == bytes(32)
    assert custody.hmac_key("x").reveal() == sealed.hmac_key("x").reveal()
    assert [entry.record.key_id for entry in custody.entries()] == sorted(record.key_id for record in custody.inventory())
