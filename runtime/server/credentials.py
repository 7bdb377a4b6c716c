"""Keys and the certificate, read from their files again when these change, or on SIGHUP. What cannot be used is refused
in the log, and what was read before stays in use."""

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
from runtime.server.auth import ADMIN_KEY_FILE_VARIABLE, ADMIN_KEY_VARIABLE, Access, Keys, one_key, read_key, read_keys
from runtime.server.origins import ANY, look_up_names, read_hosts, read_origins
from runtime.server.rate_limit import share

EVERY = 2.0  # seconds between two looks at the files
STILL_LOOKING = 1.0  # seconds for a look to end; a network's file system may keep it for ever

log = logging.getLogger(__name__)

Stamp = tuple[int, ...]


@dataclass
class CredentialFiles:
    """Files that are read together. `read` reads them again, puts what they hold to use and says what that is."""

    files: tuple[Path, ...]
    read: Callable[[], str]
    used: tuple[Stamp, ...] = field(init=False)  # of the files as they were read
    seen: tuple[Stamp, ...] = field(init=False)  # at the last look
    refusal: str = ""  # why the files that are there now are not used

    def __post_init__(self) -> None:
        self.used = self.seen = self.stamps()

    def stamps(self) -> tuple[Stamp, ...]:
        """What the files are at this moment, links followed."""
        return tuple(map(_stamp, self.files))


class Credentials:
    """What callers and the server show each other. Raises KitError where the files cannot be used at first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked: SimpleQueue[bool] = SimpleQueue()  # whether to go on; a signal's handler may put into it
        # Their state is taken before they are read: what changes in between is read again.
        self._sources = [
            source
            for source in (
                CredentialFiles(_given(settings.tls_cert_file, settings.tls_key_file), self._read_certificate),
                CredentialFiles(_given(settings.keys_file, settings.admin_key_file), self._read_keys),
            )
            if source.files
        ]
        self.access = read_access(settings)
        certificate = read_tls(settings)
        self.tls = Tls(certificate) if certificate else None

    def read_again(self) -> None:
        """Read all files at once, in the thread that looks at them."""
        self._asked.put(True)

    @contextmanager
    def watched(self, *, every: float = EVERY) -> Iterator[None]:
        """Until the end of the block files that change are read again, within two looks, which are `every` seconds
        apart."""
        watching = threading.Thread(target=self._watch, args=(every,), name="credentials", daemon=True)
        watching.start()
        try:
            yield
        finally:
            self._asked.put(False)
            watching.join(STILL_LOOKING)

    def _watch(self, every: float) -> None:
        while True:
            try:
                asked, goes_on = True, self._asked.get(timeout=every)
            except Empty:
                asked, goes_on = False, True
            if not goes_on:
                return
            if asked and not self._sources:
                log.info("SIGHUP: neither keys nor a certificate are read from files")
            for source in self._sources:
                _look(source, asked=asked)

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


def _look(source: CredentialFiles, *, asked: bool) -> None:
    """Read the files of a source if they have changed, and do so no more: whoever writes them may still be at it.

    Files that were refused are read at each look: a right or a date may be all that they lack.
    """
    stamps = source.stamps()
    settled, source.seen = stamps == source.seen, stamps
    if stamps == source.used:
        source.refusal = ""
    if not asked and (stamps == source.used or not settled):
        return
    try:
        words = source.read()
    except Exception as error:  # noqa: BLE001 - a thread that ended would never look again
        refusal = str(error) if isinstance(error, KitError) else _unforeseen(source, error)
        if asked or refusal != source.refusal:
            source.refusal = refusal
            log.error("%s; what was read before stays in use", refusal)
    else:
        source.used, source.refusal = stamps, ""
        log.info("read again: %s", words)


def _unforeseen(source: CredentialFiles, error: Exception) -> str:
    """Without the error's words, which could quote a key."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{', '.join(map(str, source.files))}: {type(error).__name__} in {last.filename}, line {last.lineno}"


def _given(*paths: Path | None) -> tuple[Path, ...]:
    return tuple(under_project(path) for path in paths if path)


def _stamp(path: Path) -> Stamp:
    """What tells a file from another, or from itself with other content or rights; for none, why there is none."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def known_keys(settings: Settings) -> tuple[Keys, Keys]:
    """Those of callers, and the operators'. Raises KitError where a key cannot be used, or it is not clear which ones
    count."""
    if settings.api_key and settings.keys_file:
        raise KitError("ASR_API_KEY", "is set, and so is ASR_KEYS_FILE", "unset one: put the key into the file")
    if settings.admin_key and settings.admin_key_file:
        raise KitError(ADMIN_KEY_VARIABLE, f"is set, and so is {ADMIN_KEY_FILE_VARIABLE}", "unset one")
    keys, admin = Keys(), Keys()
    if settings.keys_file:
        keys = read_keys(under_project(settings.keys_file))
    if settings.api_key:
        keys = Keys((one_key(settings.api_key.get_secret_value(), owner="api", variable="ASR_API_KEY"),))
    if settings.admin_key:
        secret = settings.admin_key.get_secret_value()
        admin = Keys((one_key(secret, owner="admin", variable=ADMIN_KEY_VARIABLE),))
    if settings.admin_key_file:
        path = under_project(settings.admin_key_file)
        admin = Keys((read_key(path, owner="admin", variable=ADMIN_KEY_FILE_VARIABLE, least=LEAST_LETTERS),))
    if {key.digest for key in admin.known} & {key.digest for key in keys.known}:
        variable = ADMIN_KEY_FILE_VARIABLE if settings.admin_key_file else ADMIN_KEY_VARIABLE
        raise KitError(variable, "is a caller's key too", "openssl rand -hex 24 makes another")
    return keys, admin


def read_access(settings: Settings) -> Access:
    """Raises KitError as `known_keys` does."""
    keys, admin = known_keys(settings)
    origins = read_origins(settings.cors_origins)
    # A page that may ask anyway gains nothing by another name.
    hosts = frozenset({ANY}) if ANY in origins else read_hosts(settings.allowed_hosts)
    return Access(
        keys,
        admin,
        settings.requests_per_minute,
        settings.requests_at_once or share(settings.max_waiting),
        settings.sessions_at_once or settings.requests_at_once or share(settings.max_sessions),
        origins,
        hosts,
        frozenset() if keys.known or ANY in hosts else look_up_names(),
    )
