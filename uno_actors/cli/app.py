"""The command ``uno-actors``, and how it ends.

Exit codes: 0 done, 1 a fault was found or the work was refused, 2 the command line is wrong.
"""

import errno
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from uno_actors.cli import dead_letters, events, handlers, schedule, store
from uno_actors.cli.check import check, exit_code, schema
from uno_actors.cli.cluster import cluster
from uno_actors.cli.dashboard import dashboard
from uno_actors.cli.recording import recording
from uno_actors.cli.rehearse import rehearse
from uno_actors.cli.run import restart, run, tree
from uno_actors.cli.simulate import simulate
from uno_actors.cli.tail import tail
from uno_actors.cli.terminal import complain, take_any_encoding
from uno_actors.cli.why import why
from uno_actors.config.errors import InvalidConfig
from uno_actors.config.simulation import InvalidFault
from uno_actors.errors import InvalidStoreUrl, InvalidTopic, UnoError
from uno_actors.printable import printable

app = typer.Typer(
    name="uno-actors",
    help="Validate and run configuration files of event-sourced actors, and manage what is recorded.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(store.app, name="store")
app.command()(check)
app.command()(run)
app.command()(restart)
app.command()(tree)
app.command()(tail)
app.command()(why)
app.command()(cluster)
app.command()(dashboard)
app.command()(schema)
app.command()(rehearse)
app.command()(simulate)
app.command()(recording)
app.add_typer(events.app, name="events")
app.add_typer(handlers.app, name="handlers")
app.add_typer(dead_letters.app, name="deadletters")
app.add_typer(schedule.app, name="schedule")


def _show_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(version("uno-actors"))
        raise typer.Exit


@app.callback()
def uno_actors(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Validate and run configuration files of event-sourced actors, and manage what is recorded."""


def main() -> None:
    """Run the command line and exit with its code."""
    take_any_encoding()
    try:
        app(prog_name="uno-actors")  # also as `python -m uno_actors`
    except InvalidConfig as error:
        complain(error)
        sys.exit(exit_code(error))
    except UnoError as error:
        complain(printable(str(error)))
        sys.exit(2 if isinstance(error, (InvalidStoreUrl, InvalidTopic, InvalidFault)) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # so that the exit does not fail either
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        complain(f"the output cannot be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
