"""Faults of all kinds, by name: the one module of the tests that touches what is private to our classes.

Each function makes something go wrong that a test cannot bring about from outside: damage in a file, a session that the
server ends, a thread at the worst moment. A test that only looks has a seam: `InMemoryEventStore.records`,
`uno_actors.testing.inspect`, and ``statistics()`` of systems, actors and stores. `tests.test_house_rules` checks it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import lmdb
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from uno_actors import (
    Actor,
    ActorRef,
    ActorSystem,
    DomainEvent,
    EventBus,
    ProcessManager,
    SupervisorGaveUp,
    Tenants,
)
from uno_actors.actors import dispatcher, turns
from uno_actors.actors.ask import Envelope
from uno_actors.actors.cell import ActorCell
from uno_actors.actors.mailbox import Mailbox
from uno_actors.actors.turns import WorkerTurns
from uno_actors.cluster.announcement import Announcement
from uno_actors.handlers.child import HandlerChild
from uno_actors.handlers.log_router import LogRouter
from uno_actors.handlers.router import RouterActor
from uno_actors.handlers.subscription import Delivery, Subscription
from uno_actors.processes.messages import Step
from uno_actors.store.membership import Member
from uno_actors.store.records import StoredRecord
from uno_stores import InMemoryEventStore
from uno_stores.file_leases import FileLeases
from uno_stores.lmdb import LmdbEventStore
from uno_stores.node_files import NodeDirectory
from uno_stores.sql import DatabaseEventStore
from uno_stores.sql.notifications import Wire
from uno_stores.sql.terms import Boundary

# --- the file of an LMDB store -----------------------------------------------------------------------------


@contextmanager
def file_changes(store: LmdbEventStore, database: str) -> Iterator[lmdb.Transaction]:
    """A write transaction of another: of a process that writes too, or of damage to the file.

    Args:
        store: It notices nothing until it reads.
        database: On which the transaction works unless told otherwise, by its name in the file.
    """
    env = store._environment.env
    with env.begin(write=True, db=env.open_db(database.encode(), create=False)) as transaction:
        yield transaction


def change_value(store: LmdbEventStore, database: str, key: bytes, value: bytes) -> None:
    """The file holds another value at ``key``."""
    with file_changes(store, database) as transaction:
        assert transaction.put(key, value)


def value_in_file(store: LmdbEventStore, database: str, key: bytes) -> bytes:
    """The value at ``key``, to be damaged; empty if there is none."""
    env = store._environment.env
    with env.begin(db=env.open_db(database.encode(), create=False)) as transaction:
        return bytes(transaction.get(key) or b"")


@contextmanager
def writer_waits(store: LmdbEventStore) -> Iterator[None]:
    """Another process writes: LMDB's lock for writers is held inside the block."""
    with store._environment.env.begin(write=True) as transaction:
        yield
        transaction.abort()


def environment_is_broken(store: LmdbEventStore) -> None:
    """LMDB refuses all use of the environment, as after a meta page that could not be written."""
    store._environment.broken = True


def environment_fails(store: LmdbEventStore, faulty: Callable[[lmdb.Environment], Any]) -> None:
    """Let the store use what ``faulty`` makes of its environment, until it is opened again."""
    store._environment.env = faulty(store._environment.env)


def after_a_write_begins(store: LmdbEventStore, happens: Callable[[], object]) -> None:
    """Each write transaction that begins is followed by what ``happens``."""
    environment, begun = store._environment, store._environment._begun

    def begin(write: bool) -> lmdb.Transaction:
        transaction = begun(write)
        if write:
            happens()
        return transaction

    environment._begun = begin  # type: ignore[method-assign]


# --- the database of an SQL store --------------------------------------------------------------------------


def is_a_session_of(store: DatabaseEventStore, session: AsyncSession) -> bool:
    """Whether ``store`` has made ``session``, so that a fault may be that of one store among several."""
    return session in store._connections._sessions


def renews_no_more(store: DatabaseEventStore) -> None:
    """The process of ``store`` hangs: it renews no lease."""
    task = store._watcher.task
    assert task is not None
    task.cancel()


def letters_in(store: InMemoryEventStore) -> int:
    """The number of dead letters, for a clock that advances until there are so many."""
    return len(store._dead_letters)


def views_with_entries(store: InMemoryEventStore) -> set[str]:
    """The views that have an entry."""
    return {view for view, entries in store._views.items() if entries}


def _wire(store: DatabaseEventStore) -> Wire:
    wire = store._connections.wire
    assert wire is not None, "only PostgreSQL has one"
    return wire


async def kept_connection_is_lost(store: DatabaseEventStore) -> None:
    """The connection with the locks of leases ends, and the store does not notice until it uses it again."""
    assert store._watcher.task is not None
    store._watcher.task.cancel()  # it would connect again before others have taken the leases
    await _wire(store)._drop()


@asynccontextmanager
async def kept_connection_is_busy(store: DatabaseEventStore) -> AsyncIterator[None]:
    """The connection with the locks of leases does something else inside the block."""
    async with _wire(store)._turn:
        yield


async def notifications_end(store: DatabaseEventStore) -> None:
    """The server notifies the store of no commits, as behind a pooler that hands out other sessions."""
    wire = _wire(store)
    async with wire._turn:
        assert wire._connection is not None
        await wire._connection.exec_driver_sql("UNLISTEN *")


def lease_statements_overlap(store: DatabaseEventStore, begun: asyncio.Event) -> None:
    """Set ``begun`` while each statement about leases waits, so that the test runs in the middle of one."""
    wire = _wire(store)

    async def ask(statement: Any, parameters: dict[str, Any] | None = None) -> Any:
        async with wire._turn:
            begun.set()
        return await wire.ask(statement, parameters)

    wire.leases._ask = ask


async def leases_are_renewed(store: DatabaseEventStore) -> None:
    """The time to renew the leases has come."""
    await _wire(store).leases.renew()


def leases_are_overdue(store: DatabaseEventStore) -> None:
    """The store believes that its leases should have been renewed long ago."""
    _wire(store).leases._renew_at = 0.0


def statements_of_kept_connection(store: DatabaseEventStore) -> list[object]:
    """The statements that the store sends by the connection kept to PostgreSQL from now on."""
    wire = _wire(store)
    ask, asked = wire.ask, []

    async def noted(statement: Any, *args: Any) -> Any:
        asked.append(statement)
        return await ask(statement, *args)

    wire.ask = noted  # type: ignore[method-assign, assignment]
    return asked


def holder_stops_beating(store: DatabaseEventStore | LmdbEventStore) -> str:
    """The process does not show any more that it works, and believes that it does; returns its file's name."""
    files = store._leases._names if isinstance(store, LmdbEventStore) else store._leases.files
    assert files is not None, "PostgreSQL has none"
    files.stop()
    files._is_closed = False
    return files._ours


def holder_beats(leases: FileLeases, nodes: NodeDirectory, seconds: float) -> None:
    """The time to beat has come; a holder of no name and no lock does not beat."""
    if leases.held or leases._locked:
        nodes.made(leases._ours, seconds).beat()


async def holder_checks(leases: FileLeases) -> None:
    """The time to look for lost names has come."""
    await leases._check()


def lease_file_is_forgotten(store: DatabaseEventStore, name: str) -> None:
    """This process believes that it does not hold ``name``, as another process would."""
    store._connections.place.leases.release(name)


def reads_are_cancelled(store: DatabaseEventStore) -> None:
    """The program cancels all tasks, those of reads too."""
    for task in tuple(store._reader.under_way):
        task.cancel()


def writer_is_cancelled(store: DatabaseEventStore) -> None:
    """The program cancels all tasks, the writer too."""
    assert store._writer.task is not None
    store._writer.task.cancel()


# --- a store in memory -------------------------------------------------------------------------------------


def record_changes(store: InMemoryEventStore, position: int, **fields: Any) -> None:
    """The record at ``position`` has other ``fields`` from now on, as if another program had written it."""
    store._log[position - 1] = store._log[position - 1]._replace(**fields)


# --- actors and their mailboxes ----------------------------------------------------------------------------


@contextmanager
def signal_on_its_way(mailbox: Mailbox) -> Iterator[None]:
    """Inside the block another thread has made room for a signal, and has not put it yet."""
    mailbox._limit += 1
    yield
    mailbox._limit -= 1


def turn_is_taken_with(cell: ActorCell, lock: Any) -> None:
    """The threads that handle the messages of a blocking actor take turns by ``lock``."""
    assert isinstance(cell.turns, WorkerTurns)
    cell.turns._lock = lock


def between_take_and_handling(patch: pytest.MonkeyPatch, happens: Callable[[Envelope], object]) -> None:
    """Each message that an actor takes is found to be wanted still, and then ``happens`` comes."""
    withdrawn = turns._withdrawn

    def observed(envelope: Envelope) -> bool:
        is_withdrawn = withdrawn(envelope)
        happens(envelope)
        return is_withdrawn

    patch.setattr(turns, "_withdrawn", observed)


def supervised_by_the_test(
    system: ActorSystem, actor: Actor, **options: Any
) -> tuple[ActorRef[Any], ActorCell]:
    """A cell of ``system`` that is not started yet, whose failures go to the test.

    Args:
        system: Whose dispatcher and dead messages the cell has.
        actor: The first instance.
        options: As of `ActorCell`.
    """
    runtime = system._running()
    actor._actor_ref = ref = ActorRef(actor, 30)
    ref.actor_inbox.dead = runtime.dead_messages
    return ref, ActorCell(actor, runtime.dispatcher, **options)


def no_default_dispatcher(patch: pytest.MonkeyPatch) -> None:
    """The process has no default dispatcher yet."""
    patch.setattr(dispatcher, "_default", None)


# --- the router and its handlers ---------------------------------------------------------------------------


@contextmanager
def nothing_moves_on(router: RouterActor) -> Iterator[None]:
    """Inside the block the router hands out a page of events, and moves none to its next priority."""
    (log,) = router.logs
    log._advancing = True
    yield
    log._advancing = False


def hand_out(router: RouterActor, stored: StoredRecord) -> None:
    """The router has read ``stored`` and hands it out."""
    (log,) = router.logs
    delivery = Delivery(stored)
    delivery.tiers = log._match(delivery)
    log.position = stored.position
    log.under_way += 1
    log._dispatch(delivery)


def move_on(router: RouterActor) -> None:
    """The router moves on what the handlers have done."""
    router.logs[0]._advance()


def routers_of_logs(system: ActorSystem) -> Sequence[LogRouter]:
    """How far each log was read, and whether it is read now."""
    return system._running().handlers.router.logs


def router_is_suspended(system: ActorSystem) -> bool:
    """Whether the router has failed and waits for its restart."""
    return system._running().handlers.router_cell.is_suspended


def router_is_called(system: ActorSystem) -> None:
    """The log grows, and the time to write checkpoints has come."""
    router = system._running().handlers.router
    router._save_soon()
    router.route_soon()


def _subscription(system: ActorSystem, name: str) -> Subscription:
    (found,) = (each for each in system._running().handlers.subscriptions if each.name == name)
    return found


def waits_kept(system: ActorSystem) -> int:
    """How many waits for handlers of a system are kept, those that were given up too."""
    return system._running().handlers.router.waits.kept


def timers_of(tenants: Tenants) -> int:
    """How many timers tenants keep."""
    return len(tenants._timers)


@contextmanager
def no_aggregate_is_here() -> Iterator[None]:
    """Processes find every aggregate on another node."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActorSystem, "_handles_here", lambda *_: False)
        yield


def handler_falls_behind(system: ActorSystem, name: str) -> None:
    """The handler is slower than its turn: it gives up its queue and reads the log by itself."""
    _subscription(system, name).fall_behind()


def lease_is_lost(system: ActorSystem, name: str) -> None:
    """Another process has the handler now."""
    _subscription(system, name).stand_by()


def lease_is_taken_again(system: ActorSystem, name: str, position: int) -> None:
    """This process has the handler again, after ``position``."""
    _subscription(system, name).take_over(position)


def handler_dies(system: ActorSystem, name: str) -> None:
    """The actor of the handler ends, and its supervisor does not learn of it."""
    for supervisor in system._running().tree._supervisors.values():
        if isinstance(child := supervisor.children.get(name), HandlerChild):
            assert child._cell is not None
            child._cell.kill()
            child.subscription.wake = lambda: None


def router_dies(system: ActorSystem) -> None:
    """The router ends and is not restarted."""
    system._running().handlers.router_cell.kill()


@asynccontextmanager
async def progress_is_written(system: ActorSystem, name: str) -> AsyncIterator[None]:
    """Inside the block a write of the handler's progress is under way."""
    async with _subscription(system, name).progress.writes:
        yield


def found_anew(bus: EventBus, event: DomainEvent) -> int:
    """The bus has forgotten who handles ``event``, and finds them again; their number."""
    tiers = bus._routes.__missing__((type(event), event.topic, event.aggregate_type))
    return sum(map(len, tiers))


# --- systems -----------------------------------------------------------------------------------------------


def seems_to_run(system: ActorSystem) -> None:
    """A thread looked at the state of ``system`` just before it stopped."""
    system._state = "running"


def stopping_is_cancelled(system: ActorSystem) -> None:
    """The program cancels all tasks, the one that stops ``system`` too."""
    assert system._stopping is not None
    system._stopping.cancel()


def as_it_gives_up(system: ActorSystem, happens: Callable[[], object]) -> None:
    """``happens`` comes at the moment a supervisor of ``system``, which has not started yet, gives up."""
    give_up = system._give_up

    def observed(error: SupervisorGaveUp) -> None:
        happens()
        give_up(error)

    system._give_up = observed  # type: ignore[method-assign]


def nodes_are_announced_by(
    patch: pytest.MonkeyPatch, node: Announcement, announce: Callable[[Member], Awaitable[tuple[Member, ...]]]
) -> None:
    """The store of ``node`` announces it by ``announce``, which may fail."""
    patch.setattr(node._membership, "announce", announce)


# --- processes ---------------------------------------------------------------------------------------------


def process_is_killed_before_it_notes_that_all_was_sent(patch: pytest.MonkeyPatch) -> None:
    """Its commands have taken effect; the error stands for the kill."""

    def react(process: ProcessManager, step: Step, react: Any = ProcessManager._react) -> Any:
        if step.is_over:
            raise RuntimeError("killed")
        return react(process, step)

    patch.setattr(ProcessManager, "_react", react)


# --- the index of an SQL store ------------------------------------------------------------------------------


def indexed_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each transaction indexes from now on; the list grows."""
    return _lengths("_log_after", monkeypatch)


def entries_looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries of the index each look at it reads from now on; the list grows."""
    return _lengths("_look", monkeypatch)


def _lengths(method: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    lengths: list[int] = []
    whole = getattr(Boundary, method)

    async def counted(self: Boundary, *arguments: Any) -> list[Any]:
        found = [*await whole(self, *arguments)]
        lengths.append(len(found))
        return found

    monkeypatch.setattr(Boundary, method, counted)
    return lengths
