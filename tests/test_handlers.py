"""How handlers are subscribed, named, gathered and called."""

import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.bank import Credited, Debited
from uno_actors import (
    ActorSystem,
    DomainEvent,
    EventHandler,
    EventPriority,
    HandlerContext,
    InvalidHandler,
    InvalidTopic,
    Supervisor,
    subscribe,
    testing,
)
from uno_actors.handlers.spec import BoundHandler, HandlerSpec
from uno_actors.handlers.subscribe import HandlerRegistry, gather, handler_registry
from uno_actors.topics import TopicPattern

pytestmark = pytest.mark.uno_actors_leaks

HERE = __name__


@pytest.fixture(autouse=True)
def registry(own_handlers: HandlerRegistry) -> HandlerRegistry:
    return own_handlers


def plain(event: DomainEvent) -> None: ...


class Mailer(EventHandler[Credited]):
    def __init__(self) -> None:
        super().__init__(Credited)

    async def handle(self, event: Credited) -> None: ...


def spec_of(*handlers: object) -> HandlerSpec:
    (spec,) = gather(handlers)
    return spec


# --- subscribing ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (None, None, EventPriority.NORMAL, "latest", 5)),  # every event
        ({"event_type": Credited}, (Credited, None, EventPriority.NORMAL, "latest", 5)),
        ({"topic_pattern": "bank.*"}, (None, "bank.*", EventPriority.NORMAL, "latest", 5)),
        (
            {"event_type": Credited, "topic_pattern": "bank.>", "priority": EventPriority.HIGH},
            (Credited, "bank.>", EventPriority.HIGH, "latest", 5),
        ),
        ({"start": "earliest", "max_attempts": 1}, (None, None, EventPriority.NORMAL, "earliest", 1)),
        ({"priority": 2}, (None, None, EventPriority.LOW, "latest", 5)),  # as a configuration may have it
    ],
)
def test_subscribe_keeps_its_arguments(arguments: dict[str, Any], expected: tuple[Any, ...]) -> None:
    @subscribe(**arguments)
    def handler(event: DomainEvent) -> None: ...

    spec = spec_of(handler)
    event_type, pattern, *rest = expected
    assert spec.target is handler
    assert spec.event_type is event_type
    assert spec.topic_pattern == (pattern and TopicPattern(pattern))
    assert [spec.priority, spec.start, spec.max_attempts] == rest


def test_subscribe_returns_what_it_decorates_and_enters_it_in_the_registry(
    registry: HandlerRegistry,
) -> None:
    decorated = subscribe(event_type=Credited, name="mine")(plain)
    try:
        assert decorated is plain
        assert [spec.target for spec in registry.values()] == [plain]
    finally:
        del plain.__subscription__  # type: ignore[attr-defined]


def test_the_default_name_is_the_qualified_name() -> None:
    @subscribe()
    def handler(event: DomainEvent) -> None: ...

    function = "test_the_default_name_is_the_qualified_name"
    assert spec_of(handler).name == f"{HERE}.{function}.<locals>.handler"
    assert spec_of(Mailer).name == f"{HERE}.Mailer"
    assert spec_of(Mailer()).name == f"{HERE}.Mailer"


def test_a_handler_that_is_defined_again_replaces_itself(
    registry: HandlerRegistry,
) -> None:
    def define() -> Callable[[DomainEvent], None]:
        @subscribe()
        def handler(event: DomainEvent) -> None: ...

        return handler

    define()
    again = define()
    assert [spec.target for spec in registry.values()] == [again]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "x" * 201}, "must have 1 to 200 bytes"),
        ({"name": "ü" * 101}, "must have 1 to 200 bytes"),  # bytes, not characters
        ({"name": "a\0b"}, "no NUL"),
        ({"event_type": int}, "event_type must be a DomainEvent class, not <class 'int'>"),
        ({"event_type": "Credited"}, "event_type must be a DomainEvent class, not 'Credited'"),
        (
            {"start": "yesterday"},
            "start must be 'latest', 'earliest', a position .* or a datetime, not 'yesterday'",
        ),
        ({"start": -1}, "start must be .* not -1"),
        ({"start": True}, "start must be .* not True"),
        ({"timeout": 0}, "timeout must be a positive number of seconds, or None, not 0"),
        ({"timeout": float("inf")}, "timeout must be a positive number of seconds, or None, not inf"),
        ({"timeout": "1s"}, "timeout must be a positive number of seconds, or None, not '1s'"),
        ({"concurrency": 0}, "concurrency must be 1 or more, not 0"),
        ({"concurrency": 1.5}, "concurrency must be 1 or more, not 1.5"),
        ({"batch": 0}, "batch must be 1 or more, or None, not 0"),
        (
            {"aggregate_type": DomainEvent},
            "aggregate_type must be an AggregateRoot class or the name of its type",
        ),
        (
            {"aggregate_type": ""},
            "aggregate_type must be an AggregateRoot class or the name of its type, not ''",
        ),
        ({"batch": 2, "concurrency": 2}, "batch and concurrency exclude each other"),
        ({"max_attempts": 0}, "max_attempts must be 1 or more, not 0"),
        ({"priority": "high"}, "priority must be one of HIGH, NORMAL, LOW, not 'high'"),
        ({"priority": 7}, "priority must be one of HIGH, NORMAL, LOW, not 7"),
    ],
)
def test_invalid_arguments_are_reported_where_they_are_written(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidHandler, match=message):
        subscribe(**{"name": "handler", **arguments})(lambda event: None)
    assert not handler_registry


def test_a_malformed_pattern_is_an_error_where_it_is_written() -> None:
    with pytest.raises(InvalidTopic, match=r"bank\.\.x"):
        subscribe(topic_pattern="bank..x")


def test_forgotten_parentheses_are_reported() -> None:
    with pytest.raises(InvalidHandler, match=r"write @subscribe\(\.\.\.\) with parentheses before handler"):

        @subscribe  # type: ignore[arg-type]
        def handler(event: DomainEvent) -> None: ...

    with pytest.raises(InvalidHandler, match=r"write @subscribe\(\.\.\.\) with parentheses before Handler"):

        @subscribe  # type: ignore[arg-type]
        class Handler(EventHandler[DomainEvent]): ...


def test_a_function_that_is_subscribed_twice_does_not_silently_lose_the_first() -> None:
    def function(event: DomainEvent) -> None: ...

    subscribe(topic_pattern="a.*")(function)
    with pytest.raises(
        InvalidHandler, match=r"function is subscribed already.* another function that calls it"
    ):
        subscribe(topic_pattern="b.*")(function)


def test_what_has_no_name_needs_one() -> None:
    partial = functools.partial(plain)
    with pytest.raises(InvalidHandler, match="name="):
        subscribe()(partial)
    assert spec_of(subscribe(name="partial")(partial)).name == "partial"


class Office:
    """Its methods are handlers."""

    @subscribe(event_type=Credited, name="office", timeout=3)
    async def send_receipt(self, event: Credited) -> None: ...

    @subscribe(name="both")
    def send_both(self, event: Credited, context: HandlerContext) -> None: ...

    def not_subscribed(self, event: Credited) -> None: ...


def test_a_method_decorated_in_its_class_is_served_for_its_instance() -> None:
    office = Office()
    spec = spec_of(office.send_receipt)
    assert (spec.name, spec.event_type, spec.timeout) == ("office", Credited, 3)
    assert spec.target == office.send_receipt
    assert spec.instantiate().is_async
    assert spec_of(office.send_both).instantiate().takes_context
    with pytest.raises(
        InvalidHandler, match="Office.send_receipt is a method: give the system the one of an obj"
    ):
        spec_of(Office.send_receipt)


def test_a_method_without_an_instance_is_not_in_the_registry() -> None:
    class Late:
        @subscribe(name="late")
        def on_event(self, event: DomainEvent) -> None: ...

    assert not handler_registry


def test_a_bound_method_is_subscribed_by_itself_and_found_again() -> None:
    office = Office()
    assert subscribe(name="method", batch=7)(office.not_subscribed) == office.not_subscribed
    (entered,) = handler_registry.values()
    assert spec_of(office.not_subscribed) is entered
    assert entered.batch == 7
    assert spec_of(HandlerSpec("method", Office().not_subscribed)).name == "method"
    with pytest.raises(InvalidHandler, match="decorate the method with @subscribe"):
        spec_of(Office().not_subscribed)


def test_an_object_that_cannot_carry_a_subscription_is_refused_with_a_remedy() -> None:
    with pytest.raises(InvalidHandler, match="subscribe a function that calls it"):
        subscribe(name="print")(print)
    assert not handler_registry


def test_handlers_are_gathered_from_a_module_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_of_tests").mkdir()
    (tmp_path / "shop_of_tests" / "__init__.py").touch()
    (tmp_path / "shop_of_tests" / "handlers.py").write_text(
        "from uno_actors import subscribe\n@subscribe(name='by name')\ndef handle(event): ...\n"
    )
    (tmp_path / "shop_of_tests" / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [spec.name for spec in gather(["shop_of_tests.handlers"])] == ["by name"]
    with pytest.raises(
        InvalidHandler, match=r"'shop_of_tests.nothing': it cannot be imported \(ModuleNotFound"
    ):
        list(gather(["shop_of_tests.nothing"]))
    with pytest.raises(InvalidHandler, match=r"'shop_of_tests.broken': it cannot be imported \(ZeroDivision"):
        list(gather(["shop_of_tests.broken"]))
    with pytest.raises(InvalidHandler, match=r"write \['shop_of_tests.handlers'\]"):
        list(gather("shop_of_tests.handlers"))


@pytest.mark.parametrize("start", [0, 7, datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2)])  # noqa: DTZ001
def test_a_handler_may_start_at_a_position_or_a_time(start: int | datetime) -> None:
    spec = HandlerSpec("x", lambda event: None, start=start)
    assert spec.start == start


def test_a_class_that_cannot_handle_is_refused_where_it_is_decorated() -> None:
    class Nothing:
        pass

    class Callable_:  # noqa: N801 - its kind is its name
        def __call__(self, event: DomainEvent) -> None: ...

    with pytest.raises(InvalidHandler, match="Nothing"):
        subscribe()(Nothing)
    assert callable(spec_of(subscribe()(Callable_)).instantiate().function)


@pytest.mark.parametrize("target", [3, None, b"name", object()])
def test_an_object_that_cannot_be_called_is_not_a_handler(target: object) -> None:
    with pytest.raises(InvalidHandler, match="is not an event handler"):
        HandlerSpec("x", target)
    with pytest.raises(InvalidHandler, match=r"is not an event handler: decorate a function with @subscribe"):
        list(gather([target]))


def test_an_undecorated_function_is_not_silently_skipped() -> None:
    with pytest.raises(InvalidHandler, match="decorate a function"):
        list(gather([plain]))


# --- gathering ---


def test_a_handler_class_declares_its_event_type() -> None:
    assert spec_of(Mailer).event_type is Credited
    assert spec_of(Mailer()).event_type is Credited


def test_the_decorator_wins_over_the_class() -> None:
    class Mine(Mailer):
        pass

    assert spec_of(subscribe(event_type=Debited)(Mine)).event_type is Debited
    assert spec_of(subscribe(topic_pattern="a.*")(Mine)).event_type is Credited


def test_an_instance_of_a_decorated_class_is_used_itself() -> None:
    @subscribe(topic_pattern="bank.*", priority=EventPriority.LOW, name="mine")
    class Mine(Mailer):
        pass

    instance = Mine()
    spec = spec_of(instance)
    assert (spec.name, spec.priority, spec.event_type) == ("mine", EventPriority.LOW, Credited)
    assert spec.target is instance
    assert spec_of(Mine).target is Mine


def test_a_subclass_does_not_inherit_the_subscription_of_its_base() -> None:
    @subscribe(topic_pattern="bank.*", name="base")
    class Base(Mailer):
        pass

    class Sub(Base):
        pass

    assert spec_of(Sub).topic_pattern is None
    assert spec_of(Sub).name.endswith("Sub")
    assert spec_of(Sub()).name.endswith("Sub")


def test_a_module_gives_the_handlers_that_it_defines() -> None:
    module = types.ModuleType("bank_mail")

    def of(name: str, module_name: str) -> Callable[[DomainEvent], None]:
        def handler(event: DomainEvent) -> None: ...

        handler.__module__, handler.__qualname__ = module_name, name
        return subscribe()(handler)

    module.send = of("send", "bank_mail")  # type: ignore[attr-defined]
    module.audit = of("audit", "bank_mail")  # type: ignore[attr-defined]
    module.alias = module.audit  # type: ignore[attr-defined]
    module.imported = of("imported", "elsewhere")  # type: ignore[attr-defined]
    module.undecorated = plain  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    assert [spec.name for spec in gather([module])] == ["bank_mail.send", "bank_mail.audit"]


def test_two_handlers_of_one_name_are_refused_by_a_system() -> None:
    @subscribe(name="mail")
    def one(event: DomainEvent) -> None: ...

    @subscribe(name="mail")
    def two(event: DomainEvent) -> None: ...

    with pytest.raises(InvalidHandler, match="two handlers are named 'mail'"):
        ActorSystem(handlers=[one, two])
    with pytest.raises(InvalidHandler, match="two supervisors are named 'same'"):
        ActorSystem(handlers=[], supervisors=[Supervisor("same"), Supervisor("same")])


def test_a_handler_under_a_supervisor_is_not_taken_a_second_time() -> None:
    @subscribe(name="mail")
    def one(event: DomainEvent) -> None: ...

    system = ActorSystem(supervisors=[Supervisor("mine", [one])])
    assert [(s.name, [spec.name for spec in s.specs]) for s in testing.inspect(system).supervisors] == [
        ("handlers", []),
        ("mine", ["mail"]),
    ]


# --- calling ---


class AsyncCallable:
    async def __call__(self, event: DomainEvent) -> str:
        return "async callable"


class PlainCallable:
    def __call__(self, event: DomainEvent, context: HandlerContext) -> str:
        return "plain callable"


async def async_one(event: DomainEvent) -> str:
    return "async one"


async def async_two(event: DomainEvent, context: HandlerContext) -> str:
    return "async two"


def plain_optional(event: DomainEvent, retries: int = 3) -> str:
    return f"plain optional {retries}"


def plain_variadic(event: DomainEvent, *rest: object) -> str:
    return f"plain variadic {len(rest)}"


def three(prefix: str, event: DomainEvent, context: HandlerContext) -> str:
    return f"{prefix} three"


async def async_three(prefix: str, event: DomainEvent, context: HandlerContext) -> str:
    return f"{prefix} async three"


class Methods:
    async def one(self, event: DomainEvent) -> str:
        return "async method"

    def two(self, event: DomainEvent, context: HandlerContext) -> str:
        return "plain method"

    @staticmethod
    async def static(event: DomainEvent) -> str:
        return "static"

    @classmethod
    def klass(cls, event: DomainEvent) -> str:
        return "class"


@pytest.mark.parametrize(
    ("target", "is_async", "takes_context", "result"),
    [
        (async_one, True, False, "async one"),
        (async_two, True, True, "async two"),
        (lambda event: "lambda", False, False, "lambda"),
        (plain_optional, False, False, "plain optional 3"),  # a default is not for the context
        (plain_variadic, False, False, "plain variadic 0"),
        (AsyncCallable(), True, False, "async callable"),
        (PlainCallable(), False, True, "plain callable"),
        (AsyncCallable, True, False, "async callable"),  # a class is instantiated
        (functools.partial(three, "partial"), False, True, "partial three"),
        (functools.partial(async_three, "partial"), True, True, "partial async three"),
        (functools.partial(functools.partial(async_three), "nested"), True, True, "nested async three"),
        (functools.partial(AsyncCallable()), True, False, "async callable"),
        (Methods().one, True, False, "async method"),
        (Methods().two, False, True, "plain method"),
        (Methods.static, True, False, "static"),
        (Methods.klass, False, False, "class"),
    ],
)
async def test_the_way_to_call_a_target_is_determined_once(
    target: Any, is_async: bool, takes_context: bool, result: str
) -> None:
    bound = HandlerSpec("x", target).instantiate()
    assert (bound.is_async, bound.takes_context) == (is_async, takes_context)
    context: Any = object()
    returned = bound(Credited(amount=1), context)
    assert (await returned if inspect.isawaitable(returned) else returned) == result


async def test_the_context_is_passed() -> None:
    seen: list[object] = []

    def handler(event: DomainEvent, context: object) -> None:
        seen.append(context)

    context: Any = object()
    BoundHandler(handler)(Credited(amount=1), context)
    assert seen == [context]


def test_a_class_is_instantiated_each_time_and_an_instance_is_reused() -> None:
    one, two = HandlerSpec("x", Mailer).instantiate(), HandlerSpec("x", Mailer).instantiate()
    assert one.function.__self__ is not two.function.__self__  # type: ignore[attr-defined]
    mailer = Mailer()
    spec = HandlerSpec("x", mailer)
    assert spec.instantiate().function.__self__ is spec.instantiate().function.__self__ is mailer  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", [lambda: None, lambda event, context, more: None])
def test_a_function_of_the_wrong_number_of_parameters_is_refused(target: Callable[..., None]) -> None:
    with pytest.raises(InvalidHandler, match="must take the event, and may take the HandlerContext"):
        subscribe(name="wrong")(target)


def yields(event: DomainEvent) -> Iterator[None]:
    yield


async def yields_too(event: DomainEvent) -> AsyncIterator[None]:
    yield


class Yields(EventHandler[Credited]):
    async def handle(self, event: Credited) -> AsyncIterator[None]:
        yield


@pytest.mark.parametrize(
    "target",
    [yields, yields_too, functools.partial(yields), Yields()],
    ids=["plain", "async", "partial", "object"],
)
def test_a_generator_would_handle_nothing_and_is_refused(target: Any) -> None:
    with pytest.raises(InvalidHandler, match="has a yield in it"):
        subscribe(name="yields")(target)


def test_a_handler_without_handle_says_what_to_define() -> None:
    class Empty(EventHandler[Credited]):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must define handle\(self, event\)"):
        Empty().handle(Credited(amount=1))


class Named(DomainEvent):
    event_type: str = "handlers.named"
    name: str


def test_an_instance_that_needs_arguments_can_be_subscribed_with_topic_and_priority() -> None:
    class Appends(EventHandler[Named]):
        def __init__(self, file: list[str]) -> None:
            super().__init__(Named)
            self.file = file

        def handle(self, event: Named) -> None:
            self.file.append(event.name)

    handler = subscribe(topic_pattern="named.*", priority=EventPriority.HIGH)(Appends([]))
    (spec,) = gather([handler])
    assert spec.target is handler
    assert (spec.event_type, spec.priority, spec.name) == (Named, EventPriority.HIGH, spec.name)
    assert spec.name.endswith("Appends")


def test_the_event_type_is_read_from_the_generic_base() -> None:
    class Declares(EventHandler[Named]):
        def __init__(self, file: str) -> None:
            raise AssertionError("not needed to know its event type")

        def handle(self, event: Named) -> None: ...

    (spec,) = gather([Declares])
    assert spec.event_type is Named


def test_a_class_that_cannot_be_instantiated_without_arguments_is_refused_with_the_remedy() -> None:
    class Needs(EventHandler):  # type: ignore[type-arg]  # the case of a class that does not say its event type
        def __init__(self, file: str) -> None:
            super().__init__(Named)

        def handle(self, event: Named) -> None: ...

    with pytest.raises(
        InvalidHandler, match=r"Needs cannot be made without arguments .* give the system an instance"
    ):
        list(gather([Needs]))
