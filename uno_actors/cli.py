"""The command ``uno-actors``: one module for each of its groups of commands.

Exit codes: 0 fine, 1 a fault was found or the work was refused, 2 the command line is wrong.
"""

import os
import sys

import typer

from uno_actors import deadletters_cli, handlers_cli, store_cli
from uno_actors.errors import InvalidStoreUrl, InvalidTopic, UnoError

app = typer.Typer(
    name="uno-actors",
    help="Care for what event-sourced actors have recorded.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(store_cli.app, name="store")
app.add_typer(handlers_cli.app, name="handlers")
app.add_typer(deadletters_cli.app, name="deadletters")


@app.callback()
def uno_actors() -> None:
    """Care for what event-sourced actors have recorded."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except UnoError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - it is a command
        sys.exit(2 if isinstance(error, (InvalidStoreUrl, InvalidTopic)) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may the exit complain
        sys.exit(0)
