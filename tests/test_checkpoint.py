from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attar.errors import AttarError, CheckpointError
from attar.train import checkpoint
from training_kit import build, convolutional, dense, digits, numpy

RECORD = {"model": {}, "digest": "0", "config": {"epochs": 3}, "dataset": "digits", "progress": {}}
ARRAYS = {"weights/a/b": np.arange(6.0, dtype="float32").reshape(2, 3), "optimizer/a/step": np.float32(2)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "er" / "c.npz"
    checkpoint.save(path, ARRAYS, RECORD)
    return path


def archive(path: Path, entries: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, value in entries.items():
            data = value
            if not isinstance(value, bytes):
                stream = io.BytesIO()
                np.lib.format.write_array(stream, np.asarray(value))
                data = stream.getvalue()
            file.writestr(f"{name}.npy", data)
    return path


def entries(record: Any = None, **arrays: Any) -> dict[str, Any]:
    text = json.dumps({"format": checkpoint.FORMAT, **RECORD} if record is None else record)
    return {"record": np.frombuffer(text.encode(), np.uint8), **arrays}


def test_what_is_saved_is_loaded(saved: Path) -> None:
    found = checkpoint.load(saved)
    assert {key: found.record[key] for key in RECORD} == RECORD
    assert found.arrays.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(found.part("weights")["a/b"], ARRAYS["weights/a/b"])
    assert found.part("optimizer") == {"a/step": np.float32(2)}
    assert found.part("average") == {}
    assert [path.name for path in saved.parent.iterdir()] == ["c.npz"]


def test_saving_replaces_the_old_one_whole(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(saved, ARRAYS, {**RECORD, "loss": float("nan")})
    assert saved.read_bytes() == before
    checkpoint.save(saved, ARRAYS, {**RECORD, "dataset": "other"})
    assert checkpoint.load(saved).record["dataset"] == "other"


@pytest.mark.parametrize("below", ["file", "file/folder/more"])
def test_an_unwritable_place_is_an_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AttarError, match=r"c\.npz.*cannot be written"):
        checkpoint.save(tmp_path / below / "c.npz", ARRAYS, RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.npz: no such checkpoint"):
        checkpoint.load(tmp_path / "none.npz")
    with pytest.raises(CheckpointError, match=r"is a folder, expected a checkpoint file such as run/"):
        checkpoint.load(tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("pwned"),)  # type: ignore[return-value]


def forgeries(folder: Path) -> dict[str, Path]:
    """Files that are no checkpoints, each wrong in a way of its own."""
    made = {name: folder / name for name in ("empty", "text", "pickle", "npy", "pickled array")}
    made["empty"].write_bytes(b"")
    made["text"].write_text("weights")
    made["pickle"].write_bytes(pickle.dumps(Evil()))
    with made["npy"].open("wb") as file:
        np.save(file, np.zeros(3))
    archive(made["pickled array"], entries(**{"weights/a": pickle.dumps(Evil())}))
    for name, content in {
        "no record": {"weights/a": np.zeros(2)},
        "record of text": {"record": np.array(["x"])},
        "not json": {"record": np.frombuffer(b"{", np.uint8)},
        "a list": entries([]),
        "another format": entries({**RECORD, "format": "attar checkpoint 2"}),
        "no configuration": entries({"format": checkpoint.FORMAT, **RECORD, "config": None}),
        "deep": {"record": np.frombuffer(b"[" * 200_000, np.uint8)},
        "strings": entries(**{"weights/a": np.array(["x", "y"])}),
        "objects": entries(**{"weights/a": np.array([None, 1], object)}),
    }.items():
        try:
            made[name] = archive(folder / name, content)
        except ValueError:  # object arrays need pickle, which this writer has not either
            continue
    made["compressed"] = archive(folder / "compressed", entries(), zipfile.ZIP_DEFLATED)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1 << 10)}
    )
    made["huge"] = archive(folder / "huge", entries(**{"weights/a": header.getvalue()}))
    return made


def test_no_forgery_is_loaded_and_none_runs_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = forgeries(tmp_path)
    assert len(found) >= 14
    for name, path in found.items():
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(path)
        assert str(caught.value).startswith(f"{path}: not a checkpoint of Attar"), name
        assert "\n" not in str(caught.value), name
    assert not (tmp_path / "pwned").exists()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_an_error_or_changes_nothing(saved: Path, data: st.DataObject) -> None:
    whole = saved.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    flipped = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    broken = saved.with_name("broken.npz")
    broken.write_bytes(whole[:place] if cut else whole[:place] + flipped + whole[place + 1 :])
    try:
        found = checkpoint.load(broken)
    except CheckpointError:
        return
    # A flipped bit in a time stamp or an attribute of the zip: the content's checksums still hold.
    assert found.record == checkpoint.load(saved).record
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], value)


def test_weights_go_to_another_network_of_the_same_model(tmp_path: Path) -> None:
    net, other, images = build(dense(), seed=1), build(dense(), seed=2), digits(4)
    checkpoint.save(tmp_path / "c.npz", checkpoint.weights(net), RECORD)
    assert not np.array_equal(numpy(net(images).regenerated), numpy(other(images).regenerated))
    checkpoint.restore_weights(other, checkpoint.load(tmp_path / "c.npz"), "c.npz")
    np.testing.assert_array_equal(numpy(net(images).regenerated), numpy(other(images).regenerated))


def test_the_average_is_taken_where_it_is_wanted() -> None:
    net = build(dense())
    arrays = checkpoint.weights(net)
    kernel = np.full_like(arrays["weights/encoder_1_dense/kernel"], 7)
    kept = checkpoint.Checkpoint({**arrays, "average/encoder_1_dense/kernel": kernel}, RECORD)
    variable = net.named_variables()["encoder_1_dense/kernel"]
    checkpoint.restore_weights(net, kept, "c")
    np.testing.assert_array_equal(numpy(variable), arrays["weights/encoder_1_dense/kernel"])
    checkpoint.restore_weights(net, kept, "c", averaged=True)
    np.testing.assert_array_equal(numpy(variable), 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (dense(13), "compressed_representation/kernel has shape [48, 12], the model's has [48, 13]"),
        (convolutional(28, 1), "is missing"),
    ],
)
def test_weights_of_another_model_are_refused_and_nothing_changes(content: dict, words: str) -> None:
    kept = checkpoint.Checkpoint(checkpoint.weights(build(dense())), RECORD)
    net = build(content)
    before = checkpoint.weights(net)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore_weights(net, kept, "c.npz")
    assert str(caught.value).startswith("c.npz: checkpoint of another model: ")
    assert words in str(caught.value)
    after = checkpoint.weights(net)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_weights_that_are_not_finite_are_refused() -> None:
    net = build(dense())
    arrays = checkpoint.weights(net)
    arrays["weights/encoder_1_dense/bias"][3] = np.nan
    with pytest.raises(CheckpointError, match="encoder_1_dense/bias holds values that are not finite"):
        checkpoint.restore_weights(net, checkpoint.Checkpoint(arrays, RECORD), "c.npz")
