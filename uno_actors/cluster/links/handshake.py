"""The handshake of two nodes on a new connection: same protocol, same cluster, the expected node, the same secret.

The caller says hello; the host answers with a challenge; the caller proves that it knows the secret, and then the
host does. A proof is an HMAC over both nonces, both nodes and the role, so it can be used neither again nor in the
other direction; the secret itself is never sent. Either side refuses with a reason that the other can log.

Requests are sent only after the last proof. So whatever goes wrong before, they have never reached the other node.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PROTOCOL = 1
"""Version of the frames and of the handshake; nodes with another one are refused."""


def own_version() -> str:
    """The version of uno_actors that runs here."""
    try:
        return version("uno-actors")
    except PackageNotFoundError:  # from a directory that is not installed
        return "unknown"


class Refused(Exception):
    """One of the nodes refuses the other.

    Attributes:
        reason: Why, for the logs of both.
        by_other: Whether the other node has refused this one.
    """

    def __init__(self, reason: str, *, by_other: bool = False) -> None:
        self.reason = reason
        self.by_other = by_other
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node says of itself and expects of others.

    Attributes:
        node: Its id.
        cluster: Name of the cluster, the same for all nodes of a store.
        secret: Known to all of them; empty if they have none.
        protocol: Version of the protocol that it speaks.
        version: Version of uno_actors.
    """

    node: str
    cluster: str
    secret: bytes = b""
    protocol: int = PROTOCOL
    version: str = ""

    def greeting(self) -> dict[str, Any]:
        """What both sides say first."""
        return {
            "uno": self.protocol,
            "version": self.version,
            "cluster": self.cluster,
            "node": self.node,
            "nonce": secrets.token_bytes(32),
        }

    def proof(self, role: str, caller: Mapping[str, Any], host: Mapping[str, Any]) -> bytes:
        """Proof of the secret for one handshake."""
        parts: list[bytes] = [role.encode()]
        for said in (caller, host):
            parts += [said["nonce"], said["node"].encode(), said["cluster"].encode()]
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self.secret or b"none", text, "sha256")

    def check(self, said: Mapping[str, Any]) -> None:
        """Refuse a node with another protocol or cluster, by what it said first."""
        node = _field(said, "node", str) if "node" in said else "?"
        protocol, of = _field(said, "uno", int), _field(said, "version", str)
        if protocol != self.protocol:
            raise Refused(
                f"node {node} speaks version {protocol} of the protocol between nodes (uno_actors {of}), and node"
                f" {self.node} version {self.protocol} (uno_actors {self.version}): run equal versions"
            )
        _field(said, "nonce", bytes)
        if (cluster := _field(said, "cluster", str)) != self.cluster:
            raise Refused(
                f"node {node} belongs to cluster {cluster!r}, and node {self.node} to {self.cluster!r}"
            )


class Calling:
    """The handshake as the node sees it that has connected.

    Attributes:
        is_ready: Whether both have proved the secret.
    """

    def __init__(self, own: Identity, to: str) -> None:
        self.is_ready = False
        self._own = own
        self._to = to
        self._said = own.greeting() | {"to": to}
        self._heard: Mapping[str, Any] | None = None

    def first(self) -> dict[str, Any]:
        """What to send first."""
        return self._said

    def receive(self, message: object) -> dict[str, Any] | None:
        """What to send next, if anything.

        Raises:
            Refused: By this node or by the other one.
        """
        said = _map(message)
        if self._heard is None:
            self._own.check(said)
            if said["node"] != self._to:
                raise Refused(f"node {said['node']} has taken the place of node {self._to}")
            self._heard = said
            return {"proof": self._own.proof("caller", self._said, said)}
        _check_proof(self._own, "host", self._said, self._heard, said)
        self.is_ready = True
        return None


class Hosting:
    """The handshake as the node sees it that was connected to; see `Calling`."""

    def __init__(self, own: Identity) -> None:
        self.is_ready = False
        self._own = own
        self._said = own.greeting()
        self._heard: Mapping[str, Any] | None = None

    @property
    def caller(self) -> str:
        """Id of the other node; ``?`` before it is known."""
        return "?" if self._heard is None else str(self._heard["node"])

    def receive(self, message: object) -> dict[str, Any]:
        """What to send next; see `Calling.receive`."""
        said = _map(message)
        if self._heard is None:
            self._own.check(said)
            if (to := _field(said, "to", str)) != self._own.node:
                raise Refused(f"node {self._own.node} has taken the place of node {to}")
            self._heard = said
            _field(said, "node", str)
            return self._said
        _check_proof(self._own, "caller", self._heard, self._said, said)
        self.is_ready = True
        return {"proof": self._own.proof("host", self._heard, self._said)}


def _check_proof(
    own: Identity, role: str, caller: Mapping[str, Any], host: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    if not hmac.compare_digest(own.proof(role, caller, host), _field(said, "proof", bytes)):
        raise Refused(f"nodes {caller['node']} and {host['node']} have different secrets")


def _map(message: object) -> Mapping[str, Any]:
    if not isinstance(message, dict) or len(message) > 32:
        raise Refused("the other end is not a node of uno_actors")
    if isinstance(reason := message.get("refused"), str):
        raise Refused(reason, by_other=True)
    return message


def _field(said: Mapping[str, Any], name: str, kind: type) -> Any:
    value = said.get(name)
    if type(value) is not kind:
        raise Refused(f"the other end is not a node of uno_actors: its greeting has no {name!r}")
    return value
