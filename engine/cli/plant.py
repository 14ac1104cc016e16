"""A whole small plant on loopback: one server and some stations as real processes, started, watched and stopped by pid."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from engine.cli.softhsm import SoftHsm
from engine.cli.teststore import create_test_store, create_test_token_store
from keys.errors import Unavailable
from keys.secrets import SecretBytes

START_S: Final = 30.0
STOP_S: Final = 40.0


class Plant:
    """Processes of a demo or a test. Leaving the context stops all of them; logs stay in `data`/log."""

    def __init__(self, data: Path, custody: Literal["software", "token"] = "software") -> None:
        self.data = data
        self.token = SoftHsm(data / "token") if custody == "token" else None
        self.address = ""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in [n for n in self._processes if n != "server"] + ["server"]:
            self.stop(name, grace_s=STOP_S if error is None else 3.0)

    @property
    def server_data(self) -> Path:
        return self.data / "server"

    @property
    def passphrase_file(self) -> Path:
        return self.data / "passphrase"

    @property
    def secret_file(self) -> Path:
        """What opens the keys: the passphrase, or the token's PIN."""
        return self.token.pin_file if self.token else self.passphrase_file

    def make_keys(self, profile: str) -> int:
        """TEST keys under a random passphrase or PIN, which lies beside them: nothing here protects anything real."""
        self.data.mkdir(parents=True, exist_ok=True)
        if self.token:
            config = self.token.make()
            with self.token.in_this_process():
                return create_test_token_store(self.server_data, config, SecretBytes(self.token.pin()), [profile])
        self.passphrase_file.touch(mode=0o600)
        self.passphrase_file.write_text(secrets.token_urlsafe(24) + "\n")
        return create_test_store(self.server_data, self.passphrase_file.read_text().strip(), [profile])

    def start_server(self, *extra: str, port: int = 0) -> str:
        """Starts `citycard serve`; its address once it answers. Unavailable SERVER_FAILED with the last line of its log."""
        port_file = self.data / "port"
        port_file.unlink(missing_ok=True)
        arguments = ["serve", "--data", str(self.server_data), "--bind", f"127.0.0.1:{port}", "--dev"]
        arguments += ["--pin-file", str(self.secret_file), "--port-file", str(port_file), *extra]
        process = self._spawn("server", arguments, self.token.environment if self.token else None)
        deadline = time.monotonic() + START_S
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable("SERVER_FAILED", f"the server did not come up: {self._last_words('server')}")
            time.sleep(0.02)
        self.address = f"127.0.0.1:{port_file.read_text()}"
        return self.address

    def start_station(self, name: str, *extra: str) -> None:
        """Starts `citycard station` with a directory of its own."""
        arguments = ["station", name, "--server", self.address, "--data", str(self.station_data(name)), *extra]
        self._spawn(name, arguments)

    def station_data(self, name: str) -> Path:
        return self.data / "stations" / name

    def _spawn(self, name: str, arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        log = self.log_file(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own program, with our own arguments
                [sys.executable, "-m", "engine.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        return self._processes[name]

    def log_file(self, name: str) -> Path:
        return self.data / "log" / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = self.log_file(name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def dead(self) -> list[str]:
        """Names of processes that ended though nobody stopped them."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def kill(self, name: str) -> None:
        """SIGKILL, for tests of recovery."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str, *, grace_s: float = STOP_S) -> int | None:
        """SIGTERM, and SIGKILL when the grace is over; the exit status."""
        process = self._processes.pop(name, None)
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode
