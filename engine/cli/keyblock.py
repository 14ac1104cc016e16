"""`citycard keyblock …`: what a key block says about itself, and hand-over sets checked and received."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import output
from engine.cli.ceremony import Keys, Module, Token, Unseal, sealed_vault, software_vault, token_vault
from engine.cli.job import Json
from engine.cli.stores import Data, SecretFile
from keys.ceremony.desk import TerminalDesk
from keys.ceremony.receive import receive
from keys.ceremony.record import fingerprint
from keys.ceremony.stored import StoreVault
from keys.ceremony.vault import Vault
from keys.custody.policy import Holder
from keys.errors import InvalidInput, NotFound
from keys.hardening import harden
from keys.hierarchy import Level
from keys.keyblock.handover import Agreed, HandoverSet, verify_set
from keys.keyblock.header import parse_header

app = typer.Typer(help="Key blocks and hand-over sets.", no_args_is_help=True)
SetFile = Annotated[Path, typer.Argument(help="The hand-over set.")]
PublicKey = Annotated[str, typer.Option("--public-key", help="The sender's Ed25519 key, 64 hex digits, known from elsewhere.")]


@app.callback()
def _prepare() -> None:
    harden(production=False)


@app.command()
def show(as_json: Json = False) -> None:
    """The header of a key block read from standard input; needs no key, proves nothing."""
    header, _ = parse_header(sys.stdin.readline().strip())
    rows = [
        ("version", header.version_id),
        ("key usage", header.key_usage),
        ("algorithm", header.algorithm),
        ("mode of use", header.mode_of_use),
        ("key version", header.key_version),
        ("exportability", header.exportability),
        ("optional blocks", ", ".join(name for name, _ in header.optional_blocks) or "none"),
    ]
    output.emit_json({name.replace(" ", "_"): value for name, value in rows}) if as_json else output.pairs(rows)


@app.command()
def verify(handover: SetFile, public_key: PublicKey, as_json: Json = False) -> None:
    """Check the signature of a hand-over set and list its keys."""
    found = _verified(handover, public_key)
    if as_json:
        keys = [{"key": k.key_id, "version": k.version, "level": k.level, "kcv": k.kcv, "factors": k.factors} for k in found.keys]
        output.emit_json({"set": found.set_id, "recipient": found.recipient, "kek": found.kek, "kek_kcv": found.kek_kcv, "keys": keys})
        return
    output.say(f"{found.set_id} from {found.sender} for {found.recipient}, {found.scheme} under {found.kek} ({found.kek_kcv})")
    output.say(f"signed by {fingerprint(public_key)}")
    rows = [(k.key_id, k.version, k.level, k.algorithm, f"{k.kcv} ({k.kcv_method})", " ".join(k.factors)) for k in found.keys]
    output.table(("key", "version", "level", "algorithm", "kcv", "factors"), rows, "no keys")


@app.command("receive")
def receive_set(
    handover: SetFile,
    public_key: PublicKey,
    data: Data,
    kek: Annotated[str, typer.Option("--kek", help="Our name of the key-encryption key.")],
    level: Annotated[Level, typer.Option("--level", help="The dispersion level agreed with the sender.")],
    factor: Annotated[list[str] | None, typer.Option("--factor", help="Agreed factors already applied, hex, root first.")] = None,
    into: Annotated[Holder, typer.Option("--into", help="The custody the keys go to.")] = "software",
    secret_file: SecretFile = None,
    token: Token = None,
    module: Module = None,
    unseal: Unseal = None,
    ceremonies: Annotated[Path, typer.Option("--ceremonies", help="Where the record of --unseal is kept.")] = Path("ceremonies"),
) -> None:
    """Take the keys of an upper level's set in, all or none, each with its check value compared.

    The key-encryption key is in the software store when the keys go there, and otherwise in the sealed store.
    """
    found = _verified(handover, public_key)
    agreed = Agreed(level, tuple(_hex(one, "factor") for one in factor or []))
    keys = Keys(data, secret_file, token, module, unseal, ceremonies)
    desk = None if unseal is None else TerminalDesk()
    with ExitStack() as opened:
        under: StoreVault
        target: Vault
        if into == "software":
            target = under = opened.enter_context(software_vault(keys))
        else:
            under = sealed = opened.enter_context(sealed_vault(keys, desk))
            target = sealed if into == "sealed" else token_vault(sealed, into)
        for record in receive(found.keys, found.scheme, kek, agreed, under=under, into=target, origin=f"received {found.set_id}"):
            output.say(f"{record.key_id} version {record.version}: {record.kcv}")


def _verified(path: Path, public_key: str) -> HandoverSet:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotFound("HANDOVER_UNREADABLE", f"hand-over set {path}: {error.strerror}") from None
    return verify_set(content, _hex(public_key, "public key"))


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidInput("NOT_HEX", f"the {what} is not hex") from None
