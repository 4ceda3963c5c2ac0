"""``uno-actors run``, ``tree`` and ``restart``: run the system of a configuration file, and show its state."""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.check import File
from uno_actors.cli.opening import Tenant, of_tenant
from uno_actors.cli.service import EarlySignals, LogForm, end_process, named, run_service
from uno_actors.cli.tenants import run_tenants
from uno_actors.cli.terminal import bar, branches, complain, in_utf8, say, say_json
from uno_actors.cli.workers import run_workers
from uno_actors.cluster.workers import ALLOWED, Workers
from uno_actors.config.errors import InvalidConfig
from uno_actors.config.reader import control_key, load, load_system, load_tables
from uno_actors.errors import CallerError, WorldError
from uno_actors.handlers.partitions import whole_name
from uno_actors.ops.processes import Unanswered, ask_processes
from uno_actors.ops.serving import Address, InvalidAddress, check_page
from uno_actors.printable import counted, printable
from uno_actors.store.handler_names import partition_in
from uno_actors.store_urls import without_password
from uno_actors.system.control_socket import control_directories, key_of
from uno_actors.tenants import check_known, is_template
from uno_actors.units import rounded

LOOK_AGAIN = 0.2
"""Seconds between two looks at how far the replacing of workers is."""


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
    node_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="UNO_ACTORS_NODE_NAME",
            help="Name of this node of a cluster in logs and reports, in place of the file's.",
            callback=in_utf8,
        ),
    ] = None,
    tenant: Tenant = None,
    create: Annotated[
        bool, typer.Option("--create", help="Make the store of a tenant that has none yet.")
    ] = False,
) -> None:
    """Run the system of a configuration file until SIGTERM or SIGINT, then drain and stop it in order.

    A second signal ends it at once. SIGHUP reads the file again and applies the changes. SIGUSR1 writes the latest
    steps of the flight recorder to a file.

    With workers, a supervisor process runs so many processes, each a node of one cluster, restarts those that end,
    and stops them one after the other. SIGUSR2, or `uno-actors restart`, replaces them one after the other.

    If the store is that of many tenants, it runs the system of one with --tenant, and otherwise those of all. A tenant
    that is not listed in the file and has no store yet needs --create.

    Exit codes: 0 stopped, 1 the file is invalid or the system cannot start,
    2 there is no such file, 3 its supervisors gave up.
    """
    if create and tenant is None:
        raise typer.BadParameter(
            "it makes the store of one tenant: name it by --tenant", param_hint="--create"
        )
    early = EarlySignals()
    early.catch()
    given = None if workers is None else _workers(workers)
    address = None if page is None else _address(page)
    if given is not None or _has_workers(file):
        if address is not None:
            raise PageOfWorkers(file)
        if tenant is not None or is_template(load_system(file).url):
            raise WorkersOfTenants(file)
        end_process(run_workers(file, given, log_form, node_name))
    config = named(load(file), node_name)
    if is_template(config.system.url) and tenant is None and config.tenants is not None:
        if address is not None:
            raise PageOfTenants(file)
        end_process(run_tenants(config, log_form, early))
    of_tenant(config.system.url, tenant)
    if tenant is not None and not create:
        names = None if config.tenants is None else config.tenants.names
        where = f"the names under [tenants] in {file}"
        check_known(config.system.url, tenant, names, where, "`uno-actors run --create`")
    config = replace(config, tenant=tenant)
    code = run_service(config, log_form, early, page=address, node_name=node_name)
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


class PageOfTenants(CallerError):
    """A port for the live page was asked for, and it would have to show many tenants."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"--page is for one system: run `uno-actors dashboard {file} --tenant NAME` beside the tenants, which shows"
            " one of them"
        )


class WorkersOfTenants(CallerError):
    """Worker processes were asked for, of many tenants."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"the store of {file} is that of many tenants, whose systems share one process: leave workers out, and"
            " start the program several times, as nodes of a cluster, by [cluster]"
        )


class NoWorkers(CallerError):
    """The system of a file runs without worker processes."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"the system of {file} runs without a supervisor of workers: start it with --workers, or restart its"
            " process"
        )


class NotRunning(CallerError):
    """No process runs a system."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no process runs the system of {what} on this machine for this user")


class NotReplaced(WorldError):
    """Not all workers were replaced."""


def tree(
    place: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="A configuration file, or the URL of a store.")
    ],
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Each partition of a handler on a line of its own.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per process, with all partitions.")
    ] = False,
    tenant: Tenant = None,
) -> None:
    """Show the tree of a running system: states, restarts, queues. Worker processes appear under their supervisor.

    It finds the systems of all programs of this user, such as those of a web server, by the URL of their store. Exit
    code 1 if the system does not run, or if a process does not answer.
    """
    answers = answers_of(place, "tree", tenant=tenant)
    for answer in answers:
        if isinstance(answer, Unanswered):
            complain(printable(str(answer)))
        elif as_json:
            say_json(answer)
    if not as_json:
        for answer in joined([answer for answer in answers if not isinstance(answer, Unanswered)]):
            facts = [answer["system"], f"process {answer['pid']}", f"up {rounded(answer['uptime'])}"]
            say(", ".join(facts + routed(answer.get("cluster"))))
            below = _below if partitions else lambda node: folded(_below(node))
            for line in branches(below(answer["tree"]), _node, below):
                say(line)
    raise typer.Exit(any(isinstance(answer, Unanswered) for answer in answers))


def _below(node: dict[str, Any]) -> list[dict[str, Any]]:
    return list(node["children"])


def folded(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``nodes`` with the partitions of each handler as one node, in the place of the first."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        is_partition = node["kind"] == "handler" and partition_in(node["name"]) is not None
        parts.setdefault(whole_name(node["name"]) if is_partition else node["name"], []).append(node)
    return [
        each[0] if len(each) == 1 and each[0]["name"] == name else _summed(name, each)
        for name, each in parts.items()
    ]


def _summed(name: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    states = Counter(part["state"] for part in parts)
    shown = ", ".join(f"{number} {state}" for state, number in states.most_common())
    sums = {key: sum(part[key] for part in parts) for key in ("restarts", "waiting")}
    state = f"{counted(len(parts), 'partition')}: {shown}"
    return {**parts[0], "name": name, "state": state, "children": [], **sums}


def restart(
    file: File,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end, and say what has happened.")
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per supervisor process.")
    ] = False,
) -> None:
    """Replace the worker processes of a running system one after the other, while the others serve on.

    Each new process starts with the file and the program as they are now. A worker that does not start, and a file
    that is invalid, end the replacing: the workers after it run on as they are. Exit code 1 then, and if no supervisor
    of workers runs.
    """
    asked = [answer for answer in answers_of(str(file), "tree") if not isinstance(answer, Unanswered)]
    supervisors = {answer["pid"] for answer in asked if "workers" in answer}
    if not supervisors:
        raise NoWorkers(file)
    failed: list[str] = []
    for answer in answers_of(str(file), "restart", supervisors):
        if isinstance(answer, Unanswered):
            failed.append(str(answer))
        elif not wait:
            if as_json:
                say_json({"pid": answer["pid"], "state": "replacing"})
            else:
                count = counted(len(answer["workers"]), "worker")
                say(f"process {answer['pid']} replaces its {count} one after the other")
        else:
            failed += _watch(file, answer["pid"], answer["restart"], as_json=as_json)
    if failed:
        raise NotReplaced("; ".join(failed))


def _watch(file: Path, process: int, number: int, *, as_json: bool) -> list[str]:
    """Show how a supervisor process replaces its workers, until it has; return why it has not."""
    shown = 0
    with bar("restart", shown=not as_json) as progress:
        while True:
            (answer,) = answers_of(str(file), "replacements", {process})
            if isinstance(answer, Unanswered):
                return [str(answer)]
            now = next(each for each in answer["replacements"] if each["number"] == number)
            progress(len(now["replaced"]), now["workers"])
            for each in now["replaced"][shown:] if not as_json else ():
                say(f"worker {each['worker']}: {_replaced(each)}")
            shown = len(now["replaced"])
            if now["state"] in ("done", "failed"):
                break
            time.sleep(LOOK_AGAIN)
    if as_json:
        say_json({"pid": process, **now})
    elif now["state"] == "done":
        say(f"process {process}: {counted(now['workers'], 'worker')} replaced in {rounded(now['seconds'])}")
    return [f"process {process}: {now['reason']}"] if now["state"] == "failed" else []


def _replaced(each: dict[str, Any]) -> str:
    before = "none" if each["before"] is None else f"process {each['before']}"
    return f"{before} ended" if each["after"] is None else f"{before} replaced by process {each['after']}"


def answers_of(
    place: str,
    want: str,
    processes: Collection[int] | None = None,
    *,
    tenant: str | None = None,
    otherwise: str | None = None,
) -> list[Any]:
    """What the processes of a system answer, or only some of them.

    Args:
        place: A configuration file, or the URL of a store.
        want: The question.
        processes: Numbers of the processes to ask; default is all.
        tenant: The tenant, if the store is that of many.
        otherwise: The question for processes that do not know that one.

    Raises:
        NotRunning: There is none.
    """
    if ":" in place and not Path(place).exists():
        url = of_tenant(place, tenant)
        key, what = key_of(url), without_password(url)
    else:
        url, key, what = of_tenant(load_system(Path(place)).url, tenant), control_key(place, tenant), place
    answers = list(ask_processes(control_directories(url, key), want, processes, otherwise=otherwise))
    if not answers:
        raise NotRunning(what)
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
        "lent": "on loan to others",
        "borrowed": "on loan from others",
    }
    found = statistics or {}
    return [f"{found[name]:,} {words}" for name, words in counted_as.items() if found.get(name)]
