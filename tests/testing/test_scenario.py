import pytest

from uno_actors import AggregateRoot, Command, CommandRejected, DomainEvent, MissingApply, handles
from uno_actors.errors import EventNotSerializable, UnknownCommand
from uno_actors.testing import given


class Filled(DomainEvent):
    litres: int
    topic: str | None = "tanks.filled"


class Emptied(DomainEvent):
    litres: int
    by: str = "nobody"


class Leaked(DomainEvent):
    """An event that no tank applies."""


class Fill(Command[int]):
    litres: int


class Empty(Command[int]):
    litres: int
    by: str = "nobody"


class Paint(Command[None]):
    colour: object


class Unheard(Command[None]):
    pass


class Tooled(Exception):
    pass


class OutOfRange(CommandRejected):
    pass


class Tank(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.litres = 0
        self.colour: object = "grey"

    @handles
    def fill(self, command: Fill) -> int:
        if command.litres < 0:
            raise OutOfRange("litres must not be negative")
        self.register_event(Filled(litres=command.litres))
        return self.litres

    @handles
    def empty(self, command: Empty) -> int:
        self.register_event(Emptied(litres=command.litres, by=command.by))
        if self.litres < 0:
            raise CommandRejected("not so much in it")
        return self.litres

    @handles
    def paint(self, command: Paint) -> None:
        self.colour = command.colour  # a mistake: no event tells of it

    def apply_filled(self, event: Filled) -> None:
        self.litres += event.litres

    def apply_emptied(self, event: Emptied) -> None:
        self.litres -= event.litres


FULL = given(Tank, Filled(litres=10))


def test_a_scenario_passes_if_events_reply_and_state_are_as_expected() -> None:
    then = FULL.when(Empty(litres=4, by="ann")).then(Emptied(litres=4, by="ann")).replies(6).leaves(litres=6)
    assert then.aggregate.litres == 6
    (emptied,) = then.events
    assert (emptied.aggregate_id, emptied.aggregate_version) == ("test", 2)


def test_a_new_aggregate_has_no_past() -> None:
    given(Tank).when(Fill(litres=1)).then(Filled).replies(1)


def test_several_commands_follow_one_another() -> None:
    given(Tank).when(Fill(litres=5), Empty(litres=5)).then(Filled(litres=5), Emptied(litres=5)).replies(0)


def test_one_scenario_can_continue_in_several_ways() -> None:
    FULL.when(Empty(litres=10)).leaves(litres=0)
    FULL.when(Fill(litres=1)).leaves(litres=11)


def test_a_rejection_ends_the_scenario_and_leaves_no_trace() -> None:
    then = FULL.when(Fill(litres=1), Empty(litres=12), Fill(litres=100))
    then.then(Filled(litres=1), CommandRejected("not so much in it")).leaves(litres=11)
    assert then.reply is None


@pytest.mark.parametrize("expected", [OutOfRange("litres must not be negative"), OutOfRange(), OutOfRange])
def test_a_rejection_may_be_expected_loosely(expected: CommandRejected) -> None:
    FULL.when(Fill(litres=-1)).then(expected)


@pytest.mark.parametrize(
    "expected", [OutOfRange("too much"), CommandRejected("litres must not be negative"), Filled(litres=-1)]
)
def test_another_rejection_is_a_difference(expected: CommandRejected) -> None:
    with pytest.raises(AssertionError, match="OutOfRange\\('litres must not be negative'\\)"):
        FULL.when(Fill(litres=-1)).then(expected)


def test_a_difference_shows_both_sides_and_the_fields() -> None:
    with pytest.raises(AssertionError) as caught:
        FULL.when(Fill(litres=1), Empty(litres=4)).then(Filled(litres=1), Emptied(litres=5, by="ann"), Filled)
    assert str(caught.value) == (
        "Tank 'test', given Filled(litres=10), when Fill(litres=1), Empty(litres=4, by='nobody')\n"
        "  (- expected, + found)\n"
        "    Filled(litres=1)\n"
        "  - Emptied(litres=5, by='ann')\n"
        "  + Emptied(litres=4, by='nobody')   (litres is 4, expected 5, by is 'nobody', expected 'ann')\n"
        "  - Filled"
    )


def test_an_unexpected_event_is_a_difference() -> None:
    with pytest.raises(AssertionError, match=r"\+ Filled\(litres=1\)"):
        FULL.when(Fill(litres=1)).then()


def test_metadata_is_compared_where_it_is_given() -> None:
    FULL.when(Fill(litres=1)).then(Filled(litres=1, topic="tanks.filled"))
    with pytest.raises(AssertionError, match="topic is 'tanks.filled', expected 'tanks.other'"):
        FULL.when(Fill(litres=1)).then(Filled(litres=1, topic="tanks.other"))


def test_another_type_is_a_difference() -> None:
    with pytest.raises(AssertionError, match="- Emptied\n  \\+ Filled"):
        FULL.when(Fill(litres=1)).then(Emptied)


def test_wrong_replies_and_attributes_are_reported() -> None:
    then = FULL.when(Fill(litres=1))
    with pytest.raises(AssertionError, match="expected the reply 12, found 11"):
        then.replies(12)
    with pytest.raises(AssertionError, match="litres is 11, expected 12"):
        then.leaves(litres=12)
    with pytest.raises(AssertionError, match="expected the reply 1, found OutOfRange"):
        FULL.when(Fill(litres=-1)).replies(1)


def test_state_changed_without_an_event_is_found() -> None:
    with pytest.raises(
        AssertionError, match="colour is 'red' but 'grey' after a replay. Change state in apply"
    ):
        FULL.when(Paint(colour="red"))


def test_objects_that_equal_only_themselves_are_not_mistaken_for_a_change() -> None:
    class Odd(Tank):
        aggregate_type = "Tank"

        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.colour = object()

    given(Odd).when(Fill(litres=1)).then(Filled)


def test_events_that_cannot_be_recorded_are_found() -> None:
    class Held(DomainEvent):
        what: object

    class Hold(Command[None]):
        pass

    class Hand(AggregateRoot):
        @handles
        def hold(self, command: Hold) -> None:
            self.register_event(Held(what=object()))

        def apply_held(self, event: Held) -> None: ...

    with pytest.raises(EventNotSerializable):
        given(Hand).when(Hold())


def test_a_past_that_cannot_be_applied_is_refused() -> None:
    with pytest.raises(MissingApply):
        given(Tank, Leaked())


def test_errors_other_than_rejections_are_raised() -> None:
    with pytest.raises(UnknownCommand):
        FULL.when(Unheard())


def test_a_rejection_must_be_the_last_expectation() -> None:
    with pytest.raises(ValueError, match="give it last"):
        FULL.when(Fill(litres=1)).then(CommandRejected(), Filled)
