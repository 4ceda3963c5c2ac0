"""Orders whose payment has a deadline, for tests of commands that are sent later."""

from datetime import timedelta

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, handles


class CancelLater(Command[str]):
    minutes: float = 15
    key: str | None = "payment"
    note: str = ""


class PayLater(Command): ...


class CancelNow(Command):
    note: str = ""


class CancelledNow(DomainEvent):
    note: str = ""


class Deadline(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.notes: list[str] = []

    @handles
    def place(self, command: CancelLater) -> str:
        return self.schedule(
            CancelNow(note=command.note), after=timedelta(minutes=command.minutes), key=command.key
        )

    @handles
    def pay(self, command: PayLater) -> None:
        self.unschedule("payment")

    @handles
    def cancel(self, command: CancelNow) -> None:
        if command.note == "rejected":
            raise CommandRejected("it is paid")
        self.register_event(CancelledNow(note=command.note))

    def apply_cancelled_now(self, event: CancelledNow) -> None:
        self.notes.append(event.note)
