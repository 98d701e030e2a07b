"""Which specs fit into the memory of a device, and the largest batch that does: without a GPU.

Every figure is a predicted peak of a whole training step (forward, backward, AdamW; fp32 weights)
of one device, by fake tensors.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import nn

from actprune.layers.sharding import shard
from actprune.strategies.grammar import RECOMMENDED, read
from actprune_bench.advise.advice import recorded
from actprune_bench.advise.factory import Given
from actprune_bench.data import DataShape
from actprune_bench.measure.peak import predicted_peak
from actprune_bench.measure.predict import predict_sharded
from actprune_bench.models import MODELS
from actprune_bench.training.config import TrainConfig
from actprune_bench.training.step import build, example_batch, optimizer_of, training_step
from actprune_common.errors import InputError, check_at_least, check_one_of, expected
from actprune_common.strict_yaml import check

ASSUMED = {
    "none": "one device holds everything",
    "ddp": "every device holds the model, its gradients, DistributedDataParallel's buckets of the "
    "same size (gradient_as_bucket_view=False, its default) and AdamW's two moments",
    "fsdp": "fully_shard on every block and on the rest, reshard_after_forward and mixed precision "
    "as they are by default; parameters, gradients and AdamW's two moments are sharded",
}
ANY_MODEL = ("dense", "@*=>codes:bits=8", RECOMMENDED, f"recompute+{RECOMMENDED}")
_SECANTS = 8
"""Predictions after which the search for the largest batch halves what is left."""


@dataclass(frozen=True)
class Setup:
    """What is to be trained on what."""

    model: str
    batch: int
    """Images, or other samples, over all devices."""
    devices: int
    parallel: str
    memory: int
    """Bytes of a device."""
    shape: DataShape
    given: Given | None = None
    """A model of one's own, `model` being its factory, `batch` its samples."""

    def __post_init__(self) -> None:
        """Raise InputError on values that cannot be planned."""
        check_one_of("parallel", self.parallel, ASSUMED)
        sizes = {"batch": self.batch, "devices": self.devices, "device-memory": self.memory}
        for argument, value in sizes.items():
            check_at_least(argument, value, 1)
        if self.memory < 2**20:  # a size without its unit
            raise expected("device-memory", "1MiB or more, such as 80GiB", f"{self.memory} bytes")
        if self.parallel == "none" and self.devices > 1:
            raise InputError(f"devices: expected 1 with parallel none, got {self.devices}")
        if self.batch % self.devices:
            raise expected("batch", f"a multiple of {self.devices} devices", self.batch)
        if self.given is None:
            check(TrainConfig, {"model": self.model})
        elif self.parallel == "fsdp":
            raise InputError("parallel: expected none or ddp for a model of your own, got 'fsdp'")


@dataclass(frozen=True)
class Planned:
    """A spec, as it would be trained."""

    spec: str
    peak: int
    """Predicted bytes at the peak of a step, on each device."""
    fits: bool
    largest_batch: int
    """Over all devices; 0 where not even one image per device fits."""


def default_specs(given: Given | None = None) -> list[str]:
    """Dense and the recorded settings; those with a strategy, under bf16 too.

    For a model of one's own, what serves any.
    """
    if given is not None:
        return list(ANY_MODEL)
    known = dict.fromkeys(["dense", *(setting.spec for setting in recorded())])
    under = [f"bf16+{s}" for s in known if "+" in s and not s.startswith("bf16+")]
    return list(dict.fromkeys([*known, *under]))


def plan(
    setup: Setup, specs: Sequence[str], *, progress: Callable[[str], None] = lambda _: None
) -> list[Planned]:
    """What each spec needs and how far it goes; the least memory first.

    Raises InputError on a spec that is wrong.
    """
    found, per_device = [], setup.batch // setup.devices
    with _world(setup):
        for spec in dict.fromkeys(read(spec).spec for spec in specs):
            progress(spec)
            size = peak(setup, spec, per_device)
            known = {per_device: size}
            largest = largest_count(partial(peak, setup, spec), setup.memory, known)
            found.append(Planned(spec, size, size <= setup.memory, largest * setup.devices))
    return sorted(found, key=lambda planned: planned.peak)


def peak(setup: Setup, spec: str, count: int) -> int:
    """Predicted bytes of one device at the peak of a step on `count` images of its own."""
    if setup.given is not None:
        buckets = sum(p.nbytes for p in setup.given.model.parameters() if p.requires_grad)
        return setup.given.peak(spec, count) + buckets * (setup.parallel == "ddp")
    config = check(TrainConfig, {"model": setup.model, "batch_size": count, "spec": spec})
    if setup.parallel == "fsdp":
        return _sharded_peak(config, setup)
    whole = predicted_peak(config, setup.shape)
    if setup.parallel == "none":
        return whole
    with torch.device("meta"):  # ddp's buckets are as large as the gradients
        model = MODELS[setup.model](setup.shape.num_classes, setup.shape.channels)
    return whole + sum(p.nbytes for p in model.parameters())


def largest_count(peak: Callable[[int], int], budget: int, known: dict[int, int]) -> int:
    """The largest count with peak(count) <= budget; 0 where peak(1) is more.

    peak: non-decreasing and nearly affine; it is called for the count that is returned and for the
    next one. known: at least one of its values; it takes up the others.
    """
    start = next(iter(known))
    known.setdefault(other := start // 2 or 2, peak(other))
    while True:
        low = max((count for count in known if known[count] <= budget), default=0)
        high = min((count for count in known if count > low), default=None)
        if high == low + 1:
            return low
        count = _guess(known, budget, low, high)
        known[count] = peak(count)


def _guess(known: dict[int, int], budget: int, low: int, high: int | None) -> int:
    """Where a line through what is known meets the budget: above low, below high."""
    if len(known) > _SECANTS:
        return 2 * low if high is None else (low + high) // 2
    # the two that lie next to the answer
    one, two = sorted(sorted(known, key=lambda count: abs(known[count] - budget))[:2])
    slope = max(1.0, (known[two] - known[one]) / (two - one))
    count = one + int((budget - known[one]) // slope)
    return max(low + 1, count if high is None else min(count, high - 1))


def dumped(setup: Setup, planned: Sequence[Planned]) -> str:
    """As JSON: the setup, what is assumed, a record per spec."""
    values = {key: v for key, v in vars(setup).items() if key not in ("shape", "given")}
    if setup.given is None:
        values |= {"channels": setup.shape.channels, "classes": setup.shape.num_classes}
    records = [asdict(one) | {"share": round(one.peak / setup.memory, 6)} for one in planned]
    values |= {"torch": torch.__version__, "assumed": ASSUMED[setup.parallel], "plans": records}
    return json.dumps(values, indent=1) + "\n"


def sentence(setup: Setup, planned: Sequence[Planned]) -> str:
    """The answer in words."""
    fitting = [one for one in planned if one.fits]
    most = max(planned, key=lambda one: one.largest_batch)
    batch, memory = setup.batch, f"{setup.memory / 2**30:,.1f} GiB"
    if not most.largest_batch:
        least = planned[0]
        return (
            f"Nothing fits at any batch: {least.spec} would take {least.peak / 2**30:,.1f} GiB of "
            f"{memory} at batch {batch}, and more than there is at {setup.devices}."
        )
    words = f"{len(fitting)} of {len(planned)} fit batch {batch} into {memory}"
    return f"{words}; the largest batch is {most.largest_batch:,}, with {most.spec}."


def _sharded_peak(config: TrainConfig, setup: Setup) -> int:
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (setup.devices,))  # of real tensors, so not made among fake ones

    def sharded() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = shard(build(config, shape=setup.shape)[0], mesh)
        return model, optimizer_of(model, config)

    return predict_sharded(sharded, lambda: example_batch(config, shape=setup.shape), training_step)


@contextmanager
def _world(setup: Setup) -> Iterator[None]:
    """A process group of as many ranks as devices, of which this process plays the first."""
    if setup.parallel != "fsdp":
        yield
        return
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise InputError("parallel: expected a process outside of torch.distributed, got a rank")
    dist.init_process_group("fake", rank=0, world_size=setup.devices, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
