"""Events as CloudEvents 1.0 (https://github.com/cloudevents/spec), and messages read as such.

================ =============================================================================
attribute        of an event
================ =============================================================================
id               ``event_id``
source           the ``source`` of the handler; by default ``/`` and the name of the system
type             ``event_type``
subject          ``aggregate_id``
time             ``timestamp``
datacontenttype  ``application/json``
dataschema       what the ``schema`` of the handler returns, if it has one
schemaversion    ``version``
correlationid    ``correlation_id``
causationid      ``causation_id``
aggregatetype    ``aggregate_type``
aggregateversion ``aggregate_version``
partitionkey     ``aggregate_id``
topic            ``topic``
================ =============================================================================

From ``schemaversion`` on they are extensions. An attribute whose value is ``None`` is left out. The data are the other
fields of the event, as JSON. JSON has no NaN and no infinity: they are ``null``, as pydantic writes them.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from cloudevents.core.bindings import http, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic_core import to_jsonable_python
from typing_extensions import override

from uno_actors.domain.events import METADATA, DomainEvent

Mode = Literal["binary", "structured"]
"""``binary``: attributes are headers and the body is the data. ``structured``: the body is the whole CloudEvent."""

Binding = Literal["http", "kafka", "rabbitmq"]
"""How attributes are named as headers. NATS and Redis have those of HTTP."""

STRUCTURED = "application/cloudevents+json"
JSON = "application/json"
CONTENT_TYPE = "content-type"


class _AlwaysJson(JSONFormat):
    """Writes data of any kind as JSON: the library's own writes lists, numbers and text as Python shows them."""

    @override
    def write_data(self, data: Any, datacontenttype: str | None) -> bytes:
        return json.dumps(data).encode()


_FORMAT = _AlwaysJson()


class Encoded(NamedTuple):
    """A CloudEvent as a message."""

    headers: dict[str, str]
    body: bytes


def source_of(system: str) -> str:
    """The source of the events of a system, if its handlers name no other."""
    return f"/{quote(system, safe='')}"


def payload_of(event: DomainEvent) -> dict[str, Any]:
    """The fields of an event without its metadata, as JSON has them."""
    return event.model_dump(mode="json", exclude=set(METADATA))


def cloud_event_of(event: DomainEvent, source: str, data: Any, schema: str | None = None) -> CloudEvent:
    """An event as a CloudEvent, by the table in this module.

    Args:
        event: The event as recorded.
        source: The source of all events of the handler.
        data: What is sent of it: anything that pydantic writes as JSON.
        schema: The URI of the schema of ``data``.
    """
    attributes = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": source,
        "type": event.event_type,
        "subject": event.aggregate_id,
        "time": event.timestamp,
        "datacontenttype": JSON,
        "dataschema": schema,
        "schemaversion": event.version,
        "correlationid": event.correlation_id,
        "causationid": event.causation_id,
        "aggregatetype": event.aggregate_type,
        "aggregateversion": event.aggregate_version,
        "partitionkey": event.aggregate_id,
        "topic": event.topic,
    }
    given = {name: value for name, value in attributes.items() if value is not None}
    return CloudEvent(given, to_jsonable_python(data, inf_nan_mode="null"))


def encode(event: CloudEvent, mode: Mode, binding: Binding) -> Encoded:
    """Headers and body of the message for a CloudEvent."""
    if mode == "structured":
        return Encoded({CONTENT_TYPE: STRUCTURED}, http.to_structured(event, _FORMAT).body)
    match binding:
        case "kafka":
            sent = kafka.to_binary(event, _FORMAT)
            return Encoded({name: value.decode() for name, value in sent.headers.items()}, sent.value)
        case "rabbitmq":
            message = rabbitmq.to_binary(event, _FORMAT)
            return Encoded({**message.headers, CONTENT_TYPE: message.content_type or JSON}, message.body)
    request = http.to_binary(event, _FORMAT)
    return Encoded(request.headers, request.body)


def decode(headers: Mapping[str, str], body: bytes, binding: Binding) -> CloudEvent | None:
    """The CloudEvent that a message is; ``None`` if it is none.

    Raises:
        Exception: It says that it is one, and cannot be read as such.
    """
    named = {name.lower(): value for name, value in headers.items()}
    if named.get(CONTENT_TYPE, "").partition(";")[0].strip().lower() == STRUCTURED:
        return _as_1_0(http.from_structured(http.HTTPMessage({}, body), _FORMAT, CloudEvent))
    prefix = "ce_" if binding == "kafka" else "ce-"
    if f"{prefix}specversion" not in named:
        return None
    if binding == "http":
        return _as_1_0(http.from_binary(http.HTTPMessage(named, body), _FORMAT, CloudEvent))
    message = {name: value.encode() for name, value in named.items()}
    if binding == "kafka":
        return _as_1_0(kafka.from_binary(kafka.KafkaMessage(message, None, body), _FORMAT, CloudEvent))
    parts = rabbitmq.RabbitMQMessage(named, named.get(CONTENT_TYPE), body)
    return _as_1_0(rabbitmq.from_binary(parts, _FORMAT, CloudEvent))


def _as_1_0(event: Any) -> CloudEvent:
    assert isinstance(event, CloudEvent)
    return event
