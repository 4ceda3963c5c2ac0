"""The command ``uno-actors``: a module for what belongs together of its commands.

Exit codes: 0 fine, 1 a fault was found or the work was refused, 2 the command line is wrong.
"""

import errno
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from uno_actors.cli import (
    check as check_cli,
)
from uno_actors.cli import (
    dead_letters as deadletters_cli,
)
from uno_actors.cli import (
    handlers as handlers_cli,
)
from uno_actors.cli import (
    run as run_cli,
)
from uno_actors.cli import (
    store as store_cli,
)
from uno_actors.cli.terminal import complain, take_any_encoding
from uno_actors.config.simulation import InvalidFault
from uno_actors.errors import InvalidStoreUrl, InvalidTopic, UnoError
from uno_actors.printable import printable

app = typer.Typer(
    name="uno-actors",
    help="Prove configuration files of event-sourced actors, run them, and care for what was recorded.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(store_cli.app, name="store")
app.command()(check_cli.check)
app.command()(run_cli.run)
app.command()(run_cli.tree)
app.command()(check_cli.schema)
app.add_typer(handlers_cli.app, name="handlers")
app.add_typer(deadletters_cli.app, name="deadletters")


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
    """Prove configuration files of event-sourced actors, run them, and care for what was recorded."""


def main() -> None:
    """Run the command line and exit with its code."""
    take_any_encoding()
    try:
        app()
    except UnoError as error:
        complain(printable(str(error)))
        sys.exit(2 if isinstance(error, (InvalidStoreUrl, InvalidTopic, InvalidFault)) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the exit complain
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        complain(f"the output cannot be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
