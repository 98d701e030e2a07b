"""What is asked of single tensors, often."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

SMALL = 4096
"""Bytes up to which a tensor is kept as it is."""


def key_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]


def owned_by(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, without the millisecond that their iterators take of a step."""
    seen, left = {module}, [module]
    found: list[Tensor | None] = []
    for each in left:
        found += each._parameters.values()
        found += each._buffers.values()
        for inner in each._modules.values():
            if inner is not None and inner not in seen:
                seen.add(inner)
                left.append(inner)
    return [part for part in found if part is not None]


def is_small(tensor: Tensor) -> bool:
    """Whether it is kept as it is."""
    return tensor.nbytes <= SMALL


def is_strided(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter, FakeTensor, nn.Buffer)
    return plain and tensor.layout == torch.strided and tensor.device.type != "meta"


def is_plain(part: Any) -> bool:
    """Whether it is a tensor whose content lies in a storage of its own kind."""
    if type(part) is Tensor:
        keys = torch._C._dispatch_keys(part).raw_repr()  # of which all that is asked follows
        if keys in _ORDINARY:
            return True
        if _is_ordinary(part):
            _ORDINARY.add(keys)
            return True
        return False
    return type(part) is FakeTensor and _is_ordinary(part)


_ORDINARY: set[int] = set()


def _is_ordinary(part: Tensor) -> bool:
    other = part.is_neg() or part.is_conj() or part.is_inference() or part.is_nested
    return not other and part.layout is torch.strided and part.device.type != "meta"


def without_graph(tensor: Tensor) -> Tensor:
    """The tensor without the graph that made it, which would hold itself."""
    return tensor if tensor.grad_fn is None else tensor.detach()


def flat_of(tensor: Tensor) -> Tensor:
    """All of a tensor's storage (n,)."""
    count = tensor.untyped_storage().nbytes() // tensor.itemsize
    return tensor.as_strided((count,), (1,), 0)


def is_whole(tensor: Tensor) -> bool:
    """Whether a tensor is its storage, in order."""
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes


def parts_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments, those in lists too."""
    found: list[Any] = []
    for part in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(part, list | tuple):
            found += part
        else:
            found.append(part)
    return found


def fits(tensor: Tensor, weight: Tensor) -> bool:
    """Whether it has as many values, or is some rows of it: queries', keys' or values'."""
    if tensor.numel() == weight.numel():
        return True
    rows, *features = weight.shape
    return tensor.dim() == 2 and [*tensor.shape[1:]] == features and rows % len(tensor) == 0


def among(tensor: Tensor, args: Iterable[Any]) -> bool:
    """Whether it shares its storage with an argument."""
    wanted = key_of(tensor)
    for part in args:
        if type(part) in _TENSORS and is_plain(part) and key_of(part) == wanted:
            return True
    return False


_TENSORS = (Tensor, FakeTensor)


def covered(tensor: Tensor, args: list[Any]) -> int:
    """Bytes of the tensor and of what else a function takes out of the same storage."""
    others = (part for part in args if is_plain(part) and part is not tensor)
    return max(tensor.nbytes, sum(int(p.nbytes) for p in others if key_of(p) == key_of(tensor)))


def autocast_of(tensor: Any) -> tuple[str, torch.dtype] | None:
    if not torch._C._is_any_autocast_enabled():
        return None
    device = tensor.device.type if isinstance(tensor, Tensor) else "cpu"
    if not torch.is_autocast_enabled(device):
        return None
    return device, torch.get_autocast_dtype(device)
