"""Accounts: their commands, events and rules. Amounts are in cents."""

from typing import Annotated

from pydantic import Field

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, handles

Cents = Annotated[int, Field(gt=0)]

# --- commands; the reply is the balance ---


class OpenAccount(Command[int]):
    owner: str = Field(min_length=1)


class Deposit(Command[int]):
    amount: Cents


class Withdraw(Command[int]):
    amount: Cents


class Block(Command[int]):
    reason: str


class LookAt(Command[dict[str, object]]):
    """The reply is the state of the account."""


# --- events ---


class AccountOpened(DomainEvent):
    owner: str
    topic: str = "accounts.opened"


class Deposited(DomainEvent):
    amount: int
    balance: int
    topic: str = "accounts.deposited"


class Withdrawn(DomainEvent):
    amount: int
    balance: int
    topic: str = "accounts.withdrawn"


class Blocked(DomainEvent):
    reason: str
    topic: str = "accounts.blocked"


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.owner = ""
        self.balance = 0
        self.blocked = ""

    @handles
    def open(self, command: OpenAccount) -> int:
        if self.owner:
            raise CommandRejected(f"account {self.id} is open already")
        self.register_event(AccountOpened(owner=command.owner))
        return self.balance

    @handles
    def deposit(self, command: Deposit) -> int:
        self._check_open()
        self.register_event(Deposited(amount=command.amount, balance=self.balance + command.amount))
        return self.balance

    @handles
    def withdraw(self, command: Withdraw) -> int:
        self._check_open()
        if self.blocked:
            raise CommandRejected(f"account {self.id} is blocked: {self.blocked}")
        if command.amount > self.balance:
            raise CommandRejected(
                f"account {self.id} has {self.balance}, which is less than {command.amount}"
            )
        self.register_event(Withdrawn(amount=command.amount, balance=self.balance - command.amount))
        return self.balance

    @handles
    def block(self, command: Block) -> int:
        if not self.blocked:
            self.register_event(Blocked(reason=command.reason))
        return self.balance

    @handles
    def look_at(self, command: LookAt) -> dict[str, object]:
        self._check_open()
        return {"id": self.id, "owner": self.owner, "balance": self.balance, "blocked": self.blocked or None}

    def _check_open(self) -> None:
        if not self.owner:
            raise CommandRejected(f"there is no account {self.id}")

    def apply_account_opened(self, event: AccountOpened) -> None:
        self.owner = event.owner

    def apply_deposited(self, event: Deposited) -> None:
        self.balance = event.balance

    def apply_withdrawn(self, event: Withdrawn) -> None:
        self.balance = event.balance

    def apply_blocked(self, event: Blocked) -> None:
        self.blocked = event.reason
