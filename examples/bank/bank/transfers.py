"""Transfers: withdraw from one account, then deposit to the other, or refund."""

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


def transfer_of(event: DomainEvent) -> str | None:
    """The transfer that has caused an event of an account, if it is one."""
    caused_by = event.correlation_id or ""
    return caused_by if caused_by.startswith(PREFIX) else None


class Transfer(ProcessManager):
    """One transfer. If the process is killed at any moment, it resumes, and moves no money twice."""

    sends_to = (Account,)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.source = self.target = ""
        self.amount = 0
        self.outcome = "under way"

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

    @reacts(starts=True, by="aggregate_id")
    def take(self, event: TransferRequested) -> None:
        self.send(Account, event.source, Withdraw(amount=event.amount))

    @reacts(by=transfer_of)
    def give(self, event: Withdrawn) -> None:
        self.send(Account, self.target, Deposit(amount=self.amount))

    @reacts(by=transfer_of)
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
