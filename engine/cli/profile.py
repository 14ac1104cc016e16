"""`citycard profile …`: what profiles there are, what a card of one holds, and what the lint says."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import output
from engine.cli.job import Json
from engine.personalize.verification import proofs, round_trips
from engine.profiles.compile import compile_profile
from engine.profiles.lint import lint as lint_profile
from engine.profiles.lint import require_clean
from engine.profiles.model import load, shipped

app = typer.Typer(help="Card profiles.", no_args_is_help=True)
Profile = Annotated[str, typer.Argument(help="Name of a shipped profile, or path of a .toml file.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Profiles that come with citycard."""
    rows = [(p.profile.name, p.profile.version, p.profile.title, p.sha256[:16]) for p in map(load, shipped())]
    if as_json:
        output.emit_json({"profiles": [dict(zip(("name", "version", "title", "sha256"), row, strict=True)) for row in rows]})
    else:
        output.table(("name", "version", "title", "sha256"), rows, "none")


@app.command()
def show(profile: Profile, as_json: Json = False) -> None:
    """What a card of this profile holds and how each key is proven."""
    loaded = load(profile)
    require_clean(loaded)
    compiled = compile_profile(loaded)
    grades = proofs(compiled)
    if as_json:
        keys = [
            {"key": k.label, "algorithm": k.algorithm, "master": k.master_id, "kid": f"{k.kid:02X}", "proof": grades[k.label]}
            for k in compiled.keys
        ]
        output.emit_json(
            {
                "name": loaded.profile.name,
                "version": loaded.profile.version,
                "sha256": loaded.sha256,
                "image_bytes": compiled.image_len,
                "round_trips": round_trips(compiled),
                "applications": [{"name": a.name, "aid": a.aid.hex().upper(), "commands": len(a.commands)} for a in compiled.applets],
                "keys": keys,
                "assumptions": loaded.profile.assumptions,
            }
        )
        return
    output.pairs(
        [
            ("profile", f"{loaded.profile.name} {loaded.profile.version}"),
            ("title", loaded.profile.title),
            ("sha256", loaded.sha256),
            ("channel", f"{loaded.profile.channel.protocol}, i={loaded.profile.channel.i}, level {loaded.profile.channel.level}"),
            ("image", f"{compiled.image_len} bytes, {round_trips(compiled)} round trips"),
        ]
    )
    output.table(("application", "aid", "store data"), [(a.name, a.aid.hex().upper(), len(a.commands)) for a in compiled.applets], "")
    output.table(("key", "algorithm", "master", "proof"), [(k.label, k.algorithm, k.master_id, grades[k.label]) for k in compiled.keys], "")
    output.say("assumptions:")
    for assumption in loaded.profile.assumptions:
        output.say(f"  {assumption}")


@app.command()
def lint(profile: Profile, as_json: Json = False) -> None:
    """All findings at once; exit status 1 when one of them is an error."""
    findings = lint_profile(load(profile))
    errors = sum(f.severity == "error" for f in findings)
    if as_json:
        rows = [{"severity": f.severity, "rule": f.rule, "where": f.where, "message": f.message} for f in findings]
        output.emit_json({"errors": errors, "findings": rows})
    else:
        output.table(("severity", "rule", "where", "message"), [(f.severity, f.rule, f.where, f.message) for f in findings], "no findings")
    if errors:
        raise typer.Exit(1)
