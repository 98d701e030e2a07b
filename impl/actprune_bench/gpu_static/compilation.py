"""GPU kernels compiled ahead of time, for a GPU that need not be there, and what that shows.

The figures are those of one version of Triton: they repeat to the instruction.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from actprune_bench.gpu_static.kernel_variants import (
    Configuration,
    KernelVariant,
    compile_arguments,
    variants,
)
from actprune_bench.gpu_static.sass import ARCHES, MachineCode, occupancy, read_cubin
from actprune_common.errors import InputError
from actprune_kernels.backends import interpreted

Record = dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    """One variant for one architecture."""

    code: MachineCode
    num_warps: int
    shared_bytes: int
    tensor_memory: int
    """Columns, of 512; sm_100 only."""


def check_able(arches: Sequence[int]) -> None:
    """Raise InputError where nothing can be compiled here, naming what is missing."""
    if find_spec("triton") is None:
        raise InputError("static: needs the package triton: pip install 'actprune[cuda]'")
    if interpreted():
        raise InputError("TRITON_INTERPRET: interpreted kernels cannot be compiled; unset it")
    for arch in arches:
        if arch not in ARCHES:
            known = ", ".join(map(str, ARCHES))
            raise InputError(f"--arch: expected one of {known}, got {arch}")


def compile_all(
    configurations: Iterable[Configuration],
    arches: Sequence[int],
    *,
    jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """A flat record per variant and architecture, in `jobs` processes.

    progress is called with how many are done, of how many. Raises InputError where nothing can be
    compiled here, and RuntimeError naming the kernel that does not compile.
    """
    check_able(arches)
    found = variants(configurations)
    wanted = [(variant, arch) for arch in arches for variant in found]
    # a fresh process: one that torch's threads run in must not be forked
    with ProcessPoolExecutor(jobs, get_context("spawn"), _leave_interrupts) as pool:
        made = {pool.submit(compile_variant, *each): each for each in wanted}
        try:
            for done, future in enumerate(as_completed(made), 1):
                if future.exception() is not None:
                    raise _named(*made[future], future)
                if progress is not None:
                    progress(done, len(made))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [_record(*each, future.result()) for future, each in made.items()]


def _leave_interrupts() -> None:
    """Ctrl-C reaches a whole process group; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def compile_variant(variant: KernelVariant, arch: int) -> Compiled:
    """Compile for sm_`arch`; Triton's cache keeps the result."""
    # what every Triton up to 3.9 does where it is not told otherwise
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecation in Triton is no finding about our kernels
        source = ASTSource(*compile_arguments(variant))
        kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    metadata = kernel.metadata
    return Compiled(
        read_cubin(kernel.asm["cubin"]),
        metadata.num_warps,
        metadata.shared,
        getattr(metadata, "tmem_size", 0) or 0,
    )


def spilling(records: Sequence[Record]) -> list[Record]:
    """The records of variants that spill registers to memory."""
    return [each for each in records if each["spill_store_bytes"] or each["spill_load_bytes"]]


def write_records(path: Path, records: Sequence[Record], environment: dict[str, object]) -> None:
    """Write {"schema", "environment", "records"} as JSON, whole or not at all."""
    from actprune_common.files import write_json

    write_json(path, {"schema": 1, "environment": environment, "records": list(records)})


def toolchain() -> dict[str, object]:
    """The versions of Triton's assemblers, on which the figures depend."""
    from triton import knobs

    names = ("ptxas", "ptxas_blackwell")  # the latter, for sm_90 or sm_100 on, since Triton 3.5
    tools = {name: getattr(knobs.nvidia, name, None) for name in names}
    return {name: tool and tool.version for name, tool in tools.items()}


def _record(variant: KernelVariant, arch: int, compiled: Compiled) -> Record:
    code = compiled.code
    return {
        "kernel": f"{variant.module.split('.')[1]} {variant.kernel.lstrip('_')}",
        "variant": variant.label,
        "specs": sorted(variant.specs),
        "dtype": variant.dtype,
        "arch": arch,
        "num_warps": compiled.num_warps,
        "num_stages": variant.num_stages,
        "shared_bytes": compiled.shared_bytes,
        "tensor_memory": compiled.tensor_memory,
        "occupancy": occupancy(
            arch,
            compiled.num_warps,
            code.registers,
            compiled.shared_bytes,
            compiled.tensor_memory,
        ),
        **code.figures(),
    }


def _named(variant: KernelVariant, arch: int, future: "Future[Compiled]") -> RuntimeError:
    text = " ".join(str(future.exception()).split())[:300]
    return RuntimeError(f"{variant.kernel} for sm_{arch}, {variant.label}: {text}")
