"""Which machine and which software a figure was measured on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

from cext.cpu import kernel_level

_PACKAGES: Final = ("citycard", "cryptography", "grpcio", "numpy", "python-pkcs11", "pyscard", "sqlalchemy", "simpy")


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`host` is a hash of the machine's identity, not its name: enough to tell two machines apart."""

    host: str
    cpu: str
    cores: int
    kernel_level: str
    system: str
    python: str
    commit: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> Machine:
        """This machine, now."""
        return cls(
            host=_host(),
            cpu=_cpu(),
            cores=len(os.sched_getaffinity(0)),
            kernel_level=kernel_level(),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            commit=_commit(),
            versions=_versions(),
        )

    def differences(self, other: Machine) -> list[str]:
        """What differs on `other` and makes figures of this machine doubtful there, in plain words; empty for the same machine."""
        found = []
        if self.host != other.host:
            found.append(f"measured on another machine: {self.cpu}, {self.cores} cores; this one is {other.cpu}, {other.cores} cores")
        elif self.cores != other.cores:
            found.append(f"measured with {self.cores} cores; {other.cores} may be used now")
        if self.kernel_level != other.kernel_level:
            found.append(f"measured with {self.kernel_level} kernels; this machine runs {other.kernel_level}")
        return found


def _host() -> str:
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        identity = ""
    return hashlib.sha256(f"citycard {identity or platform.node()} {_cpu()}".encode()).hexdigest()[:16]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The commit of a source checkout, empty for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()  # noqa: S603 - fixed words
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
