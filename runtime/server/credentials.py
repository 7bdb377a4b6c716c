"""Keys and the certificate, read again when their files change, or on SIGHUP. Files that cannot be used are reported in
the log, and what was read before stays in use."""

import logging
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from queue import Empty, SimpleQueue

from env.errors import KitError
from env.groups.access import LEAST_LETTERS
from env.settings import Settings
from env.sources import under_project
from runtime.host.tls import Tls, read_tls
from runtime.server.auth import ADMIN_KEY_FILE_VARIABLE, ADMIN_KEY_VARIABLE, Access, Keys, make_key, read_key, read_keys
from runtime.server.origins import ANY_NAME, look_up_names, read_hosts, read_origins
from runtime.server.rate_limit import fair_share

CREDENTIALS_POLL_INTERVAL = 2.0  # seconds
WATCHER_STOP_TIMEOUT = 1.0  # seconds; a network file system may block it for ever

log = logging.getLogger(__name__)

Stamp = tuple[int, ...]


@dataclass
class CredentialFiles:
    """Files that are read together. `read` loads them, puts their content to use and returns a description of it."""

    files: tuple[Path, ...]
    read: Callable[[], str]
    used: tuple[Stamp, ...] = field(init=False)  # the versions that are in use
    seen: tuple[Stamp, ...] = field(init=False)  # at the last poll
    refusal: str = ""  # why the current files are not used

    def __post_init__(self) -> None:
        self.used = self.seen = self.stamps()

    def stamps(self) -> tuple[Stamp, ...]:
        """The files' current versions; links are followed, as Kubernetes replaces them."""
        return tuple(map(_stamp, self.files))


class Credentials:
    """The keys, limits and certificate in use. Raises KitError if they cannot be read at first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._requests: SimpleQueue[bool] = SimpleQueue()  # whether to go on; a signal's handler may put into it
        # Their versions are taken before they are read: what changes in between is read again.
        self._sources = [
            source
            for source in (
                CredentialFiles(_paths(settings.tls_cert_file, settings.tls_key_file), self._read_certificate),
                CredentialFiles(_paths(settings.keys_file, settings.admin_key_file), self._read_keys),
            )
            if source.files
        ]
        self.access = read_access(settings)
        certificate = read_tls(settings)
        self.tls = Tls(certificate) if certificate else None

    def reload(self) -> None:
        """Read all files now, in the watching thread."""
        self._requests.put(True)

    @contextmanager
    def watching(self, *, interval: float = CREDENTIALS_POLL_INTERVAL) -> Iterator[None]:
        """Until the block ends, read files again when they have changed; seen within two polls, `interval` seconds
        apart."""
        watching = threading.Thread(target=self._watch, args=(interval,), name="credentials", daemon=True)
        watching.start()
        try:
            yield
        finally:
            self._requests.put(False)
            watching.join(WATCHER_STOP_TIMEOUT)

    def _watch(self, interval: float) -> None:
        while True:
            try:
                is_requested, go_on = True, self._requests.get(timeout=interval)
            except Empty:
                is_requested, go_on = False, True
            if not go_on:
                return
            if is_requested and not self._sources:
                log.info("SIGHUP: neither keys nor a certificate are read from files")
            for source in self._sources:
                _check_source(source, is_requested=is_requested)

    def _read_certificate(self) -> str:
        certificate = read_tls(self._settings)
        assert certificate
        assert self.tls
        self.tls.certificate = certificate
        expires = datetime.fromtimestamp(certificate.expires, timezone.utc)
        return f"the certificate, valid until {expires:%Y-%m-%d %H:%M} UTC"

    def _read_keys(self) -> str:
        (keys, admin), access = known_keys(self._settings), self.access
        old, new = ({key.digest for key in known.known} for known in (access.keys, keys))
        changed = ", another admin key" if admin != access.admin else ""
        access.keys, access.admin = keys, admin
        return f"keys: {len(new)} of callers, {len(new - old)} new, {len(old - new)} gone{changed}"


def _check_source(source: CredentialFiles, *, is_requested: bool) -> None:
    """Read a source's files again if they have changed and have stopped changing: they may be half written.

    Rejected files are tried at every poll, as a permission or a date may be all that was wrong.
    """
    stamps = source.stamps()
    settled, source.seen = stamps == source.seen, stamps
    if stamps == source.used:
        source.refusal = ""
    if not is_requested and (stamps == source.used or not settled):
        return
    try:
        description = source.read()
    except Exception as error:  # noqa: BLE001 - a thread that ended would never look again
        refusal = str(error) if isinstance(error, KitError) else _describe_bug(source, error)
        if is_requested or refusal != source.refusal:
            source.refusal = refusal
            log.error("%s; what was read before stays in use", refusal)
    else:
        source.used, source.refusal = stamps, ""
        log.info("read again: %s", description)


def _describe_bug(source: CredentialFiles, error: Exception) -> str:
    """Name an unexpected error without its message, which could quote a key."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{', '.join(map(str, source.files))}: {type(error).__name__} in {last.filename}, line {last.lineno}"


def _paths(*paths: Path | None) -> tuple[Path, ...]:
    return tuple(under_project(path) for path in paths if path)


def _stamp(path: Path) -> Stamp:
    """Identify a file's version by inode, size and times; a missing file by its errno."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def known_keys(settings: Settings) -> tuple[Keys, Keys]:
    """Read the callers' keys and the admin keys. Raises KitError for an unusable key, or two sources of the same
    kind."""
    if settings.api_key and settings.keys_file:
        raise KitError("ASR_API_KEY", "is set, and so is ASR_KEYS_FILE", "unset one: put the key into the file")
    if settings.admin_key and settings.admin_key_file:
        raise KitError(ADMIN_KEY_VARIABLE, f"is set, and so is {ADMIN_KEY_FILE_VARIABLE}", "unset one")
    keys, admin = Keys(), Keys()
    if settings.keys_file:
        keys = read_keys(under_project(settings.keys_file))
    if settings.api_key:
        keys = Keys((make_key(settings.api_key.get_secret_value(), owner="api", variable="ASR_API_KEY"),))
    if settings.admin_key:
        secret = settings.admin_key.get_secret_value()
        admin = Keys((make_key(secret, owner="admin", variable=ADMIN_KEY_VARIABLE),))
    if settings.admin_key_file:
        path = under_project(settings.admin_key_file)
        admin = Keys((read_key(path, owner="admin", variable=ADMIN_KEY_FILE_VARIABLE, min_length=LEAST_LETTERS),))
    if {key.digest for key in admin.known} & {key.digest for key in keys.known}:
        variable = ADMIN_KEY_FILE_VARIABLE if settings.admin_key_file else ADMIN_KEY_VARIABLE
        raise KitError(variable, "is a caller's key too", "openssl rand -hex 24 makes another")
    return keys, admin


def read_access(settings: Settings) -> Access:
    """Read keys, limits, origins and host names from the settings. Raises KitError like `known_keys`."""
    keys, admin = known_keys(settings)
    origins = read_origins(settings.cors_origins)
    # A page that may ask anyway gains nothing by another name.
    hosts = frozenset({ANY_NAME}) if ANY_NAME in origins else read_hosts(settings.allowed_hosts)
    return Access(
        keys,
        admin,
        settings.requests_per_minute,
        settings.requests_at_once or fair_share(settings.max_waiting),
        settings.sessions_at_once or settings.requests_at_once or fair_share(settings.max_sessions),
        origins,
        hosts,
        frozenset() if keys.known or ANY_NAME in hosts else look_up_names(),
    )
