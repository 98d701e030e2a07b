"""The models that are trained: ResMLP in its published sizes, and a tiny one for small images."""

from actprune.models.reference import load_reference_state_dict
from actprune.models.resmlp import MODELS, Affine, Block, Mlp, PatchEmbed, ResMLP, Variant

__all__ = [
    "MODELS",
    "Affine",
    "Block",
    "Mlp",
    "PatchEmbed",
    "ResMLP",
    "Variant",
    "load_reference_state_dict",
]
