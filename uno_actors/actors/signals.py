"""What an actor cell exchanges with its supervisor and with those that watch it."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from uno_actors.actors.ask import Envelope
from uno_actors.actors.pykka import PykkaActorRef

Calls = Generator[Callable[[], Any], Any, Any]
"""Yields each function of the actor that must be called, and receives its result or its error.

Each step of an actor's life is therefore written once, for the event loop and for worker threads.
"""


@dataclass(frozen=True, slots=True)
class Terminated:
    """Sent to actors that `Actor.watch`: the actor behind ``ref`` has ended."""

    ref: PykkaActorRef[Any]


class Halt:
    """A signal: end the instance, but keep its mailbox and its reference."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How an actor failed, for its supervisor.

    Attributes:
        error: What it raised.
        while_starting: Whether it failed before it could handle messages.
        message: The message that it was handling, if any.
    """

    error: BaseException
    while_starting: bool
    message: Envelope | None = None
