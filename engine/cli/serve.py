"""`citycard serve` and `citycard keys init`: the server, and the sealed key store it opens."""

from __future__ import annotations

import asyncio
import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import logs, output
from engine.cli.client import DEFAULT_ADDRESS
from engine.cli.job import Json
from engine.profiles.masters import kek_specs, master_specs
from engine.profiles.model import load
from engine.virtual.birth import TEST_KMC
from keys.custody import Custody
from keys.custody.software import SCRYPT_N, SoftwareCustody, provision_test_keys
from keys.errors import InvalidInput, NotFound
from keys.hardening import harden

keys_app = typer.Typer(help="The sealed key store.", no_args_is_help=True)

KEYSTORE = "keystore.json"
Data = Annotated[Path, typer.Option("--data", help="Data directory.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File whose first line is the passphrase; default: asked for, unseen.")
]


def read_passphrase(file: Path | None, *, confirm: bool = False) -> str:
    """The passphrase from a file, or typed without echo. Never from the command line, where every process could read it."""
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise NotFound("PASSPHRASE_UNREADABLE", f"passphrase file {file}: {why}") from None
    else:
        if not sys.stdin.isatty():
            raise InvalidInput("PASSPHRASE_MISSING", "no terminal to ask for the passphrase: give --passphrase-file")
        text = getpass.getpass("Passphrase of the key store: ")
        if confirm and text != getpass.getpass("The same again: "):
            raise InvalidInput("PASSPHRASE_DIFFERS", "the two passphrases are not the same")
    if not text:
        raise InvalidInput("PASSPHRASE_EMPTY", "the passphrase is empty")
    return text


def create_test_store(data: Path, passphrase: str, profiles: list[str], *, scrypt_n: int = SCRYPT_N) -> int:
    """A key store marked TEST in a data directory: a random master for every key the profiles name; the count.

    The maker's key is not random: it is the public test key that the virtual chips are born with.
    """
    makers, others = {}, {spec.key_id: spec for spec in kek_specs()}
    for name in profiles:
        profile = load(name).profile
        specs = {spec.key_id: spec for spec in master_specs(profile)}
        makers[profile.channel.transport.master] = specs.pop(profile.channel.transport.master)
        others.update(specs)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with SoftwareCustody.create(data, passphrase, test=True, scrypt_n=scrypt_n) as store:
        for spec in makers.values():
            store.import_key(spec, TEST_KMC, origin="maker's public TEST key")
        return len(makers) + len(provision_test_keys(store, others.values()))


def open_store(data: Path, passphrase: str, *, dev: bool) -> SoftwareCustody:
    """Opens the sealed store of a data directory; TEST keys are refused unless `dev`."""
    return SoftwareCustody.open(data, passphrase, mode="test" if dev else "production")


@keys_app.callback()
def _prepare() -> None:
    harden(production=False)


@keys_app.command("init")
def init(
    data: Data,
    test: Annotated[bool, typer.Option("--test", help="TEST keys, for demo and development only; required in this version.")] = False,
    profile: Annotated[list[str] | None, typer.Option(help="Profiles whose masters to make.")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make the sealed key store of a data directory, with random TEST masters."""
    if not test:
        raise InvalidInput(
            "CEREMONY_NEEDED",
            "production masters are born in ceremonies, which this version does not have; --test makes TEST keys",
        )
    count = create_test_store(data, read_passphrase(passphrase_file, confirm=True), profile or ["zhengzhou-citizen-card"])
    text = f"{count} TEST master keys made in {data / KEYSTORE}; a production server refuses them"
    output.emit_json({"keys": count, "file": str(data / KEYSTORE), "test": True}) if as_json else output.say(text)


@keys_app.command("list")
def list_keys(data: Data, passphrase_file: PassphraseFile = None, as_json: Json = False) -> None:
    """Master keys of a store: what they are for, their check values and states; never the keys."""
    custody = open_store(data, read_passphrase(passphrase_file), dev=True)
    rows = [
        (r.key_id, str(r.domain), r.algorithm, str(r.level), r.version, str(r.state), r.kcv, "TEST" if r.test else "")
        for r in custody.inventory()
    ]
    names = ("key", "domain", "algorithm", "level", "version", "state", "kcv", "mark")
    if as_json:
        output.emit_json({"keys": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        output.table(names, rows, "no keys")


def serve(
    data: Data,
    bind: Annotated[str, typer.Option(help="Loopback HOST:PORT to listen on; port 0 chooses one.")] = DEFAULT_ADDRESS,
    dev: Annotated[bool, typer.Option("--dev", help="Accept TEST keys.")] = False,
    passphrase_file: PassphraseFile = None,
    drain_seconds: Annotated[float, typer.Option(help="How long cards in hand may take after SIGTERM.")] = 30.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    port_file: Annotated[Path | None, typer.Option(help="Write the port here once the server answers.")] = None,
) -> None:
    """Run the server: jobs, stock and stations over gRPC on loopback."""
    from engine.rpc.server import serve as run_server  # half a second that no other command needs

    logs.configure(log_level)
    harden(production=not dev)

    def ready(port: int) -> None:
        if port_file is not None:
            temporary = port_file.with_suffix(".new")
            temporary.write_text(str(port))
            temporary.replace(port_file)

    def opener() -> Custody:
        return open_store(data, read_passphrase(passphrase_file), dev=dev)

    asyncio.run(run_server(data=data, bind=bind, open_custody=opener, ready=ready, drain_s=drain_seconds))
