"""Whether a system lives and is ready: `/livez` and `/readyz` turn, and turn back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.bank import EVENTS, Account, BankStore, Credit, Credited, credited
from tests.faults import handler_dies, router_dies
from tests.ops.asgi import Answer, ask
from tests.postgres import postgres
from tests.waiting import until
from uno_actors import Actor, ActorSystem, Backoff, ChildSpec, InvalidNumber, Supervisor
from uno_actors.handlers.lag import LOOK_AHEAD, Lag, age_of, lag_at
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.ops import Health, MaxLag, endpoints_app
from uno_actors.store.port import Lease
from uno_actors.testing import failing
from uno_stores import InMemoryEventStore

LONG = 30.0
"""Seconds that no test waits for: within them everything answers."""


class Mail:
    """A handler that can be made to hang or fail."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.fails = False

    async def handle(self, event: Credited) -> None:
        await self.goes_on.wait()
        if self.fails:
            raise ValueError("no")
        self.handled.append(event.amount)

    def spec(self, **options: Any) -> HandlerSpec:
        return HandlerSpec("mail", self.handle, Credited, **{"start": "earliest", **options})


class HungStore(BankStore):
    """A store whose reads, or writes, stop being answered while a gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.writes = asyncio.Event(), asyncio.Event()
        self.reads.set()
        self.writes.set()
        self.asked = 0

    async def last_position(self) -> int:
        self.asked += 1
        await self.reads.wait()
        return await super().last_position()

    async def save_progress(self, checkpoints, dead_letters=(), views=(), dropped=()) -> None:  # type: ignore[no-untyped-def]
        await self.writes.wait()
        await super().save_progress(checkpoints, dead_letters, views, dropped)


class Probed:
    """A system with its endpoints, as a load balancer sees them."""

    def __init__(self, system: ActorSystem, **options: Any) -> None:
        self.health = Health(system, **{"store_within": LONG, "loop_within": LONG, **options})
        self.app = endpoints_app(self.health)

    async def ready(self) -> Answer:
        return await ask(self.app, "/readyz")

    async def live(self) -> Answer:
        return await ask(self.app, "/livez")

    async def is_ready(self) -> bool:
        return (await self.ready()).status == 200

    async def reasons(self) -> list[tuple[str, str]]:
        """The checks that failed, each with its subject."""
        answer = await self.ready()
        assert answer.status == (503 if answer.json["reasons"] else 200)
        return [(each["check"], each["name"]) for each in answer.json["reasons"]]

    async def text(self) -> str:
        (reason,) = (await self.ready()).json["reasons"]
        return str(reason["text"])


def serving(*handlers: object, store: InMemoryEventStore | None = None, **options: Any) -> ActorSystem:
    return ActorSystem(store or BankStore(), aggregates=[Account], handlers=handlers, name="bank", **options)


# --- the system itself -------------------------------------------------------------------------------------


async def test_a_running_system_is_live_and_ready() -> None:
    async with serving(Mail().spec()) as system:
        probed = Probed(system)
        ready, live = await probed.ready(), await probed.live()
    assert (ready.status, ready.json) == (200, {"ready": True, "live": True, "reasons": []})
    assert (live.status, live.json) == (200, {"live": True, "reasons": []})


async def test_a_system_is_live_but_not_ready_before_it_starts_and_neither_after_it_has_stopped() -> None:
    system = serving()
    probed = Probed(system)
    assert ((await probed.live()).status, await probed.text()) == (200, "it is not started")
    async with system:
        assert await probed.is_ready()
    live = await probed.live()
    assert (live.status, live.json["reasons"][0]["text"]) == (503, "it has stopped")
    assert not await probed.is_ready()


async def test_a_system_that_is_starting_or_stopping_is_live_and_not_ready() -> None:
    store = HungStore()
    system = serving(Mail().spec(), store=store)
    probed = Probed(system)
    store.reads.clear()
    starting = asyncio.create_task(system.start())
    await until(lambda: store.asked)
    assert ((await probed.live()).status, await probed.text()) == (200, "it is starting")
    store.reads.set()
    await starting
    store.writes.clear()
    stopping = asyncio.create_task(system.stop())
    await asyncio.sleep(0)
    assert ((await probed.live()).status, await probed.text()) == (200, "it is stopping")
    store.writes.set()
    await stopping


async def test_a_system_whose_top_supervisor_gave_up_is_not_live() -> None:
    mail = Mail()
    mail.fails = True
    tree = Supervisor("mails", [mail.spec()], max_restarts=0)
    system = serving(store=BankStore(), supervisors=[tree])
    probed = Probed(system)
    await system.start()
    await system.store.append(*credited(1))
    await until(lambda: system.failure is not None)
    answer = await probed.live()
    assert answer.status == 503
    assert "SupervisorGaveUp" in answer.json["reasons"][0]["text"]
    await system.stop()


async def test_a_nested_supervisor_that_gave_up_makes_the_system_unready_until_it_is_started_again() -> None:
    mail = Mail()
    mail.fails = True
    below = Supervisor("below", [mail.spec()], max_restarts=0)
    top = Supervisor("top", [below], backoff=Backoff(initial=0.2, max=0.2, jitter=0))
    async with serving(supervisors=[top]) as system:
        probed = Probed(system)
        assert await probed.is_ready()
        await system.store.append(*credited(1))
        await until(lambda: not_ready(probed))
        assert await probed.reasons() == [("supervisor", "below")]
        assert (await probed.live()).status == 200
        mail.fails = False
        await until(probed.is_ready)


async def not_ready(probed: Probed) -> bool:
    return not await probed.is_ready()


# --- the loop ----------------------------------------------------------------------------------------------


async def test_a_loop_that_does_not_turn_is_seen_from_another_thread() -> None:
    """As in a program whose system has a loop of its own, with a web server on another."""
    held, released = threading.Event(), threading.Event()

    class Holds(Actor):
        async def on_receive(self, message: object) -> None:
            held.set()
            released.wait()

    with serving() as system:
        probed = Probed(system, loop_within=0.05)
        assert (await probed.live()).status == 200
        assert await probed.is_ready()
        holder = await asyncio.to_thread(lambda: system.spawn(Holds).get(timeout=LONG))
        holder.tell("hold")
        await asyncio.to_thread(held.wait)
        live, ready = await probed.live(), await probed.ready()
        released.set()
        assert (live.status, ready.status) == (503, 503)
        assert ready.json["reasons"][0]["check"] == "loop"
        assert "0.05 s" in ready.json["reasons"][0]["text"]
        await until(probed.is_ready)


# --- the store ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["reads", "writes"])
async def test_a_store_that_stops_answering_makes_the_system_unready_and_leaves_it_live(what: str) -> None:
    store = HungStore()
    async with serving(store=store) as system:
        probed = Probed(system, store_within=0.05)
        await until(probed.is_ready)
        getattr(store, what).clear()
        assert await probed.reasons() == [("store", "bank")]
        assert "has not answered for" in await probed.text()
        assert (await probed.live()).status == 200
        getattr(store, what).set()
        await until(probed.is_ready)


async def test_a_store_that_hangs_is_asked_one_question_at_a_time() -> None:
    """Probes every few seconds for hours must not pile up questions that nothing answers."""
    store = HungStore()
    async with serving(store=store) as system:
        probed = Probed(system, store_within=0.01)
        store.reads.clear()
        before = store.asked
        for _ in range(5):
            assert not await probed.is_ready()
        assert store.asked == before + 1
        store.reads.set()


@pytest.mark.parametrize("operation", ["last_position", "save_progress"])
async def test_a_store_that_fails_is_named_with_its_error(operation: str) -> None:
    async with serving() as system:
        probed = Probed(system)
        with failing(system.store, operation):
            assert await probed.reasons() == [("store", "bank")]
            assert "it was told to fail" in await probed.text()
            assert (await probed.live()).status == 200
        assert await probed.is_ready()


async def test_checks_write_nothing() -> None:
    async with serving(Mail().spec()) as system:
        before = await system.store.checkpoints(), await system.store.last_positions()
        assert await Probed(system, watch=MaxLag(events=0)).is_ready()
        assert (await system.store.checkpoints(), await system.store.last_positions()) == before


# --- handlers ----------------------------------------------------------------------------------------------


async def test_a_paused_handler_that_is_watched_makes_the_system_unready_until_it_has_caught_up() -> None:
    mail = Mail()
    async with serving(mail.spec()) as system:
        probed = Probed(system, watch={"mail": MaxLag(events=2)})
        await system.pause("mail")
        await system.store.append(*credited(1, 2))
        assert await probed.is_ready()  # paused, and not further behind than it may be
        await system.store.append(*credited(3))
        assert await probed.reasons() == [("handler", "mail")]
        assert (
            await probed.text()
            == "it is paused and 3 events behind the end of the log; at most 2 are allowed"
        )
        await system.resume("mail")
        await until(probed.is_ready)
        assert mail.handled == [1, 2, 3]


async def test_a_handler_that_is_not_watched_may_be_paused() -> None:
    async with serving(Mail().spec()) as system:
        await system.pause("mail")
        await system.store.append(*credited(1, 2, 3))
        assert await Probed(system).is_ready()
        assert await Probed(system, watch={"mail": MaxLag(events=3)}).is_ready()


async def test_a_limit_alone_watches_every_handler_of_the_system() -> None:
    async with serving(Mail().spec()) as system:
        probed = Probed(system, watch=MaxLag(events=0))
        await system.pause("mail")
        await system.store.append(*credited(1))
        assert await probed.reasons() == [("handler", "mail")]


async def test_a_handler_is_behind_by_the_age_of_the_next_event_that_it_must_handle() -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    async with serving(Mail().spec()) as system:
        probed = Probed(system, watch={"mail": MaxLag(seconds=1800)})
        await system.pause("mail")
        await system.store.append(Credited(amount=1, timestamp=hour_ago))
        assert await probed.reasons() == [("handler", "mail")]
        assert "3.6e+03 s behind" in await probed.text()
        await system.resume("mail")
        await until(probed.is_ready)


async def test_a_handler_that_hangs_makes_the_system_unready_and_back() -> None:
    mail = Mail()
    mail.goes_on.clear()
    async with serving(mail.spec()) as system:
        probed = Probed(system, watch=MaxLag(events=0))
        await system.store.append(*credited(1))
        assert await probed.reasons() == [("handler", "mail")]
        mail.goes_on.set()
        await until(probed.is_ready)


async def test_a_handler_whose_task_died_makes_the_system_unready_until_it_is_started_again() -> None:
    """Its state still says that it is live."""
    mail = Mail()
    async with serving(supervisors=[Supervisor("mails", [mail.spec()])]) as system:
        probed = Probed(system, watch={"mail": MaxLag(events=0)})
        await system.store.append(*credited(1))
        await until(probed.is_ready)
        handler_dies(system, "mail")
        await system.store.append(*credited(2))
        assert await probed.reasons() == [("handler", "mail")]
        await system.supervisor("mails").terminate_child("mail")
        assert await probed.text() == "it is stopped: start it again, or restart the process"
        await system.supervisor("mails").restart_child("mail")
        await until(probed.is_ready)
        assert mail.handled == [1, 2]


async def test_lag_is_measured_from_the_end_of_the_log_and_not_from_the_router() -> None:
    async with serving(Mail().spec(), stop_timeout=0.1) as system:
        probed = Probed(system, watch=MaxLag(events=0))
        assert await probed.is_ready()
        router_dies(system)
        await system.store.append(*credited(1))
        assert system.statistics().handlers["mail"].waiting == 0
        assert await probed.reasons() == [("handler", "mail")]


async def test_a_handler_that_no_process_runs_makes_the_system_unready() -> None:
    """Another process is to run it, has its lease for a while, and ends; no other takes over."""

    class NotForUs(BankStore):
        is_taken = True

        async def lease(self, name: str) -> Lease | None:
            return None

        async def is_leased(self, name: str) -> bool:
            return self.is_taken

    store = NotForUs()
    async with serving(Mail().spec(), store=store) as system:
        probed, patient = Probed(system, lease_within=0), Probed(system)
        assert await probed.is_ready()
        store.is_taken = False
        assert await patient.is_ready()  # as while another process takes it over
        assert await probed.reasons() == [("lease", "mail")]
        store.is_taken = True
        assert await probed.is_ready()


async def test_each_time_without_a_process_counts_by_itself() -> None:
    """Handlers that move often between processes are not taken for handlers that none runs."""

    class Moves(BankStore):
        is_taken = False

        async def lease(self, name: str) -> Lease | None:
            return None

        async def is_leased(self, name: str) -> bool:
            return self.is_taken

    store = Moves()
    async with serving(Mail().spec(), store=store) as system:
        probed = Probed(system, lease_within=0.5)
        assert await probed.is_ready()
        store.is_taken = True
        assert await probed.is_ready()
        await asyncio.sleep(0.5)
        store.is_taken = False
        assert await probed.is_ready()
        await until(lambda: not_ready(probed))


async def test_a_handler_of_other_processes_can_be_watched_by_its_name() -> None:
    store = BankStore()
    mail = Mail()
    async with serving(store=store) as web:
        probed = Probed(web, watch={"mail": MaxLag(events=1)}, lease_within=0)
        assert await probed.reasons() == [("lease", "mail")]
        async with serving(mail.spec(), store=store) as worker:
            assert await probed.is_ready()
            await worker.pause("mail")
            await store.append(*credited(1, 2))
            assert await probed.reasons() == [("handler", "mail")]
            assert (await probed.text()).startswith("another process runs it, and it is 2 events behind")
            await worker.resume("mail")
            await until(probed.is_ready)
        assert await probed.reasons() == [("lease", "mail")]


async def test_each_partition_of_a_watched_handler_is_checked() -> None:
    async with serving(Mail().spec(partitioned=2)) as system:
        probed = Probed(system, watch={"mail": MaxLag(events=0)})
        await system.pause("mail")
        await system.store.append(*credited(*range(8)))
        assert await probed.reasons() == [("handler", "mail@1of2"), ("handler", "mail@2of2")]


# --- the lag -----------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def stored(*ages: float) -> InMemoryEventStore:
    store = InMemoryEventStore(EVENTS)
    for age in ages:
        await store.append(Credited(amount=1, timestamp=NOW - timedelta(seconds=age)))
    return store


def only(*positions: int) -> Callable[[Any], Any]:
    return lambda page: (each for each in page if each.position in positions)


@pytest.mark.parametrize(
    ("position", "ages", "wanted", "lag"),
    [
        (0, (), iter, Lag(0, 0)),
        (2, (9, 8), iter, Lag(0, 0)),
        (1, (9, 8), iter, Lag(1, 8)),
        (0, (9, 8), only(2), Lag(2, 8)),  # the first is of no interest
        (0, (9, 8), only(), Lag(2, 0)),  # nothing that it wants waits
        (0, (-5,), iter, Lag(1, 0)),  # of a machine whose clock is fast
        (5, (9, 8), iter, Lag(0, 0)),  # read before the end, and never negative
        (0, (9,) * LOOK_AHEAD + (7,), only(), Lag(LOOK_AHEAD + 1, 9)),  # at most as old as the last one seen
    ],
    ids=[
        "empty",
        "at the end",
        "one",
        "of no interest",
        "none of interest",
        "a fast clock",
        "beyond",
        "many",
    ],
)
async def test_lag_in_events_and_seconds(position: int, ages: Sequence[float], wanted: Any, lag: Lag) -> None:
    store = await stored(*ages)
    assert await lag_at(store, position, await store.last_positions(), wanted, NOW) == lag


def test_the_age_of_an_event_is_that_of_its_timestamp_in_any_zone() -> None:
    zone = datetime.fromisoformat("2026-01-01T02:00:00+02:00")
    assert age_of(zone, NOW + timedelta(seconds=3)) == 3


# --- arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{}, {"events": -1}, {"seconds": float("nan")}, {"events": 1.5}])
def test_a_limit_must_be_one(limits: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidNumber):
        MaxLag(**limits)


@pytest.mark.parametrize("watch", ["mail", ["mail"], {"mail": 10}])
def test_what_is_watched_must_have_limits(watch: Any) -> None:
    with pytest.raises(TypeError, match=r"watch is MaxLag\(\.\.\.\)"):
        Health(serving(), watch)


@pytest.mark.parametrize("option", ["store_within", "loop_within", "lease_within"])
def test_durations_must_be_some(option: str) -> None:
    with pytest.raises(InvalidNumber, match=option):
        Health(serving(), **{option: -1})


# --- what a stranger may send and see ----------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\x1b[2J\n\u202eevil"


@pytest.fixture
async def hostile() -> AsyncIterator[Probed]:
    """A system with names that a terminal or a browser would obey."""
    mail = Mail()
    spec = HandlerSpec(HOSTILE, mail.handle, Credited, start="earliest")
    async with serving(supervisors=[Supervisor("mails", [ChildSpec(spec, HOSTILE)])]) as system:
        await system.pause(HOSTILE)
        await system.store.append(*credited(1))
        yield Probed(system, watch=MaxLag(events=0))


async def test_names_are_shown_without_control_characters_and_never_as_a_page(hostile: Probed) -> None:
    answer = await hostile.ready()
    assert answer.status == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    (reason,) = answer.json["reasons"]
    assert reason["name"] == "<script>alert(1)</script>\\x1b[2J\\n\\u202eevil"
    assert reason["name"].isprintable()


async def test_errors_are_shown_without_the_password_of_the_store() -> None:
    url = (await postgres().new_url()).replace("@/", ":s3cret-word@/")
    async with ActorSystem(url, aggregates=[Account], handlers=[]) as system:
        probed = Probed(system)
        assert await probed.is_ready()
        with failing(system.store, "save_progress", OSError(f"cannot connect to {url} as s3cret-word")):
            answer = await probed.ready()
    assert answer.status == 503
    assert "cannot connect to postgresql" in answer.text
    assert "s3cret-word" not in answer.text


async def test_errors_are_shown_without_control_characters() -> None:
    async with serving() as system:
        error = OSError(f"cannot connect {HOSTILE}")
        with failing(system.store, "last_position", error):
            assert (await Probed(system).text()).isprintable()


@pytest.mark.parametrize("path", ["/readyz/../etc/passwd", "/readyz/x", "/livez%2f..", "//readyz", "/READYZ"])
async def test_no_other_path_is_answered(path: str) -> None:
    async with serving() as system:
        assert (await ask(Probed(system).app, path)).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed_by_the_endpoints(method: str) -> None:
    async with serving() as system:
        answer = await ask(Probed(system).app, "/readyz", method)
        assert answer.status == 405


async def test_a_probe_may_ask_for_the_head_alone() -> None:
    async with serving() as system:
        answer = await ask(Probed(system).app, "/readyz", "HEAD")
        assert answer.status == 200


async def test_what_an_event_contains_is_shown_nowhere() -> None:
    mail = Mail()
    mail.goes_on.clear()
    async with serving(mail.spec()) as system:
        probed = Probed(system, watch=MaxLag(events=0))
        await system.aggregate(Account, "alice-4711").ask(Credit(amount=987654))
        answer = await probed.ready()
        assert answer.status == 503
        assert "987654" not in answer.text
        assert "alice-4711" not in answer.text
        mail.goes_on.set()
