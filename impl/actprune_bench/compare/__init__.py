"""The main job: formats compared as kernels and as training runs, into one folder."""

from actprune_bench.compare.config import S24, CompareConfig, ShapeConfig
from actprune_bench.compare.run import CONFIG, PAGE, RESULTS, measure, open_folder, run_compare

__all__ = [
    "CONFIG",
    "PAGE",
    "RESULTS",
    "S24",
    "CompareConfig",
    "ShapeConfig",
    "measure",
    "open_folder",
    "run_compare",
]
