"""No key is used before every kernel has given its known answers, and nothing runs when a bit of extension or answers is flipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cext
from cext import integrity
from keys import selftest
from keys.errors import Corrupt
from tests.keys import selftest_answers

ROOT = Path(__file__).parents[2]
NO_KERNELS = {"APDU", "at_level", "available_levels", "kernel_level", "sbox_table", "slab_join", "slab_split"}


def test_the_file_is_what_the_definitions_give():
    assert integrity.ANSWERS.read_text() == selftest_answers.text()


def test_every_kernel_has_a_known_answer():
    assert {answer.kernel for answer in selftest.answers()} == set(cext.__all__) - NO_KERNELS


def test_all_answers_hold_at_all_levels():
    selftest.require.cache_clear()
    selftest.require()


@pytest.mark.parametrize("name", sorted(set(cext.__all__) - NO_KERNELS))
def test_a_kernel_that_computes_wrongly_is_found(monkeypatch, name):
    real = getattr(cext, name)

    def wrong(*args, **kwargs):
        made = real(*args, **kwargs)
        (made[-1] if isinstance(made, tuple) else made)[-1, -1] ^= 1
        return made

    monkeypatch.setattr(cext, name, wrong)
    selftest.require.cache_clear()
    with pytest.raises(Corrupt) as caught:
        selftest.require()
    assert (caught.value.reason, name in caught.value.message) == ("SELF_TEST", True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A copy of the program, to be damaged."""
    home = tmp_path_factory.mktemp("installed")
    for package in ("cext", "keys", "engine"):
        shutil.copytree(ROOT / package, home / package, ignore=shutil.ignore_patterns("__pycache__", "src"))
    shutil.copytree(ROOT / "proto" / "citycard", home / "citycard", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "passphrase").write_text("passphrase\n")
    return home


def run(home, *arguments):
    environment = os.environ | {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "engine.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=home, timeout=60)


def commands(home, data):
    store = ["--data", str(data), "--passphrase-file", str(home / "passphrase")]
    return [
        ["keys", "init", "--test", *store],
        ["serve", "--dev", "--bind", "127.0.0.1:0", *store],
        ["demo", "--data", str(data), "--json"],
    ]


def flip(path, at, bit):
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("command", [0, 1, 2], ids=["keys", "serve", "demo"])
@pytest.mark.parametrize(("file", "at"), [("extension", 40), ("extension", 300_001), ("answers", 0), ("answers", 9_999), ("record", 70)])
def test_a_flipped_bit_makes_every_command_refuse(installed, tmp_path, file, at, command):
    extension = installed / "cext" / integrity.extension().name
    place = {
        "extension": extension,
        "answers": installed / "cext" / "selftest.json",
        "record": extension.with_name(extension.name + integrity.RECORD_SUFFIX),
    }[file]
    before = place.read_bytes()
    flip(place, at, at % 8)
    try:
        done = run(installed, *commands(installed, tmp_path / "data")[command])
    finally:
        place.write_bytes(before)
    assert done.returncode == 1
    assert "SELF_TEST" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "is not the file that was built" in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()


def test_the_undamaged_copy_runs(installed, tmp_path):
    done = run(installed, *commands(installed, tmp_path / "data")[0])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_answer_that_was_built_so_is_refused(installed, tmp_path):
    """Kernels and answers disagree though both are the files that were built: what a miscompiled kernel looks like."""
    answers, record = installed / "cext" / "selftest.json", next((installed / "cext").glob("*.sha256"))
    kept = answers.read_bytes(), record.read_bytes()
    content = json.loads(kept[0])
    content["tests"][-1]["expect"][0] = "00" + content["tests"][-1]["expect"][0][2:]
    answers.write_text(json.dumps(content))
    command = ["sha256sum", record.name.removesuffix(".sha256"), answers.name]
    record.write_bytes(subprocess.run(command, cwd=answers.parent, capture_output=True, check=True).stdout)
    try:
        done = run(installed, *commands(installed, tmp_path / "data")[0])
    finally:
        answers.write_bytes(kept[0])
        record.write_bytes(kept[1])
    assert done.returncode == 1
    assert f"kernel {content['tests'][-1]['kernel']} gives a wrong answer" in done.stderr
    assert "[SELF_TEST]" in done.stderr
    assert not (tmp_path / "data" / "keystore.json").exists()


def test_the_commands_need_the_extension(installed, tmp_path):
    extension = installed / "cext" / integrity.extension().name
    aside = extension.rename(tmp_path / "aside")
    try:
        done = run(installed, "keys", "list", "--data", str(tmp_path))
    finally:
        aside.rename(extension)
    assert (done.returncode, "not built" in done.stderr, "[SELF_TEST]" in done.stderr) == (1, True, True)
