"""``attar train --engine ray``: Ray Train starts the processes of a run, on a cluster, and again when one is lost.

All nodes see the run folder, and the images, under the same paths (a shared file system). The run's own checkpoints
are what a lost worker's successors go on from; Ray is given one after every epoch.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from attar.apps.bulk.cluster import check_address
from attar.apps.jobs import LAST, Job, check_folder, given, prepare
from attar.codec.files import write_bytes
from attar.errors import AttarError, TrainingError

Say = Callable[[Mapping[str, float]], None]

FOLDER = "ray"  # in the run folder: what Ray keeps, and the words between the workers and the driver
BEGUN, OUTCOME = "begun", "outcome.json"
POLL = 0.5  # seconds between two looks at the history
OBJECT_STORE_BYTES = 100 << 20  # of a cluster that is started here: nothing large passes through it


@dataclass(frozen=True)
class Cluster:
    """Where a run is to train."""

    workers: int
    """Processes of the run."""
    address: str | None = None
    """Of a Ray cluster; None starts one on this machine."""
    failures: int = 3
    """Lost workers that the run survives."""


def train(job: Job, cluster: Cluster, say: Say) -> dict[str, Any]:
    """Train on a cluster; ``say`` is given the row of each epoch. Gives the kept epoch's row and ``checkpoint``.

    Raises:
        AttarError: what a worker found wrong, or Ray.
    """
    import ray
    from ray import train as ray_train
    from ray.train.torch import TorchConfig, TorchTrainer

    job = _anywhere(job)
    if not job.resume:  # what is wrong is better said before Ray starts
        given(job)
        check_folder(job)
    folder = job.run / FOLDER
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be replaced: {error.strerror}") from error
    with _connected(cluster):
        gpus = ray.cluster_resources().get("GPU", 0) >= cluster.workers
        trainer = TorchTrainer(
            work,
            train_loop_config={**asdict(job), "run": str(job.run)},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
            scaling_config=ray_train.ScalingConfig(num_workers=cluster.workers, use_gpu=gpus),
            run_config=ray_train.RunConfig(
                name="attar",
                storage_path=str(folder),
                failure_config=ray_train.FailureConfig(max_failures=cluster.failures),
                checkpoint_config=ray_train.CheckpointConfig(num_to_keep=1),
            ),
        )
        with _followed(job.run / "history.csv", say):
            try:
                trainer.fit()
            except (ray_train.TrainingFailedError, ray.exceptions.RayError) as error:
                raise TrainingError(
                    f"the cluster failed: {_brief(error)}; --resume goes on with the run"
                ) from error
    return _outcome(folder / OUTCOME)


def work(settings: dict[str, Any]) -> None:
    """One worker, from its start to the end of the run."""
    from attar.apps.cli.runs import need_training
    from attar.train.parallel import EndedError, joined

    job = Job(**{**settings, "run": Path(settings["run"])})
    folder = job.run / FOLDER
    need_training(tfds=True)
    try:
        with joined() as team:
            again = (folder / BEGUN).exists()
            team.any(False)  # all have looked
            if team.leads:
                if again:
                    _fetch(job.run)
                write_bytes(folder / BEGUN, b"")
            trainer = prepare(job, replace(team, restarts=int(again)), lambda data: None)
            trainer.watch = lambda progress: _report(trainer)
            trainer.fit()
            if team.leads:
                row = {**trainer.kept(), "checkpoint": str(trainer.best_path)}
                write_bytes(folder / OUTCOME, json.dumps(row).encode())
    except (EndedError, SystemExit):
        return  # Ray knows of the worker that was lost, and the driver of the one that found a fault
    except Exception as error:
        if not isinstance(error, AttarError) and not hasattr(error, "exit_code"):
            raise
        write_bytes(folder / OUTCOME, json.dumps({"fault": str(error)}).encode())


def _report(trainer: Any) -> None:
    """Tell Ray of a finished epoch, and give it the checkpoint to keep."""
    from ray import train as ray_train

    progress = trainer.progress
    if progress.batch or len(progress.history) <= getattr(trainer, "told", 0):
        return
    trainer.told = len(progress.history)
    row = dict(progress.history[-1])
    if not trainer.team.leads:
        ray_train.report(row)
        return
    with tempfile.TemporaryDirectory(dir=trainer.run / FOLDER) as copies:
        os.link(trainer.last_path, Path(copies) / LAST.name)
        ray_train.report(row, checkpoint=ray_train.Checkpoint.from_directory(copies))


def _fetch(run: Path) -> None:
    """Take Ray's checkpoint where the run folder has none (it is on another node's disk)."""
    from ray import train as ray_train

    kept = ray_train.get_checkpoint()
    if kept is not None and not (run / LAST).exists():
        with kept.as_directory() as folder:
            (run / LAST).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(run / LAST, (Path(folder) / LAST.name).read_bytes())


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """A Ray that is there already is used as it is; what workers print belongs to their logs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if ray.is_initialized():
        yield
        return
    try:
        if cluster.address is not None:
            check_address(cluster.address)
            ray.init(address=cluster.address, **common)
        else:
            local = {"num_cpus": cluster.workers + 1, "object_store_memory": OBJECT_STORE_BYTES}
            ray.init(address="local", include_dashboard=False, **local, **common)
    except (OSError, RuntimeError, ValueError) as error:
        raise AttarError(
            f"--address {cluster.address or 'local'}: no Ray cluster answers: {_brief(error)}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _followed(history: Path, say: Say) -> Iterator[None]:
    """Say every row that is added to history.csv meanwhile."""
    shown, ended = len(_rows(history)), threading.Event()

    def look() -> int:
        rows = _rows(history)
        for row in rows[shown:]:
            say(row)
        return max(shown, len(rows))

    def follow() -> None:
        nonlocal shown
        while not ended.wait(POLL):
            shown = look()

    thread = threading.Thread(target=follow, name="attar-follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()


def _rows(history: Path) -> list[dict[str, float]]:
    try:
        with history.open(newline="") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError):
        return []  # not there yet


def _outcome(path: Path) -> dict[str, Any]:
    try:
        row = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: the workers left no word of how the run ended") from error
    if "fault" in row:
        raise TrainingError(row["fault"])
    return dict(row)


def _anywhere(job: Job) -> Job:
    """The same job with paths that mean the same in a worker's own folder."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).absolute())

    options = {**job.options, "data_dir": absolute(job.options.get("data_dir"))}
    name = options.get("dataset")
    if name and not options.get("tfds") and Path(name).exists():
        options["dataset"] = absolute(name)
    return Job(
        job.run.absolute(),
        options,
        absolute(job.model),
        job.resume,
        job.force,
        weights=absolute(job.weights),
        best=absolute(job.best),
        log_dir=absolute(job.log_dir),
    )


def _brief(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
