"""Decisions without an aggregate: two examples against models, repeated commands, and errors."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uno_actors import (
    ActorSystem,
    AppendConditionFailed,
    Command,
    CommandIdReused,
    CommandRejected,
    DecisionModel,
    DomainEvent,
    EventHandler,
    EventQuery,
    EventStore,
    InvalidDecision,
    InvalidQuery,
    MissingApply,
    ReplyNotRecorded,
    SystemNotRunning,
    Tag,
    UnknownCommand,
    decide,
    decides,
    open_store,
)
from uno_actors.errors import UnoError
from uno_actors.store.conditions import Condition
from uno_actors.store.records import Append, Appended, StoredRecord
from uno_stores import InMemoryEventStore

# --- unique e-mail addresses -------------------------------------------------------------------------------


class AddressTaken(DomainEvent):
    email: Annotated[str, Tag()]
    user: Annotated[str, Tag()]


class AddressReleased(DomainEvent):
    email: Annotated[str, Tag()]
    user: Annotated[str, Tag()]


class TakeAddress(Command[bool]):
    email: str
    user: str


class ReleaseAddress(Command):
    email: str
    user: str


class Address(DecisionModel):
    def __init__(self) -> None:
        self.owner: str | None = None

    def apply_address_taken(self, event: AddressTaken) -> None:
        self.owner = event.user

    def apply_address_released(self, event: AddressReleased) -> None:
        self.owner = None


def of_address(command: TakeAddress | ReleaseAddress) -> EventQuery:
    return EventQuery(AddressTaken, AddressReleased, tags={"email": command.email})


@decides(of_address)
def take(command: TakeAddress, address: Address) -> bool:
    if address.owner not in (None, command.user):
        raise CommandRejected(f"{command.email} belongs to {address.owner}")
    if address.owner == command.user:
        return False
    address.register_event(AddressTaken(email=command.email, user=command.user))
    return True


@decides(of_address)
def release(command: ReleaseAddress, address: Address) -> None:
    if address.owner != command.user:
        raise CommandRejected(f"{command.email} does not belong to {command.user}")
    address.register_event(AddressReleased(email=command.email, user=command.user))


# --- a course with limited seats, and students with limited courses ----------------------------------------


class CourseOpened(DomainEvent):
    course: Annotated[str, Tag()]
    seats: int


class StudentEnrolled(DomainEvent):
    course: Annotated[str, Tag()]
    student: Annotated[str, Tag()]


class OpenCourse(Command):
    course: str
    seats: int


class Enrol(Command[int]):
    course: str
    student: str


MOST_COURSES = 2


class Enrolment(DecisionModel):
    def __init__(self) -> None:
        self.seats: dict[str, int] = {}
        self.pairs: set[tuple[str, str]] = set()

    def apply_course_opened(self, event: CourseOpened) -> None:
        self.seats[event.course] = event.seats

    def apply_student_enrolled(self, event: StudentEnrolled) -> None:
        self.pairs.add((event.course, event.student))

    def students_of(self, course: str) -> int:
        return sum(each == course for each, _ in self.pairs)

    def courses_of(self, student: str) -> int:
        return sum(each == student for _, each in self.pairs)


@decides(lambda command: EventQuery(CourseOpened, tags={"course": command.course}))
def open_course(command: OpenCourse, enrolment: Enrolment) -> None:
    if command.course in enrolment.seats:
        raise CommandRejected(f"{command.course} is open already")
    enrolment.register_event(CourseOpened(course=command.course, seats=command.seats))


@decides(
    lambda command: [
        EventQuery(CourseOpened, StudentEnrolled, tags={"course": command.course}),
        EventQuery(StudentEnrolled, tags={"student": command.student}),
    ]
)
def enrol(command: Enrol, enrolment: Enrolment) -> int:
    course, student = command.course, command.student
    if course not in enrolment.seats:
        raise CommandRejected(f"there is no course {course}")
    if (course, student) in enrolment.pairs:
        raise CommandRejected(f"{student} is in {course} already")
    if enrolment.students_of(course) >= enrolment.seats[course]:
        raise CommandRejected(f"{course} is full")
    if enrolment.courses_of(student) >= MOST_COURSES:
        raise CommandRejected(f"{student} has {MOST_COURSES} courses")
    enrolment.register_event(StudentEnrolled(course=course, student=student))
    return enrolment.seats[course] - enrolment.students_of(course)


# --- against models ----------------------------------------------------------------------------------------

URLS = ["memory:", "lmdb:{}/store", "sqlite+aiosqlite:///{}/store.db"]


@asynccontextmanager
async def opened(url: str, directory: Path) -> AsyncIterator[EventStore]:
    async with open_store(url.format(directory)) as store:
        yield store


ADDRESSES = st.sampled_from(["a@x", "b@x", "c@x"])
USERS = st.sampled_from(["ann", "bob", "cy"])
ADDRESS_COMMANDS = st.builds(TakeAddress, email=ADDRESSES, user=USERS) | st.builds(
    ReleaseAddress, email=ADDRESSES, user=USERS
)
COURSES = st.sampled_from(["go", "chess"])
STUDENTS = st.sampled_from(["ann", "bob", "cy", "di"])
ENROLMENTS = st.builds(Enrol, course=COURSES, student=STUDENTS)


async def outcome_of(store: EventStore, command: Command[Any]) -> object:
    deciders: dict[type, Any] = {
        TakeAddress: take,
        ReleaseAddress: release,
        OpenCourse: open_course,
        Enrol: enrol,
    }
    try:
        return await decide(store, deciders[type(command)], command)
    except CommandRejected:
        return "rejected"


@pytest.mark.parametrize("url", URLS, ids=["memory", "lmdb", "sqlite"])
def test_decisions_one_after_the_other_are_those_of_a_dictionary(url: str, tmp_path: Path) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(ADDRESS_COMMANDS, min_size=1, max_size=12), st.integers(0, 10**9))
    def check(commands: list[Command[Any]], number: int) -> None:
        owners: dict[str, str] = {}

        def expected(command: Any) -> object:
            owner = owners.get(command.email)
            if isinstance(command, TakeAddress):
                if owner is None:
                    owners[command.email] = command.user
                return "rejected" if owner not in (None, command.user) else owner is None
            return "rejected" if owner != command.user else owners.pop(command.email) and None

        async def run() -> None:
            async with opened(f"{url}{number}" if "{" in url else url, tmp_path) as store:
                before = await store.last_position()
                if before:
                    return  # the same number as in an earlier example
                for command in commands:
                    assert await outcome_of(store, command) == expected(command)

        asyncio.run(run())

    check()


@pytest.mark.parametrize("url", URLS, ids=["memory", "lmdb", "sqlite"])
def test_of_decisions_at_once_no_rule_is_ever_broken(url: str, tmp_path: Path) -> None:
    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.lists(ADDRESS_COMMANDS | ENROLMENTS, min_size=1, max_size=6), min_size=2, max_size=6),
        st.integers(1, 3),
        st.integers(0, 10**9),
    )
    def check(programs: list[list[Command[Any]]], seats: int, number: int) -> None:
        async def program(store: EventStore, commands: list[Command[Any]]) -> list[object]:
            return [await outcome_of(store, command) for command in commands]

        async def run() -> None:
            async with opened(f"{url}{number}" if "{" in url else url, tmp_path) as store:
                if await store.last_position():
                    return
                await asyncio.gather(
                    *(
                        decide(store, open_course, OpenCourse(course=name, seats=seats))
                        for name in ("go", "chess")
                    )
                )
                await asyncio.gather(*(program(store, commands) for commands in programs))
                check_rules([event async for _, event in store.read_all()])

        asyncio.run(run())

    check()


def check_rules(log: list[DomainEvent]) -> None:
    """The rules hold at each place of the log, so some order of the decisions explains it."""
    owners: dict[str, str] = {}
    seats: dict[str, int] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    for event in log:
        match event:
            case AddressTaken(email=email, user=user):
                assert email not in owners
                owners[email] = user
            case AddressReleased(email=email, user=user):
                assert owners.pop(email) == user
            case CourseOpened(course=course, seats=number):
                assert course not in seats
                seats[course] = number
            case StudentEnrolled(course=course, student=student):
                pairs[course, student] += 1
                assert pairs[course, student] == 1
                assert sum(each == course for each, _ in pairs) <= seats[course]
                assert sum(each == student for _, each in pairs) <= MOST_COURSES


# --- repeated commands, reruns, errors ---------------------------------------------------------------------


class Meddling(InMemoryEventStore):
    """Between each of the first decisions and its append, another writer takes the address."""

    def __init__(self, times: int, event: DomainEvent) -> None:
        super().__init__()
        self.times = times
        self.event = event
        self.selections = 0

    async def select_records(self, condition: Condition) -> tuple[list[StoredRecord], int]:
        self.selections += 1
        selected = await super().select_records(condition)
        if self.times:
            self.times -= 1
            await self.append(self.event.stamped(event_id=f"other-{self.times}"))
        return selected


async def test_a_decision_is_made_again_on_what_others_have_recorded() -> None:
    store = Meddling(1, AddressTaken(email="a@x", user="bob"))
    with pytest.raises(CommandRejected, match="a@x belongs to bob"):
        await decide(store, take, TakeAddress(email="a@x", user="ann"))
    assert store.selections == 2
    assert await store.last_position() == 1


async def test_events_that_the_query_does_not_select_cause_no_rerun() -> None:
    store = Meddling(1, AddressTaken(email="b@x", user="bob"))
    assert await decide(store, take, TakeAddress(email="a@x", user="ann"))
    assert store.selections == 1


async def test_when_its_time_is_over_the_error_names_the_events_and_counts_the_tries() -> None:
    store = Meddling(1000, AddressReleased(email="a@x", user="ann"))
    with pytest.raises(
        AppendConditionFailed, match=r"take was decided \d+ times within .* longer timeout"
    ) as caught:
        await decide(store, take, TakeAddress(email="a@x", user="ann"), timeout=0.05)
    assert caught.value.tries > 1
    assert [each.event_type for each in caught.value.events] == ["AddressReleased"]
    assert not (await store.select(EventQuery(AddressTaken))).events


async def test_a_command_that_is_sent_again_gets_its_first_reply_and_records_nothing(tmp_path: Path) -> None:
    command = TakeAddress(email="a@x", user="ann", command_id="once")
    for _ in range(2):
        async with open_store(f"lmdb:{tmp_path}/store") as store:
            assert await decide(store, take, command) is True
            assert await decide(store, take, command) is True
            assert await store.last_position() == 1
            with pytest.raises(CommandIdReused, match="once"):
                await decide(store, take, TakeAddress(email="b@x", user="ann", command_id="once"))


async def test_one_command_sent_many_times_at_once_takes_effect_once() -> None:
    store = InMemoryEventStore()
    command = TakeAddress(email="a@x", user="ann", command_id="once")
    replies = await asyncio.gather(*(decide(store, take, command) for _ in range(20)))
    assert replies == [True] * 20
    assert await store.last_position() == 1


async def test_events_name_the_command_as_their_cause() -> None:
    store = InMemoryEventStore()
    command = TakeAddress(email="a@x", user="ann", correlation_id="chain")
    await decide(store, take, command)
    (event,) = [event async for _, event in store.read_all()]
    assert (event.correlation_id, event.causation_id) == ("chain", command.command_id)
    assert (event.aggregate_id, event.topic) == (None, None)


async def test_a_decision_that_registers_nothing_replies_and_records_nothing() -> None:
    store = InMemoryEventStore()
    await decide(store, take, TakeAddress(email="a@x", user="ann"))
    assert await decide(store, take, TakeAddress(email="a@x", user="ann")) is False
    assert await store.last_position() == 1


def test_a_decider_is_a_function_that_can_be_tested_alone() -> None:
    address = Address().replay([AddressTaken(email="a@x", user="bob")])
    with pytest.raises(CommandRejected):
        take(TakeAddress(email="a@x", user="ann"), address)
    free = Address()
    assert take(TakeAddress(email="a@x", user="ann"), free)
    assert [type(event) for event in free.pending_events] == [AddressTaken]
    assert free.owner == "ann"
    assert "take" in repr(take)


async def test_a_system_decides_and_its_handlers_get_the_events() -> None:
    heard: list[str] = []

    class Greets(EventHandler[AddressTaken]):
        async def handle(self, event: AddressTaken) -> None:
            heard.append(event.email)

    system = ActorSystem("memory:", handlers=[Greets()])
    async with system:
        assert await system.decide(take, TakeAddress(email="a@x", user="ann")) is True
        await system.settled()
    assert heard == ["a@x"]
    with pytest.raises(SystemNotRunning):
        await system.decide(take, TakeAddress(email="b@x", user="ann"))


def test_a_synchronous_program_decides_too() -> None:
    with ActorSystem("memory:", handlers=[]) as system:
        assert system.run(system.decide(take, TakeAddress(email="a@x", user="ann"))) is True


async def test_stopping_waits_for_the_decisions_that_are_under_way() -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    class Slow(InMemoryEventStore):
        async def commit(self, requests: Any) -> list[Appended | UnoError]:
            reached.set()
            await go.wait()
            return await super().commit(requests)

    store = Slow()
    async with ActorSystem(store, handlers=[]) as system:
        deciding = asyncio.create_task(system.decide(take, TakeAddress(email="a@x", user="ann")))
        await reached.wait()
        stopping = asyncio.create_task(system.stop())
        await asyncio.sleep(0)
        go.set()
        assert await deciding is True
        await stopping
    assert len(store.records) == 1


class Unheard(DomainEvent):
    email: Annotated[str, Tag()]


async def test_a_selected_event_without_an_apply_method_is_an_error() -> None:
    @decides(lambda command: EventQuery(Unheard, tags={"email": command.email}))
    def deaf(command: TakeAddress, address: Address) -> None:
        address.register_event(Unheard(email=command.email))

    store = InMemoryEventStore()
    await decide(store, deaf, TakeAddress(email="a@x", user="ann"))
    with pytest.raises(
        MissingApply, match=r"Address cannot apply Unheard: define apply_unheard\(self, event\)"
    ):
        await decide(store, deaf, TakeAddress(email="a@x", user="ann"))


async def test_a_command_of_another_type_is_refused() -> None:
    with pytest.raises(UnknownCommand, match="take does not handle ReleaseAddress; it handles: TakeAddress"):
        await decide(InMemoryEventStore(), take, ReleaseAddress(email="a@x", user="ann"))  # type: ignore[arg-type]


async def test_a_function_that_does_not_say_what_it_rests_on_is_refused() -> None:
    def undecided(command: TakeAddress, address: Address) -> None: ...

    with pytest.raises(InvalidDecision, match=r"undecided: .* mark the function with @decides\(...\)"):
        await decide(InMemoryEventStore(), undecided, TakeAddress(email="a@x", user="ann"))  # type: ignore[arg-type]


async def test_a_store_that_checks_no_conditions_is_refused_before_anything_is_recorded() -> None:
    class Plain(InMemoryEventStore):
        checks_conditions = False

        async def commit(self, requests: Any) -> list[Appended | UnoError]:
            raise AssertionError([each for each in requests if isinstance(each, Append)])

    with pytest.raises(InvalidQuery, match="Plain does not check conditions"):
        await decide(Plain(), take, TakeAddress(email="a@x", user="ann"))


def test_what_cannot_decide_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidDecision, match="async"):

        @decides(of_address)  # type: ignore[arg-type]
        async def later(command: TakeAddress, address: Address) -> None: ...

    with pytest.raises(InvalidDecision, match="first argument with a subclass of Command"):

        @decides(of_address)
        def untyped(command, address: Address) -> None: ...  # type: ignore[no-untyped-def]

    for queries in (None, EventQuery(AddressTaken)):
        with pytest.raises(
            InvalidDecision, match="takes a function that returns for a command the EventQuery"
        ):

            @decides(queries)  # type: ignore[arg-type]
            def unselected(command: TakeAddress, address: Address) -> None: ...

    class OfOne(DecisionModel):
        def __init__(self, email: str) -> None: ...

    with pytest.raises(InvalidDecision, match=r"OfOne cannot be made without arguments .*'email'"):

        @decides(of_address)
        def modelled(command: TakeAddress, address: OfOne) -> None: ...

    with pytest.raises(InvalidDecision, match="apply_address_taken is async"):

        class Later(DecisionModel):
            async def apply_address_taken(self, event: AddressTaken) -> None: ...

    with pytest.raises(InvalidDecision, match="which is not a DecisionModel"):

        @decides(of_address)  # type: ignore[arg-type]
        def modelless(command: TakeAddress, address: dict[str, str]) -> None: ...


@pytest.mark.parametrize("found", ["ann", AddressTaken])
def test_a_model_registers_events_alone(found: Any) -> None:
    with pytest.raises(
        InvalidDecision, match=r"register_event takes an event, as in .*; found .*(ann|AddressTaken)"
    ):
        Address().register_event(found)


class TakeNumber(Command):
    email: str


async def test_errors_about_a_repeated_command_whose_event_has_no_stream_name_the_log() -> None:
    @decides(lambda command: EventQuery(AddressTaken, tags={"email": command.email}))
    def take_and_show(command: TakeNumber, address: Address) -> object:
        address.register_event(AddressTaken(email=command.email, user="ann"))
        return object()

    store, command = InMemoryEventStore(), TakeNumber(email="a@x.org")
    await decide(store, take_and_show, command)
    with pytest.raises(ReplyNotRecorded, match="its events are recorded in the log, but"):
        await decide(store, take_and_show, command)
    with pytest.raises(CommandIdReused, match=r"another command to the log, which recorded \S+\. Give"):
        await decide(store, take_and_show, command.model_copy(update={"email": "b@x.org"}))
