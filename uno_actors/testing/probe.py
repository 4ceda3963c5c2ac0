"""A probe: an event handler and an actor in one. It records what reaches it, and the test waits for that."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, overload

from typing_extensions import override

from uno_actors.actors.actor import Actor, ActorRef
from uno_actors.actors.future import Future
from uno_actors.domain.events import DomainEvent
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.system.system import ActorSystem
from uno_actors.topics import TopicPattern

M = TypeVar("M")

PATIENCE = 3.0
"""Seconds that a probe waits by default."""
SHOWN = 20
"""Maximum number of messages in an error text."""


class Probe:
    """Keeps the messages that reach it in order; each `expect` takes the next one.

    As a handler: ``ActorSystem(handlers=[probe.handler(Deposited)])``. As an actor:
    ``ref = await probe.spawn(system)``, which answers asks with ``reply``. Safe to use from any thread.

    Args:
        name: Shown in errors; also the default name of the handler.
        reply: The reply to asks: a value, or a function of the message.
    """

    def __init__(self, name: str = "probe", reply: Any = None) -> None:
        self.name = name
        self._reply = reply
        self._waiting: deque[Any] = deque()
        self._seen: deque[Any] = deque(maxlen=SHOWN)  # taken by `expect`, for errors
        self._waiters: list[Future[None]] = []
        self._lock = threading.Lock()

    # --- recording ---

    def handler(
        self, event_type: type[DomainEvent] | None = None, topic_pattern: str | None = None, **options: Any
    ) -> HandlerSpec:
        """A handler that passes its events to the probe; ``options`` are those of `HandlerSpec`."""

        async def handle(event: DomainEvent) -> None:
            self.receive(event)

        pattern = None if topic_pattern is None else TopicPattern(topic_pattern)
        name = options.pop("name", self.name)
        return HandlerSpec(name, handle, event_type, pattern, **options)

    def spawn(self, system: ActorSystem, name: str | None = None) -> "Future[ActorRef[Actor]]":
        """Start an actor that passes its messages to the probe."""
        return system.spawn(_ProbeActor, self, name=name)

    def receive(self, message: object) -> Any:
        """Record ``message`` and return the reply to it."""
        with self._lock:
            self._waiting.append(message)
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.offer(None)
        return self._reply(message) if callable(self._reply) else self._reply

    @property
    def messages(self) -> list[Any]:
        """Messages that have arrived and that no `expect` has taken yet, oldest first."""
        return list(self._waiting)

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a message now."""
        return len(self._waiters)

    # --- waiting ---

    @overload
    async def expect(
        self, kind: type[M], where: Callable[[M], object] | None = None, timeout: float = PATIENCE
    ) -> M: ...
    @overload
    async def expect(self, *, timeout: float = PATIENCE) -> Any: ...

    async def expect(
        self,
        kind: type[Any] = object,
        where: Callable[[Any], object] | None = None,
        timeout: float = PATIENCE,
    ) -> Any:
        """Take the next message, which must be of this kind.

        Args:
            kind: Its class, or a base of it.
            where: A condition that it must meet.
            timeout: Seconds to wait for it.

        Raises:
            AssertionError: No message arrived in time, or another one did; the text shows what arrived.
            TypeError: ``kind`` is not a class.
        """
        _check_is_class(kind)
        deadline = time.monotonic() + timeout
        while (message := self._next(kind, where, skip=False)) is _NOTHING:
            await self._more(kind, deadline)
        return message

    async def fish(
        self, kind: type[M], where: Callable[[M], object] | None = None, timeout: float = PATIENCE
    ) -> M:
        """Take the next message of this kind, and drop those that arrive before it.

        Raises:
            AssertionError: None arrived in time.
            TypeError: ``kind`` is not a class.
        """
        _check_is_class(kind)
        deadline = time.monotonic() + timeout
        while (message := self._next(kind, where, skip=True)) is _NOTHING:
            await self._more(kind, deadline)
        return message  # type: ignore[no-any-return]

    async def expect_nothing(self, within: float = 0.1) -> None:
        """Check that no message arrives within ``within`` seconds.

        Raises:
            AssertionError: One arrived.
        """
        deadline = time.monotonic() + within
        while not self._waiting and (left := deadline - time.monotonic()) > 0:
            await self._arrival(left)
        if self._waiting:
            raise AssertionError(f"{self.name} expected nothing and got {self._waiting[0]!r}")

    def wait_for(
        self, kind: type[M], where: Callable[[M], object] | None = None, timeout: float = PATIENCE
    ) -> M:
        """Like `expect`, for synchronous programs.

        Raises:
            AssertionError: As `expect`.
            RuntimeError: An event loop runs: there, await `expect`.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                f"{self.name}.wait_for(...) would block the event loop: await {self.name}.expect(...)"
            )
        return asyncio.run(self.expect(kind, where, timeout))

    async def _more(self, kind: type, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            seen = ", ".join(map(repr, self._seen)) or "nothing"
            raise AssertionError(f"{self.name} got no {kind.__name__} in time; before that came: {seen}")
        await self._arrival(left)

    async def _arrival(self, timeout: float) -> None:
        """Wait for a message, at most ``timeout`` seconds."""
        arrived: Future[None] = Future()
        with self._lock:
            if self._waiting:
                return
            self._waiters.append(arrived)
        try:
            async with asyncio.timeout(timeout):
                await arrived
        except TimeoutError:
            with self._lock:
                if arrived in self._waiters:
                    self._waiters.remove(arrived)

    def _next(self, kind: Any, where: Callable[[Any], object] | None, *, skip: bool) -> Any:
        while True:
            with self._lock:
                if not self._waiting:
                    return _NOTHING
                message = self._waiting.popleft()
                self._seen.append(message)
            if isinstance(message, kind) and (where is None or where(message)):
                return message
            if not skip:
                held = (
                    "" if where is None or not isinstance(message, kind) else " for which the condition holds"
                )
                raise AssertionError(f"{self.name} expected {kind.__name__}{held} and got {message!r}")

    def __repr__(self) -> str:
        return f"<Probe {self.name}: {len(self._waiting)} waiting>"


_NOTHING: Any = object()


def _check_is_class(kind: object) -> None:
    if not isinstance(kind, type):
        raise TypeError(
            f"expect takes a class of messages, as expect(Deposited, lambda event: event.amount == 5); found {kind!r}"
        )


class _ProbeActor(Actor):
    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self._probe = probe

    @override
    async def on_receive(self, message: Any) -> Any:
        return self._probe.receive(message)
