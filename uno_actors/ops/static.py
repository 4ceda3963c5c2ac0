"""The files of the page, as a browser gets them: all are in the package, and nothing else can be asked for."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load and run: its own files, and no code or style inside of a document."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""Headers of every answer."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the page.

    Attributes:
        kind: Its content type.
        content: Its bytes.
        tag: Changes with its content.
    """

    kind: str
    content: bytes
    tag: str


@cache
def page_files() -> dict[str, File]:
    """The files by name; read once. A name that is not among them does not exist."""
    found = {}
    for path in files("uno_actors.ops").joinpath("page").iterdir():
        kind = KINDS.get(path.name.rpartition(".")[2])
        if kind is not None:
            content = path.read_bytes()
            found[path.name] = File(kind, content, f'"{sha256(content).hexdigest()[:16]}"')
    return found
