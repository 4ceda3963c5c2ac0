"""The aggregate of most tests, and stores that block or fail on demand."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, EventRegistry, UnoError, handles
from uno_actors.store.codec import StreamId
from uno_actors.store.records import PAGE, Append, Appended, StoredRecord
from uno_stores import InMemoryEventStore


class Credited(DomainEvent):
    amount: int
    topic: str | None = "bank.credited"


class BonusCredited(Credited):
    topic: str | None = "bank.bonus.credited"


class Debited(DomainEvent):
    amount: int
    topic: str | None = "bank.debited"


class Noted(DomainEvent):
    text: str


EVENTS = EventRegistry([Credited, BonusCredited, Debited, Noted])
"""The event types of this bank only: other tests have types of the same names."""


class Credit(Command[int]):
    amount: int


class Debit(Command[int]):
    amount: int


class Balance(Command[int]):
    pass


class CreditAndFail(Command[int]):
    amount: int


class CreditAndExit(Command[int]):
    amount: int


class Unheard(Command[int]):
    """No aggregate handles it."""


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.balance = 0

    @handles
    def credit(self, command: Credit) -> int:
        self.register_event(Credited(amount=command.amount))
        return self.balance

    @handles
    def debit(self, command: Debit) -> int:
        if command.amount > self.balance:
            raise CommandRejected(f"the balance is {self.balance}")
        self.register_event(Debited(amount=command.amount))
        return self.balance

    @handles
    def tell_balance(self, command: Balance) -> int:
        return self.balance

    @handles
    def credit_and_fail(self, command: CreditAndFail) -> int:
        self.register_event(Credited(amount=command.amount))
        raise ZeroDivisionError("after the event")

    @handles
    def credit_and_exit(self, command: CreditAndExit) -> int:
        self.register_event(Credited(amount=command.amount))
        raise SystemExit(3)

    def apply_credited(self, event: Credited) -> None:
        self.balance += event.amount

    def apply_debited(self, event: Debited) -> None:
        self.balance -= event.amount


class BankStore(InMemoryEventStore):
    """Knows the bank's events. Commits while the gate is open, raises the errors queued in the `..._errors`."""

    def __init__(self) -> None:
        super().__init__(EVENTS)
        self.gate = asyncio.Event()
        self.gate.set()
        self.commits_asked = 0
        self.groups: list[int] = []
        self.commit_errors: list[BaseException] = []
        self.read_log_errors: list[BaseException] = []
        self.read_stream_errors: list[BaseException] = []
        self.save_errors: list[BaseException] = []
        self.before_commit: Callable[[], Awaitable[None]] | None = None
        self.saved: dict[str, int] = {}  # checkpoints, as `checkpoints` reads them

    async def commit(self, requests: Sequence[Append]) -> list[Appended | UnoError]:
        self.commits_asked += 1
        self.groups.append(len(requests))
        await self.gate.wait()
        if self.before_commit is not None:
            await self.before_commit()
        if self.commit_errors:
            raise self.commit_errors.pop(0)
        return await super().commit(requests)

    async def read_log(self, after: int = 0, limit: int = PAGE) -> list[StoredRecord]:
        if self.read_log_errors:
            raise self.read_log_errors.pop(0)
        return await super().read_log(after, limit)

    async def read_stream(
        self, stream: StreamId, after_version: int = 0, limit: int = PAGE
    ) -> list[StoredRecord]:
        if self.read_stream_errors:
            raise self.read_stream_errors.pop(0)
        return await super().read_stream(stream, after_version, limit)

    async def last_version(self, stream: StreamId) -> int:
        if self.read_stream_errors:
            raise self.read_stream_errors.pop(0)
        return await super().last_version(stream)

    async def save_progress(self, checkpoints, dead_letters=(), views=(), dropped=()) -> None:  # type: ignore[no-untyped-def]
        if self.save_errors:
            raise self.save_errors.pop(0)
        await super().save_progress(checkpoints, dead_letters, views, dropped)
        self.saved.update(checkpoints)

    async def drop_view(self, view: str) -> None:
        await super().drop_view(view)
        self.saved.pop(view, None)

    def versions(self) -> list[int | None]:
        return [record.aggregate_version for record in self.records]


def credited(*amounts: int, aggregate_id: str | None = None) -> list[Credited]:
    """Append events as another program would."""
    kind = None if aggregate_id is None else "Account"
    return [Credited(amount=amount, aggregate_id=aggregate_id, aggregate_type=kind) for amount in amounts]
