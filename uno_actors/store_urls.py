"""URLs of stores: ``SCHEME:PATH`` for one in a file or a directory, ``SCHEME://...`` for a server; then ``?options``.

SQLite's are written as SQLAlchemy does: ``sqlite+aiosqlite:///PATH``, with one more ``/`` before an absolute path.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlencode

HIDDEN = "***"

_SECRET_NAME = re.compile(r"pass(?!iv)|pwd|secret|token|credential|auth|key", re.IGNORECASE)
_OPTION = re.compile(r"([?&;])([^=?&;]*)=((?:[^&]|&(?![\w.%+-]+=))*)", re.DOTALL)
"""A name and its value, which continues behind an ``&`` that no other name follows: it was not escaped."""
_USER = re.compile(r"((?:(?:[^:/?#@]*:)?/+)?[^:@/]*):(.*)@", re.DOTALL)
"""All from the first colon behind the scheme to the last ``@``: a password may hold an ``@``, ``/``, ``?`` or ``#``."""
_WITH_PASSWORD = re.compile(r"[^:/?#]+://[^:@/]*:")
_MARKS = re.compile(r"[@:/?#&=]")
_ONLY_NAME = re.compile(r"[^:/?#@]*:/+[^:@/?#]*@[^@]*", re.DOTALL)
_NO_PORT = re.compile(
    r"((?:[^:/?#@]*:)?//(?:\[[^\]]*\]|[^:@/?#\[]*)):(?!\d+(?:[/?#,]|$)|(?:[/?#,]|$))([^/?#]*)"
)
"""Text in the place of a port that is not a port: a password, if the ``@`` was forgotten."""


def path_in(url: str) -> Path | None:
    """The path in a store's URL, as it is written; ``None`` if there is none, as for a server or for memory."""
    path = _split(url)[1]
    return Path(path) if path else None


def check_path(url: str) -> None:
    """Refuse a path that means something other than it seems to.

    Raises:
        ValueError: It begins with ``~``, which is not expanded; or, for LMDB, with two slashes, behind which a server
            would be named.
    """
    path = _split(url)[1]
    if path.startswith("~"):
        raise ValueError(
            "'~' stands for no directory here: write ${HOME} in its place in a file, and the whole path in a program"
        )
    place = url.partition("?")[0]
    if place.startswith("lmdb://") and not path:
        rest = place.removeprefix("lmdb://")
        raise ValueError(
            f"behind '//' a server is named, and the store is a directory: write 'lmdb:{rest}' for one below the"
            f" working directory, or 'lmdb:/{rest}'"
        )


def below(directory: Path, url: str) -> str:
    """``url`` with its path, if it has a relative one, taken from ``directory`` on.

    Raises:
        ValueError: It begins with ``~``, which is not expanded; or ``directory`` has a ``?`` in its name, behind which
            a URL has its options.
    """
    before, path, options = _split(url)
    if not path or Path(path).is_absolute():
        return url
    check_path(url)
    absolute = str(directory / path)
    if "?" in absolute:
        raise ValueError(f"the path {absolute} has a '?', which no URL of a store can say: write another one")
    return f"{before}{absolute}{options}"


def with_options(url: str, options: Mapping[str, str]) -> str:
    """``url`` with more options, whose special characters are escaped."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(options)}" if options else url


def without_password(url: str) -> str:
    """``url`` as others may see it, also one that is written wrongly: passwords, tokens and keys are hidden."""
    for start, end in sorted(_secret_places(url), reverse=True):
        url = f"{url[:start]}{HIDDEN}{url[end:]}"
    return url


def without_secrets(text: str, url: str) -> str:
    """``text``, which may be about ``url``, without that which `without_password` hides in it."""
    written = {url[start:end] for start, end in _secret_places(url)}
    parts = {
        part for secret in written for part in (secret, *_MARKS.split(secret))
    }  # a parser may take it apart
    for secret in sorted(parts | set(map(unquote, parts)), key=len, reverse=True):
        if len(secret) > 1 and secret != HIDDEN:
            text = text.replace(secret, HIDDEN)
    return text


def check_password(url: str) -> None:
    """Refuse a URL of a server whose user's password has an ``@``: a parser ends the password there.

    It would take the rest for the name of the server, which it looks up and shows in errors. An ``@`` in an option
    behind a password is refused too: it may as well be one of the password.

    Raises:
        ValueError: It is such a URL; the text shows nothing of the password.
    """
    user = _WITH_PASSWORD.match(url)
    if user is not None and any(
        "@" in url[start:end] for start, end in _secret_places(url) if start == user.end()
    ):
        raise ValueError(
            "it has more than one '@', so its password may end at any of them: write %40 for an '@' in the password"
            " or in an option"
        )


def is_secret_name(name: str) -> bool:
    """Whether an option of this name has a value that is shown to no one."""
    return _SECRET_NAME.search(unquote(name)) is not None


def _secret_places(url: str) -> Iterator[tuple[int, int]]:
    """Where the secrets begin and end, apart from each other."""
    covered = 0
    if not _is_path(url):
        # What is hidden among the options may hold an @ too, which ends no user.
        shown = _OPTION.sub(lambda m: m[0].replace("@", " ") if is_secret_name(m[2]) else m[0], url)
        named = None if _ONLY_NAME.fullmatch(shown) else _USER.match(shown) or _NO_PORT.match(shown)
        if named is not None:
            covered = named.end(2)
            yield named.span(2)
    for option in _OPTION.finditer(url):
        if is_secret_name(option[2]) and option.start(3) >= covered:
            yield option.span(3)


def _is_path(url: str) -> bool:
    """Whether no user can stand in it."""
    scheme, _, rest = url.partition(":")
    if scheme.startswith("sqlite"):
        return rest.startswith("///")
    return scheme in ("lmdb", "memory") and not rest.startswith("//")


def _split(url: str) -> tuple[str, str, str]:
    """What is before the path, the path, and the options with their ``?``; no path if the URL has none."""
    place, mark, options = url.partition("?")
    scheme, _, path = place.partition(":")
    before = f"{scheme}:"
    if scheme.startswith("sqlite") and path.startswith("///"):
        before, path = f"{before}///", path[3:]
        path = "" if path == ":memory:" or path.startswith("file:") else path
    elif scheme == "lmdb" and path.startswith("///"):
        before, path = f"{before}//", path[2:]
    elif path.startswith("//"):
        path = ""
    return before, path, mark + options
