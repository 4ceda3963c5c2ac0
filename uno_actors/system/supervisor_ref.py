"""A running supervisor as a service sees it."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from uno_actors.supervision.child import TreeNode
from uno_actors.supervision.supervisor import SupervisorActor
from uno_actors.system.runtime import Runtime

T = TypeVar("T")


class Supervised(Protocol):
    """The system in which the supervisor runs."""

    name: str

    def _running(self) -> Runtime:
        """Its runtime.

        Raises:
            SystemNotRunning: It was not started, or has stopped.
        """

    async def _on_its_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine on its event loop."""


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """How many children a supervisor has.

    Attributes:
        specs: Children, running or not.
        active: Those that run.
        supervisors: Those that are supervisors.
        workers: The others.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


class SupervisorRef:
    """A running supervisor, as a service sees it; its functions are those of OTP's ``supervisor``.

    Args:
        system: Where it runs.
        name: Its name.
    """

    def __init__(self, system: Supervised, name: str) -> None:
        self.name = name
        self._system = system

    async def start_child(self, child: Any) -> TreeNode:
        """Start one more child, as the last; return it when it has started.

        A supervisor that is restarted begins with the children that it was configured with.

        Args:
            child: As in ``Supervisor(children=[...])``.

        Raises:
            InvalidSupervisor, InvalidHandler: It cannot stand under this supervisor.
            Exception: What its start raised; it is no child then.
        """
        return await self._system._on_its_loop(self._supervisor.start_child(child))

    async def terminate_child(self, name: str) -> None:
        """Stop a child; it stays a child that `restart_child` can start, unless it is temporary.

        Raises:
            UnknownChild: There is none of this name.
        """
        await self._system._on_its_loop(self._supervisor.terminate_child(name))

    async def restart_child(self, name: str) -> None:
        """Start a child that was terminated or has ended.

        Raises:
            UnknownChild: There is none of this name.
            InvalidSupervisor: It is running.
            Exception: What its start raised.
        """
        await self._system._on_its_loop(self._supervisor.restart_child(name))

    async def delete_child(self, name: str) -> None:
        """Forget a child that was terminated or has ended.

        Raises:
            UnknownChild: There is none of this name.
            InvalidSupervisor: It is running.
        """
        await self._system._on_its_loop(self._supervisor.delete_child(name))

    def which_children(self) -> tuple[TreeNode, ...]:
        """The children in the order of their start, and how they are."""
        return self._supervisor.nodes()

    def count_children(self) -> ChildCounts:
        """How many there are."""
        nodes = self.which_children()
        supervisors = sum(node.kind == "supervisor" for node in nodes)
        active = sum(node.state != "stopped" for node in nodes)
        return ChildCounts(len(nodes), active, supervisors, len(nodes) - supervisors)

    @property
    def _supervisor(self) -> SupervisorActor:
        return self._system._running().supervisor(self.name)

    def __repr__(self) -> str:
        return f"<SupervisorRef {self.name} of {self._system.name}>"
