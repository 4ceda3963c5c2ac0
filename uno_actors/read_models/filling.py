"""How a read model goes through its events: several in one transaction, together with how far it has come.

What the tables say is the truth, not the checkpoint in the store: a database that was restored from a backup is filled
from where it was. An event that fails leaves nothing behind: the transaction is undone, the events before it are
handled again in one of their own, and the event alone has failed.

An event that was set aside is passed over when its read model continues after a crash, since the tables do not know
yet that it was; but a read model that starts over handles it.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from typing_extensions import override

from uno_actors.errors import LeaseLost, describe
from uno_actors.handlers.calls import Called, HandlerCalls
from uno_actors.handlers.requests import Reset
from uno_actors.handlers.strategy import HandlesProgress, InOrder
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.logs import get_logger
from uno_actors.position_tokens import mark_of
from uno_actors.read_models.database_errors import explained, is_passing, names_missing_table
from uno_actors.read_models.partitions import enter, must_rebuild, reaches_end
from uno_actors.read_models.tables import (
    RUN_BYTES,
    NoReadModelTables,
    Place,
    Progress,
    TablesOfAnotherLog,
    TakenOver,
    advance,
    begin,
    claim,
    count_later,
    go_live,
    hold,
    read_models,
)
from uno_actors.read_models.transactions import begun, begun_on_thread, check_open
from uno_actors.store.port import EventStore, Lease

T = TypeVar("T")
Hook = Callable[[Any], Any]
When = Callable[[Session], bool]

LARGEST_BATCH = 256
"""Maximum number of events in one transaction."""
LONGEST_BATCH = 0.1
"""Seconds after which a transaction is ended; the event that is being handled is finished first."""


class FilledBySession(Protocol):
    """What a read model of either kind has."""

    version: ClassVar[int]
    session_factory: Callable[[], Any]

    def on_rebuild(self, session: Any) -> Any:
        """Make or empty the tables."""

    def on_live(self, session: Any) -> Any:
        """Let readers use the tables."""


class _Failed(Exception):
    """Undoes a transaction: the event at ``count`` of its batch has failed with ``error``."""

    def __init__(self, count: int, error: BaseException) -> None:
        self.count = count
        self.error = error


class Filling(InOrder):
    """Fills the tables of a `SqlProjection`.

    Args:
        model: The handler.
        subscription: The handler's subscription.
        store: The store that holds the log.
        router: Receives reports of progress.
        calls: Calls the handler.
    """

    def __init__(
        self,
        model: FilledBySession,
        subscription: Subscription,
        store: EventStore,
        router: HandlesProgress,
        calls: HandlerCalls,
    ) -> None:
        super().__init__(subscription, store, router, calls)
        self._model = model
        self._handler: Any = calls.handler
        self._run = secrets.token_hex(RUN_BYTES)
        self._log_mark = ""  # of the first event; empty while there is none
        self._lease: Lease | None = None  # under which the progress was read
        self._progress = Progress(0, building=True)
        self._letters: set[int] = set()
        self._aside: set[int] = set()  # positions that are passed over
        self._log = get_logger(handler=subscription.name)

    @property
    def _place(self) -> Place:
        subscription = self._subscription
        partitions = 0 if subscription.partition is None else subscription.spec.partitions
        writer = f"{self._run}{self._log_mark}"
        return Place(
            subscription.name,
            self._model.version,
            writer,
            subscription.log_start,
            partitions,
            any_log=self._starts_over,
        )

    @property
    def _starts_over(self) -> bool:
        """Whether an operator wants its tables emptied: then it does not matter what filled them."""
        return self._subscription.requests.reset is not None

    # --- transactions, which the other kind runs on a thread ---

    async def _transact(
        self, work: Callable[[Session], T], hook: Hook | None = None, when: When | None = None
    ) -> T:
        """The result of ``work`` in a transaction of its own.

        The ``hook`` of the program is called in it first, if ``when`` in it says so.
        """
        async with begun(self._model.session_factory) as session:
            if hook is not None and (when is None or await session.run_sync(when)):
                await hook(session)
                check_open(session.sync_session)
            return await session.run_sync(work)

    async def _attempt(self, batch: Sequence[Delivery]) -> int:
        """Handle events in one transaction, until it has lasted long enough; return how many.

        Raises:
            _Failed: An event has failed. Nothing was written.
        """
        deadline = time.monotonic() + LONGEST_BATCH
        async with begun(self._model.session_factory) as session:
            self._handler.session = session
            count = 0
            while count < len(batch) and not (count and time.monotonic() > deadline):
                delivery = batch[count]
                if not self._is_passed_over(delivery):
                    _, error = await self._calls.call([delivery])
                    if error is None:
                        error = await _error_of(session)
                    if error is not None:
                        raise _Failed(count, error)
                count += 1
            await session.run_sync(self._count_in, batch[:count])
        return count

    async def _attempt_again(self, delivery: Delivery) -> BaseException | None:
        async with begun(self._model.session_factory) as session:
            self._handler.session = session
            if not await session.run_sync(self._begin_retry, delivery.position):
                return None
            _, error = await self._calls.call([delivery])
            if error is not None:
                raise _Failed(0, error)
            check_open(session.sync_session)
        return None

    # --- progress ---

    @override
    async def prepare(self) -> None:
        if self._lease is not self._subscription.lease or not self._log_mark:
            await self._find_progress()

    async def _find_progress(self) -> None:
        """Look up how far the tables have come, and keep other processes from writing to them.

        Two processes may both think that they have the lease, after one hung. The last one to come here fills the
        tables, and the other finds out at its next commit. By the transactions each event is counted once all the same.
        """
        subscription = self._subscription
        self._log_mark = await self._mark_of_log()
        lease, place = subscription.lease, self._place
        await lease.confirm()
        if lease.is_lost:
            raise self._lost()
        is_ours = subscription.progress.read_under is lease
        anew = not (self._store.is_durable or is_ours)
        if place.partitions:
            found = await self._enter(_run_of(self._store) if anew else None)
        else:
            found = await self._claimed(anew=anew)
        if is_ours and not found.is_new and found.position < (known := subscription.progress.position):
            await self._asked(lambda session: advance(session, place, known))  # beyond what was set aside
            found = Progress(known, found.building, found.counted_later)
        if found.position > place.start and not anew:
            await self._check_log(found.position)
        await self._continue(found)
        self._lease = subscription.progress.read_under = lease

    async def _mark_of_log(self) -> str:
        """What tells the log from others: the mark of its first event. Empty without one, and if all starts over."""
        if self._starts_over:
            return ""
        first = await self._store.read_log(self._subscription.log_start, 1)
        return mark_of(first[0].record.event_id) if first else ""

    async def _check_log(self, position: int) -> None:
        """Refuse tables that have counted events which the log does not have, unless they are to be emptied.

        Raises:
            TablesOfAnotherLog: The log was replaced by an empty one, or restored from an earlier backup.
        """
        subscription = self._subscription
        end = (await self._store.last_positions())[subscription.log]
        if position > end and not self._starts_over:
            raise TablesOfAnotherLog(subscription.name, position, f"this one ends at {end}")

    async def _claimed(self, *, anew: bool) -> Progress:
        place = self._place
        found = await self._asked(lambda session: claim(session, place, anew=anew))
        if found is None:
            await self._asked(lambda session: begin(session, place), self._model.on_rebuild)
            found = Progress(0, building=True, is_new=True)
        return found

    async def _enter(self, request: str | None) -> Progress:
        """As `_claimed`, for a partition; with a ``request`` all partitions start over, unless they have for this."""
        place = self._place
        return await self._asked(
            lambda session: enter(session, place),
            self._model.on_rebuild,
            lambda session: must_rebuild(session, place, request),
        )

    async def _continue(self, progress: Progress) -> None:
        letters = {letter.position for letter in await self._store.dead_letters(self._subscription.name)}
        self._progress = progress
        self._letters = letters
        self._aside = {*progress.counted_later} if progress.building else {*progress.counted_later, *letters}
        self._subscription.progress.move_to(progress.position)
        self._subscription.is_shown = not progress.building

    async def _asked(
        self, work: Callable[[Session], T], hook: Hook | None = None, when: When | None = None
    ) -> T:
        """As `_transact`, with errors that say what they mean here."""
        try:
            return await self._transact(work, hook, when)
        except TakenOver:
            raise self._lost() from None
        except DBAPIError as error:
            if names_missing_table(error, read_models.name):
                raise NoReadModelTables(describe(error.orig or error)) from error
            raise

    def _lost(self) -> LeaseLost:
        name = self._subscription.name
        return LeaseLost(f"of the read model {name}", [name])

    def _is_passed_over(self, delivery: Delivery) -> bool:
        return delivery.position in self._aside

    def _count_in(self, session: Session, handled: Sequence[Delivery]) -> None:
        """Note in their transaction that events were handled."""
        place = self._place
        for delivery in handled:
            if delivery.position in self._letters and delivery.position not in self._aside:
                count_later(session, place, delivery.position)  # its dead letter must not count it again
        advance(session, place, handled[-1].position)

    def _begin_retry(self, session: Session, position: int) -> bool:
        hold(session, self._place)
        return count_later(session, self._place, position)

    @override
    async def _reached_end(self) -> bool:
        position = self._subscription.progress.position
        if not self._progress.building and self._progress.position == position:
            return False
        place = self._place
        if self._progress.building and place.partitions:
            await self._asked(
                lambda _: None, self._model.on_live, lambda session: reaches_end(session, place, position)
            )
            self._log.info("partition of a read model is filled", version=place.version, position=position)
        elif self._progress.building:
            await self._asked(lambda session: go_live(session, place, position), self._model.on_live)
            self._log.info("read model is live", version=place.version, position=position)
        else:  # no event beyond it was for this handler
            await self._asked(lambda session: advance(session, place, position))
        self._progress = Progress(position, building=False, counted_later=self._progress.counted_later)
        self._subscription.is_shown = True
        return True

    # --- events ---

    @override
    def _size(self, source: Sequence[Delivery]) -> int:
        return min(self._subscription.spec.batch or LARGEST_BATCH, len(source))

    @override
    async def _call(self, batch: Sequence[Delivery]) -> Called:
        size, failure = len(batch), None
        while size:
            try:
                count = await self._attempt(batch[:size])
            except _Failed as failed:
                size, failure = failed.count, failed.error
                if is_passing(failure, of_model=True):
                    self._give_up(failure)
            except TakenOver:
                raise self._lost() from None
            except Exception as error:  # noqa: BLE001 - whatever the database says of the commit
                if is_passing(error):
                    self._give_up(error)
                # What was written is refused only now, as by a constraint that is checked at the commit.
                size, failure = (0, explained(error)) if size == 1 else (1, None)
            else:
                last = batch[count - 1].position
                self._progress = Progress(last, self._progress.building, self._progress.counted_later)
                return count, failure if count == size else None
        return 0, failure

    def _give_up(self, error: BaseException) -> None:
        """Fail because of the database, not of an event: all continues from what the tables say."""
        self._lease = None
        if self._subscription.live:  # the other handlers need not wait for the database
            self._subscription.fall_behind()
        raise error

    # --- requests of operators ---

    @override
    async def reset(self, request: Reset) -> None:
        """Continue from another position; from the first event with empty tables."""
        place, position, model = self._place, request.position, self._model
        building = self._progress.building
        if position != place.start:
            await self._asked(lambda session: advance(session, place, position))
        elif _is_own(model, "on_rebuild"):
            building = True
            if place.partitions:
                entered = await self._enter(request.request)
                position, building = entered.position, entered.building
            else:
                await self._asked(lambda session: begin(session, place), model.on_rebuild)
        else:
            name = type(model).__name__
            self._log.error(
                "reset refused: the tables would count all events twice",
                remedy=f"define {name}.on_rebuild to empty them, or give {name} a new version",
            )
            position = self._subscription.progress.position
        await super().reset(request._replace(position=position))
        await self._continue(Progress(position, building))

    @override
    async def retry(self, delivery: Delivery) -> BaseException | None:
        try:
            return await self._attempt_again(delivery)
        except _Failed as failed:
            return failed.error
        except TakenOver:
            raise self._lost() from None


class FillingOnThread(Filling):
    """Fills the tables of a `SyncSqlProjection`: each transaction is one visit to a worker thread."""

    @override
    async def _transact(
        self, work: Callable[[Session], T], hook: Hook | None = None, when: When | None = None
    ) -> T:
        return await self._calls.on_worker(self._transact_here, work, hook, when)

    def _transact_here(self, work: Callable[[Session], T], hook: Hook | None, when: When | None) -> T:
        with begun_on_thread(self._model.session_factory) as session:
            if hook is not None and (when is None or when(session)):
                hook(session)
                check_open(session)
            return work(session)

    @override
    async def _attempt(self, batch: Sequence[Delivery]) -> int:
        return await self._calls.on_worker(self._attempt_here, batch)

    def _attempt_here(self, batch: Sequence[Delivery]) -> int:
        deadline = time.monotonic() + LONGEST_BATCH
        with begun_on_thread(self._model.session_factory) as session:
            self._handler.session = session
            count = 0
            while count < len(batch) and not (count and time.monotonic() > deadline):
                delivery = batch[count]
                if not self._is_passed_over(delivery):
                    error = self._calls.call_here(delivery)
                    if error is not None:
                        raise _Failed(count, error)
                    try:
                        check_open(session)
                        session.flush()
                    except Exception as refused:
                        raise _Failed(count, refused) from refused
                count += 1
            self._count_in(session, batch[:count])
        return count

    @override
    async def _attempt_again(self, delivery: Delivery) -> BaseException | None:
        return await self._calls.on_worker(self._attempt_again_here, delivery)

    def _attempt_again_here(self, delivery: Delivery) -> BaseException | None:
        with begun_on_thread(self._model.session_factory) as session:
            self._handler.session = session
            if self._begin_retry(session, delivery.position):
                error = self._calls.call_here(delivery)
                if error is not None:
                    raise _Failed(0, error)
                check_open(session)
        return None


_RUNS: WeakKeyDictionary[EventStore, str] = WeakKeyDictionary()


def _run_of(store: EventStore) -> str:
    """Identifies the life of a store that is in memory alone."""
    return _RUNS.setdefault(store, secrets.token_hex(8))


async def _error_of(session: AsyncSession) -> Exception | None:
    """Why what the handler has written is refused."""
    try:
        check_open(session.sync_session)
        await session.flush()
    except Exception as error:  # noqa: BLE001 - whatever the database says of the event
        return error
    return None


def _is_own(model: object, hook: str) -> bool:
    """Whether the program has defined the hook."""
    return str(getattr(type(model), hook).__module__) != "uno_actors.read_models.projection"
