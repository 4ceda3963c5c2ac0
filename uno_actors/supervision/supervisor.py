"""Supervisors as actors: they carry out what `uno_actors.supervision.policy` decides.

A supervisor has a runner for each child. Whatever takes time (stopping one after the other, the back-off, starting
one after the other) is a task beside the supervisor's mailbox, so that it hears of failures and is told to stop
meanwhile.
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
from uno_actors.logs import get_logger
from uno_actors.supervision.child import (
    ChildEnded,
    ChildFailed,
    ChildStarted,
    News,
    Runner,
    StartFailed,
    TreeNode,
)
from uno_actors.supervision.policy import Family, GiveUp, LetGo, Order, RestartGroup, Resume, ShutDown
from uno_actors.supervision.spec import ChildSpec, Supervisor

BY_ITSELF: BaseException = RuntimeError("it has ended by itself")
"""In place of the error of a child that has ended without one."""


class SupervisorRunner(Runner):
    """A child that is a supervisor, with all that is below it."""

    kind = "supervisor"

    def __init__(
        self,
        rules: Supervisor,
        spec: ChildSpec,
        tell: Callable[[News], None],
        nursery: "Nursery",
    ) -> None:
        super().__init__(spec.name or rules.name, spec, tell)
        self._rules = rules
        self._nursery = nursery
        self.shell: SupervisorActor | None = None

    @override
    async def start(self) -> None:
        self.round += 1
        self.restarts += self.round > 1
        if self.shell is None:
            self.shell = await self._nursery.start_supervisor(self._rules, self._gave_up, self._has_ended)
        await self.shell.start_children()

    def _gave_up(self, error: SupervisorGaveUp) -> None:
        self._tell(ChildFailed(self, self.round, error))

    def _has_ended(self) -> None:
        self._tell(ChildEnded(self, self.round))

    @override
    async def halt(self, until: float | None = None) -> None:
        if self.shell is not None and not await self._within(until, self.shell.halt_children(until)):
            self.abandon()

    @override
    async def rest(self) -> None:
        if self.shell is not None:
            await self.shell.rest_children()

    @override
    async def stop(self, until: float | None = None) -> None:
        if self.shell is not None and not await self._within(until, self.shell.stop_children(until)):
            self.abandon()

    @override
    def abandon(self) -> None:
        if self.shell is not None:
            self.shell.abandon()

    @override
    def node(self, *, restarting: bool) -> TreeNode:
        running = self.shell is not None and self.shell.is_running
        return TreeNode(
            self.name,
            self.kind,
            "restarting" if restarting else "running" if running else "stopped",
            self.spec.restart,
            self.restarts,
            children=self.shell.nodes() if self.shell is not None else (),
        )


# --- the supervisor ---


class Nursery(Protocol):
    """What supervisors need of the system in which they live."""

    @property
    def clock(self) -> Clock:
        """For windows and back-offs."""

    def resolve_child(self, child: Any) -> list[ChildSpec]:
        """The children that ``child`` stands for: one, or all handlers of a module.

        Raises:
            InvalidHandler, InvalidSupervisor: It stands for none.
        """

    async def make_runner(self, spec: ChildSpec, tell: Callable[[News], None]) -> Runner:
        """The runner of a new child.

        Raises:
            InvalidHandler: It is a handler, and there is one of this name.
        """

    async def forget(self, runner: Runner) -> None:
        """Keep nothing of a child that was removed."""

    def start_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as a task that is not lost."""

    async def start_supervisor(
        self,
        rules: Supervisor,
        gave_up: Callable[[SupervisorGaveUp], None],
        has_ended: Callable[[], None],
    ) -> "SupervisorActor":
        """Make the actor of a supervisor and start it; its children are not started yet.

        Raises:
            InvalidSupervisor: There is one of this name.
        """


class SupervisorActor(Actor):
    """Starts its children, restarts those that fail by its rules, and gives up within its budget.

    Args:
        rules: Of the supervisor; each child has a name.
        nursery: Where it lives.
        gave_up: Told when it has given up; its children have ended by then.
        has_ended: Told when it has ended because a significant child has.
    """

    def __init__(
        self,
        rules: Supervisor,
        nursery: Nursery,
        gave_up: Callable[[SupervisorGaveUp], None],
        has_ended: Callable[[], None],
    ) -> None:
        super().__init__()
        self.rules = rules
        self.is_running = False
        self.runners: dict[str, Runner] = {}
        self._nursery = nursery
        self._gave_up = gave_up
        self._has_ended = has_ended
        self._family = Family(rules)
        self._groups: dict[str, asyncio.Task[Any]] = {}  # that are being restarted, by the child that failed
        self._begun = 0  # starts of all children
        self._awaited: dict[str, int] = {}  # news of a child from before this start of it is old
        self._requests = asyncio.Lock()
        self._log = get_logger(supervisor=rules.name)

    # --- all children ---

    async def start_children(self) -> None:
        """Start the children in order; if one cannot be started, those before it are stopped again.

        Raises:
            Exception: What the start of a child raised.
        """
        self._family = Family(self.rules)
        self.is_running = True
        self._begun += 1
        begun = self._begun
        names = [spec.known_name for spec in self.rules.specs]
        for runner in [runner for name, runner in self.runners.items() if name not in names]:
            await self._let_go(runner)  # it was added while the supervisor ran
        for spec in self.rules.specs:
            try:
                await self._start_child(spec)
            except BaseException as error:
                note = f"while {spec.known_name} was started under supervisor {self.rules.name!r}"
                with suppress(Exception):  # a class of errors may have a way of its own
                    if note not in getattr(
                        error, "__notes__", ()
                    ):  # the same instance may come again and again
                        error.add_note(note)
                if begun == self._begun:
                    await self.rest_children()
                raise
            if begun != self._begun or not self.is_running:
                raise InvalidSupervisor(self._whose, "it was stopped while it was started")

    async def _start_child(self, spec: ChildSpec) -> Runner:
        name = spec.known_name or ""
        runner = self.runners.get(name)
        if runner is None:
            runner = await self._nursery.make_runner(spec, self._hear)
            if not self.is_running:
                await self._nursery.forget(runner)
                raise InvalidSupervisor(self._whose, "it was stopped meanwhile")
        self._awaited[name] = runner.round + 1
        self._family = self._family.added(name, spec, self._nursery.clock.monotonic())
        self.runners[name] = runner
        try:
            await runner.start()
        except BaseException:
            self._family = self._family.without(name)
            raise
        return runner

    async def halt_children(self, until: float | None = None) -> None:
        """End what runs of the children, the last started first, and keep what waits for them."""
        await self._end_children(lambda runner: runner.halt(until))

    async def rest_children(self) -> None:
        """As `halt_children`, when it is not known whether they will be started again."""
        await self._end_children(lambda runner: runner.rest())

    async def stop_children(self, until: float | None = None) -> None:
        """End the children for good, the last started first."""
        await self._end_children(lambda runner: runner.stop(until))

    async def _end_children(self, end: Callable[[Runner], Awaitable[None]]) -> None:
        self._cease()
        for runner in tuple(reversed(self.runners.values())):
            if self.is_running:
                return  # somebody else has ended them meanwhile, and started them again
            try:
                await end(runner)
            except Exception as error:  # noqa: BLE001 - one that fails does not keep the others from their end
                self._log.error("child cannot be stopped", child=runner.name, exc_info=error)

    def abandon(self) -> None:
        """End the children for good without waiting for anything."""
        self._cease()
        for runner in reversed(self.runners.values()):
            runner.abandon()

    def _cease(self) -> None:
        """From here on nothing that happens to the children is of any account."""
        self.is_running = False
        self._leave_groups(*self._groups)

    def nodes(self) -> tuple[TreeNode, ...]:
        """How the children are, in the order of their start."""
        known = {member.name: member.state for member in self._family.members}
        return tuple(
            runner.node(restarting=known.get(name) == "restarting" and self.is_running)
            for name, runner in self.runners.items()
        )

    # --- what happens to them ---

    def _hear(self, news: News) -> None:
        if self.actor_ref.is_alive():
            self.actor_ref.tell(news)

    @override
    async def on_receive(self, message: News) -> None:
        name, now = message.runner.name, self._nursery.clock.monotonic()
        is_known = self.runners.get(name) is message.runner and name in self._family.names
        if not (self.is_running and is_known) or message.round < self._awaited.get(name, 0):
            return
        family, error = self._family, BY_ITSELF
        if self._family[name].state == "restarting" and not isinstance(message, StartFailed):
            family = family.started(name, now)  # of the start that was awaited
        order: Order
        match message:
            case ChildStarted():
                self._family = family
                return
            case ChildFailed(streak=streak):
                error = message.error
                can_resume = message.runner.kind != "supervisor"
                family, order = family.failed(name, error, now, chance(), streak, can_resume=can_resume)
            case StartFailed():
                error = message.error
                family, order = family.start_failed(name, now, chance())
            case ChildEnded():
                family, order = family.ended(name, now, chance())
        self._family = family
        self._carry_out(order, message.runner, error)

    def _carry_out(self, order: Order, runner: Runner, error: BaseException) -> None:
        match order:
            case Resume():
                self._log.warning("child failed and goes on", child=runner.name, error=describe(error))
                runner.resume()
            case LetGo():
                self._log.warning("child is not restarted", child=runner.name, error=describe(error))
                self._nursery.start_task(self._let_go(runner))
            case RestartGroup(delay=delay):
                others = [name for name in order.start if name != runner.name]
                self._log.warning(
                    f"{runner.kind} failed",
                    **{runner.kind: runner.name},
                    error=describe(error),
                    restart_in=round(delay, 3),
                    **({"with_it": others} if others else {}),
                )
                self._restart(order, runner.name)
            case GiveUp(reason=reason):
                self._cease()
                self._nursery.start_task(self._give_up(runner, reason, error))
            case ShutDown():
                self._log.info("supervisor ends with its significant child", child=runner.name)
                self._cease()
                self._nursery.start_task(self._shut_down())

    def _restart(self, order: RestartGroup, name: str) -> None:
        self._leave_groups(*(self._groups if self.rules.strategy != "one_for_one" else (name,)))
        for member in order.start:
            self._awaited[member] = self.runners[member].round + 1
        self._groups[name] = task = self._nursery.start_task(self._restart_group(order))

        def over(task: asyncio.Task[Any]) -> None:
            if self._groups.get(name) is not task:
                return  # it was cancelled here, or another has taken its place
            del self._groups[name]
            # If the program has cancelled it, which does not know it, what it was to do is still to be done.
            if task.cancelled():
                self._restart(order, name)

        task.add_done_callback(over)

    async def _restart_group(self, order: RestartGroup) -> None:
        for name in order.stop:
            if (runner := self.runners.get(name)) is None:
                continue
            if name in order.start:
                await runner.halt()
            else:
                await self._let_go(runner)  # a temporary bystander is forgotten
        await self._wait(order.delay)
        for name in order.start:
            if name not in self._family.names or self._family[name].state != "restarting":
                continue  # somebody wanted it stopped meanwhile
            runner = self.runners[name]
            try:
                await runner.start()
            except Exception as error:  # noqa: BLE001 - whatever its start raises
                if name in self._family.names and self._family[name].state == "restarting":
                    self._hear(StartFailed(runner, runner.round, error))
                    return
            else:
                self._hear(ChildStarted(runner, runner.round))

    async def _wait(self, delay: float) -> None:
        over = asyncio.Event()
        timer = self._nursery.clock.call_later(delay, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def _leave_groups(self, *names: str) -> None:
        for name in names:
            if (task := self._groups.pop(name, None)) is not None:
                task.cancel()

    async def _let_go(self, runner: Runner) -> None:
        try:
            await runner.stop()
        finally:  # one that is cancelled has abandoned the child
            if runner.name not in self._family.names:
                await self._remove(runner)

    async def _remove(self, runner: Runner) -> None:
        self.runners.pop(runner.name, None)
        self._awaited.pop(runner.name, None)
        await self._nursery.forget(runner)

    async def _give_up(self, runner: Runner, reason: str, error: BaseException) -> None:
        self._log.critical("supervisor gave up", child=runner.name, reason=reason, error=describe(error))
        await self._end_or_abandon(self.rest_children())
        if not self.is_running:  # else its parent has started it again meanwhile, for another reason
            self._gave_up(SupervisorGaveUp(self.rules.name, runner.name, reason, error))

    async def _end_or_abandon(self, ending: Awaitable[None]) -> None:
        """End the children; if the program cancels that, they are abandoned, for who waits must hear of the end."""
        try:
            await ending
        except asyncio.CancelledError:
            self.abandon()

    async def _shut_down(self) -> None:
        await self._end_or_abandon(self.stop_children())
        if not self.is_running:  # as above
            self._has_ended()

    # --- what somebody wants of it ---

    async def start_child(self, child: Any) -> TreeNode:
        """See `SupervisorRef.start_child`."""
        specs = self._nursery.resolve_child(child)
        if len(specs) != 1:
            raise InvalidSupervisor(
                self._whose, f"one child is started at a time; {child!r} has {len(specs)}"
            )
        (spec,) = specs
        async with self._requests:
            self._check_running()
            if spec.known_name in self.runners:
                raise InvalidSupervisor(self._whose, f"it has a child named {spec.known_name!r} already")
            if spec.significant and self.rules.auto_shutdown == "never":
                raise InvalidSupervisor(self._whose, "its auto_shutdown is 'never': no child is significant")
            try:
                runner = await self._start_child(spec)
            except BaseException:
                if (runner_made := self.runners.get(spec.known_name or "")) is not None:
                    await runner_made.stop()
                    await self._remove(runner_made)
                raise
            return runner.node(restarting=False)

    async def terminate_child(self, name: str) -> None:
        """See `SupervisorRef.terminate_child`."""
        async with self._requests:
            runner = self._runner(name)
            if name in self._family.names:
                self._family = self._family.stopped(name)
            await runner.stop()
            if name not in self._family.names:
                await self._remove(runner)

    async def restart_child(self, name: str) -> None:
        """See `SupervisorRef.restart_child`."""
        async with self._requests:
            self._check_running()
            runner = self._runner(name)
            self._check_stopped(name)
            self._awaited[name] = awaited = runner.round + 1
            self._family = self._family.starting(name)
            try:
                await runner.start()
            except BaseException:
                if self._is_awaited(name, awaited):
                    self._family = self._family.stopped(name)
                raise
            if self._is_awaited(name, awaited):
                self._family = self._family.started(name, self._nursery.clock.monotonic())

    async def delete_child(self, name: str) -> None:
        """See `SupervisorRef.delete_child`."""
        async with self._requests:
            runner = self._runner(name)
            self._check_stopped(name)
            self._family = self._family.without(name)
            await self._remove(runner)

    def _is_awaited(self, name: str, start: int) -> bool:
        """Whether that start number ``start`` goes well is still to be known; else there was another incident."""
        if name not in self._family.names or self._awaited.get(name) != start:
            return False
        return self._family[name].state == "restarting"

    # --- another configuration ---

    async def drop_children(self, names: Sequence[str]) -> None:
        """Stop those of the children for good that are there, the last started first, and forget them."""
        async with self._requests:
            for name in [name for name in reversed(self.runners) if name in names]:
                if name in self._family.names:
                    self._family = self._family.without(name)
                runner = self.runners[name]
                await runner.stop()
                await self._remove(runner)

    def adopt(self, rules: Supervisor) -> None:
        """Go on by other rules, with the children that there are, in the order in which these name them."""
        order = {spec.known_name: place for place, spec in enumerate(rules.specs)}
        self.rules = rules
        members = sorted(self._family.members, key=lambda member: order.get(member.name, len(order)))
        self._family = replace(self._family, rules=rules, members=tuple(members))
        ordered = sorted(self.runners.items(), key=lambda item: order.get(item[0], len(order)))
        self.runners = dict(ordered)

    @property
    def _whose(self) -> str:
        return f"supervisor {self.rules.name!r}"

    def _runner(self, name: str) -> Runner:
        if name not in self.runners:
            raise UnknownChild(self.rules.name, name, self.runners)
        return self.runners[name]

    def _check_running(self) -> None:
        if not self.is_running:
            raise InvalidSupervisor(self._whose, "it is not running")

    def _check_stopped(self, name: str) -> None:
        if name in self._family.names and self._family[name].state != "stopped":
            raise InvalidSupervisor(self._whose, f"its child {name!r} is running: terminate it first")
