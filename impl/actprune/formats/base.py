"""What every format is: options, and three pure functions between tensors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from actprune_common.errors import InputError
from actprune_kernels.backends import check_backend
from actprune_kernels.sizes import SCOPES, SELECTS, wide

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Format(ABC):
    """How an activation X (rows, features) is kept for the backward pass.

    A format is its options; `store`, `empty`, `product` and `expand` are pure functions between
    tensors, called through the operators in actprune.ops, which torch can trace.

    Example:
        >>> x = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
        >>> actprune.parse("coo:sparsity=0.5").compress(x).to_dense()
        tensor([[ 1., -3.],
                [ 0.,  0.]])
    """

    seed = 0
    stochastic = False
    """Whether `compress` makes use of `draw`."""
    exact = True
    """Whether what is kept of an activation, but for a random selection's scale, is its own."""

    def first_draw(self) -> Tensor:
        """What `compress` takes where no draw is given."""
        return torch.tensor([self.seed, 0, 0])

    @property
    @abstractmethod
    def spec(self) -> str:
        """The format and its options as text; `actprune.parse` reads it back."""

    def compress(
        self, activation: Tensor, draw: Tensor | None = None, weights: Tensor | None = None
    ) -> "Compressed":
        """Prune and store X (rows, features); the store does not change when X does.

        draw: int64 (3,) on the CPU, seed, stream and counter of a random selection; the same draw
        selects the same. weights: (rows,), positive, what each row is worth in the selection, by
        default all alike. Raises InputError on a wrong shape or dtype.
        """
        check_activation(activation)
        if weights is not None and weights.shape != activation.shape[:1]:
            raise InputError(
                f"weights: expected shape ({len(activation)},), got {tuple(weights.shape)}"
            )
        rows, features = activation.shape
        buffers = torch.ops.actprune.compress(activation, self.spec, draw, weights)
        return Compressed(self, (rows, features), activation.dtype, tuple(buffers))

    @abstractmethod
    def store(
        self, activation: Tensor, draw: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The buffers to keep: values first, then index arrays. Arguments are those of compress."""

    @abstractmethod
    def empty(self, activation: Tensor) -> tuple[Tensor, ...]:
        """Uninitialised buffers of the sizes and types that `store` will return."""

    @abstractmethod
    def product(self, buffers: tuple[Tensor, ...], grad_output: Tensor, features: int) -> Tensor:
        """dYᵀ·X, (out_features, features), from dY (rows, out_features)."""

    @abstractmethod
    def expand(
        self, buffers: tuple[Tensor, ...], rows: int, features: int, dtype: torch.dtype
    ) -> Tensor:
        """X (rows, features) in its dtype, with zeros where it was pruned."""

    def nnz(self, buffers: tuple[Tensor, ...], rows: int, features: int) -> int:
        """Elements of X (rows, features) that the buffers hold."""
        return buffers[0].numel()

    def row_dot(self, buffers: tuple[Tensor, ...], other: Tensor) -> Tensor:
        """Of each row the sum of X times `other`, both (rows, features): (rows,), wide.

        This is the definition; a format that lies otherwise than row by row has a way of its own.
        """
        rows, features = other.shape
        step = self.rows_at_once(rows, features)
        out = other.new_empty(rows, dtype=wide(other.dtype))
        for start in range(0, rows, step):
            some = other[start : start + step]
            own = buffers if step >= rows else self.rows_of(buffers, start, len(some), features)
            kept = self.expand(own, len(some), features, other.dtype)
            torch.sum(kept * some, 1, dtype=out.dtype, out=out[start : start + step])
        return out

    def rows_at_once(self, rows: int, features: int) -> int:
        """How many of `rows` rows `row_dot` makes dense at a time: all, where `rows_of` is none."""
        return max(1, rows)

    def rows_of(
        self, buffers: tuple[Tensor, ...], start: int, count: int, features: int
    ) -> tuple[Tensor, ...]:
        """The buffers of `count` rows, where they lie row after row."""
        return tuple(buffer[start : start + count] for buffer in buffers)


@dataclass(frozen=True)
class Compressed:
    """All that the backward pass keeps of an activation: a format, a shape and its buffers.

    Example:
        >>> kept = actprune.parse("bsr:block=1x4,sparsity=0.5").compress(torch.ones(8, 8))
        >>> kept.nnz, kept.grad_weight(torch.ones(8, 3)).shape
        (32, torch.Size([3, 8]))
    """

    format: Format
    shape: tuple[int, int]
    dtype: torch.dtype
    """Of the activation, of `to_dense` and of the product."""
    buffers: tuple[Tensor, ...]
    """The values or their codes first, then the index arrays."""

    @property
    def device(self) -> torch.device:
        return self.buffers[0].device

    @property
    def nnz(self) -> int:
        """Stored elements, the zeros inside kept blocks included."""
        return self.format.nnz(self.buffers, *self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes over all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def grad_weight(self, grad_output: Tensor) -> Tensor:
        """dYᵀ·X, (out_features, features), from dY (rows, out_features) of X's dtype and device."""
        if grad_output.dim() != 2 or grad_output.shape[0] != self.shape[0]:
            raise InputError(
                f"grad_output: expected shape ({self.shape[0]}, out_features), "
                f"got {tuple(grad_output.shape)}"
            )
        if grad_output.dtype != self.dtype:
            raise InputError(f"grad_output: expected dtype {self.dtype}, got {grad_output.dtype}")
        if grad_output.device != self.device:
            raise InputError(
                f"grad_output: expected device {self.device}, got {grad_output.device}"
            )
        result: Tensor = torch.ops.actprune.grad_weight(
            self.buffers, grad_output, self.format.spec, self.shape[1]
        )
        return result

    def to_dense(self) -> Tensor:
        """(rows, features), zeros where pruned."""
        result: Tensor = torch.ops.actprune.to_dense(
            self.buffers, self.format.spec, *self.shape, self.dtype
        )
        return result


def check_activation(activation: Tensor) -> None:
    """Raise InputError unless activation is a (rows, features) matrix of a supported dtype."""
    if activation.dim() != 2:
        raise InputError(
            f"activation: expected shape (rows, features), got {tuple(activation.shape)}"
        )
    if activation.dtype not in DTYPES:
        known = ", ".join(str(dtype) for dtype in DTYPES)
        raise InputError(f"activation: expected dtype one of {known}, got {activation.dtype}")


@dataclass(frozen=True, kw_only=True)
class PruningFormat(Format):
    """The options that every pruning format takes."""

    sparsity: float = 0.9
    scope: str = "column"
    select: str = "topk"
    seed: int = 0
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"sparsity: expected 0 <= s < 1, got {self.sparsity:g}")
        check_option("scope", self.scope, SCOPES)
        check_option("select", self.select, SELECTS)
        if self.seed < 0:
            raise InputError(f"seed: expected 0 or more, got {self.seed}")
        try:
            check_backend(self.backend)
        except ValueError as problem:
            raise InputError(str(problem)) from None

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.select == "priority"

    def selection_draw(self, draw: Tensor | None) -> Tensor | None:
        """What the kernels take: None for top-k, the first draw where none is given."""
        if self.select == "topk":
            return None
        return self.first_draw() if draw is None else draw


@dataclass(frozen=True, kw_only=True)
class RivalFormat(PruningFormat):
    """What other work keeps: plain PyTorch on every device (actprune_kernels.rivals).

    On CUDA unmeasured.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("backend", self.backend, ("auto", "naive"))


def check_option(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{option}: expected one of {', '.join(known)}, got {value!r}")
