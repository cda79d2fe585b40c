"""``/api/curve``: the rate-distortion points of one image, line by line as they are measured.

The codecs, their qualities, the rows and the BD-rates are those of ``attar benchmark``.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from attar.apps.cli.measuring import DEFAULT_CODECS
from attar.apps.web.api import FAULTS, ONE_FILE
from attar.apps.web.limits import Refusal
from attar.apps.web.pool import Place, Pool
from attar.apps.web.schemas import CurveLine
from attar.apps.web.trials import opaque
from attar.apps.web.workshop import Workshop, finite
from attar.codec import bundle
from attar.errors import MissingExtraError
from attar.measure import curves, worker
from attar.measure.anchors import Absent, Anchor, AttarAnchor
from attar.measure.rows import Row

__all__ = ["router"]

LINES = "application/x-ndjson"
CURVES = 2
"""Curves for each worker that may be measured at once: their pixels stay in memory until they end."""
Line = dict[str, Any]


@dataclass(frozen=True)
class Survey:
    """What is measured of an image, ``pixels`` (H, W, C)."""

    pixels: NDArray[np.uint8]
    sha256: str
    anchors: tuple[Anchor, ...]
    absent: tuple[Absent, ...]

    @property
    def metrics(self) -> list[curves.Metric]:
        """Those that an image has: gray is its own luma."""
        gray = self.pixels.shape[2] == 1
        return [metric for name, metric in curves.METRICS.items() if not (gray and name.endswith("_y"))]

    def plan(self) -> Line:
        """The first line: what will come."""
        height, width, channels = self.pixels.shape
        return {
            "kind": "plan",
            "width": width,
            "height": height,
            "channels": channels,
            "points": sum(len(qualities(anchor)) for anchor in self.anchors),
            "codecs": [{"name": anchor.name, "version": anchor.version} for anchor in self.anchors],
            "absent": [asdict(absent) for absent in self.absent],
            "metrics": [{"column": one.column, "title": one.title, "axis": one.axis} for one in self.metrics],
        }

    def tasks(self) -> Iterator[tuple[Anchor, float | None]]:
        """Every point, a quality of each codec in turn, so that all curves grow together."""
        each = [[(anchor, quality) for quality in qualities(anchor)] for anchor in self.anchors]
        rounds = itertools.zip_longest(*each)
        return (task for one in rounds for task in one if task is not None)

    def measure(self, anchor: Anchor, quality: float | None) -> Row:
        """One row of ``rows.csv``, of one timed run."""
        height, width, channels = self.pixels.shape
        blank = Row(
            image="image",
            sha256=self.sha256,
            width=width,
            height=height,
            channels=channels,
            codec=anchor.name,
            version=anchor.version,
            quality=quality,
            jobs=1,
        )
        task = worker.Task(anchor.name, (blank,), 1)
        return worker.measure(task, anchor, self.pixels, memory=False)[0]

    def point(self, row: Row) -> Line:
        """A row as a line, with the decibels at which each metric is drawn."""
        values = {one.column: getattr(row, one.column) for one in self.metrics}
        levels = {
            one.column: one.decibels(values[one.column]) if isinstance(values[one.column], float) else None
            for one in self.metrics
        }
        return {"kind": "point", "row": asdict(row), "levels": levels}

    def end(self, rows: list[Row]) -> Line:
        """The last line: every codec's BD-rate against every other, or why there is none."""
        drawn = curves.mean_curves(rows)
        try:
            deltas = [
                {"reference": base.name, "codec": test.name, "metric": metric.column}
                | vars(curves.bd(base, test, metric))
                for base, test in itertools.permutations(drawn, 2)
                for metric in self.metrics
                if base.points(metric) and test.points(metric)
            ]
        except MissingExtraError as error:
            return {"kind": "end", "deltas": [], "fault": str(error)}
        return {"kind": "end", "deltas": deltas, "fault": None}


def qualities(anchor: Anchor) -> tuple[float | None, ...]:
    """Those at which ``attar benchmark`` measures a codec unless it is told others."""
    return (None,) if anchor.scale is None else anchor.scale.defaults


def survey(workshop: Workshop, data: bytes, names: list[str]) -> Survey:
    """What can be measured of an image file, or ``.attar``; ``names``: its codecs, or none for all that fit."""
    pixels = opaque(workshop.picture(data, "image", convert=True))
    wanted = names or [*DEFAULT_CODECS, *(f"attar:{name}" for name in bundle.installed())]
    if names:
        found: list[Anchor | Absent] = [workshop.trials.present(name) for name in names]
    else:
        found = [one for name in wanted if fits(one := workshop.trials.find(name), pixels)]
    anchors = tuple(one for one in found if not isinstance(one, Absent))
    absent = tuple(one for one in found if isinstance(one, Absent))
    return Survey(pixels, hashlib.sha256(data).hexdigest()[:16], anchors, absent)


def fits(codec: Anchor | Absent, pixels: NDArray[np.uint8]) -> bool:
    """Whether a bundle takes images of this size; others take all."""
    if not isinstance(codec, AttarAnchor):
        return True
    return codec.codec.refusal(pixels.shape[:2], pixels.shape[2]) is None


class HeldResponse(StreamingResponse):
    """Lines that keep their place in the pool until they have ended, however they end."""

    def __init__(self, lines: AsyncIterator[str], held: AsyncExitStack) -> None:
        super().__init__(lines, media_type=LINES)
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines."""
        async with self.held:
            await super().__call__(scope, receive, send)


async def lines(place: Place, found: Survey, at_once: int) -> AsyncIterator[str]:
    """The document line by line: a plan, points, an end; ``at_once`` points are worked on at a time."""
    yield line(found.plan())
    rows: list[Row] = []
    tasks = found.tasks()
    running: set[asyncio.Task[Row]] = set()
    try:
        while True:
            for anchor, quality in itertools.islice(tasks, at_once - len(running)):
                running.add(asyncio.create_task(place.run(partial(found.measure, anchor, quality))))
            if not running:
                break
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for row in await asyncio.gather(*done):
                rows.append(row)
                yield line(found.point(row))
        yield line(await place.run(lambda: found.end(rows)))
    except Refusal:
        return  # the client left: what waits has been dropped
    finally:
        for task in running:
            task.cancel()
        asyncio.gather(
            *running, return_exceptions=True
        )  # or asyncio would log that nobody asked how they ended


def line(document: Line) -> str:
    """One line of the answer."""
    return json.dumps(finite(document), allow_nan=False) + "\n"


def router(pool: Pool, workshop: Workshop) -> APIRouter:
    """The route."""
    routes = APIRouter(prefix="/api", responses=FAULTS)
    slots = asyncio.Semaphore(CURVES * pool.limits.workers)

    @routes.post(
        "/curve",
        summary="The rate-distortion points of an image file, one JSON document a line as they are measured",
        response_class=StreamingResponse,
        responses={200: {"content": {LINES: {"schema": CurveLine.model_json_schema()}}}},
        openapi_extra=ONE_FILE,
    )
    async def curve(
        request: Request,
        codec: Annotated[
            list[Annotated[str, Query(max_length=80)]] | None,
            Query(max_length=40, description="Codecs to measure; those of `attar benchmark` if none."),
        ] = None,
    ) -> HeldResponse:
        if slots.locked():
            raise Refusal(429, "as many curves are being measured as may be at once: try again in a second")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(slots)
            place = await stack.enter_async_context(pool.place(request))
            data = await place.body()
            names = list(dict.fromkeys(codec or []))
            found = await place.run(lambda: survey(workshop, data, names))
            return HeldResponse(lines(place, found, pool.limits.workers), stack.pop_all())

    return routes
