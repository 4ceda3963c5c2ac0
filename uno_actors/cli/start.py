"""The start of the command ``uno-actors``: it imports the commands, and runs the one that is asked for."""

import gc


def main() -> None:
    """See `uno_actors.cli.app.main`.

    Nothing that the imports make is garbage, and looking for some takes a sixth of the time of a start.
    """
    gc.disable()
    from uno_actors.cli.app import main as run  # noqa: PLC0415 - here, so that the collector does not run

    gc.freeze()
    gc.enable()
    run()
