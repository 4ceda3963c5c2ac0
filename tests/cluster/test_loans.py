"""When an owner lends an aggregate, and to whom: the rules, as tables and against a simple model."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors.cluster.loans import Ledger, Terms, Verdict
from uno_actors.store.codec import StreamId

ALICE, BOB = StreamId("Account", "alice"), StreamId("Account", "bob")
TERMS = Terms(commands=3, span=1.0, seconds=10.0, harder=4, hardest=40, most=4)
SERVE, LEND, RENEW, RECALL = Verdict.SERVE, Verdict.LEND, Verdict.RENEW, Verdict.RECALL


def asked(ledger: Ledger, said: str, now: float = 0.0, step: float = 1.0) -> list[Verdict]:
    """What becomes of commands for one aggregate, each from the node of one letter; a dot is the own program."""
    found = []
    for number, letter in enumerate(said):
        at = now + number * step
        verdict = ledger.asked(ALICE, letter.strip("."), at)
        if verdict is LEND:
            ledger.lend(ALICE, at)
        elif verdict is RECALL:
            ledger.end(ALICE, at)
        found.append(verdict)
    return found


@pytest.mark.parametrize(
    ("said", "last"),
    [
        ("bbb", SERVE),  # not enough yet
        ("bbbb", LEND),
        ("bbbcbbb", SERVE),  # another node has asked
        ("bbb.bbb", SERVE),  # the program of the owner has asked
        ("bbcccc", SERVE),
        ("bb" + 12 * "c", SERVE),  # four times harder where others ask too
        ("bb" + 13 * "c", LEND),
        ("bcbcbcbcbcbc", SERVE),
        ("............", SERVE),
        ("bbbbb", RENEW),  # what was on its way, or comes after the time of the loan
        ("bbbbc", RECALL),
        ("bbbb.", RECALL),
        ("bbbb.b", SERVE),
        ("bbbb." + 12 * "b", SERVE),  # four times harder after a loan that ended soon
        ("bbbb." + 13 * "b", LEND),
    ],
)
def test_an_aggregate_is_lent_to_the_only_node_that_asks_for_it(said: str, last: Verdict) -> None:
    assert asked(Ledger(TERMS), said)[-1] is last


def test_commands_that_come_together_are_not_taken_for_those_of_the_only_node() -> None:
    ledger = Ledger(TERMS)
    assert set(asked(ledger, 100 * "b", step=0.009)) == {SERVE}
    assert asked(ledger, "b", now=1.0) == [LEND]


def test_a_loan_that_is_not_renewed_is_forgotten() -> None:
    ledger = Ledger(TERMS)
    assert asked(ledger, "bbbb")[-1] is LEND
    assert asked(ledger, "b", now=3 + 19.9) == [RENEW]
    assert asked(ledger, "c", now=3 + 19.9 + 20) == [SERVE]
    assert not ledger.lent


def test_after_a_loan_that_has_lasted_the_next_one_is_not_harder_to_get() -> None:
    ledger = Ledger(TERMS)
    asked(ledger, "bbbb")
    asked(ledger, "bb", now=20, step=10)
    assert asked(ledger, ".bbbb", now=3 + TERMS.lasting) == [RECALL, SERVE, SERVE, SERVE, LEND]


def test_loans_that_end_soon_come_to_be_rare_but_never_impossible() -> None:
    ledger = Ledger(TERMS)
    needed, now = [], 0.0
    for _ in range(5):
        count = 0
        while asked(ledger, "b", now) != [LEND]:
            count, now = count + 1, now + 1
        needed.append(count)
        assert asked(ledger, ".", now + 1) == [RECALL]
        now += 2
    assert needed == [3, 12, 40, 40, 40]


def test_no_more_aggregates_are_lent_than_allowed_until_loans_have_ended() -> None:
    ledger = Ledger(TERMS)
    streams = [StreamId("Account", str(number)) for number in range(6)]

    def ask_for(stream: StreamId, now: float) -> Verdict:
        verdict = ledger.asked(stream, "b", now)
        if verdict is LEND:
            ledger.lend(stream, now)
        return verdict

    lent = [[ask_for(stream, now) for now in range(4)][-1] for stream in streams]
    assert lent == [LEND, LEND, LEND, LEND, SERVE, SERVE]
    assert ask_for(streams[0], 20) is RENEW
    assert ask_for(streams[4], 25) is LEND
    assert list(ledger.lent) == [streams[0], streams[4]]


NODES = ["", "b", "c"]


@given(
    st.lists(
        st.tuples(st.sampled_from(NODES), st.integers(0, 7), st.floats(0, 8), st.booleans()), max_size=200
    ),
    st.sampled_from([TERMS, replace(TERMS, commands=1, span=0.0), replace(TERMS, most=1)]),
)
def test_what_is_lent_was_asked_by_that_node_alone_and_memory_is_bounded(
    commands: list[tuple[str, int, float, bool]], terms: Terms
) -> None:
    ledger, now = Ledger(terms), 0.0
    history: dict[StreamId, list[str]] = {}
    holders: dict[StreamId, tuple[str, float]] = {}
    for node, number, pause, carried_out in commands:
        now += pause
        stream = StreamId("Account", str(number))
        history.setdefault(stream, []).append(node)
        verdict = ledger.asked(stream, node, now)
        holder, until = holders.get(stream, ("", 0.0))
        if now < until:
            assert verdict is (RENEW if node == holder else RECALL)
        else:
            assert verdict in {SERVE, LEND}
        if verdict is LEND:
            assert node
            assert history[stream][-terms.commands - 1 :] == [node] * (terms.commands + 1)
            if carried_out:
                ledger.lend(stream, now)
        if verdict is RENEW or (verdict is LEND and carried_out):
            holders[stream] = (node, now + terms.remembered)
        elif verdict is RECALL:
            ledger.end(stream, now)
            del holders[stream]
        assert len(ledger.rows) <= terms.most
        assert len(ledger.lent) <= terms.most
        assert not ledger.rows.keys() & ledger.lent.keys()
