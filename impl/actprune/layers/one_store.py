"""One store for layers that read one input: queries, keys and values, gates."""

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from actprune.layers import ops


class _Last(threading.local):
    """What the last layer of a thread kept, by weak references."""

    storage: Any = None
    of: tuple[Any, ...] = ()
    buffers: Sequence["weakref.ref[Tensor]"] = ()


_last = _Last()


def kept_of(
    x: Tensor, spec: str, draw: Tensor | None, sample_importance: Tensor | None
) -> Sequence[Tensor]:
    """What `spec` keeps of x (rows, features).

    These are the tensors that the layer before kept, where it read the same x, unchanged since,
    under the same spec, and somebody still holds them. A random selection is each layer's own.
    """
    random = draw is not None or sample_importance is not None
    if random or type(x) is not Tensor or torch.compiler.is_compiling():
        kept: Sequence[Tensor] = ops.compress(x, spec, draw, sample_importance)
        return kept
    of = spec, x.data_ptr(), x.shape, x.dtype, x._version
    if of == _last.of and not _last.storage.expired():
        found = [buffer for ref in _last.buffers if (buffer := ref()) is not None]
        if found and len(found) == len(_last.buffers):
            return found
    kept = ops.compress(x, spec, draw, sample_importance)
    _last.storage = StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
    _last.of, _last.buffers = of, [weakref.ref(buffer) for buffer in kept]
    return kept
