"""The public JSON API under ``/api``: thin routes from a request to the :class:`Workshop` and back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from attar.apps.web.pool import Pool
from attar.apps.web.schemas import Codec, Comparison, Encoding, Fault, Inspection, Model
from attar.apps.web.wanted import Goal, one_of
from attar.apps.web.workshop import FORMATS, Workshop, finite

__all__ = ["router"]

ATTAR_TYPE = "application/x-attar"
FAULTS: dict[int | str, dict[str, Any]] = {
    400: {"model": Fault, "description": "Not a request that can be read."},
    403: {"model": Fault, "description": "A request from a page of another site."},
    404: {"model": Fault, "description": "What is asked for by its name is not there."},
    408: {"model": Fault, "description": "The body did not arrive in time."},
    413: {"model": Fault, "description": "Too many bytes."},
    415: {"model": Fault, "description": "Not a kind of file that is taken."},
    421: {"model": Fault, "description": "A request to a name that this server does not answer to."},
    422: {"model": Fault, "description": "The file is damaged, or the model or target cannot take it."},
    429: {"model": Fault, "description": "The server is busy: try again."},
    500: {"model": Fault, "description": "An installed bundle is damaged, or the server has a fault."},
    501: {"model": Fault, "description": "A part of Attar that this needs is not installed."},
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
ONE_FILE = {"requestBody": {"required": True, "content": {"application/octet-stream": BINARY}}}
TWO_FILES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["a", "b"],
                    "properties": dict.fromkeys(("a", "b"), BINARY["schema"]),
                }
            }
        },
    }
}


def router(pool: Pool, workshop: Workshop) -> APIRouter:
    """All routes of the API."""
    routes = APIRouter(prefix="/api", responses=FAULTS)

    @routes.get("/models", response_model=list[Model], summary="Installed bundles")
    async def models(request: Request) -> Any:
        async with pool.place(request) as place:
            return finite(await place.run(workshop.models))

    @routes.get("/samples", summary="Ten written digits of 28 x 28 gray pixels")
    async def samples(request: Request) -> list[list[int]]:
        async with pool.place(request) as place:
            return await place.run(workshop.samples)

    @routes.post(
        "/compress",
        summary="An image file to the .attar file that `attar compress` writes",
        response_class=Response,
        responses={200: {"content": {ATTAR_TYPE: BINARY}}},
        openapi_extra=ONE_FILE,
    )
    async def compress(
        request: Request,
        target: Goal,
        model: Annotated[str | None, Query(max_length=80)] = None,
        quality: Annotated[int | None, Query(ge=1, le=100)] = None,
        effort: Annotated[int, Query(ge=0, le=9)] = 0,
        convert: bool = False,
        strip: bool = False,
    ) -> Response:
        one_of(quality, target)
        how = {"model": model, "quality": quality, "effort": effort, "convert": convert, "strip": strip}
        async with pool.place(request) as place:
            data = await place.body()
            made = await place.run(lambda: workshop.compress(data, target=target, **how))  # type: ignore[arg-type]
        return _file(made, ATTAR_TYPE, "image.attar")

    @routes.post(
        "/decompress",
        summary="A .attar file to an image file",
        response_class=Response,
        responses={200: {"content": {media: BINARY for _, media in FORMATS.values()}}},
        openapi_extra=ONE_FILE,
    )
    async def decompress(
        request: Request, kind: Annotated[Literal["png", "webp", "jpeg"], Query(alias="format")] = "png"
    ) -> Response:
        async with pool.place(request) as place:
            data = await place.body()
            made = await place.run(lambda: workshop.decompress(data, kind))
        return _file(made, FORMATS[kind][1], f"image.{kind}")

    @routes.post(
        "/compare",
        response_model=Comparison,
        summary="Distortion of file b against file a, images or .attar",
        openapi_extra=TWO_FILES,
    )
    async def compare(request: Request) -> Any:
        async with pool.place(request) as place:
            first, second = await place.files("a", "b")
            return finite(await place.run(lambda: workshop.compare(first, second)))

    @routes.get("/codecs", response_model=list[Codec], summary="Codecs that /api/encode takes")
    async def codecs(request: Request) -> Any:
        async with pool.place(request) as place:
            return await place.run(workshop.trials.codecs)

    @routes.post(
        "/encode",
        response_model=Encoding,
        summary="An image file through any codec: size, times, metrics, picture",
        openapi_extra=ONE_FILE,
    )
    async def encode(
        request: Request,
        codec: Annotated[str, Query(max_length=80)],
        target: Goal,
        quality: Annotated[float | None, Query(ge=0, le=100, allow_inf_nan=False)] = None,
        metrics: bool = True,
        picture: bool = False,
    ) -> Any:
        one_of(quality, target)
        async with pool.place(request) as place:
            data = await place.body()
            return finite(
                await place.run(
                    lambda: workshop.encode(data, codec, quality, target, metrics=metrics, picture=picture)
                )
            )

    @routes.post(
        "/decode",
        response_model=Encoding,
        summary="An existing file b beside its original a: size, time, metrics, picture",
        openapi_extra=TWO_FILES,
    )
    async def decode(request: Request, metrics: bool = True, picture: bool = False) -> Any:
        async with pool.place(request) as place:
            first, second = await place.files("a", "b")
            return finite(
                await place.run(lambda: workshop.decode(first, second, metrics=metrics, picture=picture))
            )

    @routes.get(
        "/photos/{name}", response_class=Response, summary="A photograph of the package, to try codecs on"
    )
    async def photo(name: Literal["kitten", "mountain", "earthrise"], request: Request) -> Response:
        async with pool.place(request) as place:
            return Response(
                await place.run(lambda: workshop.photo(name)), media_type="application/octet-stream"
            )

    @routes.post(
        "/inspect",
        response_model=Inspection,
        summary="What a .attar file says of itself, and where its bits went",
        openapi_extra=ONE_FILE,
    )
    async def inspect(request: Request) -> Any:
        async with pool.place(request) as place:
            data = await place.body()
            return finite(await place.run(lambda: workshop.inspect(data)))

    return routes


def _file(data: bytes, media_type: str, name: str) -> Response:
    return Response(
        data, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'}
    )
