"""Topics and the patterns that select them.

A topic is a dotted name such as ``users.created``. In a pattern ``*`` stands for exactly one token and a
trailing ``>`` for one or more, as in NATS subjects (https://docs.nats.io/nats-concepts/subjects), so that a
pattern means the same on one machine and on a cluster.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Generic, TypeVar

from uno_actors.errors import InvalidTopic

ONE_TOKEN = "*"  # noqa: S105 - a wildcard, not a password
ALL_THE_REST = ">"

V = TypeVar("V")


@lru_cache(maxsize=4096)  # every event is checked, and most programs have few topics
def check_topic(topic: str) -> str:
    """Return ``topic`` unchanged if events may carry it.

    Raises:
        InvalidTopic: It has an empty token, white space or a wildcard.
    """
    for token in _tokens(topic, "topic"):
        if ONE_TOKEN in token or ALL_THE_REST in token:
            raise InvalidTopic(topic, "topic", f"wildcard in token {token!r}; wildcards belong to patterns")
    return topic


class TopicPattern:
    """A compiled topic pattern: ``accounts.*``, ``*.created``, ``flights.jfk.>``.

    Args:
        text: The pattern as written.

    Raises:
        InvalidTopic: It has an empty token, white space, or a wildcard that is not a whole token; or a ``>``
            that is not last.
    """

    __slots__ = ("text", "tokens")

    def __init__(self, text: str) -> None:
        tokens = _tokens(text, "topic pattern")
        for place, token in enumerate(tokens, start=1):
            if len(token) > 1 and (ONE_TOKEN in token or ALL_THE_REST in token):
                raise InvalidTopic(
                    text, "topic pattern", f"a wildcard must be a whole token, found {token!r}"
                )
            if token == ALL_THE_REST and place < len(tokens):
                raise InvalidTopic(text, "topic pattern", "'>' must be the last token")
        self.text = text
        self.tokens = tokens

    def matches(self, topic: str) -> bool:
        """Whether this pattern selects ``topic``."""
        tokens = topic.split(".")
        for place, wanted in enumerate(self.tokens):
            if place == len(tokens):
                return False
            if wanted == ALL_THE_REST:
                return True
            if wanted not in (ONE_TOKEN, tokens[place]):
                return False
        return len(tokens) == len(self.tokens)

    def __repr__(self) -> str:
        return f"TopicPattern({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicPattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class TopicTrie(Generic[V]):
    """Values stored under topic patterns and found by topic.

    The cost of a lookup depends on the tokens of the topic and on the matches, not on the number of patterns: only
    branches that match the topic so far are followed.
    """

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def add(self, pattern: TopicPattern, value: V) -> None:
        """Store ``value`` under ``pattern``; a value may have several patterns."""
        node = self._root
        for token in pattern.tokens:
            node = node.children.setdefault(token, _Node())
        node.values.append(value)

    def remove(self, pattern: TopicPattern, value: V) -> None:
        """Undo one ``add`` of the same pattern and value.

        Raises:
            KeyError: There is none.
        """
        path = [self._root]
        for token in pattern.tokens:
            child = path[-1].children.get(token)
            if child is None:
                raise KeyError(pattern.text)
            path.append(child)
        try:
            path[-1].values.remove(value)
        except ValueError:
            raise KeyError(pattern.text) from None
        for parent, token, node in reversed(list(zip(path, pattern.tokens, path[1:], strict=False))):
            if node.values or node.children:
                break
            del parent.children[token]

    def match(self, topic: str) -> list[V]:
        """The values of all patterns that match ``topic``, in no particular order."""
        return list(_found(self._root, topic.split("."), 0))

    def branches(self) -> frozenset[str]:
        """The beginnings of patterns that the trie keeps: of ``a.*`` alone ``a`` and ``a.*``."""
        return frozenset(_branches(self._root, ()))


class _Node(Generic[V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: list[V] = []


def _branches(node: _Node[Any], above: tuple[str, ...]) -> Iterator[str]:
    for token, child in node.children.items():
        path = (*above, token)
        yield ".".join(path)
        yield from _branches(child, path)


def _found(node: _Node[V], tokens: list[str], place: int) -> Iterator[V]:
    if place == len(tokens):
        yield from node.values
        return
    if (rest := node.children.get(ALL_THE_REST)) is not None:
        yield from rest.values
    if (any_token := node.children.get(ONE_TOKEN)) is not None:
        yield from _found(any_token, tokens, place + 1)
    if (same := node.children.get(tokens[place])) is not None:
        yield from _found(same, tokens, place + 1)


def _tokens(text: str, what: str) -> tuple[str, ...]:
    tokens = tuple(text.split("."))
    for token in tokens:
        if not token:
            raise InvalidTopic(text, what, "empty token")
        if any(character.isspace() for character in token):
            raise InvalidTopic(text, what, f"white space in token {token!r}")
    return tokens
