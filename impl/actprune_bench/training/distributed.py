"""One run over several processes, as torchrun starts them: who this one is, and what all agree on.

The engine is torch.nn.parallel.DistributedDataParallel. Small values go over gloo, gradients over
gloo or, on GPUs, nccl. Rank 0 alone touches the run's folder.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from actprune_bench.training.rendezvous import first_line, shared_store
from actprune_common.errors import InputError, expected

T = TypeVar("T")
_COLLECTIVE = timedelta(minutes=10)  # one rank may wait so long for another's files
_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_OF_GLOO = ("gloo/transport", "gloo/rendezvous", "connectFullMesh")  # its errors have no class
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
            raise expected("batch_size", f"a multiple of the {self.size} ranks", batch_size)
        return slice(self.rank * each, (self.rank + 1) * each)

    def device(self, kind: str) -> torch.device:
        """cpu, or of `cuda` this process's GPU. Raises InputError where it cannot be used."""
        if kind == "cpu":
            return torch.device("cpu")
        count = torch.cuda.device_count()
        if self.local_rank >= count:
            what = f"a GPU for each rank of a machine, which has {count}"
            got = f"{kind!r} on local rank {self.local_rank}"
            raise InputError(f"device: expected {what}; got {got}")
        if self.size > 1 and not dist.is_nccl_available():
            what = f"a torch with nccl, for {kind!r} on {self.size} ranks"
            raise expected("device", what, f"torch {torch.__version__} without")
        try:
            torch.cuda.set_device(self.local_rank)
        except RuntimeError as problem:  # in use by another process, a driver too old
            got = f"of {kind}:{self.local_rank}: {first_line(problem)}"
            raise expected("device", "a GPU that works", got) from None
        return torch.device(kind, self.local_rank)

    def each(self, value: float) -> Tensor:
        """The ranks' values: float64 (size), on the CPU."""
        return self.gather(torch.tensor([value], dtype=torch.float64))

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
        problems = self._of_all(problem)
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
        of_ranks = self._of_all(dict(facts))
        differing = [
            f"{key} is {of_ranks[0][key]!r} on rank 0 and {theirs[key]!r} on rank {rank}"
            for key in facts
            for rank, theirs in enumerate(of_ranks)
            if theirs[key] != of_ranks[0][key]
        ]
        if differing:
            raise InputError(f"ranks: expected the same run on all, but {'; '.join(differing)}")

    def _of_all(self, own: Any) -> list[Any]:
        """What each rank has, by rank."""
        of_ranks = [own] * self.size
        if self.size > 1:
            dist.all_gather_object(of_ranks, own)
        return of_ranks


ALONE = World()


@contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """The world that torchrun's variables tell of, connected while this lasts; else ALONE.

    device: cpu or cuda, where gradients will be.
    Raises InputError within ACTPRUNE_RENDEZVOUS_SECONDS (30) where a variable is missing or wrong,
    where the rendezvous does not answer, and, naming them, where ranks do not come; and on all
    ranks where one cannot use its device. A rank whose peer dies ends in one line, exit code 1.
    """
    world = world_of(os.environ)
    if world.size == 1:
        world.device(device)
        yield world
        return
    if not dist.is_available():
        raise InputError("WORLD_SIZE: expected 1, as this torch is built without distributed")
    store = shared_store(world.rank, world.size, world.restarts)
    # its default arguments would keep the group, if DDP were the first to import it
    import_module("torch.distributed.nn.functional")
    try:
        dist.init_process_group(
            "gloo", store=store, rank=world.rank, world_size=world.size, timeout=_COLLECTIVE
        )
        world.agree({"device": device})
        world.together(lambda: world.device(device))  # before a group that needs it
        # A group of their own, which a replica may outlive this with: its buckets are no Python
        # objects. The tensors of small values are: a thread of gloo that still held one when the
        # interpreter ends would abort the process, so that their group ends, with them, below.
        group = dist.new_group(backend="nccl" if device == "cuda" else "gloo", timeout=_COLLECTIVE)
        yield replace(world, gradients=group)
    except RuntimeError as problem:
        said = _of_lost_rank(problem)
        if said is None:
            raise
        raise SystemExit(f"actprune: rank {world.rank}: {said}") from None
    finally:
        if dist.is_initialized():
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
            raise expected(name, f"with {there}", "nothing; start the ranks with torchrun")
    size = _count(environment, "WORLD_SIZE", 1, 2**20)
    if size > 1:
        _count(environment, "MASTER_PORT", 1, 2**16)
    return World(
        _count(environment, "RANK", 0, size),
        size,
        _count(environment, "LOCAL_RANK", 0, size),
        _count(environment, "TORCHELASTIC_RESTART_COUNT", 0, 2**20),
    )


def _of_lost_rank(problem: RuntimeError) -> str | None:
    """What to say where this is how torch tells of a rank that cannot be reached; else None."""
    if any(words in str(problem) for words in _OF_GLOO):
        return "another rank is gone; what was saved is intact"
    if isinstance(problem, dist.DistError):  # of nccl or of the store, maybe for another reason
        reason = f"{type(problem).__name__}: {first_line(problem)}"
        return f"another rank is gone or out of reach; what was saved is intact: {reason}"
    return None


def _count(environment: Mapping[str, str], name: str, least: int, below: int) -> int:
    text = environment.get(name, "0")
    if not text.isdecimal() or not least <= int(text) < below:
        raise expected(name, f"a whole number from {least} to {below - 1}", repr(text))
    return int(text)


def _tried(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """What work returns and None, or None and what it says is wrong."""
    try:
        return work(), None
    except (InputError, OSError) as problem:
        return None, str(problem)
