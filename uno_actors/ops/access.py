"""Who may use the live page: a token, the session of a browser that has given it, and requests from the page itself.

- A token is compared in constant time and is never part of a URL. Programs send it in the header ``Authorization``.
- A browser gives the token, or the code of a one-time link, once, and gets a cookie that scripts cannot read and that
  other sites cannot send. The code is behind the ``#`` of the link: a browser keeps that part to itself, so it is in
  no log of a server or a proxy.
- A request that changes something must have a header that forms of other sites cannot send, and must not name another
  origin.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from uno_actors.errors import CallerError

TOKEN = "UNO_ACTORS_PAGE_TOKEN"  # noqa: S105 - the name of a variable
"""The variable of the environment that has the token, where a program or a command line gives none."""
SHORTEST = 16
"""Characters of a token, at least."""
SESSION_SECONDS = 12 * 3600
"""How long a browser stays logged in."""
CODE_SECONDS = 600
"""How long a one-time link can be used."""
HEADER = "x-uno-actors"
"""The header, of any value, that each request has that changes something."""
MOST_CODES = 100
"""One-time links that are kept; an older one is forgotten."""


class InvalidToken(CallerError, ValueError):
    """A token that could be guessed."""

    def __init__(self, length: int) -> None:
        super().__init__(
            f"a token of the live page must have {SHORTEST} characters or more; found {length}: make one by"
            ' python -c "import secrets; print(secrets.token_urlsafe())"'
        )


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(32)


class Keys:
    """The token, and what is derived from it: sessions, which all processes with the token accept, and one-time codes.

    Args:
        token: What programs and people give; default is a new one.

    Raises:
        InvalidToken: The token is too short.
    """

    def __init__(self, token: str | None = None) -> None:
        token = new_token() if token is None else token
        if len(token) < SHORTEST:
            raise InvalidToken(len(token))
        self._digest = _digest(token)
        self._signing = hmac.digest(token.encode(), b"uno_actors session", "sha256")
        self._codes: dict[bytes, float] = {}  # until when, by digest
        # Cookies do not know ports: two pages on one host have cookies of different names.
        self.cookie = f"uno-actors-{_digest(token + ' cookie').hex()[:8]}"

    def is_token(self, text: str) -> bool:
        """Whether ``text`` is the token."""
        return hmac.compare_digest(_digest(text), self._digest)

    def new_code(self) -> str:
        """The code of a new one-time link."""
        code = secrets.token_urlsafe(24)
        while len(self._codes) >= MOST_CODES:
            del self._codes[next(iter(self._codes))]
        self._codes[_digest(code)] = time.monotonic() + CODE_SECONDS
        return code

    def takes_code(self, text: str) -> bool:
        """Whether ``text`` is the code of a one-time link, which is used up now."""
        until = self._codes.pop(_digest(text), None)  # a digest tells nothing about the code by its time
        return until is not None and time.monotonic() < until

    def new_session(self) -> str:
        """The value of the cookie of a browser that has logged in."""
        text = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(12)}"
        return f"{text}.{self._signature(text)}"

    def is_session(self, value: str) -> bool:
        """Whether ``value`` is a cookie that `new_session` made and that has not ended."""
        text, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(text).encode()):
            return False
        return int(text.partition(".")[0]) > time.time()

    def _signature(self, text: str) -> str:
        return hmac.new(self._signing, text.encode(), hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token in the header ``Authorization``; ``None`` if there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None


def foreign(headers: Mapping[str, str]) -> str | None:
    """Why a request that changes something is not from the page itself; ``None`` if it is.

    Args:
        headers: Of the request, by name in small letters.
    """
    if HEADER not in headers:
        return f"a request that changes something needs the header {HEADER.title()}"
    origin = headers.get("origin")
    if origin is None:
        site = headers.get("sec-fetch-site", "none")
        return None if site in ("same-origin", "none") else f"the request comes from another site ({site})"
    # A browser lets no other site set these two headers.
    here = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
    try:
        named = urlsplit(origin).netloc
    except ValueError:
        named = ""
    return None if named in here else f"the request comes from {origin}"
