"""What ``attar train`` was asked to do, and doing it: in the one process there is, or in each of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.apps.cli import runs
from attar.errors import TrainingError
from attar.train.config import TrainConfig, read_config
from attar.train.parallel import Team

if TYPE_CHECKING:
    from attar.train.trainer import Trainer

Report = Callable[[Any], None]
LAST = Path("checkpoints") / "last.npz"


@dataclass(frozen=True)
class Job:
    """One ``attar train``; plain values, so that it can be sent to other machines."""

    run: Path
    """The run folder."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`TrainConfig` as given, None where not."""
    model: str | None = None
    resume: bool = False
    force: bool = False
    weights: str | None = None
    """Checkpoint of another run to begin with."""
    best: str | None = None
    """Where the best checkpoint goes, if not into the run folder."""
    log_dir: str | None = None

    def started_again(self) -> Job:
        """What a process does that takes over from a lost one: it goes on where the run was saved last."""
        if (self.run / LAST).exists():
            return replace(self, resume=True, force=False, weights=None)
        return self if self.resume else replace(self, force=True)


def prepare(job: Job, team: Team, say: Callable[[Any], None]) -> Trainer:
    """Everything before the first step. ``say`` is given the data set, by the leader.

    Raises:
        AttarError, click.UsageError: for whatever cannot be trained.
    """
    if team.any(team.restarts > 0):
        again = team.first(job.started_again)
        resumes = team.any(bool(again and again.resume))
        job = again or replace(
            job, resume=resumes, force=not resumes, weights=None if resumes else job.weights
        )
    config, spec = team.after_leader(lambda: given(job)) if not job.resume else _kept(job, team)
    if not job.resume:
        team.first(lambda: check_folder(job))
    data = team.in_turn(lambda: runs.load_data(config, spec))
    if team.leads:
        say(data)
    from attar.train.trainer import Trainer

    with runs.naming(str(job.model or job.run / "model.json")):
        trainer = Trainer(
            config, spec, data, job.run, checkpoint_path=job.best, log_dir=job.log_dir, team=team
        )
    if job.resume:
        trainer.resume()
    elif job.weights:
        trainer.transfer(job.weights)
    return trainer


def given(job: Job) -> tuple[TrainConfig, Any]:
    """Configuration and model of a run that begins.

    Raises:
        AttarError, click.UsageError: for what is wrong with them.
    """
    config = runs.configured(job.options)
    spec = runs.load_spec(job.model, config.latent_dims)
    runs.check_adversarial(spec, job.options)
    return config, spec


def _kept(job: Job, team: Team) -> tuple[TrainConfig, Any]:
    """Configuration and model of the run that goes on, which the leader sees."""
    with team.files(job.run, "config.json", "model.json") as known:
        config = runs.resumed(read_config(known), job.options)
        return config, runs.load_spec(job.model or str(known / "model.json"), config.latent_dims)


def check_folder(job: Job) -> None:
    """Refuse a run folder that holds a run already, or that cannot be written. Raises TrainingError."""
    if not job.force and (job.run / "config.json").exists():
        raise TrainingError(
            f"{job.run}: already holds a run: --resume goes on with it, --force starts over, --run-dir names another"
        )
    from attar.train import journal

    journal.check_folder(job.run)
