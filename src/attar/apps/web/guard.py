"""What stands before every route: who may ask, and what every answer carries.

A page of another site must not reach a server on this machine, neither under its own name (DNS rebinding:
the Host header then names that site) nor across sites (the browser then sends Origin or Sec-Fetch-Site).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from attar.apps.web.limits import Limits

__all__ = ["CONTENT_SECURITY_POLICY", "Guard"]

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; script-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
LOCAL = ("127.0.0.1", "localhost", "::1")
OWN_SITE = ("same-origin", "none")


class Guard:
    """ASGI middleware that checks Host, Origin and the declared length, and adds the security headers."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.hosts = {*LOCAL, *(host.lower() for host in limits.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                mark(message, scope["path"])
            await send(message)

        fault = self.fault(scope)
        if fault is None:
            await self.app(scope, receive, send_marked)
            return
        status, sentence = fault
        await send_marked(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"application/json"), (b"connection", b"close")],
            }
        )
        await send({"type": "http.response.body", "body": json.dumps({"error": sentence}).encode()})

    def fault(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that is refused as it stands, or None."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if hostname(f"//{host}") not in self.hosts:
            return 421, (
                f"this server does not answer to the name {host[:100]!r}; it knows {', '.join(sorted(self.hosts))} "
                "(attar serve --allow-host NAME adds one)"
            )
        origin = headers.get("origin")
        if origin is not None and own_address(origin) != host.lower():
            return 403, f"requests from pages of {origin[:100]!r} are not served, only from this server's own"
        api = scope["path"].startswith("/api/")
        if api and headers.get("sec-fetch-site", "none") not in OWN_SITE:
            return 403, "requests from pages of other sites are not served, only from this server's own"
        return self.length_fault(headers.getlist("content-length"))

    def length_fault(self, declared: Iterable[str]) -> tuple[int, str] | None:
        """The refusal of a body that is declared too large, before any of it is read."""
        for text in declared:
            if not text.isdecimal():
                return 400, f"a content-length of {text[:40]!r} is no number of bytes"
            if int(text) > self.limits.max_bytes:
                return 413, (
                    f"{text} bytes were announced; at most {self.limits.max_bytes} are taken "
                    "(attar serve --max-bytes raises the limit)"
                )
        return None


def mark(message: MutableMapping[str, Any], path: str) -> None:
    """Put the security headers on an answer."""
    headers = MutableHeaders(raw=message["headers"])
    message["headers"] = headers.raw
    for name, value in HEADERS:
        headers[name] = value
    headers["cache-control"] = "no-store" if path.startswith("/api/") else "no-cache"


def hostname(url: str) -> str | None:
    """The host of a URL in small letters, or None where there is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def own_address(origin: str) -> str | None:
    """Host and port of an Origin header as the Host header writes them; None for ``null`` and nonsense."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None
