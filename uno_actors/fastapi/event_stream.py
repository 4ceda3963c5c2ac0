"""Recorded events for browsers and other clients, as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from uno_actors.aggregates.ref import AggregateRef
from uno_actors.domain.aggregate import AggregateRoot
from uno_actors.errors import SeveralLogs, UnoError, describe, shown
from uno_actors.fastapi.hosting import hosted_of
from uno_actors.logs import get_logger
from uno_actors.quantities import check_count, check_duration
from uno_actors.store.codec import StreamId, to_event
from uno_actors.store.log_filter import EventTypes, LogFilter
from uno_actors.store.port import EventStore
from uno_actors.store.queries import READ_ALL_LOGS, selected
from uno_actors.store.records import RecordedEvent, StoredRecord
from uno_actors.tasks import begin
from uno_actors.topics import TopicPattern

FAREWELL = 1.0
"""Seconds for the last bytes to a client that has stopped reading."""

MOST_DIGITS = 19
"""Of a position: it has 63 bits."""


async def events(
    request: Request,
    *,
    topic_pattern: TopicPattern | str | None = None,
    event_type: EventTypes | None = None,
    aggregate: AggregateRef | None = None,
    aggregate_type: str | type[AggregateRoot] | None = None,
    correlation_id: str | None = None,
    after: int | None = None,
    limit: int | None = None,
    heartbeat: float = 15.0,
    show: Callable[[RecordedEvent], Any] | None = None,
) -> "EventStream":
    """The recorded events from now on, as server-sent events.

    A path operation ends with ``return await events(request)``. Each event has its position in the log as ``id``, its
    type as ``event``, and its fields as JSON in ``data``. A client that reconnects sends the last id as
    ``Last-Event-ID`` and gets what it has missed, without gaps or duplicates. The stream ends when the client leaves,
    when the server stops, and when the system does. An event that this process cannot decode or show arrives as
    ``event: unreadable``.

    Every client reads the log by itself, at its own pace: a slow one takes no memory.

    Args:
        request: The request.
        topic_pattern: As of `EventStore.subscribe`, like ``event_type``, ``aggregate_type`` and ``correlation_id``.
        event_type: See there.
        aggregate: Only events of this aggregate.
        aggregate_type: See there.
        correlation_id: See there.
        after: Position of the log after which to begin, for a client that sends no ``Last-Event-ID``; 0 for all events.
            Default is the end of the log.
        limit: Number of events after which the stream ends, for tests and for clients that poll.
        heartbeat: Seconds without an event after which a comment is sent, so that proxies keep the connection and a
            lost client is noticed. It carries the position that the stream has reached.
        show: Returns what the client gets as ``data``: anything that pydantic can write as JSON, or ``None`` to leave
            the event out. Default is all fields of the event, with bytes in base64.

    Raises:
        RequestValidationError: ``Last-Event-ID`` is not a position of this log.
        InvalidTopic: ``topic_pattern`` is not a topic pattern.
        SeveralLogs: The store has several logs, whose events have no common order.
        NoSystem: The application has no system; see `lifespan`.
    """
    check_duration("heartbeat", heartbeat)
    check_count("limit", limit, none=True)
    hosted = hosted_of(request)
    store = hosted.system.store
    stream = None if aggregate is None else aggregate.stream
    matching = store.log_filter(
        topic_pattern, event_type, aggregate_type if stream is None else stream.aggregate_type, correlation_id
    )
    ends = await store.last_positions()
    if len(ends) > 1:
        raise SeveralLogs(shown(store, repr), len(ends), "continuing a stream of events", READ_ALL_LOGS)
    (end,) = ends
    start = _last_event_id(request, end)
    if start is None:
        start = end if after is None else after
    frames = _frames(
        store,
        start,
        matching=matching,
        stream=stream,
        left=limit,
        heartbeat=heartbeat,
        show=show or _all_fields,
    )
    return EventStream(frames, hosted.stopping)


def _last_event_id(request: Request, end: int) -> int | None:
    """The position after which a client continues; ``None`` for a new one.

    Raises:
        RequestValidationError: It is not a position of this log. To begin anywhere else would lose events silently.
    """
    text = request.headers.get("last-event-id", "")
    if not text:
        return None
    is_number = text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS
    if not is_number or int(text) > end:
        reason = f"It must be a position of the log, from 0 to {end}"
        raise RequestValidationError(
            [{"type": "position", "loc": ("header", "last-event-id"), "msg": reason, "input": text}]
        )
    return int(text)


def _all_fields(recorded: RecordedEvent) -> Any:
    return recorded.event.model_dump()


async def _frames(
    store: EventStore,
    position: int,
    *,
    matching: LogFilter,
    stream: StreamId | None,
    left: int | None,
    heartbeat: float,
    show: Callable[[RecordedEvent], Any],
) -> AsyncGenerator[str]:
    """The text of the stream, an event or a heartbeat at a time."""
    loop = asyncio.get_running_loop()
    yield _reached(position)
    sent = loop.time()
    async with aclosing(_with_pauses(store.follow_pages(position), heartbeat)) as pages:
        async for page in pages:
            async for stored in selected(page, matching):
                if stream is not None and stored.record.aggregate_id != stream.aggregate_id:
                    continue
                if (frame := _frame(store, stored, show)) is None:
                    continue
                yield frame
                sent = loop.time()
                left = None if left is None else left - 1
                if left == 0:
                    return
            if page:
                position = page[-1].position
            if loop.time() - sent >= heartbeat:
                yield _reached(position)
                sent = loop.time()


async def _with_pauses(
    pages: AsyncGenerator[list[StoredRecord]], seconds: float
) -> AsyncGenerator[list[StoredRecord]]:
    """``pages``, which it closes, and an empty one after each so many seconds without any."""
    loop = asyncio.get_running_loop()

    async def step() -> list[StoredRecord] | None:
        return await anext(pages, None)

    coming = begin(loop, step())
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=seconds)
            if not done:
                yield []
                continue
            page = coming.result()
            if page is None:
                return
            yield page
            coming = begin(loop, step())
    finally:
        coming.cancel()
        await asyncio.wait({coming})
        await pages.aclose()


def _frame(store: EventStore, stored: StoredRecord, show: Callable[[RecordedEvent], Any]) -> str | None:
    """An event as the client gets it; ``None`` to leave it out."""
    kind = stored.record.event_type
    try:
        event = to_event(stored.record, store.event_registry, stored.position)
        content = show(RecordedEvent(stored.position, event))
        data = to_json(content, bytes_mode="base64", inf_nan_mode="null", fallback=str)
    except Exception as error:  # noqa: BLE001 - `show` is the program's, and one event must not end the stream
        get_logger().error("event cannot be streamed", position=stored.position, error=describe(error))
        content = {"position": stored.position, "event_type": kind}
        kind, data = "unreadable", to_json(content)
    if content is None:
        return None
    # JSON has no line breaks outside of its strings, and writes those inside as escapes.
    return f"id: {stored.position}\nevent: {_on_one_line(kind)}\ndata: {data.decode()}\n\n"


def _reached(position: int) -> str:
    """A comment. Its id is where a client continues that has seen no event of its own since."""
    return f"id: {position}\n:\n\n"


def _on_one_line(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


class EventStream(Response):
    """Server-sent events. Name it as ``response_class``, so that OpenAPI shows the media type.

    Args:
        frames: Text to send; closed when the stream ends.
        stopping: Ends the stream when it is set.
        status_code: Status code of HTTP.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[str], stopping: asyncio.Event, status_code: int = 200) -> None:
        self.frames = frames
        self.stopping = stopping
        self.status_code = status_code
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames until they end, the client leaves or the server stops."""
        loop = asyncio.get_running_loop()
        sending = begin(loop, self._send_frames(send))
        ends = {sending, begin(loop, _disconnected(receive)), begin(loop, self._stopped())}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also a client that does not read must not keep the server from stopping.
            for task in ends:
                task.cancel()
            await asyncio.wait(ends)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        if not sending.cancelled():
            sending.result()

    async def _send_frames(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.frames):
            try:
                async for frame in self.frames:
                    await send({"type": "http.response.body", "body": frame.encode(), "more_body": True})
            except UnoError as error:  # the client reconnects, and gets the answer then
                get_logger().warning("event stream ends", error=describe(error))

    async def _stopped(self) -> None:
        await self.stopping.wait()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
