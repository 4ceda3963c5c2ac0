"""Messages of brokers: what is kept of one, which one it is, and how a program reads it."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic_core import from_json

from uno_actors.causality import new_id
from uno_actors.domain.aggregate import unfit_name
from uno_actors.domain.events import METADATA, DomainEvent
from uno_actors.errors import CallerError, describe
from uno_actors.outside.cloud_events import CONTENT_TYPE, JSON, Binding, decode
from uno_actors.store.limits import MAX_TEXT_BYTES

M = TypeVar("M", bound=BaseModel)
Model: TypeAlias = type[M]

LONGEST_NAME = 150
"""Characters of a message's source and id that name its stream as they are."""


class UnreadableMessage(CallerError):
    """A message that cannot be read as what it says it is, or as what the program wants."""


class ReceivedMessage(DomainEvent):
    """A message of a broker, as it came. Its stream has the type of the receiver's name, and one message.

    Attributes:
        source: Where the id is unique: the ``source`` of a CloudEvent, otherwise the place at the broker.
        message_id: The id.
        address: The subject, topic, routing key or stream that it came by.
        binding: How its headers name the attributes of a CloudEvent.
        headers: As text.
        body: As it came.
    """

    event_type: str = "uno_actors.ReceivedMessage"
    source: str
    message_id: str
    address: str
    binding: str
    headers: dict[str, str]
    body: bytes


class MessageTaken(DomainEvent):
    """Marks, in the stream of a message, that events of other streams were recorded because of it."""

    event_type: str = "uno_actors.MessageTaken"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a program reads it.

    Attributes:
        id: Its id.
        source: Where the id is unique.
        type: The type of a CloudEvent.
        subject: The subject of a CloudEvent, such as the id of what it is about.
        time: When it happened, of a CloudEvent.
        address: The subject, topic, routing key or stream that it came by.
        headers: As text.
        data: The value of its JSON; text or bytes if it is not JSON.
        correlation_id: Common to all messages that originate from one first message.
    """

    id: str
    source: str
    type: str | None
    subject: str | None
    time: datetime | None
    address: str
    headers: Mapping[str, str]
    data: Any
    correlation_id: str | None

    def read(self, model: Model[M]) -> M:
        """The data as a pydantic model, such as an event or a command.

        Fields that an event has from its recording, such as ``aggregate_id``, are not taken from outside, and fields
        that the model does not have are passed over.

        Raises:
            UnreadableMessage: The data do not fit the model.
        """
        if not isinstance(self.data, dict):
            raise UnreadableMessage(f"the message {self.id} has no object of fields for {model.__name__}")
        barred = METADATA if issubclass(model, DomainEvent) else frozenset[str]()
        known = _names_of(model, model.model_fields.keys() - barred)
        metadata = _names_of(model, barred)
        fields = {name: value for name, value in self.data.items() if name in known}
        try:
            made = model.model_validate_json(json.dumps(fields))
        except ValueError as error:
            raise UnreadableMessage(
                f"the message {self.id} is no {model.__name__}: {describe(error)}"
            ) from error
        if metadata.isdisjoint(fields):
            return made
        fresh = {name: model.model_fields[name].get_default(call_default_factory=True) for name in barred}
        return made.model_copy(update=fresh)  # a field of its own is read from the same name


def _names_of(model: type[BaseModel], fields: Iterable[str]) -> set[str]:
    """The names by which a message may have these fields of a model: their own, and their aliases."""
    names: set[str] = set()
    for field in fields:
        info = model.model_fields[field]
        read = info.validation_alias
        for name in (field, info.alias, *(read.choices if isinstance(read, AliasChoices) else [read])):
            first = name.path[0] if isinstance(name, AliasPath) else name
            if isinstance(first, str):
                names.add(first)
    return names


def message_in(event: ReceivedMessage) -> Message:
    """The message that was recorded.

    Raises:
        UnreadableMessage: It is not what its headers say.
    """
    binding: Binding = (
        "kafka" if event.binding == "kafka" else "rabbitmq" if event.binding == "rabbitmq" else "http"
    )
    try:
        found = decode(event.headers, event.body, binding)
        if found is None:
            data = _data_of(event.headers, event.body)
            return Message(
                event.message_id, event.source, None, None, None, event.address, event.headers, data,
                event.headers.get("correlation_id"),
            )  # fmt: skip
    except Exception as error:
        raise UnreadableMessage(
            f"the message {event.message_id} at {event.address} cannot be read: {describe(error)}"
        ) from error
    correlation_id = found.get_extension("correlationid")
    return Message(
        event.message_id, event.source, found.get_type(), found.get_subject(), found.get_time(), event.address,
        event.headers, found.get_data(), None if correlation_id is None else str(correlation_id),
    )  # fmt: skip


def _data_of(headers: Mapping[str, str], body: bytes) -> Any:
    named = {name.lower(): value for name, value in headers.items()}
    kind = named.get(CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if kind == JSON or kind.endswith("+json"):
        return from_json(body)
    if kind.startswith("text/"):
        return body.decode()
    if not kind:
        with suppress(ValueError):
            return from_json(body)
    return body


def received(taken: Any, kind: str, name: str) -> ReceivedMessage:
    """What is recorded of a message that FastStream has taken from a broker. It never fails.

    The same message has the same source and id however often it is delivered: those of a CloudEvent; else the id that
    its producer gave it; else its place at the broker. One of RabbitMQ without any is another message at each delivery.

    Args:
        taken: FastStream's message.
        kind: ``nats``, ``kafka``, ``rabbit`` or ``redis``.
        name: Of the receiver.
    """
    binding: Binding = {"kafka": "kafka", "rabbit": "rabbitmq"}.get(kind, "http")  # type: ignore[assignment]
    headers = {str(key): _text(value) for key, value in (taken.headers or {}).items()}
    if taken.content_type:
        headers.setdefault(CONTENT_TYPE, str(taken.content_type))
    body = (
        taken.body
        if isinstance(taken.body, bytes)
        else b""
        if taken.body is None
        else str(taken.body).encode()
    )
    address, place = _place_of(taken.raw_message, kind)
    source, message_id = address, place
    try:
        found = decode(headers, body, binding)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is recorded as it is
        found = None
    if found is not None:
        source, message_id = found.get_source(), found.get_id()
    elif given := _id_of_producer(taken.raw_message, headers, kind):
        message_id = f"id:{given}"  # never the same as a place
    if not message_id:
        message_id = new_id()
    causation_id = message_id if len(message_id) <= LONGEST_NAME else digest(message_id)
    return ReceivedMessage(
        event_id=digest("event", name, source, message_id),
        aggregate_type=name,
        aggregate_id=stream_name(source, message_id),
        aggregate_version=1,
        causation_id=fit_id(causation_id),
        source=_writable(source),
        message_id=_writable(message_id),
        address=_writable(address),
        binding=binding,
        headers={_writable(key): _writable(value) for key, value in headers.items()},
        body=body,
    )


def fit_id(text: str) -> str:
    """An id of a message as a record can have it: ``text``, or a digest of what no store could keep."""
    return digest(text) if unfit_name(text, MAX_TEXT_BYTES) else text


def _writable(text: str) -> str:
    """``text`` with escapes for what UTF-8 cannot write: halves of pairs that JSON has let through."""
    return text.encode(errors="backslashreplace").decode()


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _id_of_producer(raw: Any, headers: Mapping[str, str], kind: str) -> str | None:
    if kind == "rabbit":
        found = getattr(raw, "message_id", None)
        return None if found is None else str(found)
    return headers.get("Nats-Msg-Id" if kind == "nats" else "message_id")


def _place_of(raw: Any, kind: str) -> tuple[str, str]:
    """The address of a message, and its place at the broker; empty if it has none that stays."""
    match kind:
        case "nats":
            with suppress(Exception):
                metadata = raw.metadata
                return str(raw.subject), f"{metadata.stream}/{metadata.sequence.stream}"
            return str(raw.subject), ""
        case "kafka":
            return str(raw.topic), f"{raw.topic}/{raw.partition}/{raw.offset}"
        case "redis":
            ids = raw.get("message_ids") or []
            return _text(
                raw.get("channel", "")
            ), f"{_text(raw.get('channel', ''))}/{_text(ids[0])}" if ids else ""
    return str(getattr(raw, "routing_key", "")), ""


def stream_name(source: str, message_id: str) -> str:
    """The id of the stream that one message has to itself."""
    name = f"{source} {message_id}"
    return name if name.isprintable() and len(name.encode()) <= LONGEST_NAME else digest(source, message_id)


def digest(*parts: str) -> str:
    """32 hexadecimal digits that these texts, and no others, have."""
    told_apart = json.dumps(parts).encode()
    return blake2b(told_apart, digest_size=16).hexdigest()
