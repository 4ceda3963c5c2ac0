"""Events as CloudEvents and back, in each mode and for each kind of broker."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.outside.shop import sent
from uno_actors.outside.cloud_events import (
    Binding,
    Mode,
    cloud_event_of,
    decode,
    encode,
    payload_of,
    source_of,
)

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
moments = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1))  # noqa: DTZ001 - made aware below
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("binding", get_args(Binding))
@pytest.mark.parametrize("mode", get_args(Mode))
@given(names=st.tuples(texts, texts), moment=moments, data=values.filter(lambda value: value is not None))
def test_a_receiver_reads_what_was_sent(
    mode: Mode, binding: Binding, names: tuple[str, str], moment: datetime, data: Any
) -> None:
    event_id, aggregate = names
    event = sent(1, aggregate_version=7, correlation_id=event_id).stamped(
        event_id=event_id, aggregate_id=aggregate, timestamp=moment.replace(tzinfo=UTC)
    )
    headers, body = encode(cloud_event_of(event, "/shop", data, "urn:x"), mode, binding)
    assert all(isinstance(value, str) and "\n" not in value for value in headers.values())
    found = decode({name.upper(): value for name, value in headers.items()}, body, binding)
    assert found is not None
    assert (found.get_id(), found.get_source(), found.get_type()) == (event_id, "/shop", "OrderSent")
    assert (found.get_subject(), found.get_extension("partitionkey")) == (aggregate, aggregate)
    assert found.get_time() == event.timestamp
    assert str(found.get_extension("aggregateversion")) == "7"
    assert found.get_extension("correlationid") == event_id
    assert found.get_data() == data


@pytest.mark.parametrize("mode", get_args(Mode))
def test_what_json_cannot_hold_is_null(mode: Mode) -> None:
    data = {"celsius": float("nan"), "limits": [float("inf"), 1.5]}
    body = encode(cloud_event_of(sent(1), "/shop", data), mode, "http").body
    read = json.loads(body, parse_constant=pytest.fail)
    assert (read if mode == "binary" else read["data"]) == {"celsius": None, "limits": [None, 1.5]}


@pytest.mark.parametrize("binding", get_args(Binding))
def test_attributes_are_headers_as_each_protocol_names_them(binding: Binding) -> None:
    headers, body = encode(cloud_event_of(sent(1), "/shop", {"total": 1}), "binary", binding)
    prefix = "ce_" if binding == "kafka" else "ce-"
    assert headers[f"{prefix}type"] == "OrderSent"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"total": 1}


def test_times_are_written_in_utc() -> None:
    noon = datetime(2026, 11, 28, 12, tzinfo=timezone(timedelta(hours=2)))
    headers, _ = encode(cloud_event_of(sent(1, timestamp=noon), "/shop", {}), "binary", "http")
    assert headers["ce-time"] == "2026-11-28T10:00:00Z"


def test_the_payload_has_no_metadata() -> None:
    assert payload_of(sent(1, 10)) == {"total": 10}


def test_the_name_of_a_system_makes_a_source() -> None:
    assert source_of("the shop/1") == "/the%20shop%2F1"


def test_an_ordinary_message_is_not_taken_for_a_cloud_event() -> None:
    assert decode({"content-type": "application/json", "ce-id": "1"}, b"{}", "http") is None
