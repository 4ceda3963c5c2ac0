"""The promises, each with a test named after it. The README lists promises and tests."""

import asyncio
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests import bank
from tests.bank import BankStore
from tests.cluster.faults import lends, node, runtime_ends, see_only_some
from tests.cluster.load import Load
from tests.cluster.nodes import all_see, an_id_owned_by, id_of, ids_owned_by, nodes_on, system_on
from tests.faults import process_is_killed_before_it_notes_that_all_was_sent
from tests.machine import patience
from tests.test_hung_nodes import one_hangs_and_moves_nothing
from tests.waiting import ManualClock, turns, until
from uno_actors import (
    Actor,
    ActorRef,
    ActorSystem,
    AggregateRoot,
    AskTimeout,
    Backoff,
    Command,
    CommandIdReused,
    CommandRejected,
    ConcurrencyConflict,
    DeadlockError,
    DomainEvent,
    EventNotSerializable,
    EventPriority,
    EventSourcedRepository,
    ExitRaised,
    HandlerContext,
    MailboxFull,
    OutcomeUnknown,
    ProcessManager,
    StoreUnavailable,
    Supervisor,
    SystemNotRunning,
    UnoError,
    handles,
    open_store,
    reacts,
    subscribe,
)
from uno_actors.aggregates.actor import CAPACITY
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.handlers.subscription import CAPACITY as HANDLER_CAPACITY
from uno_actors.store.codec import to_record
from uno_actors.store.records import Append, Appended
from uno_stores import InMemoryEventStore, LmdbEventStore


class MoneyPaid(DomainEvent):
    amount: int
    topic: str | None = "accounts.deposited"


class Deposit(Command[int]):
    amount: int


class DepositParts(Command[int]):
    parts: int
    fail_after: int | None = None


class Balance(Command[int]):
    pass


class Exit(Command[None]):
    pass


class Account(AggregateRoot):
    limit: int | None = None

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.balance = 0

    @handles
    def deposit(self, command: Deposit) -> int:
        if self.limit is not None and self.balance + command.amount > self.limit:
            raise CommandRejected(f"the balance may not exceed {self.limit}")
        self.register_event(MoneyPaid(amount=command.amount))
        return self.balance

    @handles
    def deposit_parts(self, command: DepositParts) -> int:
        for part in range(command.parts):
            if part == command.fail_after:
                raise RuntimeError("half way")
            self.register_event(MoneyPaid(amount=1))
        return self.balance

    @handles
    def tell_balance(self, command: Balance) -> int:
        return self.balance

    @handles
    def exit(self, command: Exit) -> None:
        raise SystemExit(1)

    def apply_money_paid(self, event: MoneyPaid) -> None:
        self.balance += event.amount


class GatedStore(InMemoryEventStore):
    """Commits when the gate is open, fails with the errors in `errors`, and runs `before` each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.errors: list[UnoError] = []
        self.before: Callable[[], Awaitable[None]] | None = None

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        self.asked.set()
        await self.gate.wait()
        if self.before is not None:
            await self.before()
        if self.errors:
            raise self.errors.pop(0)
        return await super().commit(requests)


def seen_by(store: InMemoryEventStore) -> list[int]:
    return [record.aggregate_version or 0 for record in store.records]


async def test_1_durable_before_visible() -> None:
    """No reply, handler or reader sees an event before its transaction is synced."""
    store, handled = GatedStore(), []

    @subscribe(event_type=MoneyPaid, name="watcher")
    async def watch(event: MoneyPaid) -> None:
        handled.append(event.amount)

    async with ActorSystem(store, handlers=[watch]) as system:
        account = system.aggregate(Account, "alice")
        store.gate.clear()
        deposit, balance = account.ask(Deposit(amount=10)), account.ask(Balance())
        rejected = account.ask(Deposit(amount=5))
        await store.asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not deposit.done()
        assert not balance.done(), "the reply to a question rests on an event that is not durable"
        assert not rejected.done()
        assert handled == []
        assert await store.get_events("alice") == []
        store.gate.set()
        assert (await deposit, await balance) == (10, 10)
        await system.settled()
        assert handled == [10, 5]


async def test_1_durable_means_synced_by_lmdb(tmp_path: Path) -> None:
    """The environment is opened with neither MDB_NOSYNC nor MDB_NOMETASYNC, MDB_MAPASYNC or MDB_WRITEMAP."""
    async with LmdbEventStore(tmp_path / "store") as store:
        flags = store.statistics().flags
        assert "sync" in flags
        assert "metasync" in flags
        assert "map_async" not in flags
        assert "writemap" not in flags


async def test_2_all_or_nothing(tmp_path: Path) -> None:
    """The events of one command are recorded together or not at all."""
    store = LmdbEventStore(tmp_path / "store")
    async with store, ActorSystem(store, handlers=[]) as system:
        assert await system.aggregate(Account, "alice").ask(DepositParts(parts=3)) == 3
        stale = [MoneyPaid(amount=1, aggregate_id="alice", aggregate_type="Account") for _ in range(2)]
        with pytest.raises(ConcurrencyConflict):
            await store.append(*stale, expected_version=2)
        with pytest.raises(RuntimeError, match="half way"):
            await system.aggregate(Account, "alice").ask(DepositParts(parts=3, fail_after=2))
        assert [event.aggregate_version for event in await store.get_events("alice")] == [1, 2, 3]


async def test_3_gapless(tmp_path: Path) -> None:
    """Versions run 1, 2, 3, positions only grow, and a reader sees a prefix of the log."""
    prefixes: list[list[str]] = []
    store = LmdbEventStore(tmp_path / "store")
    async with store, ActorSystem(store, handlers=[]) as system:

        async def read() -> None:
            while len(prefixes) < 5 or len(prefixes[-1]) < 300:
                prefixes.append([event.event_id async for _, event in store.read_all()])
                await asyncio.sleep(0)

        async def write(name: str) -> None:
            for _ in range(30):
                await system.aggregate(Account, name).ask(Deposit(amount=1))

        await asyncio.gather(read(), *(write(f"account-{n % 4}") for n in range(10)))
        final = [recorded async for recorded in store.read_all()]
    assert [position for position, _ in final] == list(range(1, 301))
    ids = [event.event_id for _, event in final]
    assert all(prefix == ids[: len(prefix)] for prefix in prefixes)
    for name in {event.aggregate_id for _, event in final}:
        versions = [event.aggregate_version for _, event in final if event.aggregate_id == name]
        assert versions == list(range(1, len(versions) + 1))


async def test_4_one_writer_by_expected_version() -> None:
    """Of two systems on one store the loser drops its state, replays and runs the command again."""
    store = GatedStore()
    async with ActorSystem(store, handlers=[]) as one, ActorSystem(store, handlers=[]) as two:
        for _ in range(10):
            asks = [
                system.aggregate(Account, "alice").ask(Deposit(amount=1)) for system in (one, two, one, two)
            ]
            await asyncio.gather(*asks)
        assert await one.aggregate(Account, "alice").ask(Balance()) in (
            38,
            39,
            40,
        )  # a question sees its own state
        assert await one.aggregate(Account, "alice").ask(Deposit(amount=1)) == 41
        assert one.statistics().reruns + two.statistics().reruns > 0
    assert seen_by(store) == list(range(1, 42))


async def test_4_one_writer_gives_up_when_the_time_is_over() -> None:
    """A command that meets a faster writer until its asker's time is over ends with ConcurrencyConflict."""
    store, clock, meetings = GatedStore(), ManualClock(), 0

    async def another_writer() -> None:
        nonlocal meetings
        meetings += 1
        faster = to_record(MoneyPaid(amount=1, aggregate_id="alice", aggregate_type="Account"))
        await InMemoryEventStore.commit(store, [Append((faster,))])

    async with ActorSystem(store, handlers=[], clock=clock) as system:
        store.before = another_writer
        reply = system.aggregate(Account, "alice").ask(Deposit(amount=1000), timeout=1.0)
        await until(lambda: meetings == 2)  # from here on each rerun waits
        for _ in range(2, 20):
            await clock.advance_until(lambda seen=meetings: meetings > seen, 0.004)
        await turns()
        clock.advance(1.0 - clock.now % 1.0)
        with pytest.raises(
            ConcurrencyConflict, match="was decided 20 times within .* s, and others were faster"
        ):
            await reply
        assert await system.aggregate(Account, "alice").ask(Balance()) == meetings == 20
    assert seen_by(store) == [*range(1, 21)]


async def test_5_no_half_state() -> None:
    """A command that raises after register_event, or whose append fails, leaves no trace."""
    store = GatedStore()
    async with ActorSystem(store, handlers=[]) as system:
        account = system.aggregate(Account, "alice")
        await account.ask(Deposit(amount=10))
        with pytest.raises(RuntimeError, match="half way"):
            await account.ask(DepositParts(parts=3, fail_after=2))
        assert await account.ask(Balance()) == 10
        store.errors.append(StoreUnavailable("memory:", "for a test"))
        with pytest.raises(StoreUnavailable):
            await account.ask(Deposit(amount=5))
        assert await account.ask(Balance()) == 10
        assert await account.ask(Deposit(amount=1)) == 11
    assert seen_by(store) == [1, 2]


async def test_5_no_half_state_behind_a_failed_append() -> None:
    """Commands decided on events that then were not recorded are decided again on the recorded ones."""
    store = GatedStore()
    async with ActorSystem(store, handlers=[]) as system:
        account = system.aggregate(Account, "alice")
        assert await account.ask(Deposit(amount=10)) == 10
        store.gate.clear()
        store.asked.clear()
        fails = account.ask(Deposit(amount=5))
        await store.asked.wait()
        behind = [account.ask(Deposit(amount=1)), account.ask(Balance())]
        store.errors.append(StoreUnavailable("memory:", "for a test"))
        store.gate.set()
        with pytest.raises(StoreUnavailable):
            await fails
        assert [await reply for reply in behind] == [11, 11]


async def test_6_at_least_once_in_order(tmp_path: Path) -> None:
    """A handler sees matching events in log order, and continues from its checkpoint after a restart."""
    seen: list[int] = []

    @subscribe(topic_pattern="accounts.*", name="reader", start="earliest")
    async def read(event: MoneyPaid) -> None:
        seen.append(event.amount)

    expected = list(range(60))
    for start in (0, 20, 40):
        async with ActorSystem(f"lmdb:{tmp_path / 'store'}", handlers=[read]) as system:
            for amount in expected[start : start + 20]:
                await system.aggregate(Account, f"account-{amount % 3}").ask(Deposit(amount=amount))
    assert seen == expected, "a graceful stop drains the handlers, so nothing comes twice either"


async def test_6_a_checkpoint_moves_only_after_success() -> None:
    """An event that was being handled when the system was abandoned is delivered again."""
    store, begun, forever = InMemoryEventStore(), asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    @subscribe(event_type=MoneyPaid, name="reader", start="earliest")
    async def stuck(event: MoneyPaid) -> None:
        begun.set()
        await forever.wait()

    first = ActorSystem(store, handlers=[stuck], stop_timeout=0.01)
    async with first:
        await first.aggregate(Account, "alice").ask(Deposit(amount=1))
        await begun.wait()

    @subscribe(event_type=MoneyPaid, name="reader", start="earliest")
    async def read(event: MoneyPaid) -> None:
        seen.append(event.amount)

    async with ActorSystem(store, handlers=[read]) as second:
        await second.settled()
    assert seen == [1]


async def test_7_no_silent_loss() -> None:
    """Every accepted message ends as handled, answered with an error, or dead-lettered with its reason."""
    store = GatedStore()

    @subscribe(event_type=MoneyPaid, name="poisoned", max_attempts=2)
    def choke(event: MoneyPaid) -> None:
        if event.amount == 13:
            raise ValueError("unlucky")

    quick = Supervisor("quick", children=[choke], max_restarts=None, backoff=Backoff(initial=0, max=0))
    async with ActorSystem(store, handlers=[], supervisors=[quick]) as system:
        accounts = [system.aggregate(Account, f"account-{n}") for n in range(5)]
        store.gate.clear()
        asks = [accounts[n % 5].ask(Deposit(amount=n)) for n in range(50)]
        store.gate.set()
        await system.stop()  # at once: what was accepted is still handled
        assert all(ask.done() for ask in asks)
    async with ActorSystem(store, handlers=[], supervisors=[quick]) as system:
        await system.settled()
    (letter,) = await store.dead_letters()
    assert (letter.handler, letter.attempts, letter.error) == ("poisoned", 2, "ValueError: unlucky")
    assert "in choke" in letter.traceback
    assert letter.first_failed <= letter.last_failed
    assert sorted(record.aggregate_version or 0 for record in store.records) == sorted(list(range(1, 11)) * 5)


async def test_7_no_silent_loss_when_the_store_hangs() -> None:
    """A system that must stop while its store hangs answers every ask: with the outcome, or that it is unknown."""
    store = GatedStore()
    async with ActorSystem(store, handlers=[], stop_timeout=0.01) as system:
        account = system.aggregate(Account, "alice")
        await account.ask(Deposit(amount=1))
        store.gate.clear()
        store.asked.clear()
        on_its_way = account.ask(Deposit(amount=1))
        await store.asked.wait()
        behind = account.ask(Balance())
    with pytest.raises(OutcomeUnknown, match="may or may not be recorded"):
        await on_its_way
    with pytest.raises(SystemNotRunning):
        await behind
    store.gate.set()


async def test_8_no_hang() -> None:
    """Every ask ends: one whose aggregate waits for the disk for too long ends with AskTimeout, which says so."""
    store = GatedStore()
    async with ActorSystem(store, handlers=[]) as system:
        account = system.aggregate(Account, "alice")
        store.gate.clear()
        with pytest.raises(
            AskTimeout, match=r"no reply from Account<alice@1> to Deposit within 0.01 s"
        ) as caught:
            await account.ask(Deposit(amount=1), timeout=0.01)
        assert caught.value.started
        assert isinstance(caught.value, TimeoutError)
        store.gate.set()


async def test_8_no_hang_of_an_actor_that_never_answers() -> None:
    """An ask of a plain actor that never answers ends with AskTimeout too."""
    forever = asyncio.Event()

    class Silent(Actor):
        async def on_receive(self, message: object) -> None:
            await forever.wait()

    async with ActorSystem(handlers=[], stop_timeout=0.01, ask_timeout=0.02) as system:
        ref = await system.spawn(Silent)
        with pytest.raises(AskTimeout, match="no reply from Silent"):
            await ref.ask("anything")


async def test_8_no_hang_of_actors_that_ask_each_other() -> None:
    """A cycle of asks ends at once with DeadlockError; test_asks.py has more."""

    class Asks(Actor):
        async def on_receive(self, message: list[ActorRef[Any]]) -> object:
            return await message[0].ask(message[1:])

    async with ActorSystem(handlers=[]) as system:
        one, two = await system.spawn(Asks), await system.spawn(Asks)
        with pytest.raises(DeadlockError, match=r"deadlock: Asks .* -> Asks .* -> Asks"):
            await one.ask([two, one])


async def test_9_isolation_of_handlers() -> None:
    """A failing, slow or stuck handler delays no other, whether it blocks its task or a thread."""
    forever, never = asyncio.Event(), threading.Event()
    seen: list[int] = []

    @subscribe(event_type=MoneyPaid, priority=EventPriority.HIGH, name="stuck coroutine")
    async def stuck_coroutine(event: MoneyPaid) -> None:
        await forever.wait()

    @subscribe(event_type=MoneyPaid, priority=EventPriority.HIGH, name="stuck thread")
    def stuck_thread(event: MoneyPaid) -> None:
        never.wait()

    @subscribe(event_type=MoneyPaid, priority=EventPriority.HIGH, name="failing")
    def failing(event: MoneyPaid) -> None:
        raise SystemExit(1)

    done = asyncio.Event()

    @subscribe(event_type=MoneyPaid, priority=EventPriority.LOW, name="healthy")
    async def healthy(event: MoneyPaid) -> None:
        seen.append(event.amount)
        if event.amount == 49:
            done.set()

    handlers = [stuck_coroutine, stuck_thread, failing, healthy]
    async with ActorSystem(handlers=handlers, stop_timeout=0.05) as system:
        for amount in range(50):
            await system.aggregate(Account, "alice").ask(Deposit(amount=amount))
        await done.wait()
        assert seen == list(range(50))
        states = {name: handler.state for name, handler in system.statistics().handlers.items()}
        assert states["healthy"] == "live"
        assert states["stuck coroutine"] == states["stuck thread"] == "catching up"
    never.set()


async def test_9_isolation_of_a_busy_priority_from_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A LOW handler that is slow, but never beyond its turn, does not hold up the HIGH ones for long."""
    monkeypatch.setattr("uno_actors.system.handler_host.TURN", 0.05)
    monkeypatch.setattr("uno_actors.handlers.router.WINDOW", 50)
    store, total, all_seen = InMemoryEventStore(), 400, asyncio.Event()
    seen: list[int] = []

    @subscribe(event_type=MoneyPaid, priority=EventPriority.HIGH, name="quick")
    async def quick(event: MoneyPaid) -> None:
        seen.append(event.amount)
        if len(seen) == total:
            all_seen.set()

    @subscribe(event_type=MoneyPaid, priority=EventPriority.LOW, name="slow")
    async def slow(event: MoneyPaid) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(all_seen.wait(), 0.03)

    async with ActorSystem(store, handlers=[quick, slow]) as system:
        await store.append(*(MoneyPaid(amount=n) for n in range(total)))
        await asyncio.wait_for(all_seen.wait(), patience(5))
        assert seen == list(range(total))
        await system.settled()


async def test_9_isolation_of_aggregates_and_actors() -> None:
    """One actor's SystemExit is that actor's failure."""

    class Exits(Actor):
        def on_receive(self, message: object) -> None:
            raise SystemExit(2)

    async with ActorSystem(handlers=[]) as system:
        with pytest.raises(ExitRaised, match="SystemExit"):
            await system.aggregate(Account, "alice").ask(Exit())
        assert await system.aggregate(Account, "alice").ask(Deposit(amount=3)) == 3
        ref = await system.spawn(Exits)
        with pytest.raises(ExitRaised, match="SystemExit: 2"):
            await ref.ask("anything")
        assert ref.is_alive()


async def test_10_bounded_mailboxes() -> None:
    """A mailbox refuses messages beyond its bound at once."""
    store = GatedStore()
    async with ActorSystem(store, handlers=[]) as system:
        account = system.aggregate(Account, "alice")
        asks = [account.ask(Deposit(amount=1)) for _ in range(CAPACITY + 5)]
        refused = [ask for ask in asks if ask.done()]
        assert len(refused) == 5
        with pytest.raises(MailboxFull, match=f"{CAPACITY} messages wait"):
            await refused[0]
        assert max([await ask for ask in asks if ask not in refused]) == CAPACITY


async def test_10_a_handler_that_cannot_keep_up_reads_the_log() -> None:
    """It queues no more than its bound, and misses no event."""
    first, go_on = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    @subscribe(event_type=MoneyPaid, name="slow")
    async def slow(event: MoneyPaid) -> None:
        first.set()
        await go_on.wait()
        seen.append(event.amount)

    async with ActorSystem(handlers=[slow]) as system:
        total = 5000
        assert total > 2 * HANDLER_CAPACITY
        for start in range(0, total, 500):
            account = system.aggregate(Account, f"account-{start}")
            await asyncio.gather(*(account.ask(Deposit(amount=n)) for n in range(start, start + 500)))
            assert system.statistics().handlers["slow"].waiting <= HANDLER_CAPACITY
        await first.wait()
        go_on.set()
        await system.settled()
        assert seen == list(range(total))
        assert system.statistics().handlers["slow"].state == "live"


async def test_11_replay_never_checks_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule tightened today does not make yesterday's stream unreadable."""
    store = InMemoryEventStore()
    async with ActorSystem(store, handlers=[]) as system:
        assert await system.aggregate(Account, "alice").ask(Deposit(amount=100)) == 100
    monkeypatch.setattr(Account, "limit", 50)
    async with ActorSystem(store, handlers=[]) as system:
        assert await system.aggregate(Account, "alice").ask(Balance()) == 100
        with pytest.raises(CommandRejected, match="may not exceed 50"):
            await system.aggregate(Account, "alice").ask(Deposit(amount=1))


class PartsWeighed(DomainEvent):
    parts: list[Decimal | str]
    at: datetime


class Weigh(Command[str]):
    parts: list[Any]


class Scale(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.events: list[PartsWeighed] = []

    @handles
    def weigh(self, command: Weigh) -> str:
        at = datetime(2024, 11, 3, 22, 30, tzinfo=ZoneInfo("America/New_York"))
        self.register_event(PartsWeighed.model_construct(parts=list(command.parts), at=at))
        return repr(self.events[-1])

    def apply_parts_weighed(self, event: PartsWeighed) -> None:
        self.events.append(event)


async def test_12_events_read_back_as_decided(tmp_path: Path) -> None:
    """The next process reads the event that ``apply_…`` saw; an event that would be read differently is refused."""
    url = f"lmdb:{tmp_path}"
    async with ActorSystem(url, handlers=[]) as system:
        scale = system.aggregate(Scale, "s")
        live = await scale.ask(Weigh(parts=[Decimal("1.50"), "1.50"]))
        with pytest.raises(EventNotSerializable, match="parts"):
            await scale.ask(Weigh(parts=[object()]))
    async with open_store(url) as store:
        (read,) = (await EventSourcedRepository(Scale, store).get_by_id("s")).events
    assert [*map(repr, read.parts)] == ["Decimal('1.50')", "'1.50'"]
    assert read.at.isoformat() == "2024-11-03T22:30:00-05:00"
    assert live == repr(read)


async def test_13_one_id_one_command(tmp_path: Path) -> None:
    """A `command_id` that is sent again with other contents is an error, and never gets another command's reply."""
    first = Deposit(amount=10, command_id="order-4711")
    others = [
        Deposit(amount=11, command_id="order-4711"),
        DepositParts(parts=10, command_id="order-4711"),
        Balance(command_id="order-4711"),
    ]
    for _ in range(2):  # before a restart and after it
        async with ActorSystem(f"lmdb:{tmp_path}/store", handlers=[]) as system:
            account = system.aggregate(Account, "alice")
            assert await account.ask(first) == 10
            for other in others:
                with pytest.raises(CommandIdReused):
                    await account.ask(other)
            assert await account.ask(Balance()) == 10


class Wished(DomainEvent):
    amount: int


class Payer(ProcessManager):
    """Pays the requested amount into the account."""

    sends_to = (Account,)

    @reacts
    def pay(self, event: Wished) -> None:
        self.send(Account, "alice", Deposit(amount=event.amount))


async def test_13_a_process_sends_each_command_once_in_effect_however_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command took effect, the process did not record that, and the account no longer remembers the command."""
    settings = {"aggregates": [Account, Payer], "remember_commands": 16}
    handler = Payer.handler(start="earliest", max_attempts=1, concurrency=1)
    process_is_killed_before_it_notes_that_all_was_sent(monkeypatch)
    async with ActorSystem(f"lmdb:{tmp_path}/store", handlers=[handler], **settings) as system:
        await system.publisher.publish(Wished(amount=10, correlation_id="wish"))
        await system.settled()
        assert len(await system.store.dead_letters()) == 1
        for _ in range(40):
            await system.aggregate(Account, "alice").ask(Deposit(amount=0))
    async with ActorSystem(f"lmdb:{tmp_path}/store", handlers=[handler], **settings) as system:
        await system.reset("Payer", to="earliest")
        await system.settled()
        assert await system.aggregate(Account, "alice").ask(Balance()) == 10
        monkeypatch.undo()
        await system.retry_dead_letters("Payer")
        await system.settled()
        assert await system.store.dead_letters() == []
        assert await system.aggregate(Account, "alice").ask(Balance()) == 10


@pytest.mark.parametrize("eager", [False, True], ids=["loans as ever", "all is lent soon"])
@pytest.mark.parametrize("drop", [0.0, 0.1], ids=["all messages arrive", "a tenth is lost"])
@pytest.mark.parametrize("seed", range(4))
async def test_14_ownership_is_only_speed(seed: int, drop: float, eager: bool) -> None:
    """At every moment each node has another view of the members: all record the same streams side by side."""
    store, clock, chance = BankStore(), ManualClock(), random.Random(seed)
    network = MemoryNetwork(seed=seed, delay=0.02, drop=drop, clock=clock)
    # Of the clock's time: for nine attempts, of which each is lost with a chance of one in five.
    async with nodes_on(store, network, "abc", clock=clock, ask_timeout=600) as systems:
        if eager:
            lends(systems, harder=1)
        load = Load(lambda: systems, ["one", "two", "three"], seed)
        running = asyncio.ensure_future(load.run(clients=6, commands=10))
        while not running.done():
            see_only_some(systems, chance)
            await asyncio.sleep(0.001)
            clock.advance(0.01)
        await running
        network.delay = 0.0
        assert load.errors == []
        assert len(load.acknowledged) == 60
        await load.check(store)
        routed = [system.cluster.statistics() for system in systems]
        assert all(sum(getattr(each, what) for each in routed) > 5 for what in ("sent", "local", "served"))


async def outcome_of(
    system: ActorSystem, name: str, command: Command[Any], timeout: float
) -> tuple[Any, ...]:
    """What an ask ends with: the reply, or the class, text and data of the error."""
    try:
        reply = await system.aggregate(bank.Account, name).ask(command, timeout=timeout)
    except Exception as error:  # noqa: BLE001 - each is an outcome
        data = {name: value for name, value in vars(error).items() if name != "__notes__"}
        return type(error), str(error), repr(error.args), data, repr(error.__cause__)
    return type(reply), reply


async def test_15_an_ask_means_the_same_on_every_node() -> None:
    store = BankStore()
    asked: list[Command[Any]] = [
        bank.Credit(amount=3),
        bank.Debit(amount=2),
        bank.Debit(amount=9),
        bank.CreditAndFail(amount=1),
        bank.CreditAndExit(amount=1),
        bank.Balance(),
        first := bank.Credit(amount=1, command_id="first", correlation_id="chain", causation_id="before"),
        first,
        bank.Credit(amount=2, command_id="first"),
    ]
    async with nodes_on(store, MemoryNetwork(), "ab", clock=ManualClock()) as (a, b):  # no time to lend it
        name = an_id_owned_by(b)
        there = [await outcome_of(a, name, command, 5) for command in asked]
        recorded = [
            (record.event_type, record.correlation_id, record.causation_id, record.command_causation_id)
            for _, record in await store.read_log()
        ]
        assert a.cluster.statistics().sent == len(asked)
        assert a.statistics().commands == a.statistics().failed == 0
    alone = BankStore()
    async with ActorSystem(alone, aggregates=[bank.Account], handlers=[]) as system:
        here = [await outcome_of(system, name, command, 5) for command in asked]
        assert there == here
        kinds = [each[0] for each in here]
        assert kinds == [
            int, int, CommandRejected, ZeroDivisionError, ExitRaised, int, int, int, CommandIdReused,
        ]  # fmt: skip
        assert [record.event_type for _, record in await alone.read_log()] == [each[0] for each in recorded]
        assert recorded[-1] == ("Credited", "chain", "first", "before")


@pytest.mark.parametrize("seed", range(4))
async def test_16_a_nodes_death_loses_nothing_and_doubles_nothing(seed: int) -> None:
    """Acknowledged commands stay, and those whose answer is lost are answered by another node, recorded once."""
    store, clock, chance = BankStore(), ManualClock(), random.Random(seed)
    network = MemoryNetwork(seed=seed, delay=0.005, clock=clock)
    # They remember so little that a command is found only by the position since when it may be recorded.
    async with nodes_on(store, network, "abc", clock=clock, remember_commands=1) as systems:
        lends(systems, commands=sys.maxsize)  # never: the others handle what they own
        # All clients ask the first node, which lives, for what the others own.
        accounts = ids_owned_by(systems[1], 2) + ids_owned_by(systems[2], 2)
        load = Load(lambda: systems[:1], accounts, seed)
        running = asyncio.ensure_future(load.run(clients=12))
        for victim in (systems[1], systems[2]):
            goal = len(load.acknowledged) + chance.randint(20, 40)
            while len(load.acknowledged) < goal:
                await asyncio.sleep(0.0005)
                clock.advance(0.001)
            store.gate.clear()  # its commands are under way
            await until(lambda: store.commits_asked)
            clock.advance(0.01)
            await asyncio.sleep(0)
            network.kill(id_of(victim))
            node(victim).announcement.close()
            if chance.random() < 0.5:
                runtime_ends(victim)  # what it had not yet recorded ends with it
            store.gate.set()
        goal = len(load.acknowledged) + 100
        while len(load.acknowledged) < goal:
            await asyncio.sleep(0.0005)
            clock.advance(0.01)
        load.is_over = True
        await clock.advance_until(running.done)
        await running
        network.delay = 0.0
        assert load.errors == []
        await load.check(store)
        assert systems[0].cluster.statistics().sent_again > 0
        clock.advance(10)
        await until(lambda: len(systems[0].cluster.members()) == 1)


@pytest.mark.parametrize("seed", range(3))
async def test_18_each_partition_of_a_handler_has_one_holder_in_order(seed: int) -> None:
    """Systems join, leave and hang while events come: no partition is ever at work twice, and none loses its order."""
    store, clock, chance = BankStore(), ManualClock(), random.Random(seed)
    handled: dict[str, list[int]] = {}
    partitions: dict[str, set[str]] = {}
    at_work: set[str] = set()
    holders: set[str] = set()
    recorded = 0

    def started(name: str) -> ActorSystem:
        @subscribe(bank.Credited, name="mail", start="earliest", partitioned=8)
        async def mail(event: bank.Credited, context: HandlerContext) -> None:
            assert context.handler not in at_work
            at_work.add(context.handler)
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            at_work.remove(context.handler)
            handled.setdefault(event.aggregate_id or "", []).append(event.amount)
            partitions.setdefault(event.aggregate_id or "", set()).add(context.handler)
            holders.add(name)

        return ActorSystem(store, name=name, aggregates=[], handlers=[mail], clock=clock)

    async def record() -> None:
        nonlocal recorded
        recorded += 1
        for number in range(20):
            id_ = f"account-{number}"
            event = bank.Credited(amount=recorded, aggregate_id=id_, aggregate_type="Account")
            await store.append(event.stamped(aggregate_version=recorded))

    running = [started("a")]
    await running[0].start()
    for step in range(12):
        await record()
        if len(running) == 1 or (len(running) < 3 and chance.random() < 0.6):
            running.append(started(f"{step}"))
            await running[-1].start()
        else:
            await running.pop(chance.randrange(len(running))).stop()
        for _ in range(chance.randrange(60)):
            clock.advance(0.1)
            await asyncio.sleep(0.001)
    every = list(range(1, recorded + 1))
    await clock.advance_until(lambda: sum(map(len, handled.values())) >= 20 * recorded)
    for system in running:
        await system.stop()
    assert len(holders) > 2
    assert list(handled.values()) == [every] * 20
    assert {len(each) for each in partitions.values()} == {1}
    assert len(set().union(*partitions.values())) > 4


async def test_19_a_rolling_restart_shows_no_asker_an_error() -> None:
    store, network = BankStore(), MemoryNetwork(delay=0.001)
    async with nodes_on(store, network, "abc") as systems:
        asked = [*systems]
        load = Load(lambda: asked, [f"account-{number}" for number in range(20)])
        running = asyncio.ensure_future(load.run(clients=15))
        for round_ in range(2):
            for old in tuple(asked):
                goal = len(load.acknowledged) + 150
                await until(lambda goal=goal: len(load.acknowledged) >= goal)  # type: ignore[misc]
                asked.remove(old)  # as a load balancer does
                await old.stop()
                new = system_on(store, network, f"{old.name}{round_}")
                await new.start()
                asked.append(new)
        enough = len(load.acknowledged) + 5000
        await until(
            lambda: (
                all(system.cluster.statistics().served for system in asked)
                or len(load.acknowledged) >= enough
            )
        )
        load.is_over = True
        await running
        served = {system.name: system.cluster.statistics() for system in asked}
        assert all(found.served for found in served.values()), served
        assert load.errors == []
        await load.check(store)
        await all_see(asked)
        for system in asked:
            await system.stop()


async def test_17_a_hung_or_cut_off_node_loses_its_handlers_in_time_and_can_move_nothing_afterwards(
    tmp_path: Path,
) -> None:
    """Three processes, SIGSTOP and SIGCONT: see there. `tests/stores/test_sql_leases.py` cuts nodes off."""
    await one_hangs_and_moves_nothing("lmdb", "stopped", 3.0, tmp_path)
