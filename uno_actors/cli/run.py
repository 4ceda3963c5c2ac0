"""``uno-actors run`` and ``uno-actors tree``: run the system of a configuration file, and show its state."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.check import File, rounded
from uno_actors.cli.service import EarlySignals, LogForm, end_process, run_service
from uno_actors.cli.terminal import branches, complain, say, say_json
from uno_actors.cli.workers import run_workers
from uno_actors.cluster.workers import ALLOWED, Workers
from uno_actors.config.errors import InvalidConfig
from uno_actors.config.reader import control_key, load, load_system, load_tables
from uno_actors.errors import CallerError
from uno_actors.ops.processes import Unanswered, ask_processes
from uno_actors.ops.serving import Address, InvalidAddress, check_page
from uno_actors.printable import counted, printable
from uno_actors.system.control_socket import control_directories


def run(
    file: File,
    log_form: Annotated[
        LogForm | None, typer.Option("--log", help="Log format, in place of the file's.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|cores|ROLE=N,...",
            help="Number of processes, in place of the file's: 4, cores, or aggregates=2,handlers=1.",
        ),
    ] = None,
    page: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve the live page at this port, with a token.")
    ] = None,
) -> None:
    """Run the system of a configuration file until SIGTERM or SIGINT, then drain and stop it in order.

    A second signal ends it at once. SIGHUP reads the file again and applies the changes.

    With workers, a supervisor process runs so many processes, each a node of one cluster, restarts those that end,
    and stops them one after the other. SIGUSR2, or `uno-actors restart`, replaces them one after the other.

    Exit codes: 0 stopped, 1 the file is invalid or the system cannot start,
    2 there is no such file, 3 its supervisors gave up.
    """
    early = EarlySignals()
    early.catch()
    given = None if workers is None else _workers(workers)
    address = None if page is None else _address(page)
    if given is not None or _has_workers(file):
        if address is not None:
            raise PageOfWorkers(file)
        end_process(run_workers(file, given, log_form))
    code = run_service(load(file), log_form, early, page=address)
    end_process(code)  # threads that a handler still keeps busy had their time


def _has_workers(file: Path) -> bool:
    """Whether a file says how many worker processes there are.

    Raises:
        InvalidConfig: The file is invalid.
    """
    try:
        return load_tables(file, "cluster").workers is not None
    except InvalidConfig:
        return load(file).workers is not None  # with all its faults in one error


def _workers(text: str) -> Workers:
    try:
        return Workers.of(text)
    except ValueError as error:
        why = f"{error}. " if str(error) else ""
        raise typer.BadParameter(f"{why}Expected {ALLOWED}; found {text!r}", param_hint="--workers") from None


def _address(text: str) -> Address:
    try:
        check_page()
        return Address.of(text)
    except InvalidAddress as error:
        raise typer.BadParameter(str(error), param_hint="--page") from None


class PageOfWorkers(CallerError):
    """A port for the live page was asked for, and several processes would have to share it."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"--page is for one process: for workers, run `uno-actors dashboard {file}` beside them, which shows all"
        )


class NoWorkers(CallerError):
    """The system of a file runs without worker processes."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"the system of {file} runs without a supervisor of workers: start it with --workers, or restart its"
            " process"
        )


class NotRunning(CallerError):
    """No process runs the system of a file."""

    def __init__(self, file: Path) -> None:
        super().__init__(f"no process runs the system of {file} on this machine for this user")


def tree(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per process.")] = False,
) -> None:
    """Show the tree of a running system: states, restarts, queues. Worker processes appear under their supervisor.

    Exit code 1 if the system does not run, or if a process does not answer.
    """
    answers = _ask(file, "tree")
    for answer in answers:
        if isinstance(answer, Unanswered):
            complain(printable(str(answer)))
        elif as_json:
            say_json(answer)
    if not as_json:
        for answer in joined([answer for answer in answers if not isinstance(answer, Unanswered)]):
            facts = [answer["system"], f"process {answer['pid']}", f"up {rounded(answer['uptime'])}"]
            say(", ".join(facts + routed(answer.get("cluster"))))
            for line in branches(answer["tree"]["children"], _node, lambda node: node["children"]):
                say(line)
    raise typer.Exit(any(isinstance(answer, Unanswered) for answer in answers))


def restart(file: File) -> None:
    """Replace the worker processes of a running system one after the other, while the others serve on.

    Each new process starts with the file and the program as they are now. A worker that is wrong in the file, or does
    not start, ends the replacing; see the log. Exit code 1 if no supervisor of workers runs.
    """
    asked = [answer for answer in _ask(file, "tree") if not isinstance(answer, Unanswered)]
    supervisors = {answer["pid"] for answer in asked if "workers" in answer}
    if not supervisors:
        raise NoWorkers(file)
    for answer in _ask(file, "restart", supervisors):
        if isinstance(answer, Unanswered):
            complain(printable(str(answer)))
            raise typer.Exit(1)
        say(
            f"process {answer['pid']} replaces its {counted(len(answer['workers']), 'worker')} one after the other"
        )


def _ask(file: Path, want: str, processes: Collection[int] | None = None) -> list[Any]:
    """What the processes of a file's system answer, or only some of them.

    Raises:
        NotRunning: There is none.
    """
    directories = control_directories(load_system(file).url, control_key(file))
    answers = list(ask_processes(directories, want, processes))
    if not answers:
        raise NotRunning(file)
    return answers


def joined(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of processes, with the tree of each worker in that of its supervisor."""
    by_process = {answer["pid"]: answer for answer in answers}
    whole = []
    for answer in answers:
        if "workers" in answer:
            children = []
            for node in answer["tree"]["children"]:
                process = answer["workers"][node["name"]]
                below = by_process.pop(process, None)
                facts = node if process is None else {**node, "process": process}
                if below is not None:
                    facts |= {"children": below["tree"]["children"], "cluster": below["cluster"]}
                children.append(facts)
            whole.append({**answer, "tree": {**answer["tree"], "children": children}})
        else:
            whole.append(answer)
    return [answer for answer in whole if answer["pid"] in by_process]


def _node(node: dict[str, Any]) -> str:
    facts = [node["kind"] if "process" not in node else f"process {node['process']}", node["state"]]
    facts += [counted(node["restarts"], "restart")] if node["restarts"] else []
    facts += [f"{node['waiting']:,} waiting"] if node["waiting"] else []
    return f"{node['name']}  {', '.join(facts + routed(node.get('cluster')))}"


def routed(statistics: dict[str, Any] | None) -> list[str]:
    """What a node has routed, in words; nothing for a system that is none, or that has had no commands."""
    counted_as = {
        "local": "handled of its own",
        "sent": "sent to others",
        "served": "served for others",
        "sent_again": "sent again",
    }
    found = statistics or {}
    return [f"{found[name]:,} {words}" for name, words in counted_as.items() if found.get(name)]
