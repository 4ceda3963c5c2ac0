"""What type checkers must refuse: each line with `ignore` is an error, and one that were none would be told.

Checked by `make check`, never run.
"""

from typing import assert_type

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventStore,
    Future,
    Projection,
    RecordedEvent,
    handles,
    reacts,
    subscribe,
)


class Deposit(Command[int]):
    amount: int


class Deposited(DomainEvent):
    amount: int
    topic: str = "accounts.deposited"


class Account(AggregateRoot):
    balance = 0

    @handles
    def deposit(self, command: Deposit) -> int:
        self.register_event(Deposit(amount=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return self.balanse  # type: ignore[attr-defined,no-any-return]  # pyright: ignore[reportAttributeAccessIssue]


event = Deposited(amount=1)
event.amount = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
event.topic = "another"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
Deposit(amount=1).amount = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
Deposited(amonut=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Deposited("positional")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


Deposit(amount=1, command_id=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Deposit(amount=1).command_id = "x"  # pyright: ignore[reportAttributeAccessIssue]


class Wider(Deposited):
    topic: str | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]


def of_a_bool(command: Command[bool]) -> bool:
    return Account("a").handle(command)


of_a_bool(Deposit(amount=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
reply: str = Account("a").handle(Deposit(amount=1))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
handles("deposit")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
reacts(1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
subscribe(Deposit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Balances(Projection[Deposited]):
    async def handle(self, event: Deposited) -> None:
        self.view.put(1.5, event.amount)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Ranks(Projection[Deposited, tuple[str, int]]):
    async def handle(self, event: Deposited) -> None:
        self.view.put("of", event.amount)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Unordered(Projection[Deposited, float]):  # type: ignore[type-var]  # pyright: ignore[reportInvalidTypeArguments]
    pass


async def viewed(system: ActorSystem) -> None:
    await system.view(Ranks).get("of")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await system.view(Ranks).range(after="of")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def in_async_code(system: ActorSystem, store: EventStore) -> None:
    system.aggregate("Account", "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    account = system.aggregate(Account, "a")
    account.ask(event)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(account.ask(Deposit(amount=1)), Future[str])  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
    system.actor("a").ask(1)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    await store.append(event, expected_version="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await store.append(event, checkpoint=("in", 3))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async for recorded in store.read_all():
        print(recorded.event.amount)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        of_deposits: RecordedEvent[Deposited] = recorded  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        print(of_deposits)
