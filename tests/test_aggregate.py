"""Aggregates, used as in a domain test: without any runtime."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from uno_actors.causality import Cause, caused_by, current_cause
from uno_actors.domain.aggregate import (
    MAX_ID_BYTES,
    MAX_TYPE_BYTES,
    AggregateRoot,
    check_aggregate_id,
    command_method,
    handles,
    known_commands,
)
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent
from uno_actors.errors import (
    CommandRejected,
    InternalError,
    InvalidAggregate,
    InvalidAggregateId,
    MissingApply,
    UnknownCommand,
)


class Deposit(Command[int]):
    amount: int


class Withdraw(Command[int]):
    amount: int


# Events have names of their own in the process-wide registry; apply methods go by the class.


class Deposited(DomainEvent):
    event_type: str = "test_aggregate.Deposited"
    amount: int


class WithdrawnEvent(DomainEvent):
    event_type: str = "test_aggregate.Withdrawn"
    amount: int


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.balance = 0

    @handles
    def deposit(self, command: Deposit) -> int:
        if command.amount <= 0:
            raise CommandRejected("amount must be positive")
        self.register_event(Deposited(amount=command.amount))
        return self.balance

    @handles
    def withdraw(self, command: Withdraw) -> int:
        self.register_event(WithdrawnEvent(amount=command.amount))
        return self.balance

    def apply_deposited(self, event: Deposited) -> None:
        self.balance += event.amount

    def apply_withdrawn(self, event: WithdrawnEvent) -> None:
        self.balance -= event.amount


# --- deciding and applying ---------------------------------------------------------------------------------


def test_a_command_registers_an_event_that_is_applied_and_pending() -> None:
    account = Account("alice")
    assert account.handle(Deposit(amount=10)) == 10
    assert account.handle(Withdraw(amount=3)) == 7
    assert [type(event) for event in account.pending_events] == [Deposited, WithdrawnEvent]
    assert (account.version, account.balance) == (2, 7)
    assert repr(account) == "Account<alice@2>"


def test_rejected_command_registers_nothing() -> None:
    account = Account("alice")
    with pytest.raises(CommandRejected, match="amount must be positive") as caught:
        account.handle(Deposit(amount=0))
    assert caught.value.reason == "amount must be positive"
    assert account.pending_events == ()
    assert account.version == 0


def test_registered_event_is_stamped_with_its_place_in_the_stream() -> None:
    account = Account("alice")
    account.register_event(Deposited(amount=1))
    account.register_event(Deposited(amount=2))
    places = [(e.aggregate_type, e.aggregate_id, e.aggregate_version) for e in account.pending_events]
    assert places == [("Account", "alice", 1), ("Account", "alice", 2)]


def test_apply_method_sees_the_stamped_event() -> None:
    seen: list[DomainEvent] = []

    class Watching(AggregateRoot):
        def apply_deposited(self, event: Deposited) -> None:
            seen.append(event)

    watching = Watching("w")
    watching.register_event(Deposited(amount=1))
    assert seen == list(watching.pending_events)
    assert seen[0].aggregate_version == 1


def test_pending_events_are_taken_once() -> None:
    account = Account("alice")
    account.handle(Deposit(amount=1))
    assert len(account.take_pending_events()) == 1
    assert account.take_pending_events() == []
    assert account.pending_events == ()
    account.handle(Deposit(amount=1))
    assert [event.aggregate_version for event in account.take_pending_events()] == [2]


# --- causality ---------------------------------------------------------------------------------------------


def test_event_names_the_command_as_its_cause() -> None:
    account = Account("alice")
    command = Deposit(amount=1)
    account.handle(command)
    (event,) = account.pending_events
    assert event.causation_id == command.command_id


def test_a_command_without_correlation_id_starts_a_new_correlation() -> None:
    """One id, such as the key of a request, may be used for two aggregates: two chains begin."""

    class Generous(Account):
        @handles
        def deposit(self, command: Deposit) -> int:
            super().deposit(command)
            return super().deposit(command)

    command = Deposit(amount=1, command_id="request 17")
    correlations = []
    for name in ("alice", "bob"):
        account = Generous(name)
        account.handle(command)
        first, second = account.pending_events
        assert first.correlation_id == second.correlation_id, "one command, one beginning"
        correlations.append(first.correlation_id)
    assert len({*correlations, command.command_id}) == 3
    assert all(correlations)


def test_event_takes_the_correlation_id_of_its_command() -> None:
    account = Account("alice")
    command = Deposit(amount=1, correlation_id="first", causation_id="before")
    account.handle(command)
    (event,) = account.pending_events
    assert (event.correlation_id, event.causation_id) == ("first", command.command_id)


def test_explicit_causality_wins() -> None:
    account = Account("alice")
    with caused_by(Cause("correlation", "causation")):
        account.register_event(Deposited(amount=1, correlation_id="mine"))
        account.register_event(Deposited(amount=1, causation_id="mine"))
    found = [(event.correlation_id, event.causation_id) for event in account.pending_events]
    assert found == [("mine", "causation"), ("correlation", "mine")]


def test_event_registered_outside_a_handler_has_no_cause() -> None:
    account = Account("alice")
    account.register_event(Deposited(amount=1))
    (event,) = account.pending_events
    assert event.correlation_id is event.causation_id is None


@pytest.mark.parametrize("amount", [1, 0], ids=["granted", "rejected"])
def test_cause_ends_when_the_handler_returns(amount: int) -> None:
    account = Account("alice")
    with caused_by(Cause("outer", "outer")):
        with contextlib.suppress(CommandRejected):
            account.handle(Deposit(amount=amount))
        assert current_cause() == Cause("outer", "outer")
    assert current_cause() is None


# --- replay ------------------------------------------------------------------------------------------------


def test_replay_restores_the_state_and_leaves_nothing_pending() -> None:
    account = Account("alice")
    account.handle(Deposit(amount=10))
    account.handle(Withdraw(amount=3))

    again = Account("alice").replay(account.take_pending_events())
    assert isinstance(again, Account)
    assert (again.balance, again.version, again.pending_events) == (7, 2, ())
    again.handle(Deposit(amount=1))
    assert again.pending_events[0].aggregate_version == 3


def test_replay_does_not_check_the_rules_again() -> None:
    event = Deposited(amount=-5, aggregate_id="alice", aggregate_type="Account", aggregate_version=1)
    assert Account("alice").replay([event]).balance == -5


@pytest.mark.parametrize("version", [None, 0, 2])
def test_gap_in_the_stream_is_refused(version: int | None) -> None:
    event = Deposited(amount=1, aggregate_id="alice", aggregate_type="Account", aggregate_version=version)
    with pytest.raises(InternalError, match=r"Account<alice@0> cannot replay .*: a gap in its stream"):
        Account("alice").replay([event])


def test_replay_of_an_event_without_apply_method_is_refused() -> None:
    class Closed(DomainEvent):
        pass

    with pytest.raises(MissingApply):
        Account("alice").replay([Closed(aggregate_version=1)])


# --- which apply method ------------------------------------------------------------------------------------

APPLY_NAMES = [
    # class of the event, method
    ("UserCreated", "apply_usercreated"),
    ("UserCreated", "apply_user_created"),
    ("UserCreated", "apply_UserCreated"),
    ("UserCreatedEvent", "apply_usercreated"),
    ("UserCreatedEvent", "apply_user_created"),
    ("User_Created", "apply_usercreated"),
    ("HTTPCalled", "apply_http_called"),
    ("EventEvent", "apply_event"),
    ("EventPlanned", "apply_event_planned"),
]


@pytest.mark.parametrize(("event", "method"), APPLY_NAMES)
def test_apply_method_is_matched_without_case_underscores_and_trailing_event(event: str, method: str) -> None:
    recorded_as = {"__annotations__": {"event_type": str}, "event_type": f"test_aggregate.{event}"}
    event_type = type(event, (DomainEvent,), {"__module__": __name__, **recorded_as})
    applied: list[DomainEvent] = []
    aggregate = type("Any", (AggregateRoot,), {method: lambda self, event: applied.append(event)})
    aggregate("a").register_event(event_type())
    assert [type(each) for each in applied] == [event_type]


def test_event_is_applied_by_the_method_for_its_base_class_if_it_has_none_of_its_own() -> None:
    class Topped(Deposited):
        pass

    class Bonus(Topped):
        pass

    class Choosy(Account):
        def apply_bonus(self, event: Bonus) -> None:
            self.balance += 2 * event.amount

    plain, choosy = Account("a"), Choosy("a")
    plain.register_event(Bonus(amount=5))
    choosy.register_event(Bonus(amount=5))
    choosy.register_event(Topped(amount=5))
    assert (plain.balance, choosy.balance) == (5, 15)


def test_missing_apply_method_is_reported_with_those_that_exist_and_leaves_no_trace() -> None:
    class AccountClosedEvent(DomainEvent):
        pass

    account = Account("alice")
    with pytest.raises(MissingApply) as caught:
        account.register_event(AccountClosedEvent())
    assert str(caught.value) == (
        "Account cannot apply AccountClosedEvent: define apply_accountclosed(self, event)."
        " It has: apply_deposited, apply_withdrawn"
    )
    assert (account.version, account.pending_events) == (0, ())


# --- which command method ----------------------------------------------------------------------------------


def test_unknown_command_is_reported_with_those_that_are_handled() -> None:
    class Close(Command):
        pass

    with pytest.raises(
        UnknownCommand, match=r"^Account does not handle Close; it handles: Deposit, Withdraw$"
    ):
        Account("alice").handle(Close())
    assert known_commands(Account) == ["Deposit", "Withdraw"]


def test_something_that_is_not_a_command_is_refused_too() -> None:
    with pytest.raises(UnknownCommand, match="Account does not handle str; it handles: Deposit, Withdraw"):
        command_method(Account, "deposit")


def test_aggregate_without_commands_says_so() -> None:
    class Silent(AggregateRoot):
        pass

    with pytest.raises(UnknownCommand, match="Silent does not handle Deposit; it handles: none"):
        Silent("a").handle(Deposit(amount=1))


def test_command_is_handled_by_the_method_for_its_base_class_if_it_has_none_of_its_own() -> None:
    class BigDeposit(Deposit):
        pass

    assert Account("alice").handle(BigDeposit(amount=7)) == 7
    assert command_method(Account, BigDeposit(amount=1)) == "deposit"


def test_local_command_classes_are_found_though_annotations_are_strings() -> None:
    class Open(Command[str]):
        owner: str

    class Opened(DomainEvent):
        owner: str

    class Local(AggregateRoot):
        owner = ""

        @handles
        def open(self, command: Open) -> str:
            self.register_event(Opened(owner=command.owner))
            return self.owner

        def apply_opened(self, event: Opened) -> None:
            self.owner = event.owner

    assert known_commands(Local) == ["Open"]
    assert Local("a").handle(Open(owner="alice")) == "alice"


def test_commands_and_apply_methods_are_inherited_and_may_be_overridden() -> None:
    class Savings(Account):
        @handles
        def deposit(self, command: Deposit) -> int:
            return 2 * super().deposit(command)

        @handles
        def withdraw(self, command: Withdraw) -> int:
            raise CommandRejected("not before the end of the year")

    class Plain(Account):
        pass

    assert Plain("a").handle(Deposit(amount=1)) == 1
    assert Savings("a").handle(Deposit(amount=1)) == 2
    assert (Plain.aggregate_type, Savings.aggregate_type) == ("Plain", "Savings")
    with pytest.raises(CommandRejected, match="end of the year"):
        Savings("a").handle(Withdraw(amount=1))
    assert Account("a").handle(Withdraw(amount=1)) == -1


def test_command_methods_of_a_mixin_are_found() -> None:
    class Closing(AggregateRoot):
        @handles
        def close(self, command: Withdraw) -> str:
            return f"closed with {command.amount}"

    class Opening(AggregateRoot):
        @handles
        def open(self, command: Deposit) -> str:
            return f"opened with {command.amount}"

    class Both(Opening, Closing):
        pass

    assert Both("a").handle(Deposit(amount=1)) == "opened with 1"
    assert Both("a").handle(Withdraw(amount=1)) == "closed with 1"


# --- definition errors -------------------------------------------------------------------------------------


def _async_method() -> None:
    class Wrong(AggregateRoot):
        @handles
        async def deposit(self, command: Deposit) -> None: ...


def _no_parameter() -> None:
    class Wrong(AggregateRoot):
        @handles
        def deposit(self) -> None: ...


def _two_parameters() -> None:
    class Wrong(AggregateRoot):
        @handles
        def deposit(self, command: Deposit, other: int) -> None: ...


def _no_annotation() -> None:
    class Wrong(AggregateRoot):
        @handles
        def deposit(self, order) -> None: ...  # type: ignore[no-untyped-def]


def _no_command() -> None:
    class Wrong(AggregateRoot):
        @handles
        def deposit(self, command: int) -> None: ...


def _an_event() -> None:
    class Wrong(AggregateRoot):
        @handles
        def deposit(self, command: Deposited) -> None: ...


def _undefined() -> None:
    class Wrong(AggregateRoot):
        @handles
        def deposit(self, command: Depposit) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def _one_command_twice() -> None:
    class Wrong(AggregateRoot):
        @handles
        def deposit(self, command: Deposit) -> None: ...

        @handles
        def pay_in(self, command: Deposit) -> None: ...


def _inherited_command_twice() -> None:
    class Wrong(Account):
        @handles
        def pay_in(self, command: Deposit) -> None: ...


def _override_without_mark() -> None:
    class Wrong(Account):
        def deposit(self, command: Deposit) -> int:
            return 0


def _one_event_twice() -> None:
    class Wrong(AggregateRoot):
        def apply_user_created(self, event: DomainEvent) -> None: ...

        def apply_usercreated(self, event: DomainEvent) -> None: ...


def _empty_type() -> None:
    class Wrong(AggregateRoot):
        aggregate_type = ""


def _long_type() -> None:
    class Wrong(AggregateRoot):
        aggregate_type = "x" * (MAX_TYPE_BYTES + 1)


def _nul_in_type() -> None:
    class Wrong(AggregateRoot):
        aggregate_type = "a\0b"


DEFINITION_ERRORS: dict[Callable[[], None], str] = {
    _async_method: "@handles method deposit is async; it must decide from the state alone: write a plain def",
    _no_parameter: "@handles method deposit must take one command, found 0 parameters",
    _two_parameters: "@handles method deposit must take one command, found 2 parameters",
    _no_annotation: "@handles method deposit has no annotation: write deposit(self, order: ACommand)",
    _no_command: "@handles method deposit is annotated with <class 'int'>, which is not a Command",
    _an_event: f"@handles method deposit is annotated with {Deposited!r}, which is not a Command",
    _undefined: "the annotation 'Depposit' of @handles method deposit is not defined (name 'Depposit' is not"
    " defined)",
    _one_command_twice: "deposit and pay_in both handle Deposit",
    _inherited_command_twice: "deposit and pay_in both handle Deposit",
    _override_without_mark: "deposit overrides a method that handles Deposit: mark it with @handles too",
    _one_event_twice: "apply_user_created and apply_usercreated apply the same event",
    _empty_type: "aggregate_type '' cannot name streams: it is empty",
    _long_type: f"aggregate_type '{'x' * 201}' cannot name streams: it has 201 bytes; at most 200 are allowed",
    _nul_in_type: "aggregate_type 'a\\x00b' cannot name streams: it holds a NUL character",
}


@pytest.mark.parametrize(
    ("define", "reason"), DEFINITION_ERRORS.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_definition_error_is_reported_when_the_class_is_defined(
    define: Callable[[], None], reason: str
) -> None:
    with pytest.raises(InvalidAggregate) as caught:
        define()
    assert str(caught.value) == f"aggregate Wrong: {reason}"
    assert caught.value.aggregate == "Wrong"


@pytest.mark.parametrize(
    "annotation",
    [
        "Deposit | Withdraw",
        "list[Deposit]",
        "Any",
        "Deposit.Nested",
        "1 / 0",
        "Deposit.",
        "Deposit + Withdraw",
    ],
)
def test_annotation_that_is_not_a_class_is_reported_when_the_class_is_defined(annotation: str) -> None:
    def deposit(self: Any, command: Any) -> None: ...

    deposit.__annotations__["command"] = annotation
    with pytest.raises(InvalidAggregate, match=r"^aggregate Wrong: .*deposit"):
        type("Wrong", (AggregateRoot,), {"deposit": handles(deposit)})


# --- ids ---------------------------------------------------------------------------------------------------

LEGAL_IDS = ["alice", "a", " ", "a.b/c", "🚀", "x" * MAX_ID_BYTES, "🚀" * 63, "\n"]
ILLEGAL_IDS = [
    ("", "it is empty"),
    ("x" * (MAX_ID_BYTES + 1), "it has 256 bytes; at most 255 are allowed"),
    ("🚀" * 64, "it has 256 bytes; at most 255 are allowed"),
    ("a\0b", "it holds a NUL character"),
    ("\ud800", "it is not valid Unicode (surrogates not allowed)"),
    (7, "it must be a str, not int"),
    (None, "it must be a str, not NoneType"),
    (b"alice", "it must be a str, not bytes"),
]


@pytest.mark.parametrize("id", LEGAL_IDS)
def test_valid_id_is_returned_unchanged(id: str) -> None:
    assert check_aggregate_id(id) == Account(id).id == id


@pytest.mark.parametrize(("id", "reason"), ILLEGAL_IDS)
def test_invalid_id_is_refused_with_the_reason(id: Any, reason: str) -> None:
    with pytest.raises(InvalidAggregateId, match=re.escape(reason)) as caught:
        Account(id)
    assert caught.value.aggregate_id == id
    assert len(str(caught.value)) < 150  # a long id is not repeated in full


def test_apply_sees_the_same_version_when_an_event_is_registered_and_when_it_is_replayed() -> None:
    class Seen(DomainEvent):
        pass

    class Witness(AggregateRoot):
        def __init__(self, id: str) -> None:
            super().__init__(id=id)
            self.versions: list[int] = []

        def apply_seen(self, event: Seen) -> None:
            self.versions.append(self.version)

    live = Witness("w")
    for _ in range(3):
        live.register_event(Seen())
    assert live.versions == Witness("w").replay(live.pending_events).versions == [1, 2, 3]
