"""URLs of stores: ``SCHEME:PATH`` for one in a file or a directory, ``SCHEME://...`` for a server; then ``?options``.

SQLite's are written as SQLAlchemy does: ``sqlite+aiosqlite:///PATH``, with one more ``/`` before an absolute path.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode


def path_in(url: str) -> Path | None:
    """The path in a store's URL, as it is written; ``None`` if there is none, as for a server or for memory."""
    path = _split(url)[1]
    return Path(path) if path else None


def below(directory: Path, url: str) -> str:
    """``url`` with its path, if it has a relative one, taken from ``directory`` on.

    Raises:
        ValueError: It begins with ``~``, which nobody expands; or ``directory`` has a ``?`` in its name, behind which
            a URL has its options.
    """
    before, path, options = _split(url)
    if not path or Path(path).is_absolute():
        return url
    if path.startswith("~"):
        raise ValueError("'~' stands for no directory here: write ${HOME} in its place")
    absolute = str(directory / path)
    if "?" in absolute:
        raise ValueError(f"the path {absolute} has a '?', which no URL of a store can say: write another one")
    return f"{before}{absolute}{options}"


def with_options(url: str, options: Mapping[str, str]) -> str:
    """``url`` with more options, whatever letters they have."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(options)}" if options else url


def _split(url: str) -> tuple[str, str, str]:
    """What is before the path, the path, and the options with their ``?``; no path if the URL has none."""
    place, mark, options = url.partition("?")
    scheme, _, path = place.partition(":")
    before = f"{scheme}:"
    if scheme.startswith("sqlite") and path.startswith("///"):
        before, path = f"{before}///", path[3:]
        path = "" if path == ":memory:" or path.startswith("file:") else path
    elif path.startswith("//"):
        path = ""
    return before, path, mark + options
