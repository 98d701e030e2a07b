"""GPU kernels compiled ahead of time, for a GPU that need not be there, and what that shows.

The figures are those of one version of Triton: they repeat to the instruction.
"""

import signal
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import get_context

from actprune_bench.gpu_static import kernel_variants
from actprune_bench.gpu_static.kernel_variants import Configuration, KernelVariant
from actprune_bench.gpu_static.sass import ARCHES, MachineCode, occupancy, read_cubin
from actprune_common.errors import InputError, check_one_of
from actprune_kernels.backends import interpreted
from actprune_kernels.launch import OPTIONS


@dataclass(frozen=True)
class CompiledKernel(MachineCode):
    """One variant for one architecture."""

    kernel: str
    variant: str
    specs: list[str]
    dtype: str
    arch: int
    num_warps: int
    num_stages: int
    shared_bytes: int
    tensor_memory: int
    """Columns, of 512; sm_100 only."""
    occupancy: float


def check_able(arches: Sequence[int]) -> None:
    """Raise InputError where nothing can be compiled here, naming what is missing."""
    if find_spec("triton") is None:
        raise InputError("static: needs the package triton: pip install 'actprune[cuda]'")
    if interpreted():
        raise InputError("TRITON_INTERPRET: interpreted kernels cannot be compiled; unset it")
    for arch in arches:
        check_one_of("--arch", arch, ARCHES)


def compile_all(
    configurations: Iterable[Configuration],
    arches: Sequence[int],
    jobs: int,
    progress: Callable[[int, int], None],
) -> list[CompiledKernel]:
    """A record per variant and architecture, in `jobs` processes.

    progress is called with how many are done, of how many. Raises InputError where nothing can be
    compiled here, and RuntimeError naming the kernel that does not compile.
    """
    check_able(arches)
    found = kernel_variants.variants(configurations)
    wanted = [(variant, arch) for arch in arches for variant in found]
    # a fresh process: one that torch's threads run in must not be forked. Ctrl-C reaches a whole
    # process group; the parent alone answers it.
    ignore = signal.signal, (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(jobs, get_context("spawn"), *ignore) as pool:
        made = {pool.submit(compile_variant, *each): each for each in wanted}
        try:
            for done, future in enumerate(as_completed(made), 1):
                if (problem := future.exception()) is not None:
                    variant, arch = made[future]
                    text = " ".join(str(problem).split())[:300]
                    raise RuntimeError(f"{variant.kernel} for sm_{arch}, {variant.label}: {text}")
                progress(done, len(made))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in made]


def compile_variant(variant: KernelVariant, arch: int) -> CompiledKernel:
    """Compile for sm_`arch`; Triton's cache keeps the result."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {**OPTIONS, "num_warps": variant.num_warps, "num_stages": variant.num_stages}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecation in Triton is no finding about our kernels
        source = ASTSource(*kernel_variants.compile_arguments(variant))
        kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    code, metadata = read_cubin(kernel.asm["cubin"]), kernel.metadata
    tensor_memory = getattr(metadata, "tmem_size", 0) or 0
    resources = metadata.num_warps, code.registers, metadata.shared, tensor_memory
    return CompiledKernel(
        **asdict(code),
        kernel=f"{variant.module.split('.')[1]} {variant.kernel.lstrip('_')}",
        variant=variant.label,
        specs=sorted(variant.specs),
        dtype=variant.dtype,
        arch=arch,
        num_warps=metadata.num_warps,
        num_stages=variant.num_stages,
        shared_bytes=metadata.shared,
        tensor_memory=tensor_memory,
        occupancy=occupancy(arch, *resources),
    )


def spilling(records: Sequence[CompiledKernel]) -> list[CompiledKernel]:
    """The records of variants that spill registers to memory."""
    return [each for each in records if each.spill_store_bytes or each.spill_load_bytes]


def toolchain() -> dict[str, object]:
    """The versions of Triton's assemblers, on which the figures depend."""
    from triton import knobs

    names = ("ptxas", "ptxas_blackwell")  # the latter, for sm_90 or sm_100 on, not in Triton 3.5.0
    tools = {name: getattr(knobs.nvidia, name, None) for name in names}
    return {name: tool and tool.version for name, tool in tools.items()}
