"""A system that is written as a configuration file is read as the same system."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import configured
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_config import GOOD, written

from uno_actors import ActorSystem, Backoff, EventPriority, Supervisor
from uno_actors.cluster.links.memory import MemoryNetwork
from uno_actors.cluster.settings import Cluster
from uno_actors.config.reader import load
from uno_actors.config.tables import DEFAULT_SUPERVISOR
from uno_actors.config.writer import NotConfigurable, as_toml, write_config
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.settings import Settings
from uno_actors.supervision.spec import ChildSpec
from uno_actors.topics import TopicPattern


def rewritten(path: Path) -> str:
    arguments = load(path).arguments()
    free = Supervisor(DEFAULT_SUPERVISOR, arguments["handlers"], max_restarts=None)
    return write_config(
        arguments["store"],
        arguments["aggregates"],
        Settings.of(arguments | {"clock": None}),
        [free, *arguments["supervisors"]],
        arguments["cluster"],
    )


def test_a_written_file_is_read_as_the_same_system(tmp_path: Path) -> None:
    first = written(tmp_path, GOOD)
    second = written(tmp_path, rewritten(first), "second.toml")
    assert load(second).arguments() == load(first).arguments()
    assert rewritten(second) == second.read_text()


CLUSTERS = [
    Cluster(),
    Cluster(ttl=1.5, roles=("handlers",), capacity=2.0),
    Cluster(listen="unix:/run/bank", secret="${not a variable}"),  # noqa: S106
    Cluster(
        listen="0.0.0.0:7411",
        advertise="10.0.0.5:7411",
        secret="s",  # noqa: S106
        certificate=Path("/etc/node.pem"),
        key=Path("/etc/key.pem"),
        authority=Path("/etc/ca.pem"),
    ),
]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=["machine", "options", "unix", "tcp"])
def test_a_node_is_read_as_it_was_written(cluster: Cluster, tmp_path: Path) -> None:
    text = ActorSystem(handlers=[], cluster=cluster).to_config()
    assert "[cluster]" in text
    path = written(tmp_path, text)
    assert load(path).cluster == cluster
    assert ActorSystem.from_config(path).to_config() == text
    assert "[cluster]" not in ActorSystem(handlers=[]).to_config()


def test_paths_of_a_node_are_relative_to_its_file(tmp_path: Path) -> None:
    text = (
        '[cluster]\nlisten = "127.0.0.1:0"\ncertificate = "c.pem"\nkey = "/k.pem"\nauthority = "tls/a.pem"\n'
    )
    cluster = load(written(tmp_path, text)).cluster
    assert cluster is not None
    assert cluster.files == {
        "certificate": tmp_path / "c.pem",
        "key": Path("/k.pem"),
        "authority": tmp_path / "tls" / "a.pem",
    }
    sockets = load(written(tmp_path, '[cluster]\nlisten = "unix:run"\n')).cluster
    assert sockets is not None
    assert sockets.listen == f"unix:{tmp_path / 'run'}"


def test_a_network_in_memory_cannot_be_written() -> None:
    with pytest.raises(NotConfigurable, match="linked by an object"):
        ActorSystem(handlers=[], cluster=Cluster(listen=MemoryNetwork())).to_config()


def test_defaults_are_left_out() -> None:
    text = write_config(
        "memory:", None, Settings(), [Supervisor("s", [ChildSpec(configured.Clerk, shutdown=0.25)])]
    )
    assert text.partition("\n\n")[2] == (
        '[[supervisors]]\nname = "s"\n\n'
        '  [[supervisors.actors]]\n  name = "Clerk"\n  actor = "configured:Clerk"\n  shutdown = "250ms"\n'
    )


def test_everything_that_a_file_cannot_name_is_reported_at_once() -> None:
    def inner(event: object) -> None: ...

    tree = Supervisor(
        "s",
        [
            HandlerSpec("inner", inner),
            HandlerSpec("lambda", lambda event: None),
            ChildSpec(configured.Clerk, args=[object()]),
            ChildSpec(configured.Clerk, "second", args=["\ud800"]),
            ChildSpec(configured.Clerk, "third", kwargs={"none": None}),
            HandlerSpec("audit", configured.audit, topic_pattern=None),
        ],
    )
    with pytest.raises(NotConfigurable) as caught:
        write_config(None, None, Settings(), [tree])
    reasons = caught.value.reasons
    assert len(reasons) == 7
    for part, reason in zip(
        ("URL", "inner", "lambda", "object object", "ud800", "None", "topic pattern of its own"),
        reasons,
        strict=True,
    ):
        assert part in reason


def test_an_object_that_a_variable_names_is_found() -> None:
    text = write_config(
        "memory:",
        None,
        Settings(),
        [Supervisor("s", [HandlerSpec("count", configured.counter, configured.Sold)])],
    )
    assert 'handler = "configured:counter"' in text


# --- any system --------------------------------------------------------------------------------------------

names = st.text(
    st.characters(categories=("L", "N", "P", "S"), exclude_characters="@"), min_size=1, max_size=8
)
seconds = st.integers(1, 100_000).map(lambda milliseconds: milliseconds / 1000) | st.floats(0.001, 1000)
plain = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.sampled_from(["${HOME}", "$${x}", "\x7f\x00\u2028"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
moments = st.datetimes(datetime(1980, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - given
handlers = st.builds(
    HandlerSpec,
    name=names,
    target=st.sampled_from([configured.mail, configured.note]),
    event_type=st.sampled_from([None, configured.Sold]),
    topic_pattern=st.sampled_from([None, TopicPattern("a.*"), TopicPattern("a.>")]),
    priority=st.sampled_from(EventPriority),
    start=st.sampled_from(["latest", "earliest"]) | st.integers(0, 10**12) | moments,
    max_attempts=st.integers(1, 50),
    timeout=st.none() | seconds,
    concurrency=st.integers(1, 8),
    aggregate_type=st.sampled_from([None, "Account", 'a "quoted" one']),
)


@st.composite
def children(draw: Any, depth: int) -> list[ChildSpec]:
    found = []
    kinds = ["handler", "actor", "supervisor"] if depth < 3 else ["handler", "actor"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=3)):
        options: dict[str, Any] = {
            "restart": draw(st.sampled_from(["permanent", "transient", "temporary"])),
            "shutdown": draw(st.none() | st.sampled_from(["kill", "infinity"]) | seconds),
        }
        name = f"{draw(names)}{next(COUNT)}"
        match kind:
            case "handler":
                handler = draw(handlers)
                object.__setattr__(handler, "name", name)
                run: Any = handler
            case "actor":
                run = configured.Machine
                options["args"] = draw(st.lists(plain, max_size=2))
                options["kwargs"] = draw(st.dictionaries(st.sampled_from(["a", "b c"]), plain, max_size=2))
                options["max_attempts"] = draw(st.none() | st.integers(1, 9))
                options["dispatcher"] = draw(st.sampled_from(["shared", "thread"]))
            case _:
                run = draw(trees(depth + 1, name))
        found.append(ChildSpec(run, name, **options))
    return found


COUNT = iter(range(10**9))


@st.composite
def trees(draw: Any, depth: int = 0, name: str | None = None) -> Supervisor:
    initial = draw(seconds)
    return Supervisor(
        name or f"{draw(names)}{next(COUNT)}",
        draw(children(depth)),
        max_restarts=draw(st.none() | st.integers(0, 100)),
        within=draw(seconds),
        backoff=Backoff(
            initial, initial + draw(seconds), draw(st.floats(1, 9)), draw(st.floats(0, 1)), draw(seconds)
        ),
        strategy=draw(st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"])),
        budget=draw(st.sampled_from(["supervisor", "child"])),
        directives=draw(
            st.dictionaries(
                st.sampled_from([ValueError, KeyError, NotConfigurable]),
                st.sampled_from(["restart", "resume", "stop", "escalate"]),
            )
        ),
    )


def plain_form(tree: Supervisor) -> Any:
    """Ignores the difference between a handler and a `ChildSpec` that has only this handler."""
    parts = [
        (spec.name or spec.run.name, spec.restart, spec.shutdown, list(spec.args), dict(spec.kwargs), spec.dispatcher,
         spec.max_attempts, plain_form(spec.run) if isinstance(spec.run, Supervisor) else spec.run)
        for spec in tree.specs
    ]  # fmt: skip
    rules = (tree.strategy, tree.max_restarts, tree.within, tree.backoff, tree.budget, dict(tree.directives))
    return tree.name, rules, parts


@given(tree=trees())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_written_tree_is_read_as_the_same(tree: Supervisor, tmp_path: Path) -> None:
    (found,) = load(written(tmp_path, write_config("memory:", None, Settings(), [tree])), {}).supervisors
    assert plain_form(found) == plain_form(tree)


@given(plain)
@example({"\x7f": False})
def test_values_are_written_as_toml_reads_them(value: Any) -> None:
    from uno_actors.config.text import expanded
    from uno_actors.config.toml import read_toml

    document = read_toml(f"x = {as_toml(value)}\n")
    assert document.faults == ()

    def put_in(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: put_in(item) for key, item in found.items()}
        if isinstance(found, list):
            return [put_in(item) for item in found]
        return expanded(found, {}) if isinstance(found, str) else found

    assert put_in(document.data["x"]) == value


def test_a_store_that_a_file_cannot_name_is_reported() -> None:
    with pytest.raises(NotConfigurable, match="HOME"):
        write_config("lmdb:~/data", None, Settings(), [])
