"""Which variants of our Triton kernels a configuration compiles, found without a GPU.

The host side of a kernel runs on meta tensors, where launches are recorded; each is then described
as Triton's JIT would specialise it on a GPU. Triton's own types stay out of sight: a KernelVariant
is plain data, so that another process can compile it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch import Tensor

from actprune.formats import FORMATS, Compressed, PruningFormat, parse
from actprune_common.errors import InputError, check_one_of
from actprune_kernels import codes, gelu
from actprune_kernels.launch import Launch, record
from actprune_kernels.sizes import SCOPES

BLOCKS = ("32x32", "64x64", "128x128", "1x32", "1x64")
DTYPES = ("bfloat16", "float16", "float32", "tf32")
"""`tf32` is fp32 where torch multiplies it so; `float32` multiplies exactly."""
SHAPES = (
    (25088, 384, 1536),
    (25088, 1536, 384),
    (49152, 196, 196),
    (25088, 768, 3072),
    (25088, 3072, 768),
)
"""Rows, features and out_features of ResMLP-S24 and B24 at batch 128, 224 px and patch 16: the MLP
and, (batch, channel) x patches, the layer across patches."""
RAGGED = (25087, 383, 384)
"""Of a size that no group of codes divides."""
_TYPES = {torch.bool: "*i1", torch.uint8: "*u8", torch.bfloat16: "*bf16"}
_TYPES |= {getattr(torch, f"int{bits}"): f"*i{bits}" for bits in (8, 16, 32, 64)}
_TYPES |= {getattr(torch, f"float{bits}"): f"*fp{bits}" for bits in (16, 32, 64)}


@dataclass(frozen=True)
class Configuration:
    """A format, a dtype of DTYPES, and the shape of X and dY that it stores and multiplies; or what
    of PRIMITIVES codes X."""

    spec: str
    dtype: str
    rows: int
    features: int
    out_features: int


@dataclass(frozen=True)
class KernelVariant:
    """One machine code: a kernel, what it is specialised on, and its launch options."""

    module: str
    kernel: str
    signature: tuple[tuple[str, str], ...]
    """Type of each parameter, in order; `constexpr` where its value is built in."""
    constants: tuple[tuple[str, Any], ...]
    aligned: tuple[str, ...]
    """Parameters that are multiples of 16: pointers, by their bytes, and sizes."""
    num_warps: int
    num_stages: int
    specs: set[str] = field(default_factory=set, compare=False)
    """Whom it serves."""

    @property
    def dtype(self) -> str:
        """Of DTYPES, by what it reads or writes: half precision where any of it is; or integer."""
        types = {kind for _, kind in self.signature}
        if ("PRECISION", "tf32") in self.constants:
            return "tf32"
        known = {"*bf16": "bfloat16", "*fp16": "float16", "*fp32": "float32"}
        return next((name for kind, name in known.items() if kind in types), "integer")

    @property
    def label(self) -> str:
        """What tells it from the kernel's other variants."""
        sizes = [
            name if name in self.aligned else f"{name}*"  # * for sizes of any alignment
            for name, kind in self.signature
            if kind.startswith("i")
        ]
        types = [kind for _, kind in self.signature if kind.startswith("*")]
        built_in = [f"{name}={getattr(value, 'name', value)}" for name, value in self.constants]
        return " ".join([*types, *sizes, *built_in, f"warps={self.num_warps}"])


def shipped() -> Iterator[Configuration]:
    """What `actprune static` proves by itself: every kernel, in a few minutes.

    Column scope with every block, in bf16 on every shape, exact fp32 on one of each kind (rows
    aligned to 16 bytes, and not), fp16 and tf32 on one. Row and global scope, which share their
    product, in bf16 and exact fp32; priority sampling, which only draws ranks and scales what is
    gathered, and one block of four-bit codes and one of fp8, in bf16; coo and csr, where they have
    Triton kernels, likewise; and PRIMITIVES, in all but tf32. `named` gives all dtypes and shapes
    of a format.
    """
    one, both = SHAPES[:1], (SHAPES[0], SHAPES[2])
    for block in BLOCKS:
        spec = f"bsr:block={block}"
        yield from _product([spec], ("bfloat16",), SHAPES)
        yield from _product([spec], ("float32",), both)
        yield from _product([spec], ("float16", "tf32"), one)
        yield from _product([f"{spec},scope=global"], ("bfloat16",), both)
        yield from _product([f"{spec},scope=row", f"{spec},scope=global"], ("float32",), one)
        yield from _product([f"{spec},scope=row"], ("bfloat16",), one)
        yield from _product([f"{spec},select=priority"], ("bfloat16",), one)
    yield from _product([f"bsr:scope={scope},select=priority" for scope in SCOPES], DTYPES[:1], one)
    coded = ["bsr:block=1x128,values=int4", "bsr:block=1x64,values=fp8"]
    yield from _product(coded, DTYPES[:1], one)
    for name in FORMATS:
        if name != "bsr" and has_kernels(name):
            yield from _product([f"{name}:scope=column"], ("bfloat16", "float32"), both)
            yield from _product([f"{name}:scope=column"], ("float16",), one)
            others = [f"{name}:scope=row", f"{name}:scope=global", f"{name}:select=priority"]
            yield from _product(others, ("bfloat16",), one)
    yield from _product(list(PRIMITIVES), ("bfloat16", "float32"), (SHAPES[0], RAGGED))
    yield from _product(list(PRIMITIVES), ("float16",), one)


def named(
    specs: Sequence[str],
    dtypes: Sequence[str] = DTYPES,
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
) -> Iterator[Configuration]:
    """The given formats with every given dtype and shape.

    Raises InputError on a format without Triton kernels, and on a dtype not in DTYPES.
    """
    for dtype in dtypes:
        check_one_of("dtype", dtype, DTYPES)
    for spec in specs:
        format = parse(spec)
        if not isinstance(format, PruningFormat) or not has_kernels(format.name):
            known = ", ".join(each for each in FORMATS if has_kernels(each))
            raise InputError(f"format: expected one with Triton kernels ({known}), got {spec!r}")
    return _product(specs, dtypes, shapes)


def has_kernels(name: str) -> bool:
    """Whether the format called `name` has Triton kernels."""
    folder = f"actprune_kernels.{name}"
    if not issubclass(FORMATS[name], PruningFormat):
        return False
    return find_spec(folder) is not None and find_spec(f"{folder}.triton") is not None


def variants(configurations: Iterable[Configuration]) -> list[KernelVariant]:
    """The distinct variants that compress, grad_weight and to_dense launch."""
    found: dict[KernelVariant, KernelVariant] = {}
    for configuration in configurations:
        for launch in _launches(configuration):
            variant = specialise(launch)
            variant = found.setdefault(variant, variant)
            spec = configuration.spec
            variant.specs.add(spec if spec in PRIMITIVES else parse(spec).spec)
    return list(found.values())


def specialise(launch: Launch) -> KernelVariant:
    """The variant that Triton's JIT would compile for this launch.

    A tensor is a pointer, aligned to 16 bytes; None and the integer 1 are built in; an integer is
    i32 where it fits, and known to be a multiple of 16 where it is one.
    """
    signature, constants, aligned = [], [], []
    for parameter in launch.kernel.params:
        name, value = parameter.name, launch.args[parameter.name]
        kind = "constexpr" if parameter.is_constexpr else _kind(value)
        signature.append((name, kind))
        if kind == "constexpr":
            constants.append((name, value))
        elif isinstance(value, Tensor) or value % 16 == 0:
            aligned.append(name)
    function = launch.kernel.fn
    described = tuple(signature), tuple(constants), tuple(aligned)
    options = launch.num_warps, launch.num_stages
    return KernelVariant(function.__module__, function.__name__, *described, *options)


def compile_arguments(variant: KernelVariant) -> tuple[Any, ...]:
    """Kernel, signature, constexprs and attrs, as triton.compiler.ASTSource takes them."""
    kernel = getattr(import_module(variant.module), variant.kernel)
    place = {name: (index,) for index, (name, _) in enumerate(variant.signature)}
    constants = {place[name]: value for name, value in variant.constants}
    attrs = {place[name]: [["tt.divisibility", 16]] for name in variant.aligned}
    return kernel, dict(variant.signature), constants, attrs


def _product(
    specs: Sequence[str], dtypes: Sequence[str], shapes: Sequence[tuple[int, int, int]]
) -> Iterator[Configuration]:
    for spec, dtype, shape in product(specs, dtypes, shapes):
        yield Configuration(spec, dtype, *shape)


def _code(bits: int, x: Tensor) -> None:
    triton, group = codes.backend(x.device, "triton"), 128
    triton.unpack(triton.pack(x, bits, group), bits, group, x.numel(), x.dtype)


def _code_booleans(x: Tensor) -> None:
    triton = codes.backend(x.device, "triton")
    triton.unpack_bits(triton.pack_bits(x > 0), x.numel())


def _code_derivative(name: str, bits: int, x: Tensor) -> None:
    triton = gelu.backend(x.device, "triton")
    triton.derivative_codes(x, bits, name)
    triton.backward_(x, triton.forward_(x, bits, name), bits, name)


PRIMITIVES: dict[str, Callable[[Tensor], None]] = {
    "bits": _code_booleans,
    **{f"codes:bits={bits}": partial(_code, bits) for bits in codes.BITS},
    **{
        f"{name}:bits={bits}": partial(_code_derivative, name, bits)
        for name in gelu.NAMES
        for bits in gelu.BITS
    },
}
"""What codes a tensor that no format stores, by the name that stands in a variant's specs."""


def _launches(configuration: Configuration) -> list[Launch]:
    if configuration.spec in PRIMITIVES:
        dtype, sizes = (
            getattr(torch, configuration.dtype),
            (configuration.rows, configuration.features),
        )
        with record() as launches:
            PRIMITIVES[configuration.spec](torch.empty(sizes, dtype=dtype, device="meta"))
        return launches
    format = parse(configuration.spec)
    assert isinstance(format, PruningFormat)
    format = replace(format, backend="triton")
    fast = configuration.dtype == "tf32"
    dtype = torch.float32 if fast else getattr(torch, configuration.dtype)
    rows, features = configuration.rows, configuration.features
    activation = torch.empty(rows, features, dtype=dtype, device="meta")
    grad_output = activation.new_empty(rows, configuration.out_features)
    with record() as launches, ExitStack() as after:
        after.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("high" if fast else "highest")
        buffers = format.compress_tensors(activation, None)
        compressed = Compressed(format, (rows, features), dtype, buffers)
        format.grad_weight(compressed, grad_output)
        format.to_dense(compressed)
    return launches


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return _TYPES[value.dtype]
    if value is None or value == 1:
        return "constexpr"
    if isinstance(value, int) and not isinstance(value, bool):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    raise TypeError(f"no type of a kernel's argument for {value!r}")
