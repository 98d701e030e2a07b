"""How large the tensors are that a function makes on its way."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class _Largest(TorchDispatchMode):
    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.known:
                    self.bytes = max(self.bytes, storage.nbytes())
        return out


def largest_made(fn: Callable[..., Any], *args: Any) -> int:
    """Bytes of the largest storage that fn(*args) makes, its arguments' not counted."""
    known = {t.untyped_storage().data_ptr() for t in tree_iter(args) if isinstance(t, Tensor)}
    made = _Largest(known)
    with made:
        fn(*args)
    return made.bytes
