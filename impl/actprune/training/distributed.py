"""One run over several processes, as torchrun starts them: who this one is, and what all agree on.

The engine is torch.nn.parallel.DistributedDataParallel. Small values go over gloo, gradients over
gloo or, on GPUs, nccl. Rank 0 alone touches the run's folder.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from actprune.errors import InputError

T = TypeVar("T")
PATIENCE = "ACTPRUNE_RENDEZVOUS_SECONDS"
_PATIENCE = 30.0
_COLLECTIVE = timedelta(minutes=10)  # one rank may wait so long for another's files
_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is; alone by default.

    The methods are collective: every rank calls them in the same order. Alone they cost nothing.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Of the processes on this machine: the number of its GPU."""
    restarts: int = 0
    """How often torchrun has started these processes anew."""
    gradients: Any = field(default=None, repr=False, compare=False)
    """The process group that gradients go over; None alone."""

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This rank's part of a batch. Raises InputError where the batch does not divide."""
        each, left = divmod(batch_size, self.size)
        if left:
            raise InputError(
                f"batch_size: expected a multiple of the {self.size} ranks, got {batch_size}"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def device(self, kind: str) -> torch.device:
        """cpu, or of `cuda` this process's GPU. Raises InputError where there is none for it."""
        if kind == "cpu":
            return torch.device("cpu")
        count = torch.cuda.device_count()
        if self.local_rank >= count:
            raise InputError(
                f"device: expected a GPU for each rank of a machine, which has {count}; got "
                f"{kind!r} on local rank {self.local_rank}"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device(kind, self.local_rank)

    def mean(self, value: float) -> float:
        """The mean of the ranks' values."""
        return self._reduced(value, torch.float64, dist.ReduceOp.SUM) / self.size

    def total(self, count: int) -> int:
        """The sum of the ranks' counts."""
        return int(self._reduced(count, torch.int64, dist.ReduceOp.SUM))

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return int(self._reduced(number, torch.int64, dist.ReduceOp.MAX))

    def gather(self, part: Tensor) -> Tensor:
        """The ranks' parts (n, ...) one after the other: (size * n, ...), on the CPU."""
        part = part.cpu().contiguous()
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part)
        return torch.cat(parts)

    def together(self, work: Callable[[], T]) -> T:
        """work() on every rank. Where it raises InputError on one, all ranks raise that one."""
        if self.size == 1:
            return work()
        made, problem = _tried(work)
        problems: list[Any] = [None] * self.size
        dist.all_gather_object(problems, problem)
        for rank, text in enumerate(problems):
            if text is not None:
                raise InputError(text if None not in problems else f"rank {rank}: {text}")
        return made  # type: ignore[return-value]

    def on_first(self, work: Callable[[], T]) -> T:
        """work() on rank 0 alone; all get what it returns, or raise its InputError."""
        if self.size == 1:
            return work()
        answer: list[Any] = [_tried(work) if self.first else None]
        dist.broadcast_object_list(answer, src=0)
        made, problem = answer[0]
        if problem is not None:
            raise InputError(problem)
        return made  # type: ignore[no-any-return]

    def agree(self, facts: Mapping[str, object]) -> None:
        """Raise InputError on every rank, naming what differs, unless all have the same facts."""
        if self.size == 1:
            return
        of_ranks: list[Any] = [None] * self.size
        dist.all_gather_object(of_ranks, dict(facts))
        differing = [
            f"{key} is {of_ranks[0][key]!r} on rank 0 and {theirs[key]!r} on rank {rank}"
            for key in facts
            for rank, theirs in enumerate(of_ranks)
            if theirs[key] != of_ranks[0][key]
        ]
        if differing:
            raise InputError(f"ranks: expected the same run on all, but {'; '.join(differing)}")

    def _reduced(self, value: float, dtype: torch.dtype, how: Any) -> float:
        if self.size == 1:
            return value
        held = torch.tensor(value, dtype=dtype)
        dist.all_reduce(held, how)
        return held.item()


ALONE = World()


@contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """The world that torchrun's variables tell of, connected while this lasts; else ALONE.

    device: cpu or cuda, where gradients will be.
    Raises InputError within ACTPRUNE_RENDEZVOUS_SECONDS (30) where a variable is missing or wrong,
    where the rendezvous does not answer, and, naming them, where ranks do not come. A rank whose
    peer dies ends with one line and exit code 1.
    """
    world = world_of(os.environ)
    if world.size == 1:
        yield world
        return
    if not dist.is_available():
        raise InputError("WORLD_SIZE: expected 1, as this torch is built without distributed")
    store = _met(world)
    # its default arguments would keep the group, if DDP were the first to import it
    import_module("torch.distributed.nn.functional")
    dist.init_process_group(
        "gloo", store=store, rank=world.rank, world_size=world.size, timeout=_COLLECTIVE
    )
    try:
        # A group of their own, which a replica may outlive this with: its buckets are no Python
        # objects. The tensors of small values are: a thread of gloo that still held one when the
        # interpreter ends would abort the process, so that their group ends, with them, below.
        group = dist.new_group(backend="nccl" if device == "cuda" else "gloo", timeout=_COLLECTIVE)
        yield replace(world, gradients=group)
    except RuntimeError as problem:
        if "gloo/transport" not in str(problem):
            raise
        raise SystemExit(
            f"actprune: rank {world.rank}: another rank is gone; what was saved is intact"
        ) from None
    finally:
        dist.destroy_process_group()


def world_of(environment: Mapping[str, str]) -> World:
    """The world that the variables tell of; ALONE where there is none of RANK and WORLD_SIZE.

    Raises InputError naming a variable that is missing or out of range.
    """
    if not any(name in environment for name in _OF_RANKS[:2]):
        return ALONE
    for name in _NEEDED[:2] if environment.get("WORLD_SIZE") == "1" else _NEEDED:
        if not environment.get(name):
            there = ", ".join(key for key in (*_OF_RANKS, *_NEEDED[2:]) if environment.get(key))
            raise InputError(
                f"{name}: expected with {there}, got nothing; start the ranks with torchrun"
            )
    size = _count(environment, "WORLD_SIZE", 1, 2**20)
    if size > 1:
        _count(environment, "MASTER_PORT", 1, 2**16)
    return World(
        _count(environment, "RANK", 0, size),
        size,
        _count(environment, "LOCAL_RANK", 0, size),
        _count(environment, "TORCHELASTIC_RESTART_COUNT", 0, 2**20),
    )


def parallel(model: nn.Module, world: World) -> nn.Module:
    """What to call instead of `model`, so that its gradients are the mean over the ranks."""
    if world.size == 1:
        return model
    # views: what is sent is the gradients themselves, not a second copy of them
    return DistributedDataParallel(
        model, process_group=world.gradients, gradient_as_bucket_view=True
    )


def _met(world: World) -> Store:
    """The store that all ranks have come to. Raises InputError."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    place = f"{host}:{port}"
    seconds = _patience()
    patience = timedelta(seconds=seconds)
    store: Store
    try:
        if not world.first:
            _await_answer(host, port, seconds)
        store, _, _ = next(rendezvous("env://", timeout=patience))
    except (dist.DistError, OSError, ValueError) as problem:
        reason = str(problem).splitlines()[0][:160]
        raise InputError(
            f"MASTER_ADDR: expected the {world.size} ranks to meet at {place} within "
            f"{seconds:g} s ({PATIENCE}), got: {reason}"
        ) from None
    # torchrun's store outlives a restart: the addresses of the dead in it would be taken for ours
    ours = f"actprune/{world.restarts}/{world.size}"
    store = dist.PrefixStore(ours, store)  # type: ignore[attr-defined]
    keys = [str(rank) for rank in range(world.size)]
    store.set(keys[world.rank], "here")
    try:
        store.wait(keys, patience)
    except dist.DistError:
        absent = ", ".join(str(rank) for rank, key in enumerate(keys) if not store.check([key]))
        raise InputError(
            f"WORLD_SIZE: expected {world.size} ranks at {place} within {seconds:g} s "
            f"({PATIENCE}); missing: {absent}"
        ) from None
    return store


def _await_answer(host: str, port: int, seconds: float) -> None:
    """Return when somebody listens there; torch itself waits with a page of warnings."""
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host, port), timeout=max(0.1, end - time.monotonic())):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _patience() -> float:
    text = os.environ.get(PATIENCE, str(_PATIENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= 3600:
        raise InputError(f"{PATIENCE}: expected 1 to 3600 seconds, got {text!r}")
    return seconds


def _count(environment: Mapping[str, str], name: str, least: int, below: int) -> int:
    text = environment.get(name, "0")
    if not text.isdecimal() or not least <= int(text) < below:
        raise InputError(
            f"{name}: expected a whole number from {least} to {below - 1}, got {text!r}"
        )
    return int(text)


def _tried(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """What work returns and None, or None and what it says is wrong."""
    try:
        return work(), None
    except (InputError, OSError) as problem:
        return None, str(problem)
