"""Money between two accounts: the accounts, the transfer, and the process that carries it out."""

from uno_actors import (
    AggregateRoot,
    Command,
    CommandRejected,
    DomainEvent,
    ProcessManager,
    Refusal,
    handles,
    reacts,
)

# --- accounts know nothing of transfers ---


class OpenAccount(Command):
    balance: int


class CloseAccount(Command):
    pass


class Withdraw(Command):
    amount: int


class Deposit(Command):
    amount: int


class Balance(Command[int]):
    pass


class AccountOpened(DomainEvent):
    balance: int


class AccountClosed(DomainEvent):
    pass


class MoneyWithdrawn(DomainEvent):
    amount: int


class MoneyDeposited(DomainEvent):
    amount: int


class BankAccount(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.balance = 0
        self.is_open = False

    @handles
    def open(self, command: OpenAccount) -> None:
        if self.version == 0:
            self.register_event(AccountOpened(balance=command.balance))

    @handles
    def close(self, command: CloseAccount) -> None:
        if self.is_open:
            self.register_event(AccountClosed())

    @handles
    def withdraw(self, command: Withdraw) -> None:
        if command.amount > self.balance:
            raise CommandRejected(f"{self.id} cannot pay {command.amount}")
        self.register_event(MoneyWithdrawn(amount=command.amount))

    @handles
    def deposit(self, command: Deposit) -> None:
        if not self.is_open:
            raise CommandRejected(f"{self.id} is closed")
        self.register_event(MoneyDeposited(amount=command.amount))

    @handles
    def tell_balance(self, command: Balance) -> int:
        return self.balance

    def apply_account_opened(self, event: AccountOpened) -> None:
        self.balance, self.is_open = event.balance, True

    def apply_account_closed(self, event: AccountClosed) -> None:
        self.is_open = False

    def apply_money_withdrawn(self, event: MoneyWithdrawn) -> None:
        self.balance -= event.amount

    def apply_money_deposited(self, event: MoneyDeposited) -> None:
        self.balance += event.amount


# --- a transfer is requested ---


class RequestTransfer(Command):
    source: str
    target: str
    amount: int


class TransferRequested(DomainEvent):
    source: str
    target: str
    amount: int


class Transfer(AggregateRoot):
    @handles
    def request(self, command: RequestTransfer) -> None:
        self.register_event(
            TransferRequested(source=command.source, target=command.target, amount=command.amount)
        )

    def apply_transfer_requested(self, event: TransferRequested) -> None: ...


# --- the process that carries it out, or undoes it ---


class TransferBegun(DomainEvent):
    source: str
    target: str
    amount: int


class TransferEnded(DomainEvent):
    outcome: str
    topic: str = "transfers.ended"


class Outcome(Command[str]):
    pass


class TransferProcess(ProcessManager):
    """Withdraw from the source, then deposit to the target; if the target refuses, refund the source."""

    sends_to = (BankAccount,)

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.source = self.target = ""
        self.amount = 0
        self.outcome = "under way"

    @reacts
    def begin(self, event: TransferRequested) -> None:
        self.register_event(TransferBegun(source=event.source, target=event.target, amount=event.amount))
        self.send(BankAccount, event.source, Withdraw(amount=event.amount))

    @reacts
    def give(self, event: MoneyWithdrawn) -> None:
        self.send(BankAccount, self.target, Deposit(amount=self.amount))

    @reacts
    def finish(self, event: MoneyDeposited) -> None:
        if self.outcome == "under way":
            self.register_event(TransferEnded(outcome="done"))

    @reacts
    def too_poor(self, refusal: Refusal[Withdraw]) -> None:
        self.register_event(TransferEnded(outcome=f"refused: {refusal.reason}"))

    @reacts
    def give_back(self, refusal: Refusal[Deposit]) -> None:
        self.register_event(TransferEnded(outcome=f"undone: {refusal.reason}"))
        self.send(BankAccount, self.source, Deposit(amount=self.amount))

    @handles
    def tell_outcome(self, command: Outcome) -> str:
        return self.outcome

    def apply_transfer_begun(self, event: TransferBegun) -> None:
        self.source, self.target, self.amount = event.source, event.target, event.amount

    def apply_transfer_ended(self, event: TransferEnded) -> None:
        self.outcome = event.outcome
