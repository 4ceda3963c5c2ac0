"""The factory that ``PERSISTENCE_MODULE=uno_stores.eventsourcing`` finds."""

from typing import Any, TypeVar

from eventsourcing.persistence import (
    AggregateRecorder,
    InfrastructureFactory,
    NotSupportedError,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic
from typing_extensions import override

from uno_stores.eventsourcing.recorders import (
    UnoAggregateRecorder,
    UnoApplicationRecorder,
    UnoProcessRecorder,
    UnoTrackingRecorder,
)
from uno_stores.eventsourcing.sharing import SharedStore
from uno_stores.eventsourcing.snapshots import UnoSnapshotRecorder

STORE_URL = "UNO_ACTORS_STORE"
"""The environment variable with the URL of the store, with or without the name of the application before it."""
NAMELESS = "eventsourcing"
"""The aggregate type of the events of an application without a name."""

R = TypeVar("R", UnoApplicationRecorder, UnoProcessRecorder, UnoTrackingRecorder)


class UnoFactory(InfrastructureFactory[UnoTrackingRecorder]):
    """Makes the recorders of one application, which share one store.

    Args:
        env: The environment of the application.

    Raises:
        OSError: It has no URL of a store.
        NotSupportedError: The store has several logs, so that notifications have no order.
        PersistenceError: The store cannot be opened.
    """

    aggregate_recorder_class = UnoAggregateRecorder
    application_recorder_class = UnoApplicationRecorder
    process_recorder_class = UnoProcessRecorder
    snapshot_recorder_class = UnoSnapshotRecorder
    tracking_recorder_class = UnoTrackingRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        url = self.env.get(STORE_URL)
        if not url:
            names = ", ".join(self.env.create_keys(STORE_URL))
            raise OSError(f"no URL of a store, such as lmdb:data/bank, is in the environment under {names}")
        self._name = self.env.name or NAMELESS
        self._shared: SharedStore | None = SharedStore.of(url)
        logs = len(self._store.run(self._store.store.last_positions()))
        if logs > 1:
            self.close()
            raise NotSupportedError(
                f"the store has {logs} logs, and notifications need one order: make a store with one log"
            )

    @property
    def _store(self) -> SharedStore:
        if self._shared is None:
            raise NotSupportedError("the factory was closed")
        return self._shared

    @override
    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        if purpose == "events":
            return self.aggregate_recorder_class(self._store, self._name)
        return self.snapshot_recorder_class(self._store, f"{self._name} {purpose}")

    @override
    def application_recorder(self) -> UnoApplicationRecorder:
        chosen = self._chosen(self.APPLICATION_RECORDER_TOPIC, self.application_recorder_class)
        return chosen(self._store, self._name)

    @override
    def tracking_recorder(
        self, tracking_recorder_class: type[UnoTrackingRecorder] | None = None
    ) -> UnoTrackingRecorder:
        chosen = tracking_recorder_class or self._chosen(
            self.TRACKING_RECORDER_TOPIC, self.tracking_recorder_class
        )
        return chosen(self._store, self._name)

    @override
    def process_recorder(self) -> UnoProcessRecorder:
        chosen = self._chosen(self.PROCESS_RECORDER_TOPIC, self.process_recorder_class)
        return chosen(self._store, self._name)

    def _chosen(self, variable: str, default: type[R]) -> type[R]:
        """The class that an environment variable names, or the default."""
        topic = self.env.get(variable)
        if not topic:
            return default
        found: Any = resolve_topic(topic)
        if not (isinstance(found, type) and issubclass(found, default)):
            raise TypeError(f"{variable} must name a subclass of {default.__name__}; found {topic!r}")
        return found

    @override
    def close(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.leave()
