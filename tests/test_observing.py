"""Observers: what they learn, in which order and context, and that one which raises does no harm."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from tests.bank import Account, BankStore, Credit, Credited, Debit, Noted
from tests.cluster.nodes import an_id_owned_by, nodes_on
from tests.waiting import until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    AskTimeout,
    Backoff,
    Command,
    CommandRejected,
    DomainEvent,
    Observer,
    ProcessManager,
    Supervisor,
    SupervisorGaveUp,
    handles,
    reacts,
    subscribe,
)
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.observing import HOOKS, IN_CONTEXT, Observation, Unwatched, observation

TRAIL: ContextVar[str] = ContextVar("trail", default="")


class Recorder(Observer):
    """Writes down each call, and binds in its context what was called before."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], str]] = []

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def only(self, name: str) -> tuple[Any, ...]:
        (found,) = self.of(name)
        return found

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for each, arguments, _ in self.calls if each == name]

    def trail(self, name: str) -> str:
        return next(trail for each, _, trail in self.calls if each == name)


def _recording(name: str) -> Callable[..., None]:
    def hook(self: Recorder, *arguments: Any) -> None:
        before = TRAIL.get()
        self.calls.append((name, arguments, before))
        TRAIL.set(f"{before} {name}".strip())

    return hook


MEASURES = {"system_started", "command_measured", "handler_measured", "hop_measured"}
"""They say what other methods say, for observers that only count; see ``tests/ops/test_metrics.py``."""

for each in HOOKS:
    if each != "correlation_id" and each not in MEASURES:
        setattr(Recorder, each, _recording(each))


ONE_COMMAND = [
    "command_sent",
    "command_arrived",
    "aggregate_loaded",
    "command_taken",
    "command_deciding",
    "command_decided",
    "append_begun",
    "append_ended",
    "command_answered",
    "command_returned",
]


def serving(*observers: Observer, **options: Any) -> ActorSystem:
    chosen: dict[str, Any] = {"aggregates": [Account], "handlers": []} | options
    return ActorSystem(chosen.pop("store", None) or BankStore(), observers=observers, **chosen)


async def test_observer_learns_the_life_of_a_command_in_its_order() -> None:
    recorder = Recorder()
    async with serving(recorder) as system:
        assert await system.aggregate(Account, "alice").ask(Credit(amount=5)) == 5
    assert recorder.names == ONE_COMMAND
    stream, command, asked = recorder.only("command_sent")
    assert (stream, command.amount, asked) == (("Account", "alice"), 5, True)
    assert recorder.only("command_decided")[3:] == (1, None)
    assert recorder.only("command_returned")[3] is None
    group, outcomes, seconds = recorder.only("append_ended")
    assert [record.event_type for append in group.appends for record in append.records] == ["Credited"]
    assert [list(outcome.positions) for outcome in outcomes] == [[1]]
    assert seconds > 0
    assert len(group.contexts) == 1


async def test_hooks_of_a_command_share_a_context_that_its_sender_does_not_see() -> None:
    recorder = Recorder()
    async with serving(recorder) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
    in_context = [name for name in ONE_COMMAND if not name.startswith("append")]
    assert recorder.trail("command_returned") == " ".join(in_context[:-1])
    assert TRAIL.get() == ""


async def test_command_that_is_rejected_or_fails_or_is_repeated_is_observed_with_its_error() -> None:
    recorder = Recorder()
    async with serving(recorder) as system:
        alice = system.aggregate(Account, "alice")
        with pytest.raises(CommandRejected):
            await alice.ask(Debit(amount=1))
        credit = Credit(amount=1)
        await alice.ask(credit)
        recorder.calls.clear()
        await alice.ask(credit)
        assert recorder.names == [
            "command_sent",
            "command_arrived",
            "command_taken",
            "command_answered",
            "command_returned",
        ]
        recorder.calls.clear()
        with pytest.raises(CommandRejected):
            await alice.ask(Debit(amount=9))
    for name in ("command_decided", "command_answered", "command_returned"):
        assert isinstance(recorder.only(name)[-1], CommandRejected)


async def test_each_command_ends_once_even_if_its_time_is_over_before() -> None:
    recorder, store = Recorder(), BankStore()
    async with serving(recorder, store=store) as system:
        alice = system.aggregate(Account, "alice")
        await alice.ask(Credit(amount=1))
        recorder.calls.clear()
        store.gate.clear()
        with pytest.raises(AskTimeout):
            await alice.ask(Credit(amount=1), timeout=0.01)
        assert isinstance(recorder.only("command_returned")[-1], AskTimeout)
        store.gate.set()
        await until(lambda: recorder.of("command_answered"))
    assert recorder.only("command_answered")[-1] is None
    assert Counter(recorder.names)["command_returned"] == 1


async def test_told_commands_are_observed_too() -> None:
    recorder = Recorder()
    async with serving(recorder) as system:
        system.aggregate(Account, "alice").tell(Credit(amount=5))
        await system.settled()
    assert recorder.names == ONE_COMMAND
    assert recorder.only("command_sent")[2] is False


async def test_every_command_of_a_group_is_in_its_commit() -> None:
    recorder = Recorder()
    async with serving(recorder) as system:
        refs = [system.aggregate(Account, f"account-{number}") for number in range(20)]
        await asyncio.gather(*(ref.ask(Credit(amount=1)) for ref in refs for _ in range(3)))
    groups = [group for group, *_ in recorder.of("append_ended")]
    assert sum(len(group.contexts) for group in groups) == 60
    assert sum(len(append.records) for group in groups for append in group.appends) == 60
    assert [group for (group,) in recorder.of("append_begun")] == groups


# --- handlers ---


async def test_observer_learns_how_an_event_is_routed_and_handled() -> None:
    recorder = Recorder()

    @subscribe(event_type=Credited)
    async def listen(event: Credited) -> None: ...

    async with serving(recorder, handlers=[listen]) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
        await system.settled()
    event, handlers = recorder.only("event_routed")
    assert (event.position, event.record.event_type, handlers) == (1, "Credited", 1)
    name, events, attempt = recorder.only("handler_called")
    assert name.endswith("listen")
    assert ([each.position for each in events], attempt) == ([1], 1)
    assert recorder.only("handler_returned")[0] == name
    assert recorder.only("handler_returned")[3] is None
    assert "command_deciding" in recorder.trail("event_routed")
    assert "event_routed" in recorder.trail("handler_called")
    assert recorder.trail("handler_returned").endswith("handler_called")


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_failing_handler_is_observed_until_its_dead_letter(kind: str) -> None:
    recorder = Recorder()

    def fail(event: DomainEvent) -> None:
        raise ValueError("no")

    async def fail_async(event: DomainEvent) -> None:
        fail(event)

    handler = subscribe(event_type=Credited, name="fail", max_attempts=3)(
        fail_async if kind == "async" else fail
    )
    supervisor = Supervisor("quick", [handler], backoff=Backoff(initial=0, max=0), max_restarts=None)
    async with serving(recorder, supervisors=[supervisor]) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
        await until(lambda: recorder.of("dead_letter"))
        await until(lambda: len(recorder.of("child_restarted")) == 3)
    assert [attempt for _, _, attempt in recorder.of("handler_called")] == [1, 2, 3]
    assert [str(error) for *_, error in recorder.of("handler_returned")] == ["no"] * 3
    name, letter = recorder.only("dead_letter")
    assert (name, letter.attempts, letter.position) == ("fail", 3, 1)
    failed = recorder.of("child_failed")
    assert [(supervisor, child, kind) for supervisor, child, kind, *_ in failed] == [
        ("quick", "fail", "handler")
    ] * 3


async def test_supervisor_that_gives_up_is_observed() -> None:
    recorder = Recorder()

    @subscribe(event_type=Credited, name="fail", max_attempts=99)
    async def fail(event: DomainEvent) -> None:
        raise ValueError("no")

    supervisor = Supervisor("strict", [fail], backoff=Backoff(initial=0, max=0), max_restarts=1, within=60)
    with pytest.raises(SupervisorGaveUp):
        async with serving(recorder, supervisors=[supervisor]) as system:
            await system.aggregate(Account, "alice").ask(Credit(amount=5))
            await system.wait_stopped()
    assert [decision for *_, decision in recorder.of("child_failed")] == ["restart", "give up"]
    supervisor_name, child, reason, error = recorder.only("supervisor_gave_up")
    assert (supervisor_name, child, str(error)) == ("strict", "fail", "no")
    assert "1" in reason


class Post(Command[None]):
    pass


class Posted(DomainEvent):
    pass


class Letterbox(AggregateRoot):
    @handles
    def post(self, command: Post) -> None:
        self.register_event(Posted())

    def apply_posted(self, event: Posted) -> None: ...


class Greeting(ProcessManager):
    sends_to = (Account,)

    @reacts
    def greet(self, event: Posted) -> None:
        self.send(Account, "alice", Credit(amount=1))


async def test_step_of_a_process_is_observed_around_its_commands() -> None:
    recorder = Recorder()
    async with ActorSystem(
        aggregates=[Letterbox, Greeting, Account], handlers=[Greeting.handler()], observers=[recorder]
    ) as system:
        await system.aggregate(Letterbox, "mine").ask(Post())
        await system.settled()
    process, process_id, message = recorder.only("process_step_begun")
    assert process == "Greeting"
    assert isinstance(message, Posted)
    assert message.correlation_id == process_id
    assert recorder.only("process_step_ended")[:3] == (process, process_id, 1)
    credited = [
        trail
        for name, arguments, trail in recorder.calls
        if name == "command_sent" and isinstance(arguments[1], Credit)
    ]
    assert ["process_step_begun" in trail for trail in credited] == [True]


# --- publishing and the bus ---


async def test_published_events_are_observed_until_they_are_handled() -> None:
    recorder = Recorder()

    @subscribe(event_type=Noted)
    async def listen(event: Noted) -> None: ...

    async with serving(recorder, handlers=[listen]) as system:
        await system.publisher.publish(Noted(text="hello"))
        await system.settled()
    (begun,) = recorder.only("publish_begun")
    ended, _, error = recorder.only("publish_ended")
    assert [event.text for event in begun] == [event.text for event in ended] == ["hello"]
    assert error is None
    assert recorder.trail("handler_called").startswith("publish_begun")
    assert TRAIL.get() == ""


async def test_handlers_of_the_bus_are_observed() -> None:
    recorder = Recorder()

    async def listen(event: Noted) -> None: ...

    def fail(event: Noted) -> None:
        raise ValueError("no")

    async with serving(recorder) as system:
        system.bus.subscribe(listen, Noted, name="listen")
        system.bus.subscribe(fail, Noted, name="fail")
        await system.bus.publish(Noted(text="hello"))
    assert recorder.only("bus_published")[::2] == ("system", 2)
    assert sorted(handler for _, handler, _ in recorder.of("bus_handler_called")) == ["fail", "listen"]
    errors = {handler: error for _, handler, _, _, error in recorder.of("bus_handler_returned")}
    assert errors["listen"] is None
    assert str(errors["fail"]) == "no"
    assert TRAIL.get() == ""


# --- hops ---


class Carrying(Recorder):
    def hop_sent(self, stream: Any, command: Any, node: str, carrier: dict[str, str]) -> None:
        carrier["traceparent"] = "00-the-trace-01"
        super().hop_sent(stream, command, node, carrier)


async def test_hop_carries_what_the_observers_put_in() -> None:
    recorder, store, network = Carrying(), BankStore(), MemoryNetwork()
    async with nodes_on(store, network, "ab", observers=[recorder]) as (first, second):
        await first.aggregate(Account, an_id_owned_by(second)).ask(Credit(amount=5))
    assert recorder.names[:4] == ["command_sent", "hop_sent", "hop_served", "command_arrived"]
    assert recorder.names[-3:] == ["command_answered", "hop_returned", "command_returned"]
    assert recorder.only("hop_served")[3] == {"traceparent": "00-the-trace-01"}
    assert recorder.only("hop_served")[2].startswith("a@")
    assert recorder.only("hop_sent")[2].startswith("b@")
    assert recorder.only("hop_returned")[4] is None
    # No context crosses the hop: what is bound on one side is not seen on the other.
    assert recorder.trail("hop_served") == ""
    assert recorder.trail("command_returned") == "command_sent hop_sent hop_returned"


# --- commands of which an observer does not want to be told again ---


class OnlySent(Recorder):
    def command_sent(self, stream: Any, command: Any, asked: bool) -> Any:
        super().command_sent(stream, command, asked)
        return Unwatched("the trace")


async def test_observer_is_told_no_more_of_a_command_that_it_does_not_watch() -> None:
    recorder, store = OnlySent(), BankStore()
    async with serving(recorder, store=store) as system:
        assert await system.aggregate(Account, "alice").ask(Credit(amount=5)) == 5
        recorded = [recorded.event.correlation_id async for recorded in store.read_all()]
    assert [name for name in recorder.names if name in IN_CONTEXT] == ["command_sent"]
    assert [len(group.contexts) for group, *_ in recorder.of("append_ended")] == [0]
    assert recorded == ["the trace"]


async def test_command_is_watched_for_as_long_as_one_observer_watches_it() -> None:
    recorder, other = OnlySent(), Recorder()

    class Counts(Observer):
        """Is not asked: it overrides nothing that happens in the context of a command."""

        def append_begun(self, group: object) -> None: ...

    async with serving(recorder, other, Counts()) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
    assert [name for name in other.names if name in IN_CONTEXT] == in_context(ONE_COMMAND)
    assert recorder.names == other.names

    class Ends(Observer):
        ends = 0

        def command_returned(self, *arguments: Any) -> None:
            self.ends += 1

    recorder, ends = OnlySent(), Ends()  # who does not say so watches
    async with serving(recorder, ends) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
    assert ends.ends == 1


def in_context(names: list[str]) -> list[str]:
    return [name for name in names if name in IN_CONTEXT]


# --- several observers, and those that raise ---


async def test_several_observers_are_called_in_turn() -> None:
    first, second = Recorder(), Recorder()
    async with serving(first, second) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
    assert first.names == second.names == ONE_COMMAND


class Broken(Recorder):
    """Raises in one of its methods."""

    def __init__(self, hook: str, error: BaseException) -> None:
        super().__init__()

        def fail(*_: object) -> None:
            self.calls.append((hook, (), ""))
            raise error

        self.__class__ = type("Broken", (Broken,), {hook: fail})


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()], ids=type)
@pytest.mark.parametrize("hook", [*ONE_COMMAND, "event_routed", "handler_called"])
async def test_observer_that_raises_is_logged_and_called_no_more(
    hook: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = Broken(hook, error), Recorder()
    seen = []

    @subscribe(event_type=Credited)
    async def listen(event: Credited) -> None:
        seen.append(event)

    with caplog.at_level(logging.ERROR, "uno_actors"):
        async with serving(broken, other, handlers=[listen]) as system:
            assert await system.aggregate(Account, "alice").ask(Credit(amount=5)) == 5
            assert await system.aggregate(Account, "alice").ask(Credit(amount=5)) == 10
            await system.settled()
    assert broken.names[-1] == hook
    assert Counter(broken.names)[hook] == 1
    assert len(seen) == 2
    assert Counter(other.names)["command_returned"] == 2
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if text.startswith("observer failed and is called no more")]) == 1


def test_hook_without_an_observer_is_the_one_that_does_nothing() -> None:
    class Counts(Observer):
        def command_sent(self, stream: Any, command: Any, asked: bool) -> None: ...

    observed = Observation([Counts()])
    assert [hook for hook in HOOKS if observed.wants(hook)] == ["command_sent"]


def test_only_observers_observe() -> None:
    assert observation([]) is None
    with pytest.raises(TypeError, match="observers is a list of instances of uno_actors.Observer; found 3"):
        ActorSystem(handlers=[], observers=[3])  # type: ignore[list-item]


async def test_first_correlation_id_of_the_observers_counts_for_commands_and_published_events() -> None:
    class Correlates(Observer):
        def __init__(self, found: str | None) -> None:
            self.found = found

        def command_sent(self, stream: Any, command: Any, asked: bool) -> str | None:
            return self.found

        def correlation_id(self) -> str | None:
            return self.found

    store = BankStore()
    observers = [Correlates(None), Correlates("first"), Correlates("second")]
    async with serving(*observers, store=store) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=5))
        await system.aggregate(Account, "alice").ask(Credit(amount=5, correlation_id="mine"))
        await system.publisher.publish(Noted(text="hello"))
        heard = list[DomainEvent]()

        async def listen(event: Noted) -> None:
            heard.append(event)

        system.bus.subscribe(listen, Noted)
        await system.bus.publish(Noted(text="again"))
    recorded = [recorded.event.correlation_id async for recorded in store.read_all()]
    assert recorded == ["first", "mine", "first"]
    assert [event.correlation_id for event in heard] == ["first"]
