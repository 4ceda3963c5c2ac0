"""TLS between nodes: each shows a certificate, and each checks that the cluster's authority has signed the other's.

The name in a certificate is not compared with the address: nodes come and go under new addresses. So the authority must
sign certificates of nodes alone.
"""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from uno_actors.errors import LinkUnavailable


@dataclass(frozen=True, slots=True)
class Certificates:
    """The PEM files of a node.

    Attributes:
        certificate: Its certificate, and those between it and the authority.
        key: The key of the certificate.
        authority: The certificate that signed those of all nodes.
    """

    certificate: Path
    key: Path
    authority: Path

    def contexts(self, address: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """What TLS needs to accept connections, and to make them; both sides show certificates.

        Raises:
            LinkUnavailable: A file cannot be used; says which and why.
        """
        for name in ("certificate", "key", "authority"):
            path: Path = getattr(self, name)
            try:
                with path.open("rb") as file:
                    text = file.read()
            except OSError as error:
                raise LinkUnavailable(
                    address, f"the file of `{name}`, {path}, cannot be read: {os.strerror(error.errno or 0)}"
                ) from error
            if b"-----BEGIN " not in text:
                raise LinkUnavailable(address, f"the file of `{name}`, {path}, is not a PEM file")
        return self._context(address, ssl.Purpose.CLIENT_AUTH), self._context(
            address, ssl.Purpose.SERVER_AUTH
        )

    def _context(self, address: str, purpose: ssl.Purpose) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(purpose, cafile=self.authority)
        except (ssl.SSLError, ValueError) as error:
            reason = f"the file of `authority`, {self.authority}, has no certificate: {error}"
            raise LinkUnavailable(address, reason) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            reason = (
                f"{self.certificate} and {self.key} are not a certificate and its key: {error}. Give the certificate in"
                " `certificate` and its own key, not encrypted, in `key`"
            )
            raise LinkUnavailable(address, reason) from error
        return context


def _no_password() -> bytes:
    """Without it, OpenSSL would ask for the password of an encrypted key at the terminal."""
    return b""
