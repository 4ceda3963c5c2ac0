"""Changing a running tree into another one: children that are the same in both keep running."""

import asyncio
from pathlib import Path
from typing import Any

import configured
import pytest
from typing_extensions import override

from uno_actors import Actor, ActorSystem, InvalidConfig, Supervisor, SupervisorGaveUp
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.supervision.reload import Change, Difference, difference
from uno_actors.supervision.spec import ChildSpec

# --- the difference ----------------------------------------------------------------------------------------


class Reloaded(Actor):
    pass


def a_tree(*children: Any, name: str = "s", **rules: Any) -> Supervisor:
    return Supervisor(name, children, **rules)


def an_actor(name: str, **options: Any) -> ChildSpec:
    return ChildSpec(Reloaded, name, **options)


A, B, C = an_actor("a"), an_actor("b"), an_actor("c")
INNER = ChildSpec(a_tree(A, name="inner"))
MORE = ChildSpec(a_tree(A, B, name="inner"))

DIFFERENCES: list[tuple[str, list[Supervisor], list[Supervisor], Difference]] = [
    ("nothing", [a_tree(A, B)], [a_tree(A, B)], Difference()),
    ("a new child", [a_tree(A)], [a_tree(A, B)], Difference((), (), (Change(a_tree(A, B), (), (B,)),))),
    ("a child is gone", [a_tree(A, B)], [a_tree(B)], Difference((), (), (Change(a_tree(B), ("a",)),))),
    (
        "a child has changed",
        [a_tree(A, B)],
        [a_tree(an_actor("a", shutdown=1), B)],
        Difference(
            (),
            (),
            (Change(a_tree(an_actor("a", shutdown=1), B), ("a",), (an_actor("a", shutdown=1),)),),
        ),
    ),
    (
        "other rules, and no child is disturbed",
        [a_tree(A)],
        [a_tree(A, max_restarts=9)],
        Difference((), (), (Change(a_tree(A, max_restarts=9)),)),
    ),
    ("another order", [a_tree(A, B)], [a_tree(B, A)], Difference((), (), (Change(a_tree(B, A)),))),
    (
        "below a nested supervisor",
        [a_tree(INNER, C)],
        [a_tree(MORE, C)],
        Difference((), (), (Change(a_tree(MORE, C)), Change(a_tree(A, B, name="inner"), (), (B,)))),
    ),
    (
        "a nested supervisor whose own place has changed",
        [a_tree(INNER)],
        [a_tree(ChildSpec(INNER.run, shutdown=3))],
        Difference(
            (),
            (),
            (
                Change(
                    a_tree(ChildSpec(INNER.run, shutdown=3)), ("inner",), (ChildSpec(INNER.run, shutdown=3),)
                ),
            ),
        ),
    ),
    (
        "supervisors under the system",
        [a_tree(name="old"), a_tree(name="both")],
        [a_tree(name="both"), a_tree(name="new")],
        Difference(("old",), (a_tree(name="new"),), ()),
    ),
    (
        "from one supervisor to another",
        [a_tree(A), a_tree(name="t")],
        [a_tree(), a_tree(A, name="t")],
        Difference((), (), (Change(a_tree(), ("a",)), Change(a_tree(A, name="t"), (), (A,)))),
    ),
]


@pytest.mark.parametrize(("what", "old", "new", "wanted"), DIFFERENCES, ids=[case[0] for case in DIFFERENCES])
def test_only_children_that_differ_are_stopped_and_started(
    what: str, old: list[Supervisor], new: list[Supervisor], wanted: Difference
) -> None:
    assert difference(old, new) == wanted


# --- in a running system -----------------------------------------------------------------------------------


class Witness(Actor):
    """Records when it starts and stops."""

    told: list[str] = []  # noqa: RUF012 - tests look at it

    def __init__(self, name: str, fails: bool = False) -> None:
        super().__init__()
        self.name = name
        self.fails = fails

    @override
    def on_start(self) -> None:
        if self.fails:
            raise OSError("not today")
        self.told.append(f"+{self.name}")

    @override
    def on_receive(self, message: object) -> None:
        raise ValueError(message)

    @override
    def on_stop(self) -> None:
        self.told.append(f"-{self.name}")


BEFORE = """\
[[handlers]]
name = "audit"
handler = "configured:audit"
[[supervisors]]
name = "s"
  [[supervisors.actors]]
  name = "a"
  actor = "test_reload:Witness"
  args = ["a"]
  [[supervisors.actors]]
  name = "b"
  actor = "test_reload:Witness"
  args = ["b"]
  [[supervisors.supervisors]]
  name = "inner"
    [[supervisors.supervisors.actors]]
    name = "c"
    actor = "test_reload:Witness"
    args = ["c"]
"""


ONE_MORE = """\
    [[supervisors.supervisors.actors]]
    name = "d"
    actor = "test_reload:Witness"
    args = ["d"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Witness.told.clear()
    path = tmp_path / "system.toml"
    write(path, BEFORE)
    return path


witness = Witness.told


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_unchanged_children_keep_running(path: Path) -> None:
    async with ActorSystem.from_config(path) as system:
        assert witness == ["+a", "+b", "+c"]
        witness.clear()
        same = system.actor("a")
        text = BEFORE.replace('["b"]', '["b2"]').replace('name = "s"', 'name = "s"\nmax_restarts = 9')
        write(path, text + ONE_MORE)
        reloaded = await system.reload(path)
        assert (reloaded.stopped, reloaded.started, dict(reloaded.failed)) == (("b",), ("b", "d"), {})
        assert witness == ["-b", "+b2", "+d"]
        assert system.actor("a") is same
        names = [node.name for node in system.tree().walk()]
        assert names == ["system", "handlers", "audit", "s", "a", "b", "inner", "c", "d"]
        again = await system.reload(path)
        assert (again.stopped, again.started) == ((), ())
        write(path, "")
        gone = await system.reload(path)
        assert sorted(gone.stopped) == ["audit", "s"]
        assert [node.name for node in system.tree().walk()] == ["system", "handlers"]
        assert witness[-4:] == ["-d", "-c", "-b2", "-a"]
        write(path, BEFORE)
        witness.clear()
        await system.reload(path)
        assert witness == ["+a", "+b", "+c"]


async def test_an_invalid_file_changes_nothing(path: Path) -> None:
    async with ActorSystem.from_config(path) as system:
        before = [(node.name, node.restarts) for node in system.tree().walk()]
        same = system.actor("a")
        write(path, BEFORE + "colour = 3\n")
        with pytest.raises(InvalidConfig):
            await system.reload(path)
        assert [(node.name, node.restarts) for node in system.tree().walk()] == before
        assert system.actor("a") is same


async def test_a_child_that_cannot_be_started_is_reported_and_tried_again(path: Path) -> None:
    async with ActorSystem.from_config(path) as system:
        witness.clear()
        text = BEFORE.replace('args = ["b"]', 'args = ["b"]\n  kwargs = { fails = true }')
        write(path, text)
        reloaded = await system.reload(path)
        assert (reloaded.stopped, reloaded.started) == (("b",), ())
        assert "not today" in str(reloaded.failed["b"])
        assert system.actor("a") is not None
        assert system.actor("b") is None
        again = await system.reload(path)
        assert (again.stopped, again.started, list(again.failed)) == ((), (), ["b"])
        write(path, BEFORE)
        witness.clear()
        mended = await system.reload(path)
        assert (mended.started, witness) == (("b",), ["+b"])


async def test_a_handler_continues_at_its_checkpoint_with_other_options(path: Path) -> None:
    configured.handled.clear()
    async with ActorSystem.from_config(path) as system:
        shop = system.aggregate(configured.Shop, "a")
        for price in range(5):
            await shop.ask(configured.Sell(price=price))
        await system.settled()
        write(path, BEFORE.replace('"configured:audit"', '"configured:audit"\nmax_attempts = 9'))
        reloaded = await system.reload(path)
        assert (reloaded.stopped, reloaded.started) == (("audit",), ("audit",))
        for price in range(5):
            await shop.ask(configured.Sell(price=price))
        await system.settled()
        assert [version for name, version in configured.handled if name == "audit"] == list(range(1, 11))


async def test_the_budget_is_that_of_the_new_file(path: Path) -> None:
    """A supervisor that keeps running gives up by its new rules."""
    text = '[[supervisors]]\nname = "s"\nbackoff = { initial = "0s" }\nmax_restarts = 100\n' + (
        '[[supervisors.actors]]\nname = "a"\nactor = "test_reload:Witness"\nargs = ["a"]\n'
    )
    write(path, text)
    system = ActorSystem.from_config(path)
    await system.start()
    write(path, text.replace("= 100", "= 0"))
    reloaded = await system.reload(path)
    assert reloaded.stopped == ()
    actor = system.actor("a")
    assert actor is not None
    actor.tell("fail")
    with pytest.raises(SupervisorGaveUp):
        await system.wait_stopped()


async def test_concurrent_reloads_take_turns(path: Path) -> None:
    async with ActorSystem.from_config(path) as system:
        other = path.with_name("other.toml")
        write(other, "")
        await asyncio.gather(*(system.reload(which) for which in [other, path] * 5))
        assert "inner" in [node.name for node in system.tree().walk()]


def test_handler_specs_are_the_same_if_all_their_options_are() -> None:
    one, other = HandlerSpec("x", configured.mail), HandlerSpec("x", configured.mail, max_attempts=2)
    assert difference([a_tree(one)], [a_tree(HandlerSpec("x", configured.mail))]) == Difference()
    assert difference([a_tree(ChildSpec(one, "x"))], [a_tree(ChildSpec(other, "x"))]).stopped == ["x"]
