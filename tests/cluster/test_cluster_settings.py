"""What may be written as ``cluster=``, and the link that it stands for."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import ManualClock
from uno_actors import CallerError, InvalidCluster, InvalidNumber
from uno_actors.cluster.addresses import NatsPlace, TcpPlace, UnixPlace, place_of
from uno_actors.cluster.links.memory import MemoryLink
from uno_actors.cluster.links.nats import NatsLink
from uno_actors.cluster.links.opening import open_link
from uno_actors.cluster.links.port import Link
from uno_actors.cluster.links.tcp import TcpLink
from uno_actors.cluster.links.unix import UnixLink
from uno_actors.cluster.settings import Cluster
from uno_actors.testing import MemoryNetwork

FILES = {"certificate": Path("c.pem"), "key": Path("k.pem"), "authority": Path("a.pem")}
FULL = FILES | {"secret": "a long one"}


@pytest.mark.parametrize(
    ("listen", "place"),
    [
        (None, UnixPlace()),
        ("unix:/run/bank", UnixPlace(Path("/run/bank"))),
        ("unix:sockets", UnixPlace(Path("sockets"))),
        ("10.0.0.5:7411", TcpPlace("10.0.0.5", 7411)),
        ("localhost:0", TcpPlace("localhost", 0)),
        ("node-1.bank.internal:65535", TcpPlace("node-1.bank.internal", 65535)),
        ("[::1]:7411", TcpPlace("::1", 7411)),
        ("[fe80::1%eth0]:1", TcpPlace("fe80::1%eth0", 1)),
        ("nats://broker:4222", NatsPlace("nats://broker:4222")),
        ("nats://a:p@one:4222,nats://two:4222", NatsPlace("nats://a:p@one:4222,nats://two:4222")),
        ("tls://broker", NatsPlace("tls://broker")),
    ],
)
def test_an_address_stands_for_a_place(listen: str | None, place: object) -> None:
    assert place_of(listen) == place
    if isinstance(place, TcpPlace):
        assert str(place) == listen


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("", "is not an address: write HOST:PORT"),
        ("7411", "is not an address"),
        ("host", "is not an address"),
        (":7411", "is not an address"),
        ("host:port", "is not an address"),
        ("host:-1", "is not an address"),
        ("host:70000", "has a port above 65535"),
        ("::1:7411", "is not an address.*IPv6 in brackets"),
        ("[::1]", "is not an address"),
        ("[::g]:1", "is not an address"),
        ("[1.2.3.4]:1", "no IPv6 address in its brackets"),
        ("300.1.1.1:5", "no IPv4 address"),
        ("1.2.3:5", "no IPv4 address"),
        ("http://host:80", "is not an address"),
        ("tcp://host:80", "is not an address"),
        ("host:80/path", "is not an address"),
        ("host:80\n", "is not an address"),
        ("unix:", "names no directory"),
        ("unix:~/bank", "'~' stands for no directory"),
        ("nats://", "is not the URL of a NATS server"),
        ("nats://host:port", "is not the URL of a NATS server"),
        ("nats://host/path", "is not the URL of a NATS server"),
        ("nats://one,two", "is not the URL of a NATS server"),
        (7411, "must be a text"),
    ],
)
def test_any_other_address_is_refused_with_what_is_allowed(listen: Any, reason: str) -> None:
    with pytest.raises(InvalidCluster, match=f"(?s)cluster: listen .*{reason}") as raised:
        Cluster(listen=listen)
    assert raised.value.key == "listen"
    assert isinstance(raised.value, CallerError)
    assert isinstance(raised.value, ValueError)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    with suppress(InvalidCluster):
        assert Cluster(listen=text, **FULL).listen == text


@pytest.mark.parametrize("listen", ["10.0.0.5:7411", "[2001:db8::1]:7411", "node1:7411"])
def test_tcp_off_the_loopback_needs_a_secret_and_certificates(listen: str) -> None:
    assert Cluster(listen=listen, **FULL).listen == listen
    for name in FULL:
        with pytest.raises(InvalidCluster, match=f"cluster: {name} is missing"):
            Cluster(listen=listen, **{key: value for key, value in FULL.items() if key != name})
    with pytest.raises(
        InvalidCluster, match="secret, certificate, key, authority is missing.*listen at 127.0.0.1"
    ):
        Cluster(listen=listen)


@pytest.mark.parametrize("listen", ["127.0.0.1:7411", "127.9.9.9:1", "localhost:0", "[::1]:7411"])
def test_the_loopback_needs_neither(listen: str) -> None:
    assert Cluster(listen=listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:7411", "[::]:7411"])
def test_all_addresses_of_a_machine_need_one_for_the_others(listen: str) -> None:
    with pytest.raises(
        InvalidCluster, match="stands for every address .*name the one that other nodes use in `adv"
    ):
        Cluster(listen=listen, **FULL)
    assert Cluster(listen=listen, advertise="10.0.0.5:0", **FULL)
    with pytest.raises(InvalidCluster, match="cluster: advertise"):
        Cluster(listen=listen, advertise="0.0.0.0:1", **FULL)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"capacity": 0}, "capacity"),
        ({"capacity": "1"}, "capacity"),
        ({"loans": 0}, "loans must be True or False; found 0"),
        ({"roles": ()}, "roles must be some of aggregates, handlers"),
        ({"roles": ("aggregate",)}, "roles must be some of aggregates, handlers"),
        ({"secret": ""}, "secret must be a text that is not empty"),
        ({"secret": 5}, "secret must be a text"),
        ({"advertise": "10.0.0.5:1"}, "advertise is for TCP alone"),
        ({"certificate": Path("c.pem")}, "certificate is for TCP alone"),
        ({"listen": "127.0.0.1:1", "certificate": Path("c.pem")}, "key, authority is missing: TLS needs"),
        ({"listen": "127.0.0.1:1", "advertise": "x"}, "advertise 'x' is not an address"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_are_not_allowed_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises((InvalidCluster, InvalidNumber), match=reason):
        Cluster(**options)


def test_no_secret_is_shown() -> None:
    shown = repr(Cluster(listen="nats://joe:hunter2@broker:4222", secret="hunter3"))  # noqa: S106
    assert "hunter" not in shown
    with pytest.raises(InvalidCluster) as raised:
        Cluster(listen="nats://joe:hunter2@broker:x")
    assert "hunter" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (Cluster(), UnixLink),
        (Cluster(listen="unix:/run/bank"), UnixLink),
        (Cluster(listen="10.0.0.5:7411", **FULL), TcpLink),
        (Cluster(listen="nats://broker:4222"), NatsLink),
        (Cluster(listen=MemoryNetwork()), MemoryLink),
    ],
    ids=["default", "unix", "tcp", "nats", "memory"],
)
def test_settings_stand_for_a_link(settings: Cluster, kind: type[Link]) -> None:
    assert type(open_link(settings, cluster="bank", directory=Path("data"), clock=ManualClock())) is kind


async def test_by_default_the_sockets_are_in_the_directory_of_the_store(tmp_path: Path) -> None:
    link = open_link(Cluster(), cluster="bank", directory=tmp_path, clock=ManualClock())
    address = await link.start("a", lambda body, answer: None)
    names = os.listdir(tmp_path)  # noqa: PTH208 - asynchronous functions may not iterate paths
    assert names == ["node-a.sock"]
    await link.close()
    assert re.fullmatch(r"unix:node-a\.sock#a", address)


async def test_behind_nat_the_advertised_address_is_announced() -> None:
    for advertise, announced in (
        ("bank.example:9", r"tcp://bank\.example:9#a"),
        ("10.0.0.5:0", r"tcp://10\.0\.0\.5:[1-9]\d*#a"),
    ):
        settings = Cluster(listen="127.0.0.1:0", advertise=advertise)
        link = open_link(settings, cluster="bank", directory=None, clock=ManualClock())
        address = await link.start("a", lambda body, answer: None)
        await link.close()
        assert re.fullmatch(announced, address)
