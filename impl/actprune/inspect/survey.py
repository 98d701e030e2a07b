"""What each layer of a model keeps, or why it is left alone."""

from torch import nn

from actprune.layers.convert import pruned
from actprune.layers.refusal import multiplying


def survey(model: nn.Module) -> dict[str, str]:
    """Say what each module that has matrices of its own keeps, or why it is left alone.

    Args:
        model: any, converted or not.

    Returns:
        By the module's name a spec, `dense` where it could be converted, or "left alone: " and the
        reason.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2))
        >>> actprune.survey(model)
        {'0': 'left alone: no nn.Linear (Conv2d)', '2': 'dense'}
    """
    layers = pruned(model)
    found = {}
    for name, why in multiplying(model):
        kept = layers[name].spec if name in layers else "dense"
        found[name] = kept if why is None else f"left alone: {why}"
    return found
