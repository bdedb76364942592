"""Who calls: an address, and the name and scope of a token.

Without any token the interface is there for its own machine alone, where whoever calls may do everything.  That is
asked for three times, for a page of another site may call this machine through a browser on it: the connection comes
from here, the name it was called by is this machine's (or a foreign name was made to lead here), and no proxy has
passed it on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from absurd import tokens
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import (
    DatabaseUnavailableError,
    ForbiddenError,
    InvalidInputError,
    RateLimitedError,
    UnauthenticatedError,
)
from absurd.tokens import PREFIX
from absurd.web.cookie import LOGIN, Signer
from absurd.web.throttle import Throttle

API = "/api/v1"
METRICS = "/metrics"
OPEN = frozenset({f"{API}/health", f"{API}/openapi.json", f"{API}/docs", "/login"})
"""What is there for everybody: nothing of it tells what the queue holds."""
ASSETS = "/static/"
"""So begins what pages look by; it is there for everybody too."""
LOCAL = "local"
"""The name of who needs no token."""
_TOKEN_LENGTH = len(tokens.new_token())
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


class Caller(NamedTuple):
    """Who calls; `scope` is None for whom nothing but what is open is there."""

    name: str
    scope: tokens.Scope | None
    address: str


class Access:
    """Lets a request through with its `Caller`, as ``scope["state"]["caller"]``, or raises why not."""

    def __init__(self, app: ASGIApp, *, settings: Settings, signer: Signer) -> None:
        self._app = app
        self._signer = signer
        self._throttle = Throttle(settings.web_rate, time.monotonic)
        self._allowed = [ip_network(each) for each in settings.web_allow]
        self._proxies = [ip_network(each) for each in settings.web_proxies]
        self._origins = settings.web_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises UnauthenticatedError, ForbiddenError, RateLimitedError, InvalidInputError."""
        if scope["type"] != "lifespan":
            scope["state"]["caller"] = caller = await self._admit(scope)
            scope["state"]["still_admitted"] = partial(self._still_admitted, scope, caller)
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        address = self._address(scope, headers)
        scope["state"]["address"] = told = str(address or "")
        if self._allowed and not _is_in(address, self._allowed):
            raise ForbiddenError(
                f"{told or 'an unknown address'} may not call here: the setting web_allow does not name it"
            )
        scope["state"]["secure"] = self._is_secure(scope, headers)
        scope["state"]["login"] = login = _login(scope)
        place = _network(address)
        _wait(self._throttle.look(place))
        if scope.get("method") not in ("GET", "HEAD", "OPTIONS"):  # any page may open a WebSocket with the user's login
            self._refuse_other_sites(headers)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise InvalidInputError("the address holds the character NUL, which nothing is called by")
        token = _token(headers)
        bearer = await self._bearer(scope["app"].state.database, token, login)
        if bearer is not None:
            _wait(self._throttle.take(f"token {bearer.name}"))
            return Caller(bearer.name, bearer.scope, told)
        _wait(self._throttle.take(place))
        if scope["path"] in OPEN or scope["path"].startswith(ASSETS):
            return Caller("", None, told)
        if token is not None:
            raise UnauthenticatedError("this token is not let in: it is unknown, over or revoked")
        if await _has_tokens(scope["app"].state.database):
            raise UnauthenticatedError("a token is needed: Authorization: Bearer TOKEN")
        if not _is_from_here(scope, headers):
            raise UnauthenticatedError(
                "no token was made, so that only programs on the server's own machine are let in; "
                "make one there with `absurd token create`"
            )
        return Caller(LOCAL, tokens.Scope.ADMIN, told)

    async def _still_admitted(self, scope: Scope, caller: Caller) -> bool:
        """Whether who was let in as `caller` would be now; while the database is away, yes."""
        database: AsyncDatabase | None = scope["app"].state.database
        try:
            token = _token(Headers(scope=scope))
            if token is None and caller.name == LOCAL:
                return not await _has_tokens(database)
            return await self._bearer(database, token, scope["state"]["login"]) == (caller.name, caller.scope)
        except DatabaseUnavailableError:
            return True

    async def _bearer(self, database: AsyncDatabase | None, token: str | None, login: str) -> tokens.Bearer | None:
        """Whose the token is, or else that of the login."""
        if database is None:
            return None
        if token is None:
            token_hash = self._signer.read_login(login)
            return None if token_hash is None else await database.run(tokens.check_token_hash(token_hash))
        if not token.startswith(PREFIX) or len(token) != _TOKEN_LENGTH:
            return None  # the database need not be asked
        return await database.run(tokens.check_token(token))

    def _is_secure(self, scope: Scope, headers: Headers) -> bool:
        """Whether the caller's connection is encrypted; of one that a proxy of ours has passed on, it tells that."""
        peer = _ip(scope["client"][0] if scope.get("client") else "")
        passed_on = _is_in(peer, self._proxies) and headers.get("x-forwarded-proto") == "https"
        return bool(scope["scheme"] == "https" or passed_on)

    def _refuse_other_sites(self, headers: Headers) -> None:
        """Only browsers say where a page is from, and they do so with whatever may change something."""
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return
        if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise ForbiddenError("a page of another site may not call here, unless the setting web_origins names it")

    def _address(self, scope: Scope, headers: Headers) -> _Address | None:
        """Who called; of what proxies of ours have passed on, who called the first of them."""
        address = _ip(scope["client"][0] if scope.get("client") else "")
        passed_on = ",".join(headers.getlist("x-forwarded-for")).split(",")
        while passed_on and _is_in(address, self._proxies):
            told = _ip(passed_on.pop().strip())
            if told is None:
                break
            address = told
        return address


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, is this machine's own and no other can reach it."""
    address = _ip(host.strip("[]"))
    return host.lower() == "localhost" if address is None else address.is_loopback


async def _has_tokens(database: AsyncDatabase | None) -> bool:
    """Where a file of products is served there is no database, and so no token."""
    return database is not None and await database.run(tokens.has_tokens())


def _is_from_here(scope: Scope, headers: Headers) -> bool:
    peer = _ip(scope["client"][0] if scope.get("client") else "")
    if peer is None or not peer.is_loopback or any(name in headers for name in _FORWARDED):
        return False
    return is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or "")


def _token(headers: Headers) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _login(scope: Scope) -> str:
    """The login's cookie, where it counts: programs' routes change nothing by it, for these take no form's token."""
    if scope["path"].startswith(API) and scope.get("method", "GET") not in ("GET", "HEAD"):
        return ""
    return str(HTTPConnection(scope).cookies.get(LOGIN, ""))


def _ip(text: str) -> _Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_in(address: _Address | None, networks: Sequence[_Network]) -> bool:
    return address is not None and any(address in each for each in networks)


def _network(address: _Address | None) -> str:
    """What counts as one place: who has one IPv6 address mostly has 2**64."""
    return str(ip_network((address, 64), strict=False) if isinstance(address, IPv6Address) else address)


def _wait(seconds: float) -> None:
    if seconds > 0:
        raise RateLimitedError("too many requests from there; wait a little", retry_after=seconds)
