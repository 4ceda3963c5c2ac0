"""``uno-actors check`` and ``uno-actors schema``: validate a configuration file before it runs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from uno_actors.cli.check_store import CheckedStore, check_store, show_store
from uno_actors.cli.opening import Tenant, has_effect, loaded_program
from uno_actors.cli.terminal import branches, complain, say, say_json
from uno_actors.config.analysis import Analysis, Finding, Node, analyse
from uno_actors.config.errors import ConfigFault, InvalidConfig, key_path
from uno_actors.config.reader import Config, load
from uno_actors.config.simulation import Fault, InvalidFault, Simulation, simulate
from uno_actors.config.tables import DEFAULT_SUPERVISOR, json_schema
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.printable import counted
from uno_actors.rehearsal.program import is_file
from uno_actors.rehearsal.readable import EXAMPLES
from uno_actors.supervision.spec import Supervisor
from uno_actors.units import duration, rounded

File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A configuration file, in TOML; with --store it may be a module."),
]


def check(
    context: typer.Context,
    file: File,
    faults: Annotated[
        list[str] | None,
        typer.Option("--simulate", metavar="FAULT", help="Simulate a fault in virtual time; repeatable."),
    ] = None,
    lasting: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Virtual time to simulate.")
    ] = "1h",
    seed: Annotated[int, typer.Option(help="Random seed of the simulation.")] = 0,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            "-s",
            metavar="URL",
            help="Check as well that each kind of event in a store can be read.",
        ),
    ] = None,
    every_event: Annotated[
        bool, typer.Option("--all", help=f"With --store: read all events, not {EXAMPLES} of each kind.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept", metavar="EVENT", help="With --store: 'Type v1' need not be readable; repeatable."
        ),
    ] = None,
    tenant: Tenant = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Validate a configuration file, and show its tree and the consequences of its rules. Exit code 1 if it is invalid.

    With --store, the program reads events of each type and version in the store, which is not written to. Exit code 1
    if one cannot be read.

    Faults to simulate: 'mail fails 30%', 'mail fails 100% of 5/s for 10m after 1h', 'mail cannot start for 2m'.
    """
    has_effect(context, bool(faults), "without --simulate", "lasting", "seed")

    def checked_store() -> CheckedStore | None:
        if store is None:
            return None
        return check_store(store, tenant, accept, every_event=every_event, is_quiet=as_json)

    if store is not None and not is_file(str(file)):
        loaded_program([str(file)])
        read = checked_store()
        assert read is not None
        if as_json:
            say_json(read.as_data())
        else:
            show_store(read)
        raise typer.Exit(0 if read.is_right else 1)
    try:
        config = load(file)
    except InvalidConfig as error:
        _refuse(error, as_json=as_json)
        raise typer.Exit(exit_code(error)) from None
    found = analyse(config.supervisors, config.system.stop_timeout)
    findings = [
        (finding, config.fault(finding.path, finding.option, finding.reason)) for finding in found.findings
    ]
    findings += roles_that_none_has(config)
    simulation = _simulated(config, faults or (), lasting, seed)
    is_right = all(finding.severity != "contradiction" for finding in found.findings)
    read = checked_store()
    if as_json:
        data = _as_data(config, found, findings, is_right=is_right)
        data["simulation"] = None if simulation is None else _simulation_as_data(simulation)
        say_json(data | ({} if read is None else read.as_data()))
    else:
        for line in _report(config, found, findings, is_right=is_right):
            say(line)
        for line in _simulation_lines(simulation) if simulation is not None else ():
            say(line)
        if read is not None:
            say()
            show_store(read)
    raise typer.Exit(0 if is_right and (read is None or read.is_right) else 1)


def roles_that_none_has(config: Config) -> list[tuple[Finding, ConfigFault]]:
    """Warn of workers of which none serves commands, or none runs the file's handlers."""
    if config.workers is None:
        return []
    usual = () if config.cluster is None else config.cluster.roles
    had = {role for roles in config.workers.roles(usual, cores=1) for role in roles}
    lacks = {
        "aggregates": "no worker serves commands: they end with NotServed, unless nodes of other files have the role",
        "handlers": "no worker runs handlers: they stay on standby, unless nodes of other files have the role",
    }
    keys = ("cluster", "workers")
    file, line = config.place(keys)
    found = []
    for role, reason in lacks.items():
        is_needed = role == "aggregates" or config.handlers or config.supervisors
        if role not in had and is_needed:
            fault = ConfigFault(file, line, key_path(keys), f"{reason} '{role}'")
            found.append((Finding("warning", keys, "workers", fault.reason), fault))
    return found


def schema() -> None:
    """Print the JSON Schema of configuration files, for completion and checks in editors."""
    say_json(json_schema(), indent=2)


def exit_code(error: InvalidConfig) -> int:
    """2 if there is no such file, as for a wrong command line; 1 if it is invalid."""
    return 2 if any(fault.line is None and fault.file == error.file for fault in error.faults) else 1


def _simulated(config: Config, faults: Sequence[str], lasting: str, seed: int) -> Simulation | None:
    try:
        seconds = duration(lasting)
    except ValueError:
        raise InvalidFault(lasting, "it is not a duration") from None
    if not faults:
        return None
    free = Supervisor(DEFAULT_SUPERVISOR, config.handlers, max_restarts=None)
    tree = analyse([*config.supervisors, free], config.system.stop_timeout).tree
    return simulate(tree, [Fault.parse(fault) for fault in faults], seconds, seed)


def _simulation_lines(simulation: Simulation) -> Iterator[str]:
    """The results of a simulation, a line for each part."""
    yield ""
    end = "the system ended after" if simulation.ended else "the system ran for"
    yield f"simulated: {end} {rounded(simulation.seconds)}"
    for path, child in simulation.children.items():
        facts = [counted(child.failures, "failure"), counted(child.restarts, "restart")]
        if child.handled or child.dead or child.waiting:
            facts = [
                f"{child.handled:,} handled",
                *facts,
                f"{child.dead:,} set aside",
                f"{child.waiting:,} waiting",
            ]
        if child.down:
            facts.append(f"down for {rounded(child.down)}, {rounded(child.longest)} at a time")
        yield f"  {' > '.join(path)}: {', '.join(facts)}"
    for path, times in groupby(sorted(simulation.gave_up, key=lambda one: one[1]), key=lambda one: one[1]):
        moments = [moment for moment, _ in times]
        when = f"after {rounded(moments[0])}" + (f", {len(moments)} times in all" if len(moments) > 1 else "")
        yield f"  {' > '.join(path)} gave up {when}"


def _simulation_as_data(simulation: Simulation) -> dict[str, Any]:
    data = asdict(simulation)
    data["children"] = [{"path": path, **asdict(child)} for path, child in simulation.children.items()]
    return data


def _refuse(error: InvalidConfig, *, as_json: bool) -> None:
    if as_json:
        faults = [fault.as_dict() for fault in error.faults]
        say_json({"file": error.file, "valid": False, "faults": faults})
    else:
        complain(error)


# --- the report --------------------------------------------------------------------------------------------


def _report(
    config: Config, found: Analysis, findings: Sequence[tuple[Finding, ConfigFault]], *, is_right: bool
) -> Iterator[str]:
    yield from draw(config, found)
    yield ""
    yield from worst_cases(found)
    for finding, place in findings:
        yield ""
        yield f"{finding.severity}: {place}"
    yield ""
    yield f"{config.file} is valid" if is_right else f"{config.file} has contradictions"


def worst_cases(found: Analysis) -> Iterator[str]:
    """The analysis in sentences."""
    if found.shortest is None or found.longest is None:
        yield "no failure of a child ends the system"
    else:
        ways = {"": found.shortest}
        if found.longest.failures > found.shortest.failures:
            ways = {" at the earliest": found.shortest, " at the latest": found.longest}
        for when, way in ways.items():
            yield (
                f"the system ends{when} after {counted(way.restarts, 'restart')}, at failure {way.failures:,} in a row"
                f" of {' > '.join(way.path)}"
            )
        assert found.longest_outage is not None
        yield f"a child that cannot start is down for up to {rounded(found.longest_outage)} before the system ends"
    for path in found.endless:
        yield f"{' > '.join(path)} is restarted without end"
    takes = "unlimited time" if found.shutdown is None else f"up to {rounded(found.shutdown)}"
    yield (
        f"stopping the children takes {takes} by their own deadlines; what still runs after"
        f" {rounded(found.stop_timeout)} is abandoned"
    )


def draw(config: Config, found: Analysis) -> Iterator[str]:
    """The tree, a line for each part."""
    types = config.aggregates.types
    served = "any" if types is None else ", ".join(kind.aggregate_type for kind in types) or "none"
    yield f"{config.system.name}  aggregates: {served}"
    free = [Node(handler.name, "handler", handler=handler) for handler in config.handlers]
    yield from branches(
        [*free, *found.tree], lambda node: f"{node.name}  {_rules(node)}", lambda node: node.children
    )


def _rules(node: Node) -> str:
    parts: list[str] = []
    if node.supervisor is not None:
        supervisor = node.supervisor
        limit = "any number of restarts"
        if supervisor.max_restarts is not None:
            each = " each" if supervisor.budget == "child" else ""
            restarts = counted(supervisor.max_restarts, "restart")
            limit = f"{restarts}{each} within {rounded(supervisor.within)}"
        parts += [supervisor.strategy, limit]
    elif node.handler is not None:
        parts += ["handler", *_subscription(node.handler)]
    elif node.spec is not None:
        parts += ["actor", node.spec.run.__name__]
    if node.spec is not None:
        parts += [node.spec.restart] if node.spec.restart != "permanent" else []
        parts += ["significant"] if node.spec.significant else []
    return ", ".join(parts)


def _subscription(handler: HandlerSpec) -> list[str]:
    kinds = handler.event_type if isinstance(handler.event_type, tuple) else (handler.event_type,)
    events = " or ".join(kind.__name__ for kind in kinds if kind is not None)
    topic = "" if handler.topic_pattern is None else f"topic {handler.topic_pattern.text}"
    aggregate = "" if handler.aggregate_type is None else f"of {handler.aggregate_type}"
    of = [part for part in (events, topic, aggregate) if part] or ["every event"]
    return [*of, handler.priority.name.lower(), counted(handler.max_attempts, "attempt")]


def _as_data(
    config: Config, found: Analysis, findings: Sequence[tuple[Finding, ConfigFault]], *, is_right: bool
) -> dict[str, Any]:
    def escalation(one: Any) -> dict[str, Any] | None:
        return None if one is None else {name: getattr(one, name) for name in one.__dataclass_fields__}

    return {
        "file": config.file,
        "valid": is_right,
        "faults": [],
        "findings": [{"severity": finding.severity, **place.as_dict()} for finding, place in findings],
        "shortest": escalation(found.shortest),
        "longest": escalation(found.longest),
        "longest_outage": found.longest_outage,
        "endless": found.endless,
        "shutdown": found.shutdown,
        "stop_timeout": found.stop_timeout,
        "tree": [_node(node) for node in found.tree],
    }


def _node(node: Node) -> dict[str, Any]:
    children = [_node(child) for child in node.children]
    return {"name": node.name, "kind": node.kind, "rules": _rules(node), "children": children}
