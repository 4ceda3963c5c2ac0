"""Specifications of supervisors and their children: what happens when a child fails.

The rules are Erlang/OTP's (https://www.erlang.org/doc/system/sup_princ.html), with back-off added: a failed
child is restarted; a supervisor that needs more restarts than its budget allows stops its children and fails
to its parent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from uno_actors.actors.pykka import PykkaActor
from uno_actors.backoff import Backoff
from uno_actors.errors import InvalidSupervisor
from uno_actors.quantities import check_count, check_duration, is_count, is_duration

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Which children are restarted with a failed one: none, all siblings, or those started after it."""

RestartType = Literal["permanent", "transient", "temporary"]
"""When a child is restarted: always, only after a failure, or never; a temporary one is forgotten when it ends."""

Shutdown = float | Literal["kill", "infinity"]
"""Seconds that a child may take to stop before it is abandoned; ``kill`` for none, ``infinity`` for no limit."""

AutoShutdown = Literal["never", "any_significant", "all_significant"]
"""Whether a supervisor shuts down when a significant child exits by itself, or only when the last one does."""

Directive = Literal["restart", "resume", "stop", "escalate"]
"""What to do with a child that failed with an error of some class."""

Budget = Literal["supervisor", "child"]
"""Whether all children share one restart budget, or each has its own."""

SHUTDOWN = 5.0
"""Seconds that an actor or a handler may take to stop by default."""


@dataclass(frozen=True, slots=True)
class RestartBudget:
    """At most ``max_restarts`` restarts within ``within`` seconds, the boundary included.

    Args:
        max_restarts: ``None`` for no limit; 0 gives up at the first failure.
        within: Seconds of the sliding window.
    """

    max_restarts: int | None = None
    within: float = 30.0

    def __post_init__(self) -> None:
        check_count("max_restarts", self.max_restarts, none=True)
        check_duration("within", self.within)

    def recent(self, restarts: Sequence[float], now: float) -> tuple[float, ...]:
        """The times in ``restarts`` that still count at ``now``."""
        return tuple(moment for moment in restarts if now - moment <= self.within)

    def allows(self, restarts: Sequence[float], now: float) -> bool:
        """Whether one more restart at ``now`` stays within the budget."""
        return self.max_restarts is None or len(self.recent(restarts, now)) < self.max_restarts

    def __str__(self) -> str:
        return (
            "any number of restarts"
            if self.max_restarts is None
            else f"{self.max_restarts} restarts within {self.within:g} s"
        )


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child of a supervisor.

    Args:
        run: A handler as in ``ActorSystem(handlers=[...])``, a class of actors, or a `Supervisor`.
        name: Unique under the supervisor; default is the name of the handler, supervisor or actor class.
            `ActorSystem.actor` finds an actor under the name given here.
        args: Arguments of an actor's constructor, used on every start.
        kwargs: Keyword arguments of an actor's constructor, used on every start.
        dispatcher: For an actor; see `ActorSystem.spawn`.
        restart: See `RestartType`.
        shutdown: See `Shutdown`; default is `SHUTDOWN` seconds, for a supervisor ``infinity``.
        significant: Whether its exit counts for ``auto_shutdown``.
        max_attempts: For an actor: how often a message is tried for whose reply no caller waits, before it becomes a
            dead message; default 1. For a handler: overrides the handler's own ``max_attempts``.

    Raises:
        InvalidSupervisor: The values contradict each other, or one is not among the allowed values.
    """

    run: Any
    name: str | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    dispatcher: Literal["shared", "thread"] = "shared"
    restart: RestartType = "permanent"
    shutdown: Shutdown | None = None
    significant: bool = False
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        whose = f"child {self.name or getattr(self.run, '__name__', self.run)!r}"
        _check_one_of(whose, "restart", self.restart, RestartType)
        _check_one_of(whose, "dispatcher", self.dispatcher, Literal["shared", "thread"])
        if not _is_shutdown(self.shutdown):
            raise InvalidSupervisor(
                whose, f"shutdown must be seconds, 'kill' or 'infinity'; found {self.shutdown!r}"
            )
        if self.max_attempts is not None and not is_count(self.max_attempts, 1):
            raise InvalidSupervisor(
                whose, f"max_attempts must be a whole number, 1 or more; found {self.max_attempts!r}"
            )
        if self.significant and self.restart == "permanent":
            raise InvalidSupervisor(
                whose,
                "it is significant and permanent, but a permanent child never ends by itself: make it transient"
                " or temporary",
            )
        if not self.is_actor and (self.args or self.kwargs or self.dispatcher != "shared"):
            raise InvalidSupervisor(whose, "args, kwargs and dispatcher are for classes of actors")
        if isinstance(self.run, Supervisor) and self.max_attempts is not None:
            raise InvalidSupervisor(whose, "max_attempts is for actors and handlers, not for a supervisor")

    @property
    def is_actor(self) -> bool:
        """Whether it is a class of actors."""
        return isinstance(self.run, type) and issubclass(self.run, PykkaActor)

    @property
    def known_name(self) -> str | None:
        """Its name, if it can be known without inspecting a handler."""
        if self.name is not None:
            return self.name
        if isinstance(self.run, Supervisor):
            return self.run.name
        return str(self.run.__name__) if self.is_actor else None

    @property
    def patience(self) -> Shutdown:
        """Its ``shutdown``, or the default for its kind."""
        if self.shutdown is not None:
            return self.shutdown
        return "infinity" if isinstance(self.run, Supervisor) else SHUTDOWN


@dataclass(frozen=True, slots=True)
class Supervisor:
    """A supervisor and its children, given to ``ActorSystem(supervisors=[...])``.

    Args:
        name: Unique in the system.
        children: `ChildSpec` objects, or anything that one may ``run``; in the order of their start. They are
            stopped in reverse order.
        strategy: See `Strategy`.
        max_restarts: Restarts within ``within`` seconds before it gives up; ``None`` for no limit, 0 to give up
            at the first failure. Siblings restarted with a failed child do not count; each failed attempt to
            restart does.
        within: Seconds of the sliding window, boundary included.
        budget: See `Budget`.
        backoff: Time between a failure and the restart.
        directives: What to do with a child, by the class of its error; the most specific class wins. Default is
            ``restart``. ``resume`` lets it continue unchanged, without the message or event that it failed at;
            ``stop`` stops it; ``escalate`` makes the supervisor give up.
        auto_shutdown: See `AutoShutdown`.

    Raises:
        ValueError: A number is out of its range.
        InvalidSupervisor: The values contradict each other, or one is not among the allowed values.
    """

    name: str
    children: Sequence[Any] = ()
    max_restarts: int | None = 5
    within: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)
    strategy: Strategy = "one_for_one"
    budget: Budget = "supervisor"
    directives: Mapping[type[BaseException], Directive] = field(default_factory=dict)
    auto_shutdown: AutoShutdown = "never"

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", tuple(self.children))  # it may be an iterator, or change later
        if not self.name:
            raise ValueError("a supervisor needs a name")
        RestartBudget(self.max_restarts, self.within)  # checks both
        whose = f"supervisor {self.name!r}"
        _check_one_of(whose, "strategy", self.strategy, Strategy)
        _check_one_of(whose, "budget", self.budget, Budget)
        _check_one_of(whose, "auto_shutdown", self.auto_shutdown, AutoShutdown)
        kinds: Mapping[Any, Directive] = self.directives
        for kind, directive in kinds.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise InvalidSupervisor(whose, f"directives are by class of error; found {kind!r}")
            _check_one_of(whose, f"the directive for {kind.__name__}", directive, Directive)
        specs = self.specs
        names = [name for spec in specs if (name := spec.known_name) is not None]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidSupervisor(whose, f"two children are named {', '.join(map(repr, twice))}")
        significant = [spec for spec in specs if spec.significant]
        if significant and self.auto_shutdown == "never":
            raise InvalidSupervisor(
                whose, "a child is significant, which means nothing while auto_shutdown is 'never'"
            )
        if not significant and self.auto_shutdown != "never":
            raise InvalidSupervisor(
                whose, f"auto_shutdown is {self.auto_shutdown!r} and no child is significant"
            )

    @property
    def specs(self) -> tuple[ChildSpec, ...]:
        """The children, each as a `ChildSpec`."""
        return tuple(map(to_child_spec, self.children))

    @property
    def restart_budget(self) -> RestartBudget:
        """``max_restarts`` and ``within`` as one value."""
        return RestartBudget(self.max_restarts, self.within)

    @property
    def quiet_after(self) -> float:
        """Seconds without a failure after which the back-off starts over."""
        reset = self.backoff.reset_after
        return max(self.within, self.backoff.max) if reset is None else reset

    def directive(self, error: BaseException) -> Directive:
        """What to do with a child that failed with ``error``."""
        for kind in type(error).__mro__:
            if kind in self.directives:
                return self.directives[kind]
        return "restart"


def to_child_spec(child: Any) -> ChildSpec:
    """``child`` itself, or a `ChildSpec` with defaults that runs it."""
    return child if isinstance(child, ChildSpec) else ChildSpec(child)


def _check_one_of(whose: str, what: str, found: object, allowed: Any) -> None:
    if found not in get_args(allowed):
        raise InvalidSupervisor(
            whose, f"{what} must be one of {', '.join(get_args(allowed))}; found {found!r}"
        )


def _is_shutdown(found: object) -> bool:
    return found is None or found in ("kill", "infinity") or is_duration(found, zero=True)
