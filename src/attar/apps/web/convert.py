"""``/api/convert``: one file of a batch, compressed with any codec, or a ``.attar`` turned back into a PNG.

The file is the body of the answer and its numbers are a header; nothing is kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response

from attar.apps.web.api import BINARY, FAULTS, ONE_FILE
from attar.apps.web.pool import Pool
from attar.apps.web.schemas import Conversion
from attar.apps.web.trials import opaque, reached
from attar.apps.web.wanted import Goal, one_of
from attar.apps.web.workshop import Workshop, compressed, finite
from attar.codec import container, images
from attar.codec.images import Picture
from attar.codec.targets import Target
from attar.measure import worker
from attar.measure.anchors import Anchor, AttarAnchor, check_quality

__all__ = ["router"]

HEADER = "attar-row"
KINDS = {
    "attar": (".attar", "application/x-attar"),
    "jpeg": (".jpg", "image/jpeg"),
    "webp": (".webp", "image/webp"),
    "avif": (".avif", "image/avif"),
    "jxl": (".jxl", "image/jxl"),
    "jp2": (".jp2", "image/jp2"),
    "png": (".png", "image/png"),
}
"""Suffix and media type of what each family of codecs writes."""
METRICS = ("psnr", "ssim", "ms_ssim")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Order:
    """What is to become of every file; the names are those of ``attar compress``."""

    codec: str
    quality: float | None
    target: Target | None
    effort: int
    convert: bool
    strip: bool


@dataclass(frozen=True)
class Made:
    """A file that was made of ``picture``, and how."""

    picture: Picture
    data: bytes
    codec: str
    version: str
    quality: float | None
    encode_ms: float | None
    decode_ms: float
    distortions: dict[str, Any]

    @property
    def kind(self) -> tuple[str, str]:
        """Suffix and media type."""
        return KINDS[self.codec.partition(":")[0].partition("-")[0]]

    def row(self, source: bytes) -> Conversion:
        """Its numbers beside those of the file that it was made of."""
        height, width = self.picture.pixels.shape[:2]
        return Conversion(
            codec=self.codec,
            codec_version=self.version,
            quality=self.quality,
            width=width,
            height=height,
            input_bytes=len(source),
            bytes=len(self.data),
            bpp=8 * len(self.data) / (height * width),
            saved_percent=100 * (1 - len(self.data) / len(source)),
            suffix=self.kind[0],
            encode_ms=self.encode_ms,
            decode_ms=self.decode_ms,
            **{name: self.distortions.get(name) for name in METRICS},
        )


def convert(workshop: Workshop, data: bytes, order: Order) -> Made:
    """A ``.attar`` file decoded, or an image file compressed."""
    if data.startswith(container.MAGIC):
        picture, decode_ms = timed(lambda: workshop.picture(data, "file"))
        return Made(picture, images.encode(picture, "PNG"), "png", "", None, None, decode_ms, {})
    anchor = workshop.trials.present(order.codec)
    picture = workshop.image(data, "image", convert=order.convert)
    picture = picture.stripped() if order.strip else picture
    if isinstance(anchor, AttarAnchor):
        return _with_attar(anchor, picture, order)
    pixels = opaque(picture)

    def encode() -> tuple[float | None, bytes]:
        quality = reached(anchor, pixels, order.target) if order.target else _quality(anchor, order.quality)
        return quality, anchor.encode(pixels, quality)

    (quality, made), encode_ms = timed(encode)
    decoded, decode_ms = timed(lambda: anchor.decode(made))
    distortions = worker.distortions(pixels, decoded)
    return Made(picture, made, anchor.name, anchor.version, quality, encode_ms, decode_ms, distortions)


def _with_attar(anchor: AttarAnchor, picture: Picture, order: Order) -> Made:
    """The file that ``attar compress`` writes, alpha and metadata included; no metrics where it is transparent."""
    codec = anchor.codec
    wanted = None if order.quality is None else int(check_quality(anchor, order.quality))
    made, encode_ms = timed(
        lambda: compressed(picture, codec, quality=wanted, effort=order.effort, target=order.target)
    )
    decoded, decode_ms = timed(lambda: codec.decode(made))
    seen = picture.alpha is None or picture.alpha.min() == 255
    distortions = worker.distortions(picture.pixels, decoded.pixels) if seen else {}
    quality = container.read_header(made).quality or None
    return Made(picture, made, anchor.name, anchor.version, quality, encode_ms, decode_ms, distortions)


def _quality(anchor: Anchor, quality: float | None) -> float | None:
    if quality is not None:
        return check_quality(anchor, quality)
    return None if anchor.scale is None else anchor.scale.defaults[-2]


def timed(work: Callable[[], Value]) -> tuple[Value, float]:
    """What ``work`` gives, and the milliseconds that it took."""
    start = time.perf_counter()
    value = work()
    return value, round(1e3 * (time.perf_counter() - start), 3)


def router(pool: Pool, workshop: Workshop) -> APIRouter:
    """The route."""
    routes = APIRouter(prefix="/api", responses=FAULTS)
    header = {"description": "The numbers, as JSON.", "schema": Conversion.model_json_schema()}

    @routes.post(
        "/convert",
        summary="One file of a batch: an image compressed with any codec, or a .attar file turned into a PNG",
        response_class=Response,
        responses={
            200: {"content": {media: BINARY for _, media in KINDS.values()}, "headers": {HEADER: header}}
        },
        openapi_extra=ONE_FILE,
    )
    async def convert_file(
        request: Request,
        codec: Annotated[str, Query(max_length=80)],
        target: Goal,
        quality: Annotated[float | None, Query(ge=0, le=100, allow_inf_nan=False)] = None,
        effort: Annotated[int, Query(ge=0, le=9)] = 0,
        convert_pixels: Annotated[bool, Query(alias="convert")] = False,
        strip: bool = False,
    ) -> Response:
        one_of(quality, target)
        order = Order(codec, quality, target, effort, convert_pixels, strip)
        async with pool.place(request) as place:
            data = await place.body()
            made = await place.run(lambda: convert(workshop, data, order))
        row = finite(made.row(data).model_dump())
        return Response(made.data, media_type=made.kind[1], headers={HEADER: json.dumps(row)})

    return routes
