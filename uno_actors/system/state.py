"""What a running system tells other processes of its user: its tree, and what it does as a node of a cluster."""

import os
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

from uno_actors.cluster.settings import Cluster
from uno_actors.errors import UnoError, describe
from uno_actors.logs import get_logger
from uno_actors.system.control_socket import ControlServer, control_directory, key_of
from uno_actors.system.runtime import Runtime
from uno_actors.system.work import busy_in

SLOW = 0.25
"""Seconds after which an actor or a handler that still works at one thing is shown."""


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


def answer(want: str, name: str, runtime: Runtime, begun: float) -> dict[str, Any]:
    """The answer to another process; for the other arguments see `state_of`.

    Raises:
        ValueError: The question is unknown.
    """
    match want:
        case "tree":
            return state_of(name, runtime, begun)
        case "figures":
            return figures_of(name, runtime, begun)
    raise ValueError(f"{want!r} is not known here")


async def open_control(
    stack: AsyncExitStack,
    name: str,
    runtime: Runtime,
    *,
    cluster: Cluster | None,
    url: str | None,
) -> None:
    """Let other processes ask for the state of a node of a cluster, until ``stack`` is closed.

    So `uno-actors tree FILE` finds systems inside of other programs, such as the workers of uvicorn. Nodes of one
    process, which are linked by an object, need none.

    Args:
        stack: Closes the socket.
        name: Of the system.
        runtime: Its running parts.
        cluster: What it is as a node; ``None`` if it is none.
        url: URL of the store, by which other processes find the socket; ``None`` if the store was given as an object.
    """
    if url is None or cluster is None or not isinstance(cluster.listen, str | None):
        return
    begun = time.monotonic()
    try:
        directory = control_directory(url, key_of(url))
        server = ControlServer(directory, lambda want: answer(want, name, runtime, begun))
        await stack.enter_async_context(server)
    except (UnoError, OSError) as error:  # the system runs without it
        log = get_logger(system=name)
        log.warning("other processes cannot ask for the state of the system", error=describe(error))
