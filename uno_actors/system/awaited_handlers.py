"""Which handlers a caller waits for, and who of them waits for whom.

A handler that waits gets no further event meanwhile. So it must not wait for itself, for a handler that waits for it,
or for one of lower priority, which gets each event only after it.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from uno_actors.actors.ask import AskTarget, Envelope, PendingReply, being_handled
from uno_actors.actors.deadlock import cycle_through
from uno_actors.clock import Timer
from uno_actors.errors import AskTimeout, DeadlockError, InvalidHandler, WaitsForItself
from uno_actors.handlers.actor import HandlerActor
from uno_actors.handlers.partitions import whole_name
from uno_actors.handlers.spec import EventHandler, HandlerSpec, check_name
from uno_actors.handlers.subscribe import gather, is_same_target
from uno_actors.handlers.subscription import Subscription
from uno_actors.system.handler_host import HandlerHost

MOST_FOUND = 256
"""Handlers, as callers name them, that are looked up once."""


class Target(NamedTuple):
    """A handler that is waited for.

    Attributes:
        name: Its name.
        subscriptions: It, or its partitions, in this process, whether or not they are run here.
        spec: Its specification, as far as it is known.
    """

    name: str
    subscriptions: tuple[Subscription, ...]
    spec: HandlerSpec | None

    @property
    def is_by_process(self) -> bool:
        """Whether its events belong to processes, by which it may be partitioned."""
        target = None if self.spec is None else self.spec.target
        return hasattr(target, "process_of") or hasattr(target, "processes_of")


class AwaitedHandlers:
    """The handlers of a system as callers see them that wait for them. May be called from any thread.

    Args:
        handlers: Those of this process.
    """

    def __init__(self, handlers: HandlerHost) -> None:
        self._handlers = handlers
        self._waiters: dict[object, tuple[str, tuple[str, ...]]] = {}  # handlers, and for whom they wait
        self._found: tuple[tuple[Subscription, ...], dict[object, tuple[Target, ...]]] = (), {}

    def targets(self, wait_for: object) -> tuple[Target, ...]:
        """The handlers that a caller names; see `AggregateRef.ask`.

        Raises:
            InvalidHandler: One of them is not a handler.
        """
        if isinstance(wait_for, (tuple, list, set, frozenset)):
            return tuple(target for each in wait_for for target in self.targets(each))
        known = tuple(self._handlers.subscriptions)
        kept = self._found
        if kept[0] != known or len(kept[1]) >= MOST_FOUND:
            kept = self._found = known, {}
        found = kept[1]
        try:
            targets = found.get(wait_for)
        except TypeError:  # it cannot be hashed
            return self._find(wait_for, known)
        if targets is None:
            targets = found[wait_for] = self._find(wait_for, known)
        return targets

    def _find(self, wait_for: object, known: tuple[Subscription, ...]) -> tuple[Target, ...]:
        if isinstance(wait_for, str):
            check_name(whole_name(wait_for))
            ours = [each for each in known if wait_for in (each.name, whole_name(each.name))]
            return (_target(wait_for, ours),)
        ours = [each for each in known if _is_meant(each.spec.target, wait_for)]
        if ours:
            names = dict.fromkeys(whole_name(each.name) for each in ours)
            return tuple(
                _target(name, [each for each in ours if whole_name(each.name) == name]) for name in names
            )
        made: Any = wait_for
        if isinstance(wait_for, type) and callable(getattr(wait_for, "handler", None)):  # a process manager
            made = wait_for.handler()  # type: ignore[attr-defined]  # checked above
        specs = [spec.whole() for spec in gather([made])]
        if not specs:
            raise InvalidHandler(f"{wait_for!r} has no handlers, so nothing could be waited for")
        found = [self.targets(spec.name)[0] for spec in specs]
        return tuple(each._replace(spec=each.spec or spec) for each, spec in zip(found, specs, strict=True))

    def check(self, targets: Iterable[Target]) -> str | None:
        """Refuse a wait that could not end; return the name of the handler that makes it, if one does.

        A handler that waits gets no further event, and those of lower priority none that it has had.

        Raises:
            WaitsForItself, DeadlockError: It waits for itself, or for one that waits for it.
        """
        envelope = being_handled.get()
        if envelope is None or envelope.actor.handling is not envelope:
            return None
        ours = self._handler_of(envelope)
        for target in targets:
            if ours is not None:
                self._check_handler(ours, target)
            for subscription in target.subscriptions:
                cell = self._handlers.cells.get(subscription.name)
                if cell is not None and (cycle := cycle_through(cell)):
                    raise DeadlockError(cycle)
        return None if ours is None else whole_name(ours.name)

    def _handler_of(self, envelope: Envelope) -> Subscription | None:
        actor = getattr(envelope.actor, "actor", None)
        if isinstance(actor, HandlerActor) and actor.subscription in self._handlers.subscriptions:
            return actor.subscription
        return None

    def _check_handler(self, ours: Subscription, target: Target) -> None:
        name, other = whole_name(ours.name), whole_name(target.name)
        if name == other:
            raise WaitsForItself(name, "an event that it is to handle itself", (name, name))
        if circle := self._circle(name, other):
            raise WaitsForItself(name, f"handler {other}, which waits for it", circle)
        if target.spec is not None and target.spec.priority > ours.spec.priority:
            what = f"handler {other}, whose lower priority gives it an event only after {name}"
            raise WaitsForItself(name, what, (name, other, name))

    def _circle(self, start: str, name: str, path: tuple[str, ...] = ()) -> tuple[str, ...] | None:
        """Who waits for whom from ``start`` over ``name`` back to ``start``; ``None`` if nothing leads back."""
        if name == start:
            return (start, *path, start)
        if name in path:
            return None
        awaited = [
            each for waiter, names in tuple(self._waiters.values()) if waiter == name for each in names
        ]
        found = (self._circle(start, each, (*path, name)) for each in awaited)
        return next(filter(None, found), None)

    def note_waiter(self, waiter: str | None, targets: Iterable[Target]) -> Callable[[], object]:
        """Note that a handler waits for others; return what ends this. Nothing is noted of other callers."""
        if waiter is None:
            return _ignore
        key = object()
        self._waiters[key] = waiter, tuple(whole_name(each.name) for each in targets)
        return lambda: self._waiters.pop(key, None)

    def stand_in(self, targets: tuple[Target, ...]) -> AskTarget:
        """What stands for the handlers among the actors that wait for each other."""
        return _StandIn(self._handlers, targets)


class _StandIn:
    """The handlers in the place of an actor that was asked: while they handle an event, they owe the reply."""

    def __init__(self, handlers: HandlerHost, targets: tuple[Target, ...]) -> None:
        self._handlers = handlers
        self._targets = targets

    @property
    def handling(self) -> Envelope | None:
        """What the first of them that is at work handles."""
        cells = (
            self._handlers.cells.get(subscription.name)
            for target in self._targets
            for subscription in target.subscriptions
        )
        return next((cell.handling for cell in cells if cell is not None and cell.handling is not None), None)

    def run_inline(self) -> None:
        """They run by themselves."""

    def late(self, reply: PendingReply, message: str, seconds: float) -> AskTimeout:
        """See `AskTarget.late`; a wait keeps its time itself."""
        return AskTimeout(str(self), message, seconds, started=True, doing="")

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """See `AskTarget.call_later`."""
        return self._handlers.router_cell.call_later(seconds, callback)

    def __str__(self) -> str:
        return ", ".join(target.name for target in self._targets)


def _target(name: str, subscriptions: Iterable[Subscription]) -> Target:
    found = tuple(subscriptions)
    return Target(name, found, found[0].spec.whole() if found else None)


def _is_meant(target: object, given: object) -> bool:
    """Whether a handler's ``target`` is what a caller has ``given``: the same one, or one of its class."""
    if isinstance(given, HandlerSpec):
        return is_same_target(target, given.target)
    if is_same_target(target, given):
        return True
    if not isinstance(given, type):
        return False
    return (issubclass(given, EventHandler) and type(target) is given) or getattr(
        target, "_manager", None
    ) is given


def _ignore() -> None:
    """Nothing was noted."""
