"""The choice of level: made once at import, from the CPU and CITYCARD_CPU, and never quietly another."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import cext
from cext import _kernels, cpu

AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
# FIPS 197 appendix B at the level of the process, and the level's name.
PROGRAM = """
import numpy as np, cext
key = np.frombuffer(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), np.uint8)
block = np.frombuffer(bytes.fromhex("3243f6a8885a308d313198a2e0370734"), np.uint8).reshape(1, 16)
print(cext.kernel_level(), cext.aes_ecb(key, block).tobytes().hex())
"""


def run(value):
    environment = {name: text for name, text in os.environ.items() if name != cpu.VARIABLE}
    if value is not None:
        environment[cpu.VARIABLE] = value
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, cwd=root)


@pytest.mark.parametrize("name", cext.available_levels())
def test_a_named_level_is_what_runs(name):
    assert run(name).stdout.split() == [name, "3925841d02dc09fbdc118597196a0b32"]


@pytest.mark.parametrize("value", [None, "", "auto"])
def test_unnamed_the_widest_level_runs(value):
    assert run(value).stdout.split()[0] == cext.available_levels()[-1]


@pytest.mark.parametrize("value", ["sse2", "AVX2", "avx2 "])
def test_an_unknown_level_stops_the_import(value):
    result = run(value)
    assert result.returncode != 0
    assert result.stdout == ""
    assert f"ValueError: CITYCARD_CPU must be auto, portable, avx2 or avx512, not {value!r}" in result.stderr


@pytest.mark.parametrize(("wanted", "available"), [("avx2", ("portable",)), ("avx512", ("portable", "avx2"))])
def test_a_level_the_machine_lacks_is_refused(wanted, available):
    with pytest.raises(RuntimeError, match=f"CITYCARD_CPU={wanted}: not on this CPU .*{', '.join(available)}"):
        cpu.choose(wanted, available)


def test_the_import_asks_the_machine():
    """The same refusal through the import, on a stand-in for a machine that has only the portable level."""
    stand_in = "import sys; from unittest.mock import MagicMock; m = MagicMock(); m.levels.return_value = ('portable',); "
    program = stand_in + "sys.modules['cext._kernels'] = m; import cext"
    environment = os.environ | {cpu.VARIABLE: "avx2"}
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, cwd=root)
    assert "RuntimeError: CITYCARD_CPU=avx2: not on this CPU" in result.stderr


def test_available_levels_are_those_the_operating_system_reports():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if platform.machine() == "x86_64" and info.exists() else []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), None)
    levels = cext.available_levels()
    assert levels[0] == "portable"
    if flags is not None:
        assert ("avx2" in levels) == ("avx2" in flags)
        assert ("avx512" in levels) == (flags >= AVX512)


def test_the_name_comes_from_the_running_table(level):
    assert cext.kernel_level() == level


def test_what_a_lesser_cpu_would_run():
    before = cext.kernel_level()
    names = cext.available_levels()
    try:
        _kernels.use_level(names[-1], ("aesni", "gfni", "vaes"))
        assert {_kernels.running()[family] for family in ("sm4", "aes")} == {"avx2" if "avx2" in names else "portable"}
        if "avx512" in names:
            with pytest.raises(ValueError, match="no level avx512 without avx512"):
                _kernels.use_level("avx512", ("avx512",))
    finally:
        _kernels.use_level(before)
