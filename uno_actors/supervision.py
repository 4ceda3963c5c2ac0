"""The supervisor as an actor: it carries out what `uno_actors.supervisor.decide` decides."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from typing_extensions import override

from uno_actors.actor import Actor
from uno_actors.clock import Clock
from uno_actors.errors import SupervisorGaveUp, describe, readable
from uno_actors.future import Future
from uno_actors.handler_actor import Subscription, Work
from uno_actors.log import get_logger
from uno_actors.process import ActorProcess, Failure
from uno_actors.store import DeadLetter, EventStore
from uno_actors.supervisor import DeadLetterEvent, Decision, GiveUp, Restart, Supervisor, chance, decide

SET_ASIDE_AGAIN = 0.1
"""Seconds until a store that could not take a dead letter is asked again."""


class Child:
    """A supervised handler: its subscription, which survives restarts, and its process."""

    def __init__(
        self, subscription: Subscription, process: ActorProcess, dispatched: Callable[[Subscription], int]
    ) -> None:
        self.subscription = subscription
        self.process = process
        self.dispatched = dispatched
        self.failed_starts = 0

    def restart(self) -> None:
        """Start a new instance behind the same mailbox, unless it was stopped meanwhile."""
        if self.subscription.state == "stopped":
            return
        self.subscription.restarts += 1
        self.process.restart()
        self.process.actor.actor_ref.tell(Work())

    def abandon(self) -> None:
        """Have it handle nothing more, and wait for nothing."""
        self.subscription.fall_behind("stopped")
        self.process.kill()

    def stop(self) -> Future[None]:
        """Have it stop after the event it is handling; the future is set when it has."""
        self.subscription.stop(self.dispatched(self.subscription))
        return self.process.stop()


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """Message to the supervisor."""

    child: Child
    failure: Failure


class SupervisorActor(Actor):
    """Restarts failed handlers after a back-off, sets poisonous events aside, and gives up within its budget.

    Args:
        supervisor: The rules.
        store: Where dead letters go.
        clock: For the window and the back-off.
        escalate: Told when it gives up; its children are stopped by then.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        store: EventStore,
        clock: Clock,
        escalate: Callable[[SupervisorGaveUp], None],
    ) -> None:
        super().__init__()
        self.children: Sequence[Child] = ()
        self._supervisor = supervisor
        self._store = store
        self._clock = clock
        self._escalate = escalate
        self._restarts: tuple[float, ...] = ()
        self._log = get_logger(supervisor=supervisor.name)

    @override
    async def on_receive(self, message: ChildFailed) -> None:
        child, failure = message.child, message.failure
        if child.subscription.state == "stopped":
            child.process.stop()
            return
        decision = self._decide(child, failure)
        name, error = child.subscription.name, failure.error
        match decision:
            case GiveUp():
                self._give_up(child, error)
                return
            case DeadLetterEvent(delay):
                try:
                    await self._set_aside(child.subscription, error)
                except Exception as cause:  # noqa: BLE001 - whatever the store raises
                    self._log.error("event cannot be set aside yet", handler=name, exc_info=cause)
                    self._clock.call_later(SET_ASIDE_AGAIN, lambda: self.failed(child, failure))
                    return
            case Restart(delay):
                attempt = child.subscription.failed_times
                self._log.warning(
                    "handler failed", handler=name, error=describe(error), attempt=attempt, restart_in=delay
                )
        now = self._clock.monotonic()
        self._restarts = (*self._supervisor.restart_budget.recent(self._restarts, now), now)
        self._clock.call_later(delay, child.restart)

    def failed(self, child: Child, failure: Failure) -> None:
        """Tell it that ``child`` has failed."""
        if self.actor_ref.is_alive():
            self.actor_ref.tell(ChildFailed(child, failure))

    def _decide(self, child: Child, failure: Failure) -> Decision:
        subscription = child.subscription
        if failure.while_starting or subscription.state != "restarting":
            child.failed_starts += 1  # no event is to blame, but the start or the store: none is set aside
            attempt, max_attempts = child.failed_starts, child.failed_starts + 1
        elif not subscription.failed_at:
            attempt, max_attempts = 1, 2  # one of a batch is to blame, and shows itself when they come alone
        else:
            child.failed_starts = 0
            attempt, max_attempts = subscription.failed_times, subscription.spec.max_attempts
        return decide(
            self._supervisor.restart_budget,
            self._supervisor.backoff,
            attempt=attempt,
            max_attempts=max_attempts,
            restarts=self._restarts,
            now=self._clock.monotonic(),
            chance=chance(),
        )

    async def _set_aside(self, subscription: Subscription, error: BaseException) -> None:
        """Move the event to the dead letters and the handler past it, in one transaction."""
        position = subscription.failed_at
        (stored,) = await self._store.read_log(position - 1, 1)
        letter = DeadLetter(
            handler=subscription.name,
            position=position,
            event_type=stored.record.event_type,
            attempts=subscription.failed_times,
            error=describe(error),
            traceback=readable("".join(traceback.format_exception(error))),
            first_failed=subscription.first_failed,
            last_failed=datetime.now(UTC),
        )
        beyond = subscription.position_without(position)
        await self._store.save_progress({subscription.recorded_as: beyond}, [letter])
        subscription.leave(position)
        subscription.dead_letters += 1
        self._log.error(
            "event set aside",
            handler=subscription.name,
            event_type=letter.event_type,
            position=position,
            attempts=letter.attempts,
            error=letter.error,
        )

    def _give_up(self, child: Child, error: BaseException) -> None:
        for other in reversed(self.children):
            other.stop()
        name, budget = self._supervisor.name, str(self._supervisor.restart_budget)
        gave_up = SupervisorGaveUp(name, child.subscription.name, budget, error)
        self._log.critical(
            "supervisor gave up", handler=child.subscription.name, error=describe(error), budget=budget
        )
        self._escalate(gave_up)
