"""The resources of handlers while they run: opened in order, closed in reverse order, also after errors.

One task opens the resources of a handler and closes them, because much that is entered in one task may not be left in
another, such as a task group or a timeout.
"""

import asyncio
import copy
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from contextvars import Context
from functools import partial
from typing import Any

from uno_actors.actors.dispatcher import Dispatcher
from uno_actors.clock import Clock
from uno_actors.errors import InvalidHandler, as_error
from uno_actors.handlers.dependencies import (
    Needs,
    Provided,
    Resource,
    is_async,
    name_of,
    resource_of,
)
from uno_actors.handlers.services import SystemServices
from uno_actors.handlers.spec import BoundHandler, EventHandler, HandlerContext, HandlerSpec
from uno_actors.logs import Logger
from uno_actors.store.port import EventStore
from uno_actors.tasks import settle

Values = dict[tuple[object, str], Any]
"""What resources are open, by their keys."""


class Provision:
    """What a system provides to its handlers. Lives on the event loop.

    Args:
        system: The system, as handlers see it.
        store: Its store.
        clock: Its clock.
        dispatcher: Runs plain functions on worker threads.
        start_task: Runs a coroutine as a task and keeps a reference to it.
        overrides: Functions that stand in for others, in tests.
    """

    def __init__(
        self,
        system: SystemServices,
        store: EventStore,
        clock: Clock,
        dispatcher: Dispatcher,
        *,
        start_task: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        overrides: Mapping[Callable[..., Any], Callable[..., Any]],
    ) -> None:
        self.dispatcher = dispatcher
        self.start_task = start_task
        self.shared: dict[tuple[object, str], _Shared] = {}
        self._parts = {"system": system, "store": store, "clock": clock}
        self._overrides = overrides
        self._replaced: dict[tuple[object, str], Resource] = {}

    def actual(self, resource: Resource) -> Resource:
        """``resource`` with the function that stands in for its own, if there is one."""
        if resource.function not in self._overrides:
            return resource
        if resource.key not in self._replaced:
            function = self._overrides[resource.function]
            needs = resource_of(function, resource.scope).needs
            self._replaced[resource.key] = Resource(function, resource.scope, needs)
        return self._replaced[resource.key]

    def lasting(self, needs: Iterable[Needs]) -> list[Resource]:
        """The resources among ``needs``, and among theirs, that outlive a call; each after those it depends on."""
        found: dict[tuple[object, str], Resource] = {}

        def visit(below: Needs) -> None:
            for _, source in below:
                if isinstance(source, Resource) and source.key not in found:
                    visit(self.actual(source).needs)
                    if source.scope != "event":
                        found[source.key] = source

        for each in needs:
            visit(each)
        return list(found.values())

    def arguments(
        self, needs: Needs, values: Mapping[tuple[object, str], Any], context: HandlerContext | None = None
    ) -> dict[str, Any]:
        """The arguments for parameters that need something that is open, by name; without what a call opens."""
        return {
            name: self._part(name, source, context) if isinstance(source, Provided) else values[source.key]
            for name, source in needs
            if isinstance(source, Provided) or source.key in values
        }

    def _part(self, name: str, source: Provided, context: HandlerContext | None) -> Any:
        found = context if source.part == "context" else self._parts[source.part]
        kind = source.kind
        if not getattr(kind, "_is_protocol", False) and not isinstance(found, kind):
            raise InvalidHandler(
                f"parameter {name!r} is annotated with {kind.__name__}, and that of this system is a"
                f" {type(found).__name__}"
            )
        return found

    async def open(
        self, stack: AsyncExitStack, resource: Resource, values: Values, context: HandlerContext | None = None
    ) -> None:
        """Open a resource, unless it is open, and enter it into ``values``; ``stack`` closes it."""
        if resource.key in values:
            return
        actual = self.actual(resource)
        for _, source in actual.needs:
            if isinstance(source, Resource):
                await self.open(stack, source, values, context)
        arguments = self.arguments(actual.needs, values, context)
        values[resource.key] = await self._enter(
            stack, partial(actual.function, **arguments), actual.function
        )

    async def _enter(
        self, stack: AsyncExitStack, make: Callable[[], Any], function: Callable[..., Any]
    ) -> Any:
        on_worker = self.dispatcher.on_worker
        manager: Any = _manager(make, function)
        if manager is None:
            made = make() if is_async(function) else await on_worker(make)
            if inspect.isawaitable(made):
                made = await made
            if not _is_resource(made, function):
                return made
            manager = made
        if hasattr(manager, "__aenter__"):
            return await stack.enter_async_context(manager)
        entered = await on_worker(manager.__enter__)

        async def leave(*error: Any) -> Any:
            return await on_worker(manager.__exit__, *error)

        stack.push_async_exit(leave)
        return entered

    def enter_plain(
        self, stack: ExitStack, resource: Resource, values: Values, context: HandlerContext | None
    ) -> None:
        """As `open`, on the thread of a plain handler."""
        if resource.key in values:
            return
        actual = self.actual(resource)
        if is_async(actual.function):
            raise InvalidHandler(
                f"{name_of(actual.function)} stands in for {resource} in a plain handler, so it cannot be async"
            )
        for _, source in actual.needs:
            if isinstance(source, Resource):
                self.enter_plain(stack, source, values, context)
        make = partial(actual.function, **self.arguments(actual.needs, values, context))
        made = _manager(make, actual.function)
        if made is None:
            made = make()
            values[resource.key] = stack.enter_context(made) if _is_resource(made, actual.function) else made
        else:
            values[resource.key] = stack.enter_context(made)


def _manager(make: Callable[[], Any], function: Callable[..., Any]) -> Any:
    """The context manager of a generator function, or of a class with ``__aenter__``; ``None`` for other functions."""
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(make)()
    if inspect.isgeneratorfunction(function):
        return contextmanager(make)()
    return make() if isinstance(function, type) and hasattr(function, "__aenter__") else None


def _is_resource(made: object, function: Callable[..., Any]) -> bool:
    """Whether what a function has made is to be entered: by its class, or because it is one of `contextlib`'s.

    Others, such as a lock or a connection of `sqlite3`, mean something else by being entered.
    """
    if isinstance(function, type):
        return hasattr(made, "__enter__")
    bases = AbstractAsyncContextManager, AbstractContextManager
    return any(base in bases for base in type(made).__mro__)


# --- one task that opens and closes -------------------------------------------------------------------------


class _Open:
    """Resources that one task opens and closes.

    Args:
        resources: Each after those that it depends on.
        provision: Provides what they depend on.
        log: Has the names of the handler bound.
        own: The one among them that is opened to be shared; other shared ones are borrowed.

    Attributes:
        opened: Set to what is open, or to the error at which all that had been opened was closed.
    """

    def __init__(
        self, resources: Sequence[Resource], provision: Provision, log: Logger, own: Resource | None = None
    ) -> None:
        self._resources, self._provision, self._log, self._own = resources, provision, log, own
        self._over = asyncio.Event()
        self.opened: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
        self.opened.add_done_callback(_retrieved)
        # In a context of its own: it is not part of the message that is being handled now.
        self._task = Context().run(provision.start_task, self._run())

    async def _run(self) -> None:
        values: Values = {}
        try:
            async with AsyncExitStack() as stack:
                for resource in self._resources:
                    if resource.scope == "system" and resource is not self._own:
                        values[resource.key] = await _borrow(stack, resource, self._provision, self._log)
                    else:
                        await self._provision.open(stack, resource, values)
                settle(self.opened, values)
                await self._over.wait()
        except BaseException as error:  # noqa: BLE001 - a resource may raise anything, and the task may be cancelled
            if not self.opened.done():
                settle(self.opened, as_error(error, "opening the resources of a handler"))
            elif not isinstance(error, asyncio.CancelledError):
                self._log.error("resource closed with an error", exc_info=error)

    async def close(self) -> None:
        """Close them, in reverse order; errors are logged. If the caller is cancelled, they are closed later."""
        self._over.set()
        if not self.opened.done():
            self._task.cancel()
        await asyncio.wait({self._task})

    def abandon(self) -> None:
        """Close them without waiting."""
        self._over.set()
        self._task.cancel()


def _retrieved(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


class _Shared:
    """A resource that handlers of one system share: it is open while one of them has it."""

    def __init__(self, resource: Resource, provision: Provision, log: Logger) -> None:
        below = provision.lasting([provision.actual(resource).needs])
        self.open = _Open([*below, resource], provision, log, resource)
        self.users = 0


async def _borrow(stack: AsyncExitStack, resource: Resource, provision: Provision, log: Logger) -> Any:
    """The resource that is shared under its key, opened if nothing has it; ``stack`` gives it back."""
    key = resource.key
    shared = provision.shared.get(key)
    if shared is None:
        shared = provision.shared[key] = _Shared(resource, provision, log)
    shared.users += 1
    stack.push_async_callback(_give_back, shared, key, provision)
    return (await asyncio.shield(shared.open.opened))[key]


async def _give_back(shared: _Shared, key: tuple[object, str], provision: Provision) -> None:
    shared.users -= 1
    if not shared.users:
        del provision.shared[key]  # also after an error, so that the next attempt opens it anew
        await shared.open.close()


# --- the resources of one handler ---------------------------------------------------------------------------


class Resources:
    """What one handler in one process has for itself: its instance, and the resources that are open for it.

    It survives restarts of the handler's actor. `make`, with which each actor begins its work, closes what an earlier
    one has left open. The child handle closes what is open when the handler stops; its actor does when another process
    has taken the handler over.

    Args:
        spec: The handler, or one of its partitions.
        provision: What its system provides.
        log: Has the names of the handler bound.

    Raises:
        InvalidHandler: A dependency is not valid, or an instance that was given cannot be copied for a partition.
    """

    def __init__(self, spec: HandlerSpec, provision: Provision, log: Logger) -> None:
        self.needs = spec.needs
        self._spec, self._provision, self._log = spec, provision, log
        self._target = _own(spec)
        self._open: _Open | None = None
        own = {} if isinstance(self._target, type) else getattr(self._target, "__dict__", {})
        self._attributes = tuple((name, source) for name, source in self.needs.attributes if name not in own)

    @property
    def is_open(self) -> bool:
        """Whether resources are open, or being opened."""
        return self._open is not None

    async def make(self, after: Iterable["asyncio.Future[Any]"] = ()) -> BoundHandler:
        """The handler, with what it depends on. This closes what was open, as `close` does, and opens it anew.

        Raises:
            InvalidHandler: A dependency is not of the annotated class.
            Exception: Whatever a resource or the handler's constructor raised.
        """
        await self.close(after)
        resources = self._provision.lasting([self.needs.lasting])
        values: Values = {}
        if resources:
            opening = self._open = _Open(resources, self._provision, self._log)
            try:
                values = await asyncio.shield(opening.opened)
            except Exception:
                self._open = None
                raise
            except asyncio.CancelledError:
                self.abandon()
                raise
        handler = self._spec.instantiate(self._made(values))
        if self.needs.call.needs:
            _supply(handler, self._provision, values)
        return handler

    def _made(self, values: Values) -> Any:
        provision, made = self._provision, self._target
        if isinstance(made, type):
            made = made(**provision.arguments(self.needs.constructor, values))
        if isinstance(made, EventHandler) and self.needs.constructor and made.event_type is not None:
            self._check_events(made)
        for name, value in provision.arguments(self._attributes, values).items():
            setattr(made, name, value)
        return made

    def _check_events(self, made: EventHandler[Any]) -> None:
        if self._spec.event_type is None:
            kind, events = type(made).__qualname__, made.event_type.__qualname__ if made.event_type else ""
            raise InvalidHandler(
                f"{kind} has dependencies, so it is made only when it runs, and says only then which events it handles:"
                f" write {kind}(EventHandler[{events}])"
            )

    async def close(self, after: Iterable["asyncio.Future[Any]"] = ()) -> None:
        """Close what is open. While calls ``after`` which it may be closed still run, return; it is closed later."""
        opened, self._open = self._open, None
        if opened is None:
            return
        if running := set(after):
            self._provision.start_task(_close_after(opened, running))
        else:
            await opened.close()

    def abandon(self) -> None:
        """Close what is open without waiting."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.abandon()


async def _close_after(opened: _Open, running: "set[asyncio.Future[Any]]") -> None:
    await asyncio.wait(running)
    await opened.close()


def _own(spec: HandlerSpec) -> Any:
    """The target of a handler; for each partition of an `EventHandler` that was given as an instance, a copy.

    The copy is shallow: what handlers set on themselves is their own, and what the instance holds is shared.
    """
    if spec.partition is None or not isinstance(spec.target, EventHandler):
        return spec.target
    try:
        return copy.copy(spec.target)
    except Exception as error:
        raise InvalidHandler(
            f"handler {spec.name}: {spec.target!r} cannot be copied for a partition ({error}): give the class"
        ) from error


def _supply(handler: BoundHandler, provision: Provision, values: Values) -> None:
    """Have ``handler`` called with its dependencies."""
    needs, count, function = handler.needs, len(handler.given), handler.function
    fixed = provision.arguments(needs.needs, values)
    of_calls = [
        source for _, source in needs.needs if isinstance(source, Resource) and source.key not in values
    ]
    if not of_calls and (needs.context is None or needs.by_position):
        handler.function = partial(function, **fixed)
        return
    handler.takes_context = needs.context is not None or _want_context(needs.needs, provision)

    def prepared(given: tuple[Any, ...], opened: Values | None = None) -> Callable[[], Any]:
        context = given[count] if len(given) > count else None
        by_name = fixed if opened is None else provision.arguments(needs.needs, opened, context)
        if needs.context is None:
            return partial(function, *given[:count], **by_name)
        if needs.by_position:
            return partial(function, *given[: count + 1], **by_name)
        return partial(function, *given[:count], **by_name, **{needs.context: context})

    async def call_async(*given: Any) -> Any:
        context, opened = given[count] if len(given) > count else None, dict(values)
        failed: BaseException | None = None
        async with AsyncExitStack() as stack:
            for source in of_calls:
                await provision.open(stack, source, opened, context)
            try:
                return await prepared(given, opened)()
            except BaseException as error:
                failed = error
                raise
        raise failed or RuntimeError  # a resource has suppressed it, and the event is not handled

    def call_plain(*given: Any) -> Any:
        context, opened = given[count] if len(given) > count else None, dict(values)
        failed: BaseException | None = None
        with ExitStack() as stack:
            for source in of_calls:
                provision.enter_plain(stack, source, opened, context)
            try:
                return prepared(given, opened)()
            except BaseException as error:
                failed = error
                raise
        raise failed or RuntimeError  # as above

    if not of_calls:
        handler.function = lambda *given: prepared(given)()
    else:
        handler.function = call_async if handler.is_async else call_plain


def _want_context(needs: Needs, provision: Provision) -> bool:
    """Whether a resource that is opened for each call takes the context."""
    return any(
        source.part == "context"
        if isinstance(source, Provided)
        else source.scope == "event" and _want_context(provision.actual(source).needs, provision)
        for _, source in needs
    )
