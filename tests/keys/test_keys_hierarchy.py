"""Key records: their life has one direction."""

import itertools

import pytest

from keys.errors import Precondition
from keys.hierarchy import Domain, KeyState, Level, MasterKeyRecord, Purpose

ALLOWED = {
    ("pre-active", "active"),
    ("pre-active", "compromised"),
    ("pre-active", "destroyed"),
    ("active", "deactivated"),
    ("active", "compromised"),
    ("deactivated", "compromised"),
    ("deactivated", "destroyed"),
    ("compromised", "destroyed"),
}


def record(state):
    return MasterKeyRecord(
        key_id="transport.purchase",
        domain=Domain.TRANSPORT,
        purpose=Purpose.APPLICATION,
        algorithm="3des",
        level=Level.CITY,
        version=1,
        state=state,
        kcv="08D7B4",
        kcv_method="zero-block",
        origin="generated",
        test=True,
    )


@pytest.mark.parametrize(("old", "new"), list(itertools.product(KeyState, KeyState)))
def test_transitions_are_those_of_sp_800_57(old, new):
    if (old.value, new.value) in ALLOWED:
        assert record(old).in_state(new).state is new
    else:
        with pytest.raises(Precondition) as caught:
            record(old).in_state(new)
        assert caught.value.reason == "KEY_STATE"


@pytest.mark.parametrize("state", list(KeyState))
def test_only_an_active_key_may_be_used(state):
    if state is KeyState.ACTIVE:
        record(state).require_active()
        return
    with pytest.raises(Precondition) as caught:
        record(state).require_active()
    assert caught.value.reason == "KEY_NOT_ACTIVE"
    assert "transport.purchase" in caught.value.message


def test_five_card_domains_and_the_chip():
    assert [domain.value for domain in Domain] == ["social-security", "finance", "transport", "health", "city", "chip"]
