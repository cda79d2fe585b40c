"""The training run, top to bottom.

::

    batches --step--> metrics of the batch --+--> history.csv, TensorBoard, checkpoints, pictures
    validation split --measure_split---------+        (all in one folder, the run)

A run can be killed at any moment: ``last.npz`` holds weights, optimizer, random state, position in the epoch
and the history, and ``Trainer.resume`` goes on from it to the same numbers.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attar import spec as specs
from attar.errors import CheckpointError, TrainingError
from attar.train import checkpoint, datasets, losses, network, ratedistortion, steps
from attar.train.adversarial import BLOCK as DISCRIMINATOR
from attar.train.adversarial import Adversary, has_one
from attar.train.config import TrainConfig
from attar.train.interrupt import Interrupted, deferred
from attar.train.journal import Journal, check_folder
from attar.train.live import Live
from attar.train.measuring import check_images, measure_split, regenerate
from attar.train.parallel import ALONE, Team
from attar.train.progress import Progress, Row
from attar.train.tensors import to_numpy

BEST, LAST = "best.npz", "last.npz"
RESULTS = ("history.csv", "curves.png", "regenerated.png")
CHECK_EVERY = 20  # steps between two looks at the losses; looking makes a GPU wait

Watch = Callable[[Progress], None]


class Trainer:
    """Trains one network in one run folder.

    Args:
        config: everything that decides the run.
        spec: the model.json.
        data: the data set.
        run: folder that everything is written to; a new run replaces what an earlier one left there.
        checkpoint_path: where the best checkpoint goes; None is ``run/checkpoints/best.npz``.
        log_dir: where TensorBoard's files go; None is ``run/tensorboard``.
        watch: called with the :class:`Progress` after every step (a progress bar).
        team: the processes that share the run; only their leader writes.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: specs.ModelSpec,
        data: datasets.Dataset,
        run: str | os.PathLike[str],
        *,
        checkpoint_path: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        watch: Watch | None = None,
        team: Team = ALONE,
    ) -> None:
        self.config, self.spec, self.data, self.run = config, spec, data, Path(run)
        self.best_path = Path(checkpoint_path) if checkpoint_path else self.run / "checkpoints" / BEST
        self.last_path = self.run / "checkpoints" / LAST
        self.log_dir = Path(log_dir) if log_dir else self.run / "tensorboard"
        self.watch, self.team = watch or (lambda progress: None), team
        self.network, self.adversary = team.after_leader(self._build)
        team.align(self.network.variables)
        if self.adversary is not None:
            team.align(self.adversary.model.variables)
        check_images(self.network, data)
        team.check_batch(min(config.batch_size, len(data.train)))
        names = (
            f"{label}{len(split)}" for label, split in vars(data).items() if label in ("train", "validation")
        )
        team.check_same(
            "model, options or data set", config.to_json(), spec.digest(), str(data.shape), *names
        )
        self.loss = losses.Loss(config.loss, config.weight, config.alpha, config.lmbda, config.balance)
        self.step = self._make_step()
        metrics = steps.METRICS if self.adversary is None else steps.ALL_METRICS
        whole = len(data.train) // config.batch_size or 1
        self.progress = Progress(steps_per_epoch=config.steps_per_epoch or whole, sums=[0.0] * len(metrics))
        self.total = config.epochs * self.progress.steps_per_epoch
        self._began = self._saved = time.monotonic()
        self._resumed = False
        self._interrupt = threading.Event()

    def _build(self) -> tuple[network.Network, Adversary | None]:
        config = self.config
        net = network.build(self.spec, seed=config.seed, dtype="mixed_bfloat16" if config.bf16 else "float32")
        if config.networks != "all":
            net.train_only(config.networks)
        return net, Adversary(self.spec, config) if has_one(self.spec, config) else None

    def _make_step(self) -> steps.Step:
        config = self.config
        return steps.make_step(
            self.network,
            self.loss,
            clip_norm=config.clip_norm or None,
            average=config.average,
            compiled=config.compiled,
            optimizer=config.optimizer,
            adversary=self.adversary,
            team=self.team,
            micro_batch=config.micro_batch,
        )

    def transfer(self, path: str | os.PathLike[str]) -> None:
        """Start from another run's weights (its optimizer and position are left behind).

        Raises:
            CheckpointError: if the checkpoint is of another model.
        """
        kept = self._load(Path(path))
        checkpoint.restore_weights(self.network, kept, str(path), averaged=True)
        if self.adversary is not None and kept.part(DISCRIMINATOR):
            self.adversary.restore(kept.part(DISCRIMINATOR), str(path), optimizer=False)
        self.step = self._make_step()  # the old one made its running average from the first weights

    def resume(self) -> None:
        """Go on from the run's last checkpoint.

        Raises:
            CheckpointError: if there is none, or it is of another model, data set or backend.
        """
        kept = self._load(self.last_path)
        if kept.record["digest"] != self.spec.digest():
            raise CheckpointError(
                f"{self.last_path}: checkpoint of another model: the model.json has changed"
            )
        checkpoint.restore_weights(self.network, kept, str(self.last_path))
        if self.adversary is not None:
            self.adversary.restore(kept.part(DISCRIMINATOR), str(self.last_path))
        try:
            progress = Progress.from_record(kept.record["progress"], self.progress)
            self.step.restore(*map(kept.part, ("optimizer", "average", "random")))
        except CheckpointError as error:
            made_on = kept.record.get("backend", "torch")
            other = (
                "" if made_on == keras.backend.backend() else f" (it was made with KERAS_BACKEND={made_on})"
            )
            raise CheckpointError(f"{self.last_path}: cannot be resumed: {error}{other}") from error
        self.progress, self._resumed = progress, True

    def _load(self, path: Path) -> checkpoint.Checkpoint:
        """A checkpoint of the leader's, which the other processes need not see."""
        with self.team.files(path.parent, path.name) as folder:
            return checkpoint.load(folder / path.name)

    def fit(self) -> Progress:
        """Train until the last epoch, or until the validation loss stops falling; leave the best weights.

        Raises:
            TrainingError: if the loss is no longer finite (with the step and the batch).
            AttarError: if the run cannot be written.
            KeyboardInterrupt: at the first Ctrl-C, after the state was saved, so that :meth:`resume` goes on;
                at a second one at once.
        """
        progress, leads, journal = self.progress, self.team.leads, Journal(self.run, self.log_dir)
        live = Live(self.run, progress, self.config.epochs) if leads else contextlib.nullcontext()
        self._began, self._saved = time.monotonic() - progress.seconds, time.monotonic()
        try:
            self.team.first(lambda: self._begin(journal))
            self.team.spread_randomness(self.config.seed, progress.steps)
            with live, deferred(self._interrupt):
                while progress.epoch < self.config.epochs and not self._stopped_early():
                    self.train_epoch()
                    row = self.finish_epoch()
                    if leads:
                        journal.epoch(row, progress.history, *self._samples())
                    self._save(self.last_path)
                    self.watch(progress)
        except Interrupted:
            self._save(self.last_path)
            raise
        finally:
            journal.close()
        if leads and self.best_path.exists():
            checkpoint.restore_weights(self.network, checkpoint.load(self.best_path), str(self.best_path))
        return progress

    def _begin(self, journal: Journal) -> None:
        check_folder(self.best_path.parent)
        discriminator = None if self.adversary is None else self.adversary.model
        journal.begin(self.config, self.spec, self.network, self.data, discriminator)
        if not self._resumed:
            self._forget()

    def _forget(self) -> None:
        """Remove what an earlier run left, so that nobody resumes or exports it as this one."""
        own = (self.best_path, self.last_path, *(self.run / name for name in RESULTS))
        try:
            for path in own:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(f"{error.filename}: cannot be replaced: {error.strerror}") from error

    def _stopped_early(self) -> bool:
        return bool(self.config.patience) and self.progress.waited >= self.config.patience

    def train_epoch(self) -> None:
        """Take the steps that are left of the epoch under way."""
        progress, pending = self.progress, []
        for indices, images in self._batches():
            rate = self.config.rate_at(progress.steps, self.total)
            pending.append((indices, self.step(images, rate)))
            progress.batch += 1
            if len(pending) == CHECK_EVERY or progress.batch == progress.steps_per_epoch:
                self._take_in(pending)
                pending = []
                if time.monotonic() - self._saved > 60 * self.config.save_minutes:
                    self._save(self.last_path)
            self.watch(progress)
            if self._interrupted():
                self._take_in(pending)
                raise Interrupted

    def _interrupted(self) -> bool:
        """Whether any process of the run was told to stop."""
        return self.team.any(self._interrupt.is_set())

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The rest of this epoch's batches; an epoch may be shorter or longer than a pass over the images."""
        size, progress, split = self.config.batch_size, self.progress, self.data.train
        passes = max(len(split) // size, 1)
        position, share = progress.steps, (self.team.rank, self.team.size)
        left = progress.steps_per_epoch - progress.batch
        while left > 0:
            number, start = divmod(position, passes)
            whole = len(split) >= size
            for batch in datasets.batches(
                split, size, seed=self.config.seed, epoch=number, start=start, drop_last=whole, share=share
            ):
                yield batch
                position, left = position + 1, left - 1
                if left == 0:
                    return

    def _take_in(self, pending: list[tuple[np.ndarray, Any]]) -> None:
        """Add the metrics of the last steps to the epoch's sums; stop at a loss that is not finite."""
        progress = self.progress
        if not pending:
            return
        values = np.stack([to_numpy(metrics).astype(np.float64) for _, metrics in pending])
        for back, ((indices, _), row) in enumerate(zip(pending, values, strict=True)):
            if not np.isfinite(row).all():
                found = row[~np.isfinite(row)][0]
                batch = progress.batch - len(pending) + back + 1
                names = ", ".join(self.data.train.name(int(i)) for i in indices[:4])
                more = f" and {len(indices) - 4} more" if len(indices) > 4 else ""
                raise self.team.fault(
                    f"the loss became {found} at epoch {progress.epoch + 1}, "
                    f"step {batch} of {progress.steps_per_epoch} (images {names}{more}); "
                    f"try a lower --learning-rate or --clip-norm"
                )
            progress.images += len(indices)
            for position, value in enumerate(row):
                progress.sums[position] += float(value) * len(indices)
        progress.seconds = time.monotonic() - self._began

    def finish_epoch(self) -> Row:
        """Validate, keep the checkpoint if it is the best, begin the next epoch; gives the row."""
        progress, config = self.progress, self.config
        pixels = math.prod(self.data.shape[:2])
        train = progress.means()
        with self.step.averaged():
            validation = self._validation()
            better = progress.best is None or validation["loss"] < progress.best or self._is_judged()
            if better:
                progress.best, progress.waited = validation["loss"], 0
            else:
                progress.waited += 1
            row = {
                "epoch": progress.epoch + 1,
                "step": progress.steps,
                "seconds": round(progress.seconds, 3),
                "learning_rate": config.rate_at(progress.steps - 1, self.total),
                **train,
                "bytes": train["rate"] * pixels / 8,
                **{n if n.startswith("rd_") else f"val_{n}": value for n, value in validation.items()},
                "val_bytes": validation["rate"] * pixels / 8,
            }
            progress.history.append(row)
            progress.epoch, progress.batch, progress.images = progress.epoch + 1, 0, 0
            progress.sums = [0.0] * len(progress.sums)
            if better and self.team.leads:
                arrays = checkpoint.weights(self.network)
                if self.adversary is not None:
                    arrays |= self.adversary.state(optimizer=False)
                checkpoint.save(self.best_path, arrays, self._record(validation))
        return row

    def _is_judged(self) -> bool:
        """Whether the discriminator is at work: from then on every epoch is kept, and none is the best.

        The validation loss is distortion and rate, of which an adversarial run gives some away on purpose
        (Blau and Michaeli 2018, arXiv:1711.06077); by it, the last epoch of the warm-up would win.
        """
        return self.adversary is not None and self.progress.steps > self.config.adversarial_warmup

    def kept(self) -> Row:
        """The row of the epoch whose checkpoint was kept as the best."""
        rows = self.progress.history
        return rows[-1] if self._is_judged() else min(rows, key=lambda row: row["val_loss"])

    def _validation(self) -> Row:
        """The validation split's METRICS; an interruption in between finds the epoch still under way."""

        def measured(quality: float | None) -> Row:
            split = self.data.validation
            return measure_split(self.network, self.loss, split, self._stop_here, quality, self.team)

        row = ratedistortion.measure(measured) if self.network.has_qualities else measured(None)
        if not all(map(math.isfinite, row.values())):
            raise self.team.fault(
                f"the validation loss became {row['loss']} after epoch {self.progress.epoch + 1}, step "
                f"{self.progress.batch} of {self.progress.steps_per_epoch}; try a lower --learning-rate"
            )
        return row

    def _stop_here(self) -> None:
        if self._interrupted():
            raise Interrupted

    def _record(self, validation: Row | None = None) -> dict[str, Any]:
        return {
            "model": self.spec.document,
            "digest": self.spec.digest(),
            "backend": keras.backend.backend(),
            "config": asdict(self.config),
            "dataset": self.data.description,
            "progress": asdict(self.progress),
            "validation": validation,
        }

    def _save(self, path: Path) -> None:
        if self.team.leads:
            judge = {} if self.adversary is None else self.adversary.state()
            arrays = {**checkpoint.weights(self.network), **self.step.state(), **judge}
            checkpoint.save(path, arrays, self._record())
        self._saved = time.monotonic()

    def _samples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A few validation images, their regenerations, uint8 (N, H, W, C), and their latents' bytes (N,)."""
        split = self.data.validation
        originals = split.take(np.arange(min(8, len(split))))
        with self.step.averaged():
            return originals, *regenerate(self.network, originals)
