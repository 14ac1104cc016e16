"""`citycard token` as a person runs it: real processes, a real terminal, real SoftHSM."""

import json
import os
import pty
import subprocess
import sys

import pytest

from engine.cli.token import inventory, show
from keys.custody.policy import KeyPolicy
from keys.custody.token import TokenCustody
from keys.custody.working import KeySpec
from keys.errors import NotFound
from keys.hierarchy import Domain
from keys.secrets import SecretBytes
from tests.custody.conftest import LABEL, MODULE, PIN, SO_PIN
from tests.custody.contract import TDES, reason_of

COMMAND = [sys.executable, "-m", "engine.cli.main", "token"]


@pytest.fixture
def pins(tmp_path):
    files = {}
    for name, pin in (("user", PIN), ("so", SO_PIN), ("wrong", b"999999")):
        files[name] = tmp_path / f"{name}.pin"
        files[name].write_bytes(pin + b"\n")
    return files


def run(*arguments):
    command = [*COMMAND, *map(str, arguments), "--module", MODULE, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    for secret in (PIN, SO_PIN):
        assert secret.decode() not in done.stdout + done.stderr
    return done.returncode, answer


def test_init_status_keys_with_pin_files(rig, pins):
    given = ["--label", LABEL, "--pin-file", pins["user"]]
    code, made = run("init", *given, "--so-pin-file", pins["so"], "--test")
    assert (code, made["label"], made["test"]) == (0, LABEL, True)
    assert run("init", *given, "--so-pin-file", pins["so"], "--test") == (
        1,
        {"error": {"reason": "TOKEN_EXISTS", "message": f"a token labelled {LABEL} exists; it is not initialized again"}},
    )
    with rig.open() as custody:
        custody.import_key(KeySpec("t.3des", Domain.TRANSPORT, "3des"), TDES, KeyPolicy(custody="token-only"))
        assert show(custody, "t.3des") == inventory(custody)
        assert reason_of(NotFound, lambda: show(custody, "no.such")) == "KEY_UNKNOWN"
    code, facts = run("status", *given)
    assert (code, facts["state"], facts["keys"], facts["test"]) == (0, "ready", 1, True)
    code, listed = run("keys", *given, "--serial", made["serial"])
    assert [(key["key"], key["kcv"], key["custody"]) for key in listed["keys"]] == [("t.3des", "08D7B4", "token-only")]
    code, refused = run("status", "--label", LABEL, "--pin-file", pins["wrong"])
    assert (code, refused["error"]["reason"]) == (1, "TOKEN_PIN_WRONG")
    code, refused = run("status", "--label", LABEL, "--pin-file", pins["wrong"].parent / "none")
    assert (code, refused["error"]["reason"]) == (1, "PIN_UNREADABLE")


def at_a_terminal(arguments, answers):
    """What a terminal shows of a command whose questions, each ending in a colon, are answered."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*COMMAND, *map(str, arguments)])
    shown, waiting = b"", list(answers)
    while True:
        try:
            piece = os.read(terminal, 1000)
        except OSError:
            break
        shown += piece
        if waiting and shown.endswith(b": "):
            os.write(terminal, waiting.pop(0) + b"\n")
    status = os.waitpid(child, 0)[1]
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_pins_typed_unseen(rig):
    arguments = ["init", "--label", LABEL, "--module", MODULE, "--test"]
    code, shown = at_a_terminal(arguments, [SO_PIN, SO_PIN, PIN, b"123321"])
    assert (code, "PIN_DIFFERS" in shown) == (1, True)
    code, shown = at_a_terminal(arguments, [SO_PIN, SO_PIN, PIN, PIN])
    assert code == 0, shown
    assert PIN.decode() not in shown
    assert SO_PIN.decode() not in shown
    with TokenCustody.open(rig.config, SecretBytes(PIN), mode="test") as custody:
        assert custody.test
    code, shown = at_a_terminal(["unlock", "--label", LABEL, "--module", MODULE], [SO_PIN, b"135791", b"135791"])
    assert code == 0, shown
    rig.open(b"135791").close()
