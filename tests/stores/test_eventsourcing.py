"""The persistence module for ``eventsourcing``, beyond that package's own tests: processes, faults, what is on disk."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import (
    DataError,
    InfrastructureFactory,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    StoredEvent,
    Tracking,
)
from eventsourcing.utils import Environment

from tests.new_stores import new_store_url
from uno_actors import EventRegistry, open_store
from uno_stores.eventsourcing import StoredEventRecorded, UnoFactory

MODULE = "uno_stores.eventsourcing"
ROOT = Path(__file__).parent.parent.parent


class Till(Aggregate):
    def __init__(self) -> None:
        self.coins = 0

    @event("CoinTaken")
    def take(self, coins: int) -> None:
        self.coins += coins


class Shop(Application[UUID]):
    snapshotting_intervals = {Till: 5}  # noqa: RUF012 - as that package wants it

    def open(self) -> UUID:
        till = Till()
        self.save(till)
        return till.id

    def take(self, till_id: UUID, coins: int) -> int:
        till: Till = self.repository.get(till_id)
        till.take(coins)
        self.save(till)
        return till.coins


class Kiosk(Shop):
    pass


def environment(url: str, **more: str) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": MODULE, "UNO_ACTORS_STORE": url, **more}


def opened(url: str) -> UnoFactory:
    factory = InfrastructureFactory.construct(Environment("Shop", environment(url)))
    assert isinstance(factory, UnoFactory)
    return factory


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"lmdb:{tmp_path}/store"


@pytest.fixture
def factory(url: str) -> Iterator[UnoFactory]:
    made = opened(url)
    yield made
    made.close()


def stored(originator: UUID | str, version: int, topic: str = "shop:Sold") -> StoredEvent:
    return StoredEvent(originator, version, topic, b"state %d" % version)


# --- an application ----------------------------------------------------------------------------------------


def test_an_application_continues_where_it_was_with_its_snapshots(url: str) -> None:
    with Shop(env=environment(url)) as shop:
        till = shop.open()
        for _ in range(11):
            shop.take(till, 2)
        assert shop.snapshots is not None
        assert [snapshot.originator_version for snapshot in shop.snapshots.get(till)] == [5, 10]
    with Shop(env=environment(url)) as shop:
        assert shop.take(till, 1) == 23
        as_it_was: Till = shop.repository.get(till, version=4)
        assert as_it_was.coins == 6
        assert [each.id for each in shop.notification_log.select(1, 10)] == list(range(1, 11))


async def test_what_an_application_records_can_be_read_and_selected_here(url: str) -> None:
    with Shop(env=environment(url)) as shop:
        till = shop.open()
        shop.take(till, 7)
    async with open_store(url, EventRegistry([StoredEventRecorded])) as store:
        found = [each async for each in store.read_all(aggregate_id=str(till), aggregate_type="Shop")]
        assert [each.position for each in found] == [1, 2]
        events = [each.event for each in found if isinstance(each.event, StoredEventRecorded)]
        assert [each.originator_version for each in events] == [1, 2]
        assert [each.aggregate_version for each in events] == [1, 2]
        assert events[1].event_topic == events[1].topic == f"{__name__}:Till.CoinTaken"
        assert b'"coins":7' in events[1].state
        assert [each async for each in store.read_all(topic_pattern=events[1].event_topic)] == found[1:]


def test_applications_in_one_store_see_their_own_events_only(url: str) -> None:
    with Shop(env=environment(url)) as shop, Kiosk(env=environment(url)) as kiosk:  # one store, opened once
        till = shop.open()
        assert shop.recorder.max_notification_id() == 1
        assert kiosk.recorder.max_notification_id() is None
        other = kiosk.open()
        shop.take(till, 1)
        assert [each.id for each in shop.notification_log.select(1, 9)] == [1, 3]
        assert [each.id for each in kiosk.notification_log.select(1, 9)] == [2]
        assert (shop.recorder.max_notification_id(), kiosk.recorder.max_notification_id()) == (3, 2)
        assert shop.recorder.select_events(other) == []


def test_an_application_may_have_a_store_of_its_own_by_its_name(tmp_path: Path) -> None:
    with Shop(env=environment("memory:", SHOP_UNO_ACTORS_STORE=f"lmdb:{tmp_path}/shop")) as shop:
        shop.open()
    assert (tmp_path / "shop" / "data.mdb").exists()


# --- versions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", [0, 1, 7])
def test_versions_of_an_originator_begin_anywhere_and_have_no_gap(factory: UnoFactory, begins: int) -> None:
    id_ = uuid4()
    recorder = factory.application_recorder()
    recorder.insert_events([stored(id_, begins)])
    recorder.insert_events([stored(id_, begins + 1), stored(id_, begins + 2)])
    for again in (
        recorder,
        factory.application_recorder(),
    ):  # one that knows the stream, and one that does not
        for wrong in ([begins - 1], [begins], [begins + 2], [begins + 4], [begins + 3, begins + 3]):
            with pytest.raises(IntegrityError):
                again.insert_events([stored(id_, version) for version in wrong])
        for narrowed, wanted in (
            ({}, [0, 1, 2]),
            ({"gt": begins}, [1, 2]),
            ({"gt": begins + 2}, []),
            ({"lte": begins + 1, "desc": True, "limit": 1}, [1]),
            ({"gt": begins - 1, "lte": begins}, [0]),
            ({"limit": 0}, []),
            ({"limit": 2}, [0, 1]),
        ):
            found = again.select_events(id_, **narrowed)  # type: ignore[arg-type]
            assert [each.originator_version - begins for each in found] == wanted
    factory.application_recorder().insert_events([stored(id_, begins + 3)])
    assert recorder.select_events(id_, gt=begins + 2) == [stored(id_, begins + 3)]


def test_snapshots_may_be_taken_of_any_version_in_any_order(factory: UnoFactory) -> None:
    recorder = factory.aggregate_recorder("snapshots")
    id_, other = uuid4(), "é/1"
    for version in (10, 5, 20, 2**40):
        recorder.insert_events([stored(id_, version), stored(other, version + 1)])
    assert [each.originator_version for each in recorder.select_events(id_)] == [5, 10, 20, 2**40]
    assert recorder.select_events(id_, lte=19, desc=True, limit=1) == [stored(id_, 10)]
    assert recorder.select_events(id_, gt=5, lte=20) == [stored(id_, 10), stored(id_, 20)]
    assert recorder.select_events(id_, gt=5, limit=1) == [stored(id_, 10)]
    assert recorder.select_events(other, lte=6) == [stored(other, 6)]
    assert recorder.select_events(id_, lte=4) == []
    with pytest.raises(DataError, match="up to 241 bytes"):
        recorder.insert_events([stored("x" * 242, 1)])


def test_a_topic_that_is_none_here_is_selected_too(factory: UnoFactory) -> None:
    recorder = factory.application_recorder()
    odd, plain = "shop:a.<locals>.Sold", "shop:Sold"
    recorder.insert_events([stored("a", 1, odd), stored("a", 2, plain), stored("a", 3, odd)])
    for topics, wanted in (([odd], [1, 3]), ([plain], [2]), ([plain, odd], [1, 2, 3]), (["other"], [])):
        assert [each.id for each in recorder.select_notifications(None, 9, topics=topics)] == wanted
        assert [each.id for each in recorder.select_notifications(None, 1, topics=topics)] == wanted[:1]


# --- several processes, and the end ------------------------------------------------------------------------

FOLLOWER = """
import sys
from eventsourcing.persistence import InfrastructureFactory, IntegrityError, StoredEvent, Tracking
from eventsourcing.utils import Environment

_, url, name, application, most = sys.argv
env = {"PERSISTENCE_MODULE": "uno_stores.eventsourcing", "UNO_ACTORS_STORE": url}
recorder = InfrastructureFactory.construct(Environment(application, env)).process_recorder()
for _ in range(1000):
    if (done := recorder.max_tracking_id("upstream") or 0) >= int(most):
        break
    event = StoredEvent(f"{name}-{done + 1}", 1, "t", b"")
    try:
        recorder.insert_events([event], tracking=Tracking("upstream", done + 1))
    except IntegrityError:
        pass
"""


def follower(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", FOLLOWER, *arguments], cwd=ROOT)


@pytest.mark.parametrize("engine", ["lmdb", "sqlite", "postgres"])
async def test_two_processes_of_one_application_record_each_upstream_event_once(
    engine: str, tmp_path: Path
) -> None:
    url = await new_store_url(engine, tmp_path)
    running = [follower(url, name, "Follower", "100") for name in "ab"]
    assert [each.wait() for each in running] == [0, 0]
    async with open_store(url) as store:
        ids = [str(record.aggregate_id) async for _, record in store.read_records()]
        assert sorted(int(each.partition("-")[2]) for each in ids) == list(range(1, 101))
        assert await store.checkpoints() == {"Follower follows upstream": 100}


def test_a_process_recorder_records_events_and_tracking_together(factory: UnoFactory) -> None:
    recorder = factory.process_recorder()
    assert recorder.insert_events([stored("a", 1)], tracking=Tracking("Shop", 3)) == [1]
    for wrong in (3, 2):
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored("b", 1)], tracking=Tracking("Shop", wrong))
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored("a", 1)], tracking=Tracking("Shop", 4))
    assert (recorder.max_tracking_id("Shop"), recorder.max_notification_id()) == (3, 1)
    assert recorder.has_tracking_id("Shop", 3)
    assert not recorder.has_tracking_id("Shop", 4)


def test_a_subscription_hears_of_another_process(url: str, factory: UnoFactory) -> None:
    recorder = factory.application_recorder()
    with recorder.subscribe(gt=0) as subscription, follower(url, "c", "Shop", "3"):
        assert [next(subscription).originator_id for _ in range(3)] == ["c-1", "c-2", "c-3"]


def test_a_store_is_closed_with_the_last_factory_and_leaves_no_thread(url: str) -> None:
    before = threading.active_count()
    first, second = opened(url), opened(url)
    recorder = second.application_recorder()
    first.close()
    first.close()
    recorder.insert_events([stored("a", 1)])
    second.close()
    with pytest.raises(InterfaceError, match="it was closed"):
        recorder.insert_events([stored("a", 2)])
    assert threading.active_count() == before


def test_every_call_ends_though_another_thread_closes_the_store(url: str) -> None:
    factory = opened(url)
    recorder = factory.application_recorder()
    begun, refused = threading.Barrier(5), []

    def insert(name: str) -> None:
        begun.wait()
        for version in range(1, 10_000):
            try:
                recorder.insert_events([stored(name, version)])
            except (InterfaceError, OperationalError) as error:
                refused.append(error)
                return

    threads = [threading.Thread(target=insert, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    begun.wait()
    recorder.select_events("a")
    factory.close()
    for each in threads:
        each.join()
    assert len(refused) == len(threads)


def test_a_forked_child_must_open_the_store_itself(factory: UnoFactory) -> None:
    recorder = factory.application_recorder()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = str(recorder.select_events("a"))
        except InterfaceError as error:
            said = str(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "after the fork" in os.read(reading, 1000).decode()
    assert recorder.select_events("a") == []


async def test_a_store_with_several_logs_is_refused(tmp_path: Path) -> None:
    url = await new_store_url("postgres", tmp_path)
    async with open_store(f"{url}&logs=4") as store:
        await store.last_positions()
    with pytest.raises(NotSupportedError, match="4 logs"):
        opened(url)


@pytest.mark.parametrize(
    ("env", "error", "text"),
    [
        ({}, OSError, "SHOP_UNO_ACTORS_STORE, UNO_ACTORS_STORE"),
        ({"UNO_ACTORS_STORE": "nothing:"}, DataError, "nothing"),
        ({"UNO_ACTORS_STORE": "lmdb:/proc/none"}, OperationalError, "/proc/none"),
    ],
    ids=["none", "unknown", "impossible"],
)
def test_a_factory_says_what_its_environment_lacks(
    env: dict[str, str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        UnoFactory(Environment("Shop", env))
