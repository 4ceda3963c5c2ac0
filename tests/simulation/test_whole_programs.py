"""What programs do with their systems: inside of a simulation it works, or is refused with the remedy."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from typing_extensions import override

from tests.bank import EVENTS, Account, Balance, Credit, Credited
from tests.read_models.orders import Base
from uno_actors import (
    Actor,
    ActorSystem,
    Cluster,
    Command,
    CommandRejected,
    DecisionModel,
    Depends,
    DomainEvent,
    EventQuery,
    EventRegistry,
    Projection,
    RetryLater,
    Tag,
    Tenants,
    WorldError,
    decides,
    open_store,
    subscribe,
)
from uno_actors.outside import Destination, Outgoing, Webhook, forward
from uno_actors.read_models import SqlProjection
from uno_actors.testing import Probe
from uno_actors.testing.simulation import (
    EscapesSimulation,
    InvariantBroken,
    Node,
    NodeCrashed,
    NotSimulated,
    Scenario,
    SimulationFailed,
    World,
    simulate,
)


@subscribe(name="sums")
class Sums(Projection[Credited, str]):
    async def handle(self, event: Credited) -> None:
        key = event.aggregate_id or ""
        self.view.put(key, event.amount + await self.view.get(key, 0))


def bank(node: Node) -> ActorSystem:
    return ActorSystem(node.store, aggregates=[Account], handlers=[Sums], name="bank")


def run(scenario: Scenario, seeds: int = 6, **options: Any) -> None:
    simulate(scenario, range(seeds), **{"event_registry": EVENTS, **options})


# --- what works --------------------------------------------------------------------------------------------


def test_a_scheduled_command_is_sent_once_and_not_before_its_time() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        await system.schedule(Credit(amount=5), to=(Account, "x"), after=timedelta(days=3))
        world.jump(3 * 24 * 3600 - 10)
        await asyncio.sleep(5)
        assert await world.ask(Account, "x", Balance()) == 0
        await asyncio.sleep(10)
        assert await world.ask(Account, "x", Balance()) == 5

    run(scenario, faults=0)


def test_what_recurs_is_sent_at_each_of_its_times() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        await system.schedule(Credit(amount=1), to=(Account, "x"), every="*/10 * * * *", key="often")
        await asyncio.sleep(3600)
        assert await world.ask(Account, "x", Balance()) == 6

    run(scenario, 2, faults=0, within=4000)


def test_a_schedule_survives_whatever_goes_wrong() -> None:
    async def scenario(world: World) -> None:
        await world.node("a", bank)
        is_scheduled = False
        while not is_scheduled:
            try:
                schedule = world.system("a").schedule
                await schedule(Credit(amount=5), to=(Account, "x"), after=2, key="once")
                is_scheduled = True
            except (NodeCrashed, WorldError):
                await asyncio.sleep(0.3)
        await world.settled()
        await asyncio.sleep(700)  # clocks may be five minutes off
        if (balance := await world.ask(Account, "x", Balance())) not in (5, 10):
            raise InvariantBroken("a scheduled command takes effect", f"the balance is {balance}")

    run(scenario, 15)


def test_a_reply_can_wait_for_a_view() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        for amount in range(1, 5):
            await system.aggregate(Account, "x").ask(Credit(amount=1), wait_for=Sums)
            assert await system.view(Sums).get("x") == amount
        reply = system.aggregate(Account, "x").ask(Credit(amount=1))
        await reply
        assert reply.position is not None
        await system.wait_for(Sums, reply.position)
        assert await system.view(Sums).get("x") == 5

    run(scenario, faults=0)


class NameTaken(DomainEvent):
    name: Annotated[str, Tag()]


class TakeName(Command[None]):
    name: str


class Named(DecisionModel):
    def __init__(self) -> None:
        self.taken = False

    def apply_name_taken(self, event: NameTaken) -> None:
        self.taken = True


@decides(lambda command: EventQuery(NameTaken, tags={"name": command.name}))
def take_name(command: TakeName, named: Named) -> None:
    if named.taken:
        raise CommandRejected("taken")
    named.register_event(NameTaken(name=command.name))


def test_decisions_on_a_query_are_fenced_between_nodes() -> None:
    async def scenario(world: World) -> None:
        systems = [await world.node(name, bank) for name in "ab"]

        async def take(system: ActorSystem) -> int:
            try:
                await system.decide(take_name, TakeName(name="ann"))
            except CommandRejected:
                return 0
            return 1

        assert sum(await asyncio.gather(*(take(each) for each in [*systems, *systems]))) == 1
        assert len(world.log()) == 1

    run(scenario, faults=0, event_registry=EventRegistry([NameTaken, Credited]))


def test_published_events_are_recorded_and_handled() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        await system.publisher.publish(Credited(amount=3))
        await system.settled()
        assert await system.view(Sums).get("") == 3

    run(scenario, faults=0)


def test_the_store_can_be_used_from_the_scenario_until_its_process_ends() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        writing = asyncio.gather(
            *(system.publisher.publish(Credited(amount=1)) for _ in range(5)), return_exceptions=True
        )
        await asyncio.sleep(0.001)
        world.crash("a")
        assert {type(found).__name__ for found in await writing} <= {"list", "StoreUnavailable"}
        await world.node("a")

    run(scenario, 20, faults=0)


class Counter(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def add(self, amount: int) -> int:
        self.count += amount
        await asyncio.sleep(0.01)
        return self.count

    def plain(self) -> int:
        return self.count


def test_plain_actors_work() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        reference = await system.spawn(Counter, name="counter")
        counter = reference.proxy()
        assert await counter.add(2) == 2
        assert await counter.add(3) == 5
        assert await counter.plain() == 5

    run(scenario, faults=0)


def test_events_on_the_bus_reach_their_handlers() -> None:
    seen: list[int] = []

    async def scenario(world: World) -> None:
        seen.clear()
        system = await world.node("a", bank)

        @system.bus.subscribe(event_type=Credited)
        async def handler(event: Credited) -> None:
            seen.append(event.amount)

        await system.bus.publish(Credited(amount=3))
        await asyncio.sleep(1)
        assert seen == [3]

    run(scenario, faults=0)


def test_handlers_are_controlled_from_the_scenario() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        await system.pause("sums")
        await world.ask(Account, "x", Credit(amount=1))
        await asyncio.sleep(2)
        assert await system.view(Sums).get("x") is None
        await system.resume("sums")
        await world.settled()
        assert await system.view(Sums).get("x") == 1
        (info,) = await system.handlers()
        assert info.name == "sums"

    run(scenario, faults=0)


class Partner(Destination):
    """Stands in for a broker: it is away now and then."""

    kind = "partner"

    def __init__(self, world: World) -> None:
        self.world = world
        self.got: list[str] = []

    @override
    async def send(self, outgoing: Outgoing) -> None:
        await asyncio.sleep(self.world.chance.random() * 0.01)
        if self.world.chance.random() < 0.2:
            raise RetryLater("away")
        self.got.append(outgoing.id)


def test_events_are_forwarded_to_a_stand_in_at_least_once_in_order() -> None:
    async def scenario(world: World) -> None:
        partner = Partner(world)

        def make(node: Node) -> ActorSystem:
            handler = forward("bank.>", to=partner, name="partner", start="earliest")
            return ActorSystem(node.store, aggregates=[Account], handlers=[handler])

        await world.node("a", make)
        for _ in world.commands(8):
            await world.ask(Account, "x", Credit(amount=1))
        await world.settled()
        wanted = [event.event_id for event in world.log()]
        if [*dict.fromkeys(partner.got)] != wanted:
            raise InvariantBroken("forwarded in order, at least once", f"{partner.got} instead of {wanted}")

    run(scenario, 15)


def test_each_tenant_is_a_node_with_a_disk_of_its_own() -> None:
    async def scenario(world: World) -> None:
        for tenant in ("red", "blue"):

            def make(node: Node) -> ActorSystem:
                return ActorSystem(node.store, tenant=node.name, aggregates=[Account], handlers=[Sums])

            await world.node(tenant, make, store=tenant)
        await world.ask(Account, "x", Credit(amount=1), node="red")
        assert [len(world.log(tenant)) for tenant in ("red", "blue")] == [1, 0]

    run(scenario, 10)


def test_partitions_of_a_handler_are_spread_over_a_cluster() -> None:
    @subscribe(name="spread", start="earliest", partitioned=4)
    class Spread(Projection[Credited, str]):
        async def handle(self, event: Credited) -> None:
            key = event.aggregate_id or ""
            self.view.put(key, event.amount + await self.view.get(key, 0))

    def make(node: Node) -> ActorSystem:
        return ActorSystem(
            node.store,
            aggregates=[Account],
            handlers=[Spread],
            cluster=Cluster(listen=node.network, name=node.name, ttl=3.0),
        )

    async def scenario(world: World) -> None:
        await asyncio.gather(*(world.node(name, make) for name in "ab"))
        for number in world.commands(12):
            await world.ask(Account, f"account-{number % 5}", Credit(amount=1))
        await world.settled()

    run(scenario, 6)


# --- what is refused ---------------------------------------------------------------------------------------


def refused(make: Callable[[Node], Any]) -> str:
    async def scenario(world: World) -> None:
        await world.node("a", make)

    with pytest.raises(SimulationFailed) as failed:
        run(scenario, 1, faults=0)
    assert isinstance(failed.value.run.error, NotSimulated)
    return str(failed.value)


def test_a_system_on_a_store_of_its_own_is_refused() -> None:
    said = refused(lambda node: ActorSystem("memory:", aggregates=[Account], handlers=[]))
    assert "make_system has returned a system on 'memory:'. Make it on node.store" in said
    store = open_store("memory:", EVENTS)
    said = refused(lambda node: ActorSystem(store, aggregates=[Account], handlers=[]))
    assert "make_system has returned a system on InMemoryEventStore" in said


def test_what_is_not_a_system_is_refused() -> None:
    said = refused(lambda node: Tenants("memory:", lambda url, name: ActorSystem(url), names=["red"]))
    assert (
        "has returned a Tenants. Return an ActorSystem on node.store. Of tenants, start a node for each"
        in said
    )
    assert "has returned a NoneType" in refused(lambda node: None)


async def sessions() -> AsyncIterator[Callable[[], AsyncSession]]:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine)


@subscribe(name="table")
class Table(SqlProjection[Credited]):
    session_factory: Annotated[Callable[[], AsyncSession], Depends(sessions, scope="system")]

    @override
    async def handle(self, event: Credited, session: AsyncSession) -> None: ...


def escaped(make: Callable[[Node], ActorSystem]) -> list[str]:
    async def scenario(world: World) -> None:
        await world.node("a", make)
        await world.ask(Account, "x", Credit(amount=1))

    with pytest.raises(EscapesSimulation) as found:
        run(scenario, 1, faults=0)
    return found.value.lines


def test_an_sql_driver_with_threads_is_named_at_the_line_of_the_program() -> None:
    (line, *_) = escaped(lambda node: ActorSystem(node.store, aggregates=[Account], handlers=[Table]))
    assert line.startswith("a thread of its own")
    assert f"at {__file__}:" in line
    assert "in sessions" in line


def test_a_webhook_is_named_as_a_socket() -> None:
    hook = forward("bank.>", to=Webhook("http://127.0.0.1:9/hook", "s" * 32, internal=True), start="earliest")
    (line, *_) = escaped(lambda node: ActorSystem(node.store, aggregates=[Account], handlers=[hook]))
    assert line.startswith("a real socket: give the system a stand-in")


async def connects() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def looks_up() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def starts_a_process() -> None:
    await asyncio.create_subprocess_exec("true")


async def handles_signals() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)


async def reads_a_pipe() -> None:
    asyncio.get_running_loop().add_reader(0, print)


async def runs_a_shell() -> None:
    os.system("true")  # noqa: ASYNC221, S605, S607 - it must be refused


@pytest.mark.parametrize(
    ("escape", "what"),
    [
        (connects, "a real socket"),
        (looks_up, "a real socket"),
        (starts_a_process, "a real process"),
        (handles_signals, "signals of the machine"),
        (reads_a_pipe, "a real file descriptor"),
        (runs_a_shell, "a real process"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_loop_would_do_with_the_machine_is_named_at_its_line(escape: Any, what: str) -> None:
    async def make(node: Node) -> ActorSystem:
        await escape()
        return bank(node)

    (line, *_) = escaped(make)  # type: ignore[arg-type]
    assert line.startswith(what)
    assert line.endswith(f"at {__file__}:{escape.__code__.co_firstlineno + 1} in {escape.__name__}")


def test_an_actor_with_a_thread_of_its_own_is_named() -> None:
    async def scenario(world: World) -> None:
        system = await world.node("a", bank)
        await system.spawn(Counter, dispatcher="thread")

    with pytest.raises(EscapesSimulation, match=f"a thread of its own.*at {__file__}"):
        run(scenario, 1, faults=0)


def test_a_system_on_a_thread_of_its_own_is_named() -> None:
    def make(node: Node) -> ActorSystem:
        system = bank(node)
        system.start_sync()
        return system

    (line, *_) = escaped(make)
    assert f"at {__file__}" in line


def test_a_probe_handles_events() -> None:
    async def scenario(world: World) -> None:
        probe = Probe()

        def make(node: Node) -> ActorSystem:
            return ActorSystem(node.store, aggregates=[Account], handlers=[probe.handler(start="earliest")])

        await world.node("a", make)
        await world.ask(Account, "x", Credit(amount=7))
        assert (await probe.expect(Credited)).amount == 7

    run(scenario, 3, faults=0)


def test_the_end_of_an_abandoned_generator_runs_as_on_any_loop(capfd: pytest.CaptureFixture[str]) -> None:
    async def numbers(lock: asyncio.Lock) -> AsyncIterator[int]:
        async with lock:
            try:
                for number in range(9):
                    yield number
            finally:
                await asyncio.sleep(0.5)

    async def scenario(world: World) -> None:
        lock = asyncio.Lock()
        for _ in range(3):  # each waits until the generator before has given the lock back
            async for number in numbers(lock):
                if number == 2:
                    break
        await lock.acquire()

    assert simulate(scenario, 3, faults=0).runs == 3
    assert capfd.readouterr().err == ""
