"""What nodes send each other arrives equal, in values and types, or is refused with a clear error."""

import asyncio
import contextlib
import inspect
import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from tests.test_values import HASHABLE, VALUES, Colour, Money, Place, same
from uno_actors import Command, CommandRejected, errors
from uno_actors.actors.future import GetTimeout
from uno_actors.aggregates.fingerprint import fingerprint
from uno_actors.causality import new_id
from uno_actors.cluster.remote_errors import pack_error, unpack_error
from uno_actors.cluster.wire import (
    Kind,
    Leaving,
    LentToUs,
    NotServedHere,
    RaisedThere,
    Recall,
    Request,
    command_request,
    error_answer,
    leaving_request,
    lent_answer,
    not_served_answer,
    recall_request,
    reply_answer,
    unpack_answer,
    unpack_request,
)
from uno_actors.config.errors import ConfigFault, InvalidConfig
from uno_actors.domain.command_payloads import pack_command, unpack_command
from uno_actors.domain.values import difference
from uno_actors.errors import (
    AskTimeout,
    DeadlockError,
    InvalidCommand,
    MailboxFull,
    OutcomeUnknown,
    RemoteError,
    ReplyNotSent,
    UnoError,
    describe,
)
from uno_actors.store.codec import StreamId

STREAM = StreamId("Account", "alice")


class Line(BaseModel):
    model_config = ConfigDict(frozen=True)

    sku: str
    count: int = 1
    price: Decimal | str = Decimal(0)


class Parcel(Command[dict[Any, Any]]):
    """With a field of each kind that takes another path to the wire."""

    number: int = 0
    price: Decimal = Decimal("1.10")
    colour: Colour = Colour.RED
    lines: list[Line] = Field(default=[])
    by_place: dict[Place, Money] = Field(default={})
    anything: Any = None
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    key: UUID = UUID(int=1)
    made: str = Field(default_factory=new_id)


class Shipped(Command[list[Money | Place | Colour | Line]]):
    pass


def through_the_wire(command: Command[Any], **changes: Any) -> tuple[Command[Any], Request]:
    about: dict[str, Any] = {"seconds": 5.0, "since": None, "told": False, "sender": "a"} | changes
    body = command_request(STREAM, command, pack_command(command), **about)
    request = unpack_request(body)
    assert isinstance(request, Request)
    ids = {
        "command_id": request.command_id,
        "correlation_id": request.correlation_id,
        "causation_id": request.causation_id,
    }
    return unpack_command(type(command), request.payload, ids, request.left_out), request


FINITE = st.decimals(allow_nan=False, allow_infinity=False)
commands = st.builds(
    Parcel,
    command_id=st.text(min_size=1),
    correlation_id=st.none() | st.text(),
    causation_id=st.none() | st.text(),
    number=st.integers(),
    price=FINITE,
    colour=st.sampled_from(Colour),
    lines=st.lists(
        st.builds(Line, sku=st.text(), price=FINITE | st.text()),
        max_size=3,
    ),
    by_place=st.dictionaries(
        st.builds(Place, st.integers(), FINITE),
        st.builds(Money, FINITE, st.text()),
        max_size=2,
    ),
    at=st.datetimes(timezones=st.just(UTC)),
)


@settings(max_examples=150)
@given(command=commands)
def test_a_command_arrives_equal_in_values_and_types(command: Parcel) -> None:
    arrived, request = through_the_wire(command)
    assert difference("command", command, arrived) == ""
    assert arrived == command
    assert arrived.model_fields_set == command.model_fields_set
    assert fingerprint(arrived) == fingerprint(command)
    assert (request.aggregate_type, request.aggregate_id, request.command) == ("Account", "alice", "Parcel")


@given(value=HASHABLE | st.lists(HASHABLE, max_size=3))
def test_a_value_of_an_open_field_arrives_equal_or_is_refused_before_it_is_sent(value: object) -> None:
    command, refused = Parcel(anything=value), ""
    try:
        arrived, _ = through_the_wire(command)
    except InvalidCommand as error:
        refused = str(error)
    if refused:
        assert "Parcel cannot be sent: " in refused
        assert "anything" in refused
    else:
        assert isinstance(arrived, Parcel)
        assert type(arrived.anything) is type(value)


def test_a_command_with_a_secret_or_a_live_object_is_refused_with_the_field() -> None:
    class Login(Command):
        password: SecretStr

    with pytest.raises(InvalidCommand, match="Login cannot be sent: .*secret"):
        pack_command(Login(password=SecretStr("x")))
    with pytest.raises(InvalidCommand, match="Parcel cannot be sent: anything"):
        pack_command(Parcel(anything=object()))


def test_what_was_left_out_of_a_command_is_left_out_there_too() -> None:
    """So that the fingerprint by which a repeated command is known is the same on every node."""
    arrived, _ = through_the_wire(first := Parcel(number=3))
    assert arrived.model_fields_set == {"number"}
    assert fingerprint(arrived) == fingerprint(first)


def test_all_that_a_request_says_arrives() -> None:
    command = Parcel(command_id="c", correlation_id="b", causation_id="a")
    _, request = through_the_wire(command, seconds=1.5, since=7, told=True)
    assert request == Request(
        Kind.COMMAND, "Account", "alice", "Parcel", request.payload, "c", "b", "a",
        request.left_out, 1.5, 7, True, 1, "a", {}, True,
    )  # fmt: skip
    assert unpack_request(leaving_request("node-1")) == Leaving(Kind.LEAVING, "node-1")


def test_messages_about_loans_arrive() -> None:
    assert unpack_request(recall_request(STREAM)) == Recall(Kind.RECALL, "Account", "alice")
    for again in (True, False):
        assert unpack_answer(lent_answer(again=again), Parcel(), "b") == LentToUs(again)
    assert through_the_wire(Parcel(), borrower="node-1")[1].borrower == "node-1"


def test_a_command_of_a_version_without_loans_asks_for_none() -> None:
    body = command_request(
        STREAM, Parcel(), b"", seconds=1, since=None, told=False, sender="a", borrower="node-1"
    )
    parts = msgpack.unpackb(body)
    assert parts.pop() == "node-1"  # after all that older versions read
    older = unpack_request(msgpack.packb(parts))
    assert isinstance(older, Request)
    assert older.borrower is None


def test_a_request_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    body = command_request(STREAM, Parcel(), b"", seconds=1, since=None, told=False, sender="a")
    longer = msgpack.packb([*msgpack.unpackb(body), "something new"])
    assert unpack_request(longer) == unpack_request(body)
    with pytest.raises(ValueError, match="no request is of kind 77"):
        unpack_request(msgpack.packb([77, "x"]))


@settings(max_examples=150)
@given(reply=VALUES)
def test_a_reply_arrives_equal_in_value_and_type(reply: object) -> None:
    class Give(Command[Money | Place | Colour]):
        pass

    answer = unpack_answer(reply_answer(reply, Give(), "b"), Give(), "b")
    assert same(answer, reply)


class Tagged(str):
    __slots__ = ()


class Undeclared(NamedTuple):
    a: int


@pytest.mark.parametrize("reply", [Tagged("x"), Undeclared(1), object(), {"a": {1: Path("x")}}, "\ud800"])
def test_a_reply_that_cannot_travel_is_an_error_that_names_its_type_and_what_is_allowed(
    reply: object,
) -> None:
    command = Shipped(command_id="c-1")
    answer = unpack_answer(reply_answer(reply, command, "b"), command, "a")
    assert isinstance(answer, RaisedThere)
    error = answer.error
    assert isinstance(error, ReplyNotSent)
    assert (error.command, error.command_id, error.node) == ("Shipped", "c-1", "b")
    assert error.reply == type(reply).__qualname__
    assert "node b has handled Shipped 'c-1'" in str(error)
    assert "Reply with None, numbers, strings" in str(error)


def test_a_node_may_answer_that_it_does_not_serve_a_command() -> None:
    answer = unpack_answer(not_served_answer("it knows no Parcel"), Parcel(), "b")
    assert answer == NotServedHere("it knows no Parcel")


@given(data=st.binary())
def test_damaged_bytes_are_an_exception_and_nothing_else(data: bytes) -> None:
    for read in (unpack_request, lambda body: unpack_answer(body, Parcel(), "b")):
        with contextlib.suppress(Exception):
            read(data)


# --- errors ---

ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "CommandRejected": (("the balance is 3",), {}),
    "AskTimeout": (("Account<a>", "Credit", 1.5), {"started": True, "doing": "it sleeps"}),
    "UnknownCommand": (("Account", Parcel(number=3), ["Credit"]), {}),
    "SupervisorGaveUp": (("root", "child", "failed 3 times", ZeroDivisionError("division by zero")), {}),
    "MissingExtra": (("The live page", "page", ModuleNotFoundError("No module named 'starlette'")), {}),
    "InvalidConfig": (("bank.toml", [ConfigFault("bank.toml", 3, "system.name", "is no name")]), {}),
}
"""Of the errors whose constructors cannot be called with one sample of each parameter's annotation."""
SAMPLES = {
    "datetime.datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "int": 3,
    "float": 1.5,
    "object": "an object",
    "Path": Path("/data/bank"),
    "bool": True,
}


def sample(kind: type[BaseException]) -> BaseException:
    if kind.__name__ in ARGUMENTS:
        args, options = ARGUMENTS[kind.__name__]
        return kind(*args, **options)
    if "__init__" not in {
        name for base in kind.__mro__ if base.__module__.startswith("uno_") for name in vars(base)
    }:
        return kind("the text")
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        annotation = str(getattr(parameter.annotation, "__name__", parameter.annotation))
        is_many = "Iterable" in annotation or "Sequence" in annotation
        value = ["one", "two"] if is_many else SAMPLES.get(annotation.removesuffix(" | None"), f"a {name}")
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    return kind(*positional, **named)


def all_errors() -> list[type[UnoError]]:
    import uno_actors

    assert uno_actors.ActorSystem  # all modules that define errors are imported
    known = [
        error for name, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, UnoError)
    ]
    return [*known, GetTimeout, InvalidConfig]


def sent(error: BaseException, node: str = "b") -> Exception:
    return unpack_error(pack_error(error, node), node)


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_ours_arrives_with_its_data(kind: type[UnoError]) -> None:
    error = sample(kind)
    arrived = sent(error)
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert repr(arrived.args) == repr(error.args)
    assert vars(arrived).keys() == vars(error).keys()
    for name, value in vars(error).items():
        found = vars(arrived)[name]
        if isinstance(value, BaseException):
            assert (type(found), str(found)) == (type(value), str(value))
        else:
            assert type(found) is type(value)
            assert found == value


class Currency(Enum):
    EUR = 1


@dataclass(frozen=True)
class Limit:
    amount: Decimal
    currency: Currency


class TooMuch(CommandRejected):
    """As programs write them: with a constructor of their own, and data of their own classes."""

    def __init__(self, limit: Limit, *, asked: Decimal) -> None:
        super().__init__(f"at most {limit.amount}")
        self.limit = limit
        self.asked = asked
        self.line = Line(sku="a")


def test_a_rejection_of_the_program_arrives_as_its_class_with_its_data() -> None:
    limit = Limit(Decimal("10.0"), Currency.EUR)
    arrived = sent(TooMuch(limit, asked=Decimal(11)))
    assert isinstance(arrived, TooMuch)
    assert (arrived.limit, arrived.asked, arrived.reason) == (limit, Decimal(11), "at most 10.0")
    assert arrived.line == Line(sku="a")
    assert arrived.limit.currency is Currency.EUR


class Slotted(ValueError):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code


class Explodes(ValueError):
    """No code of a class may run when an error arrives."""

    def __new__(cls, *args: object) -> "Explodes":
        if args == ("made here",):
            return super().__new__(cls)
        raise AssertionError("code of the class has run")

    def __init__(self, *args: object) -> None:
        if args != ("made here",):
            raise AssertionError("code of the class has run")


OTHERS = [
    ZeroDivisionError("division by zero"),
    KeyError("missing"),
    FileNotFoundError(2, "No such file", "a.txt"),
    ConnectionRefusedError(111, "refused"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ImportError("no module", name="x", path="y"),
    SyntaxError("invalid", ("f.py", 1, 2, "x y", 1, 3)),
    ExceptionGroup("two", [ValueError("a"), CommandRejected("b")]),
    TimeoutError(),
    TimeoutError("late"),
    Slotted(7),
    ValueError(1, (2, Decimal("3.0")), {"a": {datetime(2026, 1, 1, tzinfo=UTC): timedelta(1)}}),
]


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
def test_an_exception_of_another_class_arrives_with_its_data(error: Exception) -> None:
    arrived = sent(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert repr(arrived.args) == repr(error.args)
    for name in (
        "errno",
        "strerror",
        "filename",
        "start",
        "reason",
        "name",
        "path",
        "lineno",
        "text",
        "code",
    ):
        assert getattr(arrived, name, None) == getattr(error, name, None)


class Guarded(BaseModel):
    amount: int = Field(gt=0)
    name: str = ""
    lines: list[Line] = Field(default=[])

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        if name == "bad":
            raise ValueError("no bad names")
        if name == "odd":
            raise PydanticCustomError("odd_name", "an {odd} name in {{braces}}", {"odd": "odd"})
        return name


@pytest.mark.parametrize(
    "values",
    [
        {"amount": 0},
        {},
        {"amount": "x", "name": "bad"},
        {"amount": 1, "name": "odd"},
        {"amount": 1, "lines": [{}]},
    ],
    ids=["constraint", "missing", "several", "custom", "nested"],
)
def test_what_pydantic_refuses_arrives_as_its_error(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Guarded.model_validate(values)
    arrived = sent(refused.value)
    assert isinstance(arrived, ValidationError)
    assert str(arrived) == str(refused.value)
    assert repr(arrived.errors()) == repr(refused.value.errors())


def test_no_code_of_the_class_runs_when_an_error_arrives() -> None:
    arrived = sent(Explodes("made here"))
    assert type(arrived) is Explodes


def test_an_exception_that_cannot_be_rebuilt_arrives_with_class_text_and_node() -> None:
    class Local(Exception):
        pass

    class Elsewhere(Exception):
        __module__ = "not_imported_here"

    sealed = ValueError("it holds a lock")
    sealed.lock = asyncio.Lock()  # type: ignore[attr-defined]
    for error in (Local("a text"), Elsewhere("a text"), sealed):
        arrived = sent(error, "node-b")
        assert isinstance(arrived, RemoteError)
        assert (arrived.kind, arrived.text, arrived.node) == (
            f"{type(error).__module__}.{type(error).__qualname__}",
            str(error),
            "node-b",
        )
        assert "node node-b raised" in str(arrived)
    assert "not_imported_here" not in sys.modules


def test_what_is_no_exception_is_never_made_by_its_name() -> None:
    import msgpack

    from uno_actors.domain.values import tagged

    for module, name in (
        ("os", "system"),
        ("builtins", "print"),
        ("pathlib", "Path"),
        ("builtins", "SystemExit"),
    ):
        data = msgpack.packb([tagged(40, module, name, ["echo"], {}, {}, None, "text"), ""])
        assert isinstance(unpack_error(data, "b"), RemoteError)


def test_the_cause_of_an_error_arrives_with_it() -> None:
    error = errors.as_error(SystemExit(3), "Account<a>")
    arrived = sent(error)
    assert isinstance(arrived, errors.ExitRaised)
    assert isinstance(arrived.__cause__, SystemExit)
    assert arrived.__cause__.code == 3


def test_the_traceback_of_the_other_node_arrives_as_a_note_but_not_that_of_a_rejection() -> None:
    def fails() -> None:
        raise ZeroDivisionError("there")

    with pytest.raises(ZeroDivisionError) as caught:
        fails()
    [note] = sent(caught.value, "node-b").__notes__
    assert note.startswith("On node node-b:\n")
    assert "in fails" in note
    with pytest.raises(CommandRejected) as rejected:
        raise CommandRejected("no")
    assert not hasattr(sent(rejected.value), "__notes__")
    assert not hasattr(sent(MailboxFull("Account<a>", 1000)), "__notes__")


def test_errors_of_odd_shapes_arrive_somehow() -> None:
    circular = ValueError("circular")
    circular.args = (circular,)
    looped = ValueError("looped")
    looped.__cause__ = looped
    for error in (circular, looped):
        assert isinstance(sent(error), Exception)
    answer = unpack_answer(error_answer(OutcomeUnknown("x", "y", "c", 3), "b"), Parcel(), "b")
    assert isinstance(answer, RaisedThere)
    assert isinstance(answer.error, OutcomeUnknown)
    assert answer.error.since == 3
    assert math.isfinite(len(describe(sent(DeadlockError(["a", "b"])))))
    assert isinstance(sent(AskTimeout("a", "B", 1, started=False, doing="")), TimeoutError)
