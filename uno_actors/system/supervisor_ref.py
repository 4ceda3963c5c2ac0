"""The public handle of a running supervisor."""

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
        """The system's runtime.

        Raises:
            SystemNotRunning: The system was not started, or has stopped.
        """

    async def _on_its_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine on the system's event loop."""


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """How many children a supervisor has.

    Attributes:
        specs: All children, running or not.
        active: Running children.
        supervisors: Children that are supervisors.
        workers: All other children.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


class SupervisorRef:
    """The public handle of a running supervisor. Its methods follow OTP's ``supervisor`` module.

    Args:
        system: The system that runs the supervisor.
        name: Name of the supervisor.
    """

    def __init__(self, system: Supervised, name: str) -> None:
        self.name = name
        self._system = system

    async def start_child(self, child: Any) -> TreeNode:
        """Add a child after the others and start it. Return the child when it has started.

        A restarted supervisor starts only the children of its configuration.

        Args:
            child: As in ``Supervisor(children=[...])``.

        Raises:
            InvalidSupervisor, InvalidHandler: This supervisor cannot have such a child.
            Exception: The error that the child's start raised; the supervisor does not add the child.
        """
        return await self._system._on_its_loop(self._supervisor.start_child(child))

    async def terminate_child(self, name: str) -> None:
        """Stop a child. Unless it is temporary, the supervisor keeps it, and `restart_child` can start it again.

        Raises:
            UnknownChild: The supervisor has no child of this name.
        """
        await self._system._on_its_loop(self._supervisor.terminate_child(name))

    async def restart_child(self, name: str) -> None:
        """Start a child that was terminated or has ended.

        Raises:
            UnknownChild: The supervisor has no child of this name.
            InvalidSupervisor: The child is running.
            Exception: The error that the child's start raised.
        """
        await self._system._on_its_loop(self._supervisor.restart_child(name))

    async def delete_child(self, name: str) -> None:
        """Remove a child that was terminated or has ended.

        Raises:
            UnknownChild: The supervisor has no child of this name.
            InvalidSupervisor: The child is running.
        """
        await self._system._on_its_loop(self._supervisor.delete_child(name))

    def which_children(self) -> tuple[TreeNode, ...]:
        """The children and their states, in order of their start."""
        return self._supervisor.nodes()

    def count_children(self) -> ChildCounts:
        """The numbers of children, by kind and state."""
        nodes = self.which_children()
        supervisors = sum(node.kind == "supervisor" for node in nodes)
        active = sum(node.state != "stopped" for node in nodes)
        return ChildCounts(len(nodes), active, supervisors, len(nodes) - supervisors)

    @property
    def _supervisor(self) -> SupervisorActor:
        return self._system._running().tree.supervisor(self.name)

    def __repr__(self) -> str:
        return f"<SupervisorRef {self.name} of {self._system.name}>"
