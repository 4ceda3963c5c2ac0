"""Common mistakes end with an error that says what to write instead."""

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import uno_actors
from uno_actors import (
    ActorSystem,
    AggregateRoot,
    ApplyFailed,
    Command,
    CommandRejected,
    ConcurrencyConflict,
    DomainEvent,
    EventBus,
    EventHandler,
    EventSourcedRepository,
    InvalidAggregate,
    InvalidExpectedVersion,
    InvalidHandler,
    MissingApply,
    ProcessManager,
    Supervisor,
    UnknownActor,
    UnknownCommand,
    UnoError,
    handles,
    open_store,
    reacts,
    subscribe,
)
from uno_actors.actors.actor import Actor
from uno_actors.store.expected_version import ANY
from uno_actors.testing import given


class Fill(Command[int]):
    litres: int = 1


class Poured(DomainEvent):
    litres: int = 1


class Emptied(DomainEvent):
    pass


class Cistern(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.litres = 0

    @handles
    def fill(self, command: Fill) -> int:
        self.register_event(Poured(litres=command.litres))
        return self.litres

    def apply_poured(self, event: Poured) -> None:
        if event.litres == 13:
            raise KeyError("thirteen")
        if event.litres == 14:
            raise CommandRejected("too much")
        self.litres += event.litres


class Delivery(ProcessManager):
    sends_to = (Cistern,)

    @reacts
    def on_filled(self, event: Poured) -> None: ...


class Forgetful(AggregateRoot):
    def __init__(self, id: str) -> None:
        self.litres = 0

    @handles
    def fill(self, command: Fill) -> int:
        self.register_event(Poured())
        return 0

    def apply_poured(self, event: Poured) -> None: ...


class ForgetfulProcess(ProcessManager):
    def __init__(self, id: str) -> None: ...

    @reacts
    def on_filled(self, event: Poured) -> None: ...


class Selfish(AggregateRoot):
    def __init_subclass__(cls, **kwargs: Any) -> None: ...


class Silenced(Selfish):
    @handles
    def fill(self, command: Fill) -> int:
        return 0


NEEDS_CLASS = r'pass the class of an aggregate, as in system.aggregate\(Account, "alice"\); found '

MISTAKES: list[tuple[Callable[[], object], type[UnoError], str]] = [
    (
        lambda: Forgetful("a").handle(Fill()),
        InvalidAggregate,
        r"Forgetful: its __init__ must begin with super\(\).__init__\(id\)",
    ),
    (lambda: Forgetful("a").replay([]), InvalidAggregate, r"in a dataclass, let __post_init__ call it"),
    (
        lambda: ForgetfulProcess("a").pending_events,
        InvalidAggregate,
        r"must begin with super\(\).__init__\(id\)",
    ),
    (
        lambda: Silenced("a").handle(Fill()),
        InvalidAggregate,
        r"Selfish.__init_subclass__ must call super\(\)",
    ),
    (
        lambda: ActorSystem(aggregates=[Silenced], handlers=[]),
        InvalidAggregate,
        "Selfish.__init_subclass__ must",
    ),
    (
        lambda: ActorSystem(handlers=[Delivery]),
        InvalidHandler,
        r"give Delivery.handler\(\) among the handlers, and Delivery among the aggregates",
    ),
    (
        lambda: ActorSystem(handlers=[Delivery.handler]),
        InvalidHandler,
        r"give Delivery.handler\(\) among the handlers",
    ),
    (lambda: EventBus().subscribe(Delivery), InvalidHandler, r"give Delivery.handler\(\) among the handlers"),
    (lambda: subscribe()(Delivery), InvalidHandler, r"give Delivery.handler\(\) among the handlers"),
    (
        lambda: ActorSystem(handlers=[], supervisors=[Supervisor("s", children=[Delivery])]),
        InvalidHandler,
        r"give Delivery.handler\(\) among the handlers",
    ),
    (lambda: ActorSystem(handlers=[Cistern]), InvalidHandler, r"ActorSystem\(aggregates=\[Cistern\]\)"),
    (lambda: ActorSystem(aggregates=["Cistern"]), InvalidAggregate, f"aggregate 'Cistern': {NEEDS_CLASS}str"),  # type: ignore[list-item]
    (lambda: ActorSystem(aggregates=Cistern), InvalidAggregate, r"aggregates is a list of classes"),  # type: ignore[arg-type]
    (
        lambda: ActorSystem(aggregates=[Cistern("a")]),
        InvalidAggregate,
        f"{NEEDS_CLASS}an instance of Cistern",
    ),  # type: ignore[list-item]
    (
        lambda: ActorSystem(aggregates=[Poured]),
        InvalidAggregate,
        f"{NEEDS_CLASS}a class that is not an AggregateRoot",
    ),  # type: ignore[list-item]
    (lambda: given("Cistern"), InvalidAggregate, f"{NEEDS_CLASS}str"),  # type: ignore[type-var]
    (lambda: given(Cistern("a")), InvalidAggregate, f"{NEEDS_CLASS}an instance of Cistern"),  # type: ignore[arg-type]
    (
        lambda: given(Delivery).when(Fill()),
        UnknownCommand,
        "Delivery does not handle Fill; it handles: none",
    ),
    (
        lambda: given(Delivery, Emptied()),
        MissingApply,
        "Delivery cannot apply Emptied: define apply_emptied",
    ),
    (
        lambda: given(Delivery).when(Emptied()),
        InvalidAggregate,
        r"Delivery: it does not react to Emptied\(\); it reacts to Poured",
    ),
    (
        lambda: given(Delivery).when(3),  # type: ignore[arg-type]
        InvalidAggregate,
        r"Delivery: .when\(...\) takes events, refusals and commands; found 3",
    ),
    (
        lambda: given(Cistern).when(Poured()),
        UnknownCommand,
        "Cistern does not handle Poured; it handles: Fill",
    ),  # type: ignore[arg-type]
    (lambda: given(Cistern, Fill()), InvalidAggregate, r"takes events .* commands go into .when\(...\)"),  # type: ignore[arg-type]
    (lambda: Cistern("a").handle(Fill), UnknownCommand, r"Fill is a class of commands: write Fill\(...\)"),  # type: ignore[arg-type]
    (
        lambda: Cistern("a").handle(Fill(litres=13)),
        ApplyFailed,
        r"apply_poured of Cistern<a@1> raised KeyError: 'thirteen' while applying Poured Cistern<a@1>. .* reject in",
    ),
    (
        lambda: Cistern("a").replay([Poured(aggregate_version=1), Poured(litres=13, aggregate_version=2)]),
        ApplyFailed,
        r"apply_poured of Cistern<a@2> raised KeyError: 'thirteen' while applying Poured",
    ),
    (
        lambda: Cistern("a").replay([Poured(litres=14, aggregate_version=1)]),
        ApplyFailed,
        r"apply_poured of Cistern<a@1> raised CommandRejected: too much",
    ),
    (lambda: Cistern("a").handle(Fill(litres=14)), CommandRejected, "too much"),
    (lambda: subscribe(Poured, Poured), InvalidHandler, r"for several events give a tuple"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("mistake", "error", "text"), MISTAKES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_error_for_a_mistake_gives_the_remedy(
    mistake: Callable[[], object], error: type[UnoError], text: str
) -> None:
    with pytest.raises(error, match=text):
        mistake()


@pytest.mark.parametrize("found", ["Cistern", Cistern("b"), Poured, None, Cistern.fill])
async def test_system_aggregate_wants_the_class(found: Any) -> None:
    async with ActorSystem("memory:", handlers=[]) as system:
        with pytest.raises(InvalidAggregate, match=NEEDS_CLASS):
            system.aggregate(found, "alice")
        with pytest.raises(InvalidAggregate, match="InvalidAggregate|must begin with"):
            await system.aggregate(Forgetful, "alice").ask(Fill())
        with pytest.raises(InvalidAggregate, match=r"must begin with super\(\).__init__\(id\)"):
            await EventSourcedRepository(Forgetful, system.store).get_by_id("alice")


def test_a_forgotten_super_init_in_an_actor_is_reported() -> None:
    class Forgets(Actor):
        def __init__(self) -> None:
            self.mine = 1

    with (
        ActorSystem(handlers=[]) as system,
        pytest.raises(TypeError, match=r"Forgets.__init__ must begin with super"),
    ):
        system.spawn(Forgets).get(timeout=5)


async def test_a_handler_class_works_without_super_init() -> None:
    class Counts(EventHandler[Poured]):
        def __init__(self) -> None:
            self.count = 0

        async def handle(self, event: Poured) -> None:
            self.count += 1

    counts = Counts()
    async with ActorSystem("memory:", handlers=[counts]) as system:
        await system.publisher.publish(Poured(), DomainEvent())
        await system.settled()
    assert counts.count == 1


async def test_an_actor_is_found_by_name_and_class() -> None:
    class One(Actor): ...

    class Other(Actor): ...

    async with ActorSystem(handlers=[]) as system:
        ref = await system.spawn(One, name="one")
        assert system.actor("one") == system.actor("one", One) == system.actor("one", Actor) == ref
        assert system.actor("two") is None
        with pytest.raises(UnknownActor, match="no actor 'two': none that lives was spawned under this name"):
            system.actor("two", One)
        with pytest.raises(UnknownActor, match="no actor 'one': the one of this name is a One, not a Other"):
            system.actor("one", Other)


# --- ANY ---------------------------------------------------------------------------------------------------


def test_any_is_a_sentinel_of_its_own() -> None:
    assert repr(ANY) == "ANY"
    assert uno_actors.ANY is ANY
    assert pickle.loads(pickle.dumps(ANY)) is copy.copy(ANY) is copy.deepcopy(ANY) is ANY  # noqa: S301
    assert ANY not in (None, 0, mock.sentinel.other)


def test_import_star_does_not_replace_the_one_of_unittest_mock() -> None:
    names: dict[str, Any] = {}
    exec("from unittest.mock import ANY\nfrom uno_actors import *", names)  # noqa: S102
    assert names["ANY"] is mock.ANY


@pytest.mark.parametrize("found", [mock.ANY, -1, True, 1.0, "1", object()])
async def test_an_invalid_expected_version_is_refused(found: Any) -> None:
    async with open_store("memory:") as store:
        event = Poured(aggregate_id="a", aggregate_type="Cistern")
        with pytest.raises(
            InvalidExpectedVersion,
            match=r"0 or more, uno_actors.EXISTS .*, or uno_actors.ANY for no check; found",
        ) as caught:
            await store.append(event, expected_version=found)
        assert ("unittest.mock" in str(caught.value)) == (found is mock.ANY)
        await store.append(event, expected_version=ANY)
        await store.append(event, event, expected_version=None)
        with pytest.raises(ConcurrencyConflict):
            await store.append(event, expected_version=1)
        assert await store.last_position() == 3


# --- a project's own module of the name of ours ------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from uno_actors import UnoError, open_store
from uno_actors.store.opening import check_store_url
for use in (open_store, check_store_url):
    try:
        use("memory:")
    except UnoError as error:
        print(type(error).__name__, error)
    else:
        print("opened")
"""


@pytest.mark.parametrize(
    "layout",
    [{"stores.py": ""}, {"stores/__init__.py": ""}, {"stores/__init__.py": "", "stores/memory.py": "x = 1"}],
    ids=["a module", "a package", "a package with a memory"],
)
def test_a_module_of_the_project_that_hides_the_stores_is_reported(
    layout: dict[str, str], tmp_path: Path
) -> None:
    from importlib.metadata import entry_points

    (entry,) = (entry for entry in entry_points(group="uno_actors.stores") if entry.name == "memory")
    package = entry.module.partition(".")[0]
    for name, text in layout.items():
        path = tmp_path / name.replace("stores", package)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    program = PROGRAM.format(here=str(tmp_path))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    opened, *_ = run.stdout.splitlines()
    assert opened.startswith("StoreUnavailable store memory is unavailable: ")
    assert f"hides the installed package {package!r}" in opened
    assert "rename that module of yours" in opened
    assert str(tmp_path) in opened


def test_a_store_that_is_not_hidden_opens() -> None:
    async def use() -> int:
        async with open_store("memory:") as store:
            return await store.last_position()

    assert asyncio.run(use()) == 0
