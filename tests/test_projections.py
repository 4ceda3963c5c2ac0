"""Projections: what their views say, that each event counts once in them, and how they are built anew."""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bank import EVENTS, BankStore, BonusCredited, Credited, Debited, credited
from tests.test_handler_actor import serving
from tests.waiting import turns, until
from uno_actors import (
    ActorSystem,
    DeadLetter,
    DomainEvent,
    HandlerContext,
    OutcomeUnknown,
    Projection,
    StoreUnavailable,
    Supervisor,
    View,
    published_view,
    subscribe,
)
from uno_actors.errors import InvalidHandler
from uno_actors.handlers.projection import publish
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.view import ViewReader, entry_of, view_to_write
from uno_actors.store.records import ViewChange
from uno_actors.store.view_keys import MAX_KEY_BYTES, Key, pack_key, unpack_key
from uno_actors.testing import inspect
from uno_stores import InMemoryEventStore

# --- keys ---

parts = st.one_of(st.none(), st.text(max_size=8), st.integers(-(2**63), 2**63 - 1))
keys = st.lists(parts, min_size=1, max_size=4).map(tuple)


def as_key(key: tuple[Any, ...]) -> Key:
    return key[0] if len(key) == 1 else key


@given(keys)
def test_a_key_comes_back_from_its_bytes(key: tuple[Any, ...]) -> None:
    assert unpack_key(pack_key(key)) == as_key(key)


def in_order(key: tuple[Any, ...]) -> list[tuple[int, Any]]:
    """Numbers come before names, and these before ``None``."""
    return [
        (2, 0) if part is None else (1, part.encode()) if isinstance(part, str) else (0, part) for part in key
    ]


@given(keys, keys)
def test_keys_are_ordered_part_by_part(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (pack_key(one) < pack_key(other)) == (in_order(one) < in_order(other))


@pytest.mark.parametrize(
    ("key", "error", "text"),
    [
        ((), ValueError, "at least one part"),
        (1.5, TypeError, "str, int or tuples"),
        (True, TypeError, "str, int or tuples"),
        (("a", b"x"), TypeError, "str, int or tuples"),
        (("a", ("b",)), TypeError, "str, int or tuples"),
        (2**63, ValueError, "at most 64 bits"),
        ("x" * MAX_KEY_BYTES, ValueError, "takes 252 bytes, the limit is 250"),
    ],
)
def test_what_is_no_key_is_refused(key: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        pack_key(key)


# --- what a view says ---


@dataclass
class Place:
    street: str


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.integers()),
        st.tuples(st.just("delete"), keys),
        st.sampled_from([("keep",), ("forget",), ("commit",)]),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps, st.lists(keys, max_size=3), st.integers(0, 5))
def test_a_view_says_what_was_written_last(
    written: list[tuple[Any, ...]], asked: list[tuple[Any, ...]], limit: int
) -> None:
    async def run() -> None:
        store = InMemoryEventStore(EVENTS)
        view = View(store, "v", {})
        recorded: dict[tuple[Any, ...], Any] = {}
        kept: dict[tuple[Any, ...], Any] = {}
        now: dict[tuple[Any, ...], Any] = {}
        for step, *arguments in written:
            match step:
                case "put":
                    view.put(arguments[0], arguments[1])
                    now[arguments[0]] = arguments[1]
                case "delete":
                    view.delete(arguments[0])
                    now.pop(arguments[0], None)
                case "keep":
                    view.keep()
                    kept = dict(now)
                case "forget":
                    view.forget()
                    now = dict(kept)
                case "commit":
                    view.forget()
                    await store.save_progress({"v": 1}, views=view.take_changes())
                    recorded, now = dict(kept), dict(kept)
        for reader, expected in ((view, now), (ViewReader(store, "v", {}), recorded)):
            entries = [(as_key(key), expected[key]) for key in sorted(expected, key=in_order)]
            assert await reader.range() == entries
            assert await reader.range(limit=limit) == entries[:limit]
            for key in (*asked, *expected):
                assert await reader.get(key) == expected.get(key)
                inside = [entry for entry in entries if whole(entry[0])[: len(key)] == key]
                assert await reader.range(key) == inside
                beyond = [entry for entry in entries if in_order(whole(entry[0])) > in_order(key)]
                assert await reader.range(after=key) == beyond

    asyncio.run(run())


def whole(key: Key) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


async def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="limit must be a whole number, 0 or more, or None; found -1"):
        await View(InMemoryEventStore(EVENTS), "v", {}).range(limit=-1)


async def test_values_of_named_classes_come_back_as_they_were() -> None:
    class Places(Projection[Credited]):
        classes = (Place,)

        async def handle(self, event: Credited) -> None:
            self.view.put(event.amount, [Place("High Street"), {event.amount}])

    store = BankStore()
    async with serving(store, subscribe(name="places")(Places)) as system:
        await store.append(*credited(4))
        await system.settled()
        assert await system.view(Places).get(4) == [Place("High Street"), {4}]
        assert await system.view(Places).get(5, "nothing") == "nothing"
    assert await published_view(store, Places).get(4) == [Place("High Street"), {4}]


# --- what a projection counts ---


E = TypeVar("E", bound=DomainEvent)


class Totals(Projection[Credited]):
    """The sum and the number of credits of each account; how each position was counted."""

    async def handle(self, event: Credited, context: HandlerContext) -> None:
        account = event.aggregate_id or ""
        count, total = await self.view.get(("account", account), (0, 0))
        self.view.put(("account", account), (count + 1, total + event.amount))
        times = await self.view.get(("position", context.position), 0)
        self.view.put(("position", context.position), times + 1)


def totals(version: int = 1, kind: type[Totals] = Totals) -> HandlerSpec:
    return HandlerSpec("totals", type("Totals", (kind,), {"version": version}), Credited)


async def test_a_projection_counts_what_was_recorded_before_it_and_after() -> None:
    store = BankStore()
    await store.append(*credited(1, 2, aggregate_id="a"), Debited(amount=9))
    async with serving(store, totals()) as system:
        await system.settled()
        await store.append(*credited(4, aggregate_id="b"), BonusCredited(amount=8))
        await system.settled()
        view = system.view(totals())
        assert await view.range("account") == [
            (("account", ""), (1, 8)),
            (("account", "a"), (2, 3)),
            (("account", "b"), (1, 4)),
        ]
        assert await view.range("position") == [(("position", n), 1) for n in (1, 2, 4, 5)]
    assert await store.checkpoints() == {"totals@1": 5}


class Spoiled(Totals):
    """Writes before it fails at the amount 2."""

    async def handle(self, event: Credited, context: HandlerContext) -> None:
        await super().handle(event, context)
        if event.amount == 2:
            raise ValueError("poison")


async def test_a_projection_that_resumes_writes_nothing_of_what_has_failed_and_counts_the_rest_once() -> None:
    store = BankStore()
    spec = HandlerSpec("totals", Spoiled, Credited)
    resuming = Supervisor("resuming", [spec], directives={Exception: "resume"})
    async with ActorSystem(store, aggregates=[], handlers=[], supervisors=[resuming]) as system:
        await system.settled()
        save, errors = store.save_progress, [StoreUnavailable("memory:", "for a test")]

        async def save_progress(checkpoints: Any, *others: Any, **views: Any) -> None:
            if any(change.view == "totals@1" for change in views.get("views", ())) and errors:
                raise errors.pop()
            await save(checkpoints, *others, **views)

        store.save_progress = save_progress  # type: ignore[method-assign]
        await store.append(*credited(1, 2, 4))
        await system.settled()
        assert not errors
        await store.append(*credited(8))
        await system.settled()
        view = system.view(spec)
        assert await view.get(("account", "")) == (3, 13)
        assert await view.range("position") == [(("position", n), 1) for n in (1, 3, 4)]
    assert await store.checkpoints() == {"totals@1": 4}


async def test_many_events_are_counted_in_one_transaction() -> None:
    store = BankStore()
    await store.append(*credited(*range(1000)))
    saves: list[Sequence[ViewChange]] = []
    save = store.save_progress

    async def save_progress(checkpoints: Any, dead_letters: Any = (), views: Any = ()) -> None:
        saves.append([change for change in views if change.view == "totals@1"])
        await save(checkpoints, dead_letters, views)

    store.save_progress = save_progress  # type: ignore[method-assign]
    async with serving(store, HandlerSpec("totals", Totals, Credited, batch=400)) as system:
        await system.settled()
    sizes = [sum(change.key[1:9] == b"position" for change in changes) for changes in saves if changes]
    assert sum(sizes) == 1000
    assert max(sizes) <= 400
    assert len(sizes) < 20


@pytest.mark.parametrize("of_a_class", [True, False])
async def test_an_event_whose_handling_fails_writes_nothing(of_a_class: bool) -> None:
    store = BankStore()

    class Fails(Totals):
        async def handle(self, event: Credited, context: HandlerContext) -> None:
            await super().handle(event, context)
            if event.amount == 2:
                raise ValueError("after it has written")

    target = Fails if of_a_class else Fails()
    await store.append(*credited(1, 2, 3))
    async with serving(store, HandlerSpec("totals", target, Credited, max_attempts=3)) as system:
        await system.settled()
        assert await system.view(HandlerSpec("totals", target)).range() == [
            (("account", ""), (2, 4)),
            (("position", 1), 1),
            (("position", 3), 1),
        ]
    assert [(letter.position, letter.attempts) for letter in await store.dead_letters()] == [(2, 3)]


async def test_a_projection_that_takes_too_long_has_written_nothing() -> None:
    store = BankStore()

    class Slow(Totals):
        async def handle(self, event: Credited, context: HandlerContext) -> None:
            await super().handle(event, context)
            if event.amount == 2:
                await asyncio.Event().wait()

    spec = HandlerSpec("totals", Slow, Credited, max_attempts=1, timeout=0.05)
    await store.append(*credited(1, 2, 3))
    async with serving(store, spec) as system:
        await system.settled()
        assert await system.view(spec).get(("account", "")) == (2, 4)


class Unsure(BankStore):
    """Views that are changed and told as if they were not, and the other way round, as `outcomes` says."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: Iterator[str] = iter(())

    async def save_progress(
        self,
        checkpoints: Mapping[str, int],
        dead_letters: Sequence[DeadLetter] = (),
        views: Sequence[ViewChange] = (),
    ) -> None:
        await asyncio.sleep(0)
        counts = any(change.view.startswith("totals") for change in views)
        outcome = next(self.outcomes, "done") if counts else "done"
        if outcome != "lost":
            await super().save_progress(checkpoints, dead_letters, views)
        if outcome != "done":
            raise (
                OutcomeUnknown("unsure:", outcome)
                if outcome == "kept"
                else StoreUnavailable("unsure:", "lost")
            )
        await asyncio.sleep(0)


async def test_a_commit_that_was_told_as_failed_and_is_there_counts_once() -> None:
    store = Unsure()
    store.outcomes = iter(["kept", "lost", "kept", "done"])
    async with serving(store, totals()) as system:
        for amount in (1, 2, 3, 4):
            await store.append(*credited(amount))
            await system.settled()
        assert await system.view(totals()).get(("account", "")) == (4, 10)


async def test_others_go_on_while_the_view_cannot_be_written() -> None:
    store, seen = Unsure(), []

    @subscribe(name="low", event_type=Credited)
    async def after(event: Credited) -> None:
        seen.append(event.amount)

    async with serving(store, totals(), after) as system:
        await system.settled()
        store.outcomes = iter(["lost"] * 1_000_000)
        await store.append(*credited(1))
        await until(lambda: seen == [1])
        store.outcomes = iter(())
        await system.settled()
        assert await system.view(totals()).get(("account", "")) == (1, 1)


class SlowCheckpoints(BankStore):
    """A write of checkpoints alone takes until `go_on`; others overtake it, as on another connection."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on, self.under_way = asyncio.Event(), asyncio.Event()
        self.applied: list[int] = []

    async def save_progress(
        self, checkpoints: Mapping[str, int], *letters_and_views: Any, views: Sequence[ViewChange] = ()
    ) -> None:
        if "totals@1" in checkpoints and not views:
            self.under_way.set()
            await self.go_on.wait()
        await super().save_progress(checkpoints, *letters_and_views, views=views)
        self.applied += [checkpoints["totals@1"]] if "totals@1" in checkpoints else []


async def test_a_slow_write_of_a_checkpoint_never_moves_a_projection_back() -> None:
    """One that catches up records by itself, while the router writes the checkpoints of all."""

    store, handled = SlowCheckpoints(), []

    class TakesItsTime(Totals):
        async def handle(self, event: Credited, context: HandlerContext) -> None:
            await store.under_way.wait()
            await super().handle(event, context)
            handled.append(event.amount)

    await store.append(*credited(*range(1, 16)))
    async with serving(store, totals(kind=TakesItsTime)) as system:
        await until(lambda: len(handled) == 15)
        await turns()  # it has recorded them, or waits for the write under way
        store.go_on.set()
        await system.settled()
    assert store.applied == sorted(store.applied)
    assert store.applied[-1] == 15


@dataclass(frozen=True)
class Life:
    """One run of a system: what is recorded meanwhile, how commits end, and which version it has."""

    amounts: list[int]
    outcomes: list[str]
    version: int
    settles: bool


lives = st.lists(
    st.builds(
        Life,
        amounts=st.lists(st.integers(0, 9), max_size=12),
        outcomes=st.lists(st.sampled_from(["done", "lost", "kept"]), max_size=6),
        version=st.integers(1, 2),
        settles=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=80, deadline=None)
@given(lives, st.dictionaries(st.integers(0, 9), st.integers(1, 3), max_size=2), st.integers(1, 5))
def test_each_event_counts_exactly_once_whatever_fails(
    life: list[Life], failures: dict[int, int], batch: int
) -> None:
    """An event of some amounts fails at its first attempts, three of which set it aside."""
    left = dict[int, int]()

    class Fails(Totals):
        async def handle(self, event: Credited, context: HandlerContext) -> None:
            await super().handle(event, context)
            await asyncio.sleep(0)
            key = context.position
            left.setdefault(key, failures.get(event.amount, 0))
            if left[key]:
                left[key] -= 1
                raise ValueError(event.amount)

    async def run() -> None:
        store = Unsure()
        recorded = 0

        async def check() -> dict[int, DomainEvent]:
            """What is written has each event up to its checkpoint once, but for those that were set aside."""
            aside = {letter.position for letter in await store.dead_letters()}
            view = (await entry_of(store, "totals")).writing
            checkpoint = (await store.checkpoints()).get(view or "", 0)
            log = {at: event async for at, event in store.read_all() if at <= checkpoint}
            found = [] if view is None else await ViewReader(store, view, {}).range("position")
            counted = [key[1] for key, _ in found]
            assert all(times == 1 for _, times in found)
            assert set(log) - aside <= set(counted) <= set(log)
            total = sum(log[at].amount for at in counted)  # type: ignore[attr-defined]
            sums = (len(counted), total) if counted else None
            if view is not None:
                assert await ViewReader(store, view, {}).get(("account", "")) == sums
            return log

        for number, this in enumerate(life):
            store.outcomes = iter(this.outcomes)
            kind = type("Totals", (Fails,), {"version": this.version})
            spec = HandlerSpec("totals", kind, Credited, max_attempts=3, batch=batch)
            async with serving(store, spec) as system:
                for amount in this.amounts:
                    await store.append(*credited(amount))
                    await asyncio.sleep(0)
                    recorded += 1
                if this.settles or number == len(life) - 1:
                    await system.settled()
                    assert len(await check()) == recorded
                else:
                    await system.stop(timeout=0)
            await check()

    asyncio.run(run())


# --- built anew ---


async def test_a_new_version_is_built_beside_the_old_view_which_is_read_until_then() -> None:
    store, go_on = BankStore(), asyncio.Event()

    class Gated(Totals):
        async def handle(self, event: Credited, context: HandlerContext) -> None:
            await go_on.wait()
            await super().handle(event, context)
            self.view.put("version", 2)

    await store.append(*credited(1, 2))
    async with serving(store, totals(1)) as system:
        await system.settled()
    async with serving(store, totals(2, Gated)) as system:
        await store.append(*credited(3))
        await until(lambda: system.statistics().handlers["totals"].state == "catching up")
        view = system.view(totals())
        assert await view.get(("account", "")) == (2, 3), "the old one, as it was left"
        assert await view.get("version") is None
        go_on.set()
        await system.settled()
        assert await view.get(("account", "")) == (3, 6)
        assert await view.get("version") == 2
    assert await store.checkpoints() == {"totals@2": 3}
    assert await store.read_view("totals@1") == []


async def test_a_new_version_that_is_taken_back_before_its_view_was_built_leaves_nothing() -> None:
    store = BankStore()
    await store.append(*credited(1, 2))
    async with serving(store, totals(1)) as system:
        await system.settled()
    for position in (0, 1):
        view, _ = await view_to_write(store, "totals", 2)
        await store.save_progress({view: position}, views=[ViewChange(view, pack_key("x"), b"\x01")])
    async with serving(store, totals(1)) as system:
        await store.append(*credited(3))
        await system.settled()
        assert await system.view(totals()).get(("account", "")) == (3, 6)
    assert (await store.checkpoints(), await store.read_view("totals@2")) == ({"totals@1": 3}, [])


async def test_what_is_left_of_a_view_whose_removal_was_cut_short_is_not_counted() -> None:
    store = BankStore()
    await store.append(*credited(1))
    await store.save_progress({}, views=[ViewChange("totals@1", pack_key("left"), b"\x01")])
    async with serving(store, totals(1)) as system:
        await system.settled()
        assert await system.view(totals()).get("left") is None


async def test_a_reader_never_meets_a_view_that_is_being_removed() -> None:
    class TakesTime(BankStore):
        async def read_view(self, *arguments: Any, **options: Any) -> list[tuple[bytes, bytes]]:
            await turns(random.randrange(4))
            return await super().read_view(*arguments, **options)

        async def drop_view(self, view: str) -> None:
            await turns(random.randrange(4))
            await super().drop_view(view)

    store = TakesTime()
    for version in range(1, 8):
        view, _ = await view_to_write(store, "totals", version)
        changes = [ViewChange(view, pack_key(n), b"\x01") for n in range(50)]
        await store.save_progress({view: 1}, views=changes)
        reading = [asyncio.create_task(published_view(store, totals()).range()) for _ in range(20)]
        await publish(store, totals(), view)
        found = [len(entries) for entries in await asyncio.gather(*reading)]
        assert set(found) <= ({0, 50} if version == 1 else {50})


# --- what is no projection ---


def test_options_that_a_projection_has_not_got_are_refused() -> None:
    for options in ({"start": 5}, {"concurrency": 2}):
        with pytest.raises(InvalidHandler, match="has no start and no concurrency"):
            HandlerSpec("totals", Totals, **options)  # type: ignore[arg-type]


def test_a_plain_function_cannot_handle_for_a_projection() -> None:
    class Plain(Projection[Credited]):
        def handle(self, event: Credited) -> None: ...

    with pytest.raises(InvalidHandler, match="async def handle"):
        HandlerSpec("plain", Plain())
    with pytest.raises(InvalidHandler, match="async def handle"):
        HandlerSpec("plain", Plain).instantiate()


async def test_only_a_projection_keeps_a_view() -> None:
    @subscribe(name="no view")
    async def no_view(event: DomainEvent) -> None: ...

    with pytest.raises(InvalidHandler, match="keeps no view"):
        published_view(BankStore(), no_view)


def test_the_event_type_of_a_projection_is_read_from_its_class() -> None:
    @subscribe(name="of credits")
    class OfCredits(Projection[Credited]):
        async def handle(self, event: Credited) -> None: ...

    @subscribe(name="with keys")
    class WithKeys(Projection[Credited, tuple[str, int]]):
        async def handle(self, event: Credited) -> None: ...

    class Keyed(Projection[E, int]):
        async def handle(self, event: E) -> None: ...

    @subscribe(name="below")
    class Below(Keyed[Credited]):
        pass

    system = ActorSystem(handlers=[OfCredits, WithKeys, Below])
    assert [spec.run.event_type for spec in inspect(system).supervisors[0].specs] == [Credited] * 3
