"""The models that are trained: ResMLP in its published sizes, and a tiny one for small images."""

from actprune_bench.models.lean import LeanBlock
from actprune_bench.models.reference import load_reference_state_dict
from actprune_bench.models.resmlp import MODELS, Affine, Block, ResMLP

__all__ = ["MODELS", "Affine", "Block", "LeanBlock", "ResMLP", "load_reference_state_dict"]
