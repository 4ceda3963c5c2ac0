"""The journal: gathers what all aggregates want recorded and commits it in groups.

While one commit is under way, whatever comes waits together and forms the next: the slower the disk, the
larger the group.
"""

import asyncio
from collections.abc import Callable

from uno_actors.errors import OutcomeUnknown, UnoError, describe, shown
from uno_actors.logs import get_logger
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended
from uno_actors.tasks import begin

Outcome = Appended | UnoError


def _nobody_wants_to_know(appended: Appended) -> None: ...


class Journal:
    """The way of all aggregates of a system to its store. Lives on the event loop.

    Attributes:
        commits: Groups that were committed.
        events: Events that were recorded.
        recorded: Told of each append that is durable.
        position: Whatever it has not yet given the outcome of is recorded after this position of the log.
    """

    def __init__(self, store: EventStore) -> None:
        self.commits = 0
        self.events = 0
        self.position = 0
        self.recorded: Callable[[Appended], object] = _nobody_wants_to_know
        self._store = store
        self._waiting: list[tuple[Append, Callable[[Outcome], None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger(actor="journal")

    def append(self, request: Append, done: Callable[[Outcome], None]) -> None:
        """Record ``request``; ``done`` is called with the outcome once it is durable or has failed."""
        self._waiting.append((request, done))
        if self._task is None:
            self._task = begin(asyncio.get_running_loop(), self._commit_all(), name="journal")

    async def _commit_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            outcomes = await self._commit([request for request, _ in group])
            self.commits += 1
            end = self.position
            for (request, done), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Appended):
                    self.events += len(request.records)
                    end = outcome.positions.stop - 1
                    self.recorded(outcome)
                try:
                    done(outcome)
                except Exception as error:  # noqa: BLE001 - one that fails must not keep the others waiting
                    self._log.error("an outcome was not taken", exc_info=error)
            self.position = end
        self._task = None

    async def _commit(self, requests: list[Append]) -> list[Outcome]:
        try:
            outcomes = await self._store.commit(requests)
        except UnoError as error:
            return [error] * len(requests)
        except BaseException as error:  # noqa: BLE001 - a store of somebody else's may raise anything
            # Also if the program cancels this task, which it does not know: the others that wait have their turn.
            self._log.error("store failed", exc_info=error)
            reason = describe(error)
        else:
            if len(outcomes) == len(requests):
                return [*outcomes]
            reason = f"it gave {len(outcomes)} outcomes for {len(requests)} requests"
        return [OutcomeUnknown(shown(self._store, repr), reason)] * len(requests)
