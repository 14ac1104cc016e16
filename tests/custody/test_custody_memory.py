"""After zeroize no secret is left in the memory of a real process: another process looks for them there."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keys import diversify
from keys.custody.policy import KeyPolicy
from keys.custody.sealed import SealedCustody
from keys.custody.token import TokenSealer
from keys.custody.working import KeySpec
from keys.hierarchy import Domain
from tests.custody.conftest import LABEL, MODULE, PIN

# Keys no other test has: what is found is a copy of these.
TDES = bytes(byte & 0xFE for byte in hashlib.sha256(b"canary of the token").digest()[:16])
SM4 = hashlib.sha256(b"canary of the sealed store").digest()[:16]
UPPER = b"410000sh"
FACTOR = b"\x01\x02\x03\x04\x05\x06\x07\x08"

WORKER = """
import sys, numpy as np
from pathlib import Path
from engine.cli.token import read_pin
from keys.custody import Derivation
from keys.custody.composite import CompositeCustody
from keys.custody.sealed import SealedCustody
from keys.custody.token import TokenConfig, TokenCustody, TokenSealer

module, label, pin_file, place = sys.argv[1:]
token = TokenCustody.open(TokenConfig(Path(module), label), read_pin(Path(pin_file), "user"), mode="test")
sealed = SealedCustody.open(Path(place), mode="test")
sealed.unseal(TokenSealer(token.session))
custody = CompositeCustody([token, sealed])
upper = (bytes.fromhex("343130303030") + b"sh",)
wanted = [Derivation("t.3des", "pboc", "3des"), Derivation("t.3des", "pboc", "3des", upper), Derivation("t.sm4", "pboc", "sm4", upper)]
factor = np.arange(1, 9, dtype=np.uint8).reshape(1, 8)
keys = custody.derive(wanted, [factor] * 3)
print("working", flush=True)
sys.stdin.readline()
keys.close()
custody.zeroize()
print("zeroized", flush=True)
sys.stdin.readline()
"""


def secrets_of_the_run():
    upper_tdes = diversify.pboc("3des", TDES, UPPER).tobytes()
    upper_sm4 = diversify.pboc("sm4", SM4, UPPER).tobytes()
    return {
        "3DES master": TDES,
        "SM4 master": SM4,
        "3DES province key": upper_tdes,
        "SM4 province key": upper_sm4,
        "3DES card key": diversify.pboc("3des", TDES, FACTOR).tobytes(),
        "3DES card key below": diversify.pboc("3des", upper_tdes, FACTOR).tobytes(),
        "SM4 card key": diversify.pboc("sm4", upper_sm4, FACTOR).tobytes(),
        "PIN": PIN,
    }


def found_in(pid, wanted):
    found = set()
    process = Path(f"/proc/{pid}")
    with (process / "maps").open() as maps, (process / "mem").open("rb") as memory:
        for line in maps:
            start, end, access, name = re.match(r"(\w+)-(\w+) (\S+) \S+ \S+ \S+\s*(.*)", line).groups()
            if not access.startswith("rw") or name.startswith("[v"):
                continue
            try:
                memory.seek(int(start, 16))
                content = memory.read(int(end, 16) - int(start, 16))
            except OSError:
                continue  # guard pages
            found |= {label for label, secret in wanted.items() if secret in content}
    return found


@pytest.fixture
def worker(rig, token, tmp_path):
    token.import_key(KeySpec("t.3des", Domain.TRANSPORT, "3des"), TDES, KeyPolicy(custody="host-clear"))
    with SealedCustody.create(tmp_path / "sealed", TokenSealer(token.session), test=True) as sealed:
        sealed.import_key(KeySpec("t.sm4", Domain.TRANSPORT, "sm4"), SM4, KeyPolicy(custody="sealed"))
    pin_file = tmp_path / "pin"
    pin_file.write_bytes(PIN + b"\n")
    arguments = [sys.executable, "-c", WORKER, str(MODULE), LABEL, str(pin_file), str(tmp_path / "sealed")]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."})
    yield process
    process.kill()
    process.communicate()


def test_nothing_is_left_after_zeroize(worker):
    wanted = secrets_of_the_run()
    assert worker.stdout.readline() == b"working\n"
    # the search itself works: what is used in the host is in its memory, and the 3DES master never is
    assert {"SM4 master", "3DES province key", "3DES card key", "SM4 card key"} <= found_in(worker.pid, wanted)
    assert "3DES master" not in found_in(worker.pid, wanted)
    worker.stdin.write(b"\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == b"zeroized\n"
    assert found_in(worker.pid, wanted) == set()
