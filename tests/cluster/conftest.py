"""Servers and certificates for the tests of clusters."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from uno_actors.cluster.links.certificates import Certificates


class NatsServer:
    """A NATS server of a test, on a free port."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._port = -1
        self.start()

    def start(self, *options: str) -> None:
        program = Path(sys.executable).with_name("nats-server")
        arguments = ["-a", "127.0.0.1", "-p", str(self._port), "--ports_file_dir", str(self._directory)]
        self._process = subprocess.Popen(
            [program, *arguments, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        file = self._directory / f"nats-server_{self._process.pid}.ports"
        while not file.exists() or not file.read_text():
            assert self._process.poll() is None, "the server has ended"
            time.sleep(0.01)
        self.url = json.loads(file.read_text())["nats"][0]
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that all tests share."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture
def own_nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that the test may stop and start."""
    server = NatsServer(tmp_path)
    yield server
    server.stop()


class Authority:
    """An authority that signs certificates of nodes, as files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.path = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.path))

    def certificates(self, name: str) -> Certificates:
        signed = self._authority.issue_cert(f"{name}.example.org")
        certificate, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        for place in (certificate, key):
            place.unlink(missing_ok=True)
        for blob in signed.cert_chain_pems:
            blob.write_to_path(str(certificate), append=True)
        signed.private_key_pem.write_to_path(str(key))
        return Certificates(certificate, key, self.path)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"))
