"""Layers in which what a linear keeps compressed serves every other gradient too."""

from torch import nn

from actprune.layers.sharding import Model, check_unsharded
from actprune.strategies.base import put_back, replace
from actprune.strategies.lean.forms import FORMS, LeanForm
from actprune.strategies.lean.forward import LeanForward, forward_of
from actprune.strategies.lean.search import Search, gelus_of
from actprune_common.errors import InputError
from actprune_kernels.gelu import BITS


def lean(model: Model, *, gelu: int | None = 2) -> Model:
    """Make every chain of a model's layers keep what its linears keep, and little else.

    Chains are linear-GELU-linear and affine-linear-scale, and ResMLP's blocks; `chains` says which
    are recognised. What their linears keep is as `actprune.convert` made them: a plain one keeps a
    copy of its input. A call that is not what was traced runs a module's own forward
    (docs/your-model.md). Parameters, their names and the state_dict stay.

    Args:
        model: one that is not sharded yet.
        gelu: bits that are kept of GELU's derivative, 2 or 4; None: its input whole.

    Returns:
        The same model. `unlean` makes it what it was.

    Raises:
        InputError: other bits, a sharded model, or, with the reasons, no chain in it.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
        >>> out = actprune.lean(model)(torch.randn(3, 4))
        >>> out.grad_fn.name()
        'ChainBackward'
    """
    if gelu is not None and gelu not in BITS:
        raise InputError(f"gelu: expected 2 or 4 bits, or None, got {gelu!r}")
    unlean(model)
    forms = [module for module in model.modules() if type(module) in FORMS]
    found = Search(gelu)
    found.look(model)
    if not forms and not found.forwards:
        reasons = "; ".join(f"{name}: {word}" for name, word in list(found.words.items())[:4])
        raise InputError(
            "lean: expected ResMLP blocks, linear-GELU-linear or affine-linear-scale, found none "
            f"({reasons or 'no linear'})"
        )
    for module in forms:
        module.__class__ = FORMS[type(module)]
        assert isinstance(module, LeanForm)
        module.gelu = gelu
    for forward in found.forwards:
        replace(forward.module, forward, innermost=True)
    return model


def chains(model: nn.Module) -> dict[str, str]:
    """Say of each linear which chain lean makes of it, or why none.

    Linears in ResMLP blocks are left out, but where hooks or a replaced forward keep the block from
    being lean.

    Args:
        model: any, which stays as it is.

    Returns:
        A text by the linear's name, such as linear-GELU-linear.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
        >>> actprune.chains(model)
        {'0': 'linear-GELU-linear', '2': 'linear-GELU-linear'}
    """
    found = Search(gelu=None)
    found.look(model)
    return found.words


def around_gelus(model: nn.Module) -> set[str]:
    """Return the names of the linears around the GELUs of which a lean model keeps bits."""
    found = set[str]()
    for name, module in model.named_modules():
        within = set(module.around_gelu) if isinstance(module, LeanForm) else set[str]()
        if forward := forward_of(module):
            within |= gelus_of(forward)
        found |= {f"{name}.{linear}".lstrip(".") for linear in within}
    return found


def unlean(model: Model) -> Model:
    """Turn everything lean in a model back into what it was; what convert made stays.

    Args:
        model: any that is not sharded.

    Returns:
        The same model.

    Raises:
        InputError: it is sharded.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
        >>> out = actprune.unlean(actprune.lean(model))(torch.randn(3, 4))
        >>> out.grad_fn.name()
        'AddmmBackward0'
    """
    check_unsharded(model.named_modules())
    for module in model.modules():
        if isinstance(module, LeanForm):
            del module.gelu
            module.__class__ = module.plain  # type: ignore[assignment]
        put_back(module, LeanForward)
    return model
