"""`citycard keys …`: the keys of a data directory, or of a running server: made, looked at, opened, sealed, wiped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import grpc
import typer
from citycard.v1 import keys_pb2 as pb
from citycard.v1.keys_pb2_grpc import KeyServiceStub

from engine.cli import client, output
from engine.cli.job import Json, Server
from engine.cli.rekey import rekey
from engine.cli.stores import Data, SecretFile, open_offline, read_needed, read_passphrase
from engine.cli.teststore import bind_token_store, create_test_store, create_test_token_store
from engine.cli.token import SOFTHSM, inventory, print_inventory, read_pin
from engine.production.keysetup import KEYSTORE_FILE, SETUP_FILE
from engine.rpc.unsealbox import close_letter
from keys.custody.token import TokenConfig
from keys.errors import InvalidInput, NotFound
from keys.hardening import harden

app = typer.Typer(help="Master keys: what there is, who holds them, and whether a server can use them.", no_args_is_help=True)
app.command()(rekey)

PROFILE = "zhengzhou-citizen-card"
Offline = Annotated[Path | None, typer.Option("--data", help="Data directory to look into; default: ask the server.")]
By = Annotated[str, typer.Option("--by", help="Who does this, for the audit chain.")]


@app.callback()
def _prepare() -> None:
    harden(production=False)


@app.command("init")
def init(
    data: Data,
    test: Annotated[bool, typer.Option("--test", help="Fill it with TEST masters, for demo and development only.")] = False,
    custody: Annotated[Literal["software", "token"], typer.Option("--custody", help="Who holds the keys.")] = "software",
    module: Annotated[Path, typer.Option("--module", envvar="CITYCARD_PKCS11_MODULE", help="The token's PKCS#11 module.")] = SOFTHSM,
    label: Annotated[str, typer.Option("--label", help="The token's label; `citycard token init` made it ready.")] = "",
    serial: Annotated[str, typer.Option("--serial", help="The token's serial number, where labels are not unique.")] = "",
    profile: Annotated[list[str] | None, typer.Option(help="Profiles whose masters to make.")] = None,
    secret_file: SecretFile = None,
    as_json: Json = False,
) -> None:
    """Give a data directory its custody: a software store of TEST masters, or a token and a store sealed under a key of it.

    Without --test a token is only bound to the directory: production masters come into it by ceremonies.
    """
    if custody == "software" and not test:
        raise InvalidInput(
            "CEREMONY_NEEDED",
            "production masters are born in ceremonies: `citycard ceremony run`, or --custody token; --test makes TEST keys",
        )
    profiles = profile or [PROFILE]
    if custody == "software":
        count, file = create_test_store(data, read_passphrase(secret_file, confirm=True), profiles), data / KEYSTORE_FILE
    else:
        if not label:
            raise InvalidInput("TOKEN_LABEL", "which token? Name it with --label")
        config, pin = TokenConfig(module, label, serial or None), read_pin(secret_file, "token's user")
        count = create_test_token_store(data, config, pin, profiles) if test else bind_token_store(data, config, pin)
        file = data / SETUP_FILE
    text = f"{count} TEST master keys made, see {file}; a production server refuses them" if test else f"token {label} bound, see {file}"
    output.emit_json({"keys": count, "file": str(file), "custody": custody, "test": test}) if as_json else output.say(text)


@app.command("list")
def list_keys(server: Server, data: Offline = None, secret_file: SecretFile = None, as_json: Json = False) -> None:
    """Master keys: what they are for, their check values and states; never the keys."""
    rows = _entries(server, data, secret_file)
    names = ("key", "domain", "algorithm", "level", "version", "state", "kcv", "custody", "mark")
    listed = [{name: "TEST" * bool(row["test"]) if name == "mark" else row[name] for name in names} for row in rows]
    if as_json:
        output.emit_json({"keys": listed})
    else:
        output.table(names, [tuple(row.values()) for row in listed], "no keys")


@app.command("inventory")
def inventory_of(server: Server, data: Offline = None, secret_file: SecretFile = None, as_json: Json = False) -> None:
    """Every key with its policy: who holds it, check value and method, origin, cryptoperiod, and warnings before that ends."""
    print_inventory(_entries(server, data, secret_file), as_json=as_json)


@app.command("show")
def show_key(
    key_id: Annotated[str, typer.Argument(help="Key id.")],
    server: Server,
    data: Offline = None,
    secret_file: SecretFile = None,
    as_json: Json = False,
) -> None:
    """All versions of one key, everything that is known of each."""
    found = [row for row in _entries(server, data, secret_file) if row["key"] == key_id]
    if not found:
        raise NotFound("KEY_UNKNOWN", f"there is no key {key_id!r}")
    if as_json:
        output.emit_json({"keys": found})
        return
    for row in found:
        output.pairs((name, ", ".join(value) if isinstance(value, list) else value) for name, value in row.items() if value is not None)


@app.command()
def status(server: Server, as_json: Json = False) -> None:
    """Whether the keys of a server are sealed, open or zeroized, and what each custody says of itself."""
    facts = _ask_status(server)
    if as_json:
        output.emit_json(facts)
        return
    parts = [" ".join(str(value) for value in part.values()) for part in facts.pop("parts")]
    facts["needs"] = ", ".join(facts["needs"])
    output.pairs([*((name, value) for name, value in facts.items() if value != ""), *(("held by", part) for part in parts)])


@app.command()
def unseal(server: Server, by: By, secret_file: SecretFile = None) -> None:
    """Open the keys of a server: passphrase, PIN or custodians' shares are asked for, unseen; also a new PIN after one was refused."""
    needs = tuple(_ask_status(server)["needs"])

    async def work(channel: grpc.aio.Channel) -> None:
        stub = KeyServiceStub(channel)
        begun = await stub.BeginUnseal(pb.BeginUnsealRequest(), timeout=client.DEADLINE_S)
        letter = close_letter(begun.public_key, secret, store_key)
        await stub.Unseal(pb.UnsealRequest(by=by, public_key=begun.public_key, letter=letter), timeout=client.DEADLINE_S)

    secret, store_key = read_needed(needs, secret_file)
    try:
        client.run(server, work)
    finally:
        for given in (secret, store_key):
            if given is not None:
                given.close()
    output.say("the keys are open")


@app.command()
def seal(server: Server, by: By) -> None:
    """Wipe the keys of a server from its memory; it waits for `citycard keys unseal`. Cards that are begun are finished."""
    client.ask(server, lambda channel: KeyServiceStub(channel).Seal(pb.SealRequest(by=by), timeout=client.DEADLINE_S))
    output.say("the keys are sealed")


@app.command()
def zeroize(server: Server, by: By, second: Annotated[str, typer.Option("--second", help="The second person who agrees.")]) -> None:
    """Wipe every key from a server's memory for good: it makes no card again until it is started anew. Cards in hand become scrap.

    What rests on disk and in the token stays. Where no command gets through, SIGUSR1 to the server's process does the same.
    """
    request = pb.ZeroizeRequest(by=by, second=second)
    client.ask(server, lambda channel: KeyServiceStub(channel).Zeroize(request, timeout=client.DEADLINE_S))
    output.say("zeroized: no key is left in the server's memory")


def _ask_status(server: str) -> dict[str, Any]:
    request = pb.GetKeyStatusRequest()
    answer = client.ask(server, lambda channel: KeyServiceStub(channel).GetKeyStatus(request, timeout=client.DEADLINE_S))
    return dict(json.loads(answer.status_json))


def _entries(server: str, data: Path | None, secret_file: Path | None) -> list[dict[str, Any]]:
    if data is not None:
        with open_offline(data, secret_file) as room:
            return inventory(room)
    request = pb.GetInventoryRequest()
    answer = client.ask(server, lambda channel: KeyServiceStub(channel).GetInventory(request, timeout=client.DEADLINE_S))
    return list(json.loads(answer.keys_json)["keys"])
