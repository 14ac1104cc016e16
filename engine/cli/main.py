"""The `citycard` command: puts the groups together, and turns every error into one line and an exit status.

Exit status: 0 done; 1 refused, failed, or a check found something; 2 wrong usage.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from engine.calc import run as run_calc
from engine.cli import capacity, ceremony, demo, job, keyblock, keys, load, metrics, output, profile, serve, station, stock, token, virtual
from keys.errors import CitycardError

app = typer.Typer(
    name="citycard",
    help="Personalizes smart cards in bulk and keeps the keys that make them trustworthy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(job.app, name="job")
app.add_typer(stock.app, name="stock")
app.add_typer(stock.scrap, name="scrap")
app.add_typer(stock.sample, name="sample")
app.add_typer(profile.app, name="profile")
app.add_typer(virtual.app, name="virtual")
app.add_typer(token.app, name="token")
app.add_typer(ceremony.app, name="ceremony")
app.add_typer(keyblock.app, name="keyblock")
app.add_typer(keys.app, name="keys")
app.add_typer(capacity.app, name="capacity")
app.command()(serve.serve)
app.command()(station.station)
app.command()(metrics.metrics)
app.command()(demo.demo)
app.command()(load.load)


@app.command()
def calc() -> None:
    """Key calculator: one JSON object a line on standard input, one a line on standard output; no store, no server."""
    raise typer.Exit(run_calc(sys.stdin.buffer, sys.stdout))


@app.command()
def stations(server: job.Server, as_json: job.Json = False) -> None:
    """Connected stations, and why one is stopped."""
    stock.list_stations(server, as_json=as_json)


@app.command("station-reset")
def station_reset(name: Annotated[str, typer.Argument(help="Station id.")], server: job.Server, by: stock.By) -> None:
    """Let a stopped station work again, after what stopped it was mended."""
    stock.reset_station(server, name, by)


def run() -> None:
    """Entry point of the console script."""
    as_json = "--json" in sys.argv
    try:
        # outside its standalone mode typer returns the status of `typer.Exit` instead of leaving with it
        status = app(prog_name="citycard", standalone_mode=False)
    except CitycardError as error:
        output.fail(error.reason, error.message, as_json=as_json)
        raise SystemExit(1) from None
    except typer.TyperException as error:
        _wrong_usage(error, as_json=as_json)
        raise SystemExit(error.exit_code) from None
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        output.fail("FILE_ERROR", f"{place}{error.strerror or type(error).__name__}", as_json=as_json)
        raise SystemExit(1) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def _wrong_usage(error: typer.TyperException, *, as_json: bool) -> None:
    """One line, as for every error; a command without arguments has printed its help already and has no message."""
    message = " ".join(error.format_message().split())
    if message:
        context = getattr(error, "ctx", None)
        hint = "" if context is None else f" (see `{context.command_path} --help`)"
        output.fail("USAGE", message + hint, as_json=as_json)


if __name__ == "__main__":
    run()
