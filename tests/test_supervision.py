"""Trees of supervisors at work: actors, handlers and supervisors together, on a manual clock."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.bank import Account, BankStore, Credit, Credited, Debited, credited
from tests.machine import patience
from tests.waiting import turns, until
from uno_actors import (
    Actor,
    ActorSystem,
    ApplyFailed,
    Backoff,
    ChildSpec,
    InvalidHandler,
    InvalidSupervisor,
    Supervisor,
    SupervisorGaveUp,
    SystemNotRunning,
    TreeNode,
    UnknownChild,
    UnknownSupervisor,
)
from uno_actors.actors.actor import ActorDeadError
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.testing import ManualClock

AT_ONCE = Backoff(initial=0, max=0)


class Diary(list[str]):
    """The record that actors write."""


class Member(Actor):
    """Records its starts, stops and messages; does what its messages say."""

    def __init__(self, name: str, diary: Diary) -> None:
        super().__init__()
        self.name, self.diary, self.count = name, diary, 0

    async def on_start(self) -> None:
        self.diary.append(f"+{self.name}")

    async def on_stop(self) -> None:
        self.diary.append(f"-{self.name}")

    async def on_receive(self, message: Any) -> Any:
        self.count += 1
        if isinstance(message, BaseException):
            raise message
        if message == "end":
            self.stop()
        if message == "count":
            return self.count
        self.diary.append(f"{self.name}:{message}")
        return None


class Poison:
    """A message at which `FailsOnce` fails the first time."""

    is_deadly = True


class FailsOnce(Member):
    """Fails at a `Poison` and handles it at the second attempt."""

    async def on_receive(self, message: Any) -> Any:
        if not isinstance(message, Poison):
            return await super().on_receive(message)
        if message.is_deadly:
            message.is_deadly = False
            self.diary.append(f"{self.name} failed")
            raise ValueError("poison")
        self.diary.append(f"{self.name} managed")
        return None


def gated(gate: asyncio.Event) -> type[Member]:
    """Actors whose second start waits for ``gate``."""
    starts = itertools.count(1)

    class Gated(Member):
        async def on_start(self) -> None:
            if next(starts) == 2:
                self.diary.append(f"{self.name} waits")
                await gate.wait()
            await super().on_start()

    return Gated


class PlainMember(Actor):
    """The same on worker threads."""

    def __init__(self, name: str, diary: Diary) -> None:
        super().__init__()
        self.name, self.diary = name, diary

    def on_start(self) -> None:
        self.diary.append(f"+{self.name}")

    def on_stop(self) -> None:
        self.diary.append(f"-{self.name}")

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        self.diary.append(f"{self.name}:{message}")


def member(name: str, diary: Diary, **how: Any) -> ChildSpec:
    return ChildSpec(how.pop("kind", Member), name=name, args=(name, diary), **how)


@asynccontextmanager
async def tree(*supervisors: Supervisor, **settings: Any) -> AsyncIterator[tuple[ActorSystem, ManualClock]]:
    settings = {
        "store": BankStore(),
        "handlers": [],
        "aggregates": [Account],
        "clock": ManualClock(),
        **settings,
    }
    async with ActorSystem(supervisors=supervisors, **settings) as system:
        yield system, settings["clock"]


def team(*children: Any, **rules: Any) -> Supervisor:
    return Supervisor("team", children, **{"backoff": AT_ONCE, "max_restarts": None, **rules})


def tell(system: ActorSystem, name: str, message: object) -> None:
    ref = system.actor(name)
    assert ref is not None, f"there is no {name}"
    ref.tell(message)


async def passing(clock: ManualClock, condition: Callable[[], object]) -> None:
    await clock.advance_until(condition, step=0.01)


KINDS = pytest.mark.parametrize("kind", [Member, PlainMember])


# --- strategies, with mailboxes that survive ---


@KINDS
@pytest.mark.parametrize(
    ("strategy", "written"),
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("one_for_all", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
async def test_a_failed_child_is_restarted_with_the_siblings_that_the_strategy_names(
    kind: type[Actor], strategy: Any, written: list[str]
) -> None:
    diary = Diary()
    children = [member(name, diary, kind=kind) for name in "abc"]
    async with tree(team(*children, strategy=strategy)) as (system, clock):
        refs = [system.actor(name) for name in "abc"]
        assert diary == ["+a", "+b", "+c"]
        diary.clear()
        tell(system, "b", ValueError("broken"))
        await passing(clock, lambda: len(diary) == len(written))
        assert diary == written
        assert [system.actor(name) for name in "abc"] == refs
        diary.clear()
    assert diary == ["-c", "-b", "-a"]


@KINDS
async def test_mailbox_and_reference_survive_a_restart(kind: type[Actor]) -> None:
    diary = Diary()
    slow = Backoff(initial=60, max=60, jitter=0)
    async with tree(
        team(
            member("a", diary, kind=kind), member("b", diary, kind=kind), strategy="one_for_all", backoff=slow
        )
    ) as (
        system,
        clock,
    ):
        timers = clock.pending()
        tell(system, "a", ValueError("broken"))
        await until(lambda: diary[-1] == "-b" and clock.pending() > timers)
        for name in "ab":
            tell(system, name, "meanwhile")
        clock.advance(59)
        await turns()
        assert diary == ["+a", "+b", "-b"]
        clock.advance(1)
        await until(lambda: len(diary) == 7)
        assert diary[3] == "+a"
        assert sorted(diary[4:]) == ["+b", "a:meanwhile", "b:meanwhile"]


async def test_a_sibling_is_halted_after_its_current_message() -> None:
    diary, inside, go_on = Diary(), asyncio.Event(), asyncio.Event()

    class Slow(Member):
        async def on_receive(self, message: Any) -> Any:
            inside.set()
            await go_on.wait()
            return await super().on_receive(message)

    async with tree(team(member("a", diary), member("slow", diary, kind=Slow), strategy="one_for_all")) as (
        system,
        clock,
    ):
        for message in ("first", "second"):
            tell(system, "slow", message)
        await inside.wait()
        tell(system, "a", ValueError("broken"))
        await turns()
        assert diary == ["+a", "+slow"]
        go_on.set()
        await passing(clock, lambda: "slow:second" in diary)
        assert diary == ["+a", "+slow", "slow:first", "-slow", "+a", "+slow", "slow:second"]


async def test_a_sibling_that_does_not_halt_in_time_is_abandoned_and_started_again() -> None:
    diary, inside = Diary(), asyncio.Event()

    class Stuck(Member):
        async def on_receive(self, message: Any) -> Any:
            inside.set()
            await asyncio.Event().wait()

    stuck = member("stuck", diary, kind=Stuck, shutdown=0.05)
    async with tree(team(member("a", diary), stuck, strategy="one_for_all")) as (system, clock):
        old = system.actor("stuck")
        assert old is not None
        asked = old.ask("never answered")
        await inside.wait()
        tell(system, "a", ValueError("broken"))
        with pytest.raises(ActorDeadError, match="abandoned"):
            await asked
        await passing(clock, lambda: diary == ["+a", "+stuck", "+a", "+stuck"])
        assert system.actor("stuck") not in (None, old)
        system.supervisor("team").count_children()


# --- restart types ---


async def test_an_actor_that_ends_by_itself_is_restarted_if_it_is_permanent() -> None:
    diary = Diary()
    children = [
        member("p", diary),
        member("t", diary, restart="transient"),
        member("x", diary, restart="temporary"),
    ]
    async with tree(team(*children)) as (system, clock):
        for name in "ptx":
            tell(system, name, "end")
        await passing(clock, lambda: diary.count("+p") == 2)
        await until(lambda: system.supervisor("team").count_children().specs == 2)
        states = {node.name: node.state for node in system.supervisor("team").which_children()}
        assert states == {"p": "idle", "t": "stopped"}
        assert system.actor("t") is None
        assert [entry for entry in diary if entry[0] == "+"] == ["+p", "+t", "+x", "+p"]


async def test_a_failed_temporary_actor_is_forgotten_with_its_mailbox() -> None:
    diary = Diary()
    async with tree(team(member("x", diary, restart="temporary"))) as (system, _):
        ref = system.actor("x")
        assert ref is not None
        ref.tell(ValueError("broken"))
        waiting = ref.ask("after that")
        with pytest.raises(ActorDeadError):
            await waiting
        await until(lambda: not system.supervisor("team").which_children())


# --- what it failed at ---


async def test_a_message_is_tried_again_and_becomes_dead_after_its_attempts() -> None:
    diary = Diary()
    async with tree(team(member("a", diary, max_attempts=3))) as (system, clock):
        poison = ValueError("poison")
        tell(system, "a", poison)
        tell(system, "a", "next")
        await passing(clock, lambda: "a:next" in diary)
        assert diary == ["+a", "+a", "+a", "+a", "a:next"]
        (dead,) = system.dead_messages()
        assert dead.message is poison
        assert dead.reason == "the actor failed at it, at attempt 3: ValueError: poison"


async def test_by_default_a_message_is_not_tried_again() -> None:
    diary = Diary()
    async with tree(team(member("a", diary))) as (system, clock):
        tell(system, "a", ValueError("poison"))
        await passing(clock, lambda: diary == ["+a", "+a"])
        assert [dead.reason for dead in system.dead_messages()] == [
            "the actor failed at it, at attempt 1: ValueError: poison"
        ]


# --- directives ---


async def test_a_message_is_tried_once_per_restart_however_often_the_start_fails() -> None:
    diary, starts = Diary(), itertools.count(1)

    class Flaky(FailsOnce):
        async def on_start(self) -> None:
            if next(starts) in (2, 3):
                raise ConnectionError("no bus")
            await super().on_start()

    async with tree(team(member("a", diary, kind=Flaky, max_attempts=3))) as (system, clock):
        tell(system, "a", Poison())
        tell(system, "a", "next")
        await passing(clock, lambda: "a:next" in diary)
        assert diary == ["+a", "a failed", "+a", "a managed", "a:next"]


async def test_what_was_handled_at_the_second_attempt_is_not_tried_again_after_another_failure() -> None:
    diary = Diary()
    children = member("a", diary, kind=FailsOnce, max_attempts=3), member("b", diary)
    async with tree(team(*children, strategy="one_for_all")) as (system, clock):
        tell(system, "a", Poison())
        await passing(clock, lambda: "a managed" in diary)
        tell(system, "b", ValueError("broken"))
        await passing(clock, lambda: diary.count("+b") == 3)
        tell(system, "a", "next")
        await passing(clock, lambda: "a:next" in diary)
        assert diary.count("a managed") == 1


@pytest.mark.parametrize("how", ["the system ends", "terminated", "stopped by a directive"])
async def test_a_message_that_is_never_tried_again_is_dead(how: str) -> None:
    diary, poison = Diary(), Poison()
    rules: dict[str, Any] = {"backoff": Backoff(initial=60, max=60, jitter=0)}
    if how == "stopped by a directive":
        rules["directives"] = {ValueError: "stop"}
    async with tree(team(member("a", diary, kind=FailsOnce, max_attempts=3), **rules)) as (system, _):
        tell(system, "a", poison)
        await until(lambda: "a failed" in diary)
        if how == "terminated":
            await system.supervisor("team").terminate_child("a")
        elif how == "stopped by a directive":
            await until(lambda: system.actor("a") is None)
    (dead,) = system.dead_messages()
    assert dead.message is poison
    assert "failed at it, at attempt 1: ValueError: poison" in dead.reason


@KINDS
async def test_an_actor_that_resumes_keeps_its_state(kind: type[Actor]) -> None:
    diary = Diary()
    async with tree(team(member("a", diary, kind=kind), directives={ValueError: "resume"})) as (system, _):
        tell(system, "a", ValueError("never mind"))
        tell(system, "a", "next")
        await until(lambda: "a:next" in diary)
        assert diary == ["+a", "a:next"]
        assert len(system.dead_messages()) == 1
        assert system.supervisor("team").which_children()[0].restarts == 0


async def test_an_actor_is_stopped_by_a_directive() -> None:
    diary = Diary()
    async with tree(team(member("a", diary), directives={ValueError: "stop"})) as (system, _):
        tell(system, "a", ValueError("enough"))
        await until(lambda: system.actor("a") is None)
        assert [node.state for node in system.supervisor("team").which_children()] == ["stopped"]


async def test_an_error_that_escalates_goes_up_the_tree() -> None:
    diary = Diary()
    inner = Supervisor(
        "inner", [member("a", diary), member("b", diary)], directives={MemoryError: "escalate"}
    )
    async with tree(team(inner, member("c", diary))) as (system, clock):
        tell(system, "a", MemoryError())
        await passing(clock, lambda: diary.count("+b") == 2)
        assert diary == ["+a", "+b", "+c", "-b", "+a", "+b"]


async def test_a_handler_that_resumes_continues_without_the_event() -> None:
    seen: list[int] = []

    async def handle(event: Credited) -> None:
        if event.amount == 1:
            raise ValueError("not this one")
        seen.append(event.amount)

    store = BankStore()
    rules = team(HandlerSpec("handle", handle, Credited), directives={ValueError: "resume"})
    async with tree(rules, store=store) as (system, _):
        await store.append(*credited(1), *credited(2))
        await until(lambda: seen == [2])
        (letter,) = await store.dead_letters()
        assert (letter.position, letter.attempts) == (1, 1)
        assert system.statistics().handlers["handle"].restarts == 0


# --- nesting and giving up ---


async def test_a_supervisor_that_gives_up_is_restarted_by_its_parent_with_all_its_children() -> None:
    diary = Diary()
    inner = Supervisor("inner", [member("a", diary), member("b", diary)], max_restarts=0)
    async with tree(team(inner, member("c", diary))) as (system, clock):
        tell(system, "b", "kept")  # not handled before the failure of a is reported
        tell(system, "a", ValueError("broken"))
        await passing(clock, lambda: diary.count("+b") == 2)
        assert [entry for entry in diary if ":" not in entry] == ["+a", "+b", "+c", "-b", "+a", "+b"]
        nodes = {node.name: node for node in system.tree().walk()}
        assert (nodes["inner"].restarts, nodes["c"].restarts) == (1, 0)


async def test_a_supervisor_gives_up_once_when_two_children_fail_at_the_same_time() -> None:
    diary = Diary()

    class Slow(Member):
        async def on_stop(self) -> None:
            await turns()
            await super().on_stop()

    children = [member("slow", diary, kind=Slow), member("a", diary), member("b", diary)]
    inner = Supervisor("inner", children, max_restarts=0)
    async with tree(team(inner)) as (system, clock):
        for name in "ab":
            tell(system, name, ValueError("broken"))
        await passing(clock, lambda: diary.count("+b") == 2)
        await turns()
        assert diary == ["+slow", "+a", "+b", "-slow", "+slow", "+a", "+b"]
        assert [node.restarts for node in system.supervisor("team").which_children()] == [1]
        assert [node.state for node in system.supervisor("inner").which_children()] == ["idle"] * 3


async def test_the_top_supervisor_ends_the_system_with_an_error_and_its_children_in_reverse_order() -> None:
    diary = Diary()
    with pytest.raises(SupervisorGaveUp, match="'team' gave up: a failed again after 0 restarts") as caught:
        async with tree(team(*[member(name, diary) for name in "abc"], max_restarts=0)) as (system, _):
            tell(system, "a", ValueError("broken"))
            await system.wait_stopped()
    assert isinstance(caught.value.cause, ValueError)
    assert diary == ["+a", "+b", "+c", "-c", "-b"]


async def test_failures_climb_one_level_per_exhausted_budget() -> None:
    diary = Diary()
    inner = Supervisor("inner", [member("a", diary)], max_restarts=1, backoff=AT_ONCE)
    middle = Supervisor("middle", [inner], max_restarts=1, backoff=AT_ONCE)
    with pytest.raises(SupervisorGaveUp, match="'middle' gave up: inner"):
        async with tree(middle) as (system, clock):
            for count in range(1, 5):
                await passing(clock, lambda count=count: diary.count("+a") == count and system.actor("a"))
                tell(system, "a", ValueError("broken"))
            await passing(clock, lambda: system.failure)
    assert diary.count("+a") == 4  # two for each start of the inner one, which was started twice


# --- starts ---


class Unstartable(Actor):
    async def on_start(self) -> None:
        raise ConnectionError("no database")


async def test_a_child_that_cannot_be_started_fails_the_start_and_stops_those_before_it() -> None:
    diary = Diary()
    with pytest.raises(ConnectionError, match="no database") as caught:
        async with tree(team(member("a", diary), member("b", diary), Unstartable, member("c", diary))):
            pass
    assert caught.value.__notes__ == ["while Unstartable was started under supervisor 'team'"]
    assert diary == ["+a", "+b", "-b", "-a"]


async def test_a_start_that_fails_repeatedly_is_retried_and_does_not_prevent_stopping() -> None:
    starts: list[float] = []
    diary, hands = Diary(), ManualClock()

    class Flaky(Member):
        async def on_start(self) -> None:
            starts.append(hands.now)
            if 1 < len(starts) < 5:
                raise ConnectionError("not yet")

    backoff = Backoff(initial=1, max=100, factor=2, jitter=0)
    async with tree(team(member("flaky", diary, kind=Flaky), backoff=backoff), clock=hands) as (
        system,
        clock,
    ):
        tell(system, "flaky", ValueError("broken"))
        tell(system, "flaky", "kept")
        await clock.advance_until(lambda: "flaky:kept" in diary, step=1)
        pauses = [after - before for before, after in itertools.pairwise(starts[1:])]
        for pause, wanted in zip(pauses, (2, 4, 8), strict=True):
            assert wanted <= pause <= wanted + 1, "the clock may move on before a pause begins"
        del starts[2:]
        tell(system, "flaky", ValueError("broken again"))
        await until(lambda: system.supervisor("team").which_children()[0].state == "restarting")
    assert len(starts) == 2  # it waited for its back-off, and was stopped


# --- stops ---


async def test_each_child_has_its_time_to_stop_and_then_is_abandoned() -> None:
    diary = Diary()

    class NeverStops(Member):
        async def on_stop(self) -> None:
            await asyncio.Event().wait()

    stuck = member("stuck", diary, kind=NeverStops, shutdown=0.05)
    killed = member("killed", diary, shutdown="kill")
    async with tree(team(member("a", diary), stuck, killed, member("b", diary))):
        pass
    assert diary == ["+a", "+stuck", "+killed", "+b", "-b", "-a"]


async def test_the_time_of_the_system_limits_that_of_its_children() -> None:
    class NeverStops(Actor):
        async def on_stop(self) -> None:
            await asyncio.Event().wait()

    patient = ChildSpec(NeverStops, shutdown="infinity")
    begun = asyncio.get_running_loop().time()
    async with tree(team(patient), stop_timeout=0.2):
        pass
    assert asyncio.get_running_loop().time() - begun < patience(5)


# --- handlers and actors together ---


async def test_handlers_and_actors_are_siblings() -> None:
    diary, store = Diary(), BankStore()
    seen: list[int] = []

    async def handle(event: Credited) -> None:
        seen.append(event.amount)
        if len(seen) == 1:
            raise ValueError("the first time")

    children = [member("cache", diary), HandlerSpec("handle", handle, Credited), member("after", diary)]
    async with tree(team(*children, strategy="rest_for_one"), store=store) as (system, clock):
        await store.append(*credited(1), *credited(2))
        await passing(clock, lambda: seen == [1, 1, 2])
        assert diary == ["+cache", "+after", "-after", "+after"]
        tell(system, "cache", ValueError("broken"))
        await passing(clock, lambda: diary.count("+after") == 3)
        await store.append(*credited(3))
        await passing(clock, lambda: seen == [1, 1, 2, 3])
        assert system.statistics().handlers["handle"].restarts == 2
        assert system.statistics().restarts == sum(node.restarts for node in system.tree().walk()) >= 2


async def test_a_handler_that_is_halted_sees_each_event_once() -> None:
    store, seen, diary = BankStore(), list[int](), Diary()

    async def handle(event: Credited) -> None:
        await asyncio.sleep(0)
        seen.append(event.amount)

    children = [member("a", diary), HandlerSpec("handle", handle, Credited)]
    async with tree(team(*children, strategy="one_for_all"), store=store) as (system, clock):
        for amount in range(60):
            await store.append(*credited(amount))
            if amount % 20 == 10:
                tell(system, "a", ValueError("broken"))
        await passing(clock, lambda: len(seen) == 60)
        assert seen == list(range(60))


# --- significant children ---


async def test_a_supervisor_ends_with_its_significant_child() -> None:
    diary = Diary()
    inner = Supervisor(
        "inner",
        [member("job", diary, restart="transient", significant=True), member("helper", diary)],
        auto_shutdown="any_significant",
    )
    async with tree(team(ChildSpec(inner, restart="transient"), member("other", diary))) as (system, _):
        tell(system, "job", "end")
        await until(lambda: "-helper" in diary)
        await until(lambda: system.supervisor("team").which_children()[0].state == "stopped")
        assert diary == ["+job", "+helper", "+other", "job:end", "-job", "-helper"]


# --- children that come and go ---


async def test_children_come_and_go_while_the_system_runs() -> None:
    diary, store = Diary(), BankStore()
    seen: list[int] = []

    async def handle(event: Credited) -> None:
        seen.append(event.amount)

    async with tree(team(member("a", diary)), store=store) as (system, _clock):
        team_ref = system.supervisor("team")
        started = await team_ref.start_child(member("b", diary))
        assert (started.name, started.state) == ("b", "idle")
        await store.append(*credited(1))
        await team_ref.start_child(HandlerSpec("handle", handle, Credited, start="earliest"))
        await until(lambda: seen == [1])
        await store.append(*credited(2))
        await until(lambda: seen == [1, 2])
        counts = team_ref.count_children()
        assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (3, 3, 0, 3)

        with pytest.raises(InvalidSupervisor, match="its child 'b' is running: terminate it first"):
            await team_ref.delete_child("b")
        with pytest.raises(InvalidSupervisor, match="its child 'b' is running"):
            await team_ref.restart_child("b")
        for name in ("handle", "b"):
            await team_ref.terminate_child(name)
        await store.append(*credited(3))
        assert team_ref.count_children().active == 1
        await team_ref.restart_child("handle")
        await until(lambda: seen == [1, 2, 3])
        await team_ref.terminate_child("handle")
        for name in ("handle", "b"):
            await team_ref.delete_child(name)
        assert [node.name for node in team_ref.which_children()] == ["a"]
        assert "handle" not in system.statistics().handlers
        assert (await store.checkpoints())["handle"] == 3
        again = await team_ref.start_child(HandlerSpec("handle", handle, Credited))  # from its checkpoint
        assert again.kind == "handler"
        await store.append(*credited(4))
        await until(lambda: seen == [1, 2, 3, 4])
        assert diary == ["+a", "+b", "-b"]


async def test_an_invalid_child_is_refused_and_leaves_nothing_behind() -> None:
    async with tree(team(member("a", Diary()))) as (system, _):
        team_ref = system.supervisor("team")
        with pytest.raises(InvalidSupervisor, match="a child named 'a' already"):
            await team_ref.start_child(member("a", Diary()))
        with pytest.raises(ConnectionError):
            await team_ref.start_child(Unstartable)
        with pytest.raises(InvalidSupervisor, match="no child is significant"):
            await team_ref.start_child(member("b", Diary(), restart="temporary", significant=True))
        with pytest.raises(UnknownChild, match="has no child 'c'; it has: a"):
            await team_ref.terminate_child("c")
        with pytest.raises(UnknownSupervisor, match="has no supervisor 'other'; it has: handlers, team"):
            system.supervisor("other")
        assert [node.name for node in team_ref.which_children()] == ["a"]
    with pytest.raises(SystemNotRunning):
        team_ref.which_children()


async def test_a_supervisor_comes_and_goes_with_its_children() -> None:
    diary = Diary()
    async with tree(team()) as (system, _):
        await system.supervisor("team").start_child(Supervisor("inner", [member("a", diary)]))
        assert system.supervisor("inner").count_children().active == 1
        await system.supervisor("team").terminate_child("inner")
        await system.supervisor("team").delete_child("inner")
        assert diary == ["+a", "-a"]
        with pytest.raises(UnknownSupervisor):
            system.supervisor("inner")


async def test_a_name_that_is_used_elsewhere_in_the_tree_is_refused_and_does_no_harm() -> None:
    store, seen = BankStore(), list[int]()

    async def handle(event: Credited) -> None:
        seen.append(event.amount)

    async def other(event: Credited) -> None:
        seen.append(-event.amount)

    first, second = (HandlerSpec("handle", function, Credited) for function in (handle, other))
    async with tree(team(first), Supervisor("more"), store=store) as (system, _):
        more = system.supervisor("more")
        for child in (second, Supervisor("inner", [second])):
            with pytest.raises(InvalidHandler, match="two handlers are named 'handle'"):
                await more.start_child(child)
        for child in (Supervisor("team"), Supervisor("inner", [Supervisor("team")])):
            with pytest.raises(InvalidSupervisor, match="supervisor 'team': the system has one of this name"):
                await more.start_child(child)
        assert more.which_children() == ()
        assert system.supervisor("team").count_children().active == 1
        await store.append(*credited(1))
        await until(lambda: seen)
        await system.supervisor("team").terminate_child("handle")
        await system.supervisor("team").delete_child("handle")
        await more.start_child(second)  # the name is free
        await store.append(*credited(2))
        await until(lambda: len(seen) == 2)
        assert seen == [1, -2]


async def test_a_child_that_is_terminated_while_it_starts_again_stays_stopped() -> None:
    diary, gate = Diary(), asyncio.Event()
    async with tree(team(member("a", diary, kind=gated(gate)))) as (system, clock):
        tell(system, "a", ValueError("broken"))
        await passing(clock, lambda: "a waits" in diary)
        terminated = asyncio.ensure_future(system.supervisor("team").terminate_child("a"))
        await turns()
        gate.set()
        await terminated
        await turns()
        assert [node.state for node in system.supervisor("team").which_children()] == ["stopped"]
        await system.supervisor("team").restart_child("a")
        assert [node.state for node in system.supervisor("team").which_children()] == ["idle"]


async def test_a_sibling_that_fails_while_a_child_is_restarted_by_hand_restarts_it_too() -> None:
    diary, gate = Diary(), asyncio.Event()
    children = member("a", diary, kind=gated(gate)), member("b", diary)
    async with tree(team(*children, strategy="one_for_all")) as (system, clock):
        team_ref = system.supervisor("team")
        await team_ref.terminate_child("a")
        restarted = asyncio.ensure_future(team_ref.restart_child("a"))
        await until(lambda: "a waits" in diary)
        tell(system, "b", ValueError("broken"))
        await turns()
        gate.set()
        await asyncio.wait_for(restarted, patience(5))
        await passing(clock, lambda: [node.state for node in team_ref.which_children()] == ["idle", "idle"])
        for name in "ab":
            tell(system, name, "hello")
        await until(lambda: {"a:hello", "b:hello"} <= set(diary))
        assert diary.count("+b") == 2


async def test_a_handler_is_unsubscribed_once_even_if_its_siblings_restart_at_the_same_time() -> None:
    diary, gate, begun = Diary(), asyncio.Event(), asyncio.Event()

    async def handle(event: Credited) -> None:
        begun.set()
        await gate.wait()

    store = BankStore()
    children = HandlerSpec("handle", handle, Credited), member("a", diary)
    async with tree(team(*children, strategy="one_for_all"), store=store) as (system, clock):
        await store.append(*credited(1))
        await begun.wait()
        ends = [asyncio.ensure_future(system.unsubscribe("handle")) for _ in range(2)]
        await turns()
        tell(system, "a", ValueError("broken"))
        await turns()
        gate.set()
        await asyncio.gather(*ends)
        await passing(clock, lambda: diary.count("+a") == 2)
        assert [node.name for node in system.supervisor("team").which_children()] == ["a"]


async def test_a_system_that_stops_while_a_child_is_added_leaves_none_running() -> None:
    inside, gate = asyncio.Event(), asyncio.Event()

    class Slow(BankStore):
        is_slow = False

        async def last_position(self) -> int:
            if self.is_slow:
                inside.set()
                await gate.wait()
            return await super().last_position()

    async def handle(event: Credited) -> None: ...

    store = Slow()
    async with tree(team(), store=store) as (system, _):
        store.is_slow = True
        added = asyncio.ensure_future(
            system.supervisor("team").start_child(HandlerSpec("handle", handle, Credited))
        )
        await inside.wait()
        store.is_slow = False
        stopped = asyncio.ensure_future(system.stop())
        await turns()
        gate.set()
        await stopped
        with pytest.raises(InvalidSupervisor, match="supervisor 'team': it was stopped in the meantime"):
            await asyncio.wait_for(added, patience(5))


# --- how it is ---


async def test_the_tree_shows_each_child_with_its_place_and_state() -> None:
    def handle(event: Debited) -> None: ...

    diary = Diary()
    inner = Supervisor("inner", [HandlerSpec("handle", handle, Debited)])
    async with tree(team(member("a", diary), inner), name="bank") as (system, _):
        assert system.tree() == TreeNode(
            "bank",
            "supervisor",
            "running",
            children=(
                TreeNode("handlers", "supervisor", "running"),
                TreeNode(
                    "team",
                    "supervisor",
                    "running",
                    children=(
                        TreeNode("a", "actor", "idle"),
                        TreeNode(
                            "inner",
                            "supervisor",
                            "running",
                            children=(TreeNode("handle", "handler", "live"),),
                        ),
                    ),
                ),
            ),
        )
    assert {node.state for node in system.tree().walk()} == {"running", "stopped"}


async def test_actors_on_their_own_threads_are_children_too() -> None:
    seen: list[tuple[str, int]] = []

    class Owner(Actor):
        def on_receive(self, message: Any) -> None:
            seen.append((message, threading.get_ident()))
            if message == "fail":
                raise ValueError("broken")

    async with tree(team(ChildSpec(Owner, name="owner", dispatcher="thread"))) as (system, clock):
        for message in ("one", "fail", "two"):
            tell(system, "owner", message)
        await passing(clock, lambda: len(seen) == 3)
        assert [message for message, _ in seen] == ["one", "fail", "two"]
        assert len({thread for _, thread in seen}) == 1


async def test_a_stream_that_cannot_be_replayed_fails_commands_with_the_cause_and_is_not_read_each_time() -> (
    None
):
    class Reading(BankStore):
        reads = 0

        async def read_stream(self, *args: Any, **kwargs: Any) -> Any:
            self.reads += 1
            return await super().read_stream(*args, **kwargs)

    class Unreadable(Account):
        aggregate_type = "Account"

        def apply_credited(self, event: Credited) -> None:
            if broken:
                raise ArithmeticError("cannot add")
            super().apply_credited(event)

    store, broken = Reading(), True
    await store.append(Credited(amount=5, aggregate_id="alice", aggregate_type="Account"))
    clock = ManualClock()
    async with ActorSystem(store, aggregates=[Unreadable], handlers=[], clock=clock) as system:
        alice = system.aggregate(Unreadable, "alice")
        for _ in range(20):
            with pytest.raises(ApplyFailed, match="cannot add") as caught:
                await alice.ask(Credit(amount=1))
            assert isinstance(caught.value.__cause__, ArithmeticError)
        assert store.reads <= 2
        broken = False
        clock.advance(1)
        assert await alice.ask(Credit(amount=1)) == 6


@pytest.mark.parametrize(("attempts", "inner", "outer"), [(4, 1, 5), (6, 0, 10)])
async def test_an_event_whose_last_attempt_ends_an_inner_supervisor_is_set_aside_once(
    attempts: int, inner: int, outer: int
) -> None:
    calls = []

    async def poisoned(event: Credited) -> None:
        calls.append(event.amount)
        if event.amount == 1:
            raise ValueError("poison")

    spec = HandlerSpec("poisoned", poisoned, event_type=Credited, max_attempts=attempts)
    at_once = Backoff(initial=0, max=0)
    below = Supervisor("inner", [spec], max_restarts=inner, backoff=at_once)
    above = Supervisor("outer", [below], max_restarts=outer, backoff=at_once)
    async with ActorSystem(BankStore(), aggregates=[Account], handlers=[], supervisors=[above]) as system:
        await system.store.append(*credited(1, 2))
        await system.settled()
        assert calls == [1] * attempts + [2]
        assert [letter.attempts for letter in await system.store.dead_letters()] == [attempts]
