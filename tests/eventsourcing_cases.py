"""The test cases of ``eventsourcing``, made concrete for our recorders; run by ``test_eventsourcing_suite``.

Each test gets an empty store: the next of the URLs in the file that the environment names.
"""

import os
from pathlib import Path
from threading import Lock
from typing import Any

from eventsourcing.persistence import InfrastructureFactory, TrackingRecorder
from eventsourcing.tests import application, persistence, projection
from eventsourcing.utils import Environment, get_topic

from uno_stores.eventsourcing import (
    UnoAggregateRecorder,
    UnoApplicationRecorder,
    UnoFactory,
    UnoProcessRecorder,
    UnoTrackingRecorder,
)

URLS = iter(Path(os.environ["STORE_URLS"]).read_text().split())
MODULE = "uno_stores.eventsourcing"


class WithFactory:
    """Each test has a factory on an empty store."""

    def setUp(self) -> None:
        env = Environment("", {"PERSISTENCE_MODULE": MODULE, "UNO_ACTORS_STORE": next(URLS)})
        self.factory: Any = InfrastructureFactory.construct(env)

    def tearDown(self) -> None:
        self.factory.close()


class TestAggregateRecorder(WithFactory, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory.aggregate_recorder()


class TestSnapshotRecorder(WithFactory, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory.aggregate_recorder("snapshots")


class TestAggregateRecorderWithTextIds(TestAggregateRecorder):
    def new_originator_id(self) -> str:
        return f"account-{super().new_originator_id()}"


class TestApplicationRecorder(WithFactory, persistence.ApplicationRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory.application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(WithFactory, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory.tracking_recorder()


class TestProcessRecorder(WithFactory, persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory.process_recorder()


class TestProcessRecorderAsApplicationRecorder(TestApplicationRecorder):
    def create_recorder(self) -> Any:
        return self.factory.process_recorder()


class TestNonInterleaving(WithFactory, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> Any:
        return self.factory.application_recorder()


class OwnTrackingRecorder(UnoTrackingRecorder):
    pass


class TestFactory(persistence.InfrastructureFactoryTestCase):
    def setUp(self) -> None:
        self.env = Environment("TestCase", {"PERSISTENCE_MODULE": MODULE, "UNO_ACTORS_STORE": next(URLS)})
        super().setUp()

    def expected_factory_class(self) -> Any:
        return UnoFactory

    def expected_aggregate_recorder_class(self) -> Any:
        return UnoAggregateRecorder

    def expected_application_recorder_class(self) -> Any:
        return UnoApplicationRecorder

    def expected_tracking_recorder_class(self) -> Any:
        return UnoTrackingRecorder

    def tracking_recorder_subclass(self) -> Any:
        return OwnTrackingRecorder

    def expected_process_recorder_class(self) -> Any:
        return UnoProcessRecorder


class InEnvironment:
    """Applications that are made without an environment use an empty store."""

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        os.environ["PERSISTENCE_MODULE"] = MODULE
        os.environ["UNO_ACTORS_STORE"] = next(URLS)

    def tearDown(self) -> None:
        del os.environ["PERSISTENCE_MODULE"], os.environ["UNO_ACTORS_STORE"]
        super().tearDown()  # type: ignore[misc]


class TestExampleApplication(InEnvironment, application.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(UnoFactory)


class TestApplication(InEnvironment, application.ApplicationTestCase):
    pass


class TestEventSourcedProjection(InEnvironment, projection.EventSourcedProjectionTestCase):
    pass


class Counters(UnoTrackingRecorder, projection.EventCountersInterface):
    """A view of a projection that is tested below, whose numbers are kept in memory beside the tracking record."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.numbers = {"created": 0, "subsequent": 0}
        self.turns = Lock()

    def get_created_event_counter(self) -> int:
        return self.number("created")

    def get_subsequent_event_counter(self) -> int:
        return self.number("subsequent")

    def number(self, kind: str) -> int:
        with self.turns:  # what waited for the tracking record sees the number that belongs to it
            return self.numbers[kind]

    def incr_created_event_counter(self, tracking: Any) -> None:
        self.count("created", tracking)

    def incr_subsequent_event_counter(self, tracking: Any) -> None:
        self.count("subsequent", tracking)

    def count(self, kind: str, tracking: Any) -> None:
        with self.turns:
            self.insert_tracking(tracking)
            self.numbers[kind] += 1


class TestEventCounters(WithFactory, projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> Any:
        return self.factory.tracking_recorder(Counters)


class TestProjection(projection.AggregateEventCountersProjectionTestCase):
    view_class: type[TrackingRecorder] = Counters

    def setUp(self) -> None:
        super().setUp()
        self.env = {"PERSISTENCE_MODULE": MODULE, "UNO_ACTORS_STORE": next(URLS)}


del persistence, application, projection
