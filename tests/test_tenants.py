"""Tenants: names that are safe everywhere, a store for each, and one program that serves many."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bank import EVENTS, Account, Balance, BankStore, Credit, Credited
from tests.faults import timers_of
from tests.postgres import postgres
from tests.waiting import ManualClock, until
from uno_actors import (
    ActorSystem,
    Backoff,
    CommandRejected,
    EventRegistry,
    HandlerContext,
    InvalidConfig,
    InvalidStoreUrl,
    InvalidTenant,
    OtherTenant,
    RetryLater,
    Supervisor,
    SystemNotRunning,
    Tenants,
    TenantsInUse,
    UnknownTenant,
    open_store,
)
from uno_actors.config.reader import load
from uno_actors.domain.schedules import Fired, Passed, Scheduled, Unscheduled
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.tenants import check_template, check_tenant, tenants_on_disk, url_of_tenant

# --- names and URLs ---

GOOD = ["a", "acme", "acme-2", "a_b", "0", "x" * 40, "a--b"]

BAD: list[Any] = [
    "", "-a", "a-", "_a", "x" * 41, "Acme", "ACME", "a.b", ".", "..", "../b", "a/../b", "a/b", "a\\b", "/etc", "~",
    "a b", " a", "a\n", "a\0b", "a%2fb", "a?x=1", "a#b", "a&b", "a:b", "a@host", "a;b", "a'b", 'a"b', "{tenant}", "$a",
    "acme\u0301", "\u0430cme", "\uff41cme", "acm\u00e9", "\u212aelvin", "a\u200bb", "\u0131d", "stra\u00dfe",
    "con", "nul", "aux", "com1", "lpt9", None, 7, b"acme",
]  # fmt: skip
"""The last of the letters are a Cyrillic a, a full-width a, the Kelvin sign, an invisible space and a dotless i."""


@pytest.mark.parametrize("name", GOOD)
def test_a_name_of_plain_small_letters_digits_and_dashes_is_that_of_a_tenant(name: str) -> None:
    assert check_tenant(name) == name


@pytest.mark.parametrize("name", BAD, ids=range(len(BAD)))
def test_a_name_that_means_something_else_in_a_path_or_a_url_is_refused(name: Any) -> None:
    with pytest.raises(InvalidTenant):
        check_tenant(name)
    with pytest.raises(InvalidTenant):
        ActorSystem("lmdb:data/{tenant}", tenant="" if name is None else name, handlers=[])


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_two_tenants_have_one_place_on_any_file_system(one: str, other: str) -> None:
    def is_tenant(name: str) -> bool:
        try:
            check_tenant(name)
        except InvalidTenant:
            return False
        return True

    if is_tenant(one):
        assert one == one.casefold() == one.strip(". ")
        url = url_of_tenant("lmdb:/var/{tenant}", one)
        assert Path(url.removeprefix("lmdb:")).resolve() == Path("/var").resolve() / one
        if is_tenant(other) and one != other:
            assert url.casefold() != url_of_tenant("lmdb:/var/{tenant}", other).casefold()


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("lmdb:/var/{tenant}", "lmdb:/var/acme"),
        ("lmdb:data/x-{tenant}/log?map_size=1GiB", "lmdb:data/x-acme/log?map_size=1GiB"),
        ("sqlite+aiosqlite:///data/{tenant}.db", "sqlite+aiosqlite:///data/acme.db"),
        ("sqlite+aiosqlite:////data/{tenant}.db", "sqlite+aiosqlite:////data/acme.db"),
        (
            "postgresql+asyncpg://u:p@host:5432/bank_{tenant}?patience=1s",
            "postgresql+asyncpg://u:p@host:5432/bank_acme?patience=1s",
        ),
        ("memory:", "memory:"),
    ],
)
def test_each_tenant_has_a_place_by_the_template(template: str, url: str) -> None:
    assert url_of_tenant(template, "acme") == url


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("lmdb:/var/bank", "all tenants would share this store: write {tenant} into its path"),
        ("postgresql+asyncpg://host/bank", "all tenants would share this store"),
        ("lmdb:/var/bank?x={tenant}", "{tenant} belongs into the path or the name of the database"),
        ("postgresql+asyncpg://{tenant}@host/bank", "{tenant} belongs into the path"),
        ("postgresql+asyncpg://{tenant}/bank", "{tenant} belongs into the path"),
        ("lmdb:/var/{customer}", "the only field of the URL of tenants' stores is {tenant}"),
        ("lmdb:/var/{tenant}/{}", "the only field"),
    ],
)
def test_a_template_by_which_tenants_would_share_a_store_is_refused(template: str, reason: str) -> None:
    for check in (check_template, lambda url: ActorSystem(url, tenant="acme", handlers=[])):
        with pytest.raises(InvalidStoreUrl) as refused:
            check(template)
        assert reason in str(refused.value)


def test_a_name_that_a_server_would_cut_off_is_refused() -> None:
    template = "postgresql+asyncpg://host/" + "b" * 30 + "_{tenant}"
    assert url_of_tenant(template, "x" * 32)
    with pytest.raises(InvalidStoreUrl, match="more than 63 bytes"):
        url_of_tenant(template, "x" * 33)


def test_the_tenants_on_disk_are_those_with_a_store(tmp_path: Path) -> None:
    for name in ("acme", "globex", "Initech", "not a tenant", "con", "x-umbrella"):
        (tmp_path / name / "log").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    assert tenants_on_disk(f"lmdb:{tmp_path}/{{tenant}}/log") == ["acme", "globex", "x-umbrella"]
    assert tenants_on_disk(f"lmdb:{tmp_path}/x-{{tenant}}") == ["umbrella"]
    assert tenants_on_disk(f"lmdb:{tmp_path}/none/{{tenant}}") == []
    assert tenants_on_disk("memory:") is None


# --- one system ---


async def test_a_system_of_a_tenant_has_a_store_and_a_name_of_its_own(tmp_path: Path) -> None:
    template = f"lmdb:{tmp_path}/{{tenant}}"
    async with ActorSystem(template, tenant="acme", name="bank", handlers=[], event_registry=EVENTS) as acme:
        await acme.aggregate(Account, "alice").ask(Credit(amount=5))
        assert (acme.tenant, acme.name) == ("acme", "bank/acme")
        async with ActorSystem(template, tenant="globex", handlers=[], event_registry=EVENTS) as globex:
            assert await globex.aggregate(Account, "alice").ask(Balance()) == 0
    assert entries(tmp_path) == ["acme", "globex"]
    assert "{tenant}" in acme.to_config()
    assert "acme" not in acme.to_config()


@pytest.mark.parametrize(
    "name", ["../globex/alice", "/globex/alice", "globex\\alice", "globex:alice", "globex@alice"]
)
async def test_no_id_of_an_aggregate_reaches_the_store_of_another_tenant(tmp_path: Path, name: str) -> None:
    template = f"lmdb:{tmp_path}/{{tenant}}"
    for tenant, amount in (("acme", 1), ("globex", 100)):
        system = ActorSystem(template, tenant=tenant, handlers=[], event_registry=EVENTS)
        async with system:
            await system.aggregate(Account, "alice").ask(Credit(amount=amount))
            assert await system.aggregate(Account, name).ask(Credit(amount=1)) == 1
    assert entries(tmp_path) == ["acme", "globex"]


def test_a_store_of_many_tenants_needs_a_tenant() -> None:
    with pytest.raises(InvalidTenant, match="that of many tenants: give the system one of them"):
        ActorSystem("lmdb:data/{tenant}", handlers=[])


async def test_one_open_store_cannot_be_that_of_two_tenants() -> None:
    store = BankStore()
    async with ActorSystem(store, tenant="acme", handlers=[]):
        other = ActorSystem(store, tenant="globex", handlers=[])
        with pytest.raises(InvalidTenant, match="its store is that of tenant 'acme'"):
            await other.start()


@pytest.mark.parametrize(
    "use",
    [
        lambda system: system.aggregate(Account, "alice").ask(Credit(amount=1)),
        lambda system: system.aggregate(Account, "alice").tell(Credit(amount=1)),
        lambda system: system.publisher.publish(Credited(amount=1)),
        lambda system: system.store.get_events("alice"),
    ],
    ids=["ask", "tell", "publish", "read"],
)
async def test_a_handler_of_one_tenant_cannot_use_the_system_of_another(
    use: Callable[[ActorSystem], Any],
) -> None:
    errors: list[BaseException] = []
    systems: dict[str, ActorSystem] = {}

    async def handle(event: Credited, context: HandlerContext) -> None:
        try:
            found = use(systems["globex"])
            if found is not None:
                await found
        except OtherTenant as error:
            errors.append(error)
        if event.amount == 1:  # its own system may be used
            await context.system.aggregate(Account, "alice").ask(Credit(amount=2))

    for name in ("acme", "globex"):
        handlers = [HandlerSpec("reach", handle, start="earliest")] if name == "acme" else []
        systems[name] = ActorSystem(BankStore(), tenant=name, aggregates=[Account], handlers=handlers)
    async with systems["acme"] as acme, systems["globex"] as globex:
        await acme.aggregate(Account, "alice").ask(Credit(amount=1))
        await acme.settled()
        assert await acme.aggregate(Account, "alice").ask(Balance()) == 3
        assert await globex.store.last_position() == 0
    assert {(error.tenant, error.handled) for error in errors if isinstance(error, OtherTenant)} == {
        ("globex", "acme")
    }
    assert len(errors) == 2


@pytest.mark.parametrize("kind", ["lmdb", "sqlite", "postgresql"])
async def test_each_kind_of_store_keeps_tenants_apart(tmp_path: Path, kind: str) -> None:
    names = ["acme", "globex-2"]
    templates = {
        "lmdb": f"lmdb:{tmp_path}/{{tenant}}",
        "sqlite": f"sqlite+aiosqlite:///{tmp_path}/{{tenant}}.db",
    }
    if kind == "postgresql":
        connection = await postgres().connect()
        for name in names:
            await connection.execute(f'CREATE DATABASE "shop_{name}"')
        await connection.close()
        templates[kind] = f"postgresql+asyncpg://postgres@/shop_{{tenant}}?host={postgres().directory}"
    async with Tenants(templates[kind], Bank(), names=names) as tenants:
        for name in names:
            assert [await credit(tenants, name) for _ in range(2)] == [1, 2]
            async with tenants.use(name) as system:
                await system.settled()
                assert [event.amount for event in await system.store.get_events("alice")] == [1, 1]


# --- many ---


WITH_SCHEDULES = EventRegistry([Credited, Scheduled, Unscheduled, Fired, Passed])


class Bank:
    """Makes the systems of tenants, and notes what their handlers handle."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self._clock = clock
        self.made: list[str] = []
        self.handled: list[tuple[str, int]] = []
        self.slow = asyncio.Event()
        self.slow.set()
        self.fails: set[str] = set()

    def __call__(self, store: str, tenant: str) -> ActorSystem:
        self.made.append(tenant)

        async def handle(event: Credited, context: HandlerContext) -> None:
            await self.slow.wait()
            if tenant in self.fails:
                raise ConnectionError(tenant)
            self.handled.append((context.system.name, event.amount))

        handler = HandlerSpec("handler", handle, start="earliest", max_attempts=100)
        supervisor = Supervisor("quick", [handler], max_restarts=0, backoff=Backoff(0, 0))
        return ActorSystem(
            store,
            tenant=tenant,
            name="bank",
            aggregates=[Account],
            handlers=[],
            supervisors=[supervisor],
            event_registry=WITH_SCHEDULES,
            clock=self._clock,
        )


async def credit(tenants: Tenants, tenant: str, amount: int = 1) -> int:
    async with tenants.use(tenant) as system:
        balance: int = await system.aggregate(Account, "alice").ask(Credit(amount=amount))
        return balance


@pytest.fixture
def template(tmp_path: Path) -> str:
    return f"lmdb:{tmp_path}/{{tenant}}"


async def test_a_tenant_is_started_at_its_first_use_and_once(template: str) -> None:
    bank = Bank()
    async with Tenants(template, bank) as tenants:
        await tenants.create("acme")
        assert await asyncio.gather(*(credit(tenants, "acme") for _ in range(5))) == [1, 2, 3, 4, 5]
        assert bank.made == ["acme"]
        assert list(tenants.systems()) == ["acme"]
        assert (tenants.statistics().open, tenants.statistics().in_use) == (1, 0)
    assert tenants.systems() == {}
    with pytest.raises(SystemNotRunning):
        await credit(tenants, "acme")


async def test_a_tenant_without_a_store_is_unknown_until_it_is_created(template: str, tmp_path: Path) -> None:
    async with Tenants(template, Bank()) as tenants:
        for name in ("acme", "../acme", "Acme", ""):
            with pytest.raises((UnknownTenant, InvalidTenant)):
                await credit(tenants, name)
        assert entries(tmp_path) == []
        await tenants.create("acme")
        assert await credit(tenants, "acme") == 1
        assert tenants.names() == ["acme"]


async def test_tenants_that_stop_before_their_visits_log_no_errors(
    template: str, caplog: pytest.LogCaptureFixture
) -> None:
    tenants = Tenants(template, Bank(), names=["acme", "globex"])
    await tenants.start()
    await tenants.stop()
    await asyncio.sleep(0)
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


async def test_the_names_that_are_given_are_the_tenants(template: str) -> None:
    names = {"acme"}
    async with Tenants(template, Bank(), names=names) as tenants:
        assert await credit(tenants, "acme") == 1
        with pytest.raises(UnknownTenant, match="not among names"):
            await credit(tenants, "globex")
        with pytest.raises(UnknownTenant, match="not among names"):
            await tenants.create("globex")
        names.add("globex")
        assert await credit(tenants, "globex") == 1


async def test_a_tenant_that_idles_stops_and_is_started_again_with_what_it_had(template: str) -> None:
    bank, clock = Bank(), ManualClock()
    async with Tenants(template, bank, names=["acme"], idle_after=60, clock=clock) as tenants:
        await until(lambda: bank.made == ["acme"])
        async with tenants.use("acme") as system:
            await system.aggregate(Account, "alice").ask(Credit(amount=1))
            await system.settled()
            for _ in range(8):
                clock.advance(30)
                await asyncio.sleep(0.001)
            assert list(tenants.systems()) == ["acme"]  # it is in use
        await clock.advance_until(lambda: not tenants.statistics().open, 10)
        assert await credit(tenants, "acme") == 2
        assert bank.made == ["acme", "acme"]


async def test_a_tenant_whose_handlers_have_work_does_not_stop_for_idleness(template: str) -> None:
    bank, clock = Bank(), ManualClock()
    async with Tenants(template, bank, names=["acme"], idle_after=60, clock=clock) as tenants:
        bank.slow.clear()
        await credit(tenants, "acme")
        for _ in range(20):
            clock.advance(30)
            await asyncio.sleep(0.002)
        assert list(tenants.systems()) == ["acme"]
        bank.slow.set()
        await clock.advance_until(lambda: not tenants.statistics().open, 10)
    assert bank.handled == [("bank/acme", 1)]


async def test_the_tenant_unused_for_longest_makes_room_and_one_in_use_does_not(template: str) -> None:
    names = ["a", "b", "c"]
    clock = ManualClock()  # so that no visit makes room
    async with Tenants(template, Bank(), names=names, max_open=2, keep=["a"], clock=clock) as tenants:
        await credit(tenants, "b")
        await credit(tenants, "c")
        assert set(tenants.systems()) == {"a", "c"}
        async with tenants.use("c"):
            with pytest.raises(TenantsInUse, match="tenant 'b' cannot be started: 2 others are in use"):
                await credit(tenants, "b")
        assert await credit(tenants, "b") == 2
        assert tenants.statistics().refused == 1


async def test_many_tenants_at_once_share_the_places(template: str) -> None:
    names = [f"t{number}" for number in range(12)]
    async with Tenants(template, Bank(), names=names, max_open=3) as tenants:

        async def use(name: str) -> None:
            while True:
                try:
                    await credit(tenants, name)
                except TenantsInUse:
                    await asyncio.sleep(0.01)
                else:
                    return

        await asyncio.gather(*(use(name) for name in names))
        assert tenants.statistics().open <= 3
        await until(lambda: not tenants.statistics().to_visit)


async def test_at_the_start_every_tenant_handles_what_was_recorded_before(template: str) -> None:
    names = [f"t{number}" for number in range(5)]
    for name in names:
        async with open_store(url_of_tenant(template, name), EVENTS) as store:
            await store.append(Credited(amount=7))
    bank = Bank()
    async with Tenants(template, bank, max_open=2) as tenants:
        await until(lambda: len(bank.handled) == 5)
        await until(lambda: not tenants.statistics().to_visit)
    assert sorted(bank.handled) == [(f"bank/{name}", 7) for name in names]


async def test_a_tenant_that_made_room_with_work_left_is_visited_later(template: str) -> None:
    bank = Bank()
    async with Tenants(template, bank, names=["a", "b"], max_open=1) as tenants:
        await until(lambda: not tenants.statistics().to_visit)
        bank.slow.clear()
        await credit(tenants, "a")
        async with tenants.use("b"):
            assert list(tenants.systems()) == ["b"]
            bank.slow.set()
        await until(lambda: ("bank/a", 1) in bank.handled)


async def test_a_tenant_with_something_scheduled_does_not_idle_and_returns_when_it_is_due(
    template: str,
) -> None:
    clock = ManualClock()
    bank = Bank(clock)
    async with Tenants(template, bank, names=["a", "b"], max_open=1, idle_after=60, clock=clock) as tenants:
        await until(lambda: not tenants.statistics().to_visit)
        async with tenants.use("a") as system:
            await system.schedule(Credit(amount=5), to=(Account, "alice"), after=3600)
            await clock.advance_until(lambda: system.statistics().scheduler.waiting == 1)
        for _ in range(8):
            clock.advance(30)
            await asyncio.sleep(0.002)
        assert list(tenants.systems()) == ["a"]
        await credit(tenants, "b")
        await clock.advance_until(lambda: list(tenants.systems()) == ["a"], 60)
        await clock.advance_until(lambda: ("bank/a", 5) in bank.handled)


async def test_tenants_whose_handlers_cannot_continue_keep_no_other_from_being_visited(template: str) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        async with open_store(url_of_tenant(template, name), EVENTS) as store:
            await store.append(Credited(amount=7))
    bank, clock = Bank(), ManualClock()
    gates = {"a", "b"}

    def make(store: str, tenant: str) -> ActorSystem:
        if tenant not in gates:
            return bank(store, tenant)

        async def away(event: Credited) -> None:
            raise RetryLater("the mail server is away")

        handler = HandlerSpec("mail", away, start="earliest")
        return ActorSystem(store, tenant=tenant, aggregates=[], handlers=[handler], event_registry=EVENTS)

    async with Tenants(template, make, max_open=2, clock=clock) as tenants:
        await until(lambda: list(tenants.systems()) == ["a", "b"])
        await clock.advance_until(lambda: len(bank.handled) == 2, 5)


async def test_a_tenant_that_cannot_be_started_for_a_visit_is_visited_later(template: str) -> None:
    async with open_store(url_of_tenant(template, "a"), EVENTS) as store:
        await store.append(Credited(amount=7))
    bank, clock, tried = Bank(), ManualClock(), 0
    is_away = True

    def make(store: str, tenant: str) -> ActorSystem:
        nonlocal tried
        tried += 1
        if is_away:
            raise ConnectionError("the server of the stores is away")
        return bank(store, tenant)

    async with Tenants(template, make, clock=clock) as tenants:
        await until(lambda: tried == 1 and not tenants.statistics().to_visit)
        is_away = False
        await clock.advance_until(lambda: bank.handled == [("bank/a", 7)], 10)


async def test_a_tenant_that_stops_often_with_something_scheduled_leaves_one_timer(template: str) -> None:
    clock = ManualClock()
    bank = Bank(clock)
    async with Tenants(template, bank, names=["a", "b"], max_open=1, idle_after=60, clock=clock) as tenants:
        await until(lambda: not tenants.statistics().to_visit)
        async with tenants.use("a") as system:
            await system.schedule(Credit(amount=5), to=(Account, "alice"), after=3600)
            await system.settled()
        timers = set()
        for _ in range(5):
            await credit(tenants, "b")
            timers.add(timers_of(tenants))
            async with tenants.use("a") as system:
                await system.settled()
        assert len(timers) == 1
        await credit(tenants, "b")
        await clock.advance_until(lambda: ("bank/a", 5) in bank.handled, 60)


async def test_tenants_to_be_kept_run_from_the_start_and_never_stop_for_idleness(template: str) -> None:
    clock = ManualClock()
    async with Tenants(template, Bank(), names=["a", "b"], keep="all", clock=clock) as tenants:
        assert list(tenants.systems()) == ["a", "b"]
        for _ in range(10):
            clock.advance(1000)
            await asyncio.sleep(0.001)
        assert list(tenants.systems()) == ["a", "b"]


async def test_a_tenant_that_gives_up_ends_alone_and_if_it_is_kept_it_is_started_again(template: str) -> None:
    bank, clock = Bank(), ManualClock()
    bank.fails = {"a", "b"}
    async with Tenants(template, bank, names=["a", "b", "c"], keep=["a"], clock=clock) as tenants:
        await until(lambda: not tenants.statistics().to_visit)
        for name in "abc":
            await credit(tenants, name)
        await until(lambda: list(tenants.systems()) == ["c"])
        bank.fails.clear()
        await clock.advance_until(lambda: list(tenants.systems()) == ["a", "c"])
        await until(lambda: ("bank/a", 1) in bank.handled)
        assert await credit(tenants, "c") == 2
        assert await credit(tenants, "b") == 2  # at its next use


async def test_an_error_at_the_start_reaches_all_who_wait_and_the_next_use_tries_again(template: str) -> None:
    broken = True

    def make(store: str, tenant: str) -> ActorSystem:
        class Broken:
            def __init__(self) -> None:
                if broken:
                    raise ConnectionError("away")

            def __call__(self, event: Credited) -> None: ...

        return ActorSystem(
            store,
            tenant=tenant,
            aggregates=[Account],
            handlers=[HandlerSpec("x", Broken)],
            event_registry=EVENTS,
        )

    async with Tenants(template, make, names={"acme"}) as tenants:
        for error in await asyncio.gather(
            *(credit(tenants, "acme") for _ in range(3)), return_exceptions=True
        ):
            assert isinstance(error, ConnectionError)
        broken = False
        assert await credit(tenants, "acme") == 1


async def test_a_system_that_is_not_the_tenants_is_refused(template: str) -> None:
    async with Tenants(template, lambda store, tenant: ActorSystem(handlers=[]), names=["acme"]) as tenants:
        with pytest.raises(InvalidTenant, match="return ActorSystem.store, tenant=tenant"):
            await credit(tenants, "acme")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"names": ["Acme"]}, "tenant 'Acme'"),
        ({"keep": ["../x"]}, "tenant '../x'"),
        ({"keep": ["a", "b"], "max_open": 1}, "2 tenants are to be kept, and at most 1"),
        ({"max_open": 0}, "max_open"),
        ({"idle_after": 0}, "idle_after"),
        ({"store": "memory:"}, "their tenants cannot be found: give names"),
        ({"store": "lmdb:data"}, "all tenants would share this store"),
    ],
)
def test_options_that_contradict_are_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Tenants(options.pop("store", "lmdb:data/{tenant}"), Bank(), **options)


async def test_a_command_that_is_rejected_leaves_the_tenant_open_for_others(template: str) -> None:
    async with Tenants(template, Bank(), names=["acme"]) as tenants:
        with pytest.raises(CommandRejected):
            async with tenants.use("acme"):
                raise CommandRejected("no")
        assert tenants.statistics().in_use == 0


# --- files ---


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "shop.toml"
    file.write_text(text)
    return file


async def test_a_file_describes_the_tenants(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[system]\nname = "shop"\nstore = "lmdb:data/{tenant}"\n[tenants]\nnames = ["acme", "globex"]\nkeep = "all"\n'
        'max_open = 2\nidle_after = "1m"\n',
    )
    async with Tenants.from_config(file) as tenants:
        assert {each.name for each in tenants.systems().values()} == {"shop/acme", "shop/globex"}
    assert entries(tmp_path / "data") == ["acme", "globex"]
    assert ActorSystem.from_config(file, tenant="acme").tenant == "acme"
    with pytest.raises(InvalidTenant, match="serve all by Tenants"):
        ActorSystem.from_config(file)


@pytest.mark.parametrize(
    ("options", "store", "line", "reason"),
    [
        ("", '"lmdb:data"', 2, "all tenants would share this store"),
        ("", '"lmdb:data/{customer}-{tenant}"', 2, "the only field"),
        ('names = ["Acme"]', "", 4, "Expected 1 to 40 of the characters"),
        ('keep = "some"', "", 4, 'a list of names of tenants, or "all"'),
        ('names = ["a"]\nkeep = ["b"]', "", 5, "'b' is not among the names"),
        ('max_open = 1\nkeep = ["a", "b"]', "", 5, "2 tenants are to be kept"),
        ("max_open = 1", '"memory:"', 3, "their tenants cannot be found"),
    ],
)
def test_faults_of_tenants_in_a_file_are_reported_with_their_line(
    tmp_path: Path, options: str, store: str, line: int, reason: str
) -> None:
    store = store or '"lmdb:data/{tenant}"'
    with pytest.raises(InvalidConfig) as refused:
        load(written(tmp_path, f"[system]\nstore = {store}\n[tenants]\n{options}\n"))
    (fault,) = refused.value.faults
    assert (fault.line, reason in fault.reason) == (line, True), fault
