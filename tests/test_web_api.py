"""The JSON API: its answers are those of the command line, and what is not a request gets 4xx and a sentence."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import attar
from attar.apps.cli import cli

pytest.importorskip("fastapi", reason="attar[web] is not installed")

from fastapi.testclient import TestClient

from attar.apps.web.app import create_app
from attar.apps.web.limits import Limits
from attar.apps.web.workshop import Workshop

LIMITS = Limits(max_bytes=300_000, max_pixels=100_000, body_seconds=5)
HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(LIMITS), base_url=HERE) as client:
        yield client


@pytest.fixture(scope="module")
def digit(client: TestClient) -> bytes:
    return b"P5\n28 28\n255\n" + bytes(client.get("/api/samples").json()[5])


def printed(*words: str) -> Any:
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def png(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def sentence(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    text: str = answer.json()["error"]
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("effort", [0, 4])
def test_numbers_and_bytes_are_the_command_lines(
    client: TestClient, digit: bytes, effort: int, tmp_path: Path
) -> None:
    image, file = tmp_path / "d.pgm", tmp_path / "d.attar"
    image.write_bytes(digit)
    made = client.post("/api/compress", params={"model": "digits", "effort": effort}, content=digit)
    assert made.headers["content-type"] == "application/x-attar"
    CliRunner().invoke(cli, ["compress", str(image), "-m", "digits", "--effort", str(effort)])
    assert file.read_bytes() == made.content
    compared = client.post("/api/compare", files={"a": digit, "b": made.content}).json()
    assert compared | {"a": "", "b": ""} == printed("compare", str(image), str(file), "--json") | {
        "a": "",
        "b": "",
    }
    inspected = client.post("/api/inspect", content=made.content).json()
    info = printed("info", str(file), "--json")
    assert {key: inspected[key] for key in info if key not in ("input", "ok")} == {
        key: value for key, value in info.items() if key not in ("input", "ok")
    }
    assert inspected["sound"] is True
    decoded = client.post("/api/decompress", content=made.content)
    pixels = np.asarray(Image.open(io.BytesIO(decoded.content)))
    assert np.array_equal(pixels, attar.decompress(made.content)[..., 0])


def test_the_bits_of_the_channels_add_up_to_the_file(client: TestClient, digit: bytes) -> None:
    file = client.post("/api/compress", content=digit, params={"model": "digits"}).content
    found = client.post("/api/inspect", content=file).json()
    bits = sum(found["bits_per_channel"])
    coded = 8 * (found["chunks"]["latents"] - 4)  # less the checksum below the symbols
    assert coded - 8 <= bits + 1
    assert bits <= coded + 8
    part = attar.load("digits").unpack(file)
    assert found["symbols"] == attar.load("digits").symbols(part).tolist()
    assert found["latent_shape"] == [50]
    assert found["bits_map"] is None


@pytest.mark.usefixtures("only_toys")
def test_the_map_of_bits_adds_up_to_the_channels() -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48] = np.random.default_rng(0).integers(0, 256, (32, 48, 3))
    data = attar.load("toy-photo").compress(pixels)
    found = Workshop(1 << 20).inspect(data)
    places = np.array(found["bits_map"])
    assert places.shape == tuple(found["latent_shape"][:2])
    assert places.sum() == pytest.approx(sum(found["bits_per_channel"]), rel=1e-3)
    half = places.shape[0] // 2, places.shape[1] // 2
    assert places[: half[0], : half[1]].mean() > 2 * places[half[0] :, half[1] :].mean()


def test_models_are_those_that_are_listed(client: TestClient) -> None:
    (row,) = [row for row in client.get("/api/models").json() if row["input"] == "digits"]
    listed = printed("models", "show", "digits", "--json")
    del listed["input"]
    assert {key: row[key] for key in listed} == listed
    assert "/" not in row["input"]


def test_targets_are_kept_or_refused(client: TestClient, digit: bytes) -> None:
    near = client.post("/api/compress", params={"target_bytes": 300, "model": "digits"}, content=digit)
    assert near.status_code == 200
    far = client.post("/api/compress", params={"target_bytes": 5, "model": "digits"}, content=digit)
    assert "at most 5 bytes wanted" in sentence(far, 422)
    both = client.post("/api/compress", params={"target_bytes": 300, "target_bpp": 1}, content=digit)
    assert "one of quality and the targets" in sentence(both, 400)
    rate = client.post("/api/compress", params={"quality": 50, "model": "digits"}, content=digit)
    assert "single rate" in sentence(rate, 422)


def test_samples_are_one_of_each_digit(client: TestClient) -> None:
    from attar.apps.web import workshop

    labels = Path(attar.__file__).parent / "data" / "digits" / "t10k-labels-idx1-ubyte.gz"
    found = gzip.decompress(labels.read_bytes())[8:]
    assert [found[place] for place in workshop.FIRST_OF_EACH_DIGIT] == list(range(10))
    assert [len(sample) for sample in client.get("/api/samples").json()] == [784] * 10


def test_every_answer_has_the_headers(client: TestClient) -> None:
    for answer in (
        client.get("/"),
        client.get("/api/models"),
        client.get("/x"),
        client.get("/", headers={"host": "x"}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_pages_name_no_other_host() -> None:
    static = Path(attar.__file__).parent / "apps" / "web" / "static"
    files = [path for path in static.iterdir() if path.suffix in (".html", ".js", ".css", ".svg")]
    assert len(files) >= 5
    for path in files:
        addresses = set(re.findall(r"https?://[^\s\"'<)]+", path.read_text("utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"host": "evil.example"}, 421, "does not answer to the name 'evil.example'"),
        ({"host": "127.0.0.1.evil.example:8000"}, 421, "does not answer to the name"),
        ({"host": ""}, 421, "does not answer to the name ''"),
        ({"host": "[::1"}, 421, "does not answer to the name"),
        ({"origin": "http://evil.example"}, 403, "'http://evil.example' are not served"),
        ({"origin": "null"}, 403, "'null' are not served"),
        ({"origin": "http://127.0.0.1:9999"}, 403, "are not served"),
        ({"sec-fetch-site": "cross-site"}, 403, "of other sites are not served"),
        ({"content-length": "999999999"}, 413, "999999999 bytes were announced; at most 300000 are taken"),
    ],
)
def test_strangers_are_refused(
    client: TestClient, headers: dict[str, str], status: int, says: str, digit: bytes
) -> None:
    assert says in sentence(client.post("/api/compress", headers=headers, content=digit), status)


def test_the_own_page_is_served(client: TestClient, digit: bytes) -> None:
    headers = {"origin": HERE, "sec-fetch-site": "same-origin"}
    assert client.post("/api/compress", headers=headers, content=digit).status_code == 200
    with TestClient(create_app(Limits(hosts=("Lab",))), base_url="http://lab:8000") as other:
        assert other.get("/").status_code == 200


def hostile() -> dict[str, tuple[bytes, int, str]]:
    """What strangers send as an image: bytes, status, part of the sentence."""
    sound = png(np.zeros((28, 28), np.uint8))
    huge = bytearray(sound)
    huge[16:24] = struct.pack(">II", 60000, 60000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    return {
        "nothing": (b"", 400, "no body"),
        "text": (b"hello, I am an image", 415, "no image that is taken here"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", 415, "no image"),
        "html": (b"<!doctype html><script>alert(1)</script>", 415, "no image"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "no image"),
        "zip": (b"PK\3\4" + bytes(50), 415, "no image"),
        "pickle": (b"\x80\4\x95" + bytes(50), 415, "no image"),
        "cut png": (sound[:40], 422, "image: "),
        "cut jpeg": (b"\xff\xd8\xff\xe0" + bytes(20), 422, "image: "),
        "cut riff": (b"RIFF\xff\xff\xff\xffWEBPVP8 ", 422, "image: "),
        "cut tiff": (b"II*\0\xff\xff\xff\xff", 422, "image: "),
        "huge png": (bytes(huge), 422, "60000 x 60000 pixels, at most 100000 are accepted"),
        "huge pgm": (b"P5\n99999 99999\n255\n", 422, "99999 x 99999 pixels"),
        "bomb": (png(np.zeros((320, 320), np.uint8)), 422, "320 x 320 pixels, at most 100000"),
        "size": (png(np.zeros((27, 28), np.uint8)), 422, "takes gray, 28 x 28"),
        "colour": (png(np.zeros((28, 28, 3), np.uint8)), 422, "takes gray, 28 x 28"),
        "too long": (bytes(LIMITS.max_bytes + 1), 413, "at most 300000"),
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_images_are_refused(client: TestClient, name: str) -> None:
    data, status, says = hostile()[name]
    assert says in sentence(client.post("/api/compress?model=digits", content=data), status)


def test_a_body_without_a_length_is_cut_off(client: TestClient) -> None:
    endless = (bytes(10_000) for _ in range(1000))
    assert "more than 300000 bytes were sent" in sentence(client.post("/api/inspect", content=endless), 413)


@pytest.mark.parametrize("path", ["inspect", "decompress"])
def test_hostile_files_are_refused(client: TestClient, digit: bytes, path: str) -> None:
    sound = client.post("/api/compress?model=digits", content=digit).content
    for end in range(1, len(sound)):
        answer = client.post(f"/api/{path}", content=sound[:end])
        if path == "inspect" and answer.status_code == 200:  # the frame was sound, and the symbols are not
            assert answer.json()["sound"] is False
            assert answer.json()["fault"]
        else:
            assert sentence(answer, 415 if path == "decompress" and end < 4 else 422)
    for bit in range(0, 8 * len(sound), 7):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        answer = client.post(f"/api/{path}", content=bytes(damaged))
        assert answer.status_code in (404, 415, 422) or not answer.json()["sound"], bit


@pytest.mark.parametrize(
    "model", ["../digits", "/etc/passwd", "digits.attarmodel", "876cdf6f\0", "x" * 81, "C:\\x"]
)
def test_a_model_is_a_name_and_never_a_path(client: TestClient, digit: bytes, model: str) -> None:
    answer = client.post("/api/compress", params={"model": model}, content=digit)
    assert sentence(answer, 422 if len(model) > 80 else 404)


def test_an_existing_path_is_no_model(client: TestClient, digit: bytes, digits_bundle: Path) -> None:
    answer = client.post("/api/compress", params={"model": str(digits_bundle)}, content=digit)
    assert "is installed" in sentence(answer, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/app.py",
        "/..%2fapp.py",
        "/static/app.py",
        "//etc/passwd",
        "/api/nothing",
    ],
)
def test_only_pages_are_given_out(client: TestClient, path: str) -> None:
    assert sentence(client.get(path), 404)


def test_a_form_is_two_files(client: TestClient, digit: bytes) -> None:
    assert "file 'b'" in sentence(client.post("/api/compare", files={"a": digit}), 400)
    assert "multipart/form-data" in sentence(client.post("/api/compare", content=digit), 415)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert "no sound multipart" in sentence(client.post("/api/compare", content=b"junk", headers=kind), 400)
    many = [(name, (name, digit)) for name in "abcdef"]
    assert "no sound multipart" in sentence(client.post("/api/compare", files=many), 400)
    other = png(np.zeros((30, 30), np.uint8))
    assert "unequal size" in sentence(client.post("/api/compare", files={"a": digit, "b": other}), 422)


def test_wrong_parameters_are_named(client: TestClient, digit: bytes) -> None:
    assert "effort: " in sentence(client.post("/api/compress?effort=10", content=digit), 422)
    assert "target_ssim: " in sentence(client.post("/api/compress?target_ssim=nan", content=digit), 422)
    assert "does not take that method" in sentence(client.post("/style.css"), 405)


def test_a_full_house_is_429_and_frees_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(_: Workshop) -> list[dict[str, Any]]:
        go.wait(20)
        return []

    monkeypatch.setattr(Workshop, "models", slow)
    answers: list[int] = []
    with TestClient(create_app(Limits(workers=1, queue=2)), base_url=HERE) as client:
        asking = [
            threading.Thread(target=lambda: answers.append(client.get("/api/models").status_code))
            for _ in range(8)
        ]
        for one in asking:
            one.start()
        end = time.monotonic() + 10
        while len(answers) < 5 and time.monotonic() < end:
            time.sleep(0.01)
        assert answers == [429] * 5
        refused = client.get("/api/models")
        assert "the server is busy with 3 requests" in sentence(refused, 429)
        assert refused.headers["retry-after"] == "1"
        go.set()
        for one in asking:
            one.join()
        assert sorted(answers) == [200] * 3 + [429] * 5
        assert client.get("/api/models").status_code == 200


def test_the_schema_is_public_and_whole(client: TestClient) -> None:
    schema = client.get("/api/openapi.json").json()
    assert {"/api/models", "/api/compress", "/api/decompress", "/api/compare", "/api/inspect"} <= set(
        schema["paths"]
    )
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert {"200", "422", "429"} <= set(operation["responses"])
    assert client.get("/docs").status_code == 404


def test_codecs_are_those_of_the_benchmark_and_no_others(client: TestClient) -> None:
    photo = client.get("/api/photos/mountain").content
    rows = {row["name"]: row for row in client.get("/api/codecs").json()}
    assert {"attar:digits", "jpeg", "webp", "png"} <= set(rows)
    assert (rows["jpeg"]["lowest"], rows["jpeg"]["highest"]) == (1, 100)
    for name in ("ext:id :: id", "autoencoder:a+b", "attar:/etc/passwd", "attar:", "gzip"):
        answer = client.post("/api/encode", params={"codec": name}, content=photo)
        assert "no codec is called" in sentence(answer, 422)
    wide = client.post("/api/encode", params={"codec": "jpeg", "quality": 200}, content=photo)
    assert "quality: " in sentence(wide, 422)
    half = client.post("/api/encode", params={"codec": "jpeg", "quality": 50.5}, content=photo)
    assert "takes a whole quality" in sentence(half, 422)
    small = client.post("/api/encode", params={"codec": "jpeg", "target_bytes": 9}, content=photo)
    assert "at most 9 bytes wanted" in sentence(small, 422)
    see_through = png(np.zeros((20, 20, 4), np.uint8))
    assert "alpha" in sentence(client.post("/api/encode?codec=jpeg", content=see_through), 422)
