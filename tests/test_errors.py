"""The tree of errors: who is at fault, the data, and the remedy."""

import inspect
from pathlib import Path

import pytest

import uno_actors
from uno_actors import errors
from uno_actors.errors import (
    AmbiguousEventType,
    AmbiguousStream,
    AskTimeout,
    CallerError,
    ConcurrencyConflict,
    CorruptRecord,
    EventNotReadable,
    HandlerTimeout,
    InternalError,
    InvalidAggregateId,
    InvalidStoreUrl,
    InvalidTopic,
    MailboxFull,
    MissingApply,
    OtherNumberOfLogs,
    OutcomeUnknown,
    PlaceTaken,
    SeveralLogs,
    StoreFormatError,
    StoreFull,
    StoreUnavailable,
    SupervisorGaveUp,
    SystemNotRunning,
    UnknownAggregateType,
    UnknownCommand,
    UnknownEventType,
    UnoError,
    WorldError,
)

FAULTS = (CallerError, WorldError, InternalError)
PUBLIC = [
    error
    for name, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, BaseException) and error.__module__ == errors.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("error", [error for error in PUBLIC if error is not UnoError])
def test_error_belongs_to_exactly_one_branch(error: type[UnoError]) -> None:
    assert issubclass(error, UnoError)
    assert len([fault for fault in FAULTS if issubclass(error, fault)]) == 1


@pytest.mark.parametrize("error", PUBLIC)
def test_error_can_be_imported_from_the_package_and_says_what_it_is(error: type[UnoError]) -> None:
    assert getattr(uno_actors, error.__name__) is error
    assert error.__name__ in uno_actors.__all__
    assert (error.__doc__ or "").strip()


def test_no_other_module_makes_errors_outside_of_the_tree() -> None:
    for name in uno_actors.__all__:
        exported = getattr(uno_actors, name)
        if (
            isinstance(exported, type)
            and issubclass(exported, BaseException)
            and not issubclass(exported, Warning)
        ):
            assert issubclass(exported, UnoError), name


STANDARD = [
    # error, the standard exception that a caller may catch instead
    (InvalidTopic, ValueError),
    (InvalidAggregateId, ValueError),
    (InvalidStoreUrl, ValueError),
    (MissingApply, TypeError),
    (UnknownCommand, TypeError),
    (UnknownEventType, LookupError),
    (UnknownAggregateType, LookupError),
    (AmbiguousStream, LookupError),
    (SystemNotRunning, RuntimeError),
    (AskTimeout, TimeoutError),
    (HandlerTimeout, TimeoutError),
]


@pytest.mark.parametrize(("error", "standard"), STANDARD)
def test_error_has_the_fitting_standard_base(error: type[UnoError], standard: type[Exception]) -> None:
    assert issubclass(error, standard)


MESSAGES = [
    # an error, what its message says happened, the remedy that it names, its data
    (
        InvalidTopic("a..b", "topic", "empty token"),
        "invalid topic 'a..b': empty token",
        "Tokens are separated by '.'",
        {"text": "a..b", "reason": "empty token"},
    ),
    (
        MissingApply("Account", "Closed", "apply_closed", ["apply_opened"]),
        "Account cannot apply Closed",
        "define apply_closed(self, event). It has: apply_opened",
        {"aggregate": "Account", "event": "Closed", "expected": "apply_closed"},
    ),
    (
        InvalidAggregateId("", "it is empty"),
        "invalid aggregate id ''",
        "it is empty",
        {"aggregate_id": ""},
    ),
    (
        UnknownAggregateType("Account", ["User", "Order"]),
        "this system does not serve Account",
        "add it to ActorSystem(aggregates=[...]). It serves: Order, User",
        {"aggregate": "Account"},
    ),
    (
        UnknownCommand("Account", 7, []),
        "Account does not handle int",
        "it handles: none",
        {"aggregate": "Account", "command": 7},
    ),
    (
        MailboxFull("Account<alice>", 1000),
        "the mailbox of Account<alice> is full (1000 messages wait)",
        "await replies before asking more",
        {"owner": "Account<alice>", "capacity": 1000},
    ),
    (
        errors.BlockingCallOnLoop(),
        "get() would block the event loop's thread",
        "write `await future` instead",
        {},
    ),
    (
        SystemNotRunning("bank", "stopped"),
        "actor system 'bank' is stopped",
        "use it inside `async with ActorSystem(...)`",
        {"state": "stopped"},
    ),
    (
        UnknownEventType("Paid", ["Opened"]),
        "event type 'Paid' is not registered",
        "import the module that defines it, or name its class with @register_event(name='Paid')",
        {"event_type": "Paid"},
    ),
    (
        AmbiguousEventType("Paid", ["b.Paid", "a.Paid"]),
        "event type 'Paid' names several classes (a.Paid, b.Paid)",
        "give the store its own event_registry=EventRegistry([...])",
        {"event_type": "Paid"},
    ),
    (
        AmbiguousStream("alice", ["User", "Account"]),
        "id 'alice' has streams of several types (Account, User)",
        "pass aggregate_type=...",
        {"aggregate_id": "alice", "types": ("Account", "User")},
    ),
    (
        EventNotReadable("Paid", 1, 2, "register the step with @upcasts('Paid', from_version=1)"),
        "event Paid of schema version 1 cannot be read as version 2",
        "register the step",
        {"event_type": "Paid", "recorded": 1, "current": 2},
    ),
    (
        InvalidStoreUrl("mysql:x", ["lmdb", "memory"]),
        "cannot open the store 'mysql:x'",
        "one of these schemes: lmdb, memory; for example 'lmdb:./data/bank'",
        {"url": "mysql:x"},
    ),
    (
        StoreFormatError(Path("/data"), "its format is 2; use the version that wrote it"),
        "/data is not a store for this program",
        "use the version that wrote it",
        {"path": Path("/data")},
    ),
    (
        StoreUnavailable("lmdb:bank", "it was closed"),
        "store lmdb:bank is unavailable",
        "it was closed",
        {"store": "lmdb:bank"},
    ),
    (
        StoreFull("lmdb:bank", "open it with a larger map_size"),
        "store lmdb:bank is full",
        "open it with a larger map_size",
        {"store": "lmdb:bank"},
    ),
    (
        OutcomeUnknown("store lmdb:bank", "EIO"),
        "store lmdb:bank: a commit did not finish (EIO)",
        "Read the stream before sending the command again",
        {"what": "store lmdb:bank"},
    ),
    (
        ConcurrencyConflict("Account<alice>", 3, 5),
        "stream Account<alice> is at version 5, not at 3",
        "Load it again and decide again",
        {"stream": "Account<alice>", "expected": 3, "actual": 5},
    ),
    (
        HandlerTimeout("mail", "Credited at position 7", 0.5),
        "handler mail did not handle Credited at position 7 within 0.5 s",
        "raise its timeout",
        {"handler": "mail", "event": "Credited at position 7", "seconds": 0.5},
    ),
    (
        AskTimeout("Account<alice>", "Deposit", 30, started=True, doing="It handles Deposit."),
        "no reply from Account<alice> to Deposit within 30 s",
        "it may still take effect",
        {"actor": "Account<alice>", "seconds": 30, "started": True},
    ),
    (
        AskTimeout("Account<alice>", "Deposit", 0.5, started=False, doing="Place 3 in its queue."),
        "within 0.5 s",
        "it was withdrawn and has no effect. Place 3 in its queue.",
        {"started": False},
    ),
    (
        SupervisorGaveUp(
            "mail", "send_receipt", "failed again after 5 restarts within 30 s", ValueError("no such address")
        ),
        "supervisor 'mail' gave up: send_receipt failed again after 5 restarts within 30 s",
        "Its last error was ValueError: no such address",
        {"supervisor": "mail", "child": "send_receipt"},
    ),
    (
        PlaceTaken(Path("/data/copy")),
        "/data/copy is not empty",
        "choose a new path",
        {"path": Path("/data/copy")},
    ),
    (
        SeveralLogs("postgresql://u:secret@h/bank", 64, "one last position", "ask for `last_positions`"),
        "store postgresql://u:***@h/bank has 64 logs, and events of different logs have no order: one last position",
        "is not possible; ask for `last_positions`",
        {"logs": 64, "store": "postgresql://u:***@h/bank"},
    ),
    (
        OtherNumberOfLogs("postgresql://u:secret@h/bank", 4, 8),
        "store postgresql://u:***@h/bank was made with logs=4 and cannot be opened with logs=8",
        "leave the option out",
        {"found": 4, "wanted": 8, "store": "postgresql://u:***@h/bank"},
    ),
    (
        CorruptRecord("position 7", "ValueError: too short"),
        "the record at position 7 is damaged",
        "ValueError: too short",
        {"where": "position 7"},
    ),
]


@pytest.mark.parametrize(
    ("error", "what", "remedy", "data"), MESSAGES, ids=lambda value: type(value).__name__
)
def test_message_says_what_happened_and_the_remedy_and_the_error_carries_the_data(
    error: UnoError, what: str, remedy: str, data: dict[str, object]
) -> None:
    assert what in str(error)
    assert remedy in str(error)
    assert {name: getattr(error, name) for name in data} == data


def test_long_id_is_shown_in_part() -> None:
    error = InvalidAggregateId("x" * 10_000, "it has 10000 bytes; at most 255 are allowed")
    assert len(str(error)) < 150
    assert "..." in str(error)
    assert len(str(error.aggregate_id)) == 10_000
