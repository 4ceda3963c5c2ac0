"""A supervisor as the child of another supervisor."""

from collections.abc import Callable

from typing_extensions import override

from uno_actors.errors import SupervisorGaveUp
from uno_actors.supervision.child import (
    ChildEnded,
    ChildFailed,
    ChildHandle,
    ChildSignal,
    TreeNode,
)
from uno_actors.supervision.spec import ChildSpec, Supervisor
from uno_actors.supervision.supervisor import SupervisorActor, SupervisorHost


class SupervisorChild(ChildHandle):
    """A child that is a supervisor, with everything below it."""

    kind = "supervisor"

    def __init__(
        self,
        rules: Supervisor,
        spec: ChildSpec,
        tell: Callable[[ChildSignal], None],
        host: SupervisorHost,
    ) -> None:
        super().__init__(spec.name or rules.name, spec, tell)
        self._rules = rules
        self._host = host
        self.supervisor: SupervisorActor | None = None

    @override
    async def start(self) -> None:
        self.incarnation += 1
        self.restarts += self.incarnation > 1
        if self.supervisor is None:
            self.supervisor = await self._host.start_supervisor(self._rules, self._gave_up, self._has_ended)
        await self.supervisor.start_children()

    def _gave_up(self, error: SupervisorGaveUp) -> None:
        self._tell(ChildFailed(self, self.incarnation, error))

    def _has_ended(self) -> None:
        self._tell(ChildEnded(self, self.incarnation))

    @override
    async def halt(self, until: float | None = None) -> None:
        if self.supervisor is not None and not await self._within(
            until, self.supervisor.halt_children(until)
        ):
            self.abandon()

    @override
    async def rest(self) -> None:
        if self.supervisor is not None:
            await self.supervisor.rest_children()

    @override
    async def stop(self, until: float | None = None) -> None:
        if self.supervisor is not None and not await self._within(
            until, self.supervisor.stop_children(until)
        ):
            self.abandon()

    @override
    def abandon(self) -> None:
        if self.supervisor is not None:
            self.supervisor.abandon()

    @override
    def node(self, *, restarting: bool) -> TreeNode:
        running = self.supervisor is not None and self.supervisor.is_running
        return TreeNode(
            self.name,
            self.kind,
            "restarting" if restarting else "running" if running else "stopped",
            self.spec.restart,
            self.restarts,
            children=self.supervisor.nodes() if self.supervisor is not None else (),
        )
