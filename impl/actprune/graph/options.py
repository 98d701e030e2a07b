"""What can be done with each value of a joint graph, as the items that the solver takes."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx
from torch.utils.checkpoint import CheckpointPolicy

from actprune.formats import Codes, Format, PruningFormat, parse
from actprune.graph.costs import rates, seconds
from actprune.graph.plan import BITS, KEEP, NARROW, OFFLOAD
from actprune.graph.products import group_for, is_weight_gradient
from actprune.graph.values import Joint, Value, hint, statistics, tensors
from actprune.saved.operators import ACTIVATION, ATTENTION, CONV, LINEAR, NORM, REST
from actprune.saved.stores import FLOATS
from actprune.solver.items import LEVELS, Again, Item, Option
from actprune_kernels import codes
from actprune_kernels.sizes import blocks_along

CANDIDATES = ("codes:bits=8", "codes:bits=4")
DEFAULT = tuple(map(parse, CANDIDATES))
SMALL, STATISTIC = 1024, 16
"""Elements below which a tensor is kept as it is, and how many times fewer than an operator takes
a statistic has."""
ERRORS = {2: 0.45, 4: 0.104, 8: 0.006}
"""‖x̂ - x‖ / ‖x‖ of codes by their bits: of normally distributed values in groups of 128, whose
range is 5.4 standard deviations in the mean, a step of which has a twelfth of its square as the
variance of rounding."""
TYPICAL = (0.0, 0.006, 0.104, 0.45)
"""The relative error of a value by its level."""
SHARE = 0.05
"""‖ĝ - g‖² / ‖g‖² of all gradients where every value that is read has a relative error of 1, as no
batch tells better: of the models in docs/measuring.md 0.05 to 0.9."""
_READERS = {
    NORM: "layer_norm rms_norm batch_norm group_norm",
    ATTENTION: "softmax scaled_dot_product attention",
    CONV: "convolution",
    LINEAR: "mm",
    ACTIVATION: (
        "gelu silu threshold tanh_backward sigmoid_backward hardswish hardsigmoid elu leaky_relu "
        "hardtanh mish softplus glu log_sigmoid"
    ),
}


@dataclass(frozen=True)
class GraphErrors:
    """What errors of a graph's values do to its gradients.

    Args:
        weights: By the name of a value's node, ‖ĝ - g‖² / ‖g‖² for each square of its relative
            error, as the backward pass reads it.
        relative: By the name and the store, the relative error of what is read.
        measured: Of the choices of a plan, by name: what it errs on the batch, ‖ĝ - g‖ / ‖g‖.
        formats: Those that were measured, which values then may take.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    relative: Mapping[tuple[str, str], float] = field(default_factory=dict)
    measured: Callable[[Mapping[str, str]], float] | None = None
    formats: Sequence[Format] = ()


@dataclass(frozen=True)
class Errors:
    """What `profile` measured, by the key of a graph.

    Example:
        >>> actprune.graph.Errors().of("8c1f").weights  # without a batch nothing is known
        {}
    """

    graphs: Mapping[str, GraphErrors] = field(default_factory=dict)

    def of(self, key: str) -> GraphErrors:
        """Return what is known of a graph, perhaps nothing."""
        return self.graphs.get(key, GraphErrors())


Formats = Callable[[Value], Sequence[Format]]
"""Those that a value may take."""


def kinds_of(value: Value) -> tuple[str, ...]:
    """Return what the backward pass reads a value for, as rules name it."""
    return tuple(dict.fromkeys(kind_of(node) for node, _ in value.readers))


def kind_of(node: fx.Node) -> str:
    """Return what an operator of the backward pass reads a tensor for."""
    name = f"{node.target} {node.meta.get('original_aten', '')}"
    found = (kind for kind, parts in _READERS.items() if any(p in name for p in parts.split()))
    kind = next(found, REST)
    return ATTENTION if kind == LINEAR and "bmm" in name else kind


def required(joint: Joint) -> set[fx.Node]:
    """Return the nodes that the model's outputs follow from."""
    found: set[fx.Node] = set()
    stack = list(joint.outputs)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.all_input_nodes
    return found


def items(
    joint: Joint,
    values: Sequence[Value],
    formats: Formats | None,
    errors: GraphErrors,
    *,
    offload: bool = False,
) -> list[Item]:
    """Return an item for each of `values`, which are in order."""
    places = {value: place for place, value in enumerate(values)}
    forward = required(joint)
    read = [value for value in values if value.readers and is_codable(value)]
    share = SHARE / max(1, len(read))
    found = []
    for value in values:
        name = value.node.name
        weight = errors.weights.get(name, share) if value.readers else 0.0
        allowed = DEFAULT if formats is None else formats(value)
        stores = options(value, allowed, weight, errors)
        if offload and stores and value.tensor is not None and value.tensor.device.type == "cuda":
            time = 2 * value.nbytes / rates(value.tensor.device).offloaded
            stores.insert(1, Option(OFFLOAD, 0, time))
        again = None
        if value.again:
            made = value.node.args[0] if statistics(value.node) else value.node
            costs = seconds(made) if value.node in forward else 0.0  # type: ignore[arg-type]
            carried = tuple(weight * error**2 for error in TYPICAL)
            again = Again(tuple(places[part] for part in value.inputs), costs, carried)
        tag = value.node.meta.get("recompute")
        if tag == CheckpointPolicy.MUST_SAVE and stores:
            again = None
        elif again and tag in (CheckpointPolicy.MUST_RECOMPUTE, CheckpointPolicy.PREFER_RECOMPUTE):
            stores = []
        found.append(Item(name, bool(value.readers), tuple(stores), again))
    return found


def is_codable(value: Value) -> bool:
    """Whether few bits may stand for a value: floating, finite, large, no statistic of others."""
    tensor = value.tensor
    if not value.finite:
        return False
    if tensor is None or tensor.dtype not in FLOATS or value.nbytes < SMALL * tensor.element_size():
        return False
    node = value.node
    node = node.args[0] if node.target is operator.getitem else node  # type: ignore[assignment]
    taken = (part for given in node.all_input_nodes for part in tensors(given))
    most = max((hint(part.numel()) for part in taken), default=0)
    return hint(tensor.numel()) * STATISTIC > most


def options(
    value: Value, formats: Sequence[Format], weight: float, errors: GraphErrors
) -> list[Option]:
    """Return how a value can be held."""
    tensor = value.tensor
    if tensor is None:
        return []
    found, whole, time = [Option(KEEP, value.nbytes)], value.nbytes, rates(tensor.device)
    coding = whole / time.coded + whole / time.decoded
    if tensor.dtype == torch.bool and hint(tensor.numel()) >= SMALL:
        found.append(Option(BITS, -(-whole // 8), 2 * coding))
    if narrow_of(value) is not None:
        found.append(Option(NARROW, whole // 4, 2 * whole / time.moved))
    if not is_codable(value):
        return found
    for format in formats:
        if isinstance(format, Codes):
            error = errors.relative.get((value.node.name, format.spec), ERRORS[format.bits])
            group = group_for(tensor, format)
            count = blocks_along(hint(tensor.numel()), group) * codes.width(format.bits, group)
            found.append(Option(format.spec, count, coding, level_of(error), weight * error**2))
        elif isinstance(format, PruningFormat) and _multiplies(value):
            found.append(_pruned(value, format, coding, weight, errors))
    return [option for option in found if option.name == KEEP or option.nbytes < whole]


def level_of(error: float) -> int:
    """Return the place in LEVELS of a relative error; what is above the last counts as the last."""
    return next((place for place, most in enumerate(LEVELS) if error <= most), len(LEVELS) - 1)


def _multiplies(value: Value) -> bool:
    """Whether a value is read for weight gradients alone."""
    readers = value.readers
    return bool(readers) and all(is_weight_gradient(node, view, value) for node, view in readers)


def _pruned(
    value: Value, format: PruningFormat, seconds: float, weight: float, errors: GraphErrors
) -> Option:
    """What a pruning format keeps; by itself, its variance is that of a uniform choice."""
    tensor = value.tensor
    assert tensor is not None
    features = hint(tensor.shape[-1])
    like = torch.empty(0, dtype=tensor.dtype, device="meta")
    kept = format.empty_tensors(like, hint(tensor.numel()) // features, features)
    typical = (format.sparsity / (1 - format.sparsity)) ** 0.5 if format.stochastic else 0.5
    error = errors.relative.get((value.node.name, format.spec), typical)
    size = sum(part.numel() * part.element_size() for part in kept)
    return Option(format.spec, size, seconds, level_of(error), weight * error**2)


def narrow_of(value: Value) -> torch.dtype | None:
    """Return the smallest type for the indices that max-pooling gives, which stay in a plane."""
    tensor, node = value.tensor, value.node
    if tensor is None or tensor.dtype != torch.int64 or len(node.args) != 2 or node.args[1] != 1:
        return None
    pool = node.args[0]
    if "max_pool2d_with_indices" not in str(getattr(pool, "target", "")):
        return None
    given = next(tensors(pool.args[0]))  # type: ignore[union-attr,arg-type]
    sizes = given.shape[-2:]
    fixed = all(isinstance(size, int) for size in sizes)
    return torch.int16 if fixed and sizes[0] * sizes[1] <= 2**15 else None
