"""Every public name in one list. `uno_actors` imports this module when a name is first used."""

from uno_actors.actors.actor import Actor, ActorRef
from uno_actors.actors.dead_messages import DeadMessage
from uno_actors.actors.future import Future, get_all
from uno_actors.actors.inspection import ActorStatistics
from uno_actors.actors.mailbox import MailboxPolicy
from uno_actors.actors.signals import Terminated
from uno_actors.aggregates.deciding import Decider, decide, decides
from uno_actors.aggregates.envelope import CommandReply
from uno_actors.aggregates.ref import AggregateRef
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
from uno_actors.cluster.settings import Cluster
from uno_actors.cluster.statistics import ClusterStatistics, PeerStatistics
from uno_actors.cluster.view import ClusterView
from uno_actors.config.errors import ConfigFault, InvalidConfig
from uno_actors.config.writer import NotConfigurable
from uno_actors.domain.aggregate import AggregateRoot, handles
from uno_actors.domain.commands import Command
from uno_actors.domain.decision_model import DecisionModel
from uno_actors.domain.events import DomainEvent, EventRegistry, event_registry
from uno_actors.domain.registration import register_event, upcasts
from uno_actors.domain.schedules import Fired, Scheduled, Unscheduled
from uno_actors.domain.tags import Tag
from uno_actors.errors import (
    AggregateNotFound,
    AmbiguousEventType,
    AmbiguousStream,
    AppendConditionFailed,
    ApplyFailed,
    ArgumentWithoutEffect,
    AskTimeout,
    BlockingCallOnLoop,
    CallerError,
    CheckpointConflict,
    CommandIdReused,
    CommandRejected,
    ConcurrencyConflict,
    CorruptRecord,
    DeadlockError,
    EventNotReadable,
    EventNotSerializable,
    EventSetAside,
    ExitRaised,
    HandlerIsRunning,
    HandlerTimeout,
    InternalError,
    InvalidAggregate,
    InvalidAggregateId,
    InvalidCluster,
    InvalidCommand,
    InvalidDecision,
    InvalidEvent,
    InvalidExpectedVersion,
    InvalidHandler,
    InvalidMoment,
    InvalidNumber,
    InvalidPosition,
    InvalidQuery,
    InvalidReset,
    InvalidSchedule,
    InvalidStoreUrl,
    InvalidSupervisor,
    InvalidTenant,
    InvalidTopic,
    LeaseLost,
    LinkUnavailable,
    MailboxFull,
    MissingApply,
    MissingExtra,
    NameTaken,
    NoCluster,
    NoDeadLetter,
    NoSuchStream,
    NoSuchVersion,
    NoSystem,
    NotHandled,
    NotServed,
    OtherNumberOfLogs,
    OtherTenant,
    OutcomeUnknown,
    PlaceTaken,
    RecordingNotReadable,
    RecordingNotWritten,
    RemoteError,
    ReplyNotRecorded,
    ReplyNotSent,
    RetryLater,
    SeveralLogs,
    StandingEvent,
    StartTimeout,
    StoreForked,
    StoreFormatError,
    StoreFull,
    StoreUnavailable,
    SupervisorGaveUp,
    SystemNotRunning,
    TenantsInUse,
    UnknownActor,
    UnknownAggregateType,
    UnknownChild,
    UnknownCommand,
    UnknownEventType,
    UnknownHandler,
    UnknownSchedule,
    UnknownSupervisor,
    UnknownTenant,
    UnoError,
    WaitsForItself,
    WaitTimeout,
    WorkCancelled,
    WorldError,
)
from uno_actors.flight_recorder.files import Recording
from uno_actors.flight_recorder.steps import Step
from uno_actors.handlers.control import HandlerControl, HandlerInfo
from uno_actors.handlers.dependencies import Depends
from uno_actors.handlers.moves import HandlerNameWarning
from uno_actors.handlers.projection import Projection, published_view
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import EventHandler, EventPriority, HandlerContext
from uno_actors.handlers.subscribe import subscribe
from uno_actors.handlers.view import PublishedView, View
from uno_actors.inquiry.explanation import Explanation, Finding, Remedy
from uno_actors.observing import Observer
from uno_actors.processes.manager import ProcessManager
from uno_actors.processes.messages import ProcessEnded, Refusal
from uno_actors.processes.routing import reacts
from uno_actors.scheduling.control import ScheduleControl
from uno_actors.scheduling.entries import ScheduleInfo
from uno_actors.scheduling.scheduler import SchedulerStatistics
from uno_actors.store.causal_tree import CausalNode, CausalTree
from uno_actors.store.conditions import EventQuery
from uno_actors.store.expected_version import (
    ANY,  # noqa: F401 - not in `import *`: unittest.mock also has an ANY
    EXISTS,
)
from uno_actors.store.log_filter import LogFilter
from uno_actors.store.membership import Member
from uno_actors.store.opening import open_store
from uno_actors.store.port import EventStore, Lease
from uno_actors.store.records import Checkpoint, DeadLetter, RecordedEvent, Selection, Snapshot
from uno_actors.supervision.child import TreeNode
from uno_actors.supervision.reload import Reloaded
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.system.bridges import bridge
from uno_actors.system.recording import SystemRecording
from uno_actors.system.statistics import SystemStatistics
from uno_actors.system.supervisor_ref import ChildCounts, SupervisorRef
from uno_actors.system.system import ActorSystem
from uno_actors.system.tenants import Tenants, TenantsStatistics

__all__ = [
    "EXISTS",
    "Actor",
    "ActorRef",
    "ActorStatistics",
    "ActorSystem",
    "AggregateNotFound",
    "AggregateRef",
    "AggregateRoot",
    "AmbiguousEventType",
    "AmbiguousStream",
    "AppendConditionFailed",
    "ApplyFailed",
    "ArgumentWithoutEffect",
    "AskTimeout",
    "Backoff",
    "BlockingCallOnLoop",
    "BusStatistics",
    "CallerError",
    "CausalNode",
    "CausalTree",
    "Checkpoint",
    "CheckpointConflict",
    "ChildCounts",
    "ChildSpec",
    "Cluster",
    "ClusterStatistics",
    "ClusterView",
    "Command",
    "CommandIdReused",
    "CommandRejected",
    "CommandReply",
    "ConcurrencyConflict",
    "ConfigFault",
    "CorruptRecord",
    "DeadLetter",
    "DeadMessage",
    "DeadlockError",
    "Decider",
    "DecisionModel",
    "Depends",
    "DomainEvent",
    "EventBus",
    "EventHandler",
    "EventNotReadable",
    "EventNotSerializable",
    "EventPriority",
    "EventPublisher",
    "EventQuery",
    "EventRegistry",
    "EventSetAside",
    "EventSourcedRepository",
    "EventStore",
    "ExitRaised",
    "Explanation",
    "FailedDelivery",
    "Finding",
    "Fired",
    "Future",
    "HandlerContext",
    "HandlerControl",
    "HandlerInfo",
    "HandlerIsRunning",
    "HandlerNameWarning",
    "HandlerTimeout",
    "InternalError",
    "InvalidAggregate",
    "InvalidAggregateId",
    "InvalidCluster",
    "InvalidCommand",
    "InvalidConfig",
    "InvalidDecision",
    "InvalidEvent",
    "InvalidExpectedVersion",
    "InvalidHandler",
    "InvalidMoment",
    "InvalidNumber",
    "InvalidPosition",
    "InvalidQuery",
    "InvalidReset",
    "InvalidSchedule",
    "InvalidStoreUrl",
    "InvalidSupervisor",
    "InvalidTenant",
    "InvalidTopic",
    "Lease",
    "LeaseLost",
    "LinkUnavailable",
    "LogFilter",
    "MailboxFull",
    "MailboxPolicy",
    "Member",
    "MissingApply",
    "MissingExtra",
    "NameTaken",
    "NoCluster",
    "NoDeadLetter",
    "NoSuchStream",
    "NoSuchVersion",
    "NoSystem",
    "NotConfigurable",
    "NotHandled",
    "NotServed",
    "Observer",
    "OtherNumberOfLogs",
    "OtherTenant",
    "OutcomeUnknown",
    "PeerStatistics",
    "PlaceTaken",
    "ProcessEnded",
    "ProcessManager",
    "Projection",
    "PublishedView",
    "RecordedEvent",
    "Recording",
    "RecordingNotReadable",
    "RecordingNotWritten",
    "Refusal",
    "Reloaded",
    "Remedy",
    "RemoteError",
    "ReplyNotRecorded",
    "ReplyNotSent",
    "RetryLater",
    "ScheduleControl",
    "ScheduleInfo",
    "Scheduled",
    "SchedulerStatistics",
    "Selection",
    "SeveralLogs",
    "Snapshot",
    "StandingEvent",
    "StartTimeout",
    "Step",
    "StoreForked",
    "StoreFormatError",
    "StoreFull",
    "StoreUnavailable",
    "Supervisor",
    "SupervisorGaveUp",
    "SupervisorRef",
    "SystemNotRunning",
    "SystemRecording",
    "SystemServices",
    "SystemStatistics",
    "Tag",
    "Tenants",
    "TenantsInUse",
    "TenantsStatistics",
    "Terminated",
    "TreeNode",
    "UnknownActor",
    "UnknownAggregateType",
    "UnknownChild",
    "UnknownCommand",
    "UnknownEventType",
    "UnknownHandler",
    "UnknownSchedule",
    "UnknownSupervisor",
    "UnknownTenant",
    "UnoError",
    "Unscheduled",
    "View",
    "WaitTimeout",
    "WaitsForItself",
    "WorkCancelled",
    "WorldError",
    "bridge",
    "decide",
    "decides",
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
