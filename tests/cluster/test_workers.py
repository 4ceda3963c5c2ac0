"""How many workers there are, and what each is for: pure functions of what users write."""

from pathlib import Path
from typing import Any

import pytest

from uno_actors import Cluster, InvalidCluster
from uno_actors.cluster.settings import ROLES
from uno_actors.cluster.workers import MOST_WORKERS, Workers, cores, of_worker

BOTH = ROLES
SERVES, HANDLES = ("aggregates",), ("handlers",)


@pytest.mark.parametrize(
    ("written", "roles"),
    [
        (1, (BOTH,)),
        (3, (BOTH, BOTH, BOTH)),
        ("3", (BOTH, BOTH, BOTH)),
        ("cores", (BOTH, BOTH)),
        ({"aggregates": 2, "handlers": 1}, (SERVES, SERVES, HANDLES)),
        ("aggregates=2,handlers=1", (SERVES, SERVES, HANDLES)),
        (" handlers = 1 , aggregates = 1 ", (SERVES, HANDLES)),
        ({"aggregates": 1}, (SERVES,)),
    ],
)
def test_workers_have_the_roles_that_are_written(written: Any, roles: tuple[tuple[str, ...], ...]) -> None:
    workers = Workers.of(written)
    assert workers.roles(BOTH, cores=2) == roles
    assert Workers.of(workers.written) == workers


@pytest.mark.parametrize(
    "written",
    [
        0, -1, MOST_WORKERS + 1, 1.5, True, None, [], {}, "", "0", "-1", "two", "²", "core", {"aggregates": 0},
        {"aggregates": -1, "handlers": 3}, {"aggregates": True}, {"aggregates": "2"}, {"clients": 1},
        "aggregates=", "aggregates=1,aggregates=1", "aggregates=1,", "=1", "aggregates=x", "count=1",
    ],
)  # fmt: skip
def test_other_workers_are_refused(written: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text may be empty: the caller says what is allowed
        Workers.of(written)


@pytest.mark.parametrize(
    ("limit", "share"),
    [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("0 0", None), ("nonsense", None)],
)
def test_a_container_is_given_no_more_workers_than_its_share_of_the_cores(
    tmp_path: Path, limit: str, share: int | None
) -> None:
    without = cores(tmp_path / "missing")
    assert without >= 1
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert cores(tmp_path / "cpu.max") == (without if share is None else share)


@pytest.mark.parametrize(
    ("listen", "advertise", "second"),
    [
        (None, None, (None, None)),
        ("127.0.0.1:0", None, ("127.0.0.1:0", None)),
        ("127.0.0.1:7411", None, ("127.0.0.1:7412", None)),
        ("127.0.0.1:0", "10.0.0.5:7411", ("127.0.0.1:0", "10.0.0.5:7412")),
        ("127.0.0.1:7411", "10.0.0.5:0", ("127.0.0.1:7412", "10.0.0.5:0")),
        ("[::1]:7411", None, ("[::1]:7412", None)),
        ("nats://127.0.0.1:4222", None, ("nats://127.0.0.1:4222", None)),
    ],
)
def test_workers_that_listen_at_one_port_take_the_next_ones(
    listen: str | None, advertise: str | None, second: tuple[str | None, str | None]
) -> None:
    cluster = Cluster(listen=listen, advertise=advertise)
    first, other = (of_worker(cluster, index, SERVES) for index in (1, 2))
    assert (first.listen, first.advertise) == (listen, advertise)
    assert (other.listen, other.advertise) == second
    assert first.roles == other.roles == SERVES


def test_there_must_be_a_port_for_each_worker() -> None:
    with pytest.raises(InvalidCluster, match="has no port for worker 2: 65536 is above 65535"):
        of_worker(Cluster(listen="127.0.0.1:65535"), 2, BOTH)
