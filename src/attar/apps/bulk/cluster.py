"""The engine of ``attar[cluster]``: Ray Data, a task for each shard, on this machine or on a cluster.

All nodes see the inputs and the outputs under the same paths (a shared file system), and have the same attar
installed; both are checked before the work. The bundle travels to them.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from attar import __version__
from attar.apps.bulk.ledger import SETTINGS
from attar.apps.bulk.processes import cores
from attar.apps.bulk.records import Answer, Lost, Settings, Shard
from attar.apps.bulk.worker import Worker
from attar.errors import AttarError

__all__ = ["Cluster", "check_address"]

WAVE = 4096
"""Shards that Ray Data is given at a time: what it keeps of each in memory stays bounded."""
OBJECT_STORE_BYTES = 200 << 20
"""Of a cluster that is started here: names and rows pass through it, and never an image."""
PROBE_SECONDS = 60
ANSWER_SECONDS = 10


class Cluster:
    """Ray on ``address`` (None: started on this machine, with ``jobs`` cores or all). A context manager.

    ``jobs``: shards at a time; 0 for as many as the cluster has cores. A Ray that this process is connected to
    already is used as it is.
    """

    def __init__(
        self, settings: Settings, model: bytes | None, out: Path, jobs: int = 0, address: str | None = None
    ) -> None:
        self.settings = settings
        self.model = model
        self.out = out
        self.jobs = jobs
        self.address = address
        self._open = ExitStack()

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        with ExitStack() as stack:
            stack.enter_context(
                redirect_stdout(sys.stderr)
            )  # where Ray tells of dead workers; stdout is for data
            if not ray.is_initialized():
                self._connect(ray)
                stack.callback(ray.shutdown)
            self._probe(ray)
            self.jobs = self.jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
            self._model = None if self.model is None else ray.put(self.model)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Answer | Lost]]:
        """Answers as they come; see :class:`attar.apps.bulk.run.Engine`. Ray replaces workers and nodes that die."""
        import ray.data

        by_name = {shard.name: shard for shard in shards}
        arguments = {"settings": self.settings, "model": [self._model], "out": str(self.out)}
        try:
            with _quiet_data():
                for start in range(0, len(shards), WAVE):
                    wave = [{"shard": shard} for shard in shards[start : start + WAVE]]
                    tasks = ray.data.from_items(wave, override_num_blocks=len(wave))
                    answers = tasks.map(task, fn_kwargs=arguments, num_cpus=1, concurrency=self.jobs)
                    for row in answers.iter_rows():
                        yield by_name[row["name"]], row["answer"]
        except Exception as error:  # Ray Data gives whatever its threads met
            raise AttarError(
                f"the cluster failed: {_first_line(error)}; what was done is kept: give the same command again"
            ) from error

    def _connect(self, ray: Any) -> None:
        """Quietly: what workers print belongs to their logs."""
        if self.address is not None:
            check_address(self.address)
        common = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address is not None:
                ray.init(address=self.address, **common)
            else:
                ray.init(
                    address="local",
                    num_cpus=self.jobs or cores(),
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    **common,
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise AttarError(
                f"--address {self.address or 'local'}: no Ray cluster answers: {_first_line(error)}"
            ) from error

    def _probe(self, ray: Any) -> None:
        """Ask every node what it has; raises :class:`AttarError`, naming the node, where the work would fail."""
        from ray.exceptions import RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        expected = (__version__, (self.out / SETTINGS).read_bytes())
        remote = ray.remote(num_cpus=0)(probe)
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise AttarError("the Ray cluster has no node with a CPU")
        asked = {
            node["NodeManagerAddress"]: remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(str(self.out / SETTINGS))
            for node in nodes
        }
        for name, answer in asked.items():
            try:
                version, settings = ray.get(answer, timeout=PROBE_SECONDS)
            except RayError as error:
                raise AttarError(
                    f"node {name} cannot run attar: {_first_line(error)}; is attar {__version__} installed there?"
                ) from error
            if version != expected[0]:
                raise AttarError(f"node {name} has attar {version}, and this machine {__version__}")
            if settings != expected[1]:
                raise AttarError(
                    f"node {name} does not see {self.out}: inputs and outputs have to be on a file system that all "
                    "nodes mount under the same path"
                )


def check_address(address: str) -> None:
    """Refuse at once what Ray would find out after minutes, or in the middle of the work."""
    if "://" in address:
        raise AttarError(
            f"--address {address}: Ray Data and Ray Train do not run through Ray's client; on a machine of the "
            "cluster, give auto or the HOST:PORT that ray start printed, or send the command there with ray job submit"
        )
    host, _, port = address.rpartition(":")
    if port.isdecimal() and host:
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise AttarError(f"--address {address}: nothing answers there: {error}") from error


def probe(path: str) -> tuple[str, bytes | None]:
    """On a node: its version of attar, and what it sees of a file."""
    try:
        return __version__, Path(path).read_bytes()
    except OSError:
        return __version__, None


def task(row: dict[str, Any], *, settings: Settings, model: list[Any], out: str) -> dict[str, Any]:
    """On a node: one shard."""
    shard: Shard = row["shard"]
    return {"name": shard.name, "answer": _worker(settings, model[0], out)(shard)}


@lru_cache(maxsize=1)
def _worker(settings: Settings, model: Any, out: str) -> Worker:
    """The worker of this process, which Ray uses for many tasks."""
    import ray

    return Worker(settings, None if model is None else ray.get(model), Path(out))


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Without Ray Data's own progress bars and announcements."""
    from ray.data import DataContext

    context, logger = DataContext.get_current(), logging.getLogger("ray.data")
    before = (context.enable_progress_bars, logger.level)
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
