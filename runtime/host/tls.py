"""The certificate that the server answers https with."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from env.errors import KitError
from env.settings import Settings
from env.sources import under_project

CERTIFICATE, KEY = "ASR_TLS_CERT_FILE", "ASR_TLS_KEY_FILE"
READABLE = "make it readable for the user that the server runs as"
MATCHING = "openssl x509 -noout -pubkey -in CERTIFICATE, openssl pkey -pubout -in KEY: they must print the same"
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME, for which Python has no name


@dataclass(frozen=True)
class Certificate:
    """What to shake hands with, and until when clients take it, in seconds since the epoch."""

    context: ssl.SSLContext
    expires: float


class Tls:
    """The certificate in use. It can be replaced while the server answers: handshakes that begin then have the new one,
    connections that are open stay so."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.context = certificate.context  # what listens keeps this one for good
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        """Called in each handshake, also where the client names no server."""
        connection.context = self.certificate.context


def read_tls(settings: Settings, *, at_any_time: bool = False) -> Certificate | None:
    """What to shake hands with, TLS 1.2 or newer; None where the settings name no certificate.

    Raises KitError for one file without the other, files that cannot be read or do not belong together, a key that is
    encrypted and a certificate that clients would refuse for its purpose or, unless `at_any_time`, for its date.
    """
    if settings.tls_cert_file is None and settings.tls_key_file is None:
        return None
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        missing, given = (CERTIFICATE, KEY) if settings.tls_cert_file is None else (KEY, CERTIFICATE)
        raise KitError(missing, f"is not set, but {given} is", "set both for https, none for http")
    certificate, key = under_project(settings.tls_cert_file), under_project(settings.tls_key_file)
    for variable, path in ((CERTIFICATE, certificate), (KEY, key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise KitError(variable, f"{path} cannot be read: {error.strerror}", READABLE) from None
    try:
        context = _context(certificate, key)
        return Certificate(
            context, _try_handshake(context, certificate, NO_CHECK_TIME if at_any_time else ssl.VerifyFlags(0))
        )
    except OSError as error:  # replaced at this very moment
        raise KitError(CERTIFICATE, f"{certificate} cannot be read: {error.strerror}", READABLE) from None


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    def no_password() -> NoReturn:
        raise KitError(KEY, f"{key} is encrypted", f"openssl pkey -in {key} -out KEY writes one that is not")

    try:  # a certificate that is none is told from a key that is none: the file of a key holds no certificate
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError as error:
        reason = f"{certificate} holds no certificate in PEM ({error.reason or error})"
        raise KitError(CERTIFICATE, reason, "give the certificate, and those between it and the root, in PEM") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise KitError(KEY, f"{key} is not the key of the certificate {certificate}", MATCHING) from None
        reason = f"{key} cannot be used with the certificate {certificate} ({error.reason or error})"
        raise KitError(KEY, reason, "give the certificate's private key, in PEM and not encrypted") from None
    return context


def _try_handshake(server: ssl.SSLContext, certificate: Path, flags: ssl.VerifyFlags) -> float:
    """Shake hands with a client that trusts this certificate; returns when it expires. Raises KitError with what the
    client says against it."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= flags | ssl.VERIFY_X509_PARTIAL_CHAIN  # trusts the certificate itself, whoever signed it
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    ends = [asking, server.wrap_bio(to_server, to_client, server_side=True)]
    try:
        while ends:
            ends = [end for end in ends if not _handshake_done(end)]
    except ssl.SSLError as error:
        words = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
        reason = f"{certificate} would be refused by clients: {words}"
        raise KitError(CERTIFICATE, reason, f"openssl x509 -noout -dates -purpose -in {certificate}") from None
    told = asking.getpeercert()
    assert told
    return ssl.cert_time_to_seconds(str(told["notAfter"]))


def _handshake_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
