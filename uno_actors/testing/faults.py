"""Stores that fail on demand, to see what a service does when the disk is full or the database is gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from uno_actors.errors import OutcomeUnknown, StoreUnavailable
from uno_actors.store.port import EventStore

OPERATIONS = tuple(sorted(EventStore.__abstractmethods__ - {"close"}))
"""The operations that can be made to fail: those of the port, from which all others are built."""


class Faults:
    """What `failing` has done.

    Attributes:
        hits: How often the operation has failed.
    """

    def __init__(self) -> None:
        self.hits = 0


@contextmanager
def failing(
    store: EventStore,
    operation: str = "commit",
    error: BaseException | None = None,
    *,
    times: int | None = None,
    after: bool = False,
) -> Iterator[Faults]:
    """Make ``store`` fail inside the block, for every caller.

    Args:
        store: A store of any kind.
        operation: One of `OPERATIONS`; ``commit`` records events, for every caller.
        error: The exception raised; default is `StoreUnavailable`, or with ``after`` `OutcomeUnknown`.
        times: How many calls fail; default is all inside the block.
        after: Fail after the work is done: events are recorded, but the caller gets the error.

    Raises:
        ValueError: There is no such operation.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"a store cannot fail at {operation!r}; it can at {', '.join(OPERATIONS)}")
    if error is None:
        error = OutcomeUnknown(repr(store), "it was told to fail") if after else _unavailable(store)
    faults, real, overridden = Faults(), getattr(store, operation), operation in vars(store)

    @wraps(real)
    async def fails(*args: Any, **kwargs: Any) -> Any:
        if times is not None and faults.hits >= times:
            return await real(*args, **kwargs)
        faults.hits += 1
        if after:
            await real(*args, **kwargs)
        raise error

    setattr(store, operation, fails)
    try:
        yield faults
    finally:
        if overridden:
            setattr(store, operation, real)
        else:
            delattr(store, operation)


def _unavailable(store: EventStore) -> StoreUnavailable:
    return StoreUnavailable(repr(store), "it was told to fail")
