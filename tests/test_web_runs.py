"""The API of training runs: what their folders say, to the letter; and that no file of a run can do harm."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="attar[web] is not installed")

from fastapi.testclient import TestClient

from attar.apps.web import runfolder
from attar.apps.web.app import create_app
from attar.apps.web.limits import Refusal
from attar.apps.web.runfolder import Runs
from attar.train.config import TrainConfig
from attar.train.live import Status

STATUS = Status("training", 1, 3, 15, 30, 0.5, 20.0, 0.9, 2.0, 7.5, None)
PNG = b"\x89PNG\r\n\x1a\n and so on"


def write_run(folder: Path, rows: int = 2, status: Status | None = None, **options: Any) -> Path:
    """A run's folder as ``attar train`` leaves it, with ``rows`` epochs and a sample of each."""
    (folder / "samples").mkdir(parents=True)
    (folder / "config.json").write_text(TrainConfig(**({"epochs": 3} | options)).to_json())
    (folder / "model.json").write_bytes((Path(__file__).parents[1] / "models" / "model.json").read_bytes())
    if rows:
        lines = ["epoch,step,seconds,loss,psnr,ssim,bytes,val_loss,val_psnr,val_ssim,val_bytes"]
        lines += [
            f"{e},{10 * e},{2.5 * e},{1 / e},20,0.9,30,{1 / e + 0.1},19.5,0.89,31" for e in range(1, rows + 1)
        ]
        (folder / "history.csv").write_text("\n".join(lines) + "\n")
    for epoch in range(1, rows + 1):
        (folder / "samples" / f"epoch-{epoch}.png").write_bytes(PNG)
    if status:
        (folder / "progress.json").write_text(status.to_json())
    return folder


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def only(root: Path) -> dict[str, Any]:
    (row,) = Runs(root).rows()
    return row


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(runs_folder=tmp_path), base_url="http://127.0.0.1:8000") as client:
        yield client


def test_a_real_run_is_told_as_it_was_written(tiny_run: Path) -> None:
    app = create_app(runs_folder=tiny_run.parent)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        (row,) = client.get("/api/runs").json()
        whole = client.get(f"/api/runs/{row['id']}").json()
        samples = [client.get(f"/api/runs/{row['id']}/samples/{epoch}") for epoch in (1, 2)]
    assert (row["name"], row["state"], row["epoch"], row["epochs"], row["step"]) == (
        "run",
        "finished",
        2,
        2,
        32,
    )
    assert {key: whole[key] for key in row} == row
    with (tiny_run / "history.csv").open(newline="") as file:
        written = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]
    assert whole["history"] == written
    assert whole["history_rows"] == 2
    best = min(written, key=lambda line: line["val_loss"])
    assert row["best"] == {key: best[key] for key in row["best"]}
    config = json.loads((tiny_run / "config.json").read_text())
    assert whole["config"].items() <= config.items()
    assert whole["config"].keys() == config.keys() - {"data_dir"}
    assert whole["model"] == json.loads((tiny_run / "model.json").read_text())
    assert row["samples"] == [1, 2]
    assert samples[1].content == (tiny_run / "regenerated.png").read_bytes()
    assert samples[0].headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("status", "silent", "state"),
    [
        (STATUS, 1, "training"),
        (STATUS, 60, "interrupted"),
        (dataclasses.replace(STATUS, state="finished"), 60, "finished"),
        (dataclasses.replace(STATUS, state="interrupted"), 1, "interrupted"),
        (dataclasses.replace(STATUS, state="failed", fault="the loss became nan"), 60, "failed"),
    ],
)
def test_the_state_is_judged_by_word_and_age(
    tmp_path: Path, status: Status, silent: float, state: str
) -> None:
    run = write_run(tmp_path / "a", 1, status)
    age(run / "progress.json", silent)
    row = only(tmp_path)
    assert (row["state"], row["fault"]) == (state, status.fault)
    assert (row["epoch"], row["step"], row["steps"], row["loss"]) == (1, 15, 30, 0.5)
    assert (row["seconds_left"] is None) == (state != "training")


@pytest.mark.parametrize(
    ("rows", "silent", "options", "state"),
    [
        (3, 1e6, {}, "finished"),
        (2, 1e6, {}, "interrupted"),
        (2, 30, {}, "training"),
        (2, 1e6, {"epochs": 9}, "interrupted"),
        (1, 70, {}, "interrupted"),
    ],
)
def test_a_run_without_progress_is_judged_by_its_history(
    tmp_path: Path, rows: int, silent: float, options: dict[str, Any], state: str
) -> None:
    run = write_run(tmp_path / "a", rows, **options)
    for name in ("config.json", "history.csv"):
        age(run / name, silent)
    assert only(tmp_path)["state"] == state


def test_a_run_that_lost_its_patience_is_finished(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 5, epochs=99, patience=4)
    lines = (run / "history.csv").read_text().replace("1.1,19.5", "0.0,19.5")
    (run / "history.csv").write_text(lines)
    age(run / "history.csv", 1e6)
    age(run / "config.json", 1e6)
    assert only(tmp_path)["state"] == "finished"


def test_runs_are_found_two_levels_deep_and_nowhere_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("b", "deep/a", "too/deep/c", ".hidden/d"):
        write_run(root / name, 1)
    write_run(tmp_path / "outside", 1)
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to(tmp_path)
    (root / "empty").mkdir()
    assert {row["name"] for row in Runs(root).rows()} == {"b", "deep/a"}
    assert only(root / "b")["name"] == "b"
    assert {row["name"] for row in Runs(root / "link").rows()} == {"outside"}  # the operator's own word


def test_a_crowded_folder_costs_a_bounded_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        write_run(tmp_path / f"run-{number}", 1)
    monkeypatch.setattr(runfolder, "MOST_RUNS", 4)
    assert len(Runs(tmp_path).rows()) == 4
    monkeypatch.setattr(runfolder, "MOST_ENTRIES", 9 + 3 * 4)
    assert len(Runs(tmp_path).rows()) == 3


def hostile_run(run: Path, secret: Path) -> dict[str, str]:
    """One fault for each file of the run; what the row must say of it."""
    return {
        "config.json=link": "symbolic link",
        "history.csv=link": "symbolic link",
        "progress.json=link": "symbolic link",
        "config.json=pipe": "no plain file",
        "config.json={": "config.json: line 1",
        "config.json=[]": "holds no options",
        "config.json=" + json.dumps({"epochs": "many"}): "epochs is 'many'",
        "config.json=" + "[" * 100_000: "nested too deeply",
        "history.csv=pipe": "no plain file",
        "history.csv=large": "larger than",
        "history.csv=<script>alert(1)</script>\n": "names of its columns",
        "history.csv=epoch,epoch\n1,1\n": "names of its columns",
        "history.csv=" + ",".join(f"c{i}" for i in range(65)): "names of its columns",
        "history.csv=epoch,loss\n1\n": "history.csv: ",
        "history.csv=epoch,loss\n1,many\n": "could not convert",
        "history.csv=epoch,loss\n5,1\n": "not those of epochs 1, 2, 3",
        'history.csv=epoch,loss\n1,"' + "x" * 200_000 + '"\n': "field",
        "history.csv=\xff": "",
    }


@pytest.mark.parametrize("fault", hostile_run(Path(), Path()))
def test_what_cannot_be_read_is_said_and_nothing_else_given(tmp_path: Path, fault: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"dataset": "secret"}')
    run = write_run(tmp_path / "root" / "a", 2, STATUS)
    name, _, what = fault.partition("=")
    (run / name).unlink(missing_ok=True)
    if what == "link":
        (run / name).symlink_to(secret)
        if name == "config.json":  # no run at all
            assert Runs(tmp_path / "root").rows() == []
            return
    elif what == "pipe":
        os.mkfifo(run / name)
        if name == "config.json":
            assert Runs(tmp_path / "root").rows() == []
            return
        (run / "progress.json").write_text(STATUS.to_json())
    elif what == "large":
        (run / name).write_bytes(b"epoch\n" + b"1\n" * (5 << 20))
    else:
        (run / name).write_bytes(what.encode("latin-1"))
    row = only(tmp_path / "root")
    assert row["state"] == "unreadable"
    assert hostile_run(run, secret)[fault] in row["fault"]
    assert str(tmp_path) not in json.dumps(row)
    assert "secret" not in json.dumps(Runs(tmp_path / "root").detail(row["id"]))


def test_lesser_files_that_are_broken_are_left_out(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    run = write_run(tmp_path / "root" / "a", 3)
    (run / "model.json").write_text("{}")
    (run / "rivals.json").write_text(json.dumps({"jpeg": [[0.5, 30.0], [1], "x", [1, "y"]], "x": 3}))
    (run / "progress.json").write_text("nonsense")
    (run / "samples" / "epoch-2.png").unlink()
    (run / "samples" / "epoch-2.png").symlink_to(secret)
    (run / "samples" / "epoch-3.png").write_bytes(b"<script>")
    (run / "samples" / "epoch-4.png").write_bytes(PNG)  # of a run that was there before
    runs = Runs(tmp_path / "root")
    whole = runs.detail(only(tmp_path / "root")["id"])
    assert (whole["state"], whole["model"], whole["samples"]) == ("finished", None, [1, 3])
    assert whole["rivals"] == {"jpeg": [[0.5, 30.0]]}
    assert runs.sample(whole["id"], 1) == PNG
    for epoch in (2, 3, 4):
        with pytest.raises(Refusal, match="keeps no samples of epoch"):
            runs.sample(whole["id"], epoch)
    shutil.move(run / "samples", tmp_path / "moved")
    (run / "samples").symlink_to(tmp_path / "moved")
    assert only(tmp_path / "root")["samples"] == []


def test_paths_of_the_data_are_not_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 1, dataset="/home/somebody/photos", data_dir="/home/somebody/tfds")
    runs = Runs(tmp_path)
    whole = runs.detail(only(tmp_path)["id"])
    assert whole["dataset"] == whole["config"]["dataset"] == "photos"
    assert "somebody" not in json.dumps(whole)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/home/me/photos/a b.jpg: broken", "a b.jpg: broken"),
        ("the loss became nan at step 3 (images 1/2.png and 5 more)",) * 2,
        ("'/data/x.npz': cannot be read", "'x.npz': cannot be read"),
        (r"C:\Users\me\x.npz cannot be written", "x.npz cannot be written"),
        ("a learning rate of 3 / 2 and/or more",) * 2,
    ],
)
def test_a_fault_is_told_without_the_folders_in_it(tmp_path: Path, said: str, told: str) -> None:
    write_run(tmp_path / "a", 1, dataclasses.replace(STATUS, state="failed", fault=said))
    assert only(tmp_path)["fault"] == told


def test_those_that_go_on_come_first(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", 3)
    write_run(tmp_path / "new", 3)
    going = write_run(tmp_path / "going", 1, STATUS)
    for name in ("config.json", "history.csv"):
        age(going / name, 3600)
        age(old / name, 60)
    assert [row["name"] for row in Runs(tmp_path).rows()] == ["going", "new", "old"]


def test_a_long_run_is_told_in_a_thousand_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 2501, epochs=5000)
    whole = Runs(tmp_path).detail(only(tmp_path)["id"])
    assert (whole["epoch"], whole["history_rows"], whole["best"]["epoch"]) == (2501, 2501, 2501)
    assert len(whole["history"]) == 834
    assert whole["history"][-1]["epoch"] == 2501
    assert (whole["step"], whole["steps"]) == (25010, 50000)


def test_a_long_history_is_thinned_evenly_to_its_last_row() -> None:
    rows = [{"epoch": epoch} for epoch in range(1, 2502)]
    found = [row["epoch"] for row in runfolder.thinned(rows)]
    assert len(found) <= 1000
    assert found[-1] == 2501
    assert {b - a for a, b in itertools.pairwise(found)} == {3}


@pytest.mark.parametrize("run", ["x", "..", "%2e%2e", "a" * 40, "config.json"])
def test_an_id_is_of_the_list_and_never_a_path(client: TestClient, tmp_path: Path, run: str) -> None:
    write_run(tmp_path / "x", 1)
    for path in (f"/api/runs/{run}", f"/api/runs/{run}/samples/1"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
    for epoch in ("0", "-1", "1e3", "../1", "99999999999"):
        assert client.get(f"/api/runs/{run}/samples/{epoch}").status_code in (404, 422)
