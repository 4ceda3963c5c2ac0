"""Servers and certificates for the tests of clusters."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.broker_servers import NatsServer
from uno_actors.cluster.links.certificates import Certificates


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
