"""Webhooks: signed requests, and what their answers mean."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook as Receiver

from tests.outside.shop import sent
from tests.outside.test_forwarding import system_of
from tests.waiting import until
from uno_actors import InvalidHandler, RetryLater
from uno_actors.outside import DeliveryRefused, DestinationGone, Webhook, forward
from uno_actors.outside.public_addresses import is_public
from uno_actors.outside.webhook import failure_of, seconds_until

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ...").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"the secret that was used before.").decode()
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Endpoint:
    """An HTTP server of a test that answers with each of ``answers`` once, and then with 204."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/in/a-secret-path"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((headers, body))
                answer = self.answers.pop(0) if self.answers else "204 No Content"
                if answer == "nothing":
                    continue
                writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    found = Endpoint()
    await found.start()
    yield found
    await found.stop()


async def test_a_webhook_is_signed_so_that_the_receiver_can_prove_it(endpoint: Endpoint) -> None:
    to = Webhook(endpoint.url, [SECRET, OLD_SECRET], internal=True, headers={"Authorization": "Bearer t"})
    async with system_of(forward("orders.>", to=to)) as system:
        await system.publisher.publish(sent(1, 10), sent(2, 20))
        await system.settled()
    for number, (headers, body) in enumerate(endpoint.requests, start=1):
        for secret in (SECRET, OLD_SECRET):
            found = Receiver(secret).verify(body, headers)
        assert headers["webhook-id"] == found["id"]
        assert headers["authorization"] == "Bearer t"
        assert headers["content-type"] == "application/cloudevents+json"
        assert (found["subject"], found["data"]) == (f"order-{number}", {"total": number * 10})
    assert endpoint.connections == 1


async def test_each_attempt_has_the_same_id_and_a_new_signature(endpoint: Endpoint) -> None:
    endpoint.answers = [
        "500 Internal Server Error",
        "503 Service Unavailable",
        "429 Too Many\r\nretry-after: 1",
    ]
    to = Webhook(endpoint.url, SECRET, internal=True)
    began = asyncio.get_running_loop().time()
    async with system_of(forward("orders.>", to=to, max_attempts=2)) as system:
        await system.publisher.publish(sent(1))
        await system.settled()
        assert await system.store.dead_letters() == []  # of four attempts only the first counts
    assert asyncio.get_running_loop().time() - began >= 1
    assert len(endpoint.requests) == 4
    assert len({headers["webhook-id"] for headers, _ in endpoint.requests}) == 1
    assert len({headers["webhook-signature"] for headers, _ in endpoint.requests}) >= 2
    for headers, body in endpoint.requests:
        Receiver(SECRET).verify(body, headers)


async def test_an_endpoint_that_does_not_answer_costs_attempts_and_one_that_is_away_does_not(
    endpoint: Endpoint,
) -> None:
    endpoint.answers = ["nothing", "nothing"]
    to = Webhook(endpoint.url, SECRET, internal=True, timeout=0.1)
    async with system_of(forward("orders.>", to=to, max_attempts=2, name="out")) as system:
        await system.publisher.publish(sent(1))
        await system.settled()
        (letter,) = await system.store.dead_letters()
        assert "has not answered within 0.1 s" in letter.error
        await endpoint.stop()
        await system.publisher.publish(sent(2))
        await until(lambda: system.statistics().handlers["out"].failures >= 6)
        assert len(await system.store.dead_letters()) == 1


async def test_gone_pauses_the_webhook(endpoint: Endpoint) -> None:
    endpoint.answers = ["410 Gone"]
    to = Webhook(endpoint.url, SECRET, internal=True)
    async with system_of(forward("orders.>", to=to, name="out")) as system:
        await system.publisher.publish(sent(1), sent(2))
        await until(lambda: system.statistics().handlers["out"].state == "paused")
        assert len(endpoint.requests) == 1
        await system.resume("out")
        await system.settled()
    assert len(endpoint.requests) == 3


# --- rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, None),
        (204, None),
        (299, None),
        (301, DeliveryRefused),
        (307, DeliveryRefused),
        (400, DeliveryRefused),
        (401, DeliveryRefused),
        (404, DeliveryRefused),
        (408, RetryLater),
        (410, DestinationGone),
        (413, DeliveryRefused),
        (425, RetryLater),
        (429, RetryLater),
        (500, DeliveryRefused),
        (502, RetryLater),
        (503, RetryLater),
        (504, RetryLater),
        (505, DeliveryRefused),
    ],
)
def test_what_a_status_means(status: int, kind: type[Exception] | None) -> None:
    found = failure_of(status, "7", NOW, "https://h.example")
    assert (None if found is None else type(found)) is kind
    if isinstance(found, RetryLater):
        assert found.wait == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sat, 28 Nov 2026 12:01:00 GMT", 60),
        ("Sat, 28 Nov 2026 11:00:00 GMT", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("٣", None),
    ],
)
def test_the_seconds_of_retry_after(text: str | None, seconds: float | None) -> None:
    assert seconds_until(text, NOW) == seconds


def test_no_endpoint_can_stop_a_handler_for_days() -> None:
    assert RetryLater("busy", timedelta(days=9).total_seconds()).wait == RetryLater.LONGEST_WAIT
    assert RetryLater("busy", -1).wait == 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("172.16.0.1", False),
        ("169.254.169.254", False),  # metadata of clouds
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address to refuse
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("2002:7f00:1::", False),
    ],
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(address) is expected


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_a_name_that_stands_for_a_private_address_is_not_connected_to(
    endpoint: Endpoint, host: str
) -> None:
    port = endpoint.url.split(":")[2].split("/")[0]
    to = Webhook(f"https://{host}:{port}/", SECRET)
    async with system_of(forward("orders.>", to=to, name="out", max_attempts=1)) as system:
        await system.publisher.publish(sent(1))
        await until(lambda: system.statistics().handlers["out"].failures >= 2)
        assert await system.store.dead_letters() == []
    assert endpoint.connections == 0


async def test_redirections_are_not_followed(endpoint: Endpoint) -> None:
    endpoint.answers = [f"307 Temporary Redirect\r\nlocation: {endpoint.url}"]
    to = Webhook(endpoint.url, SECRET, internal=True)
    async with system_of(forward("orders.>", to=to, max_attempts=1)) as system:
        await system.publisher.publish(sent(1))
        await system.settled()
        (letter,) = await system.store.dead_letters()
    assert "redirections are not followed" in letter.error
    assert len(endpoint.requests) == 1


async def test_neither_secrets_nor_paths_are_shown_anywhere(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.answers = ["500 Internal Server Error", "503 Service Unavailable"]
    to = Webhook(endpoint.url, SECRET, internal=True, headers={"authorization": "Bearer very-secret"})
    spec = forward("orders.>", to=to, max_attempts=1)
    async with system_of(spec) as system:
        await system.publisher.publish(sent(1), sent(2))
        await system.settled()
        letters = await system.store.dead_letters()
    shown = f"{to!r} {to} {spec} {letters} {caplog.text}"
    assert len(letters) == 1
    for hidden in (SECRET, SECRET.removeprefix("whsec_"), "very-secret", "a-secret-path"):
        assert hidden not in shown


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://h.example/", {}, "needs https"),
        ("ftp://h.example/", {}, "a URL such as"),
        ("https://", {}, "a URL such as"),
        ("https://h.example:99999/", {}, "a URL such as"),
        ("https://h.example/a b", {}, "a URL such as"),
        ("https://user:geheim@h.example/", {}, "a user or a password"),
        ("https://h.example/", {"secret": "whsec_"}, "the secret of a webhook cannot be used"),
        ("https://h.example/", {"secret": "geheim!"}, "the secret of a webhook cannot be used"),
        ("https://h.example/", {"secret": "whsec_Z2VoZWlt"}, "24 to 64 bytes in base64"),
        ("https://h.example/", {"secret": []}, "needs a secret"),
        ("https://h.example/", {"headers": {"Webhook-Id": "1"}}, "webhook-id cannot be given"),
        ("https://h.example/", {"headers": {"x": "a\r\ny: b"}}, "cannot be written as a header"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused_when_it_is_written(
    url: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidHandler, match=message) as raised:
        Webhook(url, **{"secret": SECRET, **options})
    assert "geheim" not in str(raised.value)
