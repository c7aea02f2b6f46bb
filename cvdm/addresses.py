"""Addresses of stores and servers as people may see them: without what opens them.

    shown_uri         one address, for messages, tables and links
    without_password  somebody else's text, which may quote it
    harmless          a cause to raise an error from, whose traceback may quote it

Passwords stand before the host (`scheme://user:password@host`) or in the query (`?password=...`).
Not covered: a password in a code of its own such as base64.
"""

from __future__ import annotations

import re
import traceback
from urllib.parse import parse_qsl, quote, quote_plus, unquote

FILES = ("sqlite:", "file:", "/")
"""How addresses begin that name a file; an @ belongs to its path."""
WEB_USER = re.compile(r"[^/?#]*@|(?![^/?#]*:\d*(?:[/?#]|$))[^/?#]*:.*@", re.DOTALL)
"""User and password before a host; the second kind is one with a / that should have been quoted."""
STORE_USER = re.compile(r"[^/]*:.*@|[^/]*@", re.DOTALL)
"""The same of databases, which take a password with a / as it is."""
QUOTED_USER = re.compile(r"(?<=://)[^\s/?#'\"]*@")
"""The same, of any address within a text."""
OPENING = re.compile(r"pass|pwd|secret|token|odbc_connect", re.IGNORECASE)
"""Names of what opens a store, in a query."""
HIDDEN = "***"
LEAST_PIECE = 3
"""Characters of a part of a password that is looked for by itself."""


def shown_uri(uri: str) -> str:
    """An address without user, password and query; one of a file as it is."""
    if uri.startswith(FILES):
        return uri
    scheme, _, place = _parts(uri)
    return scheme + re.split("[?#]", place)[0]


def without_password(text: str, uri: str) -> str:
    """A text without the password of an address, quoted or not, and without users in any address."""
    told = text.replace(uri, shown_uri(uri))
    forms = sorted({form for secret in _secrets(uri) for form in _forms(secret)}, key=len, reverse=True)
    if forms:
        told = re.sub("|".join(map(re.escape, forms)), HIDDEN, told, flags=re.IGNORECASE)
    return QUOTED_USER.sub("", told)


def harmless(error: BaseException, uri: str) -> BaseException | None:
    """The error, or None where its traceback would show the password of an address."""
    told = "".join(traceback.format_exception(error))
    return error if without_password(told, uri) == told else None


def _parts(uri: str) -> tuple[str, str, str]:
    """Scheme with its slashes, user and password with their @, and the rest; each may be empty."""
    before, slashes, after = uri.partition("://")
    scheme, rest = (before + slashes, after) if slashes else ("", uri)
    pattern = WEB_USER if before in ("http", "https") else STORE_USER
    user = found.group() if (found := pattern.match(rest)) else ""
    return scheme, user, rest[len(user) :]


def _secrets(uri: str) -> set[str]:
    """What opens the store, as it is written in its address; a user alone may be a token."""
    if uri.startswith(FILES):
        return set()
    scheme, user, place = _parts(uri)
    name, _, password = user.removesuffix("@").partition(":")
    query = place.partition("?")[2]
    found = {value for key, value in parse_qsl(query) if OPENING.search(key)} | {password}
    if scheme.startswith("http") and not password:
        found.add(name)
    return found - {""}


def _forms(secret: str) -> set[str]:
    """The ways in which libraries write it, and the pieces into which they cut one that is not quoted."""
    plain = unquote(secret)
    quoted = {quote(plain), quote(plain, safe=""), quote(plain, safe=" +"), quote_plus(plain)}
    pieces = {piece for piece in re.split("[@:/?#]", secret) if len(piece) >= LEAST_PIECE}
    return {secret, plain, repr(plain)[1:-1]} | quoted | pieces
