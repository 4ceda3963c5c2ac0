"""Transfers: withdraw from one account, then deposit to the other, or refund."""

from typing_extensions import override

from bank.accounts import Account, Cents, Deposit, Deposited, Withdraw, Withdrawn
from uno_actors import Command, CommandRejected, DomainEvent, ProcessManager, Refusal, handles, reacts

PREFIX = "transfer-"
"""Prefix of the ids of transfers. Events of a transfer have its id as their correlation id."""


class RequestTransfer(Command[None]):
    source: str
    target: str
    amount: Cents


class LookAtTransfer(Command[dict[str, object]]):
    """The reply is the state of the transfer."""


class TransferRequested(DomainEvent):
    source: str
    target: str
    amount: int
    topic: str = "transfers.requested"


class TransferEnded(DomainEvent):
    outcome: str
    topic: str = "transfers.ended"


class Transfer(ProcessManager):
    """One transfer. If the process is killed at any moment, it resumes, and moves no money twice."""

    sends_to = (Account,)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.source = self.target = ""
        self.amount = 0
        self.outcome = "under way"

    @classmethod
    @override
    def process_id(cls, event: DomainEvent) -> str | None:
        return event.correlation_id if (event.correlation_id or "").startswith(PREFIX) else None

    @handles
    def request(self, command: RequestTransfer) -> None:
        if self.source:
            raise CommandRejected(f"transfer {self.id} was requested already")
        self.register_event(
            TransferRequested(source=command.source, target=command.target, amount=command.amount)
        )

    @handles
    def look_at(self, command: LookAtTransfer) -> dict[str, object]:
        if not self.source:
            raise CommandRejected(f"there is no transfer {self.id}")
        return {
            "id": self.id,
            "source": self.source,
            "target": self.target,
            "amount": self.amount,
            "outcome": self.outcome,
        }

    @reacts
    def take(self, event: TransferRequested) -> None:
        self.send(Account, event.source, Withdraw(amount=event.amount))

    @reacts
    def give(self, event: Withdrawn) -> None:
        self.send(Account, self.target, Deposit(amount=self.amount))

    @reacts
    def finish(self, event: Deposited) -> None:
        if self.outcome == "under way":
            self.register_event(TransferEnded(outcome="done"))

    @reacts
    def refuse(self, refusal: Refusal[Withdraw]) -> None:
        self.register_event(TransferEnded(outcome=f"refused: {refusal.reason}"))

    @reacts
    def give_back(self, refusal: Refusal[Deposit]) -> None:
        self.register_event(TransferEnded(outcome=f"undone: {refusal.reason}"))
        self.send(Account, self.source, Deposit(amount=self.amount))

    def apply_transfer_requested(self, event: TransferRequested) -> None:
        self.source, self.target, self.amount = event.source, event.target, event.amount

    def apply_transfer_ended(self, event: TransferEnded) -> None:
        self.outcome = event.outcome


transfers = Transfer.handler()
"""The handler that drives transfers, named in the configuration file."""
