"""`citycard keys rekey`: every card key of a population anew, wrapped for a personalization line, with its check value."""

from __future__ import annotations

import os
import resource
import secrets
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import cext
from engine.cli import output
from engine.cli.job import Json
from engine.cli.stores import SecretFile, open_offline
from engine.cli.teststore import create_test_store
from engine.production.keyroom import KeyRoom
from engine.production.keysetup import KEYSTORE_FILE
from engine.profiles import lint
from engine.profiles.compile import CompiledProfile, compile_profile
from engine.profiles.model import load
from engine.rekey import request as requests
from engine.rekey.population import MadeUp, ParquetPopulation, Population, needed_columns
from engine.rekey.run import Outcome, Rekey
from keys.custody.wrapping import as_scheme
from keys.errors import InvalidInput

TEST_KEYS: Final = "test-keys"
PART_CARDS: Final = 65_536


def rekey(
    out: Annotated[Path, typer.Option("--out", help="Directory for the part files; one that holds a stopped run goes on with it.")],
    cards: Annotated[int | None, typer.Option("--cards", min=1, help="So many made-up cards, to rehearse or to measure.")] = None,
    population: Annotated[Path | None, typer.Option("--population", help="Parquet file of real cards, one a row.")] = None,
    profile: Annotated[str, typer.Option("--profile", help="Card profile.")] = "zhengzhou-citizen-card",
    select: Annotated[list[str] | None, typer.Option("--select", help="Keys: a pattern of application/keyset/name. Default: all.")] = None,
    wrap: Annotated[str, typer.Option("--wrap", help="aes-kw, ecb or cbc.")] = "aes-kw",
    file_format: Annotated[str, typer.Option("--format", help="parquet, or tunion (with --wrap ecb).")] = "parquet",
    data: Annotated[
        Path | None, typer.Option("--data", help="Data directory of the key store; default: TEST keys of the run's own.")
    ] = None,
    secret_file: SecretFile = None,
    kek: Annotated[list[str] | None, typer.Option("--kek", help="Key-encryption key by name, one for each algorithm needed.")] = None,
    part_cards: Annotated[
        int, typer.Option("--part-cards", min=1, help="Cards in a part file, the unit that a stopped run resumes by.")
    ] = PART_CARDS,
    workers: Annotated[int | None, typer.Option("--workers", min=1, max=64, help="Threads; default: one for each core.")] = None,
    as_json: Json = False,
) -> None:
    """Make every card key of a population anew: wrapped keys and check values in files, no clear key anywhere."""
    if (cards is None) == (population is None):
        raise InvalidInput("POPULATION_MISSING", "say which cards: --cards N made-up ones, or --population FILE of real ones")
    if file_format not in ("parquet", "tunion"):
        raise InvalidInput("FORMAT_UNKNOWN", f"a part file is parquet or tunion, not {file_format!r}")
    loaded = load(profile)
    lint.require_clean(loaded)
    compiled = compile_profile(loaded)
    chosen = _population(compiled, cards, population, select or [])
    with ExitStack() as stack:
        custody = stack.enter_context(_custody(out, data, secret_file, profile))
        request = requests.build(
            compiled,
            chosen,
            custody,
            patterns=select or [],
            scheme=as_scheme(wrap),
            file_format="parquet" if file_format == "parquet" else "tunion",
            keks=kek or [],
            part_rows=part_cards,
        )
        bar = stack.enter_context(_progress(quiet=as_json))
        task = None if bar is None else bar.add_task("cards", total=chosen.cards)

        def advance(count: int) -> None:
            if bar is not None and task is not None:
                bar.advance(task, count)

        count = workers or len(os.sched_getaffinity(0))
        outcome = Rekey(request, custody, out, test=custody.test, workers=count, progress=advance).run()
    summary = _summary(outcome, out, count)
    output.emit_json(summary) if as_json else _print(summary)


def _population(compiled: CompiledProfile, cards: int | None, file: Path | None, patterns: list[str]) -> Population:
    needed = needed_columns(sorted({compiled.keys[at].card_factor for at in requests.select(compiled, patterns)}))
    if cards is not None:
        return MadeUp(compiled.loaded.profile, cards, needed)
    return ParquetPopulation(file or Path(), needed)


def _custody(out: Path, data: Path | None, secret_file: Path | None, profile: str) -> KeyRoom:
    """The keys that are named, or TEST keys in the run's own directory, made at the first run and used again when it goes on."""
    if data is not None:
        return open_offline(data, secret_file)
    place = out / TEST_KEYS
    secret = place / "passphrase"
    if not (place / KEYSTORE_FILE).exists():
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(24) + "\n")
        create_test_store(place, secret.read_text().strip(), [profile])
    return open_offline(place, secret)


def _progress(*, quiet: bool) -> Any:  # noqa: ANN401 - a progress bar or nothing
    if quiet:
        return nullcontext()
    columns = (TextColumn("{task.completed:>12,.0f} of {task.total:,.0f} cards"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=output.console)


def _summary(outcome: Outcome, out: Path, workers: int) -> dict[str, Any]:
    manifest, timing = outcome.manifest, outcome.timing
    return {
        "profile": manifest.profile,
        "test_keys": manifest.test,
        "cards": manifest.cards,
        "keys_per_card": len(manifest.keys),
        "keys": manifest.cards * len(manifest.keys),
        "keys_made_now": outcome.made_keys,
        "parts_from_before": outcome.resumed_parts,
        "seconds": round(outcome.seconds, 2),
        "keys_per_second": round(outcome.made_keys / outcome.seconds) if outcome.made_keys else 0,
        "workers": workers,
        "worker_seconds": {name: round(getattr(timing, name), 2) for name in ("crypto", "files", "factors", "witness", "disk")},
        "witnessed": sum(part.witnessed for part in manifest.parts),
        "kernels": cext.kernel_level(),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "wrap": manifest.wrap,
        "format": manifest.file_format,
        "bytes": sum(part.bytes for part in manifest.parts),
        "directory": str(out),
        "parts": [{"name": part.name, "cards": part.cards, "bytes": part.bytes, "sha256": part.sha256} for part in manifest.parts],
    }


def _print(summary: dict[str, Any]) -> None:
    for part in summary["parts"]:
        output.say(f"{part['sha256']}  {part['name']}  {part['cards']:,} cards, {part['bytes']:,} bytes")
    if summary["test_keys"]:
        output.say("TEST keys: made for trials, never for cards that are issued")
    rows = [("keys", f"{summary['keys']:,} for {summary['cards']:,} cards, {summary['wrap']}, {summary['kernels']} kernels")]
    if summary["parts_from_before"]:
        rows.append(("resumed", f"{summary['parts_from_before']} of {len(summary['parts'])} parts were there and whole"))
    if summary["keys_made_now"]:
        rows += [
            ("seconds", f"{summary['seconds']:,.2f}"),
            ("keys per second", f"{summary['keys_per_second']:,}"),
            ("time went into", _where_time_went(summary["worker_seconds"], summary["workers"])),
        ]
    rows += [
        ("witness", f"{summary['witnessed']:,} keys made again another way, all equal"),
        ("memory", f"{summary['peak_memory_mib']} MiB at most"),
        ("files", f"{len(summary['parts'])} in {summary['directory']}, {summary['bytes']:,} bytes, and rekey.json"),
    ]
    output.pairs(rows)


def _where_time_went(split: dict[str, float], workers: int) -> str:
    shares = ", ".join(f"{name} {split[name]:.2f}" for name in ("crypto", "files", "factors", "witness"))
    return f"{shares} seconds of {workers} workers; the last way to disk {split['disk']:.2f} beside them"
