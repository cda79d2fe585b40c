"""Server-sent events: rows that change, told to a bounded number of listeners.

One task looks at the rows once a second for as long as anybody listens. A listener that is slow misses the rows
in between and never makes anything grow: what it is told is the newest, and not a queue.

The events are ``rows`` (all of them, at the beginning), ``row`` (one that is new or has changed) and ``gone``
(the id of one that is no more); a comment is sent when nothing has happened for long.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from attar.apps.web.limits import Refusal

__all__ = ["Hub", "Stream"]

Row = dict[str, Any]

EVERY = 1.0  # seconds between two looks
SILENCE = 15.0  # seconds after which something is said, so that both sides know that the other is there
MOST_LISTENERS = 32


class Hub:
    """The newest rows and who listens. ``look`` runs in a thread, everything else on the event loop.

    Args:
        look: gives all rows, each with an ``id``.
        leaving: whether the server is about to end, so that listeners are let go.
    """

    def __init__(self, look: Callable[[], list[Row]], leaving: Callable[[], bool]) -> None:
        self.look, self.leaving = look, leaving
        self.listeners = 0
        self.rows: dict[str, Row] | None = None
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def place(self) -> Iterator[None]:
        """A listener's place; raises :class:`Refusal` 429 when there is none."""
        if self.listeners >= MOST_LISTENERS:
            raise Refusal(429, f"{self.listeners} pages listen already: close one, or ask /api/runs instead")
        self.listeners += 1
        try:
            yield
        finally:
            self.listeners -= 1
            if not self.listeners and self._watching is not None:
                self._watching.cancel()
                self._watching = self.rows = None

    async def tell(self) -> AsyncIterator[str]:
        """The events of one listener, until the server ends or the rows can no longer be seen."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        watching, told, silent = self._watching, None, 0.0
        yield "retry: 2000\n\n"
        while not self.leaving() and not watching.done():
            news, rows = self._news, self.rows
            if rows is not None and rows is not told:
                for event in _changes(told, rows):
                    silent = 0.0
                    yield event
                told = rows
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await news.wait()
            silent += EVERY
            if silent >= SILENCE:
                silent = 0.0
                yield ": nothing new\n\n"
        if watching.done():
            watching.result()  # raises what ended it

    async def _watch(self) -> None:
        while True:
            rows = {row["id"]: row for row in await asyncio.to_thread(self.look)}
            if rows != self.rows:
                self.rows, news, self._news = rows, self._news, asyncio.Event()
                news.set()
            await asyncio.sleep(EVERY)


class Stream(Response):
    """The answer that tells a hub's events to one client for as long as it listens."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        with self.hub.place():
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            telling = asyncio.create_task(self._tell(send))
            gone = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait((telling, gone), return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            finally:
                telling.cancel()
                gone.cancel()

    async def _tell(self, send: Send) -> None:
        async for event in self.hub.tell():
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _changes(old: dict[str, Row] | None, new: dict[str, Row]) -> Iterator[str]:
    if old is None:
        yield _event("rows", list(new.values()))
        return
    for name in old.keys() - new.keys():
        yield _event("gone", name)
    for name, row in new.items():
        if old.get(name) != row:
            yield _event("row", row)


def _event(kind: str, data: Any) -> str:
    """One event; JSON has no line breaks of its own."""
    return f"event: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
