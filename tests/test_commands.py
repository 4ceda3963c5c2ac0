"""Commands: frozen requests with ids that show what caused what."""

import pytest
from pydantic import ValidationError

from uno_actors.domain.commands import Command


class Deposit(Command[int]):
    amount: int


def test_command_cannot_be_changed() -> None:
    command = Deposit(amount=1)
    with pytest.raises(ValidationError, match="frozen"):
        command.amount = 2  # type: ignore[misc]


def test_command_refuses_fields_that_it_does_not_have() -> None:
    with pytest.raises(ValidationError, match="amuont"):
        Deposit(amount=1, amuont=2)  # type: ignore[call-arg]


def test_command_checks_the_types_of_its_fields() -> None:
    with pytest.raises(ValidationError, match="valid integer"):
        Deposit(amount="much")  # type: ignore[arg-type]


def test_each_command_has_its_own_id() -> None:
    ids = {Deposit(amount=1).command_id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in ids)


def test_none_as_id_means_a_new_id() -> None:
    ids = {Deposit(amount=1, command_id=None).command_id for _ in range(9)}
    assert len(ids) == 9
    assert all(len(each) == 32 for each in ids)
    first = Deposit(amount=1, command_id="mine", correlation_id=None, causation_id=None)
    assert (first.command_id, first.correlation_id, first.causation_id) == ("mine", None, None)


def test_schema_of_a_command_says_what_its_id_may_be() -> None:
    schema = Deposit.model_json_schema()["properties"]["command_id"]
    assert schema["anyOf"] == [{"minLength": 1, "type": "string"}, {"type": "null"}]
    read = Deposit.model_json_schema(mode="serialization")["properties"]["command_id"]
    assert (read["type"], read["minLength"]) == ("string", 1)


def test_a_bare_command_and_one_with_a_reply_type_are_both_commands() -> None:
    class Bare(Command):
        pass

    class Typed(Command[dict[str, int]]):
        pass

    assert isinstance(Bare(), Command)
    assert isinstance(Typed(), Command)


def test_command_survives_a_round_trip_through_json() -> None:
    command = Deposit(amount=5, correlation_id="first")
    assert Deposit.model_validate_json(command.model_dump_json()) == command
