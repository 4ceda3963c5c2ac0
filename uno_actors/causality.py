"""Causality: which message is being handled now, so that the messages it causes can name it.

An event takes its ``correlation_id`` from the command being handled, and its ``causation_id`` is that command's id.
A command sent while an event is handled takes both from the event. Explicit values win. A command that is sent from
outside without a correlation id starts a new chain: its events get an id that nothing else has, not even another
command of the same id.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from uno_actors.forks import on_fork


class Cause(NamedTuple):
    """The message being handled, as the messages that it causes name it.

    Attributes:
        correlation_id: Common to all messages that originate from one first message.
        causation_id: The id of the message.
        position: Position of the recorded event being handled, of the first of several: all that it causes is
            recorded after it. ``None`` for any other message.
        store: The store that the event was read from.
    """

    correlation_id: str
    causation_id: str
    position: int | None = None
    store: object = None

    def fill(self, correlation_id: str | None, causation_id: str | None) -> tuple[str, str]:
        """The two ids of a message that this one causes; ids that it was given win."""
        return correlation_id or self.correlation_id, causation_id or self.causation_id


_current: ContextVar[Cause | None] = ContextVar("uno_actors.cause", default=None)


def current_cause() -> Cause | None:
    """The cause of messages that are created now; ``None`` if no message is being handled."""
    return _current.get()


@contextmanager
def caused_by(cause: Cause) -> Iterator[None]:
    """Name ``cause`` in all messages that are created inside the ``with`` block."""
    token = _current.set(cause)
    try:
        yield
    finally:
        _current.reset(token)


_IDS_AT_ONCE = 1024


def new_id() -> str:
    """32 random hexadecimal digits: as unique as a UUID 4, many times as fast, and safe across ``fork``."""
    while True:
        try:
            return _ids.pop()
        except IndexError:
            # Many at once: asking the operating system releases the interpreter, and under load it takes long to
            # get it back.
            block = os.urandom(16 * _IDS_AT_ONCE).hex()
            _ids.extend([block[start : start + 32] for start in range(0, len(block), 32)])


_ids: list[str] = []
"""Made and not yet used."""
on_fork(after_in_child=_ids.clear)
