"""Two nodes in networks of their own, whose cable is cut: both still reach the store, but not each other."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Authority
from tests.cluster.workers import Worker, check, more
from tests.new_stores import new_store_url

IP = shutil.which("ip") or ""


class Networks:
    """Two network namespaces with a cable between them."""

    def __init__(self) -> None:
        self.names = [f"uno-{os.getpid()}-{letter}" for letter in "ab"]
        self.addresses = ["10.213.7.1", "10.213.7.2"]

    def make(self) -> str | None:
        """Make them; returns why this machine does not allow it, if so."""
        a, b = self.names
        try:
            for name in self.names:
                ip("netns", "add", name)
            ip("link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b)
            for name, address in zip(self.names, self.addresses, strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
                ip("-n", name, "link", "set", "cable", "up")
        except subprocess.CalledProcessError as error:
            return str(error.stderr.decode().strip())
        return None

    def set_cable(self, how: str) -> None:
        """``down`` or ``up``."""
        ip("-n", self.names[0], "link", "set", "cable", how)

    def remove(self) -> None:
        for name in self.names:
            subprocess.run([IP, "netns", "delete", name], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True)


@pytest.fixture
def networks() -> Iterator[Networks]:
    if not IP:
        pytest.skip("there is no program `ip` on this machine, which makes network namespaces")
    made = Networks()
    try:
        if (reason := made.make()) is not None:
            pytest.skip(f"network namespaces cannot be made here: {reason}")
        yield made
    finally:
        made.remove()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ["lmdb", "postgres"])
async def test_nodes_that_cannot_reach_each_other_both_serve_all_and_record_nothing_twice(
    engine: str, networks: Networks, authority: Authority, tmp_path: Path
) -> None:
    url = await new_store_url(engine, tmp_path)
    both = []
    for name, network in zip("ab", networks.names, strict=True):
        files = authority.certificates(f"{engine}-{name}")
        options = {
            "secret": "of the test",
            "certificate": str(files.certificate),
            "key": str(files.key),
            "authority": str(files.authority),
        }
        both.append(Worker(name, [IP, "netns", "exec", network], options))
    try:
        for worker, address in zip(both, networks.addresses, strict=True):
            await worker.start(url, f"{address}:0")
            assert "ready" in worker.said
        for worker in both:
            worker.write(2)
        await asyncio.gather(*[more(worker, 40) for worker in both])
        networks.set_cable("down")
        await asyncio.gather(*[more(worker, 200) for worker in both])
        networks.set_cable("up")
        await asyncio.gather(*[more(worker, 40) for worker in both])
        await asyncio.gather(*[worker.end() for worker in both])
        for worker in both:
            assert worker.errors == []
            assert worker.statistics["sent"]
            assert worker.statistics["sent_again"]
        await check(url, both)
    finally:
        for worker in both:
            if worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()
