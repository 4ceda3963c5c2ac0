"""Supervisors as actors: they carry out what `uno_actors.supervision.policy` decides.

A supervisor has a handle for each child. Whatever takes time (stopping children one by one, the back-off, starting them
one by one) runs as a task beside the supervisor's mailbox, so that the supervisor still receives signals and can be
stopped in the meantime.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from typing_extensions import override

from uno_actors.actors.actor import Actor
from uno_actors.backoff import chance
from uno_actors.clock import Clock
from uno_actors.errors import InvalidSupervisor, SupervisorGaveUp, UnknownChild, describe
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.logs import Logger
from uno_actors.observing import Observation
from uno_actors.supervision.child import (
    ChildEnded,
    ChildFailed,
    ChildHandle,
    ChildSignal,
    ChildStarted,
    StartFailed,
    TreeNode,
)
from uno_actors.supervision.policy import (
    Decision,
    GiveUp,
    RestartGroup,
    Resume,
    ShutDown,
    SupervisorState,
    Terminate,
)
from uno_actors.supervision.restarts import Restarts
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.supervision.statistics import SupervisorStatistics, SupervisorStatus, restarts_left

BY_ITSELF: BaseException = RuntimeError("it has ended by itself")
"""Stands for the error of a child that has exited without one."""

DECISIONS: dict[type[Decision], str] = {
    RestartGroup: "restart",
    Resume: "resume",
    Terminate: "stop",
    ShutDown: "stop",
    GiveUp: "give up",
}
"""What observers know the decisions as."""


class SupervisorHost(Protocol):
    """What supervisors need from the system in which they live."""

    observed: Observation | None
    recorder: FlightRecorder | None

    @property
    def clock(self) -> Clock:
        """For windows and back-offs."""

    @property
    def log(self) -> Logger:
        """Has the names of the system bound."""

    def resolve_child(self, child: Any) -> list[ChildSpec]:
        """The children that ``child`` stands for: one, or all handlers of a module.

        Raises:
            InvalidHandler, InvalidSupervisor: It stands for no child.
        """

    async def make_child(self, spec: ChildSpec, tell: Callable[[ChildSignal], None]) -> ChildHandle:
        """The handle of a new child.

        Raises:
            InvalidHandler: It is a handler, and another one has its name.
        """

    async def forget(self, child: ChildHandle) -> None:
        """Forget a child that was removed."""

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task, and keep a reference to the task."""

    async def start_supervisor(
        self,
        rules: Supervisor,
        gave_up: Callable[[SupervisorGaveUp], None],
        has_ended: Callable[[], None],
    ) -> "SupervisorActor":
        """Make the actor of a supervisor and start it; its children are not started yet.

        Raises:
            InvalidSupervisor: Another supervisor has its name.
        """


class SupervisorActor(Actor):
    """Starts its children, restarts those that fail by its rules, and gives up when its budget is used up.

    Over 300 lines, because signals of children and requests of the parent and of users change one state.

    Args:
        rules: The supervisor's rules; each child has a name.
        host: The system in which it lives.
        gave_up: Called when it has given up; its children have ended by then.
        has_ended: Called when it has shut down because a significant child has exited.
    """

    def __init__(
        self,
        rules: Supervisor,
        host: SupervisorHost,
        gave_up: Callable[[SupervisorGaveUp], None],
        has_ended: Callable[[], None],
    ) -> None:
        super().__init__()
        self.rules = rules
        self.is_running = False
        self.children: dict[str, ChildHandle] = {}
        self._host = host
        self._gave_up = gave_up
        self._has_ended = has_ended
        self._state = SupervisorState(rules)
        self._restarts = Restarts(self, host.clock, host.start_task)
        self._begun = 0  # how often `start_children` was called
        self._restarts_decided = 0
        self._why: str | None = None  # it gave up, until it is started again
        self._expected: dict[str, int] = {}  # signals of earlier incarnations are obsolete
        self._requests = asyncio.Lock()
        self._log = host.log.bind(actor=rules.name, supervisor=rules.name)

    # --- all children ---

    async def start_children(self) -> None:
        """Start the children in order; if one cannot be started, stop those before it.

        Raises:
            Exception: What the start of a child raised.
        """
        self._state = SupervisorState(self.rules)
        self.is_running = True
        self._why = None
        self._begun += 1
        begun = self._begun
        names = [spec.known_name for spec in self.rules.specs]
        for child in [child for name, child in self.children.items() if name not in names]:
            await self.terminate(child)  # it was added while the supervisor ran
        for spec in self.rules.specs:
            try:
                await self._start_child(spec)
            except BaseException as error:
                note = f"while {spec.known_name} was started under supervisor {self.rules.name!r}"
                with suppress(Exception):  # a class of errors may override it
                    if note not in getattr(
                        error, "__notes__", ()
                    ):  # the same instance may come again and again
                        error.add_note(note)
                if begun == self._begun:
                    await self.rest_children()
                raise
            if begun != self._begun or not self.is_running:
                raise InvalidSupervisor(self._whose, "it was stopped while it was started")

    async def _start_child(self, spec: ChildSpec) -> ChildHandle:
        name = spec.known_name or ""
        child = self.children.get(name)
        if child is None:
            child = await self._host.make_child(spec, self.send)
            if not self.is_running:
                await self._host.forget(child)
                raise InvalidSupervisor(self._whose, "it was stopped in the meantime")
        self._expected[name] = child.incarnation + 1
        self._state = self._state.added(name, spec, self._host.clock.monotonic())
        self.children[name] = child
        try:
            await child.start()
        except BaseException:
            self._state = self._state.without(name)
            raise
        return child

    async def halt_children(self, until: float | None = None) -> None:
        """End the children's running instances, the last started first, but keep messages that wait for them."""
        await self._end_children(lambda child: child.halt(until))

    async def rest_children(self) -> None:
        """As `halt_children`, when they may never be started again."""
        await self._end_children(lambda child: child.rest())

    async def stop_children(self, until: float | None = None) -> None:
        """Stop the children for good, the last started first."""
        await self._end_children(lambda child: child.stop(until))

    async def _end_children(self, end: Callable[[ChildHandle], Awaitable[None]]) -> None:
        self._stop_supervising()
        for child in tuple(reversed(self.children.values())):
            if self.is_running:
                return  # another caller has ended and restarted them in the meantime
            try:
                await end(child)
            except Exception as error:  # noqa: BLE001 - the others must be stopped too
                self._log.error("child cannot be stopped", child=child.name, exc_info=error)

    def abandon(self) -> None:
        """Stop the children for good without waiting for anything."""
        self._stop_supervising()
        for child in reversed(self.children.values()):
            child.abandon()

    def _stop_supervising(self) -> None:
        """Ignore the children's signals from now on."""
        self.is_running = False
        self._restarts.cancel_all()

    def nodes(self) -> tuple[TreeNode, ...]:
        """The nodes of the children, in the order of their start."""
        known = {child.name: child.status for child in self._state.children}
        return tuple(
            child.node(restarting=known.get(name) == "restarting" and self.is_running)
            for name, child in self.children.items()
        )

    def statistics(self) -> SupervisorStatistics:
        """Its current state and counters."""
        now = self._host.clock.monotonic()
        ended: SupervisorStatus = "stopped" if self._why is None else "gave up"
        return SupervisorStatistics(
            "running" if self.is_running else ended,
            len(self.children),
            self._restarts_decided,
            self.rules.max_restarts,
            self.rules.within,
            restarts_left(self._state, now),
            self._why,
            {name: max(0.0, due - now) for name, due in self._restarts.due.items()},
        )

    # --- signals ---

    def send(self, signal: ChildSignal) -> None:
        """Put a signal of a child into the mailbox; from any thread."""
        if self.actor_ref.is_alive():
            self.actor_ref.tell(signal)

    @override
    async def on_receive(self, message: ChildSignal) -> None:
        name, now = message.child.name, self._host.clock.monotonic()
        is_known = self.children.get(name) is message.child and name in self._state.names
        if not (self.is_running and is_known) or message.incarnation < self._expected.get(name, 0):
            return
        state, error = self._state, BY_ITSELF
        if self._state[name].status == "restarting" and not isinstance(message, StartFailed):
            state = state.started(name, now)  # the expected incarnation has sent a signal, so it has started
            if self._host.observed is not None:
                self._host.observed.child_restarted(self.rules.name, name, message.child.kind)
            self._note("restarted", message.child)
        decision: Decision
        match message:
            case ChildStarted():
                self._state = state
                return
            case ChildFailed(streak=streak):
                error = message.error
                can_resume = message.child.kind != "supervisor"
                state, decision = state.failed(name, error, now, chance(), streak, can_resume=can_resume)
            case StartFailed():
                error = message.error
                state, decision = state.start_failed(name, now, chance())
            case ChildEnded():
                state, decision = state.ended(name, now, chance())
        self._state = state
        self._carry_out(decision, message.child, error)

    def _carry_out(self, decision: Decision, child: ChildHandle, error: BaseException) -> None:
        if self._host.observed is not None:
            known_as = DECISIONS[type(decision)]
            self._host.observed.child_failed(self.rules.name, child.name, child.kind, error, known_as)
        if error is BY_ITSELF:
            self._note("stopped", child, then=f"it has ended by itself: {DECISIONS[type(decision)]}")
        else:
            self._note("failed", child, error, DECISIONS[type(decision)])
        match decision:
            case Resume():
                self._log.warning("child failed and continues", child=child.name, error=describe(error))
                child.resume()
            case Terminate():
                self._log.warning("child is not restarted", child=child.name, error=describe(error))
                self._host.start_task(self.terminate(child))
            case RestartGroup(delay=delay):
                others = [name for name in decision.start if name != child.name]
                self._log.warning(
                    f"{child.kind} failed",
                    **{child.kind: child.name},
                    error=describe(error),
                    restart_in=round(delay, 3),
                    **({"with_it": others} if others else {}),
                )
                self._restarts_decided += 1
                self._restarts.begin(decision, child.name, alone=self.rules.strategy == "one_for_one")
            case GiveUp(reason=reason):
                self._why = f"{child.name} {reason}"
                self._stop_supervising()
                self._host.start_task(self._give_up(child, reason, error))
            case ShutDown():
                self._log.info("supervisor ends with its significant child", child=child.name)
                self._stop_supervising()
                self._host.start_task(self._shut_down())

    async def terminate(self, child: ChildHandle) -> None:
        """Stop a child that is not restarted."""
        try:
            await child.stop()
        finally:  # if cancelled, it has abandoned the child
            if child.name not in self._state.names:
                await self._remove(child)

    def _note(
        self, kind: str, child: ChildHandle, error: BaseException | None = None, then: str = ""
    ) -> None:
        if self._host.recorder is not None:
            self._host.recorder.child(kind, self.rules.name, child.name, child.kind, error, then)

    async def _remove(self, child: ChildHandle) -> None:
        self._note("stopped", child)
        self.children.pop(child.name, None)
        self._expected.pop(child.name, None)
        await self._host.forget(child)

    async def _give_up(self, child: ChildHandle, reason: str, error: BaseException) -> None:
        self._log.critical("supervisor gave up", child=child.name, reason=reason, error=describe(error))
        if self._host.observed is not None:
            self._host.observed.supervisor_gave_up(self.rules.name, child.name, reason, error)
        self._note("gave up", child, error, f"{child.name} {reason}")
        await self._end_or_abandon(self.rest_children())
        if not self.is_running:  # otherwise its parent has restarted it in the meantime, for another reason
            self._gave_up(SupervisorGaveUp(self.rules.name, child.name, reason, error))

    async def _end_or_abandon(self, ending: Awaitable[None]) -> None:
        """End the children; if the program cancels that, abandon them, so that the end is still reported."""
        try:
            await ending
        except asyncio.CancelledError:
            self.abandon()

    async def _shut_down(self) -> None:
        await self._end_or_abandon(self.stop_children())
        if not self.is_running:  # as above
            self._has_ended()

    # --- requests ---

    async def start_child(self, child: Any) -> TreeNode:
        """See `SupervisorRef.start_child`."""
        specs = self._host.resolve_child(child)
        if len(specs) != 1:
            raise InvalidSupervisor(
                self._whose,
                f"one child is started at a time, and {child!r} is {len(specs)}: give them a supervisor of their own,"
                " as in start_child(Supervisor(name, children=[...]))",
            )
        (spec,) = specs
        async with self._requests:
            self._check_running()
            if spec.known_name in self.children:
                raise InvalidSupervisor(self._whose, f"it has a child named {spec.known_name!r} already")
            if spec.significant and self.rules.auto_shutdown == "never":
                raise InvalidSupervisor(self._whose, "its auto_shutdown is 'never': no child is significant")
            try:
                started = await self._start_child(spec)
            except BaseException:
                if (made := self.children.get(spec.known_name or "")) is not None:
                    await made.stop()
                    await self._remove(made)
                raise
            return started.node(restarting=False)

    async def terminate_child(self, name: str) -> None:
        """See `SupervisorRef.terminate_child`."""
        async with self._requests:
            child = self._child(name)
            if name in self._state.names:
                self._state = self._state.stopped(name)
            await child.stop()
            if name not in self._state.names:
                await self._remove(child)

    async def restart_child(self, name: str) -> None:
        """See `SupervisorRef.restart_child`."""
        async with self._requests:
            self._check_running()
            child = self._child(name)
            self._check_stopped(name)
            self._expected[name] = awaited = child.incarnation + 1
            self._state = self._state.starting(name)
            try:
                await child.start()
            except BaseException:
                if self._is_expected(name, awaited):
                    self._state = self._state.stopped(name)
                raise
            if self._is_expected(name, awaited):
                self._state = self._state.started(name, self._host.clock.monotonic())

    async def delete_child(self, name: str) -> None:
        """See `SupervisorRef.delete_child`."""
        async with self._requests:
            child = self._child(name)
            self._check_stopped(name)
            self._state = self._state.without(name)
            await self._remove(child)

    def _is_expected(self, name: str, start: int) -> bool:
        """Whether the outcome of incarnation ``start`` is still open; if not, there was another incident."""
        return self._expected.get(name) == start and self.is_restarting(name)

    def is_restarting(self, name: str) -> bool:
        """Whether a child is still to be started."""
        return name in self._state.names and self._state[name].status == "restarting"

    def expect_restart(self, name: str) -> None:
        """Ignore signals from before the next start of a child."""
        self._expected[name] = self.children[name].incarnation + 1

    # --- another configuration ---

    async def drop_children(self, names: Sequence[str]) -> None:
        """Stop and forget those of the children that exist, the last started first."""
        async with self._requests:
            for name in [name for name in reversed(self.children) if name in names]:
                if name in self._state.names:
                    self._state = self._state.without(name)
                child = self.children[name]
                await child.stop()
                await self._remove(child)

    def adopt(self, rules: Supervisor) -> None:
        """Take new rules; the existing children stay, in the order in which the rules name them."""
        places = {spec.known_name: place for place, spec in enumerate(rules.specs)}
        self.rules = rules
        children = sorted(self._state.children, key=lambda child: places.get(child.name, len(places)))
        self._state = replace(self._state, rules=rules, children=tuple(children))
        ordered = sorted(self.children.items(), key=lambda item: places.get(item[0], len(places)))
        self.children = dict(ordered)

    @property
    def _whose(self) -> str:
        return f"supervisor {self.rules.name!r}"

    def _child(self, name: str) -> ChildHandle:
        if name not in self.children:
            raise UnknownChild(self.rules.name, name, self.children)
        return self.children[name]

    def _check_running(self) -> None:
        if not self.is_running:
            raise InvalidSupervisor(self._whose, "it is not running")

    def _check_stopped(self, name: str) -> None:
        if name in self._state.names and self._state[name].status != "stopped":
            raise InvalidSupervisor(self._whose, f"its child {name!r} is running: terminate it first")
