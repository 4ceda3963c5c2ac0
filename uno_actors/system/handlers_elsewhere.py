"""Waiting for handlers that other processes run.

Each process that can run the handler is asked once, and answers when its handler has come to the position: nodes of a
cluster over their link, other processes of the user on this machine by the sockets at which they tell their state, and
systems in this process directly. One that takes the handler over meanwhile answers in place of the first.

As a safety net, what the store says is looked at every `LOOK_EVERY` seconds: for processes that cannot be asked, as on
another machine without a cluster, or whose answer was lost.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from uno_actors.clock import Clock, Timer
from uno_actors.cluster.announcement import Announcement
from uno_actors.cluster.links.port import LinkFailure
from uno_actors.cluster.node import Node
from uno_actors.cluster.wire import HandledRequest, handled_answer, handled_request, unpack_handled
from uno_actors.errors import EventSetAside, NotHandled, describe
from uno_actors.handlers.command_events import letter_among
from uno_actors.handlers.control import HandlerControl
from uno_actors.handlers.partitions import log_of_partition, named, whole_name
from uno_actors.handlers.subscription import Subscription
from uno_actors.handlers.view import entries
from uno_actors.handlers.waits import Arrival
from uno_actors.inquiry.facts import ProcessFacts, Question
from uno_actors.logs import Logger
from uno_actors.store.handler_names import partition_in
from uno_actors.store.logs import log_of_position
from uno_actors.store.port import EventStore
from uno_actors.system import control_socket
from uno_actors.system.handler_host import HandlerHost

LOOK_EVERY = 1.0
"""Seconds between two looks at what the store says of a handler; see the module."""

HANDLED, SET_ASIDE, PAUSED, STOPPED, UNKNOWN = "handled", "set aside", "paused", "stopped", "unknown"
"""Answers; with `SET_ASIDE` comes the position of the event."""

Answer = Callable[[str, int | None], None]
"""Called with the answer to a question for a handler."""
Ask = Callable[[int, float, Answer], Callable[[], object]]
"""Asks a process for a position, within so many seconds; returns what takes the question back."""
End = Callable[[NotHandled | None], None]
"""Called once with the end of a wait."""

_of_store: "WeakKeyDictionary[EventStore, WeakSet[HandlersElsewhere]]" = WeakKeyDictionary()
"""The systems of this process on each store."""


class HandlersElsewhere:
    """Asks other processes for handlers, and answers them. Lives on the event loop.

    Args:
        handlers: Those of this process.
        store: Holds the log and the checkpoints.
        clock: Times the looks.
        start_task: Runs a coroutine as a task and keeps a reference to it.
        announcement: Shows other nodes and which handlers they can run; ``None`` if the store keeps none.
        node: What this system is in a cluster; ``None`` if it is none.
        log: Has the names of the system bound.

    Attributes:
        sockets: Returns the sockets of other processes that run systems on this store.
        facts: Returns what this system knows of an id, for an inquiry of another system of this process.
    """

    def __init__(
        self,
        handlers: HandlerHost,
        store: EventStore,
        clock: Clock,
        *,
        start_task: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        announcement: Announcement | None,
        node: Node | None,
        log: Logger,
    ) -> None:
        self.log = log.bind(actor="handlers")
        self.sockets: Callable[[], Iterable[Path]] = tuple
        self.facts: Callable[[Question], ProcessFacts] | None = None
        self.handlers = handlers
        self.store = store
        self.clock = clock
        self.start_task = start_task
        self.node = node
        self._control = HandlerControl(store)
        self._announcement = announcement
        self._open: set[_Elsewhere] = set()
        _of_store.setdefault(store, WeakSet()).add(self)
        if node is not None:
            node.serve_handled = self._serve_node
        if announcement is not None:
            announcement.when_changed(self._members_changed)

    def close(self) -> None:
        """Answer no more systems of this process."""
        _of_store.get(self.store, WeakSet()).discard(self)

    @property
    def siblings(self) -> Iterable["HandlersElsewhere"]:
        """Those of the other systems of this process on the store."""
        return [each for each in _of_store.get(self.store, ()) if each is not self]

    def _members_changed(self) -> None:
        for wait in tuple(self._open):
            wait.look_soon()

    # --- asking ---

    async def names(self, name: str, position: int, shard: int | None) -> list[str]:
        """The names of a handler, or of its partitions, that other processes have and that may have an event.

        Args:
            name: Of the handler.
            position: Of the event.
            shard: Of the event; ``None`` for all partitions that read its log.
        """
        known = [each for each in self._announced() if each == name or whole_name(each) == name]
        if not known:
            known = named(name, await self._control.positions())
            if len(known) > 1:  # it may have run with another number of partitions
                leased = await self.store.leased_among(known)
                layouts = {_count_in(each) for each in leased}
                known = [each for each in known if not layouts or _count_in(each) in layouts]
        return sorted({each for each in known if self._may_have(each, position, shard)})

    def _announced(self) -> Iterable[str]:
        others = () if self._announcement is None else self._announcement.others
        yield from (handler for member in others for handler in member.handlers)
        yield from (each.name for other in self.siblings for each in other.handlers.subscriptions)

    def _may_have(self, name: str, position: int, shard: int | None) -> bool:
        part = partition_in(name)
        if part is None:
            return True
        _, number, count = part
        if log_of_partition(number, self.store.logs) != log_of_position(position):
            return False
        return shard is None or shard % count == number - 1

    def is_announced(self, name: str) -> bool:
        """Whether another process says that it can run the handler."""
        return name in set(self._announced())

    async def runs_nowhere(self, name: str) -> bool:
        """Whether no process runs the handler, nor is about to."""
        return not (self.is_announced(name) or await self.store.leased_among([name]))

    async def has_come(self, name: str, position: int) -> bool:
        """Whether the store says that the handler has come to ``position``, and that readers get what it writes."""
        entry = (await entries(self.store)).get(name)
        if entry is not None and entry.current != entry.writing:
            return False
        recorded_as = name if entry is None else entry.writing or ""
        return (await self.store.checkpoints()).get(recorded_as, -1) >= position

    def begin(
        self, name: str, subscription: Subscription | None, position: int, seconds: float, done: End
    ) -> Callable[[], object]:
        """Call ``done`` when the handler has come to ``position``; return what gives up.

        Args:
            name: Of the handler or partition.
            subscription: It in this process, which may take it over.
            position: In the log.
            seconds: How long the caller waits; it keeps the time itself.
            done: Called with ``None``, or with why the handler cannot come there.
        """
        wait = _Elsewhere(self, name, subscription, position, seconds, done)
        self._open.add(wait)
        wait.start()
        return wait.give_up

    def forget(self, wait: "_Elsewhere") -> None:
        """Note the end of a wait."""
        self._open.discard(wait)

    def peers(self, name: str) -> Iterable[tuple[Hashable, Ask]]:
        """The processes to ask for a handler: what names each of them, and what asks it."""
        for sibling in self.siblings:
            if any(each.name == name for each in sibling.handlers.subscriptions):
                yield sibling, partial(self._ask_sibling, sibling, name)
        others = () if self._announcement is None else self._announcement.others
        able = [member for member in others if name in member.handlers]
        linked = [member for member in able if member.address and self.node is not None]
        for member in linked:
            yield member.id, partial(self._ask_node, member, name)
        if not linked or len(linked) < len(able):  # some processes are outside any cluster
            for path in self.sockets():
                yield path, partial(self._ask_socket, path, name)

    def _ask_sibling(
        self, other: "HandlersElsewhere", name: str, position: int, seconds: float, answer: Answer
    ) -> Callable[[], object]:
        return other.serve(name, position, seconds, answer)

    def _ask_node(
        self, member: Any, name: str, position: int, seconds: float, answer: Answer
    ) -> Callable[[], object]:
        def answered(body: bytes | LinkFailure) -> None:
            found = None
            if not isinstance(body, LinkFailure):
                with suppress(Exception):  # whatever a node of another version has sent
                    found = unpack_handled(body)
            answer(*(found or (UNKNOWN, None)))

        assert self.node is not None
        self.node.ask_handled(member, handled_request(name, position, seconds), seconds, answered)
        return lambda: None  # a node answers when its time is over

    def _ask_socket(
        self, path: Path, name: str, position: int, seconds: float, answer: Answer
    ) -> Callable[[], object]:
        async def ask() -> None:
            found: tuple[str, int | None] = UNKNOWN, None
            with suppress(
                OSError, ValueError, KeyError, TimeoutError
            ):  # it has ended, or is of another version
                found = await _asked(path, name, position, seconds)
            answer(*found)

        return self.start_task(ask()).cancel

    # --- serving ---

    def _serve_node(self, request: HandledRequest, answer: Callable[[bytes], None]) -> None:
        self.serve(
            request.handler,
            request.position,
            request.seconds,
            lambda outcome, letter: answer(handled_answer(outcome, letter)),
        )

    async def serve_socket(self, question: dict[str, Any]) -> tuple[str, int | None]:
        """The answer to a question that came to the socket of this process."""
        answered: asyncio.Future[tuple[str, int | None]] = asyncio.get_running_loop().create_future()

        def answer(outcome: str, letter: int | None) -> None:
            if not answered.done():
                answered.set_result((outcome, letter))

        stop = self.serve(
            str(question["handler"]), int(question["position"]), float(question["seconds"]), answer
        )
        try:
            return await answered
        finally:
            stop()

    def serve(self, name: str, position: int, seconds: float, answer: Answer) -> Callable[[], object]:
        """Answer once: when the handler of this process has come to ``position``, or cannot; return what gives up."""
        subscription = next((each for each in self.handlers.subscriptions if each.name == name), None)
        if subscription is None:
            answer(UNKNOWN, None)
            return lambda: None
        its = subscription

        def arrived(arrival: Arrival) -> None:
            timer.cancel()
            if arrival == "handled" and its.knows_aside:
                answer(HANDLED, None)
            elif arrival in ("handled", "near a dead letter"):
                self.start_task(self._answer_handled(its, position, answer))
            else:
                answer(PAUSED if arrival == "paused" else STOPPED, None)

        def late() -> None:
            stop()
            answer(UNKNOWN, None)

        def give_up() -> None:
            timer.cancel()
            stop()

        timer = self.clock.call_later(seconds, late)
        stop = self.handlers.router.waits.begin(subscription, position, arrived, here=False)
        return give_up

    async def _answer_handled(self, subscription: Subscription, position: int, answer: Answer) -> None:
        try:
            if not subscription.knows_aside:
                letters = await self.store.dead_letters(subscription.name)
                subscription.aside.update(letter.position for letter in letters)
                subscription.knows_aside = True
            letter = await letter_among(self.store, subscription.aside, position)
        except Exception:  # noqa: BLE001 - a store may raise anything; the asker looks for itself
            answer(UNKNOWN, None)
            return
        answer(HANDLED if letter is None else SET_ASIDE, letter)


class _Elsewhere:
    """One wait for a handler that another process runs, or that this one takes over meanwhile."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        elsewhere: HandlersElsewhere,
        name: str,
        subscription: Subscription | None,
        position: int,
        seconds: float,
        done: End,
    ) -> None:
        self._elsewhere = elsewhere
        self._name = name
        self._subscription = subscription
        self._position = position
        self._deadline = elsewhere.clock.monotonic() + seconds
        self._done: End | None = done
        self._asked: dict[Hashable, Callable[[], object]] = {}  # and what takes the question back
        self._timer: Timer | None = None
        self._is_looking = False
        self._stop_here: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Wait for this process too, which may take the handler over, and ask the others."""
        if self._can_take_over:
            assert self._subscription is not None
            waits = self._elsewhere.handlers.router.waits
            self._stop_here = waits.begin(self._subscription, self._position, self._arrived_here, here=False)
        self.look_soon()

    @property
    def _can_take_over(self) -> bool:
        return self._subscription is not None and self._subscription.state != "stopped"

    def _arrived_here(self, arrival: Arrival) -> None:
        if arrival == "handled":
            self._end(None)
        elif arrival == "paused":
            self._end(NotHandled([self._name], self._position, "it is paused, until it is resumed"))
        else:
            self.look_soon()

    def look_soon(self) -> None:
        """Ask the processes that were not asked yet, and look at what the store says."""
        if self._done is not None and not self._is_looking:
            self._is_looking = True
            self._elsewhere.start_task(self._look())

    async def _look(self) -> None:
        try:
            self._ask()
            if await self._elsewhere.has_come(self._name, self._position):
                await self._end_by_store()
            elif not self._can_take_over and await self._elsewhere.runs_nowhere(self._name):
                self._end(NotHandled([self._name], self._position, "no process runs it"))
        except Exception as error:  # noqa: BLE001 - a store may raise anything; look again
            self._elsewhere.log.warning("progress cannot be read", handler=self._name, reason=describe(error))
        finally:
            self._is_looking = False
        if self._done is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._elsewhere.clock.call_later(LOOK_EVERY, self.look_soon)

    async def _end_by_store(self) -> None:
        letters = {letter.position for letter in await self._elsewhere.store.dead_letters(self._name)}
        self._end_handled(await letter_among(self._elsewhere.store, letters, self._position))

    def _ask(self) -> None:
        left = self._deadline - self._elsewhere.clock.monotonic()
        for key, ask in [*self._elsewhere.peers(self._name)]:
            if self._done is not None and left > 0 and key not in self._asked:
                self._asked[key] = lambda: None
                stop = ask(self._position, left, partial(self._answered, key))
                if key in self._asked:  # it has not answered at once
                    self._asked[key] = stop

    def _answered(self, key: Hashable, outcome: str, letter: int | None) -> None:
        self._asked.pop(key, None)
        match outcome:
            case "handled" | "set aside":
                self._end_handled(letter)
            case "paused":
                self._end(NotHandled([self._name], self._position, "it is paused, until it is resumed"))
            case _:  # it has stopped, or was asked too late: the next look asks it again
                pass

    def _end_handled(self, letter: int | None) -> None:
        self._end(None if letter is None else EventSetAside([self._name], self._position, letter))

    def _end(self, why: NotHandled | None) -> None:
        done = self._done
        self.give_up()
        if done is not None:
            done(why)

    def give_up(self) -> None:
        """Wait no longer, and take back what was asked."""
        self._done = None
        asked, self._asked = self._asked, {}
        for stop in asked.values():
            stop()
        self._elsewhere.forget(self)
        self._stop_here()
        if self._timer is not None:
            self._timer.cancel()


def _count_in(name: str) -> int:
    part = partition_in(name)
    return 0 if part is None else part[2]


async def _asked(path: Path, name: str, position: int, seconds: float) -> tuple[str, int | None]:
    """The answer of the process with the socket at ``path``."""
    question = {"want": control_socket.HANDLED, "handler": name, "position": position, "seconds": seconds}
    async with asyncio.timeout(seconds):
        outcome, letter = await control_socket.asked(path, question)
    return str(outcome), letter
