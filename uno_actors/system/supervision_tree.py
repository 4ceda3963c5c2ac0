"""The running supervision tree: its supervisors start, change, fail and end here."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

from uno_actors.clock import Clock
from uno_actors.errors import InvalidSupervisor, SupervisorGaveUp, UnknownHandler, UnknownSupervisor
from uno_actors.flight_recorder.ring import FlightRecorder
from uno_actors.handlers.child import HandlerChild
from uno_actors.handlers.partitions import named
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.observing import Observation
from uno_actors.supervision.child import ActorChild, ChildFailed, ChildHandle, ChildSignal, TreeNode
from uno_actors.supervision.nested import SupervisorChild
from uno_actors.supervision.reload import Difference
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.supervision.statistics import SupervisorStatistics
from uno_actors.supervision.supervisor import SupervisorActor
from uno_actors.system.actor_host import ActorHost
from uno_actors.system.handler_host import HandlerHost
from uno_actors.system.tree import child_on_logs, resolve_child


class SupervisionTree:
    """The supervisors of a running system and their children. Lives on the event loop.

    It is the host of all supervisors; see `uno_actors.supervision.supervisor.SupervisorHost`.

    Args:
        name: Name of the system.
        clock: For windows and back-offs.
        actors: Spawns supervisors and supervised actors.
        handlers: Makes supervised handlers.
        start_task: Runs a coroutine as a task and keeps a reference to it.
        give_up: Called with the error when a top-level supervisor gives up.
        observed: The observers of the system, if there are any.
        recorder: Its flight recorder, if it has one.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        actors: ActorHost,
        handlers: HandlerHost,
        *,
        start_task: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        give_up: Callable[[SupervisorGaveUp], None],
        observed: Observation | None,
        recorder: FlightRecorder | None = None,
    ) -> None:
        self.clock = clock
        self.recorder = recorder
        self.observed = observed
        self.log = actors.log
        self.start_task = start_task
        self._name = name
        self._actors = actors
        self._handlers = handlers
        self._give_up = give_up
        self._top: list[SupervisorChild] = []
        self._supervisors: dict[str, SupervisorActor] = {}

    # --- what a system does with it ---

    async def start(self, supervisor: Supervisor) -> None:
        """Start a top-level supervisor with its children, as the system starts; if that fails, the system stops."""
        await self._new_top(supervisor).start()

    async def add(self, supervisor: Supervisor) -> None:
        """Start one more top-level supervisor; if one of its children cannot be started, the tree gets none of them."""
        child = self._new_top(supervisor)
        try:
            await child.start()
        except Exception:
            with suppress(
                Exception
            ):  # a store that fails may refuse checkpoints too: their events come again
                await self._stop_top(child)
            raise

    def _new_top(self, supervisor: Supervisor) -> SupervisorChild:
        child = SupervisorChild(supervisor, ChildSpec(supervisor), self._root_signal, self)
        self._top.append(child)
        return child

    async def change(self, wanted: Difference) -> dict[str, Exception]:
        """Change the running tree. Children in both the old and the new tree keep running.

        Returns:
            The children that could not be started, by name, with their errors. The tree does not contain them.
        """
        for name in wanted.stop:
            for child in [child for child in self._top if child.name == name]:
                await self._stop_top(child)
        supervisors = [(change, self._supervisors[change.rules.name]) for change in wanted.changes]
        for change, supervisor in reversed(supervisors):
            await supervisor.drop_children(change.stop)
        for change, supervisor in supervisors:
            supervisor.adopt(change.rules)
        failed: dict[str, Exception] = {}
        for change, supervisor in supervisors:
            for spec in change.start if supervisor.is_running else ():  # else they start with it
                try:
                    await supervisor.start_child(spec)
                except Exception as error:  # noqa: BLE001 - a start may raise anything
                    failed[spec.known_name or ""] = error
            supervisor.adopt(change.rules)
        for added in wanted.start:
            try:
                await self.add(added)
            except Exception as error:  # noqa: BLE001 - the start of a child may raise anything
                failed[added.name] = error
        return failed

    async def _stop_top(self, child: SupervisorChild) -> None:
        try:
            await child.stop()
            await self.forget(child)
        finally:
            self._top.remove(child)

    async def unsubscribe(self, name: str) -> None:
        """See `ActorSystem.unsubscribe`."""
        known = [each.name for each in self._handlers.subscriptions]
        meant = named(name, known)
        if not meant:
            raise UnknownHandler(name, known)
        for supervisor in self._supervisors.values():
            here = [each for each in meant if isinstance(supervisor.children.get(each), HandlerChild)]
            if here:
                await supervisor.drop_children(here)

    def supervisor(self, name: str) -> SupervisorActor:
        """The supervisor of this name.

        Raises:
            UnknownSupervisor: The system has no supervisor of this name.
        """
        if name not in self._supervisors:
            raise UnknownSupervisor(self._name, name, self._supervisors)
        return self._supervisors[name]

    def node(self) -> TreeNode:
        """The whole supervision tree: all supervisors and their children."""
        nodes = tuple(child.node(restarting=False) for child in self._top)
        return TreeNode(self._name, "supervisor", "running", children=nodes)

    def statistics(self) -> dict[str, SupervisorStatistics]:
        """The statistics of each supervisor, by its name."""
        return {name: supervisor.statistics() for name, supervisor in self._supervisors.items()}

    def handlers(self) -> Iterator[HandlerChild]:
        """The handlers in the tree."""
        for supervisor in self._supervisors.values():
            yield from (child for child in supervisor.children.values() if isinstance(child, HandlerChild))

    def supervisors_of_handlers(self) -> dict[str, str]:
        """The name of the supervisor of each handler in the tree."""
        return {
            name: supervisor.rules.name
            for supervisor in tuple(self._supervisors.values())
            for name, child in tuple(supervisor.children.items())
            if isinstance(child, HandlerChild)
        }

    def last_first(self) -> Iterator[SupervisorChild]:
        """The top-level supervisors, in the order in which they stop."""
        return reversed(tuple(self._top))

    def _root_signal(self, signal: ChildSignal) -> None:
        """Stop the system if a top-level supervisor gives up. A supervisor that ends normally is fine."""
        if isinstance(signal, ChildFailed) and isinstance(signal.error, SupervisorGaveUp):
            self._give_up(signal.error)

    # --- what it does for its supervisors ---

    async def start_supervisor(
        self,
        rules: Supervisor,
        gave_up: Callable[[SupervisorGaveUp], None],
        has_ended: Callable[[], None],
    ) -> SupervisorActor:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        if rules.name in self._supervisors:
            raise InvalidSupervisor(f"supervisor {rules.name!r}", "the system has one of this name already")
        self._supervisors[rules.name] = supervisor = SupervisorActor(rules, self, gave_up, has_ended)
        await self._actors.spawn(supervisor)
        return supervisor

    def resolve_child(self, child: Any) -> list[ChildSpec]:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        return [each for found in resolve_child(child) for each in child_on_logs(found, self._handlers.logs)]

    async def make_child(self, spec: ChildSpec, tell: Callable[[ChildSignal], None]) -> ChildHandle:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        if isinstance(spec.run, Supervisor):
            return SupervisorChild(spec.run, spec, tell, self)
        if not isinstance(spec.run, HandlerSpec):
            return ActorChild(spec.known_name or "", spec, tell, self._actors)
        return await self._handlers.make_child(spec, tell)

    async def forget(self, child: ChildHandle) -> None:
        """See `uno_actors.supervision.supervisor.SupervisorHost`."""
        if isinstance(child, SupervisorChild) and (supervisor := child.supervisor) is not None:
            async with AsyncExitStack() as all_of_them:  # also if the checkpoint of one cannot be saved
                all_of_them.callback(supervisor.actor_ref.stop, block=False)
                all_of_them.callback(self._supervisors.pop, supervisor.rules.name, None)
                for other in supervisor.children.values():
                    all_of_them.push_async_callback(self.forget, other)
        elif isinstance(child, HandlerChild):
            await self._handlers.remove(child)
