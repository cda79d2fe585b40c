"""A bounded place for work: so many requests at once, so many waiting, so many bytes; the rest is told 429."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from attar.apps.web.limits import Limits, Refusal

__all__ = ["Place", "Pool"]

Value = TypeVar("Value")
CLIENT_CLOSED = 499
"""What nginx logs where the client left before the answer; nobody reads it."""


class Pool:
    """Threads that do the requests' work. Counts are only touched on the event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.admitted = 0
        self.held = 0
        self.open()

    @asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[Place]:
        """A place for one request, from before its body is read until its work has ended.

        Raises :class:`Refusal` 429 at once when there is none.
        """
        size = int(request.headers.get("content-length", self.limits.max_bytes))
        full = self.admitted >= self.limits.workers + self.limits.queue
        if full or (self.admitted and self.held + size > self.limits.held_bytes):
            raise Refusal(429, f"the server is busy with {self.admitted} requests: try again in a second")
        self.admitted += 1
        self.held += size
        place = Place(self, request)
        try:
            yield place
        finally:
            running = [work for work in place.works if not work.done()]
            if not running:
                self._free(size)
            else:  # the client left, and a thread is not to be stopped: its place is taken until it ends
                loop = asyncio.get_running_loop()
                ended = itertools.count(1)

                def free(_: Future[Any]) -> None:
                    if next(ended) == len(running):
                        with suppress(RuntimeError):  # the server has ended meanwhile
                            loop.call_soon_threadsafe(self._free, size)

                for work in running:
                    work.add_done_callback(free)

    def _free(self, size: int) -> None:
        self.admitted -= 1
        self.held -= size

    def open(self) -> None:
        """Be ready for work; a pool that was closed may be opened again."""
        self.threads = ThreadPoolExecutor(self.limits.workers, thread_name_prefix="attar-web")

    def close(self) -> None:
        """Drop what waits and let the threads end."""
        self.threads.shutdown(wait=False, cancel_futures=True)


class Place:
    """One request's place in the pool."""

    def __init__(self, pool: Pool, request: Request) -> None:
        self.pool = pool
        self.request = request
        self.works: list[Future[Any]] = []

    async def body(self) -> bytes:
        """The request's body, kept to the limits; raises :class:`Refusal`."""
        async with self._in_time():
            data = b"".join([part async for part in self._stream()])
        if not data:
            raise Refusal(400, "the request has no body; it is to be the bytes of one file")
        return data

    async def files(self, *names: str) -> list[bytes]:
        """The bytes of the files of a ``multipart/form-data`` body, by their fields' names, in memory only."""
        if not self.request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise Refusal(415, f"the body is to be multipart/form-data with the files {' and '.join(names)}")
        parser = MultiPartParser(self.request.headers, self._stream(), max_files=len(names), max_fields=0)
        parser.spool_max_size = self.pool.limits.max_bytes + 1
        try:
            async with self._in_time():
                form = await parser.parse()
        except (MultiPartException, KeyError, UnicodeDecodeError) as error:
            raise Refusal(400, f"the body is no sound multipart/form-data: {error}") from error
        try:
            return [await self._file(form, name) for name in names]
        finally:
            await form.close()

    async def run(self, work: Callable[[], Value]) -> Value:
        """The result of ``work``, done in a thread; work that waits is dropped when the client leaves."""
        future: Future[Value] = self.pool.threads.submit(work)
        self.works = [*(work for work in self.works if not work.done()), future]
        result = asyncio.wrap_future(future)
        gone = asyncio.create_task(self._gone())
        either: set[asyncio.Future[Any]] = {result, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                future.cancel()
                result.cancel()
                raise Refusal(CLIENT_CLOSED, "the client left before the answer")
            return result.result()
        finally:
            gone.cancel()
            result.cancel()  # where this itself was cancelled; work that has not begun never does

    async def _file(self, form: FormData, name: str) -> bytes:
        part = form.get(name)
        if not isinstance(part, UploadFile):
            raise Refusal(400, f"the form has no file {name!r}, which is expected")
        return await part.read()

    async def _gone(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        taken = 0
        async for part in self.request.stream():
            taken += len(part)
            if taken > self.pool.limits.max_bytes:
                raise Refusal(
                    413,
                    f"more than {self.pool.limits.max_bytes} bytes were sent, which is the most that is taken "
                    "(attar serve --max-bytes raises the limit)",
                )
            yield part

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self.pool.limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {seconds:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(CLIENT_CLOSED, "the client left within its body") from None
