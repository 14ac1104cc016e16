"""`citycard ceremony …`: lint, rehearse and run a plan; resume, abort, verify, and print the memorandum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.cli import output
from engine.cli.job import Json
from engine.cli.stores import Data, SecretFile, read_passphrase
from engine.cli.token import read_pin
from engine.production.keysetup import read_setup
from keys.ceremony.clerk import Clerk, TokenClerk
from keys.ceremony.custodians import RECORD_NAME
from keys.ceremony.desk import Desk, TerminalDesk
from keys.ceremony.envelopes import DevicePrinter
from keys.ceremony.plan import Plan
from keys.ceremony.planfile import read_plan, require_plan
from keys.ceremony.record import fingerprint, read_record, verify_record, write_durably
from keys.ceremony.rehearsal import rehearse
from keys.ceremony.run import PLAN_NAME, Ceremony
from keys.ceremony.sealed import SealedVault
from keys.ceremony.software import SoftwareVault
from keys.ceremony.token import TokenVault
from keys.ceremony.unseal import unseal_at_desk
from keys.ceremony.vault import Vault
from keys.custody.token import TokenConfig, TokenCustody, TokenSealer
from keys.errors import CitycardError, Conflict, Denied, InvalidInput, NotFound, Unavailable
from keys.hardening import harden

app = typer.Typer(help="Key ceremonies: one reviewed plan in, one signed record out.", no_args_is_help=True)
PlanFile = Annotated[Path, typer.Argument(help="The plan, a TOML file.")]
Directory = Annotated[Path, typer.Argument(help="Directory of the ceremony.")]
RecordFile = Annotated[Path, typer.Argument(help="The record, or the directory of the ceremony.")]
Ceremonies = Annotated[Path, typer.Option("--ceremonies", help="Where ceremonies and their records are kept.")]

Store = Annotated[Path | None, typer.Option("--data", help="Directory of the key store, for custody software and sealed.")]
Token = Annotated[str | None, typer.Option("--token", help="Label of the token; default: what custody.toml in the directory names.")]
Module = Annotated[Path | None, typer.Option("--module", help="Path of the token's PKCS#11 module.")]
Unseal = Annotated[
    Path | None, typer.Option("--unseal", help="Plan of kind unseal, carried out first: for a store that custodians' shares seal.")
]


@dataclass(frozen=True)
class Keys:
    """What a command line says of where the keys are."""

    data: Path | None
    secret_file: Path | None
    token: str | None = None
    module: Path | None = None
    unseal: Path | None = None
    ceremonies: Path = Path()

    @property
    def directory(self) -> Path:
        """Raises InvalidInput DATA_MISSING."""
        if self.data is None:
            raise InvalidInput("DATA_MISSING", "custody software and sealed need --data, the directory of the key store")
        return self.data

    def token_config(self) -> TokenConfig | None:
        """The token that is named, or that the directory names. Raises InvalidInput TOKEN_MISSING, CUSTODY_SETUP."""
        if self.token is not None and self.module is not None:
            return TokenConfig(self.module, self.token)
        if self.token is not None or self.module is not None:
            raise InvalidInput("TOKEN_MISSING", "a token needs both --token and --module")
        setup = None if self.data is None else read_setup(self.data)
        return setup.token() if setup is not None and setup.custody == "token" else None


@app.callback()
def _prepare() -> None:
    harden(production=False)


@app.command()
def init(
    data: Data,
    test: Annotated[bool, typer.Option("--test", help="For TEST keys only; a token says itself what it is for.")] = False,
    secret_file: SecretFile = None,
    token: Token = None,
    module: Module = None,
) -> None:
    """Make an empty key store under a passphrase; with --token a sealed store under a key of that token.

    Shows the fingerprint of the key that its records will be signed with: write it down.
    """
    config = Keys(data, secret_file, token, module).token_config()
    with ExitStack() as opened:
        if config is None:
            vault = opened.enter_context(closing(SoftwareVault.create(data, read_passphrase(secret_file, confirm=True), test=test)))
            clerk = vault.clerk
            output.say(f"empty key store in {data}{', TEST' if clerk.test else ''}")
        else:
            held = opened.enter_context(_token(config, Keys(data, secret_file)))
            clerk = TokenClerk(held)
            opened.enter_context(closing(SealedVault.create(clerk, data, TokenSealer(held.session))))
            output.say(f"empty sealed store in {data}, opened by token {config.label}{', TEST' if clerk.test else ''}")
        output.say(f"records are signed by {fingerprint(clerk.public_key().hex())}")


@app.command()
def lint(plan: PlanFile, as_json: Json = False) -> None:
    """All faults of a plan at once; exit status 1 when there is one."""
    found, findings = read_plan(_text(plan))
    if as_json:
        rows = [{"line": f.line, "field": f.field, "rule": f.rule, "message": f.message} for f in findings]
        output.emit_json({"file": str(plan), "sha256": found.sha256 if found else None, "findings": rows})
    elif found is None:
        for finding in findings:
            output.say(f"{plan}: {finding}")
    else:
        output.say(f"{plan}: no findings; SHA-256 {found.sha256}")
    if found is None:
        raise typer.Exit(1)


@app.command("rehearse")
def rehearse_plan(plan: PlanFile) -> None:
    """Go through the whole plan with practice keys on a throwaway vault; prints all that will be on the screen."""
    rehearsal = rehearse(read_plan_file(plan))
    output.say("REHEARSAL on a throwaway store: this is what will be on the screen")
    for line in rehearsal.transcript:
        output.say(line)
    entries = verify_record(rehearsal.record).entries
    output.say(f"rehearsed: {len(entries)} record entries, verified; nothing was kept")


@app.command()
def run(
    plan: PlanFile,
    ceremonies: Ceremonies,
    data: Store = None,
    secret_file: SecretFile = None,
    token: Token = None,
    module: Module = None,
    unseal: Unseal = None,
) -> None:
    """Carry the plan out at this terminal."""
    wanted = read_plan_file(plan)
    desk = TerminalDesk()
    ceremonies.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _vault(wanted, Keys(data, secret_file, token, module, unseal, ceremonies), desk) as vault:
        ceremony = Ceremony.start(wanted, vault, desk, _printer(wanted), ceremonies)
        output.say(f"the record is signed by {fingerprint(vault.clerk.public_key().hex())}: compare it with the one written down")
        _finish(ceremony, ceremonies / ceremony.ceremony_id)


@app.command()
def resume(
    directory: Directory,
    data: Store = None,
    secret_file: SecretFile = None,
    token: Token = None,
    module: Module = None,
    unseal: Unseal = None,
) -> None:
    """Go on where a ceremony paused or was interrupted."""
    desk = TerminalDesk()
    keys = Keys(data, secret_file, token, module, unseal, directory.parent)
    with _vault(read_plan_file(directory / PLAN_NAME), keys, desk) as vault:
        _finish(Ceremony.resume(directory, vault, desk, _printer), directory)


@app.command()
def abort(
    directory: Directory,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    data: Store = None,
    secret_file: SecretFile = None,
    token: Token = None,
    module: Module = None,
    unseal: Unseal = None,
) -> None:
    """End a ceremony without a key."""
    desk = TerminalDesk()
    keys = Keys(data, secret_file, token, module, unseal, directory.parent)
    with _vault(read_plan_file(directory / PLAN_NAME), keys, desk) as vault:
        Ceremony.resume(directory, vault, desk, lambda _: None).abort(reason)


@app.command()
def verify(
    record: RecordFile,
    signer: Annotated[str | None, typer.Option("--signer", help="Fingerprint that was written down when the store was made.")] = None,
    as_json: Json = False,
) -> None:
    """Check a record offline: every entry, every signature, to the end."""
    found = verify_record(read_record(_record_path(record)))
    shown = fingerprint(found.public_key)
    if signer is not None and signer.replace(" ", "").upper() != shown.replace(" ", ""):
        raise Denied("RECORD_KEY", f"the record is sound, but signed by {shown}")
    last = found.entries[-1]
    if as_json:
        output.emit_json({"ceremony": found.ceremony_id, "entries": len(found.entries), "ended": last["type"], "signer": shown})
        return
    output.say(f"{found.ceremony_id}: {len(found.entries)} entries, {last['type']} at {last['time']}")
    output.say(f"signed by {shown}" + ("" if signer else ": compare it with the one written down"))


@app.command("memorandum")
def print_memorandum(record: RecordFile, out: Annotated[Path, typer.Option("--out", help="The PDF to write.")]) -> None:
    """The hand-over memorandum (密钥交接备忘录) of a record as PDF."""
    if out.exists():
        raise Conflict("OUTPUT_EXISTS", f"{out} exists; a memorandum is never overwritten")
    content = read_record(_record_path(record))
    write_durably(out, _memorandum(content))
    output.say(f"{out} written")


def _finish(ceremony: Ceremony, directory: Path) -> None:
    try:
        ceremony.run()
    except CitycardError:
        if not ceremony.ended:
            output.say("The ceremony is paused; what was accepted is kept. With the same --data, --token and --module as now:")
            output.say(f"  to go on:                citycard ceremony resume {directory}")
            output.say(f"  to end it with no key:   citycard ceremony abort {directory} --reason TEXT")
        raise
    content = read_record(directory / RECORD_NAME)
    try:
        write_durably(directory / "memorandum.pdf", _memorandum(content))
        output.say(f"record and memorandum are in {directory}")
    except Unavailable as missing:
        output.say(f"the record is in {directory}; no memorandum: {missing.message}")


@contextmanager
def software_vault(keys: Keys) -> Iterator[SoftwareVault]:
    """The store under a passphrase. Raises as `SoftwareCustody.open`, InvalidInput DATA_MISSING."""
    with closing(SoftwareVault.open(keys.directory, read_passphrase(keys.secret_file))) as vault:
        yield vault


@contextmanager
def clerk_of(keys: Keys) -> Iterator[Clerk]:
    """Who signs for a sealed store: the token, or the store under a passphrase beside it."""
    with ExitStack() as opened:
        token = keys.token_config()
        if token is None:
            yield opened.enter_context(software_vault(keys)).clerk
        else:
            yield TokenClerk(opened.enter_context(_token(token, keys)))


@contextmanager
def sealed_vault(keys: Keys, desk: Desk | None) -> Iterator[SealedVault]:
    """The sealed store, open where the token or `keys.unseal` opens it. Raises as `clerk_of`, `SealedVault.open`, `unseal_at_desk`."""
    with clerk_of(keys) as clerk, closing(SealedVault(clerk, keys.directory)) as vault:
        if keys.unseal is not None and desk is not None:
            unseal_at_desk(read_plan_file(keys.unseal), desk, clerk, keys.ceremonies, vault.unseal)
        elif isinstance(clerk, TokenClerk) and vault.sealed_by_token:
            vault.open(TokenSealer(clerk.custody.session))
        yield vault


def token_vault(beside: SealedVault, policy: Literal["host-clear", "token-only"]) -> TokenVault:
    """The token that is the clerk of a sealed store. Raises InvalidInput TOKEN_MISSING."""
    if not isinstance(beside.clerk, TokenClerk):
        raise _no_token(policy)
    return TokenVault(beside.clerk.custody, policy)


@contextmanager
def _vault(plan: Plan, keys: Keys, desk: Desk) -> Iterator[Vault]:
    match plan.custody:
        case "software":
            with software_vault(keys) as store:
                yield store
        case "sealed":
            with sealed_vault(keys, desk) as sealed:
                yield sealed
        case _:
            token = keys.token_config()
            if token is None:
                raise _no_token(plan.custody)
            with _token(token, keys) as held:
                yield TokenVault(held, plan.custody)


def _token(config: TokenConfig, keys: Keys) -> TokenCustody:
    return TokenCustody.open(config, read_pin(keys.secret_file, "token's user"), mode="test")


def _no_token(custody: str) -> InvalidInput:
    return InvalidInput("TOKEN_MISSING", f"custody {custody} needs --token and --module, or --data with a custody.toml that names them")


def _printer(plan: Plan) -> DevicePrinter | None:
    if plan.output is None:
        return None
    printer = DevicePrinter(plan.output)
    if printer.keeps:
        output.say(f"{plan.output.device} keeps what is printed: destroy it before the witness when the ceremony is over")
    return printer


def read_plan_file(path: Path) -> Plan:
    """A plan. Raises NotFound PLAN_UNREADABLE, InvalidInput PLAN_INVALID."""
    return require_plan(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise NotFound("PLAN_UNREADABLE", f"plan {path}: {why}") from None


def _record_path(path: Path) -> Path:
    return path / RECORD_NAME if path.is_dir() else path


def _memorandum(content: bytes) -> bytes:
    from keys.ceremony.memorandum import memorandum  # a quarter of a second that no other command needs

    return memorandum(verify_record(content), content)
