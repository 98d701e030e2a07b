"""FSDP2 (`torch.distributed.fsdp.fully_shard`) for models that are converted or lean."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from actprune.layers.blocks import blocks_of
from actprune_common.errors import InputError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Model = TypeVar("Model", bound=nn.Module)
"""Of what is changed in place and returned."""


def shard(
    model: Model, mesh: "DeviceMesh | None" = None, units: Sequence[nn.Module] | None = None
) -> Model:
    """Shard each unit of a model by fully_shard, then what is left of the model.

    A lean chain reads its layers' parameters itself, so a unit holds the whole chain. Convert
    before, make the optimizer after.

    Args:
        model: one within a process group, as torchrun makes it.
        mesh: the devices; all ranks by default.
        units: what is gathered and freed as one; by default the blocks of the model, the members of
            its outermost nn.ModuleLists and those of nn.Sequentials whose class is repeated.

    Returns:
        The same model.

    Raises:
        InputError: there is no unit.

    Example:
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> model = actprune.convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), "csr")
        >>> model = actprune.shard(model, units=[model[0]])
        >>> type(model[0].weight).__name__
        'DTensor'
        >>> dist.destroy_process_group()
    """
    from torch.distributed.fsdp import fully_shard

    chosen = blocks_of(model) if units is None else list(units)
    if not chosen:
        raise InputError("units: expected modules to shard, or a model with an nn.ModuleList")
    for unit in chosen:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def is_sharded(module: nn.Module) -> bool:
    """Whether `module` is a unit of fully_shard, whose class is fully_shard's own."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # no unit without it
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def check_unsharded(modules: Iterable[tuple[str, nn.Module]]) -> None:
    """Raises InputError where one of `modules`, whose classes are to be exchanged, is a unit."""
    for name, module in modules:
        if is_sharded(module):
            raise InputError(
                f"model: {name or 'it'} is a unit of fully_shard already; convert a model, make it "
                "lean or undo that before it is sharded"
            )


def own_class(module: nn.Module) -> type[nn.Module]:
    """The class of `module`, or that from which fully_shard derived one for it."""
    kind = type(module)
    found: type[nn.Module] = kind.__bases__[1] if is_sharded(module) else kind
    return found
