"""Webhooks: events as HTTP requests, signed by Standard Webhooks (https://www.standardwebhooks.com)."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import ClassVar
from urllib.parse import urlsplit

import httpcore
from standardwebhooks import Webhook as Signature
from typing_extensions import override

from uno_actors.errors import InvalidHandler, RetryLater, describe
from uno_actors.outside.cloud_events import Mode
from uno_actors.outside.destination import DeliveryRefused, Destination, DestinationGone, Outgoing
from uno_actors.outside.public_addresses import PublicAddresses
from uno_actors.quantities import check_duration

LARGEST_ANSWER = 65_536
"""Bytes of an answer that are read, so that its connection can be used again."""
BUSY = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses that say nothing about the event."""
GONE = 410
SHORTEST_KEY, LONGEST_KEY = 24, 64
"""Bytes of the key in a secret, by Standard Webhooks."""
OURS = frozenset(
    {"host", "content-length", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature"}
)


def failure_of(status: int, retry_after: str | None, now: datetime, where: str) -> Exception | None:
    """What an answer means: the one rule for statuses.

    =================================== ==============================================================
    2xx                                 taken
    408, 425, 429, 502, 503, 504        busy or away: tried again, not before ``Retry-After``
    410                                 wants no more: the handler is paused
    any other, redirections among them  refused: an attempt at the event
    =================================== ==============================================================
    """
    if 200 <= status < 300:
        return None
    if status == GONE:
        return DestinationGone(f"{where} answered 410 Gone")
    if status in BUSY:
        return RetryLater(f"{where} answered {status}", seconds_until(retry_after, now))
    if 300 <= status < 400:
        return DeliveryRefused(f"{where} answered {status}; redirections are not followed: give the new URL")
    return DeliveryRefused(f"{where} answered {status}")


def seconds_until(retry_after: str | None, now: datetime) -> float | None:
    """The seconds that the header ``Retry-After`` asks for, as a number or a date; ``None`` without a readable one."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    with suppress(ValueError, TypeError):
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    return None


class Webhook(Destination):
    """An HTTP endpoint that receives events by POST.

    The event's id is the ``webhook-id``, the same at each attempt; time and signature are new. Redirections are not
    followed, proxies of the environment are not used, and addresses that are not public are refused. Neither the path
    of the URL nor secrets nor headers appear in logs, in errors or in the ``repr``.

    Args:
        url: With ``https``.
        secret: The signing secret, such as ``whsec_...`` in base64; several while it is replaced, the new one first.
        headers: Further headers of each request, such as ``Authorization``.
        timeout: Seconds for one request, from connecting to the answer.
        internal: Whether the endpoint is in your own network: allows ``http`` and addresses that are not public.

    Raises:
        InvalidHandler: One of them cannot be used.
    """

    kind: ClassVar[str] = "webhook"
    mode: ClassVar[Mode] = "structured"  # the signature then covers all attributes

    def __init__(
        self,
        url: str,
        secret: str | Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 15.0,
        internal: bool = False,
    ) -> None:
        check_duration("timeout", timeout)
        self._url = _checked_url(url, internal=internal)
        self._where = _shown(url)
        self._signatures = _signatures([secret] if isinstance(secret, str) else [*secret])
        self._headers = _checked_headers(headers or {})
        self._timeout = timeout
        self._internal = internal
        self._pool: httpcore.AsyncConnectionPool | None = None

    @override
    async def send(self, outgoing: Outgoing) -> None:
        now = datetime.now(UTC)
        headers, body = outgoing.encoded("http")
        signed = [each.sign(outgoing.id, now, body.decode()) for each in self._signatures]
        request = {
            **self._headers,
            **headers,
            "user-agent": self._headers.get("user-agent", "uno-actors"),
            "webhook-id": outgoing.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signed),
        }
        status, retry_after = await self._post(request, body)
        failure = failure_of(status, retry_after, now, self._where)
        if failure is not None:
            raise failure

    async def _post(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str | None]:
        """Status and ``Retry-After`` of the answer."""
        if self._pool is None:
            backend = None if self._internal else PublicAddresses()
            self._pool = httpcore.AsyncConnectionPool(network_backend=backend, retries=0)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout)
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._pool.stream(
                    "POST",
                    self._url,
                    headers=[*headers.items()],
                    content=body,
                    extensions={"timeout": limits},
                ) as answer,
            ):
                count = 0
                async for part in answer.aiter_stream():
                    count += len(part)
                    if count > LARGEST_ANSWER:
                        break
                found = {name.lower(): value for name, value in answer.headers}
                return answer.status, found.get(b"retry-after", b"").decode("latin-1") or None
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            raise RetryLater(f"{self._where} cannot be reached: {describe(error)}") from None
        except (TimeoutError, httpcore.TimeoutException):
            raise DeliveryRefused(f"{self._where} has not answered within {self._timeout:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise DeliveryRefused(f"{self._where} broke the connection off: {describe(error)}") from None

    @override
    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    def __repr__(self) -> str:
        return f"Webhook({self._where!r})"


def _shown(url: str) -> str:
    """What may be shown of a URL: a path or a query may hold a secret."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def _checked_url(url: str, *, internal: bool) -> str:
    try:
        parts = urlsplit(url)
        known = parts.hostname and (parts.port or True)
    except ValueError:
        known = False
    if (
        not known
        or parts.scheme not in ("https", "http")
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise InvalidHandler("a webhook needs a URL such as https://example.org/hooks, written in ASCII")
    if parts.username is not None or parts.password is not None:
        raise InvalidHandler(
            f"the webhook at {_shown(url)} has a user or a password in its URL: give headers="
        )
    if parts.scheme == "http" and not internal:
        raise InvalidHandler(
            f"the webhook at {_shown(url)} needs https; http is for endpoints of your own, with internal=True"
        )
    return url


def _signatures(secrets: Sequence[str]) -> list[Signature]:
    if not secrets:
        raise InvalidHandler("a webhook needs a secret, by which its requests are signed")
    return [Signature(_key_in(secret)) for secret in secrets]


def _key_in(secret: str) -> bytes:
    """The key that a secret holds. The library would pass over characters that are not base64, to another key."""
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if not SHORTEST_KEY <= len(key) <= LONGEST_KEY:
        raise InvalidHandler(
            f"the secret of a webhook cannot be used: it is {SHORTEST_KEY} to {LONGEST_KEY} bytes in base64, with or"
            " without 'whsec_' before them, such as"
            " 'whsec_' + base64.b64encode(secrets.token_bytes(32)).decode()"
        ) from None
    return key


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in headers.items()}
    if taken := sorted(OURS & found.keys()):
        raise InvalidHandler(
            f"headers of a webhook: {', '.join(taken)} cannot be given, it follows from the event"
        )
    if bad := sorted(name for name, value in found.items() if not _is_header(name, value)):
        raise InvalidHandler(
            f"headers of a webhook: {', '.join(map(repr, bad))} cannot be written as a header"
        )
    return found


def _is_header(name: str, value: str) -> bool:
    return (
        bool(name)
        and all(text.isascii() and text.isprintable() for text in (name, value))
        and not {" ", ":"} & {*name}
    )
