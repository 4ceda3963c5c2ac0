"""Links over streams and NATS: handshake, secrets, versions, and peers that hang, lie, or are cut off."""

import asyncio
import dataclasses
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from conftest import Authority, NatsServer
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from test_links import Node, Place, Sent, never, place_of, unknown

from tests.cluster.faults import caller_of, has_published_all, hosts_of, is_connected, node_is_deaf
from tests.machine import patience
from tests.waiting import ManualClock, until
from uno_actors import LinkUnavailable
from uno_actors.cluster.addresses import TcpPlace
from uno_actors.cluster.links import handshake, nats
from uno_actors.cluster.links.connections import CallerConnection, HostConnection
from uno_actors.cluster.links.frames import (
    LARGEST_GREETING,
    REQUESTS,
    FrameReader,
    MalformedFrame,
    as_batch,
    batches,
    frame,
)
from uno_actors.cluster.links.port import Answer, LinkFailure
from uno_actors.cluster.links.streams import StreamLink
from uno_actors.cluster.links.tcp import TcpLink
from uno_actors.cluster.links.unix import UnixLink

SECRET = "correct horse"  # noqa: S105 - of the tests
STREAMS = ["unix", "tcp", "tls"]


@pytest.fixture(params=STREAMS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(request, tmp_path) as here:
        yield here


every = pytest.mark.parametrize("place", [*STREAMS, "nats"], indirect=True)
tcp = pytest.mark.parametrize("place", ["tcp"], indirect=True)
unix = pytest.mark.parametrize("place", ["unix"], indirect=True)


# --- who may talk to whom ----------------------------------------------------------------------------------


@every
@pytest.mark.parametrize(("own", "other"), [("one", "two"), (None, "two"), ("one", None)])
async def test_a_node_with_another_secret_is_refused_and_serves_nothing(
    place: Place, caplog: pytest.LogCaptureFixture, own: str | None, other: str | None
) -> None:
    a, b = await place.node("a", secret=own), await place.node("b", secret=other)
    assert "different secrets" in never(await a.ask(b, b"1"))
    assert b.served == []
    assert "different secrets" in caplog.text


@every
async def test_nodes_with_one_secret_talk_and_the_secret_is_not_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    write = CallerConnection.write

    def spy(self: CallerConnection, value: object) -> bool:
        written.append(frame(value))
        return write(self, value)

    monkeypatch.setattr(CallerConnection, "write", spy)
    a, b = await place.node("a", secret=SECRET), await place.node("b", secret=SECRET)
    assert await a.ask(b, b"1") == b"1"
    assert not any(SECRET.encode() in each for each in written)


@every
async def test_unequal_versions_are_refused_and_both_are_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a = await place.node("a")
    link = a.link
    if isinstance(link, StreamLink):
        link.identity = dataclasses.replace(link.identity, protocol=2, version="9.9.9")
        wanted = (
            "node a speaks version 2 of the protocol between nodes (uno_actors 9.9.9), and node b version 1"
        )
    else:
        monkeypatch.setattr(nats, "PROTOCOL", 2)
        wanted = "has version 2 of the protocol between nodes, and node b version 1"
    b = await place.node("b")
    sent = a.send(b, b"1")
    if not isinstance(link, StreamLink):
        await asyncio.sleep(0)
        await until(lambda: has_published_all(a.link, b.address))
        monkeypatch.setattr(nats, "PROTOCOL", 1)
    reason = never(await sent.end())
    assert wanted in reason
    assert "run equal versions" in reason
    assert b.served == []
    assert "run equal versions" in caplog.text


async def test_nodes_of_other_clusters_are_refused(place: Place) -> None:
    a, b = await place.node("a", cluster="bank"), await place.node("b", cluster="shop")
    assert "node a belongs to cluster 'bank', and node b to 'shop'" in never(await a.ask(b, b"1"))
    assert b.served == []


@tcp
async def test_another_node_at_the_address_of_a_dead_one_is_refused(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    assert await a.ask(b, b"12") == b"21"
    await b.link.close()
    where = b.address.removeprefix("tcp://").partition("#")[0]
    c = Node(
        TcpLink(
            TcpPlace("127.0.0.1", int(where.rpartition(":")[2])),
            cluster="bank",
            secret=None,
            ttl=30.0,
            clock=a.link.clock,
        ),
        "c",
    )  # type: ignore[attr-defined]
    place.stack.push_async_callback(c.link.close)
    await c.start()
    await asyncio.sleep(0.1)  # longer than the first back-off
    assert "node c has taken the place of node b" in never(await a.ask(b, b"3"))
    assert c.served == []


@tcp
async def test_a_caller_cannot_use_the_proof_of_the_host(place: Place) -> None:
    """A stranger who knows no secret sends back what it has heard."""
    b = await place.node("b", secret=SECRET)
    own = handshake.Identity("x", "bank", b"?", version="1")
    where = b.address.removeprefix("tcp://").partition("#")[0].rpartition(":")
    reader, writer = await asyncio.open_connection(where[0], int(where[2]))
    writer.write(frame(own.greeting() | {"to": "b"}))
    said = msgpack.unpackb((await reader.read(4096))[4:])
    for proof in (said["nonce"], b"", own.proof("host", said, said)):
        writer.write(frame({"proof": proof}))
    writer.write(frame([REQUESTS, [1], [b"x"]]))
    answer = await reader.read(4096)
    assert b"different secrets" in answer
    assert await reader.read() == b""
    assert b.served == []
    writer.close()


@tcp
@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        frame([REQUESTS, [1], [b"x"]]),
        frame({"uno": 1}),
        frame({"uno": 1, "version": "1", "cluster": "bank", "node": 5, "nonce": b"x" * 32, "to": "b"}),
        frame({"uno": 1, "version": "1", "cluster": "bank", "node": "x", "nonce": "text", "to": "b"}),
        frame(None),
        b"\0\0\0\1\xc1",
    ],
    ids=["HTTP", "TLS", "requests", "no version", "node", "nonce", "nothing", "no msgpack"],
)
async def test_strangers_are_refused_and_the_node_serves_on(place: Place, junk: bytes) -> None:
    a, b = await place.node("a"), await place.node("b")
    where = b.address.removeprefix("tcp://").partition("#")[0].rpartition(":")
    reader, writer = await asyncio.open_connection(where[0], int(where[2]))
    writer.write(junk)
    await reader.read()
    writer.close()
    assert await a.ask(b, b"12") == b"21"
    assert b.served == [b"12"]


@tcp
async def test_a_stranger_that_says_nothing_or_trickles_is_hung_up_on(place: Place) -> None:
    clock = ManualClock()
    b = await place.node("b", clock=clock, ttl=3.0)
    where = b.address.removeprefix("tcp://").partition("#")[0].rpartition(":")
    streams = [await asyncio.open_connection(where[0], int(where[2])) for _ in range(2)]
    ended = [asyncio.ensure_future(reader.read()) for reader, _ in streams]
    await until(lambda: len(hosts_of(b.link)) == 2)
    for _ in range(6):
        streams[1][1].write(b"\0")
        await asyncio.sleep(0.01)
        clock.advance(0.75)
    for each in ended:
        with suppress(ConnectionError):
            assert await each == b""
    for _, writer in streams:
        writer.close()


@tcp
async def test_something_else_that_listens_at_the_address_is_no_node(place: Place) -> None:
    a = await place.node("a")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert "malformed frame" in never(await a.ask(f"tcp://127.0.0.1:{port}#b", b"1"))
        await a.link.close()


# --- peers that hang, or are cut off -----------------------------------------------------------------------


class Silent:
    """A relay between two nodes that can stop to pass anything, without closing a connection."""

    def __init__(self) -> None:
        self.passes = True
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, node: Node) -> str:
        host, _, port = node.address.removeprefix("tcp://").partition("#")[0].rpartition(":")

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(host, int(port))
            self._writers += [writer, back]
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

        self._server = await asyncio.start_server(relay, "127.0.0.1", 0)
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}#{node.name}"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.passes:
                    writer.write(data)
        writer.close()

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


@tcp
async def test_a_node_that_was_cut_off_without_a_word_is_noticed_within_the_ttl(place: Place) -> None:
    clock = ManualClock()
    a, b = await place.node("a", clock=clock, ttl=4.0), await place.node("b", clock=clock, ttl=4.0)
    relay = Silent()
    address = await relay.start(b)
    b.serve = lambda body, answer: None
    sent = a.send(address, b"1")
    await until(lambda: b.served)
    for _ in range(40):  # heartbeats keep a quiet connection alive
        clock.advance(1.0)
        await asyncio.sleep(0.01)
    assert not sent.outcomes
    relay.passes = False
    later = a.send(address, b"2")
    cut = clock.now
    while not sent.outcomes:
        clock.advance(0.5)
        await asyncio.sleep(0.01)
    assert clock.now - cut <= 4.0
    assert "nothing was heard" in unknown(sent.outcome)
    unknown(await later.end())
    await until(lambda: not hosts_of(b.link))
    clock.advance(1.0)
    never(await _advanced(clock, a.send(address, b"3")))
    assert b.served == [b"1"]
    await relay.close()


async def _advanced(clock: ManualClock, sent: Sent) -> Any:
    while not sent.outcomes:
        clock.advance(0.5)
        await asyncio.sleep(0.01)
    return sent.outcome


@tcp
async def test_an_own_loop_that_was_late_does_not_take_the_others_for_dead(place: Place) -> None:
    clock = ManualClock()
    a, b = await place.node("a", clock=clock, ttl=4.0), await place.node("b", clock=clock, ttl=4.0)
    waiting: list[Answer] = []
    b.serve = lambda body, answer: waiting.append(answer)
    sent = a.send(b, b"1", 600.0)
    await until(lambda: waiting)
    clock.now += 60.0  # a blocking call; the loop has read nothing in this time
    clock.advance(0.0)
    await asyncio.sleep(0.01)
    assert not sent.outcomes
    waiting[0](b"yes")
    assert await sent.end() == b"yes"


async def test_a_node_that_reads_slowly_holds_up_what_is_sent_and_what_was_not_sent_never_arrives(
    place: Place,
) -> None:
    """Half of the requests wait behind a peer that does not read; they end in time, and are not served later."""
    a, b = await place.node("a"), await place.node("b")
    assert await a.ask(b, b"12") == b"21"
    (host,) = hosts_of(b.link)
    assert host.transport is not None
    host.transport.pause_reading()
    b.served.clear()
    sent = [a.send(b, bytes([n]) * 300_000, 0.5) for n in range(60)]
    outcomes = [await each.end() for each in sent]
    assert all(isinstance(each, LinkFailure) for each in outcomes)
    lost = {
        n
        for n, each in enumerate(outcomes)
        if isinstance(each, LinkFailure) and each.delivery.value == "never"
    }
    assert len(lost) > 10
    host.transport.resume_reading()
    await until(lambda: len(b.served) == 60 - len(lost))
    assert await a.ask(b, b"end") == b"dne"
    assert {body[0] for body in b.served[:-1]} == set(range(60)) - lost


async def test_a_caller_that_does_not_read_its_answers_is_served_no_more(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    b.serve = lambda body, answer: answer(bytes(1_000_000))
    assert isinstance(await a.ask(b, b"first"), bytes)
    connection = caller_of(a.link, b.address)
    assert connection.transport is not None
    connection.transport.pause_reading()
    sent = [a.send(b, bytes(100_000)) for _ in range(100)]
    (host,) = hosts_of(b.link)
    await until(lambda: host.is_paused)
    await asyncio.sleep(0.05)
    assert len(b.served) < 80
    connection.transport.resume_reading()
    assert [len(await each.end()) for each in sent] == [1_000_000] * 100  # type: ignore[arg-type]


async def test_a_node_that_cannot_be_connected_to_is_left_alone_for_a_while(place: Place) -> None:
    clock = ManualClock()
    a, b = await place.node("a", clock=clock), await place.node("b", clock=clock)
    await b.link.close()
    first = never(await a.ask(b, b"1"))
    assert "cannot connect" in first
    attempts = 0
    connect = a.link.connect  # type: ignore[attr-defined]

    async def count(*arguments: Any) -> None:
        nonlocal attempts
        attempts += 1
        await connect(*arguments)

    a.link.connect = count  # type: ignore[attr-defined]
    for _ in range(100):
        assert "the next attempt is due in" in never(await a.ask(b, b"2"))
    assert attempts == 0
    for _ in range(60):
        never(await a.ask(b, b"3"))
        clock.advance(0.1)
    assert 5 <= attempts <= 14


async def test_closing_while_connecting_ends_the_requests_and_leaves_nothing_behind(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    sent = [a.send(b, b"x") for _ in range(10)]
    await asyncio.sleep(0)
    await a.link.close()
    for each in sent:
        never(each.outcome)
    await asyncio.sleep(0.05)
    assert b.served == []
    await until(lambda: not hosts_of(b.link))


@pytest.mark.parametrize("place", ["unix", "tcp"], indirect=True)
async def test_a_connection_that_comes_while_the_link_closes_is_not_lost(place: Place) -> None:
    """Otherwise its socket stays open, and its caller waits for the handshake."""
    a = await place.node("a")
    for n in range(10):
        b = await place.node(f"b{n}")
        sent = a.send(b, b"1")
        for _ in range(n):
            await asyncio.sleep(0)
        await b.link.close()
        async with asyncio.timeout(patience(5)):
            await sent.end()
        del b, sent
    gc.collect()


async def test_a_connection_that_is_made_when_the_link_has_just_closed_is_ended(place: Place) -> None:
    a, b = await place.node("a"), await place.node("b")
    await b.link.close()
    host = HostConnection(b.link)  # type: ignore[arg-type]
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: host, ours)
    await host.ended.wait()
    assert theirs.recv(10) == b""
    theirs.close()
    assert a.served == b.served == []


PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from uno_actors.clock import SystemClock
from uno_actors.cluster.addresses import TcpPlace
from uno_actors.cluster.links.tcp import TcpLink
from uno_actors.cluster.links.unix import UnixLink

async def main():
    options = dict(cluster="bank", secret=None, ttl=30.0, clock=SystemClock())
    if sys.argv[1] == "unix":
        link = UnixLink(Path(sys.argv[2]), **options)
    else:
        link = TcpLink(TcpPlace("127.0.0.1", 0), **options)
    asked = asyncio.Event()
    def serve(body, answer):
        if body == b"fork":
            child = os.fork()
            if child == 0:
                import time
                time.sleep(60)
                os._exit(0)
            answer(str(child).encode())
        asked.set()
    print(await link.start("b", serve), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("place", ["unix", "tcp"], indirect=True)
async def test_the_death_of_a_process_is_noticed_though_its_forked_child_lives(place: Place) -> None:
    a = await place.node("a")
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [sys.executable, "-c", PROGRAM, place.kind, str(place.directory)],
        stdout=subprocess.PIPE,
        cwd=Path.cwd(),
    )
    assert process.stdout is not None
    address = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
    child = await a.ask(address, b"fork")
    assert isinstance(child, bytes)
    try:
        waits = a.send(address, b"wait")
        await asyncio.sleep(0.1)
        process.kill()
        process.wait()
        async with asyncio.timeout(patience(5)):
            unknown(await waits.end())
        never(await a.ask(address, b"x"))
    finally:
        process.kill()
        process.stdout.close()
        os.kill(int(child), signal.SIGKILL)


# --- frames ------------------------------------------------------------------------------------------------


bodies = st.lists(st.tuples(st.integers(0, 2**63), st.binary(max_size=300)), max_size=40)


@given(bodies, st.lists(st.integers(1, 200), max_size=30), st.integers(0, 3))
def test_frames_are_read_as_they_were_written_however_the_stream_is_cut(
    waiting: list[tuple[int, bytes]], cuts: list[int], limit: int
) -> None:
    from collections import deque

    taken = list(batches(deque(waiting), limit * 200))
    assert [pair for numbers, found in taken for pair in zip(numbers, found, strict=True)] == waiting
    stream = b"".join(frame([REQUESTS, numbers, found]) for numbers, found in taken)
    reader = FrameReader()
    reader.largest = 1 << 20
    read = []
    for cut in [*cuts, len(stream)]:
        read += [as_batch(value) for value in reader.feed(stream[:cut])]
        stream = stream[cut:]
    assert read == [(REQUESTS, numbers, found) for numbers, found in taken]


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=10))
def test_any_bytes_are_frames_or_refused_as_malformed(chunks: list[bytes]) -> None:
    reader = FrameReader()
    with suppress(MalformedFrame):
        for chunk in chunks:
            for value in reader.feed(chunk):
                as_batch(value)


@given(
    st.recursive(
        st.none() | st.integers(-5, 5) | st.binary(max_size=3) | st.text(max_size=3), st.lists, max_leaves=8
    )
)
def test_any_value_is_a_batch_or_refused_as_malformed(value: Any) -> None:
    packed = frame(value)
    try:
        (read,) = FrameReader().feed(packed)
        kind, numbers, found = as_batch(read)
    except MalformedFrame:
        return
    assert type(kind) is int
    assert len(numbers) == len(found)
    assert all(type(number) is int for number in numbers)
    assert all(type(body) is bytes for body in found)


def test_a_frame_that_is_too_large_is_refused_before_it_has_arrived() -> None:
    with pytest.raises(MalformedFrame, match="at most 4,096"):
        FrameReader().feed((LARGEST_GREETING + 1).to_bytes(4, "big"))


@given(
    st.dictionaries(
        st.sampled_from(["uno", "version", "cluster", "node", "nonce", "to", "proof", "refused"]),
        st.none() | st.integers(0, 2) | st.binary(max_size=40) | st.sampled_from(["bank", "b", "1"]),
    )
)
@settings(max_examples=300)
def test_no_greeting_but_the_right_one_is_accepted(said: dict[str, Any]) -> None:
    for hosting in (
        handshake.Hosting(handshake.Identity("b", "bank", b"secret", version="1")),
        handshake.Calling(handshake.Identity("a", "bank", b"secret", version="1"), "b"),
    ):
        for _ in range(2):
            with suppress(handshake.Refused):
                hosting.receive(said)
        assert not hosting.is_ready


# --- TLS ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["tls"], indirect=True)
async def test_a_node_whose_certificate_the_authority_has_not_signed_is_refused(
    place: Place, authority: Authority, other_authority: Authority
) -> None:
    b = await place.node("b")
    right = authority.certificates("right")
    foreign = other_authority.certificates("foreign")
    for files in (
        dataclasses.replace(foreign, authority=right.authority),  # only its own certificate is foreign
        dataclasses.replace(right, authority=foreign.authority),  # it trusts the other authority
        foreign,
    ):
        a = Node(
            TcpLink(
                TcpPlace("127.0.0.1", 0),
                cluster="bank",
                secret=None,
                ttl=5.0,
                clock=b.link.clock,
                certificates=files,
            ),
            "a",
        )  # type: ignore[attr-defined]
        await a.start()
        never(await a.ask(b, b"1"))
        await a.link.close()
    assert b.served == []


@pytest.mark.parametrize("place", ["tls"], indirect=True)
async def test_a_node_without_tls_and_one_with_it_do_not_talk(place: Place) -> None:
    with_tls = await place.node("b")
    place.certificates, place.kind = None, "tcp"
    without = await place.node("a", ttl=2.0)
    never(await without.ask(with_tls, b"1"))
    never(await with_tls.ask(without, b"1", 4.0))
    assert without.served == with_tls.served == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (
            {"certificate": "nowhere.pem"},
            "the file of `certificate`, .*nowhere.pem, cannot be read: No such file",
        ),
        ({"key": "nowhere.pem"}, "the file of `key`, .*nowhere.pem, cannot be read"),
        ({"authority": "text"}, "the file of `authority`, .*text, is not a PEM file"),
        ({"authority": "key"}, "the file of `authority`, .*, has no certificate"),
        ({"key": "other"}, "are not a certificate and its key"),
        ({"key": "encrypted"}, "not encrypted"),
    ],
    ids=["no certificate", "no key", "text", "wrong kind", "foreign key", "encrypted"],
)
def test_files_that_cannot_be_used_are_named_at_the_start(
    authority: Authority, tmp_path: Path, broken: dict[str, str], reason: str
) -> None:
    right = authority.certificates("here")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "key").write_bytes(right.key.read_bytes())
    (tmp_path / "other").write_bytes(authority.certificates("other").key.read_bytes())
    key = serialization.load_pem_private_key(right.key.read_bytes(), None)
    (tmp_path / "encrypted").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    files = dataclasses.replace(right, **{name: tmp_path / file for name, file in broken.items()})
    with pytest.raises(LinkUnavailable, match=f"127.0.0.1:0: .*{reason}"):
        files.contexts("127.0.0.1:0")


async def test_tcp_off_the_loopback_does_not_start_without_certificates() -> None:
    link = TcpLink(TcpPlace("0.0.0.0", 0), cluster="bank", secret=SECRET, ttl=3.0, clock=ManualClock())  # noqa: S104
    with pytest.raises(LinkUnavailable, match="needs certificates"):
        await link.start("a", lambda body, answer: None)


@tcp
async def test_a_port_that_is_taken_is_said_with_the_remedy(place: Place) -> None:
    a = await place.node("a")
    port = int(a.address.partition("#")[0].rpartition(":")[2])
    for host, where, reason in (
        ("127.0.0.1", port, "the port is taken: choose another one, or 0"),
        ("localhost", port, "the port is taken"),
    ):
        link = TcpLink(TcpPlace(host, where), cluster="bank", secret=None, ttl=3.0, clock=ManualClock())
        with pytest.raises(LinkUnavailable, match=reason):
            await link.start("b", lambda body, answer: None)


# --- Unix sockets ------------------------------------------------------------------------------------------


@unix
async def test_a_socket_is_for_its_owner_only_and_goes_with_its_node(place: Place) -> None:
    a = await place.node("a")
    (path,) = place.directory.glob("*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await a.link.close()
    assert list(place.directory.iterdir()) == []


@unix
async def test_a_directory_is_made_for_its_owner_only(place: Place, tmp_path: Path) -> None:
    place.directory = tmp_path / "new" / "er"
    await place.node("a")
    assert stat.S_IMODE(place.directory.stat().st_mode) == 0o700


@unix
async def test_another_user_is_refused_on_either_side(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await place.node("a"), await place.node("b")
    monkeypatch.setattr("uno_actors.cluster.links.unix.peer_user", lambda connection: os.getuid() + 7)
    assert "run all nodes as one user" in never(await a.ask(b, b"1"))
    assert b.served == []


@unix
async def test_sockets_of_killed_nodes_are_removed_and_others_stay(place: Place) -> None:
    await place.node("a")
    dead, fresh = place.directory / "node-dead.sock", place.directory / "node-starting.new"
    for path in (dead, fresh):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.bind(str(path))
    (place.directory / "node-file.sock").touch()
    await place.node("b")
    assert {path.name for path in place.directory.iterdir()} == {
        "node-a.sock",
        "node-b.sock",
        "node-starting.new",
        "node-file.sock",
    }
    os.utime(fresh, (0, 0))
    await place.node("c")
    assert not fresh.exists()


@unix
async def test_nodes_see_each_other_though_the_directory_has_another_path_for_each(
    place: Place, tmp_path: Path
) -> None:
    """As in containers that share a volume; and process ids, which may be equal there, are in no name."""
    a = await place.node("a")
    other = tmp_path.parent / f"{tmp_path.name}-mounted"
    other.symlink_to(tmp_path)
    place.directory = other
    b = await place.node("b")
    assert await a.ask(b, b"12") == b"21"
    assert await b.ask(a, b"12") == b"21"
    assert str(os.getpid()) not in a.address


@unix
async def test_a_long_path_is_no_obstacle(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.directory = tmp_path / ("x" * 120) / ("y" * 120)
    a, b = await place.node("a"), await place.node("b")
    assert await a.ask(b, b"12") == b"21"
    assert {path.name for path in place.directory.iterdir()} == {"node-a.sock", "node-b.sock"}


@unix
async def test_where_the_directory_cannot_have_sockets_they_are_in_one_of_the_user(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        monkeypatch.setattr("sys.platform", "darwin")  # where a long path cannot be shortened
        place.directory = place.directory / ("x" * 120)
        a, b = await place.node("a"), await place.node("b")
        assert await a.ask(b, b"12") == b"21"
        assert b.address == f"unix:{short}/uno-actors-{os.getuid()}/cluster-bank/node-b.sock#b"
        await a.link.close()
        await b.link.close()


async def test_a_directory_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    link = UnixLink(tmp_path / "file" / "x", cluster="bank", secret=None, ttl=3.0, clock=ManualClock())
    with pytest.raises(LinkUnavailable, match="unix:.*file/x: NotADirectoryError.*name a directory"):
        await link.start("a", lambda body, answer: None)


# --- NATS --------------------------------------------------------------------------------------------------


async def nats_nodes(stack: AsyncExitStack, url: str, **options: Any) -> tuple[Node, Node]:
    place = Place("nats", Path())
    place.nats = url
    place.stack = stack
    return await place.node("a", **options), await place.node("b", **options)


async def test_requests_end_when_the_connection_to_nats_is_lost_and_go_on_when_it_is_back(
    own_nats_server: NatsServer,
) -> None:
    async with AsyncExitStack() as stack:
        a, b = await nats_nodes(stack, own_nats_server.url)
        b.serve = lambda body, answer: None
        sent = a.send(b, b"1")
        await until(lambda: b.served)
        own_nats_server.stop()
        assert "lost its connection" in unknown(await sent.end())
        assert "lost its connection" in never(await a.ask(b, b"2"))
        own_nats_server.start()
        b.serve = lambda body, answer: answer(b"again")
        await until(lambda: is_connected(a.link) and is_connected(b.link))
        while (outcome := await a.ask(b, b"3")) != b"again":
            never(outcome)
            await asyncio.sleep(0.01)
        assert b"2" not in b.served


async def test_a_node_behind_nats_that_hangs_is_noticed_within_the_ttl(nats_server: NatsServer) -> None:
    async with AsyncExitStack() as stack:
        clock = ManualClock()
        a, b = await nats_nodes(stack, nats_server.url, clock=clock, ttl=4.0)
        b.serve = lambda body, answer: None
        sent = a.send(b, b"1")
        await until(lambda: b.served)
        for _ in range(20):  # heartbeats keep it alive
            clock.advance(1.0)
            await asyncio.sleep(0.02)
        assert not sent.outcomes
        node_is_deaf(b.link)
        began = clock.now
        while not sent.outcomes:
            clock.advance(0.5)
            await asyncio.sleep(0.01)
        assert clock.now - began <= 5.0
        assert "nothing was heard" in unknown(sent.outcome)


async def test_nats_that_cannot_be_reached_is_said_without_its_password() -> None:
    link = nats.NatsLink(
        "nats://joe:hunter2@127.0.0.1:1", cluster="bank", secret=None, ttl=0.1, clock=ManualClock()
    )
    with pytest.raises(LinkUnavailable, match="is a NATS server there") as raised:
        await link.start("a", lambda body, answer: None)
    assert "hunter2" not in str(raised.value)


async def test_nats_without_its_package_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    link = nats.NatsLink("nats://127.0.0.1:1", cluster="bank", secret=None, ttl=0.1, clock=ManualClock())
    with pytest.raises(LinkUnavailable, match=r"pip install 'uno-actors\[nats\]'"):
        await link.start("a", lambda body, answer: None)
