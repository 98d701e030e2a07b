"""Prune the linear layers of a model in place, and undo it."""

import zlib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from actprune.formats import Dense, Format, parse
from actprune.layers.attention import PrunedMultiheadAttention
from actprune.layers.linear import Pruned, PrunedLinear, placed
from actprune.layers.refusal import multiplying, refusal
from actprune.layers.sharding import Model, check_unsharded, own_class
from actprune_common.errors import InputError, check_at_least, expected

_STATE = ("spec", "draw", "trained", "sample_importance")
_PRUNED: dict[type[nn.Module], type[Pruned]] = {
    nn.Linear: PrunedLinear,
    nn.MultiheadAttention: PrunedMultiheadAttention,
}
_PLAIN = {pruned: plain for plain, pruned in _PRUNED.items()}


def convert(
    model: Model,
    spec: str | Format | Mapping[str, str | Format],
    include: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
) -> Model:
    """Make the linear layers of a model keep their inputs compressed, in place.

    An nn.MultiheadAttention counts as one layer, of which the projections keep theirs. Parameters,
    their names and the state_dict stay as they were, and so do hooks. A layer that is pruned
    already takes the new spec; `dense` makes it the plain layer again. Subclasses are left alone,
    as their forward may be their own: `survey` says which, and why. Where an error is raised, the
    model is untouched.

    Args:
        model: any; a layer within a unit of fully_shard can be converted, a unit itself cannot.
        spec: one spec for all, or a mapping of glob to spec: the first glob that matches a layer's
            name decides.
        include: globs on module names (`blocks.*.mlp.fc?`) of layers to convert.
        exclude: globs on the names of those to leave.

    Returns:
        The same model.

    Raises:
        InputError: a spec is wrong or has strategies, a mapping is empty, a glob matches no layer,
            no layer is left, or a layer is itself a unit of fully_shard.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        >>> model = actprune.convert(model, "bsr:block=1x32,sparsity=0.5", exclude="2")
        >>> model[0]
        PrunedLinear(in_features=64, out_features=64, bias=True, spec='bsr:block=1x32,sparsity=0.5')
    """
    rules = dict(spec) if isinstance(spec, Mapping) else {"*": spec}
    if not rules:
        raise InputError("spec: expected at least one glob in the mapping, got none")
    for text in rules.values():
        if isinstance(text, str) and ("+" in text or "=>" in text):
            raise InputError(
                f"spec: expected a format, or a mapping of globs to formats, got {text!r}; "
                "actprune.apply takes strategies and plans"
            )
    formats = {glob: parse(text) for glob, text in rules.items()}
    linears = {name: m for name, m in model.named_modules() if refusal(m) is None}
    wanted = _globs("include", include)
    unwanted = _globs("exclude", exclude)
    for argument, globs in (("include", wanted), ("exclude", unwanted), ("spec", list(formats))):
        _check_globs(argument, globs, linears, model)
    chosen = {
        name: next(format for glob, format in formats.items() if fnmatchcase(name, glob))
        for name in linears
        if _matches(name, wanted) and not _matches(name, unwanted) and _matches(name, formats)
    }
    if not chosen:
        raise InputError("include: no nn.Linear is left to convert after exclude and spec")
    check_unsharded((name, linears[name]) for name in chosen)
    for name, format in chosen.items():
        _prune(linears[name], name, format)
    return model


def revert(model: Model) -> Model:
    """Turn every pruned layer of a model back into the layer that it was.

    Args:
        model: any; untouched where an error is raised.

    Returns:
        The same model.

    Raises:
        InputError: a layer's class was exchanged since, or it is a unit of fully_shard.

    Example:
        >>> actprune.revert(actprune.convert(nn.Linear(4, 2), "csr"))
        Linear(in_features=4, out_features=2, bias=True)
    """
    layers = pruned(model)
    check_unsharded(layers.items())
    for name, module in layers.items():
        if own_class(module) not in _PLAIN:
            raise InputError(
                f"model: {name or 'it'} is a {type(module).__name__} since it was converted; undo "
                "that first"
            )
    for module in layers.values():
        _restore(module)
    return model


def pruned(model: nn.Module) -> dict[str, Pruned]:
    """Return the pruned layers of a model by name.

    Args:
        model: any.

    Returns:
        Each layer, with its `spec`.

    Example:
        >>> model = actprune.convert(nn.Sequential(nn.Linear(4, 2)), "csr")
        >>> {name: layer.spec for name, layer in actprune.pruned(model).items()}
        {'0': 'csr:sparsity=0.9'}
    """
    return {name: m for name, m in model.named_modules() if isinstance(m, Pruned)}


def weigh(model: nn.Module, weights: torch.Tensor | None) -> None:
    """Say what each sample of the next batches is worth to the selections of a model's layers.

    A layer's rows are those of the samples in their order, as they are where the batch is the first
    dimension. Random selections (select=priority) stay unbiased whatever the weights; the closer
    these are to the norms of the samples' gradients, the less noise they add.

    Args:
        model: a converted one.
        weights: (batch,), floating-point, positive; None: all alike.

    Raises:
        InputError: other shapes, dtypes and values, for which it waits for the device.

    Example:
        >>> model = actprune.convert(nn.Linear(8, 2), "csr:sparsity=0.5,select=priority")
        >>> actprune.weigh(model, torch.tensor([1.0, 3.0]))
        >>> out = model(torch.randn(2, 8))
    """
    if weights is not None:
        if weights.dim() != 1 or not weights.is_floating_point():
            what = "floating-point numbers of shape (batch,)"
            raise expected("weights", what, f"{weights.dtype} of shape {tuple(weights.shape)}")
        bad = weights[~((weights > 0) & weights.isfinite())]
        if len(bad):
            raise InputError(f"weights: expected positive, finite numbers, got {float(bad[0])}")
    for layer in pruned(model).values():
        layer.sample_importance = weights


def redraw(model: nn.Module, count: int) -> None:
    """Let the random selections of a model be the `count`-th of those that its inputs may have.

    What is selected follows from the spec's seed, the layer's name, its input and its weight; the
    same of all selects the same. So whoever averages over selections of one batch with one state of
    the weights counts here.

    Args:
        model: a converted one.
        count: 0 or more; 0 at first.

    Raises:
        InputError: the count is below 0.

    Example:
        >>> model = actprune.convert(nn.Linear(8, 2), "csr:select=priority")
        >>> actprune.redraw(model, 1)
    """
    check_at_least("count", count, 0)
    for layer in pruned(model).values():
        if layer.draw is not None:
            layer.draw[2] = count


def is_random(model: nn.Module) -> bool:
    """Return whether any layer of a model selects or rounds at random."""
    return any(layer.draw is not None for layer in pruned(model).values())


def _prune(linear: nn.Module, name: str, format: Format) -> None:
    # The class is swapped, not the module: whoever holds it (a parent, a tied twin, a hook, an
    # optimizer) goes on holding the same object.
    if isinstance(format, Dense):
        _restore(linear)
        return
    if not isinstance(linear, Pruned):
        linear.__class__ = _PRUNED[type(linear)]
    assert isinstance(linear, Pruned)
    first = placed(torch.tensor([format.seed, zlib.crc32(name.encode()), 0]), linear)
    linear.spec, linear.draw = format.spec, first if format.stochastic else None
    linear.trained = any(p.requires_grad for p in linear.parameters() if p.dim() > 1)


def _restore(linear: nn.Module) -> None:
    if isinstance(linear, Pruned):
        linear.__class__ = _PLAIN[type(linear)]  # type: ignore[assignment]
    for attribute in _STATE:
        linear.__dict__.pop(attribute, None)


def _globs(argument: str, globs: str | Iterable[str]) -> list[str]:
    found = [globs] if isinstance(globs, str) else list(globs)
    for glob in found:
        if not isinstance(glob, str):
            raise InputError(f"{argument}: expected globs on module names, got {glob!r}")
    return found


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _check_globs(
    argument: str, globs: Iterable[str], linears: Mapping[str, nn.Module], model: nn.Module
) -> None:
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in linears):
            known = ", ".join(list(linears)[:6]) or "none"
            more = f" and {len(linears) - 6} more" if len(linears) > 6 else ""
            alone = ((name, why) for name, why in multiplying(model) if fnmatchcase(name, glob))
            reason = next((f" ({name} is left alone: {why})" for name, why in alone), "")
            raise InputError(
                f"{argument}: {glob!r} matches no nn.Linear{reason}; the model has {known}{more}"
            )
