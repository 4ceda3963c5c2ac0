"""Bad input, as a user meets it: a clear error that says what was wrong and what is allowed; nothing is lost."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from tests.waiting import ManualClock
from uno_actors import (
    ANY,
    ActorSystem,
    AggregateRoot,
    AmbiguousEventType,
    Command,
    CommandRejected,
    DomainEvent,
    EventHandler,
    EventRegistry,
    InvalidAggregate,
    InvalidAggregateId,
    InvalidHandler,
    InvalidStoreUrl,
    InvalidTopic,
    MissingApply,
    StoreFormatError,
    StoreUnavailable,
    Supervisor,
    SystemNotRunning,
    UnknownAggregateType,
    UnknownCommand,
    UnknownEventType,
    handles,
    subscribe,
)
from uno_actors.store.codec import to_record
from uno_actors.store.records import Append
from uno_stores import InMemoryEventStore


class Open(Command[str]):
    owner: str


class Rename(Command[str]):
    owner: str


class Close(Command[None]):
    pass


class FolderOpened(DomainEvent):
    owner: str


class FolderRenamed(DomainEvent):
    owner: str


class Folder(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.owner = ""

    @handles
    def open(self, command: Open) -> str:
        if self.owner:
            raise CommandRejected(f"it belongs to {self.owner}")
        self.register_event(FolderOpened(owner=command.owner))
        return self.owner

    @handles
    def rename(self, command: Rename) -> str:
        self.register_event(FolderRenamed(owner=command.owner))
        return self.owner

    def apply_folderopened(self, event: FolderOpened) -> None:
        self.owner = event.owner


async def test_a_command_unknown_to_the_aggregate_is_refused_where_it_is_sent() -> None:
    async with ActorSystem(handlers=[]) as system:
        with pytest.raises(UnknownCommand, match=r"Folder does not handle Close; it handles: Open, Rename"):
            system.aggregate(Folder, "a").ask(Close())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        *(
            (message, r"Folder does not handle \w+; it handles: Open, Rename")
            for message in ("open", None, 3, FolderOpened(owner="ada"))
        ),
        (Open, r"Folder handles commands, and Open is a class of commands: write Open\(\.\.\.\)"),
    ],
)
async def test_something_that_is_not_a_command_is_refused_where_it_is_sent(message: Any, reason: str) -> None:
    async with ActorSystem(handlers=[]) as system:
        with pytest.raises(UnknownCommand, match=reason):
            system.aggregate(Folder, "a").ask(message)


async def test_a_rejected_command_gives_its_reason_and_records_nothing() -> None:
    store = InMemoryEventStore()
    async with ActorSystem(store, handlers=[]) as system:
        assert await system.aggregate(Folder, "a").ask(Open(owner="ada")) == "ada"
        with pytest.raises(CommandRejected, match=r"^it belongs to ada$") as caught:
            await system.aggregate(Folder, "a").ask(Open(owner="bob"))
        assert caught.value.reason == "it belongs to ada"
        assert system.statistics().rejected == 1
    assert await store.last_position() == 1


async def test_an_event_without_apply_method_is_refused_and_the_aggregate_continues() -> None:
    async with ActorSystem(handlers=[]) as system:
        folder = system.aggregate(Folder, "a")
        await folder.ask(Open(owner="ada"))
        expected = (
            r"Folder cannot apply FolderRenamed: define apply_folderrenamed\(self, event\). It has: apply_f"
        )
        with pytest.raises(MissingApply, match=expected):
            await folder.ask(Rename(owner="bob"))
        with pytest.raises(CommandRejected, match="it belongs to ada"):
            await folder.ask(Open(owner="bob"))


async def test_an_event_type_unknown_on_replay_fails_each_command_with_the_cause_and_loses_nothing() -> None:
    store = InMemoryEventStore(EventRegistry())
    async with ActorSystem(store, handlers=[]) as system:
        await system.aggregate(Folder, "a").ask(Open(owner="ada"))
    async with ActorSystem(store, handlers=[], clock=(clock := ManualClock())) as system:
        for _ in range(2):
            with pytest.raises(
                UnknownEventType, match=r"'FolderOpened' is not registered: import the module"
            ):
                await system.aggregate(Folder, "a").ask(Open(owner="bob"))
        store.event_registry.register(FolderOpened)
        clock.advance(0.1)  # after which it is tried again
        with pytest.raises(CommandRejected, match="it belongs to ada"):
            await system.aggregate(Folder, "a").ask(Open(owner="bob"))


async def test_two_event_classes_of_one_name_are_refused_where_one_must_be_chosen() -> None:
    class Here:
        class Shipped(DomainEvent):
            pass

    class Elsewhere:
        class Shipped(DomainEvent):
            pass

    store = InMemoryEventStore(EventRegistry([Here.Shipped, Elsewhere.Shipped]))
    refused = pytest.raises(
        AmbiguousEventType, match=r"Elsewhere\.Shipped, .*Here\.Shipped\): give one of them"
    )
    with refused:
        await store.append(Here.Shipped())
    await store.commit([Append((to_record(Here.Shipped()),), ANY)])  # as by a program that knows but one
    with refused:
        [event async for event in store.read_all()]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "empty token"),
        ("users..created", "empty token"),
        (".created", "empty token"),
        ("users.>.created", "'>' must be the last token"),
        ("users.cre*", "a wildcard must be a whole token, found 'cre*'"),
        ("users. created", "white space"),
    ],
)
def test_a_malformed_pattern_is_an_error_where_it_is_written(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidTopic) as caught:
        subscribe(topic_pattern=pattern)
    assert repr(pattern) in str(caught.value)
    assert reason in str(caught.value)


def test_a_malformed_topic_is_an_error_where_the_class_is_written() -> None:
    with pytest.raises(InvalidTopic, match=r"invalid topic 'users\.\*': wildcard"):

        class Broken(DomainEvent):
            topic: str | None = "users.*"


@pytest.mark.parametrize(
    ("aggregate_id", "reason"),
    [
        ("", "it is empty"),
        ("x" * 256, "it has 256 bytes; at most 255 are allowed"),
        ("ü" * 128, "it has 256 bytes; at most 255 are allowed"),
        ("a\0b", "NUL"),
        (17, "it must be a str, not int"),
        (None, "it must be a str, not NoneType"),
        ("\ud800", "not valid Unicode"),
    ],
)
async def test_an_aggregate_id_that_cannot_name_a_stream_is_refused_at_once(
    aggregate_id: Any, reason: str
) -> None:
    async with ActorSystem(handlers=[]) as system:
        with pytest.raises(InvalidAggregateId, match=reason):
            system.aggregate(Folder, aggregate_id)


async def test_an_aggregate_class_that_is_not_served_is_refused_with_those_that_are() -> None:
    class Stranger(AggregateRoot):
        pass

    async with ActorSystem(aggregates=[Folder], handlers=[]) as system:
        with pytest.raises(UnknownAggregateType, match=r"Stranger: .*It serves: .*test_bad_input\.Folder"):
            system.aggregate(Stranger, "a")


def test_a_command_method_without_annotation_is_an_error_at_class_definition() -> None:
    with pytest.raises(InvalidAggregate, match=r"Broken: @handles method open has no annotation"):

        class Broken(AggregateRoot):
            @handles
            def open(self, command) -> None:  # type: ignore[no-untyped-def]
                pass


def test_handlers_that_cannot_work_are_refused_with_the_remedy() -> None:
    def undecorated(event: DomainEvent) -> None:
        pass

    with pytest.raises(InvalidHandler, match=r"decorate a function with @subscribe"):
        ActorSystem(handlers=[undecorated])
    with pytest.raises(
        InvalidHandler, match=r"write @subscribe\(\.\.\.\) with parentheses before undecorated"
    ):
        subscribe(undecorated)  # type: ignore[arg-type]
    with pytest.raises(InvalidHandler, match="event_type must be a DomainEvent class"):
        subscribe(event_type=str)(undecorated)  # type: ignore[arg-type]
    twice = [subscribe(name="same")(EventHandler), subscribe(name="same")(lambda event: None)]
    with pytest.raises(InvalidHandler, match="two handlers are named 'same'"):
        ActorSystem(handlers=twice)
    with pytest.raises(InvalidHandler, match="two supervisors are named 'mail'"):
        ActorSystem(handlers=[], supervisors=[Supervisor("mail"), Supervisor("mail")])


async def test_a_system_that_does_not_run_says_how_to_run_it() -> None:
    system = ActorSystem(handlers=[])
    with pytest.raises(SystemNotRunning, match=r"is not started: use it inside `async with ActorSystem"):
        system.aggregate(Folder, "a").ask(Open(owner="ada"))
    async with system:
        pass
    with pytest.raises(SystemNotRunning, match="is stopped"):
        system.aggregate(Folder, "a").ask(Open(owner="ada"))
    with pytest.raises(SystemNotRunning, match="cannot be started again"):
        await system.start()


@pytest.mark.parametrize("url", ["", "lmdb", "lmdb:", "bogus:x", "memory:x", "./data/bank"])
async def test_a_store_url_with_an_unknown_scheme_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(InvalidStoreUrl, match=r"lmdb|memory"):
        await ActorSystem(url, handlers=[]).start()


async def test_a_store_directory_that_is_a_file_or_belongs_to_another_program_is_refused_and_left_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(StoreUnavailable, match="directory that it may write"):
        await ActorSystem(f"lmdb:{file}", handlers=[]).start()
    assert file.read_text() == "mine"
    home = tmp_path / "home"
    home.mkdir()
    (home / "diary.txt").write_text("mine")
    with pytest.raises(StoreFormatError, match=r"holds other files \(diary.txt\)"):
        await ActorSystem(f"lmdb:{home}", handlers=[]).start()
    assert [path.name for path in home.iterdir()] == ["diary.txt"]
    with lmdb.open(str(tmp_path / "other"), max_dbs=1) as env, env.begin(write=True) as txn:
        txn.put(b"key", b"value")
    with pytest.raises(StoreFormatError, match="another program's LMDB environment"):
        await ActorSystem(f"lmdb:{tmp_path / 'other'}", handlers=[]).start()


async def test_a_store_of_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "store"
    async with ActorSystem(f"lmdb:{path}", handlers=[]):
        pass
    with lmdb.open(str(path), max_dbs=8) as env:
        meta = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(b"format", b"2", db=meta)
    with pytest.raises(StoreFormatError, match=r"its format is 2, this version of uno_actors reads 1"):
        await ActorSystem(f"lmdb:{path}", handlers=[]).start()


AS_NOBODY = """
import asyncio, os, sys
from uno_actors import ActorSystem, StoreUnavailable
from uno_actors.store.opening import check_store_url
import uno_stores.lmdb
check_store_url("lmdb:bank")  # all before its files are out of reach
if os.geteuid() == 0:
    os.setuid(65534)
try:
    asyncio.run(ActorSystem("lmdb:" + sys.argv[1], handlers=[]).start())
except StoreUnavailable as error:
    print(error)
"""


def test_a_store_directory_that_is_not_writable_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Run as an ordinary user, because root may write everywhere."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    for parent in tmp_path, *tmp_path.parents[:2]:
        parent.chmod(0o755)  # pytest makes them for this user alone
    for path in locked, locked / "store":
        run = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(path)], capture_output=True, text=True, check=True
        )
        assert run.stdout.startswith(f"store lmdb:{path} is unavailable: ")
        assert "Permission denied" in run.stdout
        assert "it needs a directory that it may write" in run.stdout
    assert list(locked.iterdir()) == []


async def test_a_class_that_is_defined_again_as_in_a_notebook_replaces_itself_at_once() -> None:
    def cell(answer: str) -> tuple[type[AggregateRoot], Any]:
        class Ask(Command[str]):
            pass

        class Note(AggregateRoot):
            @handles
            def ask(self, command: Ask) -> str:
                return answer

        return Note, Ask

    async with ActorSystem(handlers=[]) as system:
        for answer in ("first", "second"):
            note, ask = cell(answer)
            assert await system.aggregate(note, "a").ask(ask()) == answer


def test_a_synchronous_program_can_run_awaitables() -> None:
    store = InMemoryEventStore()
    with ActorSystem(store, handlers=[]) as system:
        system.aggregate(Folder, "a").ask(Open(owner="ada")).get(timeout=5)
        system.run(system.settled())
        assert len(system.run(store.get_events("a"))) == 1
    with pytest.raises(SystemNotRunning, match="is stopped"):
        system.run(store.get_events("a"))


async def test_an_asynchronous_program_is_told_to_await() -> None:
    async with ActorSystem(handlers=[]) as system:
        with pytest.raises(SystemNotRunning, match="is not started by `with`"):
            system.run(system.settled())
