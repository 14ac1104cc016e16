"""What the tests of keys on a real server share: a plant on a token, commands as people run them, health, reasons."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from engine.cli.plant import Plant
from engine.cli.teststore import create_test_token_store
from engine.profiles.compile import compile_profile
from engine.profiles.masters import kek_specs, master_specs
from engine.profiles.model import load
from keys.custody.sealing import random_master
from keys.errors import CitycardError
from keys.secrets import SecretBytes
from tests.plant.conftest import PROFILE, Works

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def known_masters() -> dict[str, SecretBytes]:
    """A random master for every key of the profile but the maker's, to be put into a custody and looked for afterwards."""
    profile = load(PROFILE).profile
    specs = {spec.key_id: spec for spec in (*kek_specs(), *master_specs(profile))}
    del specs[profile.channel.transport.master]
    return {key_id: random_master(spec.algorithm) for key_id, spec in specs.items()}


def fill_token(plant: Plant, masters: dict[str, SecretBytes] | None = None, module: Path | None = None) -> None:
    """The token of a plant with TEST masters in it; `module` stands before SoftHSM from then on."""
    assert plant.token is not None
    config = plant.token.make()
    with plant.token.in_this_process():
        create_test_token_store(plant.server_data, config, SecretBytes(plant.token.pin()), [PROFILE], masters=masters)
    if module is not None:
        setup = plant.server_data / "custody.toml"
        setup.write_text(setup.read_text().replace(str(config.module), str(module)))


def compiled():
    return compile_profile(load(PROFILE))


def command(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit status and all output of a citycard command, run as a process of its own without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        start_new_session=True,
    )
    return done.returncode, done.stdout + done.stderr


def keys(works: Works, name: str, *arguments: str | Path) -> tuple[int, str]:
    """`citycard keys NAME` against the server."""
    return command("keys", name, "--server", works.address, *arguments)


def status(works: Works) -> dict[str, Any]:
    code, text = keys(works, "status", "--json")
    assert code == 0, text
    return dict(json.loads(text))


def health(works: Works) -> int:
    ask = health_pb2.HealthCheckRequest()
    return int(works.ask(lambda c: health_pb2_grpc.HealthStub(c).Check(ask, timeout=10)).status)


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.05)


def refused(works: Works, call: Callable[[grpc.aio.Channel], Any]) -> str:
    """The reason a call is refused with."""
    try:
        works.ask(call)
    except CitycardError as error:
        return error.reason
    raise AssertionError("not refused")


def leaves(works: Works, kind: str) -> list[dict[str, Any]]:
    """The facts of the audit chain's leaves of one kind."""
    with sqlite3.connect(f"file:{works.plant.server_data / 'ledger.sqlite'}?mode=ro", uri=True) as database:
        found = [json.loads(leaf) for (leaf,) in database.execute("select leaf from audit_leaves order by leaf_index")]
    return [leaf["facts"] for leaf in found if leaf["kind"] == kind]
