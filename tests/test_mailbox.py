"""The bounded queue in front of an actor."""

import threading
from typing import Any

import pykka
import pytest

from uno_actors import Future, MailboxFull
from uno_actors._pykka import ActorStop, Envelope
from uno_actors.mailbox import Mailbox


def ask(message: object = "?") -> tuple[Envelope[Any], Future[Any]]:
    future: Future[Any] = Future()
    return Envelope(message, reply_to=future), future


def tell(message: object = "!") -> Envelope[Any]:
    return Envelope(message)


def test_messages_come_out_in_the_order_in_which_they_were_put() -> None:
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put(tell(number))
    assert len(mailbox) == 3
    assert [mailbox.get().message for _ in range(3)] == [0, 1, 2]
    assert mailbox.empty()
    assert mailbox.take() is None
    with pytest.raises(IndexError):
        mailbox.get()


def test_each_message_wakes_the_actor() -> None:
    mailbox = Mailbox()
    seen: list[int] = []
    mailbox.wake = lambda: seen.append(len(mailbox))
    mailbox.put(tell())
    mailbox.put(tell())
    assert seen == [1, 2], "the message is there when the actor is woken"


def test_a_full_mailbox_answers_an_ask_with_mailbox_full() -> None:
    mailbox = Mailbox(capacity=2)
    mailbox.owner = "Greeter"
    mailbox.put(tell())
    mailbox.put(tell())
    envelope, future = ask()
    mailbox.put(envelope)
    with pytest.raises(MailboxFull, match=r"mailbox of Greeter is full \(2 messages wait\)") as caught:
        future.get(timeout=0)
    assert (caught.value.owner, caught.value.capacity) == ("Greeter", 2)
    assert len(mailbox) == 2
    assert mailbox.dropped == 0, "who asked knows"


def test_a_full_mailbox_drops_what_is_told_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    mailbox = Mailbox(capacity=1)
    mailbox.owner = "Greeter"
    mailbox.put(tell(1))
    mailbox.put(tell("too much"))
    assert mailbox.dropped == 1
    assert "message dropped" in caplog.text
    assert "actor=Greeter" in caplog.text
    assert "mailbox is full" in caplog.text
    assert mailbox.get().message == 1


def test_a_mailbox_has_room_again_when_a_message_was_taken() -> None:
    mailbox = Mailbox(capacity=1)
    mailbox.put(tell(1))
    mailbox.get()
    envelope, future = ask()
    mailbox.put(envelope)
    assert not future.done()


def test_a_stop_signal_is_accepted_by_a_full_mailbox() -> None:
    mailbox = Mailbox(capacity=1)
    mailbox.put(tell())
    mailbox.put(tell(ActorStop()))
    assert len(mailbox) == 2


def test_the_place_of_a_message_counts_from_one() -> None:
    mailbox = Mailbox()
    first, second = ask("same")[0], ask("same")[0]
    mailbox.put(first)
    mailbox.put(second)
    assert (mailbox.place(first), mailbox.place(second)) == (1, 2)
    mailbox.get()
    assert (mailbox.place(first), mailbox.place(second)) == (None, 1)


def test_closing_answers_everything_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    mailbox = Mailbox()
    mailbox.owner = "Greeter"
    (one, reply), (stop, stopped) = ask(), ask(ActorStop())
    for envelope in (one, tell("lost"), stop, tell(ActorStop())):
        mailbox.put(envelope)
    mailbox.close()
    with pytest.raises(pykka.ActorDeadError, match="Greeter stopped before handling the message"):
        reply.get(timeout=0)
    assert stopped.get(timeout=0) is None, "what was to be stopped has stopped"
    assert mailbox.dropped == 1
    assert "actor is dead" in caplog.text


def test_a_closed_mailbox_answers_whatever_comes() -> None:
    mailbox = Mailbox()
    woken: list[None] = []
    mailbox.wake = lambda: woken.append(None)
    mailbox.close()
    envelope, reply = ask()
    mailbox.put(envelope)
    with pytest.raises(pykka.ActorDeadError):
        reply.get(timeout=0)
    assert woken == []
    assert mailbox.empty()


def test_closing_passes_over_an_ask_that_has_timed_out_and_answers_those_behind_it() -> None:
    mailbox = Mailbox()
    (expired, timed_out), (_, _), (waits, reply) = ask(), ask(), ask()
    timed_out.set_exception(TimeoutError())
    mailbox.put(expired)
    mailbox.put(waits)
    mailbox.close()
    with pytest.raises(pykka.ActorDeadError):
        reply.get(timeout=0)
    with pytest.raises(TimeoutError):
        timed_out.get(timeout=0)


def test_no_ask_is_lost_between_putting_and_closing() -> None:
    """Whichever comes first: each ask is in the mailbox's answers."""
    for _ in range(100):
        mailbox = Mailbox()
        asks = [ask() for _ in range(20)]
        barrier = threading.Barrier(2)

        def put_all(
            mailbox: Mailbox = mailbox,
            asks: list[tuple[Envelope[Any], Future[Any]]] = asks,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            for envelope, _ in asks:
                mailbox.put(envelope)

        thread = threading.Thread(target=put_all)
        thread.start()
        barrier.wait()
        mailbox.close()
        thread.join()
        assert all(future.done() for _, future in asks)
