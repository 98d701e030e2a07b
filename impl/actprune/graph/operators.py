"""The operators that a planned graph calls: tensors in few bits or on the host, and the way back.

They are nodes of FX graphs, whose sizes may be symbolic: the shape of every result follows from the
arguments without a look at the data, and none waits for the device. On CUDA they are unmeasured.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from actprune.layers.draws import draw_for
from actprune.layers.ops import fake, operator
from actprune_kernels.chunked import slices
from actprune_kernels.codes import backend, width
from actprune_kernels.sizes import rows_at_once, wide


def _ordered(x: Tensor, stride: Sequence[int] | None) -> Tensor:
    """x without gaps, of these strides: a compiler may have chosen others than the graph says."""
    if stride is not None and x.stride() != tuple(stride) and 0 not in stride:
        return x.new_empty_strided(x.shape, stride).copy_(x)
    return x if torch.ops.aten.is_non_overlapping_and_dense(x) else x.contiguous()


@operator
def pack(x: Tensor, bits: int, group: int, stride: Sequence[int] | None = None) -> Tensor:
    """Return the codes of x in the order of its memory (actprune_kernels.codes).

    Where x has gaps or overlaps, such as a slice or an expanded tensor, they are those of
    x.contiguous(): unpack then takes its strides.

    Args:
        x: of any floating dtype.
        bits: of a code: 2, 4 or 8.
        group: values that share a scale, a multiple of 8 (saved.stores.group_of).
        stride: of x as `unpack` will take them; None: those that it has.

    Returns:
        (⌈n / group⌉, width) uint8.
    """
    if not x.numel():
        return x.new_empty(0, width(bits, group), dtype=torch.uint8)
    codes: Tensor = backend(x.device).pack(_ordered(x, stride), bits, group)
    return codes


@fake(pack)
def _(x: Tensor, bits: int, group: int, stride: Sequence[int] | None = None) -> Tensor:
    return x.new_empty((x.numel() + group - 1) // group, width(bits, group), dtype=torch.uint8)


@operator
def unpack(
    codes: Tensor,
    bits: int,
    group: int,
    size: Sequence[int],
    stride: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    """Return the tensor that `pack` has coded, of this size, and of these strides without gaps."""
    count = torch.Size(size).numel()
    if not count:
        return codes.new_empty_strided(size, stride, dtype=dtype)
    flat: Tensor = backend(codes.device).unpack(codes, bits, group, count, dtype)
    return flat.as_strided(size, stride)


@fake(unpack)
def _(
    codes: Tensor,
    bits: int,
    group: int,
    size: Sequence[int],
    stride: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:
    return codes.new_empty_strided(size, stride, dtype=dtype)


@operator
def pack_bits(mask: Tensor, stride: Sequence[int] | None = None) -> Tensor:
    """Return booleans as bits in the order of memory, (⌈n / 8⌉,) uint8; strides as in `pack`."""
    whole: Tensor = backend(mask.device).pack_bits(_ordered(mask, stride))
    return whole


@fake(pack_bits)
def _(mask: Tensor, stride: Sequence[int] | None = None) -> Tensor:
    return mask.new_empty((mask.numel() + 7) // 8, dtype=torch.uint8)


@operator
def unpack_bits(whole: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return the booleans of `pack_bits`, of this size, and of these strides without gaps."""
    flat: Tensor = backend(whole.device).unpack_bits(whole, torch.Size(size).numel())
    return flat.as_strided(size, stride)


@fake(unpack_bits)
def _(whole: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    return whole.new_empty_strided(size, stride, dtype=torch.bool)


@operator
def convolution_weight(
    codes: Tensor,
    bits: int,
    group: int,
    size: Sequence[int],
    input_stride: Sequence[int],
    dtype: torch.dtype,
    grad_output: Tensor,
    weight_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    weight_stride: Sequence[int] | None = None,
) -> Tensor:
    """Return the weight gradient of aten.convolution from the codes of its input.

    Samples are decoded some at a time: as many as the caches hold, or as have the size of dW, which
    is added once for each time. Where the batch is not the outermost dimension in memory, the input
    is decoded whole.

    Args:
        codes, bits, group: of the input, by `pack`.
        size, input_stride, dtype: the input's; as `unpack` takes them.
        grad_output: dY.
        weight_size: the weight's.
        stride, padding, dilation, transposed, output_padding, groups: as aten.convolution's.
        weight_stride: of the result, without gaps; None: contiguous.

    Returns:
        dW, of grad_output's dtype; sums in fp32 or fp64.
    """
    batch, sample = size[0], torch.Size(size[1:]).numel()
    if not batch or not sample:
        return _weight(grad_output, weight_size, weight_stride).zero_()
    step = max(rows_at_once(sample), torch.Size(weight_size).numel() // sample)
    if batch > 1 and input_stride[0] != sample:
        step = batch

    def part(piece: slice) -> Tensor:
        some = [piece.stop - piece.start, *size[1:]]
        made: Tensor = torch.ops.aten.convolution_backward.default(
            grad_output[piece],
            _values(codes, bits, group, piece, sample, dtype).as_strided(some, input_stride),
            grad_output.new_empty(()).expand(weight_size),  # its size alone is read
            *(None, stride, padding, dilation, transposed, output_padding, groups),
            [False, True, False],
        )[1]
        return made

    first, *others = slices(batch, step)
    total = part(first)
    total = total.to(wide(total.dtype)) if others else total
    for piece in others:
        total.add_(part(piece))
    grad = _weight(grad_output, weight_size, weight_stride)
    same = (total.dtype, total.stride()) == (grad.dtype, grad.stride())
    return total if same else grad.copy_(total)


@fake(convolution_weight)
def _(
    codes: Tensor,
    bits: int,
    group: int,
    size: Sequence[int],
    input_stride: Sequence[int],
    dtype: torch.dtype,
    grad_output: Tensor,
    weight_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    weight_stride: Sequence[int] | None = None,
) -> Tensor:
    return _weight(grad_output, weight_size, weight_stride)


def _weight(grad_output: Tensor, size: Sequence[int], stride: Sequence[int] | None) -> Tensor:
    if stride is None:
        return grad_output.new_empty(size)
    return grad_output.new_empty_strided(size, stride)


def _values(
    codes: Tensor, bits: int, group: int, piece: slice, sample: int, dtype: torch.dtype
) -> Tensor:
    """The values of some samples, of the groups that cover them."""
    start, stop = piece.start * sample, piece.stop * sample
    first, last = start // group, -(-stop // group)
    flat: Tensor = backend(codes.device).unpack(
        codes[first:last], bits, group, (last - first) * group, dtype
    )
    return flat[start - first * group : stop - first * group]


@operator
def draw(x: Tensor, other: Tensor | None, seed: int, stream: int) -> Tensor:
    """Return the draw of a random selection for x, int64 (3,): layers.draws.draw_for.

    It follows from seed, stream and the bits of the tensors alone: steps, between which they
    change, select apart, and a run that is repeated selects as it did.

    Args:
        x: what is to be compressed.
        other: a tensor that changes with every step, such as the weight; None: x alone.
        seed: of the run.
        stream: tells the tensors of one graph apart.
    """
    # filled on the device: a CUDA graph records no copy of Python's numbers
    parts = [x.new_full((1,), number, dtype=torch.int64) for number in (seed, stream, 0)]
    tensors = [x] if other is None else [x, other]
    return draw_for(torch.cat(parts), *map(torch.atleast_1d, tensors))


@fake(draw)
def _(x: Tensor, other: Tensor | None, seed: int, stream: int) -> Tensor:
    return x.new_empty(3, dtype=torch.int64)


# Neither copy needs an event: the device runs what is on its stream in order, so the memory of x is
# used again only after it was read, and what comes back is read only after it was written; pinned
# memory is given out again only after the copies from and to it, which torch's host allocator
# records. This holds as long as both passes run on one stream, as autograd has them do.


@operator
def offload(x: Tensor) -> Tensor:
    """Return x in the host's memory, pinned where x is on a GPU; strides are torch.empty_like's.

    The host must not read it, for the copy may be under way. Unmeasured on a GPU.
    """
    host = torch.empty_like(x, device="cpu", pin_memory=x.is_cuda)
    return host.copy_(x, non_blocking=True)


@fake(offload)
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, device="cpu")


@operator
def reload(host: Tensor, like_device: torch.device) -> Tensor:
    """Return what `offload` has put away, on this device. Unmeasured on a GPU."""
    return torch.empty_like(host, device=like_device).copy_(host, non_blocking=True)


@fake(reload)
def _(host: Tensor, like_device: torch.device) -> Tensor:
    return torch.empty_like(host, device=like_device)
