"""What a service answers over HTTP when an error of uno_actors ends a request: one table, for every framework.

The answers are problem details (RFC 9457, ``application/problem+json``). The rules behind the table:

- What the data of a request can cause is its client's: 404, 409 or 422, with the error's own text.
- What the same request may overcome later is 503 with ``Retry-After``, or 504 where time ran out. The client gets a
  fixed text: the error's own names paths, hosts and nodes, which belong in the log.
- If a command has taken effect and only a view lags, the answer says so, and with what header to read later.
- If a command may have taken effect, the answer says so and names the idempotency key with which to send it again.
- Everything else is a fault of the program, and stays a 500: frameworks log those with their tracebacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uno_actors import errors as e
from uno_actors.errors import UnoError, shown
from uno_actors.printable import bounded

MEDIA_TYPE = "application/problem+json"

LONGEST_DETAIL = 2_000
"""Characters of an error's text that an answer repeats."""

OWN_TEXT = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of answer.

    Attributes:
        status: Status code of HTTP.
        title: What kind of problem it is; the same for all problems of the kind.
        detail: Text for the client; empty for the text of the error.
        retry_after: Seconds after which the client may send the request again; ``None`` to not say so.
        may_have_taken_effect: Whether the command may have been recorded.
    """

    status: int
    title: str
    detail: str = OWN_TEXT
    retry_after: int | None = None
    may_have_taken_effect: bool = False


_NOTHING_RECORDED = "Nothing was recorded. Send the request again later."
_MAYBE = "The command may have taken effect. Send the request again with this Idempotency-Key: it takes effect once."
_RECORDED = "It is recorded, but not shown here yet. Read again later; a command need not be sent again."
_MAYBE_WITHOUT_KEY = "The command may have taken effect. Look before you send it again."

PROBLEMS: Mapping[type[UnoError], Problem] = {
    # the request's
    e.CommandRejected: Problem(409, "Command rejected"),
    e.HandlerIsRunning: Problem(409, "Handler is running"),
    e.NameTaken: Problem(409, "Name taken"),
    e.AggregateNotFound: Problem(404, "Aggregate not found", "Nothing is recorded under this id."),
    e.UnknownHandler: Problem(404, "Handler not found"),
    e.UnknownActor: Problem(404, "Actor not found"),
    e.UnknownSupervisor: Problem(404, "Supervisor not found"),
    e.UnknownChild: Problem(404, "Child not found"),
    e.NoDeadLetter: Problem(404, "Dead letter not found"),
    e.InvalidTenant: Problem(404, "Tenant not found", "There is no such tenant."),
    e.UnknownTenant: Problem(404, "Tenant not found", "There is no such tenant."),
    e.NoSuchVersion: Problem(404, "Version not found"),
    e.UnknownSchedule: Problem(404, "Schedule not found"),
    e.InvalidMoment: Problem(422, "Invalid version or time"),
    e.InvalidSchedule: Problem(422, "Invalid schedule"),
    e.CommandIdReused: Problem(422, "Idempotency key reused"),
    e.InvalidAggregateId: Problem(422, "Invalid aggregate id"),
    e.InvalidCommand: Problem(422, "Invalid command"),
    e.InvalidExpectedVersion: Problem(422, "Invalid expected version"),
    e.InvalidTopic: Problem(422, "Invalid topic"),
    e.InvalidReset: Problem(422, "Invalid position"),
    e.InvalidPosition: Problem(422, "Invalid position"),
    e.EventNotSerializable: Problem(422, "Value cannot be recorded"),
    # the world's
    e.WorldError: Problem(503, "Service unavailable", "Send the request again later.", 5),
    e.TenantsInUse: Problem(503, "Too many tenants", _NOTHING_RECORDED, 5),
    e.MailboxFull: Problem(503, "Too many requests wait", _NOTHING_RECORDED, 1),
    e.StoreFull: Problem(503, "Store full", _NOTHING_RECORDED, 60),
    e.StoreUnavailable: Problem(503, "Store unavailable", _NOTHING_RECORDED, 5),
    e.LeaseLost: Problem(503, "Store unavailable", _NOTHING_RECORDED, 5),
    e.ConcurrencyConflict: Problem(503, "Others were faster", _NOTHING_RECORDED, 1),
    e.AppendConditionFailed: Problem(503, "Others were faster", _NOTHING_RECORDED, 1),
    e.NoSuchStream: Problem(503, "Stream not found", _NOTHING_RECORDED, 5),
    e.CheckpointConflict: Problem(503, "Others were faster", _NOTHING_RECORDED, 1),
    e.NotServed: Problem(503, "Not served now", _NOTHING_RECORDED, 5),
    e.LinkUnavailable: Problem(503, "Service unavailable", "Send the request again later.", 5),
    e.SupervisorGaveUp: Problem(503, "Service is ending", _NOTHING_RECORDED, 5),
    e.SystemNotRunning: Problem(503, "Service is not running", _NOTHING_RECORDED, 5),
    e.NotHandled: Problem(503, "Recorded, not shown yet", _RECORDED, 5),
    e.WaitTimeout: Problem(504, "Recorded, not shown yet", _RECORDED, 1),
    e.EventSetAside: Problem(503, "Recorded, not shown", _RECORDED, 60),
    e.OutcomeUnknown: Problem(503, "Outcome unknown", _MAYBE, 1, may_have_taken_effect=True),
    e.WorkCancelled: Problem(503, "Work cancelled", _MAYBE, 1, may_have_taken_effect=True),
    e.AskTimeout: Problem(504, "Timeout", _MAYBE, 1, may_have_taken_effect=True),
    e.StartTimeout: Problem(504, "Timeout", "Send the request again later.", 5),
    e.RetryLater: Problem(503, "Service unavailable", "Send the request again later.", 5),
    e.HandlerTimeout: Problem(504, "Timeout", "Send the request again later.", 5),
}
"""The answer for each class of error, its subclasses included."""

FAULTS: frozenset[str] = frozenset({
    # roots
    "UnoError", "CallerError", "InternalError",
    # definitions, options and configuration files
    "AmbiguousEventType", "ApplyFailed", "InvalidAggregate", "InvalidCluster", "InvalidConfig", "InvalidDecision",
    "ArgumentWithoutEffect", "InvalidEvent", "InvalidHandler", "InvalidNumber", "InvalidStoreUrl", "InvalidSupervisor",
    "MissingApply", "MissingExtra", "NotConfigurable",
    # calls that no request can make right
    "AmbiguousStream", "BlockingCallOnLoop", "DeadlockError", "ExitRaised", "InvalidQuery", "NoCluster", "NoSystem",
    "OtherTenant", "UnknownAggregateType", "UnknownCommand", "WaitsForItself",
    # replies and events that the program cannot express; a command may have taken effect
    "EventNotReadable", "RemoteError", "ReplyNotRecorded", "ReplyNotSent", "UnknownEventType",
    # stores
    "CorruptRecord", "OtherNumberOfLogs", "PlaceTaken", "SeveralLogs", "StoreForked", "StoreFormatError",
    # recordings
    "RecordingNotReadable", "RecordingNotWritten",
})  # fmt: skip
"""The errors that stay a 500 on purpose, by name: some are defined above this module."""


def problem_of(error: BaseException) -> Problem | None:
    """The answer for an error; ``None`` for one that stays a 500."""
    if isinstance(error, e.AskTimeout) and not error.started:
        return Problem(504, "Timeout", _NOTHING_RECORDED, 1)
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)


def type_of(error: BaseException) -> str:
    """The URI that names the kind of problem: of the nearest class of ours, such as ``urn:uno-actors:store-full``."""
    kind = next((kind for kind in type(error).__mro__ if kind in PROBLEMS), None)
    return "about:blank" if kind is None else f"urn:uno-actors:{_dashed(kind.__name__)}"


def body_of(error: BaseException, problem: Problem, key: str | None = None) -> dict[str, Any]:
    """The body of the answer, as JSON.

    Args:
        error: The error.
        problem: Its answer.
        key: The idempotency key of the request, if it had one or got one.
    """
    text = shown(getattr(error, "reason", None) if isinstance(error, e.CommandRejected) else error)
    body: dict[str, Any] = {
        "type": type_of(error),
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail or bounded(text, LONGEST_DETAIL),
    }
    if problem.may_have_taken_effect:
        if key is None:
            body["detail"] = _MAYBE_WITHOUT_KEY
        else:
            body["idempotency_key"] = key
    return body


def headers_of(problem: Problem) -> dict[str, str]:
    """The headers of the answer, beside its media type."""
    return {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}


def _dashed(name: str) -> str:
    """``StoreFull`` as ``store-full``."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).strip("-")
