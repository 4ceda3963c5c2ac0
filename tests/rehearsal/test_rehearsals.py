"""``uno-actors rehearse``: old and new code on the same log."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run_command
from tests.rehearsal.programs import contents, copied, fill, found, program

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old program, and beside it the backup of a store that it has filled."""
    directory = tmp_path_factory.mktemp("rehearsal")
    program(directory / "old")
    fill(directory / "old", f"lmdb:{directory / 'store'}")
    copied(directory / "store", directory / "backup")
    return directory / "old"


def rehearse(old: Path, new: Path, *options: str, code: int | None = None) -> dict[str, Any]:
    """The report of a rehearsal on the backup beside the old program."""
    url = f"lmdb:{old.parent / 'backup'}"
    ended = run_command(
        "rehearse", "till", "--store", url, "--old", str(old), "--new", str(new), "--json", *options
    )
    assert ended.returncode in ((0, 1) if code is None else (code,)), ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == (0 if report["equal"] else 1)
    return report


def example(report: dict[str, Any], of: str) -> str:
    return next(str(each["example"]) for each in report["findings"] if each["of"] == of)


APPLY = "        self.cents += event.cents\n"
ALL_TILLS, ALL_PAID = 3, 30


def test_equal_programs_are_equal_and_the_backup_is_left_as_it_was(old: Path) -> None:
    before = contents(old.parent / "backup")
    report = rehearse(old, old, "--commands", "100", code=0)
    assert report["findings"] == []
    assert contents(old.parent / "backup") == before
    compared = report["compared"]
    assert compared["streams"] > 2 * ALL_TILLS
    assert (compared["rows"], compared["views"]) == (3, 1)
    assert compared["commands"] == 18  # the rewards of 5 to 10 cents
    assert compared["snapshots"] >= ALL_TILLS


CHANGES: dict[str, tuple[list[tuple[str, str]], set[tuple[str, str, str, int]]]] = {
    "an apply_ method does otherwise": (
        [(APPLY, "        self.cents += event.cents + (event.cents == 7)\n")],
        {
            ("difference", "state differs", "Till.cents", ALL_TILLS),
            ("grave", "snapshot is wrong", "Till", ALL_TILLS),
        },
    ),
    "and its snapshots have another schema": (
        [
            (APPLY, "        self.cents += event.cents + (event.cents == 7)\n"),
            ("    lines: list[Line]\n", "    lines: list[Line]\n    schema_version = 2\n"),
        ],
        {
            ("difference", "state differs", "Till.cents", ALL_TILLS),
            ("note", "snapshot is ignored", "Till", ALL_TILLS),
        },
    ),
    "an event has lost its upcast": (
        [
            (
                "class Paid(DomainEvent):\n    cents: int\n",
                "class Paid(DomainEvent):\n    cents: int\n    till: str\n",
            )
        ],
        {
            ("grave", "cannot be read", "Paid v1", ALL_PAID),
            ("grave", "cannot be loaded", "Till", ALL_TILLS),
            ("difference", "view differs", "totals", 3),
        },
    ),
    "an event has a new field and an upcast": (
        [
            (
                "class Paid(DomainEvent):\n    cents: int\n",
                "class Paid(DomainEvent):\n    version: int = 2\n    cents: int\n    till: str\n",
            ),
            (
                "class Refunded(DomainEvent)",
                "from uno_actors import upcasts\n\n@upcasts(Paid, from_version=1)\n"
                "def named(payload): return payload | {'till': 'old'}\n\nclass Refunded(DomainEvent)",
            ),
        ],
        set(),
    ),
    "an event class is gone": (
        [
            ("class Refunded(DomainEvent)", "class Repaid(DomainEvent)"),
            ("Refunded(cents=command.cents)", "Repaid(cents=command.cents)"),
            ("apply_refunded(self, event: Refunded)", "apply_repaid(self, event: Repaid)"),
        ],
        {
            ("grave", "cannot be read", "Refunded v1", 1),
            ("grave", "cannot be loaded", "Till", 1),
        },
    ),
    "an apply_ method raises": (
        [(APPLY, "        assert event.cents != 9\n" + APPLY)],
        {("grave", "cannot be loaded", "Till", ALL_TILLS)},
    ),
    "an apply_ method is gone": (
        [("    def apply_refunded(self, event: Refunded)", "    def forget(self, event: Refunded)")],
        {("grave", "cannot be loaded", "Till", 1)},
    ),
    "an aggregate class has another name": (
        [("class Till(AggregateRoot)", "class Register(AggregateRoot)")],
        {("grave", "has no class any more", "Till", ALL_TILLS)},
    ),
    "and keeps the name of its type": (
        [
            ("class Till(AggregateRoot)", "class Register(AggregateRoot)"),
            ("    lines: list[Line]\n", "    aggregate_type = 'Till'\n    lines: list[Line]\n"),
        ],
        set(),
    ),
    "the state has a new field": (
        [("        self.cents = 0\n", "        self.cents = 0\n        self.currency = 'EUR'\n")],
        {
            ("difference", "state has a new field", "Till.currency", ALL_TILLS),
            ("note", "snapshot is ignored", "Till", ALL_TILLS),
        },
    ),
    "a field of a value in the state": (
        [("Line(event.cents, {", "Line(event.cents * 2, {")],
        {
            ("difference", "state differs", "Till.lines", ALL_TILLS),
            ("grave", "snapshot is wrong", "Till", ALL_TILLS),
        },
    ),
    "a projection counts otherwise": (
        [("before + event.cents)", "before + 1)")],
        {("difference", "view differs", "totals", 3)},
    ),
    "a projection has a new version": (
        [
            ("before + event.cents)", "before + 1)"),
            ("class Totals(Projection[Paid]):\n", "class Totals(Projection[Paid]):\n    version = 2\n"),
        ],
        {("note", "view differs, and is rebuilt as version 2", "totals", 3)},
    ),
    "a projection raises": (
        [("        before = await", "        assert event.cents != 9\n        before = await")],
        {
            ("grave", "view cannot count", "totals", 3),
            ("difference", "view differs", "totals", 3),
        },
    ),
    "a projection exits": (
        [
            (
                "        before = await",
                "        if event.cents == 9: raise SystemExit(3)\n        before = await",
            )
        ],
        {
            ("grave", "view cannot count", "totals", 3),
            ("difference", "view differs", "totals", 3),
        },
    ),
    "an apply method exits": (
        [(APPLY, "        if event.cents == 9: raise SystemExit(3)\n" + APPLY)],
        {("grave", "cannot be loaded", "Till", ALL_TILLS)},
    ),
    "a projection needs what only a system has": (
        [
            (
                "class Totals(Projection[Paid]):\n",
                "from typing import Annotated\nfrom uno_actors import Depends\n\n\n"
                "class Totals(Projection[Paid]):\n    rates: Annotated[dict[str, int], Depends(dict)]\n\n",
            )
        ],
        {("note", "view is not rehearsed", "totals", 1)},
    ),
    "the new code rolls dice": (
        [(APPLY, APPLY + "        import random; self.rate = random.random()\n")],
        {
            ("difference", "state is left to chance", "Till.rate", ALL_TILLS),
        },
    ),
    "a view is left to chance": (
        [("before + event.cents)", "before + event.cents + __import__('random').random())")],
        {("difference", "view is left to chance", "totals", 3)},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_found_with_its_weight_and_count(old: Path, tmp_path: Path, change: str) -> None:
    replaced, expected = CHANGES[change]
    assert found(rehearse(old, program(tmp_path / "new", *replaced))) == expected


COMMANDS: dict[str, tuple[str, tuple[str, str, str, int], str]] = {
    "rejected": (
        "        if command.points == 9:\n            raise CommandRejected('too many')\n",
        ("difference", "command is rejected", "Reward to Purse", 3),
        "rejected: too many by the new",
    ),
    "failing": (
        "        assert command.points != 9\n",
        ("grave", "command fails", "Reward to Purse", 3),
        "failed: AssertionError",
    ),
    "answered otherwise": (
        "        command = Reward(points=command.points + (command.points == 9))\n",
        ("difference", "command is answered otherwise", "Reward to Purse", 3),
        "accepted with Rewarded{'points': 9}, reply",
    ),
    "left to chance": (
        "        import random; command = Reward(points=random.getrandbits(60))\n",
        ("difference", "answer is left to chance", "Reward to Purse", 18),
        "two runs of the new code differ",
    ),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_commands_in_the_log_are_decided_again(old: Path, tmp_path: Path, kind: str) -> None:
    code, expected, text = COMMANDS[kind]
    line = "        self.register_event(Rewarded"
    new = program(tmp_path / "new", (line, code + line))
    report = rehearse(old, new, "--commands", "100")
    assert found(report) == {expected}
    assert text in example(report, "Reward to Purse")
    assert rehearse(old, new)["findings"] == []  # they are decided only if that is asked for


def test_the_event_at_which_states_part_is_named(old: Path, tmp_path: Path) -> None:
    changed = (APPLY, "        self.cents += event.cents + (event.cents == 7)\n")
    report = rehearse(old, program(tmp_path / "new", changed))
    text = example(report, "Till.cents")
    assert "from version 7 on (Paid v1 at position " in text
    assert "cents is 28 in the old code, 29 in the new" in text
    nested = ("Line(event.cents, {", "Line(event.cents + (event.cents == 4), {")
    report = rehearse(old, program(tmp_path / "newer", nested))
    assert "lines[3].cents is 4 in the old code, 5 in the new" in example(report, "Till.lines")


def test_a_class_may_move_to_another_module(old: Path, tmp_path: Path) -> None:
    line = "@dataclass\nclass Line:\n    cents: int\n    tags: set[str] = field(default_factory=set)\n"
    new = program(tmp_path / "new", (line, "from lines import Line\n"))
    (new / "lines.py").write_text(f"from dataclasses import dataclass, field\n\n{line}", encoding="utf-8")
    assert rehearse(old, new)["findings"] == []


def test_what_both_programs_leave_to_chance_is_no_difference(old: Path, tmp_path: Path) -> None:
    dice = (APPLY, APPLY + "        import random; self.rate = random.random()\n")
    both = program(tmp_path / "both", dice)
    url = f"lmdb:{old.parent / 'backup'}"
    ended = run_command("rehearse", "till", "-s", url, "--old", str(both), "--new", str(both), "--json")
    assert ("note", "state is left to chance", "Till.rate", ALL_TILLS) in found(json.loads(ended.stdout))


BESIDE_CHANCE: dict[str, tuple[tuple[str, str], tuple[str, str], tuple[str, str, str, int], str]] = {
    "a command": (
        ("points=command.points))", "points=command.points, label=__import__('uuid').uuid4().hex))"),
        ("points: int\n\n\nclass Purse", "points: int\n    label: str\n    of: str = 'x'\n\n\nclass Purse"),
        ("difference", "command is answered otherwise", "Reward to Purse", 18),
        "'of': 'x'",
    ),
    "a field of the state": (
        ("Line(event.cents, {", "Line([event.cents, __import__('random').random()], {"),
        ('.random()], {"paid"', '.random()], {"payed"'),
        ("difference", "state differs", "Till.lines", ALL_TILLS),
        "lines[0].tags is {'1', 'paid'} in the old code, {'1', 'payed'} in the new",
    ),
    "a row of a view": (
        (
            "before = await self.view.get((event.aggregate_id, 1), 0)\n",
            "before, _ = await self.view.get((event.aggregate_id, 1), (0, 0.0))\n",
        ),
        ("before + event.cents, ", "before + 1, "),
        ("difference", "view differs", "totals", 3),
        "row ('a', 1): [0] is 55 in the old code, 10 in the new",
    ),
}
"""A part that both programs leave to chance, a change of the new one beside it, and what is found."""


@pytest.mark.parametrize("of", BESIDE_CHANCE)
def test_what_is_left_to_chance_hides_no_difference_beside_it(old: Path, tmp_path: Path, of: str) -> None:
    chance, change, expected, text = BESIDE_CHANCE[of]
    shared = [chance]
    if of == "a command":
        shared.append(("points: int\n\n\nclass Purse", "points: int\n    label: str = ''\n\n\nclass Purse"))
        change = ("label: str = ''\n", "label: str = ''\n    of: str = 'x'\n")
    elif of == "a row of a view":
        shared.append(("before + event.cents)", "(before + event.cents, __import__('random').random()))"))
    before = program(tmp_path / "before", *shared)
    after = program(tmp_path / "after", *shared)
    code = (after / "till.py").read_text(encoding="utf-8")
    assert code.count(change[0]) == 1
    (after / "till.py").write_text(code.replace(*change), encoding="utf-8")
    for new, is_found in ((after, True), (before, False)):
        url = f"lmdb:{old.parent / 'backup'}"
        codes = ("--old", str(before), "--new", str(new), "--accept", "Till")
        ended = run_command("rehearse", "till", "-s", url, *codes, "--commands", "100", "--json")
        report = json.loads(ended.stdout)
        assert (expected in found(report)) == is_found, report
        assert report["equal"] != is_found
        if is_found:
            assert text in example(report, expected[2])


def test_a_snapshot_that_differs_from_a_replay_by_chance_alone_is_not_wrong(tmp_path: Path) -> None:
    dice = (APPLY, APPLY + "        import random; self.rate = random.random()\n")
    code, url = program(tmp_path / "code", dice), f"lmdb:{tmp_path / 'store'}"
    fill(code, url)
    ended = run_command("rehearse", "till", "-s", url, "--old", str(code), "--new", str(code), "--json")
    report = json.loads(ended.stdout)
    assert found(report) == {("note", "state is left to chance", "Till.rate", ALL_TILLS)}
    assert report["compared"]["snapshots"] > 0
    wrong = program(tmp_path / "wrong", dice, ("self.cents -= event.cents", "self.cents -= 3 * event.cents"))
    (wrong / "till.py").write_text((wrong / "till.py").read_text().replace("+= event.cents\n", "+= 1\n", 1))
    ended = run_command("rehearse", "till", "-s", url, "--old", str(code), "--new", str(wrong), "--json")
    assert ("grave", "snapshot is wrong", "Till", ALL_TILLS) in found(json.loads(ended.stdout))


def test_accepted_differences_do_not_count(old: Path, tmp_path: Path) -> None:
    new = program(tmp_path / "new", ("before + event.cents)", "before + 1)"))
    assert not rehearse(old, new, "--accept", "Till.cents")["equal"]
    report = rehearse(old, new, "--accept", "totals", code=0)
    assert found(report) == {("note", "view differs (accepted)", "totals", 3)}


def test_several_processes_find_the_same(old: Path, tmp_path: Path) -> None:
    new = program(
        tmp_path / "new",
        (APPLY, "        assert event.cents < 10\n        self.cents += event.cents + (event.cents == 7)\n"),
        ("before + event.cents)", "before + 1)"),
        ("class Refunded(DomainEvent)", "class Repaid(DomainEvent)"),
        ("Refunded(cents=command.cents)", "Repaid(cents=command.cents)"),
        ("apply_refunded(self, event: Refunded)", "apply_repaid(self, event: Repaid)"),
    )
    one, several = (rehearse(old, new, "--processes", number) for number in ("2", "6"))
    for report in (one, several):
        del report["compared"]["seconds"]
    assert one == several


def test_a_sample_and_a_period_limit_what_is_compared(old: Path, tmp_path: Path) -> None:
    new = program(tmp_path / "new", (APPLY, "        self.cents += event.cents + (event.cents == 7)\n"))
    report = rehearse(old, new, "--sample", "1")
    assert ("difference", "state differs", "Till.cents", 1) in found(report)
    assert report["compared"]["rows"] == 1
    assert rehearse(old, new, "--until", "2001-01-01", code=0)["compared"]["streams"] == 0
    assert rehearse(old, new, "--since", "2100-01-01", code=0)["compared"]["streams"] == 0
    all_of_it = rehearse(old, new, "--since", "2001-01-01", "--until", "2100-01-01")
    assert found(all_of_it) == found(rehearse(old, new))


def test_people_get_a_table_and_remedies(old: Path, tmp_path: Path) -> None:
    new = program(tmp_path / "new", ("before + event.cents)", "before + 1)"))
    url = f"lmdb:{old.parent / 'backup'}"
    ended = run_command("rehearse", "till", "-s", url, "--old", str(old), "--new", str(new))
    assert ended.returncode == 1
    assert "row ('a', 1): 55 in the old code, 10 in the new" in ended.stdout
    assert "raise its version, so that it is rebuilt" in ended.stdout
    assert "0 grave, 1 difference" in ended.stdout
    ended = run_command("rehearse", "till", "-s", url, "--old", str(old), "--new", str(old))
    assert ended.stdout.endswith("the new code does as the old one\n")


def test_fields_beyond_the_first_fifty_are_counted(old: Path, tmp_path: Path) -> None:
    fields = ("        self.cents = 0\n", "        self.cents = 0\n        self.make()\n")
    made = (
        "    def apply_refunded(self",
        "    def make(self):\n        for n in range(80): setattr(self, f'f{n}', %d)\n\n    def apply_refunded(self",
    )
    both = [program(tmp_path / str(n), fields, (made[0], made[1] % n)) for n in (1, 2)]
    url = f"lmdb:{old.parent / 'backup'}"
    ended = run_command("rehearse", "till", "-s", url, "--old", str(both[0]), "--new", str(both[1]), "--json")
    report = json.loads(ended.stdout)
    assert ("difference", "state differs in more fields", "Till", 30) in found(report)
    assert len(report["findings"]) == 52  # with the snapshots, which are ignored
