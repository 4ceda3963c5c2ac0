"""What a running system records, on each path: in memory, on LMDB, and over the nodes of a cluster."""

import asyncio
import multiprocessing
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.bank import EVENTS, Account, BankStore, Credit, CreditAndFail, Credited, Debit, Noted
from tests.cluster.nodes import an_id_owned_by, nodes_on
from tests.waiting import until
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    AskTimeout,
    Backoff,
    Command,
    CommandRejected,
    EventStore,
    RecordingNotWritten,
    Supervisor,
    SupervisorGaveUp,
    SystemNotRunning,
    UnoError,
    handles,
    subscribe,
)
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.flight_recorder.files import KEPT, read
from uno_actors.flight_recorder.steps import KINDS, Step
from uno_stores import LmdbEventStore

ORDER = ["sent", "taken", "decided", "committed", "answered"]
SEEN: set[str] = set()
"""Kinds that the tests of this module have had a running system make."""
RAN: set[str] = set()
"""Tests of this module that have run in this process."""


@pytest.fixture(autouse=True)
def ran(request: pytest.FixtureRequest) -> None:
    RAN.add(request.node.nodeid)


def kinds(steps: Sequence[Step]) -> list[str]:
    SEEN.update(step.kind for step in steps)
    return [step.kind for step in steps]


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def serving(store: EventStore | None = None, **options: Any) -> ActorSystem:
    chosen: dict[str, Any] = {"aggregates": [Account], "handlers": []} | options
    return ActorSystem(store or BankStore(), **chosen)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> EventStore:
    return BankStore() if request.param == "memory" else LmdbEventStore(tmp_path / "store", EVENTS)


class Hold(Command[None]):
    pass


class Stuck(AggregateRoot):
    seen: ClassVar[Callable[[], Sequence[Step]]]
    found: ClassVar[list[str]]

    @handles
    def hold(self, _: Hold) -> None:
        with ThreadPoolExecutor(1) as threads:
            Stuck.found = [step.kind for step in threads.submit(Stuck.seen).result()]


@subscribe(Credited, name="recorded-mail")
async def mail(event: Credited) -> None: ...


@subscribe(Credited, name="recorded-ledger")
def ledger(event: Credited) -> None: ...


@pytest.mark.parametrize("handler", [mail, ledger], ids=["async", "plain"])
async def test_the_life_of_a_command_is_recorded_in_its_order(store: EventStore, handler: object) -> None:
    async with serving(store, handlers=[handler]) as system:
        command = Credit(amount=5)
        await system.aggregate(Account, "alice").ask(command)
        await system.settled()
        steps = system.steps_of(command.command_id)
    # The router may read an event before the journal hears that it is durable.
    made = dict(zip(kinds(steps), steps, strict=True))
    assert [kind for kind in made if kind in ORDER] == ORDER
    sent, taken, decided, answered = (made[kind] for kind in ("sent", "taken", "decided", "answered"))
    committed, routed, handled = (made[kind] for kind in ("committed", "routed", "handled"))
    assert len(steps) == 7
    assert {step.who for step in (sent, taken, decided, answered)} == {"Account<alice>"}
    assert {step.what for step in (sent, taken, decided, answered)} == {"Credit"}
    assert (decided.events, committed.places, routed.places, answered.places) == (1, (1, 1), (1, 1), (1, 1))
    assert (handled.what, handled.position, handled.event_id) == ("Credited", 1, answered.event_id)
    assert handled.correlation_id == answered.correlation_id is not None
    assert all(earlier.time <= later.time for earlier, later in pairwise(steps))
    assert {step.node for step in steps} == {system.recording.recorder.node}
    assert (answered.seconds or 0) >= (committed.seconds or 0) > 0


async def test_a_command_that_is_told_is_recorded_too() -> None:
    async with serving() as system:
        command = Credit(amount=5)
        system.aggregate(Account, "alice").tell(command)
        await system.settled()
        steps = system.steps_of(command.command_id)
    assert kinds(steps)[-1] == "answered"


async def test_rejected_failed_and_repeated_commands_are_recorded_with_their_reasons() -> None:
    async with serving() as system:
        alice = system.aggregate(Account, "alice")
        for command, error in (
            (Debit(amount=1), CommandRejected),
            (CreditAndFail(amount=1), ZeroDivisionError),
        ):
            with pytest.raises(error):
                await alice.ask(command)
            end = system.steps_of(command.command_id)[-1]
            assert end.kind == ("rejected" if error is CommandRejected else "failed")
            assert error.__name__ in (end.reason or "")
            kinds([end])
        command = Credit(amount=1)
        await alice.ask(command)
        await alice.ask(command)
        steps = system.steps_of(command.command_id)
    assert [step.kind for step in steps].count("answered") == 2
    assert [step.position for step in steps if step.kind == "answered"] == [1, 1]
    assert any("repeated" in (step.reason or "") for step in steps)


async def test_a_group_is_one_step() -> None:
    async with serving() as system:
        await asyncio.gather(
            *(system.aggregate(Account, f"account-{n}").ask(Credit(amount=1)) for n in range(50))
        )
        committed = [step for step in system.recording.steps() if step.kind == "committed"]
    assert sum(step.events or 0 for step in committed) == 50
    assert len(committed) < 10
    assert [step.first for step in committed[1:]] == [(before.position or 0) + 1 for before in committed[:-1]]


async def test_an_append_that_fails_is_recorded_with_its_command() -> None:
    store = BankStore()
    store.commit_errors = [UnoError("the disk is gone")]
    async with serving(store) as system:
        command = Credit(amount=1)
        with pytest.raises(UnoError):
            await system.aggregate(Account, "alice").ask(command)
        steps = system.steps_of(command.command_id)
    assert [(step.who, step.kind) for step in steps][-2:] == [
        ("journal", "failed"),
        ("Account<alice>", "failed"),
    ]


async def test_a_timeout_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = BankStore()
    async with serving(store) as system:
        store.gate.clear()
        command = Credit(amount=1)
        with pytest.raises(AskTimeout):
            await system.aggregate(Account, "alice").ask(command, timeout=0.01)
        steps = system.steps_of(command.command_id)
        store.gate.set()
    assert kinds(steps)[-1] == "timed out"
    assert "AskTimeout" in (steps[-1].reason or "")


async def test_events_without_an_aggregate_are_recorded() -> None:
    async with serving() as system:
        await system.publisher.publish(Noted(text="secret"))
        (step,) = [step for step in system.recording.steps() if step.kind == "published"]
    kinds([step])
    assert (step.what, step.places) == ("Noted", (1, 1))
    assert "secret" not in str(step)


async def test_failures_of_a_handler_end_in_a_dead_letter() -> None:
    @subscribe(Credited, name="recorded-broken", max_attempts=2)
    async def broken(event: Credited) -> None:
        raise ValueError("no mail today")

    patient = Supervisor("patient", [broken], max_restarts=None, backoff=Backoff(0, 0))
    async with serving(supervisors=[patient]) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=1))
        await system.settled()
        steps = system.steps_of("recorded-broken")
    assert kinds(steps).count("failed") == 4  # each attempt, and what the supervisor does about it
    assert kinds(steps).count("restarted") >= 1
    letter = next(step for step in steps if step.kind == "dead letter")
    assert "no mail today" in (letter.reason or "")
    assert "after 2 attempts" in (letter.reason or "")


async def test_a_list_of_events_is_one_step() -> None:
    @subscribe(Credited, name="recorded-batches", batch=10, start="earliest")
    async def batches(events: list[Credited]) -> None: ...

    store = BankStore()
    await store.append(
        *[Credited(amount=1, aggregate_id="alice", aggregate_type="Account") for _ in range(10)]
    )
    async with serving(store, handlers=[batches]) as system:
        await system.settled()
        handled = [step for step in system.steps_of("recorded-batches") if step.kind == "handled"]
    assert sum(step.events or 0 for step in handled) == 10
    assert len(handled) == 1


async def test_catching_up_makes_few_steps() -> None:
    @subscribe(Credited, name="recorded-quick", start="earliest")
    async def quick(event: Credited) -> None: ...

    store = BankStore()
    await store.append(
        *[Credited(amount=1, aggregate_id="alice", aggregate_type="Account") for _ in range(500)]
    )
    async with serving(store, handlers=[quick]) as system:
        await system.settled()
        handled = [step for step in system.steps_of("recorded-quick") if step.kind == "handled"]
    assert sum(step.events or 0 for step in handled) == 500
    assert len(handled) < 100
    assert [step.first for step in handled[1:]] == [(before.position or 0) + 1 for before in handled[:-1]]


async def test_a_stopped_handler_is_recorded() -> None:
    async with serving(handlers=[mail]) as system:
        await system.unsubscribe("recorded-mail")
        assert kinds(system.steps_of("recorded-mail")) == ["stopped"]


async def test_a_hop_is_recorded_on_both_nodes() -> None:
    store = BankStore()
    async with nodes_on(store, MemoryNetwork(), "ab") as (here, there):
        command = Credit(amount=1)
        await here.aggregate(Account, an_id_owned_by(there)).ask(command)
        ours, theirs = here.steps_of(command.command_id), there.steps_of(command.command_id)
    assert kinds(ours) == ["sent", "hop sent", "hop returned", "answered"]
    assert kinds(theirs)[:3] == ["hop served", "taken", "decided"]
    assert [step.peer for step in ours[1:3]] == [there.recording.recorder.node] * 2
    assert theirs[0].peer == here.recording.recorder.node


async def test_a_supervisor_that_gives_up_writes_a_recording(tmp_path: Path) -> None:
    @subscribe(Credited, name="recorded-doomed", max_attempts=9)
    async def doomed(event: Credited) -> None:
        raise ValueError("for ever")

    strict = Supervisor("strict", [doomed], max_restarts=1, within=60, backoff=Backoff(0, 0))
    with pytest.raises(SupervisorGaveUp):
        async with serving(supervisors=[strict], recordings=str(tmp_path)) as system:
            await system.aggregate(Account, "alice").ask(Credit(amount=1))
            await system.wait_stopped()
    (path,) = files_in(tmp_path)
    (recording,) = read(path)
    assert kinds(recording.steps)[-1] == "gave up"
    assert "for ever" in recording.why
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_error_of_the_program_itself_writes_a_recording(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving(LmdbEventStore(tmp_path / "store", EVENTS)) as system:
            await system.aggregate(Account, "alice").ask(Credit(amount=1))
            raise ZeroDivisionError
    (path,) = files_in(tmp_path / "store" / "recordings")
    assert "ZeroDivisionError" in read(path)[0].why


async def test_a_system_that_ends_well_writes_nothing(tmp_path: Path) -> None:
    async with serving(recordings=str(tmp_path)) as system:
        await system.aggregate(Account, "alice").ask(Credit(amount=1))
    assert not files_in(tmp_path)


async def test_a_timeout_writes_one_recording_a_minute_if_asked(tmp_path: Path) -> None:
    store = BankStore()
    async with serving(store, recordings=str(tmp_path), record_timeouts=True) as system:
        store.gate.clear()
        for _ in range(3):
            with pytest.raises(AskTimeout):
                await system.aggregate(Account, "alice").ask(Credit(amount=1), timeout=0.01)
        await until(lambda: [*tmp_path.glob("*.recording")])
        store.gate.set()
    (path,) = files_in(tmp_path)
    assert kinds(read(path)[0].steps).count("timed out") >= 1


async def test_a_directory_keeps_the_latest_recordings(tmp_path: Path) -> None:
    async with serving(recordings=str(tmp_path)) as system:
        written = [system.recording.write() for _ in range(KEPT + 3)]
    assert files_in(tmp_path) == sorted(written[-KEPT:])


async def test_why_a_recording_cannot_be_written_is_said_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for options, remedy in (
        ({}, "recordings='DIRECTORY'"),
        ({"recorder": False}, "recorder=True"),
        ({"recordings": str(tmp_path / "file")}, "FileExistsError"),
    ):
        async with serving(**options) as system:
            with pytest.raises(RecordingNotWritten, match=remedy):
                system.recording.write()


async def test_a_recorder_that_is_off_has_no_steps() -> None:
    async with serving(recorder=False) as system:
        command = Credit(amount=1)
        await system.aggregate(Account, "alice").ask(command)
        assert system.steps_of(command.command_id) == ()
        assert system.recording.steps() == ()


async def test_the_number_of_steps_is_an_option() -> None:
    async with serving(recorder=10) as system:
        for _ in range(50):
            await system.aggregate(Account, "alice").ask(Credit(amount=1))
        assert 10 <= len(system.recording.steps()) <= 40  # a command is one entry, and four steps


async def test_commands_that_wait_are_seen_with_how_far_they_are() -> None:
    store = BankStore()
    async with serving(store) as system:
        alice = system.aggregate(Account, "alice")
        await alice.ask(Credit(amount=1))
        store.gate.clear()
        decided, waiting = Credit(amount=2), Credit(amount=3)
        replies = [alice.ask(decided)]
        await until(lambda: store.commits_asked == 2)
        replies.append(alice.ask(waiting))
        system.aggregate(Account, "bob").tell(told := Credit(amount=4))
        assert [step.kind for step in system.steps_of(decided.command_id)] == ["sent", "taken", "decided"]
        assert [step.kind for step in system.steps_of(waiting.command_id)] == ["sent"]
        assert [step.kind for step in system.steps_of(told.command_id)] == ["sent"]
        store.gate.set()
        await asyncio.gather(*replies)
        await system.settled()
        for command in (decided, waiting, told):
            steps = [step.kind for step in system.steps_of(command.command_id) if step.command_id]
            assert steps == ["sent", "taken", "decided", "answered"]


async def test_a_command_that_holds_the_loop_is_seen_from_another_thread() -> None:
    async with serving(aggregates=[Stuck]) as system:
        command = Hold()
        Stuck.seen = lambda: system.steps_of(command.command_id)
        await system.aggregate(Stuck, "one").ask(command)
    assert Stuck.found == ["sent", "taken"]


def test_a_system_that_was_not_started_has_no_recording() -> None:
    with pytest.raises(SystemNotRunning):
        _ = serving().recording


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_writes_nothing_of_its_parent(tmp_path: Path) -> None:
    with serving(recordings=str(tmp_path)) as system:

        def in_child(said: Any) -> None:
            try:
                system.recording.write()
            except RecordingNotWritten as error:
                said.send(str(error))

        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=in_child, args=(theirs,))
        child.start()
        assert "forked" in ours.recv()
        child.join()
    assert not files_in(tmp_path)


def test_every_kind_was_made_by_a_running_system(request: pytest.FixtureRequest) -> None:
    """Last in this module: the tests before it have had systems make steps of all kinds."""
    if {item.nodeid for item in request.session.items if item.path == request.node.path} - RAN:
        pytest.skip("some tests of this module run in another process")
    assert set(KINDS) <= SEEN, set(KINDS) - SEEN
