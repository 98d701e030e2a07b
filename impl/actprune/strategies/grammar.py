"""What is done to a model to keep less: formats for its linears, and a strategy beside them.

A format for all, `bsr:block=1x32,sparsity=0.9`, or one for each glob on layer names, of which the
first that matches decides: `*.attn=>csr:sparsity=0.5;*=>bsr:block=1x32,sparsity=0.9`. A strategy
stands before it and is joined by +: `lean+bsr:block=1x32,sparsity=0.9`, `bf16+checkpoint+dense`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from actprune.formats import Dense, Format, parse
from actprune.layers.convert import convert, revert
from actprune.layers.sharding import check_unsharded
from actprune.strategies.lean import lean, unlean
from actprune.strategies.wrappers import WRAPPERS, unwrap, wrap
from actprune_bench.models.resmlp import Block
from actprune_common.errors import InputError

_LEAN = {"lean": 2, "lean-4bit": 4, "lean-exact": None}
BLOCKS = ("checkpoint", "selective", *_LEAN)
"""Of which a plan has one at most. checkpoint: every ResMLP block is computed again in the backward
pass; selective: the same, but for its products, whose outputs are kept; lean: actprune.lean;
lean-4bit and lean-exact: the same, with 4 bits of GELU's derivative and with its input whole."""
COMPILE, WEIGHTED = "compile", "weighted"
STRATEGIES = (COMPILE, WEIGHTED, *WRAPPERS, *BLOCKS)
"""compile: torch.compile of the whole model; weighted: training weighs the selection of an image's
rows by its last error, which changes no model (actprune.training.importance); bf16: the forward
pass under autocast; offload: what autograd saves goes to host memory."""
Model = TypeVar("Model", bound=nn.Module)
_ALL, _THEN, _NEXT = "*", "=>", ";"


@dataclass(frozen=True)
class Plan:
    """A format for each glob on layer names, in order, and strategies, joined by +."""

    rules: tuple[tuple[str, Format], ...]
    strategy: str = ""

    @property
    def spec(self) -> str:
        """As text; `read` reads it back."""
        globs = [glob for glob, _ in self.rules]
        if globs == [_ALL]:
            text = self.rules[0][1].spec
        else:
            text = _NEXT.join(f"{glob}{_THEN}{format.spec}" for glob, format in self.rules)
        return f"{self.strategy}+{text}" if self.strategy else text

    @property
    def hides(self) -> bool:
        """Whether it keeps tensors that autograd does not hold (saved_bytes' `hidden`)."""
        strategies = self.strategy.split("+")
        return "selective" in strategies and COMPILE not in strategies

    @property
    def format(self) -> Format | None:
        """The one format that all of this is, which kernels can be measured with; else None."""
        alone = len(self.rules) == 1 and self.rules[0][0] == _ALL and not self.strategy
        return self.rules[0][1] if alone else None


def read(spec: str) -> Plan:
    """The plan that a spec describes. Raises InputError naming what is wrong in it."""
    if isinstance(spec, str) and spec.strip() in STRATEGIES:
        raise InputError(f"spec: expected a format after {spec!r}, such as {spec.strip()}+dense")
    strategy, plus, text = spec.rpartition("+") if isinstance(spec, str) else ("", "", spec)
    return Plan(_rules(text), _strategy(strategy) if plus else "")


def plan(formats: Mapping[str, str | Format], strategy: str = "") -> Plan:
    """The plan of a mapping of globs to specs, as `actprune.convert` takes it.

    Raises InputError on a glob that the text of a plan cannot hold.
    """
    for glob in formats:
        if not re.fullmatch(r"[^\s;+=>]+", glob):
            raise InputError(
                f"spec: expected a glob without spaces and ; + = > before '=>', got {glob!r}"
            )
    rules = tuple((glob, parse(text)) for glob, text in formats.items())
    return Plan(rules, _strategy(strategy) if strategy else "")


def apply(
    model: Model, spec: str, include: str | Iterable[str] = "*", exclude: str | Iterable[str] = ()
) -> Model:
    """Make `model`, in place, what a spec says, in place of what an earlier one said; returns it.

    A `model.compile()` of your own comes after it, and `weighted` takes `actprune.weigh` for every
    batch, as `actprune train` does it. Raises as convert and lean do.
    """
    chosen = read(spec)
    strategies = chosen.strategy.split("+")
    if WEIGHTED in strategies:
        _check_weighted(chosen)
    undo(model)
    if any(not isinstance(format, Dense) for _, format in chosen.rules):
        convert(model, dict(chosen.rules), include, exclude)
    if "checkpoint" in strategies:
        checkpointed(model)
    if "selective" in strategies:
        checkpointed(model, CheckpointedButProducts)
    for word in _LEAN.keys() & strategies:
        lean(model, gelu=_LEAN[word])
    wrap(model, [name for name in strategies if name in WRAPPERS])
    if COMPILE in strategies:
        model.compile(dynamic=False)  # one batch size in training; another is compiled anew
    return model


def _check_weighted(chosen: Plan) -> None:
    """Raises InputError unless what selects draws: weights would bias the largest."""
    selecting = [getattr(format, "select", None) for _, format in chosen.rules]
    if "priority" not in selecting or "topk" in selecting:
        raise InputError(f"weighted: expected formats with select=priority, got {chosen.spec!r}")


def _strategy(text: str) -> str:
    """Strategies in the order of STRATEGIES. Raises InputError."""
    found = [name.strip() for name in text.split("+")]
    for name in found:
        if name not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise InputError(f"spec: expected a strategy of {known} before '+', got {name!r}")
        if found.count(name) > 1:
            raise InputError(f"spec: strategy {name!r} is given twice in {text!r}")
    if sum(name in BLOCKS for name in found) > 1:
        raise InputError(f"spec: expected one of {', '.join(BLOCKS)}, got {text!r}")
    return "+".join(sorted(found, key=STRATEGIES.index))


def _rules(text: str) -> tuple[tuple[str, Format], ...]:
    """What the formats of a spec say. Raises InputError."""
    if not isinstance(text, str) or (_THEN not in text and _NEXT not in text):
        return ((_ALL, parse(text)),)
    formats: dict[str, str] = {}
    for rule in text.split(_NEXT):
        glob, then, format = (part.strip() for part in rule.partition(_THEN))
        if not then:
            raise InputError(f"spec: expected GLOB=>FORMAT between ';', got {rule!r} in {text!r}")
        if glob in formats:
            raise InputError(f"spec: glob {glob!r} is given twice in {text!r}")
        formats[glob] = format
    return plan(formats).rules


class CheckpointedBlock(Block):
    """A Block that keeps its input alone and is computed again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to the same shape."""
        if not self.training:
            return super().forward(x)
        if torch.is_grad_enabled() and not x.requires_grad:
            if not any(parameter.requires_grad for parameter in self.parameters()):
                return super().forward(x)
            # behind a frozen stem: reentrant checkpoints give parameters a gradient only where an
            # input has one
            x = x.detach().requires_grad_()
        # reentrant: the other kind hides its inputs from the hooks that count saved bytes, and
        # compresses what it then computes again
        out: Tensor = checkpoint(super().forward, x, use_reentrant=True)
        return out


class CheckpointedButProducts(Block):
    """A Block that keeps its input and the outputs of its products; the rest is computed again.

    Of a pruned layer it keeps the dense output, so that pruning saves it nothing between forward
    and backward.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to the same shape."""
        if not self.training:
            return super().forward(x)
        contexts = partial(create_selective_checkpoint_contexts, _keep_products)
        out: Tensor = checkpoint(super().forward, x, use_reentrant=False, context_fn=contexts)
        return out


_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}


def _keep_products(
    context: object, op: object, *args: object, **kwargs: object
) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


def undo(model: Model) -> Model:
    """Turn every block and linear of `model` back into the plain one that it was; returns it."""
    check_unsharded(model.named_modules())
    model._compiled_call_impl = None
    unwrap(model)
    for module in model.modules():
        if isinstance(module, CheckpointedBlock | CheckpointedButProducts):
            module.__class__ = Block  # type: ignore[assignment]
    unlean(model)
    return revert(model)


def checkpointed(model: Model, kind: type[Block] = CheckpointedBlock) -> Model:
    """Make every ResMLP block of `model` a `kind`, in place. Raises InputError without one."""
    check_unsharded(model.named_modules())
    found = [module for module in model.modules() if type(module) is Block]
    if not found:
        raise InputError("checkpoint: expected a model with ResMLP blocks, got one without")
    for block in found:
        block.__class__ = kind
    return model
