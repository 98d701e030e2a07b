"""How grad_weight's kernel divides its work: measured where a table has it, else by rule.

Tables are YAML files, one per device, in the folder `tuned` beside this module, written there by
`benchmarks/scripts/gpu_tune.py`; none ships yet, as no GPU was at hand. `actprune doctor` says
whether there is one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from actprune_kernels.sizes import Size, power_of_2

FOLDER = Path(__file__).with_name("tuned")
_FILLED = 132  # programs that fill a large GPU: its multiprocessors (an H100 or H200 has 132)


@dataclass(frozen=True)
class Plan:
    """Tile of out_features, kept rows per step, parts per block column, and launch options."""

    block_o: int
    block_k: int
    split: int
    num_warps: int
    num_stages: int


def choose(
    device: torch.device,
    dtype: torch.dtype,
    kept_rows: int,
    out_features: int,
    features: int,
    block: Size,
) -> Plan:
    """The plan for dY (rows, out_features) and columns of `kept_rows` kept rows on average.

    It is the table's where the device has one for this class of shapes, else the rule's.
    """
    table = load(_name(device)) if device.type == "cuda" else {}
    sizes = dtype, kept_rows, out_features, features, block
    return (table.get(shape_class(*sizes)) if table else None) or by_rule(*sizes)


def by_rule(
    dtype: torch.dtype, kept_rows: int, out_features: int, features: int, block: Size
) -> Plan:
    """Large tiles first; smaller steps for wide types; parts until the device is filled."""
    half = dtype.itemsize == 2
    exact = not half and torch.get_float32_matmul_precision() == "highest"
    return _rule(half, exact, kept_rows, out_features, features, block)


@lru_cache(maxsize=1024)
def _rule(
    half: bool, exact: bool, kept_rows: int, out_features: int, features: int, block: Size
) -> Plan:
    # fp32 without tensor cores holds its operands in registers: smaller tiles
    block_o = min(32 if exact else 128, max(16, power_of_2(out_features)))
    block_k = 64 if half else 16 if exact else 32
    if block[1] > 64:
        block_o = min(block_o, 64 if half else 32)
    programs = -(-out_features // block_o) * -(-features // block[1])
    split = 1
    while programs * split < _FILLED and kept_rows // (2 * split) >= 4 * block_k:
        split *= 2
    return Plan(block_o, block_k, split, num_warps=4, num_stages=3)


def search_space(plan: Plan) -> Iterator[Plan]:
    """What tuning tries around the rule: 54 plans at most.

    Half, the same and twice of each tile size (what fits the registers), one warp group or two
    (a wgmma is issued by four warps), pipelines that hide one or two more loads, and more parts.
    """
    tiles = product((plan.block_o // 2, plan.block_o, plan.block_o * 2), (32, 64, 128))
    for (block_o, block_k), warps, split in product(tiles, (4, 8), (1, 2, 4)):
        if 16 <= block_o <= 256:
            stages = 4 if block_k <= 64 else 3
            yield Plan(block_o, block_k, split, warps, stages)


def shape_class(
    dtype: torch.dtype, kept_rows: int, out_features: int, features: int, block: Size
) -> str:
    """The key of a table: sizes rounded up to powers of 2, so that neighbours share a plan."""
    sizes = "x".join(str(power_of_2(size)) for size in (kept_rows, out_features, features))
    return f"{str(dtype).removeprefix('torch.')} {block[0]}x{block[1]} {sizes}"


@lru_cache(maxsize=64)
def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


@lru_cache(maxsize=8)
def load(device: str, folder: Path = FOLDER) -> Mapping[str, Plan]:
    """The plans for a device, by shape class; none where there is no table for it.

    Raises ValueError naming the file where it is not a table of plans.
    """
    path = folder / f"{file_name(device)}.yaml"
    if not path.exists():
        return {}
    import yaml  # only where there is a table: the kernels need torch and numpy alone

    try:
        entries = yaml.safe_load(path.read_text())["plans"]
        return {key: Plan(**entry) for key, entry in entries.items()}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as problem:
        raise ValueError(f"{path}: expected plans by shape class, got {problem}") from None


def dump(device: str, plans: Mapping[str, Plan], environment: Mapping[str, Any]) -> str:
    """A table as text, for FOLDER."""
    import yaml

    entries = {key: asdict(plan) for key, plan in sorted(plans.items())}
    return yaml.safe_dump(
        {"device": device, "environment": dict(environment), "plans": entries}, sort_keys=False
    )


def file_name(device: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in device.lower())
