"""The API holds to its own OpenAPI document: generated requests, and one that succeeds at every address."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

pytest.importorskip("fastapi", reason="attar[web] is not installed")
pytest.importorskip("schemathesis", reason="schemathesis is not installed")

import schemathesis
from fastapi.testclient import TestClient
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance

from attar.apps.web.app import create_app
from attar.apps.web.limits import Limits

ENDLESS = "/api/runs/events"  # which test_web_events asks for
LIMITS = Limits(max_bytes=300_000, max_pixels=100_000, hosts=("testserver",))


API = schemathesis.openapi.from_asgi("/api/openapi.json", create_app(LIMITS, Path(__file__).parent))


@API.exclude(path=ENDLESS).parametrize()
@settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck]
)
def test_generated_requests_are_answered_as_documented(case: Any) -> None:
    # An image's content and a codec's name are sound or not in ways that no JSON Schema can tell.
    answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"]
        assert len(answer.json()["error"].split()) > 2


@pytest.fixture(scope="module")
def client(tiny_run: Path) -> Iterator[TestClient]:
    with TestClient(create_app(LIMITS, tiny_run.parent), base_url="http://testserver") as client:
        yield client


def png(*shape: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (shape[0] // 4, *shape[1:]), np.uint8).repeat(4, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


DIGIT, PHOTO = png(28, 28), png(64, 64, 3)
GOOD: dict[str, dict[str, Any]] = {
    "GET /api/models": {},
    "GET /api/samples": {},
    "GET /api/codecs": {},
    "GET /api/photos/{name}": {"path": "/api/photos/kitten"},
    "POST /api/compress": {"params": {"model": "digits"}, "content": DIGIT},
    "POST /api/decompress": {"file": True},
    "POST /api/inspect": {"file": True},
    "POST /api/compare": {"files": {"a": DIGIT, "b": DIGIT}},
    "POST /api/encode": {"params": {"codec": "jpeg", "quality": 50, "picture": True}, "content": PHOTO},
    "POST /api/decode": {"files": {"a": DIGIT, "b": DIGIT}},
    "POST /api/convert": {"params": {"codec": "webp", "quality": 50}, "content": PHOTO},
    "POST /api/curve": {"params": {"codec": "jpeg"}, "content": PHOTO},
    "GET /api/runs": {},
    "GET /api/runs/{run}": {"path": "/api/runs/RUN"},
    "GET /api/runs/{run}/samples/{epoch}": {"path": "/api/runs/RUN/samples/1"},
}


@pytest.mark.parametrize("operation", GOOD)
def test_a_good_answer_is_what_the_document_says(client: TestClient, operation: str) -> None:
    method, path = operation.split()
    how = dict(GOOD[operation])
    target = how.pop("path", path)
    if "RUN" in target:
        target = target.replace("RUN", client.get("/api/runs").json()[0]["id"])
    if how.pop("file", False):
        how["content"] = client.post("/api/compress?model=digits", content=DIGIT).content
    answer = client.request(method, target, **how)
    assert answer.status_code == 200, answer.text
    API[path][method].validate_response(answer)


def test_every_operation_is_tried() -> None:
    there = {
        f"{method.upper()} {path}" for path, methods in API.raw_schema["paths"].items() for method in methods
    }
    assert there == {*GOOD, f"GET {ENDLESS}"}


def test_an_answer_that_is_none_of_the_documents_is_found(client: TestClient) -> None:
    """The test of the tests."""
    with pytest.raises((Failure, FailureGroup), match=r"is not of type|violates"):
        API["/api/models"]["GET"].validate_response(client.get("/api/samples"))


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/compress"), ("PUT", "/api/models"), ("DELETE", "/api/runs")]
)
def test_a_wrong_method_is_told_the_right_ones(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == ("POST" if method == "GET" else "GET")
    assert "does not take that method" in answer.json()["error"]
