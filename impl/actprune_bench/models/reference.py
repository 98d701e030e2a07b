"""Published ResMLP weights: state_dicts of facebookresearch/deit and of timm."""

from collections.abc import Mapping

from torch import Tensor

from actprune_bench.models.resmlp import ResMLP
from actprune_common.errors import InputError, expected

_TIMM_TO_DEIT = {
    "stem": "patch_embed",
    "linear_tokens": "attn",
    "mlp_channels": "mlp",
    "ls1": "gamma_1",
    "ls2": "gamma_2",
}


def load_reference_state_dict(model: ResMLP, state: Mapping[str, Tensor]) -> None:
    """Load published weights into `model`, converted or not.

    deit's names are ours: `patch_embed.proj.weight`, `blocks.0.attn.weight`, `blocks.0.gamma_1`,
    `blocks.0.mlp.fc1.weight`, `blocks.0.norm1.alpha`, `norm.beta`, `head.bias`. timm's `stem`,
    `linear_tokens`, `mlp_channels`, `ls1` and `ls2` are renamed, and its affine parameters of shape
    (1, 1, dim) flattened. Raises InputError, with the model untouched, where names are missing or
    unknown or a shape differs.
    """
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError("state: expected a mapping of names to tensors (a state_dict)")
    own = model.state_dict()
    renamed = {
        ".".join(_TIMM_TO_DEIT.get(part, part) for part in name.split(".")): _flat_affine(tensor)
        for name, tensor in state.items()
    }
    _check_names("is missing", set(own) - set(renamed))
    _check_names("has unknown", set(renamed) - set(own))
    for name, tensor in renamed.items():
        if tensor.shape != own[name].shape:
            shape = f"shape {tuple(own[name].shape)}"
            raise expected(f"state: {name}", shape, tuple(tensor.shape))
    model.load_state_dict(renamed)


def _flat_affine(tensor: Tensor) -> Tensor:
    return tensor.flatten() if tensor.dim() == 3 and tensor.shape[:2] == (1, 1) else tensor


def _check_names(what: str, names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise InputError(f"state: {what} {shown}{more}")
