"""Annotations are read by one set of rules, wherever they are written and whatever decorators surround them."""

import functools
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, ForwardRef, Generic, NewType, Optional, Protocol, TypeVar, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from uno_actors import (
    ActorSystem,
    AggregateRoot,
    Command,
    DomainEvent,
    EventBus,
    EventHandler,
    HandlerContext,
    InvalidAggregate,
    InvalidHandler,
    MissingApply,
    ProcessManager,
    Projection,
    Refusal,
    UnknownCommand,
    handles,
    reacts,
    subscribe,
)
from uno_actors.annotations import Scope, UnreadableAnnotation
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.handlers.subscribe import gather
from uno_actors.processes.reactions import reactions_of, step_of


class A(DomainEvent):
    topic: str = "letters.a"


class B(DomainEvent):
    topic: str = "letters.b"


class SubA(A):
    pass


class Pay(Command[int]):
    amount: int = 1


class Refund(Command[int]):
    amount: int = 1


class Paid(DomainEvent):
    amount: int


Events = TypeVar("Events", bound=DomainEvent)
EitherOf = TypeVar("EitherOf", A, B)
C = TypeVar("C", bound=Command[Any])
Letter: typing.TypeAlias = "A | B"
LazyLetter = TypeAliasType("LazyLetter", "A | B")
NewA = NewType("NewA", A)


def wanted_by(handler: Any) -> set[type] | None:
    """The classes of events that a system would give it; ``None`` for all."""
    (spec,) = gather([handler])
    kinds = spec.event_type
    return None if kinds is None else set(kinds if isinstance(kinds, tuple) else (kinds,))


def annotated(annotation: Any) -> Callable[[Any], None]:
    def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = annotation
    return handler


# --- handlers ----------------------------------------------------------------------------------------------

EVENT_ANNOTATIONS: list[tuple[Any, set[type] | None]] = [
    (A, {A}),
    (A | B, {A, B}),
    (Union[A, B], {A, B}),  # noqa: UP007
    (Optional[A], {A}),  # noqa: UP045
    (A | None, {A}),
    (Annotated[A, "for the audit"], {A}),
    (Annotated[A | B, "for the audit"] | None, {A, B}),
    ("A", {A}),
    ("A | B", {A, B}),
    ("Optional[A]", {A}),
    (ForwardRef("A"), {A}),
    (Union["A", B], {A, B}),
    (Letter, {A, B}),
    ("Letter", {A, B}),
    (LazyLetter, {A, B}),
    (NewA, {A}),
    (Events, None),
    (EitherOf, {A, B}),
    (DomainEvent, None),
    (DomainEvent | A, None),
    (Any, None),
    (object, None),
    ("Any", None),
]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    EVENT_ANNOTATIONS,
    ids=lambda value: "" if isinstance(value, set) else str(value),
)
def test_the_annotation_of_the_event_decides_what_a_handler_gets(
    annotation: Any, expected: set[type] | None
) -> None:
    assert wanted_by(subscribe(name="by decorator")(annotated(annotation))) == expected
    assert wanted_by(HandlerSpec("by itself", annotated(annotation))) == expected


@pytest.mark.parametrize(
    ("annotation", "expected"),
    EVENT_ANNOTATIONS,
    ids=lambda value: "" if isinstance(value, set) else str(value),
)
def test_the_type_argument_decides_what_a_handler_class_gets(
    annotation: Any, expected: set[type] | None
) -> None:
    if isinstance(annotation, str):
        annotation = ForwardRef(annotation)

    async def handle(self: Any, event: Any) -> None: ...

    def made(base: Any) -> Any:
        return types.new_class("Made", (base[annotation],), {}, lambda body: body.update(body_of_module))

    body_of_module = {"__module__": __name__, "handle": handle}
    handler, projection = made(EventHandler), made(Projection)
    assert wanted_by(handler) == expected
    assert wanted_by(handler()) == expected
    assert wanted_by(projection()) == expected


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "the annotation int of annotated.<locals>.handler names int, which is not a DomainEvent"),
        (A | int, "names int, which is not a DomainEvent"),
        (Pay, "names Pay, which is not a DomainEvent"),
        (None, "names no DomainEvent"),
        (list[A], r"names list\[.*A\], which is not a DomainEvent: lists come only with batch=..."),
        (type[A], r"names type\[.*A\], which is not a DomainEvent"),
        (
            "Missing",
            r"the annotation 'Missing' of annotated.<locals>.handler is not defined \(name 'Missing' is not",
        ),
        ("A |", "is not defined"),
        ("A | 1 / 0", "is not defined"),
        (Union[ForwardRef("Missing"), A], "name 'Missing' is not defined"),  # noqa: UP007
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_an_annotation_that_names_no_events_is_an_error_with_the_remedy(annotation: Any, text: str) -> None:
    with pytest.raises(InvalidHandler, match=text) as caught:
        wanted_by(subscribe(name="mail")(annotated(annotation)))
    assert "handler mail" in str(caught.value)
    assert "or give event_type=..." in str(caught.value)
    with pytest.raises(InvalidHandler, match=text):
        wanted_by(HandlerSpec("mail", annotated(annotation)))
    assert wanted_by(subscribe(event_type=A, name="mail")(annotated(annotation))) == {A}, "event_type says"


def test_a_name_that_is_not_defined_yet_is_read_when_the_system_is_made() -> None:
    @subscribe(name="early")
    def early(event: "Later") -> None: ...

    class Later(DomainEvent):
        pass

    assert wanted_by(early) == {Later}


def logged(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def silent(function: Any) -> Any:
    """Declares no event types."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Held:
    """A decorator that is a class, and declares none either."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else functools.partial(self.function, instance)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def test_all_kinds_of_callables_are_read() -> None:
    class Callee:
        def __call__(self, event: "A") -> None: ...

    class Office:
        def receive(self, event: "A | B", context: HandlerContext) -> None: ...

        @subscribe(name="in its class")
        def decorated(self, event: "A") -> None: ...

    def two(first: str, event: "B") -> None: ...

    @logged
    def wrapped(event: "A") -> None: ...

    def variadic(*events: "A") -> None: ...

    class Base(EventHandler[Events]):
        def handle(self, event: Events) -> None: ...

    class Mine(Base[A]): ...

    assert wanted_by(HandlerSpec("object", Callee())) == {A}
    assert wanted_by(HandlerSpec("class", Callee)) == {A}
    assert wanted_by(HandlerSpec("method", Office().receive)) == {A, B}
    assert wanted_by(Office().decorated) == {A}
    assert wanted_by(HandlerSpec("partial", functools.partial(two, "x"))) == {B}
    assert wanted_by(HandlerSpec("wrapped", wrapped)) == {A}
    assert wanted_by(HandlerSpec("variadic", variadic)) == {A}
    assert wanted_by(HandlerSpec("built in", print)) is None
    assert wanted_by(Mine) == {A}
    assert wanted_by(Base) is None


def test_in_a_handler_class_the_type_argument_and_the_annotation_both_apply() -> None:
    class Narrow(EventHandler[DomainEvent]):
        def handle(self, event: A) -> None: ...

    class Narrower(EventHandler[A | B]):
        def handle(self, event: SubA) -> None: ...

    class Wide(EventHandler[A]):
        def handle(self, event: DomainEvent) -> None: ...

    class Neither(EventHandler[A]):
        def handle(self, event: B) -> None: ...

    class Said(EventHandler[DomainEvent]):
        def __init__(self) -> None:
            super().__init__(B)

        def handle(self, event: DomainEvent) -> None: ...

    assert wanted_by(Narrow) == {A}
    assert wanted_by(Narrower) == {SubA}
    assert wanted_by(Wide) == {A}
    assert wanted_by(Said) == {B}
    assert wanted_by(Said()) == {B}
    with pytest.raises(InvalidHandler, match="write the same in both"):
        wanted_by(Neither)


def test_a_handler_of_batches_is_annotated_with_lists() -> None:
    for annotation in (list[A], Sequence[A], tuple[A, ...], "list[A]", A):
        assert wanted_by(subscribe(name="batches", batch=2)(annotated(annotation))) == {A}
    for annotation in (list, list[Any], Sequence[DomainEvent], Any):
        assert wanted_by(subscribe(name="batches", batch=2)(annotated(annotation))) is None
    assert wanted_by(subscribe(name="batches", batch=2)(annotated(list[A | B]))) == {A, B}


async def test_a_bus_and_a_system_give_a_handler_only_the_events_in_its_annotation() -> None:
    heard: list[tuple[str, str]] = []

    @subscribe(name="only a")
    async def only_a(event: A) -> None:
        heard.append(("only a", event.event_type))

    @subscribe(name="both", topic_pattern="letters.*")
    async def both_hold(event: A | B) -> None:
        heard.append(("both", event.event_type))

    @subscribe(name="neither", topic_pattern="letters.b")
    async def neither(event: A) -> None:
        heard.append(("neither", event.event_type))

    bus = EventBus()
    for handler in (only_a, both_hold, neither):
        bus.subscribe(handler)
    await bus.publish(A(), B(), SubA(topic="others"))
    expected = [("only a", "A"), ("only a", "SubA"), ("both", "A"), ("both", "B")]
    assert sorted(heard) == sorted(expected)
    heard.clear()
    async with ActorSystem("memory:", handlers=[only_a, both_hold, neither]) as system:
        await system.publisher.publish(A(), B(), SubA(topic="others"))
        await system.settled()
    assert sorted(heard) == sorted(expected)


CLASSES: tuple[type[DomainEvent], ...] = (A, B, SubA, Paid)


def ways(inner: st.SearchStrategy[tuple[Any, set[type]]]) -> st.SearchStrategy[tuple[Any, set[type]]]:
    """Annotations that stand for other ones, with the classes that they mean."""

    def union(parts: list[tuple[Any, set[type]]]) -> tuple[Any, set[type]]:
        return Union[tuple(part for part, _ in parts)], set().union(*(kinds for _, kinds in parts))  # noqa: UP007

    return (
        st.lists(inner, min_size=1, max_size=3).map(union)
        | inner.map(lambda one: (Optional[one[0]], one[1]))  # noqa: UP045
        | inner.map(lambda one: (Annotated[one[0], "why"], one[1]))
        | inner.map(lambda one: (TypeAliasType("Alias", one[0]), one[1]))
        | inner.map(lambda one: (TypeVar("V", bound=one[0]), one[1]))
    )


single = st.sampled_from(CLASSES).flatmap(
    lambda kind: st.sampled_from(
        [(kind, {kind}), (ForwardRef(kind.__name__), {kind}), (NewType("N", kind), {kind})]
    )
)


@settings(deadline=None)
@given(st.recursive(single, ways, max_leaves=6))
def test_however_an_annotation_is_written_it_stands_for_the_same_classes(case: tuple[Any, set[type]]) -> None:
    annotation, kinds = case
    assert set(Scope(annotated(A)).alternatives(annotation)) == kinds
    assert wanted_by(HandlerSpec("h", annotated(annotation))) == kinds


def test_an_alias_that_stands_for_itself_does_not_loop_forever() -> None:
    endless = TypeAliasType("endless", "endless")
    globals_of = dict(globals()) | {"endless": endless}
    function = types.FunctionType(annotated(A).__code__, globals_of)
    with pytest.raises(UnreadableAnnotation, match="stands for itself"):
        Scope(function).alternatives(endless)


# --- methods of aggregates and processes -------------------------------------------------------------------


class Purse(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.paid = 0

    def apply_paid(self, event: Paid) -> None:
        self.paid += event.amount


class CanPay:
    """A plain mixin."""

    paid: int
    register_event: Callable[[DomainEvent], None]

    @handles
    def pay(self, command: Pay) -> int:
        self.register_event(Paid(amount=command.amount))
        return self.paid


def pays(kind: type[AggregateRoot]) -> bool:
    return kind("a").handle(Pay(amount=3)) == 3


def _plain_mixin() -> type[AggregateRoot]:
    class Made(CanPay, Purse): ...

    return Made


def _mixin_after() -> type[AggregateRoot]:
    class Made(Purse, CanPay): ...

    return Made


def _mixin_of_a_mixin() -> type[AggregateRoot]:
    class More(CanPay): ...

    class Made(More, Purse): ...

    return Made


def _protocol() -> type[AggregateRoot]:
    class Pays(Protocol):
        @handles
        def pay(self, command: Pay) -> int: ...

    class Made(Purse, Pays):
        @handles
        def pay(self, command: Pay) -> int:
            self.register_event(Paid(amount=command.amount))
            return self.paid

    return Made


def _abstract() -> type[AggregateRoot]:
    class Base(Purse, ABC):
        @handles
        @abstractmethod
        def pay(self, command: "Pay") -> int: ...

    class Made(Base):
        @handles
        def pay(self, command: "Pay") -> int:
            self.register_event(Paid(amount=command.amount))
            return self.paid

    with pytest.raises(TypeError, match="abstract"):
        Base("a")
    return Made


def _abc_and_local_names() -> type[AggregateRoot]:
    class Local(Pay): ...

    class Made(Purse, ABC):
        @handles
        def pay(self, command: "Local") -> int:
            self.register_event(Paid(amount=command.amount))
            return self.paid

    assert Made("a").handle(Local(amount=3)) == 3
    with pytest.raises(UnknownCommand):
        Made("a").handle(Pay())

    class Others(Made):
        @handles
        def pay_all(self, command: "Pay") -> int:
            return self.pay(command)  # type: ignore[arg-type]

    return Others


def _own_init_subclass() -> type[AggregateRoot]:
    class Local(Pay): ...

    class Base(Purse):
        tag = ""

        def __init_subclass__(cls, *, tag: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            cls.tag = tag

    class Made(Base, tag="x"):
        @handles
        def pay(self, command: "Pay | None") -> int:
            self.register_event(Paid(amount=command.amount if command else 0))
            return self.paid

        @handles
        def pay_local(self, command: "Local") -> int:
            return 0

    assert Made.tag == "x"
    assert Made("a").handle(Local()) == 0
    return Made


def _own_metaclass() -> type[AggregateRoot]:
    class Local(Pay): ...

    class Meta(type):
        def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
            return super().__new__(mcs, name, bases, body)

    class Made(Purse, metaclass=Meta):
        @handles
        def pay(self, command: "Pay") -> int:
            self.register_event(Paid(amount=command.amount))
            return self.paid

        @handles
        def pay_local(self, command: "Local") -> int:
            return 0

    assert Made("a").handle(Local()) == 0
    return Made


def _local_names_of_a_function_that_has_returned() -> type[AggregateRoot]:
    def mixin() -> tuple[type, type[Command[int]]]:
        class Local(Command[int]): ...

        class Mixin:
            @handles
            def local(self, command: "Local") -> int:
                return 5

        return Mixin, Local

    found, local = mixin()

    class Made(found, CanPay, Purse): ...  # type: ignore[misc, valid-type]

    assert Made("a").handle(local()) == 5
    return Made


def _nested_command() -> type[AggregateRoot]:
    class Made(CanPay, Purse):
        class Inner(Command[int]): ...

        @handles
        def inner(self, command: "Inner") -> int:
            return 7

        @handles
        def outer(self, command: "Made.Other") -> int:
            return 8

        class Other(Command[int]): ...

    assert (Made("a").handle(Made.Inner()), Made("a").handle(Made.Other())) == (7, 8)
    return Made


def _generic_mixin() -> type[AggregateRoot]:
    class Takes(Generic[C]):
        @handles
        def take(self, command: C) -> int:
            self.register_event(Paid(amount=command.amount))  # type: ignore[attr-defined]
            return self.paid  # type: ignore[attr-defined,no-any-return]

    class Still(Takes[C], Purse): ...

    class Made(Still[Pay]): ...

    with pytest.raises(UnknownCommand):
        Made("a").handle(Refund())
    with pytest.raises(InvalidAggregate, match=r"take takes C, and Open does not say which type that is"):

        class Open(Still): ...  # type: ignore[type-arg]

    return Made


def _dataclass() -> type[AggregateRoot]:
    @dataclass
    class Made(CanPay, Purse):
        name: str
        notes: list[str] = field(default_factory=list)

        def __post_init__(self) -> None:
            Purse.__init__(self, self.name)

    return Made


def _dataclass_with_slots() -> type[AggregateRoot]:
    class Local(Pay): ...

    @dataclass(slots=True)
    class Made(CanPay, Purse):
        name: str

        @handles
        def pay_local(self, command: "Local") -> int:
            return 2

        def __post_init__(self) -> None:
            Purse.__init__(self, self.name)

    assert Made("a").handle(Local()) == 2
    return Made


def _with_parentheses() -> type[AggregateRoot]:
    class Made(Purse):
        @handles()
        def pay(self, command: Pay) -> int:
            self.register_event(Paid(amount=command.amount))
            return self.paid

    return Made


def _decorated(*decorators: Callable[[Any], Any]) -> type[AggregateRoot]:
    def pay(self: Any, command: "Pay") -> int:
        self.register_event(Paid(amount=command.amount))
        return int(self.paid)

    method: Any = pay
    for decorator in decorators:
        method = decorator(method)
    return type("Made", (Purse,), {"pay": method})


WAYS_TO_HANDLE: dict[str, Callable[[], type[AggregateRoot]]] = {
    way.__name__.strip("_"): way
    for way in (
        _plain_mixin,
        _mixin_after,
        _mixin_of_a_mixin,
        _protocol,
        _abstract,
        _abc_and_local_names,
        _own_init_subclass,
        _own_metaclass,
        _local_names_of_a_function_that_has_returned,
        _nested_command,
        _generic_mixin,
        _dataclass,
        _dataclass_with_slots,
        _with_parentheses,
    )
} | {
    " ".join(decorator.__name__ for decorator in order): functools.partial(_decorated, *order)
    for order in [
        (handles, logged),
        (logged, handles),
        (handles, silent),
        (silent, handles),
        (handles, Held),
        (logged, handles, silent),
        (logged, handles, silent, silent),
    ]
}


@pytest.mark.parametrize("way", WAYS_TO_HANDLE)
def test_a_command_is_handled_wherever_the_aggregate_has_its_method_from(way: str) -> None:
    assert pays(WAYS_TO_HANDLE[way]())


def test_names_are_looked_up_in_the_module_of_the_method_and_not_of_its_decorator() -> None:
    """The decorator's module has its own ``Pay``, and so has the module of the class."""
    there: dict[str, Any] = {"functools": functools, "Pay": Refund}
    exec(  # noqa: S102
        "def other(f):\n    @functools.wraps(f)\n    def w(*a, **k): return f(*a, **k)\n    return w", there
    )

    class Made(Purse):
        @there["other"]  # type: ignore[untyped-decorator]
        @handles
        def pay(self, command: "Pay") -> int:
            return 4

    assert Made("a").handle(Pay()) == 4


async def _is_async(self: Any, command: Pay) -> int:
    return 1


def _yields(self: Any, command: Pay) -> Any:
    yield 1


def _by_keyword(self: Any, *, command: Pay) -> int:
    return 1


def _takes_pay(self: Any, command: Pay) -> int:
    return 1


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (handles(staticmethod(_takes_pay)), "@handles method pay is a staticmethod, not a plain method"),
        (staticmethod(handles(_takes_pay)), "is a staticmethod"),
        (classmethod(handles(_takes_pay)), "is a classmethod"),
        (property(handles(_takes_pay)), "is a property"),
        (handles(_is_async), "@handles method pay is async; it must decide from the state alone"),
        (logged(handles(_is_async)), "is async"),
        (handles(silent(_is_async)), "hidden by a decorator"),
        (handles(_by_keyword), "must take one command, found 0 parameters"),
        (handles(_yields), "has a yield in it, so calling it would do nothing"),
        (handles(silent(_takes_pay)), "hidden by a decorator, .*: use functools.wraps in it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_method_that_cannot_decide_is_refused_with_the_reason(method: Any, text: str) -> None:
    with pytest.raises(InvalidAggregate, match=text):
        type("Wrong", (AggregateRoot,), {"pay": method})


async def _applies_later(self: Any, event: Paid) -> None: ...


def _applies_never(self: Any, event: Paid) -> Any:
    yield


@pytest.mark.parametrize("apply", [_applies_later, logged(_applies_later), _applies_never])
def test_an_apply_method_that_would_change_nothing_is_refused(apply: Any) -> None:
    with pytest.raises(
        InvalidAggregate, match="apply_paid is async or has a yield, so calling it would change"
    ):
        type("Wrong", (AggregateRoot,), {"apply_paid": apply})


def test_an_event_class_named_event_is_applied_by_apply_event() -> None:
    class Event(DomainEvent): ...

    class Created(Event): ...

    class Mine(AggregateRoot):
        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.seen: list[str] = []

        def apply_event(self, event: Event) -> None:
            self.seen.append(event.event_type)

    class Lacks(AggregateRoot): ...

    mine = Mine("a")
    mine.register_event(Event())
    mine.register_event(Created())
    assert mine.seen == ["Event", "Created"]
    with pytest.raises(MissingApply, match=r"define apply_event\(self, event\)"):
        Lacks("a").register_event(Event())


async def test_a_process_that_reacts_to_all_events_does_not_react_to_its_own_reactions() -> None:
    class All(ProcessManager):
        count: ClassVar[int] = 0

        @reacts
        def on_all(self, event: DomainEvent) -> None:
            All.count += 1

    async with ActorSystem("memory:", aggregates=[All], handlers=[All.handler(start="earliest")]) as system:
        await system.publisher.publish(A(correlation_id="p"), B(correlation_id="p"))
        await system.settled()
    assert All.count == 2


@pytest.mark.parametrize("found", [Pay, "pay", 3, None.__class__])
def test_handles_stands_above_a_method_and_takes_no_arguments(found: Any) -> None:
    with pytest.raises(InvalidAggregate, match="write @handles alone above a method"):
        handles(found)
    with pytest.raises(InvalidAggregate, match="write @reacts alone above a method"):
        reacts(found)


def test_a_marked_method_that_is_overridden_must_be_marked_again_in_mixins_too() -> None:
    with pytest.raises(
        InvalidAggregate, match="pay overrides a method that handles Pay: mark it with @handles too"
    ):

        class Wrong(CanPay, Purse):
            def pay(self, command: Pay) -> int:
                return 0

    class Quiet:
        def pay(self, command: Pay) -> int:
            return 0

    with pytest.raises(InvalidAggregate, match=r"Quiet.pay overrides a method that handles Pay"):

        class AlsoWrong(Quiet, CanPay, Purse): ...


class ReactsToA:
    seen: list[str]

    @reacts
    def on_a(self, event: "A") -> None:
        self.seen.append("on_a")


class Process(ProcessManager):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.seen: list[str] = []


def test_reactions_are_read_by_the_same_rules() -> None:
    class Local(DomainEvent): ...

    class Mixed(ReactsToA, Process):
        @reacts()
        def on_others(self, event: "B | Local | Refusal[Pay | Refund]") -> None: ...

    class Silenced(Process):
        @silent
        @reacts
        def on_any_refusal(self, refusal: Refusal) -> None:  # type: ignore[type-arg]
            self.seen.append("on_any_refusal")

    assert reactions_of(Mixed) == {
        A: "on_a", B: "on_others", Local: "on_others", Pay: "on_others", Refund: "on_others",
    }  # fmt: skip
    assert set(Mixed.handler().event_type or ()) == {A, B, Local}  # type: ignore[arg-type]
    assert reactions_of(Silenced) == {Command: "on_any_refusal"}
    silenced = Silenced("a")
    silenced.handle(step_of(Silenced, A(), "e", Refusal(Pay(), "no")))
    assert silenced.seen == ["on_any_refusal"]


def test_a_reaction_in_an_aggregate_that_is_not_a_process_manager_is_not_silently_ignored() -> None:
    with pytest.raises(
        InvalidAggregate, match="on_a is marked with @reacts, and Wrong is not a ProcessManager"
    ):

        class Wrong(ReactsToA, AggregateRoot): ...
