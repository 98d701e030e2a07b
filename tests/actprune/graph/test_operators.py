"""The operators of planned graphs: against the definition, and as torch sees them."""

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

import actprune
from actprune.graph import operators
from actprune.graph.operators import (
    convolution_weight,
    draw,
    offload,
    pack,
    pack_bits,
    reload,
    unpack,
    unpack_bits,
)
from actprune.layers import ops
from actprune_kernels.codes import in_memory, naive, width

FLOATS = [torch.float32, torch.bfloat16]
CODES = [(2, 64), (4, 128), (8, 32)]
CPU = torch.device("cpu")


def shapes(dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of every kind of memory."""
    torch.manual_seed(0)
    return {
        "odd": torch.randn(3, 5, 7).to(dtype),
        "channels_last": torch.randn(2, 5, 3, 7).to(dtype, memory_format=torch.channels_last),
        "transposed": torch.randn(40, 6).to(dtype).t(),
        "sliced": torch.randn(9, 50).to(dtype)[:, 3:41],
        "expanded": torch.randn(9, 1).to(dtype).expand(9, 30),
        "scalar": torch.randn(()).to(dtype),
        "empty": torch.randn(0, 4).to(dtype),
    }


KINDS = list(shapes(torch.float32))


def roundtrip(x: Tensor, bits: int, group: int) -> Tensor:
    dense = torch.ops.aten.is_non_overlapping_and_dense(x)
    stride = x.stride() if dense else x.contiguous().stride()
    found: Tensor = unpack(pack(x, bits, group), bits, group, x.shape, stride, x.dtype)
    return found


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bits", "group"), CODES)
def test_codes_are_the_definition_s(bits: int, group: int, kind: str, dtype: torch.dtype) -> None:
    x = shapes(dtype)[kind]
    found = roundtrip(x, bits, group)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert pack(x, bits, group).shape == (-(-x.numel() // group), width(bits, group))
    if not x.numel():
        return
    dense = x if found.stride() == x.stride() else x.contiguous()
    assert found.stride() == dense.stride()
    codes = naive.pack(dense, bits, group)
    assert torch.equal(pack(x, bits, group), codes)
    flat = naive.unpack(codes, bits, group, x.numel(), dtype)
    digits = torch.finfo(dtype).eps, 2**-22 * float(x.abs().max())
    rtol, atol = digits if bits == 8 else (0, 0)  # FBGEMM multiplies and adds at once
    torch.testing.assert_close(in_memory(found), flat, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_booleans_come_back(kind: str) -> None:
    mask = shapes(torch.float32)[kind] > 0
    dense = torch.ops.aten.is_non_overlapping_and_dense(mask)
    whole = pack_bits(mask)
    assert (whole.dtype, whole.shape) == (torch.uint8, (-(-mask.numel() // 8),))
    stride = mask.stride() if dense else mask.contiguous().stride()
    found = unpack_bits(whole, mask.shape, stride)
    assert found.dtype == torch.bool
    assert found.stride() == stride
    assert torch.equal(found, mask)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(kind: str, dtype: torch.dtype) -> None:
    x = shapes(dtype)[kind]
    dense = x.contiguous().stride()
    torch.library.opcheck(pack, (x, 4, 64))
    torch.library.opcheck(unpack, (pack(x.contiguous(), 4, 64), 4, 64, x.shape, dense, dtype))
    torch.library.opcheck(pack_bits, (x > 0,))
    torch.library.opcheck(unpack_bits, (pack_bits((x > 0).contiguous()), x.shape, dense))
    torch.library.opcheck(draw, (x, x[:1] if x.dim() else None, 3, 4))
    torch.library.opcheck(offload, (x,))
    torch.library.opcheck(reload, (offload(x), CPU))


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "1d": {"size": (5, 6, 11), "weight": (4, 6, 3)},
    "2d": {"size": (5, 6, 7, 9), "weight": (4, 6, 3, 2)},
    "3d": {"size": (3, 2, 5, 4, 6), "weight": (4, 2, 3, 2, 3)},
    "strided": {"size": (5, 6, 8, 9), "weight": (4, 6, 3, 3), "stride": 2, "padding": 1},
    "dilated": {"size": (5, 6, 8, 9), "weight": (4, 6, 3, 3), "dilation": 2, "padding": 2},
    "grouped": {"size": (5, 6, 7, 7), "weight": (4, 3, 3, 3), "groups": 2},
    "depthwise": {"size": (5, 6, 7, 7), "weight": (6, 1, 3, 3), "groups": 6, "padding": 1},
    "transposed": {
        "size": (5, 6, 7, 5),
        "weight": (6, 4, 3, 3),
        "stride": 2,
        "padding": 1,
        "transposed": True,
        "output_padding": 1,
    },
    "transposed, grouped, 1d": {
        "size": (5, 6, 7),
        "weight": (6, 2, 3),
        "transposed": True,
        "groups": 2,
    },
}


def convolution(
    size: tuple[int, ...],
    weight: tuple[int, ...],
    transposed: bool = False,
    groups: int = 1,
    **numbers: int,
) -> tuple[Tensor, Tensor, Tensor, tuple[Any, ...]]:
    """Input, weight, dY and the arguments of aten.convolution, in float64."""
    torch.manual_seed(0)
    spread = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, **numbers}
    lists = {name: [number] * (len(size) - 2) for name, number in spread.items()}
    arguments = (
        *(lists["stride"], lists["padding"], lists["dilation"], transposed),
        *(lists["output_padding"], groups),
    )
    x, w = torch.randn(size, dtype=torch.float64), torch.randn(weight, dtype=torch.float64)
    grad = torch.randn_like(torch.ops.aten.convolution(x, w, None, *arguments))
    return x, w, grad, arguments


def exact(x: Tensor, w: Tensor, grad: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    masked = [False, True, False]
    made: Tensor = torch.ops.aten.convolution_backward(grad, x, w, None, *arguments, masked)[1]
    return made


def from_codes(
    x: Tensor, w: Tensor, grad: Tensor, arguments: tuple[Any, ...], **more: Any
) -> Tensor:
    made: Tensor = convolution_weight(
        *(pack(x, 4, 64), 4, 64, x.shape, x.stride(), x.dtype, grad, w.shape), *arguments, **more
    )
    return made


@pytest.fixture
def one_sample_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "rows_at_once", lambda sample: 1)


@pytest.mark.usefixtures("one_sample_at_a_time")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weight_gradient_from_codes(name: str) -> None:
    x, w, grad, arguments = convolution(**CONVOLUTIONS[name])
    assert x[0].numel() % 64  # codes of a sample begin and end within groups
    expected = exact(roundtrip(x, 4, 64), w, grad, arguments)
    torch.testing.assert_close(from_codes(x, w, grad, arguments), expected)


@pytest.mark.usefixtures("one_sample_at_a_time")
@pytest.mark.parametrize("name", ["2d", "strided", "grouped", "transposed"])
@pytest.mark.parametrize("dims", [(0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3), (2, 3, 1, 0)])
def test_weight_gradient_in_any_order_of_memory(name: str, dims: tuple[int, ...]) -> None:
    x, w, grad, arguments = convolution(**CONVOLUTIONS[name])
    back = [dims.index(dim) for dim in range(4)]
    x = x.permute(dims).contiguous().permute(back)
    expected = exact(roundtrip(x, 4, 64), w, grad, arguments)
    torch.testing.assert_close(from_codes(x, w, grad, arguments), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_weight_gradient_is_laid_out_as_asked(dtype: torch.dtype) -> None:
    x, w, grad, arguments = convolution(**CONVOLUTIONS["2d"])
    x, w, grad = x.to(dtype), w.to(dtype), grad.to(dtype)
    stride = w.to(memory_format=torch.channels_last).stride()
    contiguous = from_codes(x, w, grad, arguments)
    assert (contiguous.dtype, contiguous.stride()) == (dtype, w.stride())
    found = from_codes(x, w, grad, arguments, weight_stride=stride)
    assert found.stride() == stride
    assert torch.equal(found, contiguous)


@pytest.mark.usefixtures("one_sample_at_a_time")
def test_weight_gradient_adds_up_in_fp32() -> None:
    """Of 512 samples that add 1 each, of which bf16 would stop to count at 256."""
    x, w = torch.ones(512, 1, 1, 1).bfloat16(), torch.ones(1, 1, 1, 1).bfloat16()
    arguments = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    assert from_codes(x, w, torch.ones_like(x), arguments).item() == 512


def test_weight_gradient_decodes_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most what a chunk needs; a weight that is larger than samples makes chunks as large."""
    asked: list[int] = []
    values = operators._values

    def counted(*arguments: Any) -> Tensor:
        asked.append(arguments[3].stop - arguments[3].start)
        return values(*arguments)

    monkeypatch.setattr(operators, "_values", counted)
    monkeypatch.setattr(operators, "rows_at_once", lambda sample: 2)
    from_codes(*convolution((5, 6, 7, 9), (4, 6, 3, 2)))
    assert asked == [2, 2, 1]
    asked.clear()
    from_codes(*convolution((9, 6, 3, 3), (40, 6, 3, 1)))  # 54 of x, 720 of the weight
    assert asked == [9]


@pytest.mark.parametrize("size", [(0, 6, 7, 9), (5, 0, 7, 9)])
def test_weight_gradient_of_nothing(size: tuple[int, ...]) -> None:
    weight = torch.Size((4, size[1], 3, 2))
    grad = torch.randn(size[0], 4, 5, 8)
    arguments = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    found = from_codes(torch.randn(size), torch.randn(weight), grad, arguments)
    assert torch.equal(found, torch.zeros(weight))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["1d", "strided", "transposed"])
def test_opcheck_of_convolution(name: str, dtype: torch.dtype) -> None:
    x, w, grad, arguments = convolution(**CONVOLUTIONS[name])
    x, grad = x.to(dtype), grad.to(dtype)
    codes = pack(x, 4, 64)
    torch.library.opcheck(
        convolution_weight,
        (codes, 4, 64, x.shape, x.stride(), dtype, grad, w.shape, *arguments),
    )


@pytest.mark.parametrize("features", [96, 128, 131])
def test_product_from_codes_in_chunks(features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator of the layers, from codes of a tensor in the order of its memory."""
    monkeypatch.setattr("actprune_kernels.baselines.rows_at_once", lambda features: 3)
    torch.manual_seed(0)
    x = torch.randn(4, 5, features, dtype=torch.float64)
    grad = torch.randn(20, 7, dtype=torch.float64)
    expected = grad.t() @ roundtrip(x, 4, 128).view(20, features)
    spec = "codes:bits=4,group=128"
    found = ops.grad_weight([pack(x, 4, 128)], grad, spec, features)
    torch.testing.assert_close(found, expected)
    (theirs,) = actprune.parse(spec).compress(x.view(20, features)).buffers
    assert torch.equal(theirs, pack(x, 4, 128))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64])
def test_draw_follows_from_content(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, other = torch.randn(6, 40, dtype=dtype), torch.randn(5, 4, dtype=dtype)
    first = draw(x, other, 3, 1 << 40)
    assert first.tolist()[:2] == [3, 1 << 40]
    assert torch.equal(draw(x.clone(), other.clone(), 3, 1 << 40), first)
    changed = other.clone()
    changed[2, 1] += 1
    draws = [
        first,
        draw(x, changed, 3, 1 << 40),
        draw(x + 1, other, 3, 1 << 40),
        draw(x, None, 3, 4),
    ]
    assert len({each[2].item() for each in draws}) == len(draws)


@pytest.mark.parametrize("kind", KINDS)
def test_offload_and_back(kind: str) -> None:
    x = shapes(torch.float32)[kind]
    host = offload(x)
    back = reload(host, CPU)
    assert torch.equal(host, x)
    assert torch.equal(back, x)
    assert back.stride() == torch.empty_like(x).stride()
    pointers = {each.untyped_storage().data_ptr() for each in (x, host, back)}
    assert len(pointers) == (3 if x.numel() else 1)


def test_dynamic_shapes_in_one_graph() -> None:
    """With a batch whose size is symbolic, and compiled once."""

    def everything(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        rows = x.flatten(1)
        decoded = unpack(pack(x, 4, 64), 4, 64, x.shape, x.stride(), x.dtype)
        mask = unpack_bits(pack_bits(x > 0), x.shape, x.stride())
        y = torch.ops.aten.convolution(x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        return (
            decoded.sum(1),
            mask.sum(),
            convolution_weight(
                *(pack(x, 4, 64), 4, 64, x.shape, x.stride(), x.dtype, y, w.shape),
                *([1, 1], [1, 1], [1, 1], False, [0, 0], 1),
            ),
            ops.grad_weight([pack(rows, 4, 128)], rows[:, :3], "codes:bits=4,group=128", 294),
            draw(x, w, 0, 1),
            reload(offload(x), x.device),
        )

    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(everything, backend=counter, dynamic=True, fullgraph=True)
    w = torch.randn(4, 6, 3, 3)
    for batch in (5, 8, 9):  # torch takes sizes that are equal at first for one
        x = torch.randn(batch, 6, 7, 7)
        for found, expected in zip(compiled(x, w), everything(x, w), strict=True):
            torch.testing.assert_close(found, expected)
    assert counter.frame_count == 1
