"""The API's routes for training runs: a list, one run whole, its samples, and what changes as it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from attar.apps.web.api import FAULTS
from attar.apps.web.events import Hub, Stream
from attar.apps.web.pool import Pool
from attar.apps.web.runfolder import Runs

__all__ = ["Run", "RunWhole", "router"]

PNG_TYPE, EVENTS_TYPE = "image/png", "text/event-stream"
Id = Annotated[str, InPath(max_length=40, description="An id of /api/runs.")]
Epoch = Annotated[int, InPath(ge=1, le=10**9, description="One of the run's samples.")]


class Best(BaseModel):
    """The epoch with the lowest validation loss, as ``attar train --json`` prints it."""

    epoch: int
    step: float | None
    val_loss: float
    val_psnr: float | None = Field(description="dB.")
    val_ssim: float | None
    val_bytes: float | None = Field(description="Of the latents of one image, estimated.")


class Run(BaseModel):
    """A training run, as its folder tells it."""

    id: str
    name: str = Field(description="Its folder, below the one that is served.")
    state: Literal["training", "finished", "interrupted", "failed", "unreadable"]
    fault: str | None = Field(description="Why it failed, or what of it cannot be read.")
    updated: float = Field(description="When an epoch was last finished, in seconds since 1970.")
    dataset: str | None
    epoch: int = Field(description="Finished epochs.")
    epochs: int | None = Field(description="Epochs that it was told to take; it may stop earlier.")
    step: int = Field(description="Finished steps.")
    steps: int | None = Field(description="Steps that it was told to take.")
    loss: float | None = Field(description="Mean over the epoch under way, training images.")
    psnr: float | None = Field(description="Mean in dB over the epoch under way, training images.")
    ssim: float | None = Field(description="Mean over the epoch under way, training images.")
    steps_per_second: float | None = Field(description="null where it is not training.")
    seconds_left: float | None = Field(description="null where it is not training.")
    best: Best | None
    samples: list[int] = Field(description="Epochs whose regenerated images are kept.")


class RunWhole(Run):
    """A run with everything that its folder keeps for people."""

    config: dict[str, str | int | float | bool | None] = Field(description="The options of attar train.")
    model: dict[str, Any] | None = Field(description="The model.json; null where it is not sound.")
    history: list[dict[str, float | None]] = Field(
        description="The rows of history.csv; of long ones some, evenly."
    )
    history_rows: int = Field(description="How many rows history.csv has.")
    rivals: dict[str, list[tuple[float, float]]] = Field(
        description="Bits per pixel and PSNR in dB of other codecs on the validation images."
    )


def router(pool: Pool, runs: Runs, leaving: Callable[[], bool]) -> APIRouter:
    """The routes; ``leaving`` says whether the server is about to end."""
    routes = APIRouter(prefix="/api/runs", responses=FAULTS)
    hub = Hub(lambda: [Run.model_validate(row).model_dump() for row in runs.rows()], leaving)

    @routes.get("", response_model=list[Run], summary="Training runs: those that go on, then the last ones")
    async def listed(request: Request) -> Any:
        async with pool.place(request) as place:
            return await place.run(runs.rows)

    @routes.get(
        "/events",
        summary="The same as they change, as server-sent events: rows, row, gone",
        response_class=Response,
        responses={200: {"content": {EVENTS_TYPE: {"schema": {"type": "string"}}}}},
    )
    async def events() -> Response:
        return Stream(hub)

    @routes.get("/{run}", response_model=RunWhole, summary="One run: its options, model and history")
    async def whole(run: Id, request: Request) -> Any:
        async with pool.place(request) as place:
            return await place.run(lambda: runs.detail(run))

    @routes.get(
        "/{run}/samples/{epoch}",
        summary="Some validation images, what came back after an epoch, and the difference",
        response_class=Response,
        responses={200: {"content": {PNG_TYPE: {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def sample(run: Id, epoch: Epoch, request: Request) -> Response:
        async with pool.place(request) as place:
            return Response(await place.run(lambda: runs.sample(run, epoch)), media_type=PNG_TYPE)

    return routes
