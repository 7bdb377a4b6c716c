"""Who may give a running server orders: whoever has the admin key, or where there is none, this machine."""

from starlette.datastructures import Headers
from starlette.types import Scope

from runtime.server.errors import ApiError
from runtime.server.guesses import Guesses
from runtime.server.keys import Keys, unknown
from runtime.urls import hostname, is_loopback

VARIABLE, FILE_VARIABLE = "ASR_ADMIN_KEY", "ASR_ADMIN_KEY_FILE"
# What proxies add beside X-Forwarded-*: the standards' own (RFC 7239, RFC 9110), and those of nginx's examples, Envoy,
# Akamai, Cloudflare and Azure.
FORWARDED = (
    *("forwarded", "via", "x-real-ip", "x-client-ip", "x-original-host", "x-original-forwarded-for"),
    *("x-envoy-external-address", "true-client-ip", "cf-connecting-ip", "x-arr-log-id"),
)
OLD_HTTP = "1.0"  # in which nginx asks where nothing else is set, and no client of ours does


def check_operator(scope: Scope, admin: Keys, guesses: Guesses) -> None:
    """Raises ApiError, 401 or 403, for an admin call that is nobody's who may make it, and 429 for a wrong key of too
    many."""
    if admin.known:
        if guesses.find(admin, scope) is None:
            words = f"admin calls need the key of {VARIABLE} or {FILE_VARIABLE}: Authorization: Bearer KEY"
            raise unknown(words, "invalid_admin_key")
    elif reason := _elsewhere(scope):
        words = f"without {VARIABLE} admin calls are answered to this machine alone, and {reason}"
        raise ApiError(403, words, code="not_local")


def is_forwarded(headers: Headers) -> bool:
    """Whether a request says that it comes through a proxy."""
    return any(name in FORWARDED or name.startswith("x-forwarded-") for name in headers)


def _elsewhere(scope: Scope) -> str:
    """Why a call may not be this machine's own; empty if it is."""
    headers = Headers(scope=scope)
    address, _ = scope["client"]
    if not is_loopback(address):
        return f"this one comes from {address}"
    if is_forwarded(headers) or scope["http_version"] == OLD_HTTP:
        return "this one comes through a proxy"
    # A page that the operator looks at can call this machine too; with a name of its own for it, unnoticed by browsers.
    if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
        return "this one comes from a page in a browser"
    host = headers.get("host", "")
    if not is_loopback(hostname(host)):
        return f"this one is for {host or 'no host'}, not for localhost"
    return ""
