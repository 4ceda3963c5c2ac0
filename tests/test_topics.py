"""Topics, patterns, and the trie that finds patterns by topic."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tracing import lines_run_by
from uno_actors.errors import InvalidTopic
from uno_actors.topics import TopicPattern, TopicTrie, check_topic

MATCHES = [
    # pattern, topic, whether it matches
    ("accounts.deposited", "accounts.deposited", True),
    ("accounts.deposited", "accounts.withdrawn", False),
    ("accounts.deposited", "accounts", False),
    ("accounts.deposited", "accounts.deposited.twice", False),
    ("accounts.deposited", "Accounts.deposited", False),  # case counts
    ("*", "accounts", True),
    ("*", "accounts.deposited", False),  # one token, not any text
    ("accounts.*", "accounts.deposited", True),
    ("accounts.*", "accounts", False),
    ("accounts.*", "accounts.deposited.twice", False),
    ("*.deposited", "accounts.deposited", True),
    ("*.deposited", "deposited", False),
    ("a.*.c", "a.b.c", True),
    ("a.*.c", "a.b.d", False),
    ("a.*.c", "a.c", False),
    ("*.*", "a.b", True),
    ("*.*", "a", False),
    (">", "a", True),
    (">", "a.b.c", True),
    ("a.>", "a.b", True),
    ("a.>", "a.b.c.d", True),
    ("a.>", "a", False),  # one token or more
    ("a.>", "b.a", False),
    ("*.>", "a.b", True),
    ("*.>", "a", False),
    ("a.*.>", "a.b.c", True),
    ("a.*.>", "a.b", False),
    ("flüge.*", "flüge.jfk", True),
]

MALFORMED = [
    # text, reason, whether it is wrong as a pattern too
    ("", "empty token", True),
    (".", "empty token", True),
    ("a.", "empty token", True),
    (".a", "empty token", True),
    ("a..b", "empty token", True),
    ("a b", "white space", True),
    ("a.b\n", "white space", True),
    ("a.\u00a0", "white space", True),
    ("a.b*", "wildcard", True),
    ("a.*b.c", "wildcard", True),
    ("a.**", "wildcard", True),
    ("a.b>", "wildcard", True),
    ("a.>>", "wildcard", True),
    ("*>", "wildcard", True),
    ("a.*", "wildcard", False),
    ("*", "wildcard", False),
    ("a.>", "wildcard", False),
]


@pytest.mark.parametrize(("pattern", "topic", "wanted"), MATCHES)
def test_pattern_matches_by_the_subject_rules_of_nats(pattern: str, topic: str, wanted: bool) -> None:
    compiled = TopicPattern(pattern)
    trie: TopicTrie[str] = TopicTrie()
    trie.add(compiled, "value")

    assert compiled.matches(topic) is wanted
    assert trie.match(topic) == (["value"] if wanted else [])


@pytest.mark.parametrize(("text", "reason"), [(text, reason) for text, reason, bad in MALFORMED if bad])
def test_malformed_pattern_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidTopic, match=reason) as caught:
        TopicPattern(text)
    assert caught.value.text == text
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["a.>.b", ">.a", ">.>", "a.>.*"])
def test_rest_wildcard_is_refused_anywhere_but_last(text: str) -> None:
    with pytest.raises(InvalidTopic, match="'>' must be the last token"):
        TopicPattern(text)


@pytest.mark.parametrize(("text", "reason"), [(text, reason) for text, reason, _ in MALFORMED])
def test_malformed_topic_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidTopic, match=reason):
        check_topic(text)


def test_error_explains_the_syntax_of_patterns() -> None:
    with pytest.raises(
        InvalidTopic, match=r"invalid topic pattern 'a\.\.b': empty token\. .*'\*' stands for one"
    ):
        TopicPattern("a..b")


@pytest.mark.parametrize("topic", ["a", "a.b", "flights.jfk.departed", "über.größe", "a-b_c.d/e", "1.2"])
def test_valid_topic_is_returned_unchanged(topic: str) -> None:
    assert check_topic(topic) == topic


def test_patterns_are_equal_by_their_text() -> None:
    assert TopicPattern("a.*") == TopicPattern("a.*")
    assert TopicPattern("a.*") != TopicPattern("a.>")
    assert TopicPattern("a.*") != "a.*"
    assert len({TopicPattern("a.*"), TopicPattern("a.*"), TopicPattern("a.b")}) == 2
    assert repr(TopicPattern("a.*")) == "TopicPattern('a.*')"


# --- the trie ----------------------------------------------------------------------------------------------


def test_trie_finds_every_value_of_every_matching_pattern() -> None:
    trie: TopicTrie[int] = TopicTrie()
    for value, pattern in enumerate(["a.b", "a.*", "a.>", "*.b", ">", "b.>", "a.b", "a", "a.b.c"]):
        trie.add(TopicPattern(pattern), value)
    assert sorted(trie.match("a.b")) == [0, 1, 2, 3, 4, 6]
    assert sorted(trie.match("a")) == [4, 7]
    assert trie.match("") == [4]


def test_one_value_may_be_stored_under_one_pattern_twice() -> None:
    trie: TopicTrie[str] = TopicTrie()
    pattern = TopicPattern("a.*")
    trie.add(pattern, "value")
    trie.add(pattern, "value")
    assert trie.match("a.b") == ["value", "value"]
    trie.remove(pattern, "value")
    assert trie.match("a.b") == ["value"]


def test_removing_prunes_branches_that_are_no_longer_needed() -> None:
    trie: TopicTrie[str] = TopicTrie()
    assert trie.branches() == set()
    for text in ["a.b.c.d", "a.b", "a.*.>", "x.y"]:
        trie.add(TopicPattern(text), text)

    trie.remove(TopicPattern("a.b.c.d"), "a.b.c.d")
    assert trie.branches() == {"a", "a.b", "a.*", "a.*.>", "x", "x.y"}  # the branch c.d is gone
    assert trie.match("a.b") == ["a.b"]  # what stood on the way stays

    trie.remove(TopicPattern("a.b"), "a.b")
    trie.remove(TopicPattern("x.y"), "x.y")
    assert trie.match("a.b.c") == ["a.*.>"]
    assert trie.branches() == {"a", "a.*", "a.*.>"}

    trie.remove(TopicPattern("a.*.>"), "a.*.>")
    assert trie.branches() == set()


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("a.b", "other"),  # a value that is not there
        ("a", "value"),  # a pattern on the way to another
        ("a.b.c", "value"),  # one beyond it
        ("a.*", "value"),  # one that matches the same topics
    ],
)
def test_removing_what_was_never_added_is_an_error_and_changes_nothing(pattern: str, value: str) -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add(TopicPattern("a.b"), "value")
    with pytest.raises(KeyError, match=pattern.replace("*", r"\*")):
        trie.remove(TopicPattern(pattern), value)
    assert trie.match("a.b") == ["value"]


# Few tokens, so that patterns and topics meet often.
TOPICS = st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map(".".join)
PATTERNS = st.builds(
    lambda tokens, rest: TopicPattern(".".join([*tokens, *rest])),
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4),
    st.sampled_from([[], [">"]]),
) | st.just(TopicPattern(">"))


@given(
    patterns=st.lists(PATTERNS, max_size=30), topics=st.lists(TOPICS, min_size=1, max_size=10), data=st.data()
)
@settings(max_examples=150)
def test_trie_agrees_with_matching_each_pattern_in_turn(
    patterns: list[TopicPattern], topics: list[str], data: st.DataObject
) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for value, pattern in enumerate(patterns):
        trie.add(pattern, value)
    filed = dict(enumerate(patterns))
    if patterns:
        for value in data.draw(st.sets(st.sampled_from(range(len(patterns)))), label="removed"):
            trie.remove(filed.pop(value), value)

    for topic in topics:
        wanted = [value for value, pattern in filed.items() if pattern.matches(topic)]
        assert sorted(trie.match(topic)) == wanted

    for value, pattern in filed.items():
        trie.remove(pattern, value)
    assert trie.branches() == set()


@given(topic=TOPICS)
@settings(max_examples=50)
def test_topic_is_a_pattern_that_matches_itself_alone(topic: str) -> None:
    assert TopicPattern(topic).matches(topic)
    assert not TopicPattern(topic).matches(topic + ".a")


def test_a_lookup_follows_only_branches_that_match_the_topic() -> None:
    trie: TopicTrie[int] = TopicTrie()
    for number in range(1_000):
        trie.add(TopicPattern(f"flights.a{number}.*"), number)
    found: list[int] = []
    lines = lines_run_by(lambda: found.extend(trie.match("flights.a7.departed")))
    assert found == [7]
    assert lines <= 60  # three lookups at each of at most four nodes; there are 2,002 nodes
