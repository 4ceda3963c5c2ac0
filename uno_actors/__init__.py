"""uno_actors: event-sourced actors for Python services.

A map, in the order in which one command travels:

- ``commands``, ``aggregate``, ``events``: what users write; ``causality`` links one to the next.
- ``annotations`` reads which messages a function takes, ``marked_methods`` finds those of aggregates.
- ``system``: what a service starts; ``runtime``: its running parts; ``aggregate_actor``: one actor each.
- ``journal`` and ``store``: events become durable in groups; ``codec`` turns them into records.
- ``command_memory`` knows a command that comes again; ``snapshots`` shorten loading, with ``values`` as bytes.
- ``log_filter`` narrows what is read of the log; ``causal_tree`` shows what followed from one first message.
- ``repository``: aggregates loaded and saved without actors.
- ``router``, ``topics``: recorded events find their handlers; ``handlers``, ``handler_actor`` run them.
- ``projections``: handlers whose views count each event exactly once; ``handler_control``: what operators ask.
- ``process_manager``: a handler that sends commands, none of them twice.
- ``bus``: events handled in memory, recorded nowhere; ``publisher``: recorded events of no aggregate, and the
  defaults of a process; ``bridges``: from one system to another.
- ``supervisor``: the rules for those that fail, ``tree``: who stands under whom; ``family`` decides what is to be
  done, ``supervision`` does it, with ``runners`` for each kind of child.
- ``actor``, ``process``, ``mailbox``, ``future``: pykka's actors, each at its work; ``dispatcher`` and
  ``carrier`` give them turns on an event loop and worker threads, ``asks`` sees to it that none waits for
  ever, and ``watchdog`` names who keeps the others waiting.
- ``config``: a system as a file; its ``config_text``, ``config_values`` and ``config_errors``, with ``toml_lines``;
  ``config_writer`` writes it; ``plan`` reads what its rules come to, ``simulation`` runs them, ``reload`` changes a
  running tree.
- ``errors``: one tree that tells the caller's faults, the world's and ours apart.
"""

from uno_actors.actors.actor import Actor, ActorRef
from uno_actors.actors.cell import ActorStatistics, Terminated
from uno_actors.actors.future import Future, get_all
from uno_actors.actors.mailbox import DeadMessage, MailboxPolicy
from uno_actors.aggregates.actor import AggregateRef
from uno_actors.aggregates.repository import EventSourcedRepository
from uno_actors.backoff import Backoff
from uno_actors.bus.bus import BusStatistics, EventBus, FailedDelivery
from uno_actors.bus.publisher import (
    EventPublisher,
    event_defaults,
    get_event_bus,
    get_event_publisher,
    get_event_store,
)
from uno_actors.config.errors import ConfigFault, InvalidConfig
from uno_actors.config.writer import NotConfigurable
from uno_actors.domain.aggregate import AggregateRoot, handles
from uno_actors.domain.commands import Command
from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry, register_event, upcasts
from uno_actors.errors import (
    AggregateNotFound,
    AmbiguousEventType,
    AmbiguousStream,
    ApplyFailed,
    AskTimeout,
    BlockingCallOnLoop,
    CallerError,
    CommandIdReused,
    CommandRejected,
    ConcurrencyConflict,
    CorruptRecord,
    DeadlockError,
    EventNotReadable,
    EventNotSerializable,
    ExitRaised,
    HandlerTimeout,
    InternalError,
    InvalidAggregate,
    InvalidAggregateId,
    InvalidCommand,
    InvalidEvent,
    InvalidExpectedVersion,
    InvalidHandler,
    InvalidNumber,
    InvalidReset,
    InvalidStoreUrl,
    InvalidSupervisor,
    InvalidTopic,
    LeaseLost,
    MailboxFull,
    MissingApply,
    NameTaken,
    NoDeadLetter,
    OutcomeUnknown,
    PlaceTaken,
    ReplyNotRecorded,
    StartTimeout,
    StoreForked,
    StoreFormatError,
    StoreFull,
    StoreUnavailable,
    SupervisorGaveUp,
    SystemNotRunning,
    UnknownActor,
    UnknownAggregateType,
    UnknownChild,
    UnknownCommand,
    UnknownEventType,
    UnknownHandler,
    UnknownSupervisor,
    UnoError,
    WaitsForItself,
    WorkCancelled,
    WorldError,
)
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.handlers.moves import HandlerNameWarning
from uno_actors.handlers.process_manager import ProcessManager, Refusal, reacts
from uno_actors.handlers.projection import Projection, published_view
from uno_actors.handlers.spec import EventHandler, EventPriority, HandlerContext, subscribe
from uno_actors.handlers.view import PublishedView, View
from uno_actors.store.causal_tree import CausalNode, CausalTree
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.port import (
    ANY as ANY,  # not among the names of `import *`: unittest.mock has an ANY too
)
from uno_actors.store.port import DeadLetter, EventStore, Lease, RecordedEvent, Snapshot, open_store
from uno_actors.supervision.child import TreeNode
from uno_actors.supervision.reload import Reloaded
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.system.bridges import bridge
from uno_actors.system.runtime import SystemStatistics
from uno_actors.system.system import ActorSystem, ChildCounts, SupervisorRef

__all__ = [
    "Actor",
    "ActorRef",
    "ActorStatistics",
    "ActorSystem",
    "AggregateNotFound",
    "AggregateRef",
    "AggregateRoot",
    "AmbiguousEventType",
    "AmbiguousStream",
    "ApplyFailed",
    "AskTimeout",
    "Backoff",
    "BlockingCallOnLoop",
    "BusStatistics",
    "CallerError",
    "CausalNode",
    "CausalTree",
    "ChildCounts",
    "ChildSpec",
    "Command",
    "CommandIdReused",
    "CommandRejected",
    "ConcurrencyConflict",
    "ConfigFault",
    "CorruptRecord",
    "DeadLetter",
    "DeadMessage",
    "DeadlockError",
    "DomainEvent",
    "EventBus",
    "EventHandler",
    "EventNotReadable",
    "EventNotSerializable",
    "EventPriority",
    "EventPublisher",
    "EventRegistry",
    "EventSourcedRepository",
    "EventStore",
    "ExitRaised",
    "FailedDelivery",
    "Future",
    "HandlerContext",
    "HandlerControl",
    "HandlerInfo",
    "HandlerNameWarning",
    "HandlerTimeout",
    "InternalError",
    "InvalidAggregate",
    "InvalidAggregateId",
    "InvalidCommand",
    "InvalidConfig",
    "InvalidEvent",
    "InvalidExpectedVersion",
    "InvalidHandler",
    "InvalidNumber",
    "InvalidReset",
    "InvalidStoreUrl",
    "InvalidSupervisor",
    "InvalidTopic",
    "Lease",
    "LeaseLost",
    "LogFilter",
    "MailboxFull",
    "MailboxPolicy",
    "MissingApply",
    "NameTaken",
    "NoDeadLetter",
    "NotConfigurable",
    "OutcomeUnknown",
    "PlaceTaken",
    "ProcessManager",
    "Projection",
    "PublishedView",
    "RecordedEvent",
    "Refusal",
    "Reloaded",
    "ReplyNotRecorded",
    "Snapshot",
    "StartTimeout",
    "StoreForked",
    "StoreFormatError",
    "StoreFull",
    "StoreUnavailable",
    "Supervisor",
    "SupervisorGaveUp",
    "SupervisorRef",
    "SystemNotRunning",
    "SystemStatistics",
    "Terminated",
    "TreeNode",
    "UnknownActor",
    "UnknownAggregateType",
    "UnknownChild",
    "UnknownCommand",
    "UnknownEventType",
    "UnknownHandler",
    "UnknownSupervisor",
    "UnoError",
    "View",
    "WaitsForItself",
    "WorkCancelled",
    "WorldError",
    "bridge",
    "event_defaults",
    "event_registry",
    "get_all",
    "get_event_bus",
    "get_event_publisher",
    "get_event_store",
    "handles",
    "open_store",
    "published_view",
    "reacts",
    "register_event",
    "subscribe",
    "upcasts",
]
