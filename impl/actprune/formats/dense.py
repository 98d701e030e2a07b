"""Dense: the whole activation, as autograd would keep it; the row that all others are held to."""

from dataclasses import dataclass

from torch import Tensor

from actprune.formats.base import Format


@dataclass(frozen=True)
class Dense(Format):
    """Keeps a copy of X; it has no options.

    A linear layer converted to `dense` is a plain nn.Linear, which does not even copy.
    """

    name = "dense"
    fields = ("values",)

    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        return (like.new_empty(rows, features),)
