"""The journal: commits the appends of all aggregates in groups.

All requests that arrive while one commit is under way form the next group: the slower the disk, the larger the group.
Requests that are tied by a `uno_actors.aggregates.joint.Joint` are recorded together or in its order.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from time import monotonic

from uno_actors.aggregates.joint import (
    AppendOutcome,
    Entry,
    Joint,
    NotRecordedBefore,
    apart,
    is_refused,
    sort,
    together,
)
from uno_actors.aggregates.schedules_mark import has_scheduled
from uno_actors.errors import OutcomeUnknown, StoreUnavailable, UnoError, describe, shown
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.logs import Logger, get_logger
from uno_actors.observing import CommitGroup, Observation
from uno_actors.store.codec import StreamId
from uno_actors.store.logs import log_of_position, log_of_stream
from uno_actors.store.port import EventStore
from uno_actors.store.records import Append, Appended
from uno_actors.tasks import begin

Waiting = tuple[Append, Callable[[AppendOutcome], None], Joint | None, tuple[Joint, ...]]
"""The fields of an `Entry`, without its cost."""


def _ignore(appended: Appended) -> None: ...


class Journal:
    """Commits the appends of all aggregates of a system. Lives on the event loop.

    Args:
        store: Where events are recorded.
        observed: The observers of the system, if there are any.
        log: Has the names of the system bound.
        recorder: The flight recorder of the system, if it has one.

    Attributes:
        commits: Groups that were committed.
        events: Events that were recorded.
        on_append: Called with each append that is durable.
        before_schedules: Awaited before an append that has a command sent later is recorded, while it is set.
    """

    def __init__(
        self,
        store: EventStore,
        observed: Observation | None = None,
        log: Logger | None = None,
        recorder: FlightRecorder | None = None,
    ) -> None:
        self._recorder = recorder
        self.commits = 0
        self.events = 0
        self._ends: dict[int, int] = {}  # by log: what is not reported yet is recorded after it
        self.on_append: Callable[[Appended], object] = _ignore
        self.before_schedules: Callable[[], Awaitable[None]] | None = None
        self._store = store
        self._waiting: list[Waiting] = []
        self._has_joints = False  # among those that wait
        self._task: asyncio.Task[None] | None = None
        self._observed = observed
        self._contexts: list[Context] = []  # of the commands whose events wait, if they are observed
        self._log = (log or get_logger()).bind(actor="journal")

    def position(self, stream: StreamId) -> int:
        """The position in the log of ``stream`` after which all appends are recorded whose outcome is not reported."""
        return self._ends.get(log_of_stream(stream, self._store.logs), 0)

    def append(
        self,
        request: Append,
        done: Callable[[AppendOutcome], None],
        lead: Joint | None = None,
        follows: tuple[Joint, ...] = (),
    ) -> None:
        """Record ``request``; ``done`` is called with the outcome once it is durable or has failed.

        Args:
            request: What to record; with a joint, its records have their versions.
            done: Takes the outcome.
            lead: The joint that it leads.
            follows: The joints that it follows, each led by an earlier request.
        """
        self._waiting.append((request, done, lead, follows))
        if lead is not None or follows:
            self._has_joints = True
        if self._task is None:
            self._task = begin(asyncio.get_running_loop(), self._commit_all(), name="journal")

    def observe_contexts(self, contexts: Iterable[Context | None]) -> None:
        """Note the contexts of the commands whose events the next request has."""
        self._contexts += [context for context in contexts if context is not None]

    async def _commit_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            began, before = 0.0 if self._recorder is None else monotonic(), self.events
            if self._has_joints:
                outcomes = await self._commit_jointly(group)
            else:
                requests = [entry[0] for entry in group]
                outcomes = zip(
                    group,
                    await (self._commit if self._observed is None else self._observe)(requests),
                    strict=True,
                )
            committed = monotonic() if began else 0.0
            ends: dict[int, int] = {}
            for (request, done, lead, _), outcome in outcomes:
                if isinstance(outcome, Appended):
                    self.events += len(request.records)
                    positions = outcome.positions
                    # Those of one log are a range, of which the last is enough.
                    ends |= {
                        log_of_position(at): at
                        for at in (positions[-1:] if isinstance(positions, range) else positions)
                    }
                    self.on_append(outcome)
                elif self._recorder is not None:
                    self._recorder.not_committed(began, request.records[-1], outcome)
                if lead is not None:
                    lead.outcome = outcome
                try:
                    done(outcome)
                except Exception as error:  # noqa: BLE001 - the others must not wait for one that fails
                    self._log.error("an aggregate failed at the outcome of its append", exc_info=error)
            self._ends |= ends
            if self._recorder is not None:
                self._note(self._recorder, began, committed, self.events - before, ends)
        self._task = None

    def _note(
        self, recorder: FlightRecorder, began: float, committed: float, events: int, ends: dict[int, int]
    ) -> None:
        """Note that a group is durable. One commit has the events of one log without a gap."""
        if len(ends) == 1:
            (last,) = ends.values()
            recorder.committed(began, committed, events, last - events + 1, last)
        else:  # how many of them are in each log is not counted
            for last in ends.values():
                recorder.committed(began, committed, None, None, last)

    async def _commit_jointly(self, group: list[Waiting]) -> Iterable[tuple[Waiting, AppendOutcome]]:
        """Commit a group in which some requests lead or follow others; those without an outcome yet wait again."""
        bundles, refused, later = sort(Entry(*each) for each in group)
        self._has_joints = bool(later)
        known: list[tuple[Waiting, AppendOutcome]] = [(entry, NotRecordedBefore()) for entry in refused]
        again: list[Entry] = []
        if bundles:
            requests = [*map(together, bundles)]
            outcomes = await (self._commit if self._observed is None else self._observe)(requests)
            for bundle, outcome in zip(bundles, outcomes, strict=True):
                if len(bundle) > 1 and is_refused(outcome):
                    again += bundle
                else:
                    known += zip(bundle, apart(bundle, outcome), strict=True)
        for entry in again:
            if entry.lead is not None:
                entry.lead.apart = True
        if again or later:
            self._waiting[:0] = [*again, *later]
            self._has_joints = True
        return known

    async def _observe(self, requests: list[Append]) -> list[AppendOutcome]:
        assert self._observed is not None
        contexts, self._contexts = self._contexts, []
        group, began = CommitGroup(requests, contexts), monotonic()
        self._observed.append_begun(group)
        outcomes = await self._commit(requests)
        self._observed.append_ended(group, outcomes, monotonic() - began)
        return outcomes

    async def _commit(self, requests: list[Append]) -> list[AppendOutcome]:
        self.commits += 1
        if self.before_schedules is not None and has_scheduled(requests):
            refusal = await self._refusal(self.before_schedules)
            if refusal is not None:
                return await self._commit_others(requests, refusal)
        return await self._commit_now(requests)

    async def _commit_now(self, requests: list[Append]) -> list[AppendOutcome]:
        try:
            outcomes = await self._store.commit(requests)
        except UnoError as error:
            return [error] * len(requests)
        except BaseException as error:  # noqa: BLE001 - a store of another package may raise anything
            # Also if the program cancels this task: waiting requests must be committed.
            self._log.error("store failed", exc_info=error)
            reason = describe(error)
        else:
            if len(outcomes) == len(requests):
                return [*outcomes]
            reason = f"it gave {len(outcomes)} outcomes for {len(requests)} requests"
        return [OutcomeUnknown(shown(self._store, repr), reason)] * len(requests)

    async def _refusal(self, before_schedules: Callable[[], Awaitable[None]]) -> UnoError | None:
        """Why no schedule can be recorded now; ``None`` if it can."""
        try:
            await before_schedules()
        except UnoError as error:
            return error
        except BaseException as error:  # noqa: BLE001 - as for a commit
            self._log.error("store failed", exc_info=error)
            return StoreUnavailable(shown(self._store, repr), describe(error))
        return None

    async def _commit_others(self, requests: list[Append], refusal: UnoError) -> list[AppendOutcome]:
        """Refuse the requests with a schedule, and commit the others: they are those of other aggregates."""
        refused = [has_scheduled([request]) for request in requests]
        others = [request for request, is_refused in zip(requests, refused, strict=True) if not is_refused]
        outcomes = iter(await self._commit_now(others) if others else ())
        return [refusal if is_refused else next(outcomes) for is_refused in refused]
