"""Why a module cannot keep its input compressed."""

from collections.abc import Iterator

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from actprune.formats.base import DTYPES
from actprune.layers.linear import Pruned
from actprune.layers.sharding import own_class


def refusal(module: nn.Module) -> str | None:
    """Return why convert leaves a module as it is; None where it does not."""
    kind = own_class(module)
    weight = getattr(module, "weight", None)
    if kind is nn.Linear and weight is not None and weight.dtype not in DTYPES:
        return f"its weight is of {weight.dtype}"
    if kind is nn.Linear or issubclass(kind, Pruned):
        return None
    if kind is nn.MultiheadAttention:
        assert isinstance(module, nn.MultiheadAttention)
        if not module._qkv_same_embed_dim:
            return "keys or values have another width than queries (kdim, vdim)"
        added = module.bias_k is not None or module.add_zero_attn
        return "it adds a key of its own (add_bias_kv, add_zero_attn)" if added else None
    if any(map(is_lazy, module.parameters(recurse=False))):
        return f"its sizes are not known before its first batch ({kind.__name__})"
    if is_parametrized(module):
        return f"parametrized ({kind.__name__}): its weight is computed anew at each call"
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        return f"a subclass ({kind.__name__}), whose forward may be its own"
    if isinstance(module, nn.RNNBase):
        return f"{kind.__name__} multiplies over all its steps in one operator"
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "an embedding keeps indices alone"
    return f"no nn.Linear ({kind.__name__})"


def multiplying(model: nn.Module) -> Iterator[tuple[str, str | None]]:
    """Yield each module of `model` that has matrices of its own, by name, with its refusal."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        why = refusal(module)
        matrices = any(is_lazy(p) or p.dim() > 1 for p in module.parameters(recurse=False))
        if why is None or matrices or isinstance(module, nn.Linear):
            yield name, why
        if isinstance(module, nn.MultiheadAttention):
            inside = (f"{name}.",)
        elif is_parametrized(module):
            inside = (f"{name}.parametrizations.",)
