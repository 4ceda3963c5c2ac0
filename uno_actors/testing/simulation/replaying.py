"""A list of commands with their times as a scenario: what a recording of a running system becomes."""

import asyncio
import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from uno_actors.domain.aggregate import AggregateRoot, check_aggregate_id, check_is_aggregate
from uno_actors.domain.commands import Command
from uno_actors.errors import CommandRejected
from uno_actors.store.records import StoredRecord
from uno_actors.tasks import begin
from uno_actors.testing.simulation.nodes import MakeSystem
from uno_actors.testing.simulation.running import Scenario
from uno_actors.testing.simulation.world import World


class RecordedCommand(NamedTuple):
    """A command that a client has sent.

    Attributes:
        at: When: seconds after the scenario begins.
        node: Name of the node that it was sent to.
        aggregate_type: Class of the aggregate.
        aggregate_id: Its id.
        command: The command. With the ``command_id`` that it had, it is the same command to those that know it.
    """

    at: float
    node: str
    aggregate_type: type[AggregateRoot]
    aggregate_id: str
    command: Command[Any]


def replayed(
    make_system: MakeSystem,
    commands: Iterable[RecordedCommand | tuple[float, str, type[AggregateRoot], str, Command[Any]]],
    *,
    history: Sequence[StoredRecord] = (),
    nodes: Iterable[str] = (),
) -> Scenario:
    """A scenario that sends recorded commands again, each at its time, to the node that it was sent to.

    Name it in a module, and run it as any other: ``incident = replayed(make_system, [...])``, then
    ``simulate(incident)`` or ``uno-actors simulate module:incident``. While a failing run is made smaller, only the
    first commands are sent.

    All nodes share one store. A command is sent when its time has come, whether or not those before it were answered,
    and again with the same id while the world fails. A rejected command is answered; any other error of a command
    fails the run. Give only what clients have sent: handlers and processes send their commands again themselves.

    Args:
        make_system: Makes the system of each node, ``make_system(node)``; ``node.name`` tells which it is.
        commands: ``(at, node, aggregate_type, aggregate_id, command)`` for each, in any order; see `RecordedCommand`.
        history: What was recorded before the first command, as ``await store.read_log()`` returns it. It is on the
            disk when the nodes start. Handlers that start at the earliest event handle it again.
        nodes: Names of more nodes, to which no command was sent.

    Raises:
        ValueError: A time is not a number of seconds from 0 up, or no node is named.
        TypeError: A command is not such a tuple.
        InvalidAggregate, InvalidAggregateId: The second half of a tuple does not name an aggregate.
    """
    ordered = sorted((_checked(each) for each in commands), key=lambda each: each.at)
    names = dict.fromkeys([*(each.node for each in ordered), *nodes])
    if not names:
        raise ValueError("there is no node to start: give commands, or names of nodes")

    async def scenario(world: World) -> None:
        world.restore(history)
        for name in names:
            await world.node(name, make_system)
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def send(sent: RecordedCommand) -> None:
            await asyncio.sleep(began + sent.at - loop.time())
            with suppress(CommandRejected):
                await world.ask(sent.aggregate_type, sent.aggregate_id, sent.command, node=sent.node)

        await asyncio.gather(*(begin(loop, send(ordered[number])) for number in world.commands(len(ordered))))

    caller = sys._getframe(1).f_globals.get("__name__")
    if caller is not None:  # where it is found by its name, for the command that repeats a run
        scenario.__module__ = caller
    return scenario


def _checked(given: tuple[Any, ...]) -> RecordedCommand:
    try:
        at, node, aggregate_type, aggregate_id, command = given
    except (TypeError, ValueError):
        raise TypeError(
            f"a recorded command is (at, node, aggregate_type, aggregate_id, command); found {given!r}"
        ) from None
    if not isinstance(at, int | float) or not math.isfinite(at) or at < 0:
        raise ValueError(f"the time of a command is in seconds, from 0 up; found {at!r}")
    if not isinstance(node, str):
        raise TypeError(f"the node of a command is its name; found {node!r}")
    check_is_aggregate(aggregate_type)
    if not isinstance(command, Command):
        raise TypeError(f"a recorded command ends with the command; found {command!r}")
    return RecordedCommand(at, node, aggregate_type, check_aggregate_id(aggregate_id), command)
