"""Ceremonies at a real pseudo-terminal: typed by hand, killed at every step, and never a secret on the screen."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading

import pytest

from keys.ceremony.custodians import RECORD_NAME
from keys.ceremony.desk import CLEAR, Question, TerminalDesk, Topic
from keys.ceremony.record import fingerprint, verify_record
from keys.ceremony.run import Ceremony
from keys.ceremony.software import SoftwareVault
from keys.components import combine, parse_hex
from keys.errors import Precondition
from keys.hierarchy import KeyState
from tests.ceremony.ceremony_tools import PASSPHRASE, components, make_vault, plan_text
from tests.ceremony.terminal_tools import SILENCE, Forks, Screen, read_until

KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def forks():
    made = Forks()
    yield made
    made.close()


class Office:
    """A vault, a plan file, envelopes on disk, and custodians with their components."""

    def __init__(self, directory, kind="import", custodians=2, **fields):
        self.place = directory
        self.data = directory / "vault"
        self.ceremonies = directory / "ceremonies"
        self.envelopes = directory / "envelopes"
        for path in (self.ceremonies, self.envelopes):
            path.mkdir()
        make_vault(self.data).close()
        self.passphrase = directory / "passphrase"
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.texts, self.digits, self.raw = components(custodians)
        self.plan = directory / "plan.toml"
        self.plan.write_text(plan_text(kind=kind, custodians=custodians, device=str(self.envelopes), **fields))
        self.options = ["--data", self.data, "--ceremonies", self.ceremonies, "--passphrase-file", self.passphrase]
        self.custodian = -1

    def answer(self, name, found):
        if name == "call":
            return ""
        if name in ("component", "digits"):
            # which custodian sits there is the last one called by name on the screen
            return (self.texts if name == "component" else self.digits)[self.custodian]
        if name == "read":
            return self.envelope(int(found[1]))[1]
        return {"closed": "", "confirm": "yes", "witness": "sun.wei", "done": ""}[name]

    def play(self, screen, stop=None, look=lambda name: None):
        """Types what custodians do; kills at the prompt number `stop`; `look` sees each prompt before it is answered."""
        asked = []

        def answer(name, found):
            asked.append(name)
            if stop == len(asked):
                return None
            called = re.findall(rb"Custodian (\d) of", screen.output)
            self.custodian = int(called[-1]) - 1 if called else -1
            look(name)
            return self.answer(name, found)

        status = screen.play(answer)
        return status, asked

    def envelope(self, serial):
        text = (self.envelopes / f"{serial}.txt").read_text()
        digits = re.search(r"check +([0-9A-F]{6})", text)[1]
        component = re.search(r"((?:[0-9A-F]{4} ){7}[0-9A-F]{4})", text)
        return component and component[1], digits

    def vault(self):
        return SoftwareVault.open(self.data, PASSPHRASE)

    def ceremony(self):
        return next(iter(sorted(self.ceremonies.iterdir())), None)

    def process(self, forks, *, directory=None, kill_at=0):
        """A forked process that starts the plan, or resumes `directory`, at its own terminal."""
        place = None if directory is None else str(directory)
        work = {"data": str(self.data), "plan": str(self.plan), "ceremonies": str(self.ceremonies)}
        return forks.start(**work, directory=place, kill_at=kill_at)

    def components(self):
        """What the accepted envelopes or custodians hold, put together."""
        entries = verify_record((self.ceremony() / RECORD_NAME).read_bytes()).entries
        good = [entry["envelope"] for entry in entries if entry["type"] == "component"]
        return bytes(combine("3des", [parse_hex(self.envelope(serial)[0].encode(), 16) for serial in good]).reveal())


def key_state(office):
    """What is in the vault: (state, bytes) of the key, (None, None) without one. Opening verifies every key's check value."""
    vault = office.vault()
    try:
        record = vault.find("ss.dks1", 1)
        if record is None:
            return None, None
        raw = None if record.state is KeyState.DESTROYED else bytes(vault._store.reveal_master("ss.dks1", 1).reveal())
        return record.state, raw
    finally:
        vault.close()


@pytest.mark.parametrize("kind", ["import", "generate"])
def test_the_command_from_plan_to_verified_record(tmp_path, kind):
    """init, lint, rehearse, run at a terminal, verify offline, flip a byte: the commands of a custodian's day."""
    office = Office(tmp_path, kind, custodians=3)
    vault = office.vault()
    signer = fingerprint(vault.clerk.public_key().hex())
    vault.close()

    def command(*arguments):
        run = [sys.executable, "-m", "engine.cli.main", "ceremony", *map(str, arguments)]
        return subprocess.run(run, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "."})

    assert "no findings" in command("lint", office.plan).stdout
    assert "rehearsed" in command("rehearse", office.plan).stdout
    assert key_state(office) == (None, None)
    screen = Screen.command("ceremony", "run", office.plan, *office.options)
    status, asked = office.play(screen)
    assert status == 0, screen.output
    assert asked.count("call") == 3
    raw = office.raw if kind == "import" else office.components()
    assert key_state(office) == (KeyState.ACTIVE, raw)
    for text in office.texts:
        assert text.encode() not in screen.output
    assert screen.output.count(CLEAR) == 6
    record = office.ceremony() / RECORD_NAME
    assert (office.ceremony() / "memorandum.pdf").read_bytes().startswith(b"%PDF")
    verified = command("verify", office.ceremony(), "--signer", signer)
    assert "closed" in verified.stdout, verified.stderr
    assert "RECORD_KEY" in command("verify", record, "--signer", "00 11").stderr
    content = bytearray(record.read_bytes())
    at = content.index(b'"type":"witnessed"') + 9
    content[at] ^= 1
    record.write_bytes(content)
    bad = command("verify", record)
    assert bad.returncode == 1
    assert f"record entry {content[:at].count(10) + 1} " in bad.stderr


def test_without_a_terminal_nothing_is_taken(tmp_path):
    office = Office(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", "ceremony", "run", office.plan, *office.options],
        input=b"\n".join(text.encode() for text in office.texts),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert b"NO_TERMINAL" in run.stderr
    assert office.ceremony() is None


@pytest.mark.parametrize("kind", ["import", "generate"])
def test_killed_at_every_prompt_it_leaves_no_key_and_goes_on(forks, tmp_path_factory, kind):
    """kill -9 while each question is on the screen; then half are resumed and half aborted."""
    stop = 0
    while True:
        stop += 1
        office = Office(tmp_path_factory.mktemp("office"), kind)
        status, asked = office.play(office.process(forks), stop=stop)
        if status == 0:
            break
        assert status == KILLED
        assert len(asked) == stop
        assert key_state(office) == (None, None)
        settle(forks, office, resume=stop % 2 == 0)
    assert stop > 5


@pytest.mark.parametrize("kind", ["import", "generate", "slip39"])
def test_killed_at_every_durable_step_it_leaves_no_key_or_a_whole_one(forks, tmp_path_factory, kind):
    fields = {"kind": "generate", "scheme": "slip39", "custodians": 2} if kind == "slip39" else {"kind": kind}
    number, whole, none = 0, 0, 0
    while True:
        number += 1
        office = Office(tmp_path_factory.mktemp("office"), **fields)
        status, _ = office.play(office.process(forks, kill_at=number))
        if status == 0:
            break
        assert status == KILLED
        state, raw = key_state(office)
        if state is None:
            none += 1
        else:
            whole += 1
            assert state in (KeyState.PRE_ACTIVE, KeyState.ACTIVE)
            assert len(raw) == 16
            assert kind != "import" or raw == office.raw
        settle(forks, office, resume=number % 2 == 0, generated=kind == "generate")
    assert none > 20
    assert whole > 3


def settle(forks, office, *, resume, generated=False):
    """After a kill: either it goes on to its whole key, or it is aborted and leaves none; and no pause key either way."""
    directory = office.ceremony()
    if directory is None or not (directory / RECORD_NAME).exists() or b"\n" not in (directory / RECORD_NAME).read_bytes():
        assert key_state(office) == (None, None)
        return
    if resume:
        screen = office.process(forks, directory=directory)
        status, _ = office.play(screen)
        ended = b"CEREMONY_ENDED" in screen.output
        assert status == (1 if ended else 0), screen.output
        state, raw = key_state(office)
        assert state is KeyState.ACTIVE
        if generated:
            assert raw == office.components()
    else:
        vault = office.vault()
        desk = Silent()
        try:
            Ceremony.resume(directory, vault, desk, lambda _: None).abort("killed")
            ended = False
        except Precondition as error:
            assert error.reason == "CEREMONY_ENDED"
            ended = True
        finally:
            vault.close()
        state, _ = key_state(office)
        assert state in ((KeyState.ACTIVE,) if ended else (None, KeyState.DESTROYED))
    assert not list(office.data.glob("ceremony-*"))
    assert not (directory / "pause").exists()
    verify_record((directory / RECORD_NAME).read_bytes())


class Silent:
    def say(self, line):
        """Nobody listens."""


# -- the desk itself ---------------------------------------------------------------------------------------------------------

ASKED = Question(Topic.COMPONENT, "component:")


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def type_and_ask(terminal, typed, ask):
    """Types after the prompt is out, as a person does."""
    master, slave = terminal

    def person():
        read_until(master, b": ")
        os.write(master, typed)

    typing = threading.Thread(target=person)
    typing.start()
    try:
        return ask(TerminalDesk(slave))
    finally:
        typing.join()


def screen(terminal):
    """What is on the screen since it was last looked at."""
    os.write(terminal[1], b"<end>")
    return read_until(terminal[0], b"<end>").removesuffix(b"<end>")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (b"0123 ABcd\r", b"0123 ABcd"),
        (b"0124\x7f3\n", b"0123"),
        (b"\x7f\x08x\r", b"x"),
        (b"wrong\x15right\r", b"right"),
        (b"a\x01\x1b\xffb\r", b"ab"),
        (b"1" * 700 + b"\r", b"1" * 640),
        (b"\r", b""),
    ],
)
def test_what_is_typed_unseen(terminal, typed, read):
    def ask(desk):
        with desk.secret(ASKED) as secret:
            return bytes(secret.reveal())

    before = termios.tcgetattr(terminal[1])
    assert type_and_ask(terminal, typed, ask) == read
    assert termios.tcgetattr(terminal[1]) == before, "the terminal is as it was"
    assert set(screen(terminal)) <= set(b"\r\n")


def test_short_answers_are_shown_and_corrected(terminal):
    assert type_and_ask(terminal, b"08d7b5\x7f4\r", lambda desk: desk.ask(ASKED)) == "08d7b4"
    assert b"08d7b5\b \b4" in screen(terminal)
    assert type_and_ask(terminal, b"abc\x15x \xe4\r", lambda desk: desk.ask(ASKED)) == "x"


@pytest.mark.parametrize("key", [b"\x03", b"\x04"])
def test_interrupting_pauses(terminal, key):
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(Precondition) as paused:
        type_and_ask(terminal, b"0123" + key, lambda desk: desk.secret(ASKED))
    assert paused.value.reason == "CEREMONY_PAUSED"
    assert termios.tcgetattr(terminal[1]) == before


def test_clearing_throws_away_what_was_typed_ahead(terminal):
    master, slave = terminal
    desk = TerminalDesk(slave)
    os.write(master, b"typed too early\r")
    assert select.select([slave], [], [], SILENCE)[0], "it has arrived"
    desk.say("一行")
    desk.clear()
    assert type_and_ask(terminal, b"now\r", lambda desk: desk.ask(ASKED)) == "now"


def test_a_pipe_is_no_terminal():
    read, write = os.pipe()
    with pytest.raises(Precondition) as refused:
        TerminalDesk(read)
    assert refused.value.reason == "NO_TERMINAL"
    os.close(read)
    os.close(write)
