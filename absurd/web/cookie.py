"""What browsers are given to keep: signed, so that they can hand it back but not change it.

A login holds the SHA-256 of the token that it was opened with, which is looked up with every request as the token
itself would be: a login ends with its token.  Without the signature, who has read the hashes in the database could
come in with them.
"""

from __future__ import annotations

import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256

LOGIN = "absurd_login"
"""Name of the cookie that holds a login."""


class Signer:
    """Signs for one purpose at a time: what was signed for one is nothing for another."""

    def __init__(self, secret: str | None, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        """`lifetime` of logins in seconds; without a `secret` what is signed counts in this process alone."""
        self._key = sha256(f"absurd.web {secret}".encode()).digest() if secret else secrets.token_bytes(32)
        self._clock = clock
        self.lifetime = lifetime

    def open_login(self, token_hash: str) -> str:
        """The value of a cookie for who has shown the token with this hash."""
        return self.seal("login", f"{int(self._clock() + self.lifetime)} {token_hash}")

    def read_login(self, cookie: str) -> str | None:
        """The hash of the token a login was opened with; None where it is over, or no login of ours."""
        until, _, token_hash = (self.unseal("login", cookie) or "0").partition(" ")
        return token_hash if self._clock() < int(until) else None

    def form_token(self, login: str) -> str:
        """What a form shown in a login sends along: a page of another site can send a form, but not read this."""
        return self._mac("form", login)

    def is_form_token(self, login: str, given: str) -> bool:
        """Whether `given` is of a form that was shown in this login."""
        return hmac.compare_digest(self.form_token(login), given.encode("ascii", "replace").decode())

    def seal(self, purpose: str, text: str) -> str:
        """`text` as a cookie can hold it, signed."""
        packed = urlsafe_b64encode(text.encode()).decode()
        return f"{packed}.{self._mac(purpose, packed)}"

    def unseal(self, purpose: str, sealed: str) -> str | None:
        """What was sealed for a purpose; None where it was not so."""
        packed, _, mac = sealed.partition(".")
        if not sealed.isascii() or not hmac.compare_digest(self._mac(purpose, packed), mac):
            return None
        return urlsafe_b64decode(packed).decode()

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose} {text}".encode("utf-8", "surrogateescape"), sha256).hexdigest()
