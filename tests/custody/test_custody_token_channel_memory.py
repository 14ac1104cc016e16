"""No key of a card that is made in the token is ever in the memory of the host's process: another process looks for them there.

SoftHSM computes in that very process. What it derives it keeps encrypted, and what it decrypts for a call it wipes, so that between the
calls nothing is found; an HSM's memory is its own.
"""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from keys.custody.software import SoftwareCustody
from tests.custody.conftest import LABEL, MODULE, PIN
from tests.custody.tokencard_tools import SPECS, Line, columns_for, fill, master, secrets_of_the_card

STAGES = ["ready", "opened", "prepared", "personalized", "accepted", "proving", "proven", "closed", "left"]


def found_in(pid, secrets):
    """Names of the secrets (16 bytes each) in the writeable memory of a process. Many at once: only where two bytes fit it looks closer."""
    begins = np.zeros(1 << 16, bool)
    begins[[int.from_bytes(secret[:2], sys.byteorder) for secret in secrets.values()]] = True
    names, found = {secret: name for name, secret in secrets.items()}, set()
    process = Path(f"/proc/{pid}")
    with (process / "maps").open() as maps, (process / "mem").open("rb", buffering=0) as memory:
        for line in maps:
            start, end, access, name = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ \S+\s*(.*)", line).groups()
            if not access.startswith("rw") or name.startswith("[v"):
                continue
            try:
                memory.seek(int(start, 16))
                content = memory.read(int(end, 16) - int(start, 16))
            except OSError:
                continue  # guard pages
            for shift in (0, 1):
                pairs = np.frombuffer(content, np.uint16, (len(content) - shift) // 2, shift)
                places = 2 * np.flatnonzero(begins[pairs]) + shift
                found |= {names[piece] for piece in {content[at : at + 16] for at in places.tolist()} & names.keys()}
    return found


@contextmanager
def host(*arguments):
    command = [sys.executable, "-m", "tests.custody.tokencard_worker", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ".:proto"}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def found_by_stage(process, directory):
    """By stage of one card's making, which of its keys are in the memory of the process."""
    line = Line(directory)
    serial = line.response[2:10]
    secrets = secrets_of_the_card(line.challenge, line.response, columns_for(serial))
    found = {}
    while True:
        stage, commands = json.loads(process.stdout.readline())
        found.setdefault(stage, set()).update(found_in(process.pid, secrets))
        if stage == "left":
            return found, secrets
        answers = [line.challenge, line.response] if stage == "ready" else [line.chip.transmit(bytes.fromhex(one)) for one in commands]
        process.stdin.write(json.dumps([answer.hex() for answer in answers]) + "\n")
        process.stdin.flush()


@pytest.fixture
def token_arguments(rig, token, tmp_path):
    fill(token)
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(PIN + b"\n")
    return ["token", "-", MODULE, LABEL, pin_file]


def test_no_key_of_the_card_is_in_memory(token_arguments, tmp_path):
    with host(*token_arguments) as process:
        found, secrets = found_by_stage(process, tmp_path / "chips")
    assert list(found) == STAGES
    assert len(secrets) > 80
    assert found == {stage: set() for stage in STAGES}


def test_the_search_finds_what_the_host_does_hold(tmp_path):
    """The same card in the software custody: its keys are there while it is made, and gone when it is closed."""
    with SoftwareCustody.create(tmp_path / "software", "x", test=True, scrypt_n=16) as store:
        for spec in SPECS:
            store.import_key(spec, master(spec.key_id))
    with host("software", tmp_path / "software") as process:
        found, secrets = found_by_stage(process, tmp_path / "chips")
    card_keys = {name for name in secrets if "/" in name and "level" not in name and not name.endswith(" odd")}
    assert card_keys | {"issuer.kmc enc", "issuer.kmc dek", "session s_enc", "session s_mac"} <= found["prepared"]
    assert {name for name in secrets if name.startswith("master")} <= found["opened"]
