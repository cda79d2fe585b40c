"""Steps per second of `attar train` on the seed's model against a bare PyTorch loop over the same network.

    python benchmarks/train_speed.py [--rounds 3] [--steps 150] [--batch-size 32] [--threads 2] [--compile]

Everything runs in one process, in turns, so that a noisy machine disturbs all alike; what counts is the
ratio. The bare loop has no prior, no rate, no metrics, no data pipeline and the L1 loss ("bare L1"), or the same
loss as Attar's, rate included ("bare, same loss"). Attar's figure is of whole epochs of the Trainer: batches,
noise, prior, SSIM, PSNR, clipping, records.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def bare(images: np.ndarray, batch: int, full_loss: bool, bf16: bool = False) -> Callable[[int], float]:
    """Steps per second of a plain PyTorch loop over the seed's layers."""
    import torch
    from torch import nn
    from torch.nn import functional as f

    from attar.train import layers, losses

    act = nn.LeakyReLU(0.2)
    encoder = nn.Sequential(
        nn.Conv2d(1, 20, 5, 2, 2),
        act,
        nn.Conv2d(20, 50, 5, 2, 2),
        act,
        nn.Flatten(),
        nn.Linear(2450, 500),
        act,
        nn.Linear(500, 50),
    )
    decoder = nn.Sequential(
        nn.Linear(50, 500), act, nn.Linear(500, 2450), act, nn.Unflatten(1, (50, 7, 7)),
        nn.ConvTranspose2d(50, 20, 5, 2, 2, 1), act, nn.ConvTranspose2d(20, 1, 5, 2, 2, 1), act,
    )  # fmt: skip
    prior = layers.FactorizedPrior()
    prior.build((None, 50))
    weights = [*encoder.parameters(), *decoder.parameters()]
    if full_loss:
        weights += [v.value for v in prior.trainable_variables]
    optimizer = torch.optim.Adam(weights, 1e-3)
    loss_of = losses.Loss(lmbda=0.01)

    def run(steps: int) -> float:
        began = time.perf_counter()
        for step in range(steps):
            start = step * batch % (len(images) - batch)
            x = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2).float() / 255
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                y = encoder(x)
                out = decoder(y + (torch.round(y) - y).detach()).float().clamp(0, 1)
            if full_loss:
                bits = prior(y + torch.rand_like(y) - 0.5).sum(1)
                loss = loss_of(x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1), bits)[0]
            else:
                loss = f.l1_loss(out, x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return steps / (time.perf_counter() - began)

    return run


def attar_train(batch: int, bf16: bool, compiled: bool) -> Callable[[int], float]:
    """Steps per second of one epoch of Attar's Trainer, validation left out."""
    from attar import spec
    from attar.train import datasets
    from attar.train.config import TrainConfig
    from attar.train.trainer import Trainer

    model = spec.load(HERE.parent / "models" / "model.json").with_latent_dims(50)
    data = datasets.load("digits")
    folder = tempfile.mkdtemp()
    made: list[Trainer] = []

    def run(steps: int) -> float:
        if not made:  # a compiled step is kept, and its compilation is not timed
            config = TrainConfig(
                batch_size=batch,
                epochs=10_000,
                steps_per_epoch=steps,
                bf16=bf16,
                compiled=compiled,
                schedule="constant",
            )
            made.append(Trainer(config, model, data, folder))
        trainer = made[0]
        trainer.progress.steps_per_epoch = steps
        began = time.perf_counter()
        trainer.train_epoch()
        took = time.perf_counter() - began
        trainer.finish_epoch()
        return steps / took

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--compile", action="store_true", help="also measure compiled steps (a minute of compiling first)"
    )
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from attar.train import datasets

    torch.set_num_threads(options.threads)
    images = datasets.load("digits").train.take(np.arange(4000))
    runs = {
        "bare L1": bare(images, options.batch_size, full_loss=False),
        "bare L1 bf16": bare(images, options.batch_size, full_loss=False, bf16=True),
        "bare, same loss": bare(images, options.batch_size, full_loss=True),
        "attar": attar_train(options.batch_size, bf16=False, compiled=False),
        "attar bf16": attar_train(options.batch_size, bf16=True, compiled=False),
    }
    if options.compile:
        runs["attar compiled"] = attar_train(options.batch_size, bf16=False, compiled=True)
        runs["attar bf16 compiled"] = attar_train(options.batch_size, bf16=True, compiled=True)
    for run in runs.values():
        run(10)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            found[name].append(run(options.steps))
    middle = {name: statistics.median(values) for name, values in found.items()}
    print(
        f"torch {torch.__version__}, {options.threads} threads, batch {options.batch_size},"
        f" {options.rounds} rounds of {options.steps} steps"
    )
    print(f"  {'loop':22}{'steps/s':>9}{'/ bare L1':>11}{'/ bare same loss':>18}")
    for name, value in middle.items():
        print(
            f"  {name:22}{value:9.1f}{value / middle['bare L1']:11.2f}{value / middle['bare, same loss']:18.2f}"
        )


if __name__ == "__main__":
    main()
