"""The whole application: guard, API, pages; and every error as a status and a sentence."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from attar import __version__
from attar.apps.web import api, convert, curve, runs
from attar.apps.web.guard import Guard
from attar.apps.web.limits import Limits, Refusal
from attar.apps.web.pool import Pool
from attar.apps.web.runfolder import Runs
from attar.apps.web.workshop import Workshop
from attar.errors import AttarError, BundleError, MissingExtraError, ModelMissingError

__all__ = ["create_app"]

STATUS = {ModelMissingError: 404, BundleError: 500, MissingExtraError: 501}
"""Statuses of errors that are not the fault of the file that was sent (422)."""


def create_app(
    limits: Limits | None = None, runs_folder: Path | None = None, leaving: Callable[[], bool] = lambda: False
) -> FastAPI:
    """The application that ``attar serve`` serves.

    Args:
        limits: those of :class:`Limits` when None.
        runs_folder: where training runs are looked for; the current folder when None.
        leaving: whether the server is about to end, so that those who listen to events are let go.
    """
    limits = limits or Limits()
    pool = Pool(limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pool.open()
        yield
        pool.close()

    app = FastAPI(
        title="Attar",
        version=__version__,
        description="Autoencoder image codecs: compress, decompress, compare and inspect.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, limits=limits)
    workshop = Workshop(limits.max_pixels)
    for part in (api, curve, convert):
        app.include_router(part.router(pool, workshop))
    app.include_router(runs.router(pool, Runs(runs_folder or Path()), leaving))
    pages = StaticFiles(directory=str(resources.files(__package__) / "static"), html=True)
    app.router.routes.append(Pages("/", pages))
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(AttarError, _attar_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    return app


class Pages(Mount):
    """Where the pages are: at every address but those of the API, which knows its own methods."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this answers."""
        return (Match.NONE, {}) if scope["path"].startswith("/api/") else super().matches(scope)


def _answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers)


async def _refusal(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, Refusal) else 400
    return _answer(status, str(error), {"retry-after": "1"} if status == 429 else None)


async def _attar_error(_: Request, error: Exception) -> JSONResponse:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 422)
    return _answer(status, str(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    said = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in faults]
    return _answer(422, "; ".join(said)[:500])


async def _http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _answer(400, "the request cannot be read")
    sentences = {404: "there is nothing at this address", 405: "this address does not take that method"}
    return _answer(
        error.status_code, sentences.get(error.status_code, str(error.detail)), dict(error.headers or {})
    )


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logging.getLogger("attar.web").error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(500, "the server failed on this request; its log says how")
