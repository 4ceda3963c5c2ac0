"""What mends something: the command of a shell, or the call in a program whose store no command reaches."""

import shlex
from dataclasses import dataclass

from uno_actors.inquiry.explanation import Remedy


@dataclass(frozen=True, slots=True)
class Remedies:
    """The remedies of one place.

    Attributes:
        url: URL of the store; ``None`` if no command reaches it.
    """

    url: str | None

    def resume(self, handler: str) -> Remedy:
        """Let a paused handler continue."""
        return self._either(
            "To resume it", ("handlers", "resume", handler), f"await system.resume({handler!r})"
        )

    def replay(self, handler: str, before: int) -> Remedy:
        """Let a handler handle events again that come after a position."""
        command = ("handlers", "replay", handler, "--from", str(before))
        return self._either(
            f"To give {handler} all events after position {before}",
            command,
            f"await system.reset({handler!r}, {before})",
        )

    def retry(self, handler: str, position: int) -> Remedy:
        """Let a handler try a dead letter once more."""
        command = ("deadletters", "retry", handler, str(position))
        call = f"await system.retry_dead_letters({handler!r}, [{position}])"
        return self._either("To try it once more, when its cause is mended", command, call)

    def show_letter(self, handler: str, position: int) -> Remedy:
        """Show the traceback of a dead letter."""
        command = ("deadletters", "show", handler, str(position))
        return self._either("To see the traceback", command, f"await system.store.dead_letters({handler!r})")

    def forget(self, handler: str) -> Remedy:
        """Remove what the store keeps of a handler that the program no longer has."""
        call = f"await HandlerControl(store).forget({handler!r})"
        return self._either("If the program no longer has it", ("handlers", "forget", handler), call)

    def restart_child(self, supervisor: str, handler: str) -> Remedy:
        """Start a child of a supervisor again that has stopped."""
        call = f"await system.supervisor({supervisor!r}).restart_child({handler!r})"
        return Remedy("To start it again, in the program", call)

    def run_schedule(self, schedule: str) -> Remedy:
        """Send a scheduled command now."""
        call = f"await ScheduleControl(system.store).run_now({schedule!r})"
        return self._either("To send it now", ("schedule", "run-now", schedule), call)

    def cancel_schedule(self, schedule: str) -> Remedy:
        """Have a scheduled command not sent."""
        call = f"await ScheduleControl(system.store).cancel({schedule!r})"
        return self._either("To have it not sent", ("schedule", "cancel", schedule), call)

    def why(self, wanted: str) -> Remedy:
        """Ask for something else."""
        return self._either("More of it", ("why", wanted), f"await system.why({wanted!r})")

    def trace(self, correlation: str) -> Remedy:
        """Show all events of a correlation."""
        call = f"print(await system.store.causal_tree({correlation!r}))"
        return self._either("All of it as a tree", ("store", "trace", correlation), call)

    @staticmethod
    def kill(host: str, process: int) -> Remedy:
        """End a process that hangs."""
        return Remedy(
            f"If it hangs, end it on {host or 'its machine'}; another process takes over",
            f"kill -9 {process}",
        )

    def _either(self, purpose: str, command: tuple[str, ...], call: str) -> Remedy:
        if self.url is None:
            return Remedy(f"{purpose}, in the program", call)
        return Remedy(purpose, shlex.join(["uno-actors", *command, "--store", self.url]))
