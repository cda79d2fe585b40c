"""Steps of data-parallel training, and what the exchange of gradients costs, on the digits model.

    torchrun --standalone --nproc-per-node 2 benchmarks/train_parallel.py --batch-size 64

Beside wall-clock time, which means little on a machine that is busy with other work, it gives the processor
time of the slowest process: what a step takes where every process has a core of its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

from attar import spec as specs
from attar.apps.cli import runs
from attar.train.config import TrainConfig
from attar.train.parallel import Team, joined

ROOT = Path(__file__).resolve().parents[1]
WARM = 10  # steps before the clock starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(ROOT / "models" / "model.json"))
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--steps", type=int, default=60)
    chosen = parser.parse_args()
    runs.need_training()
    with joined() as team:
        measure(team, chosen)


def measure(team: Team, chosen: argparse.Namespace) -> None:
    from attar.train.trainer import Trainer

    spec = specs.load(chosen.model).with_latent_dims(50)
    config = TrainConfig(batch_size=chosen.batch_size)
    trainer = Trainer(config, spec, runs.load_data(config, spec), tempfile.mkdtemp(), team=team)
    exchange, average = np.zeros(2), Team.average

    def timed(self: Team, tensors: Any) -> None:
        began = time.perf_counter(), time.process_time()
        average(self, tensors)
        exchange[:] += time.perf_counter() - began[0], time.process_time() - began[1]

    Team.average = timed  # type: ignore[method-assign]
    batches = [batch for _, batch in zip(range(8), trainer._batches(), strict=False)]
    for number in range(WARM + chosen.steps):
        if number == WARM:
            team.any(False)
            exchange[:] = 0
            wall, processor = time.perf_counter(), time.process_time()
        trainer.step(batches[number % len(batches)][1], 1e-3)
        team.any(False)
    spent = np.array([time.perf_counter() - wall, time.process_time() - processor, *exchange]) / chosen.steps
    rows = np.zeros((team.size, 4))
    rows[team.rank] = spent
    rows = team.total(rows)
    if team.leads:
        size = sum(int(weight.numel()) for weight in trainer.step.weights)  # type: ignore[attr-defined]
        slowest, (_, _, waited, worked) = rows[:, 1].max(), rows.max(0)
        print(
            f"{team.size} process(es), batch {chosen.batch_size}: {1 / rows[:, 0].max():.1f} steps/s by the clock; "
            f"{1000 * slowest:.2f} ms of processor a step in the slowest, {1000 * worked:.2f} of them for the exchange "
            f"of {4 * size / 1e6:.2f} MB ({1000 * waited:.2f} ms by the clock, waiting included)"
        )


if __name__ == "__main__":
    main()
