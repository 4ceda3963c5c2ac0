"""Commands that wait until another node has let go of their aggregate: in order, not too long, not too many."""

from tests.waiting import ManualClock
from uno_actors.aggregates.actor import CAPACITY
from uno_actors.cluster.handovers import Handovers
from uno_actors.store.codec import StreamId

ALICE, BOB = StreamId("Account", "alice"), StreamId("Account", "bob")


class Waiting:
    """Commands with the numbers of those that have been delivered, in order."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.handovers = Handovers(self.clock)
        self.delivered: list[int] = []

    def hold(self, number: int, seconds: float = 30.0, *, returned: bool = False) -> None:
        self.handovers.hold(ALICE, lambda: self.delivered.append(number), seconds, returned=returned)


def test_commands_that_the_other_node_has_sent_back_come_before_those_that_were_not_sent_there() -> None:
    waiting = Waiting()
    waiting.handovers.begin(ALICE, 2.0)
    for number, returned in enumerate([False, True, False, True]):
        waiting.hold(number, returned=returned)
    assert waiting.handovers.waiting == 4
    waiting.handovers.end(BOB)
    assert waiting.delivered == []
    waiting.handovers.end(ALICE)
    assert waiting.delivered == [1, 3, 0, 2]
    assert ALICE not in waiting.handovers
    waiting.clock.advance(10)
    assert waiting.delivered == [1, 3, 0, 2]


def test_commands_wait_no_longer_than_allowed_and_than_half_of_their_time() -> None:
    waiting = Waiting()
    waiting.handovers.begin(ALICE, 2.0)
    waiting.hold(1)
    waiting.clock.advance(0.5)
    waiting.hold(2, seconds=1.0)
    waiting.hold(3, seconds=2.0)
    waiting.clock.advance(0.49)
    assert waiting.delivered == []
    waiting.clock.advance(0.02)
    assert waiting.delivered == [1, 2, 3]
    waiting.handovers.begin(ALICE, 2.0)
    waiting.hold(4)
    waiting.clock.advance(1.99)
    waiting.handovers.begin(ALICE, 2.0)  # it has begun already
    waiting.clock.advance(0.02)
    assert waiting.delivered == [1, 2, 3, 4]


def test_no_more_commands_wait_than_in_a_mailbox() -> None:
    waiting = Waiting()
    waiting.handovers.begin(ALICE, 2.0)
    for number in range(CAPACITY):
        waiting.hold(number)
    assert waiting.handovers.waiting == CAPACITY
    waiting.hold(CAPACITY)
    assert waiting.delivered == list(range(CAPACITY + 1))
    assert waiting.handovers.waiting == 0
