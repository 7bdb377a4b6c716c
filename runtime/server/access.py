"""Who may ask, as the settings have it."""

from collections.abc import Container
from dataclasses import dataclass, field

from starlette.types import Scope

from env.errors import KitError
from env.groups.access import LEAST_LETTERS
from env.settings import Settings
from env.sources import under_project
from runtime.server import auth
from runtime.server.auth import Key, KeyAttempts, Keys, given_key, one_key, read_key, read_keys, unknown
from runtime.server.origins import ANY, look_up_names, read_hosts, read_origins
from runtime.server.rate_limit import Caller, share
from runtime.urls import network


@dataclass
class Access:
    """Callers' keys and limits, the operators' key, the origins of pages, and the server's names, which count where
    there are no keys: those of the settings, and this machine's own. Keys can be replaced while the server answers."""

    keys: Keys = field(default_factory=Keys)
    admin: Keys = field(default_factory=Keys)
    per_minute: int | None = None
    at_once: int | None = None
    sessions: int | None = None
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    own_names: Container[str] = frozenset()

    def key(self, scope: Scope, guesses: KeyAttempts) -> Key | None:
        """The key of a request, None where none is needed. Raises ApiError, 401, for none or a wrong one, and 429 for
        one of too many."""
        if not self.keys.known:
            return None
        key = guesses.find(self.keys, scope)
        if key is None:
            needed = "a key is needed: Authorization: Bearer KEY"
            raise unknown("the key is none of this server's" if given_key(scope) else needed, "invalid_api_key")
        return key

    def is_revoked(self, key: Key | None) -> bool:
        """Whether a key that a request came with is none of this server's any more."""
        return key is not None and key.digest not in {known.digest for known in self.keys.known}

    def caller(self, scope: Scope, key: Key | None) -> Caller:
        """Who a request counts for: the key's owner, or the address it comes from."""
        if key is None:
            return Caller(network(scope["client"][0]), self.per_minute, self.at_once, self.sessions)
        per_minute, at_once = key.per_minute or self.per_minute, key.at_once or self.at_once
        return Caller(key.owner, per_minute, at_once, key.sessions or key.at_once or self.sessions)


def known_keys(settings: Settings) -> tuple[Keys, Keys]:
    """Those of callers, and the operators'. Raises KitError where a key cannot be used, or it is not clear which ones
    count."""
    if settings.api_key and settings.keys_file:
        raise KitError("ASR_API_KEY", "is set, and so is ASR_KEYS_FILE", "unset one: put the key into the file")
    if settings.admin_key and settings.admin_key_file:
        raise KitError(auth.ADMIN_KEY_VARIABLE, f"is set, and so is {auth.ADMIN_KEY_FILE_VARIABLE}", "unset one")
    keys, admin = Keys(), Keys()
    if settings.keys_file:
        keys = read_keys(under_project(settings.keys_file))
    if settings.api_key:
        keys = Keys((one_key(settings.api_key.get_secret_value(), owner="api", variable="ASR_API_KEY"),))
    if settings.admin_key:
        secret = settings.admin_key.get_secret_value()
        admin = Keys((one_key(secret, owner="admin", variable=auth.ADMIN_KEY_VARIABLE),))
    if settings.admin_key_file:
        path = under_project(settings.admin_key_file)
        admin = Keys((read_key(path, owner="admin", variable=auth.ADMIN_KEY_FILE_VARIABLE, least=LEAST_LETTERS),))
    if {key.digest for key in admin.known} & {key.digest for key in keys.known}:
        variable = auth.ADMIN_KEY_FILE_VARIABLE if settings.admin_key_file else auth.ADMIN_KEY_VARIABLE
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
