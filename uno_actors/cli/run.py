"""``uno-actors run`` and ``uno-actors tree``: run the system of a configuration file, and show its state."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.check import File, rounded
from uno_actors.cli.control import Unanswered, ask_processes, control_directories
from uno_actors.cli.service import EarlySignals, LogForm, end_process, serve
from uno_actors.cli.terminal import branches, complain, say, say_json
from uno_actors.config.reader import control_key, load, load_system
from uno_actors.errors import CallerError, UnoError, describe
from uno_actors.logs import get_logger
from uno_actors.printable import counted, printable


def run(
    file: File,
    log_form: Annotated[
        LogForm | None, typer.Option("--log", help="Log format, in place of the file's.")
    ] = None,
) -> None:
    """Run the system of a configuration file until SIGTERM or SIGINT, then drain and stop it in order.

    A second signal ends it at once. SIGHUP reads the file again and applies the changes.

    Exit codes: 0 stopped, 1 the file is invalid or the system cannot start,
    2 there is no such file, 3 its supervisors gave up.
    """
    early = EarlySignals()
    early.catch()
    config = load(file)
    try:
        code = serve(config, log_form, early)
    except UnoError as error:
        get_logger(system=config.system.name).critical("system cannot start", error=describe(error))
        code = 1
    except Exception as error:  # noqa: BLE001 - the constructor of a handler or an actor may raise anything
        get_logger(system=config.system.name).critical("system cannot start", exc_info=error)
        code = 1
    end_process(code)  # threads that a handler still keeps busy had their time


class NotRunning(CallerError):
    """No process runs the system of a file."""

    def __init__(self, file: Path) -> None:
        super().__init__(f"no process runs the system of {file} on this machine for this user")


def tree(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per process.")] = False,
) -> None:
    """Show the tree of a running system: states, restarts, queues.

    Exit code 1 if the system does not run, or if a process does not answer.
    """
    directories = control_directories(load_system(file).url, control_key(file))
    answers = list(ask_processes(directories, "tree"))
    if not answers:
        raise NotRunning(file)
    for answer in answers:
        if isinstance(answer, Unanswered):
            complain(printable(str(answer)))
        elif as_json:
            say_json(answer)
        else:
            say(f"{answer['system']}, process {answer['pid']}, up {rounded(answer['uptime'])}")
            for line in branches(answer["tree"]["children"], _node, lambda node: node["children"]):
                say(line)
    raise typer.Exit(any(isinstance(answer, Unanswered) for answer in answers))


def _node(node: dict[str, Any]) -> str:
    facts = [node["kind"], node["state"]]
    facts += [counted(node["restarts"], "restart")] if node["restarts"] else []
    facts += [f"{node['waiting']:,} waiting"] if node["waiting"] else []
    return f"{node['name']}  {', '.join(facts)}"
