"""Certificates and key files as operators renew them."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme
from cryptography.x509 import load_pem_x509_certificate
from serving import PATIENCE

ALICE, BOB, NEXT = "sk-of-alice", "sk-of-bob-1", "sk-of-alice-next"


@dataclass
class Pki:
    """An authority, and the certificates that it has given out for 127.0.0.1."""

    ca: trustme.CA
    client: ssl.SSLContext

    @classmethod
    def create(cls) -> "Pki":
        """With a new authority, which the client trusts alone."""
        ca, client = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ca.configure_trust(client)
        return cls(ca, client)

    def issue(self, directory: Path, *, days: int = 90) -> int:
        """Put a new certificate with its key into a directory; returns its serial number."""
        end = datetime.now(timezone.utc) + timedelta(days=days)
        made = self.ca.issue_cert("127.0.0.1", not_before=end - timedelta(days=365), not_after=end)
        directory.mkdir(exist_ok=True)
        (directory / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        (directory / "tls.key").write_bytes(made.private_key_pem.bytes())
        return serial_of(made.cert_chain_pems[0].bytes().decode())

    def shown(self, port: int) -> int:
        """The serial number of the certificate that a handshake gets now."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
            self.client.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            told = secure.getpeercert(binary_form=True)
            assert told
            return serial_of(ssl.DER_cert_to_PEM_cert(told))


def serial_of(pem: str) -> int:
    """Of a certificate."""
    return load_pem_x509_certificate(pem.encode()).serial_number


def until(condition: Callable[[], bool]) -> None:
    """Ask now and then, and fail after a long time."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def tls(directory: Path) -> dict[str, Path]:
    """The settings that name a directory's certificate."""
    return {"tls_cert_file": directory / "tls.crt", "tls_key_file": directory / "tls.key"}


def renamed(new: Path, live: Path) -> None:
    """As editors and most clients of ACME do."""
    for name in ("tls.crt", "tls.key"):
        (new / name).replace(live / name)


def swapped(new: Path, live: Path) -> None:
    """As Kubernetes does: each name is a link through `..data`, which is a link to the newest directory."""
    for name in ("tls.crt", "tls.key"):
        with contextlib.suppress(OSError):
            (live / name).symlink_to(f"..data/{name}")
    (live / "..new").symlink_to(new)
    (live / "..new").replace(live / "..data")


def write(path: Path, *lines: str) -> None:
    """Put another file in a file's place."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    new.replace(path)
