"""The flight recorder in memory: bounded, ordered, and without anything but ids, names and numbers."""

import gc
import json
import random
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Sequence
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bank import Credit
from uno_actors import AskTimeout, CommandRejected
from uno_actors.aggregates.envelope import CommandEnvelope
from uno_actors.causality import new_id
from uno_actors.flight_recorder.ring import COMMAND, LONGEST_REASON, FlightRecorder
from uno_actors.flight_recorder.steps import KINDS, Step, steps_about
from uno_actors.store.codec import StreamId

ALICE = StreamId("Account", "alice")


def record(position: int = 1) -> Any:
    return SimpleNamespace(
        event_type="Credited",
        aggregate_type="Account",
        aggregate_id="alice",
        event_id=f"event-{position}",
        correlation_id=f"chain-{position}",
    )


def envelope_of(number: int = 1) -> CommandEnvelope:
    command = Credit(amount=1, command_id=f"command-{number}")
    envelope = CommandEnvelope(command, None)
    envelope.asked = monotonic()
    return envelope


def one_command(recorder: FlightRecorder, number: int = 1, events: int = 1) -> None:
    """A command as the runtime notes it."""
    began = monotonic()
    taken, decided = monotonic(), monotonic()
    last = number + events - 1
    recorder.committed(began, monotonic(), events, number, last)
    recorder.note(
        (
            COMMAND, monotonic(), ALICE, Credit, f"command-{number}", f"chain-{last}",
            began, taken, decided, events, f"event-{last}", range(number, last + 1), events,
        )
    )  # fmt: skip


def test_a_full_ring_forgets_the_oldest_steps() -> None:
    recorder = FlightRecorder(40, "here")
    for number in range(1, 101):
        one_command(recorder, number)
    assert len(recorder.steps()) == 20 * 5  # of twenty commands and their commits
    assert {step.command_id for step in recorder.steps() if step.command_id} == {
        f"command-{number}" for number in range(81, 101)
    }


def test_ten_thousand_steps_of_different_commands_take_a_few_megabytes() -> None:
    recorder = FlightRecorder(10_000, "here")
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(20_000):
            stream = StreamId("Account", f"account-{number}")
            last = record(number)
            times = [monotonic() for _ in range(4)]
            recorder.note(
                (
                    COMMAND, times[0], stream, Credit, new_id(), new_id(), *times[1:], 1, last.event_id,
                    range(number, number + 1), 1,
                )
            )  # fmt: skip
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 8 << 20, f"{used:,} bytes"


def test_the_ring_keeps_neither_commands_nor_errors_alive() -> None:
    recorder = FlightRecorder(100, "here")
    envelope, error = envelope_of(), CommandRejected("no")
    command = envelope.command
    gone = [weakref.ref(command), weakref.ref(error)]
    recorder.sent(ALICE, command, monotonic())
    recorder.ended(ALICE, envelope, error)
    recorder.returned(ALICE, command, monotonic(), None, error)
    recorder.hop("hop sent", ALICE, command, "other", why=error)
    recorder.child("failed", "top", "mail", "handler", error, "restart")
    del command, envelope, error
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_no_value_of_a_command_is_recorded() -> None:
    recorder = FlightRecorder(100, "here")
    one_command(recorder)
    text = json.dumps([step.to_fields() for step in recorder.steps()])
    assert "amount" not in text


def test_a_long_text_of_an_error_is_cut() -> None:
    recorder = FlightRecorder(10, "here")
    recorder.ended(ALICE, envelope_of(), ValueError("x" * 100_000))
    step = recorder.steps()[-1]
    assert len(step.reason or "") < LONGEST_REASON + 50


def test_an_error_whose_text_fails_is_recorded_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit(1)

    recorder = FlightRecorder(10, "here")
    recorder.ended(ALICE, envelope_of(), Mute())
    assert recorder.steps()[-1].reason == "Mute (its text cannot be shown)"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CommandRejected("no"), "rejected"),
        (AskTimeout("a", "b", 1.0, started=False, doing=""), "timed out"),
        (ValueError("x"), "failed"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_the_kind_of_the_end_follows_the_error(error: Exception, kind: str) -> None:
    recorder = FlightRecorder(10, "here")
    recorder.ended(ALICE, envelope_of(), error)
    step = recorder.steps()[-1]
    assert (step.kind, type(error).__name__ in (step.reason or "")) == (kind, True)


def test_every_step_can_be_read_back_from_its_fields() -> None:
    recorder = FlightRecorder(100, "here")
    one_command(recorder, events=3)
    recorder.routed(1, 3, 3)
    last = SimpleNamespace(position=3, record=record(3))
    recorder.handled("mail", monotonic(), 1, last, 3)
    recorder.handler_failed("mail", monotonic(), last, 1, ValueError("no"))
    for step in recorder.steps():
        assert step.kind in KINDS
        assert Step.of_fields(json.loads(json.dumps(step.to_fields()))) == step


def test_a_command_with_several_events_has_the_place_of_the_first() -> None:
    recorder = FlightRecorder(100, "here")
    one_command(recorder, 5, events=3)
    answered = recorder.steps()[-1]
    assert (answered.first, answered.position, answered.events) == (5, 7, 3)


def test_steps_may_be_read_while_other_threads_add_some() -> None:
    recorder = FlightRecorder(2_000, "here")
    stop = threading.Event()

    def add() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            one_command(recorder, number)

    threads = [threading.Thread(target=add) for _ in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(20):
            times = [step.time for step in recorder.steps()]
            assert times == sorted(times)
    finally:
        stop.set()
        sys.setswitchinterval(before)
        for thread in threads:
            thread.join()


# --- which steps are about an id ---


def kinds(steps: Sequence[Step]) -> list[str]:
    return [step.kind for step in steps]


@pytest.fixture
def recorder() -> FlightRecorder:
    """Two commands of one aggregate; the events of both were handled in one call."""
    made = FlightRecorder(100, "here")
    one_command(made, 1)
    one_command(made, 2, events=2)
    made.routed(1, 3, 3)
    made.handled("mail", monotonic(), 1, SimpleNamespace(position=3, record=record(3)), 3)
    return made


ALL_OF_ONE = ["sent", "taken", "decided", "committed", "answered", "routed", "handled"]


@pytest.mark.parametrize("wanted", ["command-2", "event-3", "chain-3"])
def test_a_command_is_found_by_each_of_its_ids(recorder: FlightRecorder, wanted: str) -> None:
    found = recorder.steps_of(wanted)
    assert sorted(kinds(found)) == sorted(ALL_OF_ONE)
    assert {step.command_id for step in found} == {None, "command-2"}


@pytest.mark.parametrize("wanted", ["alice", "Account<alice>"])
def test_an_aggregate_is_found_with_the_steps_of_its_events(recorder: FlightRecorder, wanted: str) -> None:
    assert sorted(kinds(recorder.steps_of(wanted))) == sorted(ALL_OF_ONE[:5] * 2 + ALL_OF_ONE[5:])


def test_a_handler_is_found_by_its_name(recorder: FlightRecorder) -> None:
    assert kinds(recorder.steps_of("mail")) == ["handled"]


def test_an_unknown_id_finds_nothing(recorder: FlightRecorder) -> None:
    assert recorder.steps_of("bob") == ()


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), max_size=12), st.integers(1, 40))
def test_a_step_of_events_is_found_exactly_if_one_of_them_is_of_the_command(
    ranges: list[tuple[int, int]], position: int
) -> None:
    own = Step(
        kind="answered", time=0, node="n", who="a", command_id="c", first=position, position=position + 2
    )
    others = [
        Step(kind="handled", time=number + 1, node="n", who="h", first=first, position=first + more)
        for number, (first, more) in enumerate(ranges)
    ]
    mine = range(position, position + 3)
    expected = [step for step in others if any(at in mine for at in range(step.first, step.position + 1))]  # type: ignore[operator,arg-type]
    assert steps_about([own, *others], "c") == [own, *expected]


def test_ten_thousand_steps_are_searched_in_well_under_a_second() -> None:
    recorder = FlightRecorder(10_000, "here")
    numbers = list(range(1, 3_000))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        one_command(recorder, number)
    began = monotonic()
    assert recorder.steps_of("alice")
    assert monotonic() - began < 5.0
