"""Data-parallel training on PyTorch: several processes, on one host or many, that share every batch.

::

    a batch of B images, the same in every process
      rank 0      images 0 .. B/n  --forward, backward--> gradients --+
      ...                                                             +-- mean --> the same step everywhere
      rank n - 1  the last B/n     --forward, backward--> gradients --+

Crops, augmentation and quantisation noise are drawn for the whole batch before it is shared, so n processes
take the steps that one process takes. Rank 0, the leader, is the only one that writes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attar.errors import AttarError, TrainingError

SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
TIMEOUT = timedelta(hours=2)  # in which every process must have read the data set
Result = TypeVar("Result")


class EndedError(TrainingError):
    """This process ends because another one of the run did; that one says why."""


@dataclass(frozen=True)
class Team:
    """The processes of one run, as one of them sees them. ``Team()`` is a run of a single process."""

    rank: int = 0
    """Of this process, from 0."""
    size: int = 1
    """Processes in the run."""
    local_rank: int = 0
    """Of this process among those of its host."""
    restarts: int = 0
    """How often the run was started again after the loss of a process."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Refuse a batch that the processes cannot share equally.

        Raises:
            TrainingError: with both numbers.
        """
        if batch % self.size:
            raise self.fault(
                f"{self.size} processes cannot share a batch of {batch} images equally: "
                f"expected a --batch-size that is a multiple of {self.size}"
            )

    def share(self, drawn: Any) -> Any:
        """This process's rows of what was drawn for a whole batch: a tensor, a list or a dict of them, or None."""
        if self.size == 1:
            return drawn

        def mine(tensor: Any) -> Any:
            count = int(tensor.shape[0]) // self.size
            return tensor[self.rank * count : (self.rank + 1) * count]

        return each_tensor(mine, drawn)

    def average(self, tensors: Sequence[Any]) -> None:
        """Replace float tensors by their means over the processes, in place, in one exchange."""
        if self.size == 1:
            return
        import torch
        from torch import distributed

        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        with _others_alive():
            distributed.all_reduce(flat)
        flat /= self.size
        with torch.no_grad():
            for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums over the processes of float64 values, the same bits in every process."""
        if self.size == 1:
            return values
        import torch
        from torch import distributed

        sums = torch.tensor(values, dtype=torch.float64)
        with _others_alive():
            distributed.all_reduce(sums)
        return sums.numpy()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.total(np.array([float(flag)]))[0])

    def tell(self, content: bytes | None) -> bytes | None:
        """The leader's bytes, or None, in every process; what the others give is ignored."""
        if self.size == 1:
            return content
        import torch
        from torch import distributed

        length = torch.tensor([-1 if content is None else len(content)])
        with _others_alive():
            distributed.broadcast(length, 0)
            if length[0] < 0:
                return None
            told = torch.empty(int(length[0]), dtype=torch.uint8)
            if self.leads and content is not None:
                told.copy_(torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
            distributed.broadcast(told, 0)
        return told.numpy().tobytes()

    def first(self, work: Callable[[], Result]) -> Result | None:
        """Let the leader do something before the others go on; None for those.

        Raises:
            AttarError: the leader's, there; EndedError in the others.
        """
        if not self.leads:
            if self.tell(None) is None:
                raise EndedError(ENDED)
            return None
        try:
            done = work()
        except BaseException:
            self.tell(None)
            raise
        self.tell(b"done")
        return done

    def after_leader(self, work: Callable[[], Result]) -> Result:
        """Let every process do something, the leader first: a fault that all would find is told once.

        Raises:
            AttarError: as :meth:`first`.
        """
        done = self.first(work)
        return work() if done is None else done

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Let one process of each host do something before its others, which then find it done (a cache)."""
        if self.local_rank:
            self.any(False)
            return work()
        done = work()
        self.any(False)
        return done

    def check_same(self, what: str, *words: str) -> None:
        """Refuse to go on where the processes were given different things.

        Raises:
            TrainingError: where words differ from the leader's.
        """
        mine = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).digest()
        if self.any(self.tell(mine) != mine):
            raise self.fault(
                f"{what}: not the same in all {self.size} processes, expected the same on every host"
            )

    def fault(self, text: str) -> AttarError:
        """An error that every process has found: the leader says it, the others end quietly."""
        return TrainingError(text) if self.leads else EndedError(text)

    @contextmanager
    def files(self, folder: Path, *names: str) -> Iterator[Path]:
        """A folder with the leader's files ``names``: its own ``folder``, elsewhere a copy for a while.

        Raises:
            EndedError: in the others, where the leader cannot read one.
        """
        if self.leads:
            for name in names:
                try:
                    content = (folder / name).read_bytes() if self.size > 1 else b""
                except OSError:
                    content = None
                self.tell(content)
                if content is None:
                    break  # the others have left
            yield folder
            return
        with tempfile.TemporaryDirectory() as copies:
            for name in names:
                content = self.tell(None)
                if content is None:
                    raise EndedError(ENDED)
                (Path(copies) / name).write_bytes(content)
            yield Path(copies)

    def align(self, variables: Sequence[Any]) -> None:
        """Give every process the leader's values of the Keras variables that hold floats, in place.

        One seed gives the same initial weights on machines that compute alike, and only there.
        """
        if self.size == 1:
            return
        import torch
        from torch import distributed

        with _others_alive(), torch.no_grad():
            for variable in variables:
                if variable.value.is_floating_point():
                    distributed.broadcast(variable.value.detach(), 0)

    def spread_randomness(self, seed: int, step: int) -> None:
        """Let dropout differ from rank to rank: each image gets its own mask, as in a batch of one process."""
        if self.leads:
            return
        import torch

        torch.manual_seed(
            int(np.random.SeedSequence([seed, self.rank, step]).generate_state(1, np.uint64)[0] >> 1)
        )


def each_tensor(change: Callable[[Any], Any], drawn: Any) -> Any:
    """What was drawn for a batch, each tensor in it changed: a tensor, a list or a dict of them, or None."""
    if drawn is None:
        return None
    if isinstance(drawn, Mapping):
        return {name: each_tensor(change, value) for name, value in drawn.items()}
    if isinstance(drawn, (list, tuple)):
        return [each_tensor(change, value) for value in drawn]
    return change(drawn)


ALONE = Team()
ENDED = "another process of the run has ended: its own message, or that of its launcher, says why"


@contextmanager
def _others_alive() -> Iterator[None]:
    """What PyTorch says of an exchange with a process that is gone becomes an error of ours."""
    try:
        yield
    except RuntimeError as error:
        raise EndedError(ENDED) from error


@contextmanager
def joined() -> Iterator[Team]:
    """Meet the other processes of a run that ``torchrun`` or Ray started; alone anywhere else.

    Only the leader's errors are told: elsewhere they end the process with the same exit code.

    Raises:
        TrainingError: if this run cannot be shared.
    """
    if not all(name in os.environ for name in SET_BY_TORCHRUN):
        yield Team()
        return
    team = _meet()
    try:
        yield team
    except (EndedError, KeyboardInterrupt) as error:
        if team.leads:
            raise
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
    team.any(False)  # one that leaves early is taken for lost by the others
    _leave()


def _meet() -> Team:
    import torch
    from torch import distributed

    rank, size, local_rank = (int(os.environ[name]) for name in SET_BY_TORCHRUN)
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    team = Team(rank, size, local_rank, restarts)
    if (os.environ.get("KERAS_BACKEND") or "torch") != "torch":
        raise team.fault(
            f"several processes train on PyTorch only, and KERAS_BACKEND is {os.environ['KERAS_BACKEND']}: unset it"
        )
    if not distributed.is_available():
        raise team.fault("this PyTorch was built without torch.distributed: several processes need it")
    gpus = torch.cuda.device_count()
    if gpus:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", local_rank + 1))
        if here > gpus:
            raise team.fault(f"{here} processes on a host of {gpus} GPUs: expected one for each GPU at most")
        torch.cuda.set_device(local_rank)
    if not distributed.is_initialized():
        with _others_alive():
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo",
                store=_fresh_store(rank, size),
                rank=rank,
                world_size=size,
                timeout=TIMEOUT,
            )
    return team


def _fresh_store(rank: int, size: int) -> Any:
    """Where the processes find each other, without what those of an earlier start left there.

    torchrun keeps one store for all starts of a run, in which the dead are still announced. So the leader makes up
    a name for this start, the others greet it under that name, and its answer repeats their greetings.
    """
    from torch import distributed

    store, _, _ = next(distributed.rendezvous("env://", rank, size, timeout=TIMEOUT))
    name = greeting = uuid.uuid4().hex
    if rank == 0:
        places = [f"attar/{name}/{other}" for other in range(1, size)]
        store.set("attar/start", name)
        store.wait([*places, "attar/start"], TIMEOUT)
        store.set(f"attar/{name}", " ".join(store.get(place).decode() for place in places))
    while rank:
        name = store.get("attar/start").decode()
        store.set(f"attar/{name}/{rank}", greeting)
        if store.check([f"attar/{name}"]) and greeting in store.get(f"attar/{name}").decode():
            break
        time.sleep(0.05)
    return distributed.PrefixStore(name, store)


def _leave() -> None:
    from torch import distributed

    if os.environ.get("TORCHELASTIC_RUN_ID"):  # Ray ends its own group itself
        distributed.destroy_process_group()
