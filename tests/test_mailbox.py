"""The bounded queue in front of an actor."""

import threading
from collections.abc import Callable
from typing import Any, get_args

import pykka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults import signal_on_its_way
from tests.machine import patience
from uno_actors import Future, MailboxFull
from uno_actors.actors import mailbox as mailbox_module
from uno_actors.actors.ask import Envelope
from uno_actors.actors.dead_messages import KEPT, LOGGED_PER_SECOND, DeadMessages
from uno_actors.actors.mailbox import Mailbox, MailboxPolicy, Overflow, make_mailbox
from uno_actors.actors.pykka import ActorStop, PykkaEnvelope


@pytest.fixture(autouse=True)
def _dead_messages_of_this_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_module, "dead_messages", DeadMessages())


class Greeter:
    def __str__(self) -> str:
        return "Greeter"


GREETER: Any = Greeter()


def ask(message: object = "?") -> tuple[Envelope, Future[Any]]:
    future: Future[Any] = Future()
    return Envelope(message, future), future


def tell(message: object = "!") -> Envelope:
    return Envelope(message)


class Turns:
    def __init__(self, schedule: Callable[[], None]) -> None:
        self.schedule = schedule


def test_messages_come_out_in_the_order_in_which_they_were_put() -> None:
    mailbox = make_mailbox()
    for number in range(3):
        mailbox.add(tell(number))
    assert len(mailbox) == 3
    assert taken(mailbox) == [0, 1, 2]
    assert mailbox.empty()
    assert mailbox.take() is None


def test_a_message_wakes_the_actor_unless_another_already_did() -> None:
    mailbox = make_mailbox()
    seen: list[int] = []
    mailbox.turns = Turns(lambda: seen.append(len(mailbox)))
    mailbox.add(tell())
    mailbox.add(tell())
    assert seen == [1], "the message is there when the actor is woken"
    mailbox.woken = False
    mailbox.add(tell())
    assert seen == [1, 3]


def test_pykka_puts_and_gets_its_own_envelopes() -> None:
    mailbox = make_mailbox()
    future: Future[Any] = Future()
    mailbox.put(PykkaEnvelope("?", reply_to=future))
    envelope = mailbox.get()
    assert (envelope.message, envelope.reply_to) == ("?", future)
    with pytest.raises(IndexError):
        mailbox.get()


def test_a_full_mailbox_answers_an_ask_with_mailbox_full() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=2))
    mailbox.cell = GREETER
    mailbox.add(tell())
    mailbox.add(tell())
    envelope, future = ask()
    mailbox.add(envelope)
    with pytest.raises(MailboxFull, match=r"mailbox of Greeter is full \(2 messages wait\)") as caught:
        future.get(timeout=0)
    assert (caught.value.owner, caught.value.capacity) == ("Greeter", 2)
    assert len(mailbox) == 2
    assert mailbox.dead.count == 0, "who asked knows"


def test_a_full_mailbox_drops_told_messages_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1))
    mailbox.cell = GREETER
    mailbox.add(tell(1))
    mailbox.add(tell("too much"))
    assert mailbox.dead.count == 1
    assert "message dropped" in caplog.text
    assert "actor=Greeter" in caplog.text
    assert "mailbox is full" in caplog.text
    assert taken(mailbox) == [1]


def test_a_mailbox_has_room_again_after_a_message_was_taken() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1))
    mailbox.add(tell(1))
    mailbox.take()
    envelope, future = ask()
    mailbox.add(envelope)
    assert not future.done()


def test_a_stop_signal_is_accepted_by_a_full_mailbox() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1))
    mailbox.add(tell())
    mailbox.add_stop()
    assert len(mailbox) == 2


class Ended:
    """Stands for the signal that a watched actor has ended; no priority function knows it."""


@pytest.mark.parametrize(
    "policy",
    [
        MailboxPolicy(capacity=2, overflow=overflow, priority=by)
        for overflow in get_args(Overflow)
        for by in (None, len)
    ],
    ids=str,
)
def test_a_signal_always_finds_room_and_takes_none_from_messages(policy: MailboxPolicy) -> None:
    """Even if another message is faster to take the room that was made for it."""
    mailbox = make_mailbox(policy)
    mailbox.add(tell("1"))
    with signal_on_its_way(mailbox):
        mailbox.add(tell("2"))
        mailbox.add(tell("3"))
        mailbox.add_signal(Ended())
    mailbox.add_stop()
    assert {type(message) for message in taken(mailbox)} == {str, Ended, ActorStop}
    assert not list(mailbox.dead)
    for _ in range(10):
        mailbox.add_signal(Ended())
        mailbox.take()
        mailbox.signal_taken()
    mailbox.signal_taken()  # the two above
    mailbox.signal_taken()
    assert mailbox.room == 2


async def test_a_stop_signal_comes_after_messages_that_wait_for_room() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="wait"))
    mailbox.add(tell("first"))
    mailbox.add(tell("second"))
    mailbox.add_stop()
    assert [type(message) for message in taken(mailbox)] == [str, str, ActorStop]


def test_the_place_of_a_message_counts_from_one() -> None:
    mailbox = make_mailbox()
    (one, first), (other, second) = ask("same"), ask("same")
    mailbox.add(one)
    mailbox.add(other)
    assert (mailbox.place(first), mailbox.place(second)) == (1, 2)
    mailbox.take()
    assert (mailbox.place(first), mailbox.place(second)) == (None, 1)


def test_closing_answers_all_waiting_asks(caplog: pytest.LogCaptureFixture) -> None:
    mailbox = make_mailbox()
    mailbox.cell = GREETER
    (one, reply), (stop, stopped) = ask(), ask(ActorStop())
    for envelope in (one, tell("lost"), stop, tell(ActorStop())):
        mailbox.add(envelope)
    mailbox.close()
    with pytest.raises(pykka.ActorDeadError, match="Greeter stopped before handling the message"):
        reply.get(timeout=0)
    assert stopped.get(timeout=0) is None, "what was to be stopped has stopped"
    assert mailbox.dead.count == 1
    assert "actor is dead" in caplog.text


def test_a_closed_mailbox_answers_every_ask() -> None:
    mailbox = make_mailbox()
    woken: list[None] = []
    mailbox.turns = Turns(lambda: woken.append(None))
    mailbox.close()
    envelope, reply = ask()
    mailbox.add(envelope)
    with pytest.raises(pykka.ActorDeadError):
        reply.get(timeout=0)
    assert woken == []
    assert mailbox.empty()


def test_closing_skips_an_ask_that_has_timed_out_and_answers_those_behind_it() -> None:
    mailbox = make_mailbox()
    (expired, timed_out), (_, _), (waits, reply) = ask(), ask(), ask()
    timed_out.set_exception(TimeoutError())
    mailbox.add(expired)
    mailbox.add(waits)
    mailbox.close()
    with pytest.raises(pykka.ActorDeadError):
        reply.get(timeout=0)
    with pytest.raises(TimeoutError):
        timed_out.get(timeout=0)


def test_no_ask_is_lost_between_putting_and_closing() -> None:
    """Whichever comes first, the mailbox answers each ask."""
    for _ in range(100):
        mailbox = make_mailbox()
        asks = [ask() for _ in range(20)]
        barrier = threading.Barrier(2)

        def put_all(
            mailbox: Mailbox = mailbox,
            asks: list[tuple[Envelope, Future[Any]]] = asks,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            for envelope, _ in asks:
                mailbox.add(envelope)

        thread = threading.Thread(target=put_all)
        thread.start()
        barrier.wait()
        mailbox.close()
        thread.join()
        assert all(future.done() for _, future in asks)


# --- policies ---


def until_parked(mailbox: Any, count: int = 1) -> None:
    """Wait until ``count`` messages wait for room; the deadline is that of the test."""
    while mailbox.parked < count:
        threading.Event().wait(0.001)


def taken(mailbox: Mailbox) -> list[object]:
    """The messages that the actor would handle, in its order."""
    found = []
    while (envelope := mailbox.take()) is not None:
        found.append(envelope.message)
    return found


def test_drop_oldest_makes_room_for_the_new_message_and_answers_the_oldest_ask() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=2, overflow="drop_oldest"))
    oldest, reply = ask("oldest")
    for envelope in (oldest, tell("second"), tell("third"), tell("fourth")):
        mailbox.add(envelope)
    with pytest.raises(MailboxFull):
        reply.get(timeout=0)
    assert [dead.message for dead in mailbox.dead] == ["second"]
    assert taken(mailbox) == ["third", "fourth"]


def test_drop_oldest_never_drops_a_stop_signal() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="drop_oldest"))
    stopped: Future[Any] = Future()
    mailbox.add_stop(stopped)
    mailbox.add(tell("one"))
    mailbox.add(tell("two"))
    assert not stopped.done()
    assert [dead.message for dead in mailbox.dead] == ["one"], "and it takes no room from others"
    assert [type(message) for message in taken(mailbox)] == [ActorStop, str]


def test_dead_letter_keeps_asks_too_and_answers_them() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="dead_letter"))
    mailbox.cell = GREETER
    mailbox.add(tell("first"))
    late, reply = ask("late")
    mailbox.add(late)
    with pytest.raises(MailboxFull):
        reply.get(timeout=0)
    (dead,) = mailbox.dead
    assert (dead.actor, dead.message, dead.reason) == ("Greeter", "late", "mailbox is full")


def test_wait_lets_an_ask_wait_for_room() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="wait"))
    mailbox.add(tell("first"))
    second, reply = ask("second")
    mailbox.add(second)
    assert not reply.done()
    assert mailbox.place(reply) == 2
    assert taken(mailbox) == ["first", "second"]


def test_wait_refuses_when_as_many_again_wait_for_room() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=2, overflow="wait"))
    replies = []
    for number in range(5):
        envelope, reply = ask(number)
        mailbox.add(envelope)
        replies.append(reply)
    assert [reply.done() for reply in replies] == [False, False, False, False, True]
    with pytest.raises(MailboxFull):
        replies[4].get(timeout=0)


def test_wait_holds_a_thread_that_tells_until_there_is_room() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="wait"))
    mailbox.add(tell("first"))
    thread = threading.Thread(target=mailbox.add, args=[tell("second")])
    thread.start()
    until_parked(mailbox)
    assert thread.is_alive()
    assert mailbox.take() is not None
    thread.join(patience(5))
    assert not thread.is_alive()
    assert taken(mailbox) == ["second"]


def test_wait_gives_up_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_module, "WAIT_SECONDS", 0.01)
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="wait"))
    mailbox.add(tell("first"))
    mailbox.add(tell("second"))
    assert [dead.message for dead in mailbox.dead] == ["second"]
    assert taken(mailbox) == ["first"]


async def test_wait_never_holds_an_event_loop() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="wait"))
    for number in range(3):
        mailbox.add(tell(number))
    assert [dead.message for dead in mailbox.dead] == [2]
    assert taken(mailbox) == [0, 1]


def test_closing_answers_those_that_wait_for_room_and_frees_their_threads() -> None:
    mailbox = make_mailbox(MailboxPolicy(capacity=1, overflow="wait"))
    mailbox.add(tell("first"))
    thread = threading.Thread(target=mailbox.add, args=[tell("second")])
    thread.start()
    until_parked(mailbox)
    mailbox.close()
    thread.join(patience(5))
    assert not thread.is_alive()
    assert [dead.reason for dead in mailbox.dead] == ["actor is dead"] * 2


def test_priorities_go_first_and_equals_in_order_of_arrival_and_stop_signals_last() -> None:
    mailbox = make_mailbox(MailboxPolicy(priority=lambda message: len(str(message))))
    stopped: Future[Any] = Future()
    mailbox.add(tell("ccc"))
    mailbox.add_stop(stopped)
    for message in ("a1", "x", "a2", "y"):
        mailbox.add(tell(message))
    assert mailbox.place(stopped) == 6
    assert taken(mailbox)[:-1] == ["x", "y", "a1", "a2", "ccc"]


def test_a_priority_mailbox_drops_the_oldest_and_not_the_first_in_line() -> None:
    mailbox = make_mailbox(
        MailboxPolicy(capacity=2, overflow="drop_oldest", priority=lambda message: message)
    )
    for number in (9, 1, 5):
        mailbox.add(tell(number))
    assert [dead.message for dead in mailbox.dead] == [9]
    assert taken(mailbox) == [1, 5]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40),
    st.integers(1, 6),
    st.sampled_from(["reject", "drop_oldest", "dead_letter"]),
    st.sampled_from([None, lambda message: message[0]]),
)
def test_every_message_is_taken_answered_or_dead(
    steps: list[tuple[int, bool]], capacity: int, overflow: Any, by: Any
) -> None:
    """Whatever the policy, nothing is lost silently, and never do more messages wait than the bound allows."""
    mailbox = make_mailbox(MailboxPolicy(capacity=capacity, overflow=overflow, priority=by))
    mailbox.dead = DeadMessages()
    handled: list[object] = []
    asked: dict[object, Future[Any]] = {}
    sent: list[object] = []
    for number, (priority, asks) in enumerate(steps):
        message = (priority, number)
        sent.append(message)
        envelope, future = ask(message) if asks else (tell(message), None)
        if future is not None:
            asked[message] = future
        mailbox.add(envelope)
        assert len(mailbox) <= capacity
        if number % 3 == 2 and (envelope := mailbox.take()) is not None:
            handled.append(envelope.message)
    handled += taken(mailbox)
    refused = {message for message, future in asked.items() if future.done()}
    dead = {record.message for record in mailbox.dead}
    assert set(handled) | refused | dead == set(sent)
    assert not set(handled) & (refused | dead)
    assert len(handled) == len(set(handled))


def test_dead_messages_are_all_counted_and_some_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = 7.0
    monkeypatch.setattr("uno_actors.logs.monotonic", lambda: second)
    dead = DeadMessages()
    for number in range(KEPT + 5):
        dead.add("Greeter", number, "mailbox is full")
    assert dead.count == KEPT + 5
    assert len(list(dead)) == KEPT
    assert len(caplog.records) == LOGGED_PER_SECOND
    second = 8.0
    dead.add("Greeter", "one more", "mailbox is full")
    assert f"others_not_logged={KEPT + 5 - LOGGED_PER_SECOND}" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(("capacity", "overflow"), [(0, "reject"), (-1, "wait"), (1, "explode")])
def test_an_invalid_policy_is_refused(capacity: int, overflow: Any) -> None:
    with pytest.raises(
        ValueError,
        match=r"capacity must be a whole number, 1 or more|one of reject, wait, drop_oldest, dead_letter",
    ):
        MailboxPolicy(capacity=capacity, overflow=overflow)
