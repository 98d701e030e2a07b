"""What a compiled kernel says of itself: registers, spills, instructions, occupancy.

Read from the machine code (SASS) by cuobjdump and nvdisasm, which Triton brings along.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][\w.]*)", re.M)
_USAGE = re.compile(r"\b(REG|STACK|LOCAL):(\d+)")
_TENSOR_CORES = {"hmma": r"[HID]MMA", "wgmma": r"[HIQ]GMMA", "tcgen05": r"UTC[A-Z]MMA"}
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
_LOADS = r"LDG|LDGSTS"


@dataclass(frozen=True)
class MachineCode:
    """Counts are of instructions in the code, not of those executed."""

    registers: int
    """32-bit, per thread."""
    stack_bytes: int
    """Local memory per thread, for spilled registers and arrays."""
    spill_store_bytes: int
    """Per thread, over all stores to local memory; our kernels have no arrays there."""
    spill_load_bytes: int
    local_stores: int
    local_loads: int
    code_bytes: int
    hmma: int
    """Tensor-core instructions of a warp (sm_80 on)."""
    wgmma: int
    """Of a warp group (sm_90)."""
    tcgen05: int
    """Of a block, with tensor memory (sm_100)."""
    global_loads: int
    """LDG, and LDGSTS (cp.async: straight to shared memory)."""
    global_loads_async: int
    global_loads_16_bytes: int
    bulk_loads: int
    """TMA."""
    global_stores: int
    global_stores_16_bytes: int


_REGISTERS, _WARPS, _BLOCKS, _TENSOR_MEMORY = 65536, 64, 32, 512
_SHARED_BYTES = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}
ARCHES = tuple(_SHARED_BYTES)


def read_cubin(cubin: bytes) -> MachineCode:
    """The figures of a cubin that holds one kernel."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        usage = _run(knobs.nvidia.cuobjdump.path, "-res-usage", file.name)
        sass = _run(knobs.nvidia.nvdisasm.path, "-c", file.name)
    return read_text(usage, sass)


def read_text(usage: str, sass: str) -> MachineCode:
    """The figures of one kernel from `cuobjdump -res-usage` and `nvdisasm -c`."""
    used = {name: int(value) for name, value in _USAGE.findall(usage)}
    if "REG" not in used:
        raise ValueError(f"cuobjdump -res-usage: expected REG:..., got {usage.strip()!r}")
    opcodes = Counter(_INSTRUCTION.findall(sass))
    if not opcodes:
        raise ValueError(f"nvdisasm: expected instructions, got {sass.strip()[:80]!r}")
    return MachineCode(
        registers=used["REG"],
        stack_bytes=used.get("STACK", 0) + used.get("LOCAL", 0),
        spill_store_bytes=sum(_width(op) * n for op, n in _of(opcodes, "STL").items()),
        spill_load_bytes=sum(_width(op) * n for op, n in _of(opcodes, "LDL").items()),
        local_stores=_of(opcodes, "STL").total(),
        local_loads=_of(opcodes, "LDL").total(),
        code_bytes=16 * opcodes.total(),  # an instruction is 128 bits since sm_70
        **{name: _of(opcodes, pattern).total() for name, pattern in _TENSOR_CORES.items()},
        global_loads=_of(opcodes, _LOADS).total(),
        global_loads_async=_of(opcodes, "LDGSTS").total(),
        global_loads_16_bytes=_wide(_of(opcodes, _LOADS)),
        bulk_loads=_of(opcodes, r"UTMALDG|UBLKCP").total(),
        global_stores=_of(opcodes, "STG").total(),
        global_stores_16_bytes=_wide(_of(opcodes, "STG")),
    )


def occupancy(
    arch: int, num_warps: int, registers: int, shared_bytes: int, tensor_memory: int = 0
) -> float:
    """The share of a multiprocessor's warps that can be resident, by its resources alone.

    The limits are those of the CUDA C++ Programming Guide, "Compute Capabilities", table of
    technical specifications: 64 warps, 32 blocks and 65,536 registers; shared memory 164 KB (8.0)
    or 228 KB (9.0, 10.0), of which each block costs 1 KB more. Registers go to a warp in units of
    256, to four warps at a time (one per sub-partition); shared memory in units of 128 bytes; and
    on 10.0, 512 columns of tensor memory.
    """
    by_registers = _REGISTERS // _rounded(registers * 32, 256) // 4 * 4 // num_warps
    by_shared = _SHARED_BYTES[arch] // (_rounded(shared_bytes, 128) + 1024)
    blocks = min(_BLOCKS, _WARPS // num_warps, by_registers, by_shared)
    if tensor_memory and arch == 100:
        blocks = min(blocks, _TENSOR_MEMORY // tensor_memory)
    return blocks * num_warps / _WARPS


def _of(opcodes: "Counter[str]", pattern: str) -> "Counter[str]":
    matches = re.compile(pattern).fullmatch
    return Counter({op: n for op, n in opcodes.items() if matches(op.partition(".")[0])})


def _wide(opcodes: "Counter[str]") -> int:
    return sum(n for op, n in opcodes.items() if _width(op) == 16)


def _width(opcode: str) -> int:
    """Bytes that each thread moves."""
    return next((_WIDTHS[part] for part in opcode.split(".") if part in _WIDTHS), 4)


def _rounded(size: int, unit: int) -> int:
    return max(1, -(-size // unit)) * unit


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {done.stderr.strip() or 'failed'}")
    return done.stdout
