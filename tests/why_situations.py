"""Situations in which people ask why: each is brought about in a real system, and the answer is returned."""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bank import (
    EVENTS,
    Account,
    Balance,
    BankStore,
    Credit,
    CreditAndFail,
    Credited,
    Debit,
    Debited,
    credited,
)
from tests.cluster.nodes import an_id_owned_by, nodes_on
from tests.faults import router_is_suspended
from tests.postgres import postgres
from tests.scheduling import CancelLater, CancelNow, Deadline
from tests.waiting import until
from uno_actors import (
    Actor,
    ActorSystem,
    Backoff,
    ChildSpec,
    Cluster,
    Command,
    Explanation,
    Finding,
    HandlerContext,
    HandlerNameWarning,
    Projection,
    Supervisor,
)
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.errors import AskTimeout, NotServed, SystemNotRunning
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.inquiry.inquiry import inquire
from uno_actors.ops.sources import StoreSource
from uno_actors.store.codec import StreamId
from uno_actors.store.port import EventStore
from uno_actors.store.records import PAGE, StoredRecord
from uno_actors.topics import TopicPattern
from uno_stores import InMemoryEventStore, LmdbEventStore

Make = Callable[[Path], Awaitable[Explanation]]


@dataclass(frozen=True)
class Situation:
    """A situation, and the answer that people get in it.

    Attributes:
        name: What has happened.
        expected: The answer, with what differs from run to run normalised by `normalised`.
        make: Brings it about, and asks.
    """

    name: str
    expected: str
    make: Make


SITUATIONS: list[Situation] = []


def situation(expected: str) -> Callable[[Make], Make]:
    """Mark a function that brings a situation about and asks."""

    def add(make: Make) -> Make:
        SITUATIONS.append(Situation(make.__name__, expected.strip("\n"), make))
        return make

    return add


_CHANGES = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME"),
    (r"(bank|shop)@(?:(\w)@)?[\w.-]+:\d+", r"NODE\2"),
    (rf"\bon {re.escape(socket.gethostname())}\b", "on HOST"),
    (r"process \d+", "process N"),
    (r"kill -9 \d+", "kill -9 N"),
    (r"\d[\d,]*(?:\.\d+)? (?:s|min|h|days)\b(?: \d+ (?:s|min)\b)*", "N s"),
    (r"\S*/(\w+\.py):\d+ in", r"\1:LINE in"),
    (r"[0-9a-f]{32}", "ID"),
    (r"lmdb:\S*/store", "lmdb:store"),
    (r"[\d,]+ events(/s| and N s behind, because it works)", r"N events\1"),
)


def normalised(answer: Explanation) -> str:
    """The text of an answer, without what differs from run to run."""
    text = str(answer)
    for pattern, replacement in _CHANGES:
        text = re.sub(pattern, replacement, text)
    return text


# --- what the situations are made of ---


class Handling:
    """A handler that fails, or blocks, as it is told."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = 0

    async def take(self, event: Credited) -> None:
        if event.amount in self.bad:
            raise ValueError(f"no stamp for {event.amount}")

    def block(self, event: Credited) -> None:
        self.begun += 1
        self.gate.wait()

    def spec(self, name: str = "mail", **options: Any) -> HandlerSpec:
        return HandlerSpec(name, self.take, Credited, **{"start": "earliest", **options})

    def blocking(self, name: str = "mail", **options: Any) -> HandlerSpec:
        return HandlerSpec(name, self.block, Credited, **{"start": "earliest", **options})


SLOW = {"max_restarts": None, "backoff": Backoff(initial=60, max=60)}
"""Rules of a supervisor that waits a minute before it restarts a child."""


def bank(store: EventStore | str, *handlers: Any, **options: Any) -> ActorSystem:
    """The bank's system; its handlers come under the supervisor ``post``."""
    rules = options.pop("rules", {"max_restarts": None, "backoff": Backoff(initial=0.0, max=0.0)})
    supervisors = [Supervisor("post", handlers, **rules)] if handlers else []
    return ActorSystem(
        store, aggregates=options.pop("aggregates", [Account]), handlers=[], supervisors=supervisors, name="bank",
        event_registry=EVENTS, **options,
    )  # fmt: skip


async def credit(
    system: ActorSystem, amount: int, command_id: str | None = None, name: str = "alice"
) -> None:
    await system.aggregate(Account, name).ask(Credit(amount=amount, command_id=command_id))


# --- commands that are recorded ---


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail has handled it.
""")
async def a_recorded_command_is_done(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec()) as system:
        await credit(system, 1, "c")
        await system.settled()
        return await system.why("c")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
├─ audit has handled it.
└─ mail has not handled it: it is 1 event and N s behind, because it is paused by ada since TIME, with the note "the printer is broken".
      To resume it, in the program: await system.resume('mail')
""")  # noqa: E501
async def a_handler_is_paused_with_a_note(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec(), Handling().spec("audit")) as system:
        await system.pause("mail", by="ada", note="the printer is broken")
        await credit(system, 1, "c")
        await system.settled()
        return await system.why("c")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail has failed at it 1 of 5 times and tries again in N s: ValueError: no stamp for 1.
""")
async def a_handler_backs_off_after_an_error(_: Path) -> Explanation:
    async with bank(BankStore(), Handling(1).spec(), rules=SLOW) as system:
        await credit(system, 1, "c")
        await until(lambda: system.statistics().supervisors["post"].restarting)
        return await system.why("c")


@situation("""
Command d is recorded as Credited at position 2, version 2 of Account<alice>, at TIME.
└─ mail has not handled it: it is 2 events and N s behind, because it has failed at position 1, 1 of 5 times and tries again in N s: ValueError: no stamp for 1.
""")  # noqa: E501
async def a_handler_has_failed_at_an_event_before(_: Path) -> Explanation:
    async with bank(BankStore(), Handling(1).spec(), rules=SLOW) as system:
        await credit(system, 1, "c")
        await credit(system, 2, "d")
        await until(lambda: system.statistics().supervisors["post"].restarting)
        return await system.why("d")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail has given it up after 2 attempts, the last at TIME: ValueError: no stamp for 1. It is one of its dead letters.
      To see the traceback, in the program: await system.store.dead_letters('mail')
      To try it once more, when its cause is mended, in the program: await system.retry_dead_letters('mail', [1])
""")
async def its_event_is_a_dead_letter(_: Path) -> Explanation:
    async with bank(BankStore(), Handling(1).spec(max_attempts=2)) as system:
        await credit(system, 1, "c")
        await system.settled()
        return await system.why("c")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail starts at 'latest': it began after position 1, and never gets this event.
      To give mail all events after position 0, in the program: await system.reset('mail', 0)
""")
async def its_event_is_older_than_the_handler(_: Path) -> Explanation:
    store = BankStore()
    async with bank(store) as system:
        await credit(system, 1, "c")
    async with bank(store, Handling().spec(start="latest")) as system:
        await credit(system, 2, "d")
        await system.settled()
        return await system.why("c")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ Not for it: audit takes Debited, mail takes Credited, topic bank.debited.
""")
async def no_handler_takes_its_topic(_: Path) -> Explanation:
    mail = HandlerSpec("mail", Handling().take, topic_pattern=TopicPattern("bank.debited"), start="earliest")
    async with bank(BankStore(), mail, HandlerSpec("audit", Handling().take, Debited)) as system:
        await credit(system, 1, "c")
        await system.settled()
        return await system.why("c")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ No handler has run on this store.
""")
async def no_handler_was_ever_there(_: Path) -> Explanation:
    async with bank(BankStore()) as system:
        await credit(system, 1, "c")
        return await system.why("c")


@situation("""
Command d is recorded as Credited at position 2, version 2 of Account<alice>, at TIME.
└─ mail has not handled it: it is 2 events and N s behind, because it has been at position 1 for N s, now at why_situations.py:LINE in block.
""")  # noqa: E501
async def a_handler_has_been_at_one_line_for_long(_: Path) -> Explanation:
    mail = Handling()
    mail.gate.clear()
    async with bank(BankStore(), mail.blocking()) as system:
        await credit(system, 1, "c")
        await credit(system, 2, "d")
        await until(lambda: mail.begun)
        await asyncio.sleep(1.1)  # it must have taken long
        try:
            return await system.why("d")
        finally:
            mail.gate.set()


@situation("""
Command d is recorded as Credited at position 2, version 2 of Account<alice>, at TIME.
└─ mail has not handled it: it is 2 events and N s behind, because it has been at position 1 for N s, now at why_situations.py:LINE in reach.
""")  # noqa: E501
async def a_handler_awaits_what_does_not_come_after_its_turn_is_over(_: Path) -> Explanation:
    post_office = asyncio.Event()

    async def reach(event: Credited) -> None:
        await post_office.wait()

    async with bank(BankStore(), HandlerSpec("mail", reach, Credited, start="earliest")) as system:
        await system.settled()
        await credit(system, 1, "c")
        await credit(system, 2, "d")
        await until(lambda: system.statistics().handlers["mail"].state == "catching up")
        try:
            return await system.why("d")
        finally:
            post_office.set()


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail has been handling it for N s, now at why_situations.py:LINE in block.
""")
async def a_handler_is_at_its_event_now(_: Path) -> Explanation:
    mail = Handling()
    mail.gate.clear()
    async with bank(BankStore(), mail.blocking()) as system:
        await credit(system, 1, "c")
        await until(lambda: mail.begun)
        try:
            return await system.why("c")
        finally:
            mail.gate.set()


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail has not handled it: it is 1 event and N s behind, because its supervisor inner gave up: mail failed again after 0 restarts within N s.
      To start it again, in the program: await system.supervisor('inner').restart_child('mail')
""")  # noqa: E501
async def the_supervisor_of_a_handler_gave_up(_: Path) -> Explanation:
    inner = Supervisor("inner", [Handling(1).spec()], max_restarts=0)
    outer = Supervisor("outer", [inner], max_restarts=None, backoff=Backoff(initial=60, max=60))
    system = ActorSystem(
        BankStore(),
        aggregates=[Account],
        handlers=[],
        supervisors=[outer],
        name="bank",
        event_registry=EVENTS,
    )
    async with system:
        await credit(system, 1, "c")
        await until(lambda: system.statistics().supervisors["inner"].state == "gave up")
        return await system.why("c")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail has not handled it: it is 1 event and N s behind, because it was stopped.
      To start it again, in the program: await system.supervisor('post').restart_child('mail')
""")
async def a_handler_was_stopped(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec()) as system:
        await system.supervisor("post").terminate_child("mail")
        await credit(system, 1, "c")
        return await system.why("c")


@situation("""
Command c is recorded as Credited at position 10001, version 1 of Account<alice>, at TIME.
└─ mail has not handled it: it is N events and N s behind, because it works along at N events/s, ready in about N s.
""")
async def a_handler_catches_up(_: Path) -> Explanation:
    store = BankStore()
    async with bank(store) as system:
        for _number in range(20):
            await store.append(*credited(*range(500)))
        await credit(system, 1, "c")

    async def slowly(event: Credited) -> None:
        await asyncio.sleep(0.001)

    async with bank(store, HandlerSpec("mail", slowly, Credited, start="earliest")) as system:
        await until(lambda: system.statistics().handlers["mail"].position > 10)
        return await system.why("c")


@situation("""
View sum is 3 events and N s behind, at position 0, in process N (NODE), because it has been at position 1 for N s, now at why_situations.py:LINE in handle.
""")  # noqa: E501
async def a_view_is_rebuilt(_: Path) -> Explanation:
    gate = asyncio.Event()
    gate.set()

    class Sum(Projection[Credited]):
        async def handle(self, event: Credited) -> None:
            await gate.wait()
            self.view.put("sum", await self.view.get("sum", 0) + event.amount)

    store = BankStore()
    async with bank(store, HandlerSpec("sum", Sum, Credited)) as system:
        for number in range(3):
            await credit(system, number + 1)
        await system.settled()
        gate.clear()
        await system.reset("sum", "earliest")
        await asyncio.sleep(1.2)
        try:
            return await system.why("sum")
        finally:
            gate.set()


@situation("""
View sum has come to the end of the log, position 1, in process N (NODE).
""")
async def a_view_is_up_to_date(_: Path) -> Explanation:
    class Sum(Projection[Credited]):
        async def handle(self, event: Credited) -> None:
            self.view.put("sum", await self.view.get("sum", 0) + event.amount)

    async with bank(BankStore(), HandlerSpec("sum", Sum, Credited)) as system:
        await credit(system, 1)
        await system.settled()
        return await system.why("sum")


@situation("""
Handler mail has come to the end of the log, position 3, in process N (NODE).
└─ 2 dead letters; the last is Credited at position 2, given up at TIME: ValueError: no stamp for 2.
      To see the traceback, in the program: await system.store.dead_letters('mail')
      To try it once more, when its cause is mended, in the program: await system.retry_dead_letters('mail', [2])
""")
async def a_handler_with_dead_letters(_: Path) -> Explanation:
    async with bank(BankStore(), Handling(1, 2).spec(max_attempts=1)) as system:
        for amount in (1, 2, 3):
            await credit(system, amount)
        await system.settled()
        return await system.why("mail")


@situation("""
Handler mail is 1 event and N s behind, at position 0, in process N (NODE), because the router of process N, which hands out events, has failed and is restarted: OSError: the disk is gone.
""")  # noqa: E501
async def the_router_has_failed(_: Path) -> Explanation:
    store = BankStore()
    async with bank(store, Handling().spec()) as system:
        await system.settled()
        store.read_log_errors = [OSError("the disk is gone") for _ in range(100)]
        await credit(system, 1)
        await until(lambda: len(store.read_log_errors) < 99)  # it was restarted once, and waits now
        await until(lambda: router_is_suspended(system))
        found = await system.why("mail")
        store.read_log_errors.clear()
        return found


# --- a store alone ---


async def of_store(path: Path, wanted: str) -> Explanation:
    """What a person gets who has nothing but the URL of a store."""
    async with LmdbEventStore(path / "store", EVENTS) as store:
        return await inquire(StoreSource(store, f"lmdb:{path / 'store'}"), wanted)


@situation("""
Command d is recorded as Credited at position 2, version 2 of Account<alice>, at TIME.
├─ audit has not handled it: it is 2 events and N s behind, because it is paused by ada since TIME.
│     To resume it: uno-actors handlers resume audit --store lmdb:store
└─ mail has not handled it: it is 1 event and N s behind, because no process runs it: start the program that has it.
""")
async def no_process_runs(path: Path) -> Explanation:
    async with bank(f"lmdb:{path / 'store'}", Handling().spec(), Handling().spec("audit")) as system:
        await system.pause("audit", by="ada", note="")
        await credit(system, 1, "c")
        await until(lambda: system.statistics().handlers["mail"].position == 1)
    async with bank(f"lmdb:{path / 'store'}") as system:
        await credit(system, 2, "d")
    return await of_store(path, "d")


@situation("""
Handler mail is 1 event and N s behind, at position 1, because no process runs it: start the program that has it.
""")
async def a_handler_runs_nowhere(path: Path) -> Explanation:
    async with bank(f"lmdb:{path / 'store'}", Handling().spec()) as system:
        await credit(system, 1, "c")
        await system.settled()
    async with bank(f"lmdb:{path / 'store'}") as system:
        await credit(system, 2, "d")
    return await of_store(path, "mail")


@situation("""
Handler receipt is 2 events and N s behind, at position 1, because no process runs it: bank in process N does not have it. Perhaps it has another name now: receipts is new, and began after position 2.
   To give receipts all events after position 1: uno-actors handlers replay receipts --from 1 --store lmdb:store
   If the program no longer has it: uno-actors handlers forget receipt --store lmdb:store
""")  # noqa: E501
async def a_handler_has_another_name_now(path: Path) -> Explanation:
    async with bank(f"lmdb:{path / 'store'}", Handling().spec("receipt")) as system:
        await credit(system, 1, "c")
        await system.settled()
    async with bank(f"lmdb:{path / 'store'}") as system:
        await credit(system, 2, "d")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HandlerNameWarning)
        async with bank(f"lmdb:{path / 'store'}", Handling().spec("receipts", start="latest")) as system:
            await credit(system, 3, "e")
            await system.settled()
            return await system.why("receipt")


# --- commands under way ---


@asynccontextmanager
async def working(path: Path, what: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with a system on the store in which commands of one aggregate wait; see `tests.why_worker`."""
    command = sys.executable, "-m", "tests.why_worker", f"lmdb:{path / 'store'}", what
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # the situation has killed it
            process.kill()
        await process.wait()


@situation("""
Credit last waits in the mailbox of Account<alice>, in process N (NODE), at place 2 of 2, behind Balance, which has been running for N s, now at why_worker.py:LINE in tell_balance. It was asked N s ago.
   A method of an aggregate must not wait or compute for long: move that into a handler, and send a command with the result
""")  # noqa: E501
async def a_command_waits_behind_one_that_holds_the_loop(path: Path) -> Explanation:
    async with working(path, "held"):
        return await of_store(path, "last")


@situation("""
Balance heavy is being decided by Account<alice>, in process N (NODE), for N s, now at why_worker.py:LINE in tell_balance. Until it ends, this process handles nothing else on its event loop.
   A method of an aggregate must not wait or compute for long: move that into a handler, and send a command with the result
""")  # noqa: E501
async def a_command_is_being_decided(path: Path) -> Explanation:
    async with working(path, "held"):
        return await of_store(path, "heavy")


@situation("""
Aggregate Account<alice> is at version 1; its last event is Credited at position 1, of TIME, recorded by command first.
└─ It is in the memory of process N (NODE) and is deciding Balance for N s, now at why_worker.py:LINE in tell_balance; 2 commands wait behind it.
      A method of an aggregate must not wait or compute for long: move that into a handler, and send a command with the result
""")  # noqa: E501
async def an_aggregate_holds_the_loop(path: Path) -> Explanation:
    async with working(path, "held"):
        return await of_store(path, "Account/alice")


@situation("""
Credit last waits in the mailbox of Account<alice>, in process N (NODE), at place 2 of 2, behind Credit, because the program has held the event loop of the process for N s, now at why_worker.py:LINE in main. It was asked N s ago.
""")  # noqa: E501
async def the_loop_is_held_by_other_code(path: Path) -> Explanation:
    async with working(path, "blocked"):
        return await of_store(path, "last")


@situation("""
Handler mail is 1 event and N s behind, at position 1, because the process that runs it, process N, does not answer: no answer within N s; it hangs, or was stopped.
   If it hangs, end it on its machine; another process takes over: kill -9 N
Not asked: process N: no answer within N s; it hangs, or was stopped
""")  # noqa: E501
async def a_process_hangs(path: Path) -> Explanation:
    async with working(path, "stopped"):
        async with LmdbEventStore(path / "store", EVENTS) as store:
            await store.append(*credited(2))
        return await of_store(path, "mail")


@situation("""
Credit c was decided by Account<alice>, in process N (NODE); its events have waited N s for the store.
""")
async def a_command_was_decided_and_the_store_is_slow(_: Path) -> Explanation:
    store = BankStore()
    async with bank(store) as system:
        store.gate.clear()
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1, command_id="c"))
        await until(lambda: store.commits_asked)
        try:
            return await system.why("c")
        finally:
            store.gate.set()
            await reply


class SlowToRead(BankStore):
    """Reads no stream while its ``reading`` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = asyncio.Event()
        self.asked = 0

    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        self.asked += 1
        await self.reading.wait()
        return await super().read_stream(stream, after_version, limit)


@situation("""
Credit c waits in the mailbox of Account<alice>, in process N (NODE), at place 2 of 2, behind Balance, because it is being loaded. It was asked N s ago.
""")  # noqa: E501
async def a_command_waits_until_its_aggregate_is_loaded(_: Path) -> Explanation:
    store = SlowToRead()
    async with bank(store) as system:
        first = system.aggregate(Account, "alice").ask(Balance())
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1, command_id="c"))
        await until(lambda: store.asked)
        try:
            return await system.why("c")
        finally:
            store.reading.set()
            await first
            await reply


@situation("""
Credit c was not handled by Account<alice>, in process N (NODE): the time of its sender was over before its turn came.
""")
async def the_time_of_a_command_was_over(_: Path) -> Explanation:
    store = SlowToRead()
    async with bank(store) as system:
        reply = system.aggregate(Account, "alice").ask(Credit(amount=1, command_id="c"), timeout=0.05)
        try:
            await reply
        except AskTimeout:
            return await system.why("c")
        finally:
            store.reading.set()
    raise AssertionError


@situation("""
Debit c was told to Account<alice@0> and was not handled: CommandRejected: the balance is 0, at TIME, in process N.
""")
async def a_command_was_told_and_rejected(_: Path) -> Explanation:
    async with bank(BankStore()) as system:
        system.aggregate(Account, "alice").tell(Debit(amount=5, command_id="c"))
        await until(system.dead_messages)
        return await system.why("c")


@situation("""
Debit c-17 was rejected by Account<alice>, in process N (NODE), at TIME: CommandRejected: the balance is 0.
""")
async def a_command_was_asked_and_rejected(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec()) as system:
        try:
            await system.aggregate(Account, "alice").ask(Debit(amount=5, command_id="c-17"))
        except Exception:  # noqa: BLE001
            return await system.why("c-17")
    raise AssertionError


@situation("""
Balance c was answered by Account<alice>, in process N (NODE), at TIME; it has recorded nothing.
""")
async def a_command_has_recorded_nothing(_: Path) -> Explanation:
    async with bank(BankStore()) as system:
        await system.aggregate(Account, "alice").ask(Balance(command_id="c"))
        return await system.why("c")


@situation("""
CreditAndFail c has failed at Account<alice>, in process N (NODE), at TIME: ZeroDivisionError: after the event.
""")
async def a_command_has_failed(_: Path) -> Explanation:
    async with bank(BankStore()) as system:
        with contextlib.suppress(ZeroDivisionError):
            await system.aggregate(Account, "alice").ask(CreditAndFail(amount=1, command_id="c"))
        return await system.why("c")


@situation("""
Nothing is known of 'c' here. Looked through: 0 events, 0 handlers, 1 running process. A command that was rejected, or that recorded nothing, is not in the log; processes keep their latest steps.
└─ Ids are those of a command, an event or a correlation (32 hexadecimal digits, or your own), Type/id of an aggregate, the key of a schedule, or the name of a handler, a view, an actor or a supervisor.
""")  # noqa: E501
async def the_recorder_is_off(_: Path) -> Explanation:
    async with bank(BankStore(), recorder=False) as system:
        await system.aggregate(Account, "alice").ask(Balance(command_id="c"))
        return await system.why("c")


@situation("""
Command c1 is recorded as Credited at position 2, version 2 of Account<alice>, at TIME.
├─ Sent again, it would not be recognised: 2 events of Account<alice> follow, and the system remembers the commands of 2. Give since= to ask.
└─ No handler has run on this store.
""")  # noqa: E501
async def a_command_is_too_far_back_to_be_recognised(_: Path) -> Explanation:
    async with bank(BankStore(), remember_commands=2) as system:
        for number in range(4):
            await credit(system, 1, f"c{number}")
        return await system.why("c1")


# --- nodes of a cluster ---


@situation("""
Credit c was sent to node NODEb, the owner of Account<alice>, N s ago, which has not answered yet.
Credit c was decided by Account<alice>, in process N (NODEb); its events have waited N s for the store.
""")
async def another_node_decided_a_command_and_the_store_is_slow(_: Path) -> Explanation:
    store = BankStore()
    async with nodes_on(store, MemoryNetwork(), ("bank@a", "bank@b")) as (a, b):
        there = an_id_owned_by(b)
        store.gate.clear()
        reply = a.aggregate(Account, there).ask(Credit(amount=1, command_id="c"))
        await until(lambda: store.commits_asked)
        try:
            return renamed(await a.why("c"), there)
        finally:
            store.gate.set()
            await reply


@situation("""
Credit c has waited for N s in process N (NODEa) for a node that serves it for Account<alice>.
   To have it handled: start a node that serves Account, with the role 'aggregates'
""")
async def no_node_serves_a_command(_: Path) -> Explanation:
    async with nodes_on(
        BankStore(), MemoryNetwork(), ("bank@a",), cluster={"roles": ("handlers",)}, stop_timeout=0.5
    ) as (a,):
        reply = a.aggregate(Account, "alice").ask(Credit(amount=1, command_id="c"), timeout=20)
        await asyncio.sleep(0)
        explanation = await a.why("c")
    with contextlib.suppress(SystemNotRunning, NotServed):
        await reply
    return explanation


@asynccontextmanager
async def beside_a_stopped_node(path: Path) -> AsyncIterator[ActorSystem]:
    """A node on a store on which another one, which has a handler and half of the aggregates, is stopped."""
    handlers = [Handling().spec("audit")]
    async with working(path, "node") as process:
        cluster = Cluster(name="first", ttl=60)
        async with bank(f"lmdb:{path / 'store'}", *handlers, cluster=cluster, stop_timeout=1) as system:
            await until(lambda: is_stopped(process))
            yield system


def is_stopped(process: asyncio.subprocess.Process) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@situation("""
Handler mail is 1 event and N s behind, at position 1, on node bank@second, because the node that runs it, bank@second, does not answer: the request could not be sent to node ID within N s.
   If it hangs, end it on HOST; another process takes over: kill -9 N
Not asked: process N: no answer within N s; it hangs, or was stopped
""")  # noqa: E501
async def the_node_that_runs_a_handler_answers_no_more(path: Path) -> Explanation:
    async with beside_a_stopped_node(path) as system:
        await system.store.append(*credited(1))
        return await system.why("mail")


@situation("""
Credit c was sent to node bank@second, the owner of Account<alice>, N s ago, which does not answer: the request could not be sent to node ID within N s.
   If it hangs, end it on HOST; another process takes over: kill -9 N
Not asked: process N: no answer within N s; it hangs, or was stopped
""")  # noqa: E501
async def a_command_was_sent_to_a_node_that_answers_no_more(path: Path) -> Explanation:
    async with beside_a_stopped_node(path) as system:
        member = next(each for each in system.cluster.members() if each.name != system.cluster.name)
        names = (f"account-{number}" for number in itertools.count())
        there = next(each for each in names if system.cluster.owner(Account, each) == member)
        reply = system.aggregate(Account, there).ask(Credit(amount=1, command_id="c"))
        await asyncio.sleep(0)
        explanation = renamed(await system.why("c"), there)
        os.kill(member.process, signal.SIGKILL)
        await reply  # now it goes to this node
        return explanation


def renamed(found: Explanation, name: str) -> Explanation:
    """As if the aggregate, whose id decides where it is, were alice."""

    def of(finding: Finding) -> Finding:
        return replace(
            finding, says=finding.says.replace(f"<{name}>", "<alice>"), below=tuple(map(of, finding.below))
        )

    return replace(found, findings=tuple(map(of, found.findings)))


# --- events and correlations ---


class Forwarded(Command[int]):
    amount: int


@asynccontextmanager
async def chained() -> AsyncIterator[ActorSystem]:
    """A credit of alice has a credit of bob follow, by a command that a handler sends."""

    async def forward(event: Credited, context: HandlerContext) -> None:
        if event.aggregate_id == "alice":
            await context.system.aggregate(Account, "bob").ask(
                Credit(amount=event.amount, command_id="second")
            )

    async with bank(BankStore(), HandlerSpec("forward", forward, Credited, start="earliest")) as system:
        first = Credit(amount=1, command_id="first", correlation_id="transfer")
        await system.aggregate(Account, "alice").ask(first)
        await system.settled()
        yield system


@situation("""
Event ID is Credited at position 2, version 1 of Account<bob>, recorded at TIME, topic bank.credited.
├─ It was caused by command second, and that by Credited at position 1, version 1 of Account<alice> (ID).
└─ forward has handled it.
""")
async def an_event_has_caused_another(_: Path) -> Explanation:
    async with chained() as system:
        (event,) = await system.store.get_events("bob")
        return await system.why(event.event_id)


@situation("""
Command first is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
├─ forward has handled it.
└─ It has caused 1 event:
   │  All of it as a tree, in the program: print(await system.store.causal_tree('transfer'))
   └─ Credited at position 2, version 1 of Account<bob>.
""")
async def a_command_has_caused_others(_: Path) -> Explanation:
    async with chained() as system:
        return await system.why("first")


@situation("""
Correlation transfer has 2 events, from TIME to TIME.
│  All of it as a tree, in the program: print(await system.store.causal_tree('transfer'))
├─ Credited at position 1, version 1 of Account<alice>.
└─ Credited at position 2, version 1 of Account<bob>.
""")
async def a_correlation(_: Path) -> Explanation:
    async with chained() as system:
        return await system.why("transfer")


# --- aggregates and schedules ---


@situation("""
Aggregate Account<alice> is at version 1; its last event is Credited at position 1, of TIME, recorded by command c.
├─ It is in the memory of process N (NODE) at version 1, idle for N s.
└─ It has a snapshot of version 1, taken at TIME.
""")
async def an_aggregate_is_idle(_: Path) -> Explanation:
    async with bank(BankStore(), snapshot_every=1) as system:
        await credit(system, 1, "c")
        await until(lambda: system.statistics().snapshots)
        return await system.why("Account/alice")


@situation("""
Aggregate Account<alice> is at version 1; its last event is Credited at position 1, of TIME, recorded by command c.
└─ No process runs a system on this store.
""")
async def an_aggregate_is_in_the_memory_of_no_process(path: Path) -> Explanation:
    async with bank(f"lmdb:{path / 'store'}") as system:
        await credit(system, 1, "c")
    return await of_store(path, "alice")


@situation("""
Aggregate Account<alice> is at version 1; its last event is Credited at position 1, of TIME, recorded by command c.
└─ No process serves Account; those that run serve Deadline.
""")
async def an_aggregate_is_served_by_no_process(path: Path) -> Explanation:
    async with bank(f"lmdb:{path / 'store'}") as system:
        await credit(system, 1, "c")
    async with bank(f"lmdb:{path / 'store'}", aggregates=[Deadline]) as system:
        return await system.why("alice")


@situation("""
Aggregate Deadline<17> is at version 1; its last event is uno_actors.Scheduled at position 1, of TIME, recorded by command ID.
├─ It is in the memory of process N (NODE) at version 1, idle for N s.
└─ CancelNow to Deadline<17>, scheduled under the key 'payment', is due at TIME, in N s.
      To have it not sent, in the program: await ScheduleControl(system.store).cancel('ID')
""")  # noqa: E501
async def an_aggregate_has_a_schedule(_: Path) -> Explanation:
    async with ActorSystem(InMemoryEventStore(), aggregates=[Deadline], handlers=[], name="shop") as system:
        await system.aggregate(Deadline, "17").ask(CancelLater(minutes=15))
        await system.settled()
        return await system.why("Deadline/17")


@situation("""
CancelNow to Deadline<17>, scheduled under the key 'payment', is due at TIME, in N s.
   To have it not sent, in the program: await ScheduleControl(system.store).cancel('ID')
""")
async def a_schedule_is_due_later(_: Path) -> Explanation:
    async with ActorSystem(InMemoryEventStore(), aggregates=[Deadline], handlers=[], name="shop") as system:
        await system.aggregate(Deadline, "17").ask(CancelLater(minutes=15))
        await system.settled()
        return await system.why("payment")


@asynccontextmanager
async def shop(store: EventStore | None = None, **options: Any) -> AsyncIterator[ActorSystem]:
    system = ActorSystem(
        store or InMemoryEventStore(), aggregates=[Deadline], handlers=[], name="shop", **options
    )
    async with system:
        yield system


PAST = datetime(2024, 5, 1, 12, tzinfo=UTC)


@situation("""
CancelNow to Deadline<17>, scheduled under the key 'reminder', was due at TIME, N s ago, and was not sent.
└─ The scheduler has not run on this store yet.
      To run it: let one system have scheduler=True; shop run without it
""")
async def a_schedule_is_late_and_no_scheduler_runs(_: Path) -> Explanation:
    async with shop(scheduler=False) as system:
        await system.schedule(CancelNow(), to=(Deadline, "17"), at=PAST, key="reminder")
        return await system.why("reminder")


@situation("""
CancelNow to Deadline<17>, scheduled under the key 'reminder', was due at TIME and was sent, at TIME. It has recorded CancelledNow at position 3, version 1 of Deadline<17>.
   More of it, in the program: await system.why('ID.20240501T120000000000')
""")  # noqa: E501
async def a_scheduled_command_was_sent(_: Path) -> Explanation:
    async with shop() as system:
        await system.schedule(CancelNow(), to=(Deadline, "17"), at=PAST, key="reminder")
        await system.settled()
        return await system.why("reminder")


@situation("""
CancelNow to Deadline<17>, scheduled under the key 'reminder', was due at TIME and was sent, at TIME. It has recorded nothing: it was refused, or had nothing to record.
   More of it, in the program: await system.why('ID.20240501T120000000000')
""")  # noqa: E501
async def a_scheduled_command_was_refused(_: Path) -> Explanation:
    async with shop() as system:
        await system.schedule(CancelNow(note="rejected"), to=(Deadline, "17"), at=PAST, key="reminder")
        await system.settled()
        return await system.why("reminder")


@situation("""
CancelNow to Deadline<17>, scheduled under the key 'reminder', was due at TIME, and was not sent by the handler uno_actors.scheduler, because it is paused by ada since TIME.
   To resume it, in the program: await system.resume('uno_actors.scheduler')
""")  # noqa: E501
async def the_scheduler_is_paused(_: Path) -> Explanation:
    async with shop(scheduler=True) as system:
        await system.settled()
        await system.pause("uno_actors.scheduler", by="ada", note="")
        await system.schedule(CancelNow(), to=(Deadline, "17"), at=PAST, key="reminder")
        await until(lambda: system.statistics().scheduler.fired)
        return await system.why("reminder")


# --- partitions ---


@situation("""
Handler mail has 4 partitions; 3 of them are up to date.
└─ Handler mail@3of4 is 2 events and N s behind, at position 0, in process N (NODE), because it has failed at position 1, 1 of 5 times and tries again in N s: ValueError: no stamp for 1.
""")  # noqa: E501
async def a_partition_lags(_: Path) -> Explanation:
    async with bank(BankStore(), Handling(1).spec(partitioned=4), rules=SLOW) as system:
        await credit(system, 1, "c", "alice")
        await credit(system, 2, "d", "bob")
        await until(lambda: system.statistics().supervisors["post"].restarting)
        return await system.why("mail")


@situation("""
Command c is recorded as Credited at position 1, version 1 of Account<alice>, at TIME.
└─ mail@3of4 has handled it.
""")
async def an_event_is_in_one_partition(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec(partitioned=4)) as system:
        await credit(system, 1, "c", "alice")
        await system.settled()
        return await system.why("c")


@situation("""
Command d is recorded as Credited at position 3298534883330, version 1 of Account<bob>, at TIME.
└─ mail@3of4 has failed at it 1 of 5 times and tries again in N s: ValueError: no stamp for 2.
""")
async def an_event_is_in_one_of_several_logs(_: Path) -> Explanation:
    store = f"{await postgres().new_url()}&logs=4"
    async with bank(store, Handling(2).spec(partitioned=4), rules=SLOW) as system:
        await credit(system, 1, "c", "alice")
        await credit(system, 2, "d", "bob")
        await until(lambda: system.statistics().supervisors["post"].restarting)
        return await system.why("d")


# --- actors and supervisors ---


class Clerk(Actor):
    """Blocks at a message until its gate opens, or fails at it."""

    gate = threading.Event()

    def on_receive(self, message: str) -> None:
        if message == "fail":
            raise ValueError("out of ink")
        self.gate.wait()


@asynccontextmanager
async def office() -> AsyncIterator[ActorSystem]:
    Clerk.gate.clear()
    rules = Supervisor("office", [ChildSpec(Clerk, "clerk")], max_restarts=None, backoff=SLOW["backoff"])
    system = ActorSystem(InMemoryEventStore(), aggregates=[], handlers=[], supervisors=[rules], name="bank")
    async with system:
        yield system
        Clerk.gate.set()


@situation("""
Actor clerk, in process N (NODE), is handling: Clerk 'clerk' has been handling str for N s, now at why_situations.py:LINE in on_receive. 1 message waits in its mailbox.
""")  # noqa: E501
async def an_actor_has_been_at_one_line_for_long(_: Path) -> Explanation:
    async with office() as system:
        clerk = system.actor("clerk", Clerk)
        clerk.tell("write")
        clerk.tell("read")
        await until(lambda: system.statistics().messages.waiting == 1)
        return await system.why("clerk")


@situation("""
Actor clerk, in process N (NODE), has failed, and its supervisor office restarts it in N s. No message waits for it.
""")
async def an_actor_waits_to_be_restarted(_: Path) -> Explanation:
    async with office() as system:
        system.actor("clerk", Clerk).tell("fail")
        await until(lambda: system.statistics().supervisors["office"].restarting)
        return await system.why("clerk")


@situation("""
Supervisor office, in process N (NODE), is running with 1 child, of which clerk is restarting.
""")
async def a_child_of_a_supervisor_does_not_work(_: Path) -> Explanation:
    async with office() as system:
        system.actor("clerk", Clerk).tell("fail")
        await until(lambda: system.statistics().supervisors["office"].restarting)
        return await system.why("office")


# --- nothing is known ---


@situation("""
Event ID is Credited at position 1, version 1 of Account<alice>, recorded at TIME, topic bank.credited.
├─ It was caused by command c.
└─ mail has handled it.
""")
async def an_event_is_named_by_its_position(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec()) as system:
        await credit(system, 1, "c")
        await system.settled()
        return await system.why("1")


@situation("""
Nothing is known of 'order-2024' here. Looked through: 1 event, 0 handlers, 1 running process. A command that was rejected, or that recorded nothing, is not in the log; processes keep their latest steps.
├─ Did you mean order-2024-17?
│     More of it, in the program: await system.why('order-2024-17')
└─ Ids are those of a command, an event or a correlation (32 hexadecimal digits, or your own), Type/id of an aggregate, the key of a schedule, or the name of a handler, a view, an actor or a supervisor.
""")  # noqa: E501
async def an_unknown_id_begins_like_others(_: Path) -> Explanation:
    async with bank(BankStore()) as system:
        await credit(system, 1, "order-2024-17")
        return await system.why("order-2024")


@situation("""
Nothing is known of 'reciepts' here. Looked through: 0 events, 1 handler, 1 running process. A command that was rejected, or that recorded nothing, is not in the log; processes keep their latest steps.
├─ Did you mean receipts?
│     More of it, in the program: await system.why('receipts')
└─ Ids are those of a command, an event or a correlation (32 hexadecimal digits, or your own), Type/id of an aggregate, the key of a schedule, or the name of a handler, a view, an actor or a supervisor.
""")  # noqa: E501
async def a_handler_is_misspelled(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec("receipts")) as system:
        return await system.why("reciepts")


@situation("""
Nothing is known of 'Receipts' here. Looked through: 0 events, 1 handler, 1 running process. A command that was rejected, or that recorded nothing, is not in the log; processes keep their latest steps.
├─ Did you mean shop.post.receipts?
│     More of it, in the program: await system.why('shop.post.receipts')
└─ Ids are those of a command, an event or a correlation (32 hexadecimal digits, or your own), Type/id of an aggregate, the key of a schedule, or the name of a handler, a view, an actor or a supervisor.
""")  # noqa: E501
async def a_handler_is_named_without_its_module(_: Path) -> Explanation:
    async with bank(BankStore(), Handling().spec("shop.post.receipts")) as system:
        return await system.why("Receipts")


@situation("""
Credit c was answered by Account<alice>, in process N (NODE), at TIME; its last event is at position 1.
Not asked: the log: OSError: the disk is gone
""")
async def the_log_cannot_be_read(_: Path) -> Explanation:
    store = BankStore()
    async with bank(store) as system:
        await credit(system, 1, "c")
        store.read_log_errors = [OSError("the disk is gone")] * 3
        return await system.why("c")
