"""Frozen files of format version 1: whatever reads or writes them must keep to the last bit what they say."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import attar
import reference_decoder
from attar.codec.container import Chunk
from reference_decoder import BadFileError

V1 = Path(__file__).parent / "vectors" / "v1"
INDEX = json.loads((V1 / "index.json").read_text())
NAMES = sorted(INDEX["vectors"])
FORMAT = Path(__file__).parents[1] / "docs" / "FORMAT.md"


def data_of(name: str) -> bytes:
    return (V1 / f"{name}.attar").read_bytes()


def expected(name: str) -> dict[str, np.ndarray]:
    with np.load(V1 / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def bundle_of(name: str) -> Path:
    return V1 / f"{INDEX['vectors'][name]['model']}.attarmodel"


@pytest.fixture(scope="module")
def codecs() -> dict[Path, attar.Codec]:
    return {path: attar.load(path, threads=1) for path in V1.glob("*.attarmodel")}


def test_every_vector_is_there_and_unchanged() -> None:
    assert len(NAMES) == 11
    present = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in V1.iterdir()}
    del present["index.json"]
    assert present == INDEX["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_files_decode_to_exactly_these_symbols_and_pixels_within_one(name: str, codecs: dict) -> None:
    codec, want = codecs[bundle_of(name)], expected(name)
    assert np.array_equal(codec.symbols(codec.unpack(data_of(name))), want["symbols"])
    picture = codec.decode(data_of(name))
    assert picture.pixels.shape == want["pixels"].shape
    assert np.abs(picture.pixels.astype(int) - want["pixels"]).max() <= 1
    for kind in ("alpha", "icc", "exif", "xmp"):
        found, wanted = getattr(picture, kind), want.get(kind)
        assert (found is None) == (wanted is None)
        if wanted is not None:
            assert bytes(found) == wanted.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_symbols_encode_to_exactly_these_latents(name: str, codecs: dict) -> None:
    codec = codecs[bundle_of(name)]
    part = codec.unpack(data_of(name))
    symbols = expected(name)["symbols"]
    assert codec.latents.encode(symbols, part.header_bytes) == part.chunks[Chunk.LATENTS]


@pytest.mark.parametrize("name", NAMES)
def test_images_compress_to_symbols_that_are_almost_all_these(name: str, codecs: dict) -> None:
    """A latent that lies on the border between two integers may fall on either side on another machine."""
    codec, want = codecs[bundle_of(name)], expected(name)
    again = codec.symbols(codec.unpack(codec.compress(want["image"])))
    difference = np.abs(again.astype(np.int64) - want["symbols"])
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 0.001 * difference.size + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_decoder_agrees(name: str) -> None:
    want = expected(name)
    found = reference_decoder.decode(data_of(name), bundle_of(name))
    assert np.array_equal(found["symbols"], want["symbols"])
    assert (found["height"], found["width"]) == want["pixels"].shape[:2]
    for kind in ("alpha", "icc", "exif", "xmp"):
        assert (found[kind] is None) == (kind not in want)
        if kind in want:
            assert bytes(found[kind]) == want[kind].tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_numpy_evaluation_of_the_network_agrees(name: str, codecs: dict) -> None:
    """onnx's own reference evaluator: no ONNX Runtime anywhere between the file and the pixels."""
    symbols = reference_decoder.decode(data_of(name), bundle_of(name))["symbols"]
    network = ReferenceEvaluator(onnx.load_from_string(codecs[bundle_of(name)].bundle.graphs["synthesis"]))
    (values,) = network.run(None, {"symbols": symbols[None].astype(np.float32)})
    compare_pixels(name, values)


def compare_pixels(name: str, values: np.ndarray) -> None:
    want = expected(name)["pixels"]
    found = np.rint(np.clip(values[0, : want.shape[0], : want.shape[1]], 0, 1) * 255)
    if want.shape[2] == 1 and found.shape[2] == 3:
        found = np.rint(found.mean(axis=2, keepdims=True))
    assert np.abs(found - want).max() <= 1


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("optimised", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_threads_and_graph_optimisation_do_not_matter(
    name: str, threads: int, optimised: bool, codecs: dict
) -> None:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    graph = codecs[bundle_of(name)].bundle.graphs["synthesis"]
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"symbols": expected(name)["symbols"][None].astype(np.float32)})
    compare_pixels(name, values)


def test_the_vectors_reach_the_corners_of_the_format(codecs: dict) -> None:
    def escaped(name: str) -> int:
        tables = codecs[bundle_of(name)].bundle.tables
        low, high = (
            np.array([table.minimum for table in tables]),
            np.array([table.maximum for table in tables]),
        )
        symbols = expected(name)["symbols"]
        return int(((symbols < low) | (symbols > high)).sum())

    parts = {name: codecs[bundle_of(name)].unpack(data_of(name)) for name in NAMES}
    assert {part.header.channels for part in parts.values()} == {1, 2, 3, 4}
    assert set().union(*(part.chunks for part in parts.values())) == set(Chunk)
    assert parts["photo-unknown-chunk"].skipped == (0x95,)
    assert escaped("photo-escapes") > 10
    assert escaped("digit-escapes") > 0
    assert expected("photo-tiles")["symbols"].shape[1] > 1024 // 8


def hex_example() -> bytes:
    block = re.search(r"```hex\n(.*?)```", FORMAT.read_text(), re.DOTALL)
    assert block is not None
    rows = (re.match(r"((?:[0-9a-f]{2} ?)+)", line) for line in block[1].splitlines())
    return bytes.fromhex("".join(row[1] for row in rows if row))


def test_the_example_of_the_format_page_is_a_file_that_decodes(codecs: dict) -> None:
    assert hex_example() == data_of("digit-0")
    pixels = codecs[V1 / "digits.attarmodel"].decompress(hex_example())
    assert np.abs(pixels.astype(int) - expected("digit-0")["pixels"]).max() <= 1


@pytest.mark.parametrize("name", ["digit-0", "photo-everything"])
def test_the_reference_decoder_refuses_too(name: str) -> None:
    """A checker is shown faults: each byte flipped in one bit, and the file cut short."""
    data = data_of(name)
    step = max(1, len(data) // 60)
    cases = [
        data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        for place in range(0, len(data), step)
    ]
    for case in [*cases, *(data[:end] for end in range(0, len(data), step)), data + b"\0"]:
        with pytest.raises(BadFileError):
            reference_decoder.decode(case, bundle_of(name))


def test_a_planted_fault_in_the_tables_is_found(codecs: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = attar.Codec(codecs[V1 / "digits.attarmodel"].bundle)
    swapped = list(codec.bundle.tables)
    swapped[0], swapped[49] = swapped[49], swapped[0]
    monkeypatch.setitem(vars(codec.bundle), "tables", tuple(swapped))
    with pytest.raises(attar.FormatError, match="or another model coded it"):
        codec.decompress(data_of("digit-0"))
