"""Ceremonies on a real SoftHSM token: end to end at a pseudo-terminal, paused, killed and aborted."""

import signal

import numpy as np
import pytest

from keys import diversify
from keys.ceremony.custodians import RECORD_NAME
from keys.ceremony.desk import Topic
from keys.ceremony.plan import PlannedKey
from keys.ceremony.record import fingerprint, verify_record
from keys.ceremony.run import Ceremony
from keys.ceremony.token import TokenVault
from keys.custody import Derivation
from keys.errors import CitycardError, Denied, NotFound, Precondition
from keys.hierarchy import Domain, KeyState, Level, Purpose
from keys.secrets import SecretBytes
from tests.ceremony.ceremony_tools import KEY, Clock, Desk, components, plan
from tests.ceremony.terminal_tools import Screen
from tests.ceremony.test_ceremony_terminal import Office
from tests.custody.conftest import LABEL, MODULE, PIN

FACTOR = bytes.fromhex("1122334455667788")


def token_office(rig, tmp_path, **fields):
    office = Office(tmp_path, custody="host-clear", **fields)
    office.passphrase.write_text(PIN.decode() + "\n")
    office.options = ["--ceremonies", office.ceremonies, "--passphrase-file", office.passphrase, "--token", LABEL, "--module", MODULE]
    rig.create().close()
    return office


def derives(rig, raw):
    """The token's key gives the card keys that the known master gives."""
    with rig.open() as custody:
        found = custody.record("ss.dks1")
        assert found.state is KeyState.ACTIVE
        factors = np.frombuffer(FACTOR, np.uint8).reshape(1, 8)
        with custody.derive([Derivation("ss.dks1", "pboc", "3des")], [factors]) as keys:
            assert keys.array[0].tobytes() == diversify.pboc("3des", raw, FACTOR).tobytes()
        return fingerprint(TokenVault(custody, "host-clear").clerk.public_key().hex())


@pytest.mark.parametrize("kind", ["import", "generate"])
def test_end_to_end_at_a_terminal(rig, tmp_path, kind):
    office = token_office(rig, tmp_path, kind=kind, custodians=3)
    screen = Screen.command("ceremony", "run", office.plan, *office.options)
    status, _ = office.play(screen)
    assert status == 0, screen.output
    content = (office.ceremony() / RECORD_NAME).read_bytes()
    record = verify_record(content)
    assert record.entries[-1]["type"] == "closed"
    raw = office.raw if kind == "import" else office.components()
    assert derives(rig, raw) == fingerprint(record.public_key)
    assert PIN not in screen.output
    for canary in (raw, raw.hex().encode(), raw.hex().upper().encode()):
        assert canary not in content
        assert canary not in screen.output


@pytest.mark.parametrize("stop", range(2, 8, 2))
def test_killed_at_a_prompt_and_resumed(rig, tmp_path, stop):
    office = token_office(rig, tmp_path)
    status, _ = office.play(Screen.command("ceremony", "run", office.plan, *office.options), stop=stop)
    assert status == -signal.SIGKILL
    with rig.open() as custody:
        assert not custody.inventory()
    options = [option for option in office.options if option not in ("--ceremonies", office.ceremonies)]
    screen = Screen.command("ceremony", "resume", office.ceremony(), *options)
    status, _ = office.play(screen)
    assert status == 0, screen.output
    derives(rig, office.raw)
    verify_record((office.ceremony() / RECORD_NAME).read_bytes())


@pytest.fixture
def vault(rig):
    with rig.create() as custody:
        yield TokenVault(custody, "host-clear")


def labels(vault):
    return vault.clerk.custody.session.run(lambda live: [label for label, _ in live.handles if label.startswith("citycard:ceremony:")])


def test_the_key_of_a_ceremony_is_an_object_of_the_token_and_goes_with_it(vault, tmp_path):
    texts, digits, _ = components(2)
    desk = Desk(plan(kind="import", custody="host-clear"), {0: list(zip(texts, digits, strict=True))})
    desk.script(Topic.CALL, "pause", custodian=1)
    (tmp_path / "c").mkdir()
    ceremony = Ceremony.start(desk.plan, vault, desk, None, tmp_path / "c", clock=Clock())
    with pytest.raises(Precondition):
        ceremony.run()
    assert labels(vault) == [f"citycard:ceremony:{ceremony.ceremony_id}"]
    wrapped = next((tmp_path / "c" / ceremony.ceremony_id / "pause").iterdir()).read_bytes()
    Ceremony.resume(tmp_path / "c" / ceremony.ceremony_id, vault, desk, lambda _: None).abort("enough")
    assert labels(vault) == []
    assert vault.find("ss.dks1", 1) is None
    with pytest.raises(NotFound) as gone:
        vault.clerk.pause_unwrap(ceremony.ceremony_id, wrapped, b"")
    assert gone.value.reason == "PAUSE_KEY_MISSING"


def test_what_a_token_does_not_do_is_refused_with_a_reason(vault):
    key = PlannedKey(key_id="k", domain=Domain.CITY, purpose=Purpose.APPLICATION, level=Level.CITY, algorithm="3des", exportable=True)
    refused = {
        "KEY_NOT_EXPORTABLE": [
            lambda: vault.reveal("k", 1),
            lambda: vault.wrap("k", 1, plan(kind="export", scheme="none", keys=({**KEY, "kcv": "000000"},), export=EXPORT).export),
        ],
        "KEY_POLICY": [lambda: vault.generate(key, "x")],
        "STORE_KEY": [lambda: vault.unseal(SecretBytes(bytes(32))), lambda: vault.install_store_key(SecretBytes(bytes(32)), "x")],
        "KEY_UNKNOWN": [lambda: vault.destroy("k", 1)],
    }
    for reason, calls in refused.items():
        for call in calls:
            with pytest.raises(CitycardError) as error:
                call()
            assert error.value.reason == reason
    assert not vault.has_store_key()


EXPORT = {"kek": "kek", "scheme": "aes-kw", "recipient": "bank", "file": "/nonexistent/x"}


def test_destroying_in_a_token(vault, tmp_path):
    generated = Desk(plan(scheme="none", custody="host-clear"))
    (tmp_path / "c").mkdir()
    Ceremony.start(generated.plan, vault, generated, None, tmp_path / "c").run()
    key = {**KEY, "kcv": vault.find("ss.dks1", 1).kcv}
    desk = Desk(plan(kind="destroy", scheme="none", keys=(key,), custody="host-clear"))
    Ceremony.start(desk.plan, vault, desk, None, tmp_path / "c").run()
    assert vault.find("ss.dks1", 1).state is KeyState.DESTROYED
    with pytest.raises(Denied):
        vault.reveal("ss.dks1", 1)
