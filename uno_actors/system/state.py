"""What a running system tells other processes of its user: its tree, and what it does as a node of a cluster."""

import asyncio
import os
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

from uno_actors.actors.watchdog import watchdog
from uno_actors.cluster.settings import Cluster
from uno_actors.errors import UnoError, describe
from uno_actors.flight_recorder.files import lines_of
from uno_actors.inquiry.facts import Question
from uno_actors.system.control_socket import (
    NOT_KNOWN,
    ControlServer,
    control_directories,
    control_directory,
    key_of,
    other_sockets,
)
from uno_actors.system.facts import facts_of
from uno_actors.system.recording import SystemRecording
from uno_actors.system.runtime import Runtime
from uno_actors.system.work import busy_in

SLOW = 0.25
"""Seconds after which an actor or a handler that still works at one thing is shown."""
STEPS_OF = "steps of "
"""The question for the steps about an id, which follows; see `ActorSystem.steps_of`."""


def state_of(name: str, runtime: Runtime, begun: float) -> dict[str, Any]:
    """What `uno-actors tree` shows of a process.

    Args:
        name: Of the system.
        runtime: Its running parts.
        begun: When it started, in seconds on the monotonic clock.
    """
    return {
        "system": name,
        "pid": os.getpid(),
        "uptime": time.monotonic() - begun,
        "tree": asdict(runtime.tree.node()),
        "cluster": None if runtime.node is None else asdict(runtime.node.statistics()),
    }


def figures_of(name: str, runtime: Runtime, begun: float) -> dict[str, Any]:
    """As `state_of`, with the counters and with who is slow: what the live page shows of a process."""
    return state_of(name, runtime, begun) | {
        "statistics": asdict(runtime.statistics()),
        "busy": [asdict(busy) for busy in busy_in(runtime, SLOW)],
    }


def answer(
    want: str, name: str, runtime: Runtime, begun: float, recording: SystemRecording
) -> dict[str, Any] | Awaitable[dict[str, Any]]:
    """The answer to another process; for the other arguments see `state_of`.

    What takes long is made on a worker thread.

    Raises:
        ValueError: The question is unknown.
    """
    match want:
        case "tree":
            return state_of(name, runtime, begun)
        case "figures":
            return figures_of(name, runtime, begun)
        case "recording":
            return asyncio.to_thread(lambda: _of_process(name, lines=[*lines_of(recording.now())]))
    if want.startswith(STEPS_OF):
        wanted = want.removeprefix(STEPS_OF)
        return asyncio.to_thread(
            lambda: _of_process(name, steps=[step.to_fields() for step in recording.steps_of(wanted)])
        )
    raise ValueError(f"{want!r} {NOT_KNOWN}")


def explained(question: dict[str, Any], name: str, runtime: Runtime) -> dict[str, Any]:
    """The answer to a question of an inquiry; from any thread. For the other arguments see `state_of`.

    Raises:
        KeyError, TypeError, ValueError, CorruptRecord: It is not a question.
    """
    return facts_of(name, runtime, Question.from_json(question["question"])).to_json()


def _of_process(name: str, **facts: Any) -> dict[str, Any]:
    return {"system": name, "pid": os.getpid(), **facts}


async def open_control(
    stack: AsyncExitStack,
    name: str,
    runtime: Runtime,
    *,
    cluster: Cluster | None,
    url: str | None,
    key: str | None,
    recording: SystemRecording,
) -> None:
    """Let other processes ask for the state of a system, until ``stack`` is closed.

    So `uno-actors tree` finds systems inside of other programs, such as the workers of uvicorn. It finds none whose
    store was given as an object, and none in memory that has no configuration file: nothing names them. Nor does it
    find nodes of one process, which are linked by an object.

    Args:
        stack: Closes the socket.
        name: Of the system.
        runtime: Its running parts.
        cluster: What it is as a node; ``None`` if it is none.
        url: URL of the store, by which other processes find the socket; ``None`` if the store was given as an object.
        key: That of its configuration file; ``None`` if it has none. See `control_directory`.
        recording: Its flight recorder.
    """
    is_node = cluster is not None
    if url is None or (cluster is not None and not isinstance(cluster.listen, str | None)):
        return
    if key is None and url.partition(":")[0] == "memory":
        return
    begun = time.monotonic()
    try:
        directory = control_directory(url, key or key_of(url))
        server = ControlServer(
            directory,
            lambda want: answer(want, name, runtime, begun, recording),
            runtime.elsewhere.serve_socket,
            explain=lambda question: explained(question, name, runtime),
            when_held=lambda listener: watchdog.when_held(runtime.dispatcher, listener),
        )
        others = control_directories(url, key or key_of(url))
        runtime.elsewhere.sockets = lambda: other_sockets(others)
        await stack.enter_async_context(server)
    except (UnoError, OSError) as error:  # the system runs without it
        log = runtime.dispatcher.log.bind(actor="system")
        # A program that has neither a file nor nodes may never be asked.
        say = log.warning if is_node or key is not None else log.info
        say("other processes cannot ask for the state of the system", error=describe(error))
