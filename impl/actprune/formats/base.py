"""What every format is: options, and pure functions between tensors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from actprune.formats.spec import write_spec
from actprune_common.errors import InputError, check_at_least, check_one_of, expected
from actprune_kernels.backends import BACKENDS
from actprune_kernels.backends import kernels as kernels_of
from actprune_kernels.selection import Selection
from actprune_kernels.sizes import SCOPES, SELECTS, wide

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Format(ABC):
    """How an activation X (rows, features) is kept for the backward pass.

    A format is a frozen dataclass of its options; `actprune.parse` makes one from a spec. Those who
    have an activation call `compress`. What the operators in actprune.layers.ops call, which torch
    can trace, are pure functions between tensors: `compress_tensors`, `grad_weight`, `to_dense` and
    `row_dot`. Most of a format is its kernels, which take what is kept by the names in `fields`.

    Example:
        >>> x = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
        >>> actprune.parse("coo:sparsity=0.5").compress(x).to_dense()
        tensor([[ 1., -3.],
                [ 0.,  0.]])
    """

    name: ClassVar[str]
    """As it stands in a spec, in FORMATS and among the folders of kernels."""
    seed = 0
    stochastic = False
    """Whether `compress` makes use of `draw`."""
    exact = True
    """Whether what is kept of an activation, but for a random selection's scale, is its own."""

    @property
    @abstractmethod
    def fields(self) -> tuple[str, ...]:
        """The names of the tensors that are kept, in the order of `Compressed.buffers`."""

    @property
    def spec(self) -> str:
        """The format and its options as text; `actprune.parse` reads it back."""
        return write_spec(self.name, self)

    def first_draw(self) -> Tensor:
        """What `compress` takes where no draw is given."""
        return torch.tensor([self.seed, 0, 0])

    def drawn(self, draw: Tensor | None, wanted: bool) -> Tensor | None:
        """What a kernel takes: no draw where none is wanted, the first one where none is given."""
        return self.first_draw() if wanted and draw is None else draw if wanted else None

    def compress(
        self,
        activation: Tensor,
        draw: Tensor | None = None,
        sample_importance: Tensor | None = None,
    ) -> "Compressed":
        """Prune and store an activation; the store does not change when the activation does.

        Args:
            activation: X (rows, features), fp32, fp64, bf16 or fp16.
            draw: int64 (3,): seed, stream and counter of a random selection; the same draw selects
                the same. By default the format's seed with stream and counter 0.
            sample_importance: (rows,), positive: what each row is worth in the selection; by
                default all alike.

        Raises:
            InputError: The activation or the importance has another shape or dtype.
            ValueError: The backend cannot serve the device or dtype.
        """
        if activation.dim() != 2:
            raise expected("activation", "shape (rows, features)", tuple(activation.shape))
        if activation.dtype not in DTYPES:
            known = ", ".join(str(dtype) for dtype in DTYPES)
            raise expected("activation", f"dtype one of {known}", activation.dtype)
        if sample_importance is not None and sample_importance.shape != activation.shape[:1]:
            shape = tuple(sample_importance.shape)
            raise expected("sample_importance", f"shape ({len(activation)},)", shape)
        rows, features = activation.shape
        buffers = torch.ops.actprune.compress.default(
            activation, self.spec, draw, sample_importance
        )
        return Compressed(self, (rows, features), activation.dtype, tuple(buffers))

    def compress_tensors(
        self, activation: Tensor, draw: Tensor | None, sample_importance: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The tensors to keep, as `fields` names them. Arguments are those of `compress`."""
        compress = self.kernels(activation.device, activation.dtype).compress
        arguments = self.arguments(activation, draw, sample_importance)
        tensors: tuple[Tensor, ...] = compress(activation, *arguments)
        return tensors

    def arguments(self, activation: Tensor, draw: Tensor | None, importance: Tensor | None) -> Any:
        """What the kernel `compress` takes after the activation."""
        return ()

    @abstractmethod
    def empty_tensors(self, like: Tensor, rows: int, features: int) -> tuple[Tensor, ...]:
        """Uninitialised tensors of the sizes and types that `compress_tensors` will return.

        like: of the dtype and on the device of the activation (rows, features).
        """

    def kernels(self, device: torch.device, dtype: torch.dtype) -> ModuleType:
        """The module of kernels that serves tensors of this device and dtype."""
        return import_module(f"actprune_kernels.baselines.{self.name}")

    def operands(self, compressed: "Compressed", kernel: str) -> dict[str, Any]:
        """What a kernel, such as grad_weight, takes of a store, by the names of its parameters."""
        return compressed.tensors

    def run(self, kernel: str, compressed: "Compressed", **others: Any) -> Tensor:
        """What the kernel of this name makes of a store and of what else it takes."""
        kernels = self.kernels(compressed.device, compressed.dtype)
        result: Tensor = getattr(kernels, kernel)(**self.operands(compressed, kernel), **others)
        return result

    def grad_weight(self, compressed: "Compressed", grad_output: Tensor) -> Tensor:
        """dYᵀ·X, (out_features, features), from dY (rows, out_features)."""
        features, out_features = compressed.shape[1], grad_output.shape[1]
        if not compressed.buffers[0].numel() or not out_features:  # nothing for a kernel to do
            return grad_output.new_zeros(out_features, features)
        return self.run("grad_weight", compressed, grad_output=grad_output, features=features)

    def to_dense(self, compressed: "Compressed") -> Tensor:
        """X (rows, features) in its dtype, with zeros where it was pruned."""
        return self.run("to_dense", compressed, shape=compressed.shape)

    def row_dot(self, compressed: "Compressed", other: Tensor) -> Tensor:
        """Of each row the sum of X times `other`, both (rows, features): (rows,), wide."""
        if hasattr(self.kernels(compressed.device, compressed.dtype), "row_dot"):
            return self.run("row_dot", compressed, other=other)
        return (self.to_dense(compressed) * other).sum(1, dtype=wide(other.dtype))

    def nnz(self, compressed: "Compressed") -> int:
        """Elements of X that the store holds."""
        return compressed.tensors["values"].numel()


@dataclass(frozen=True)
class Compressed:
    """All that the backward pass keeps of an activation: a format, a shape and its tensors.

    `tensors` gives them by name, such as `store.tensors["colptr"]`; which there are, and their
    shapes, the module of the format's kernels says.

    Example:
        >>> kept = actprune.parse("bsr:block=1x4,sparsity=0.5").compress(torch.ones(8, 8))
        >>> kept.nnz, kept.grad_weight(torch.ones(8, 3)).shape
        (32, torch.Size([3, 8]))
    """

    format: Format
    shape: tuple[int, int]
    """(rows, features) of the activation."""
    dtype: torch.dtype
    """Of the activation, of `to_dense` and of `grad_weight`."""
    buffers: tuple[Tensor, ...]
    """The tensors in the order of `format.fields`: values or their codes first, then indices."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The buffers by name."""
        return dict(zip(self.format.fields, self.buffers, strict=True))

    @property
    def device(self) -> torch.device:
        """The device that all buffers are on."""
        return self.buffers[0].device

    @property
    def nnz(self) -> int:
        """Stored elements, the zeros inside kept blocks included."""
        return self.format.nnz(self)

    @property
    def nbytes(self) -> int:
        """Bytes over all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def grad_weight(self, grad_output: Tensor) -> Tensor:
        """The weight gradient dYᵀ·X, (out_features, features).

        Args:
            grad_output: dY (rows, out_features), of the activation's dtype and device.

        Raises:
            InputError: `grad_output` has another number of rows, dtype or device.
        """
        if grad_output.dim() != 2 or grad_output.shape[0] != self.shape[0]:
            shape = f"shape ({self.shape[0]}, out_features)"
            raise expected("grad_output", shape, tuple(grad_output.shape))
        for what in ("dtype", "device"):
            own, got = getattr(self, what), getattr(grad_output, what)
            if got != own:
                raise expected("grad_output", f"{what} {own}", got)
        grad_weight, spec = torch.ops.actprune.grad_weight.default, self.format.spec
        result: Tensor = grad_weight(self.buffers, grad_output, spec, self.shape[1])
        return result

    def to_dense(self) -> Tensor:
        """The activation (rows, features), with zeros where it was pruned."""
        to_dense, spec = torch.ops.actprune.to_dense.default, self.format.spec
        result: Tensor = to_dense(self.buffers, spec, *self.shape, self.dtype)
        return result


@dataclass(frozen=True, kw_only=True)
class PruningFormat(Format):
    """The options that every pruning format takes.

    Args:
        sparsity: The fraction of the candidates that is dropped, 0 <= sparsity < 1.
        scope: Groups of which each keeps equally many: "column", "row", or "global" for one group
            of all. The first two give every shape before the data is seen.
        select: "topk" keeps the largest; "priority" samples in proportion to the magnitude and
            scales what it keeps, so that the expectation of the store is the activation.
        seed: Of the first draw of a random selection, 0 or more.
        backend: "auto", by device and dtype, or one of "naive", "cpu", "triton", "cusparse".

    Raises:
        InputError: An option has another value.
    """

    scopes: ClassVar[tuple[str, ...]] = SCOPES
    """The scopes that the format has; `scope` is one of them, and `backend` of the next."""
    backends: ClassVar[tuple[str, ...]] = ("auto", *BACKENDS)
    sparsity: float = 0.9
    scope: str = "column"
    select: str = "topk"
    seed: int = 0
    backend: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"sparsity: expected 0 <= s < 1, got {self.sparsity:g}")
        check_one_of("scope", self.scope, self.scopes)
        check_one_of("select", self.select, SELECTS)
        check_at_least("seed", self.seed, 0)
        check_one_of("backend", self.backend, self.backends)

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.select == "priority"

    def kernels(self, device: torch.device, dtype: torch.dtype) -> ModuleType:
        return kernels_of(self.name, self.backend, device, dtype)

    def arguments(self, activation: Tensor, draw: Tensor | None, importance: Tensor | None) -> Any:
        draw = self.drawn(draw, self.select == "priority")
        return (Selection(self.sparsity, self.scope, draw, importance),)


@dataclass(frozen=True, kw_only=True)
class BaselineFormat(PruningFormat):
    """What other work keeps: plain PyTorch on every device (actprune_kernels.baselines).

    On CUDA unmeasured. Options are those of PruningFormat; `backend` is "auto" or "naive".
    """

    kernels = Format.kernels
    backends = ("auto", "naive")
