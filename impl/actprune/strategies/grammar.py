"""What is done to a model to keep less: formats for its linears, and strategies beside them.

A format for all, `bsr:block=1x32,sparsity=0.9`, or one for each glob on layer names, of which the
first that matches decides: `*.attn=>csr:sparsity=0.5;*=>bsr:block=1x32,sparsity=0.9`. Strategies
stand before it, each followed by +: `lean+bsr:block=1x32,sparsity=0.9`, `bf16+checkpoint+dense`.
With an @ a rule is for everything that autograd saves for one kind of function (saved.operators),
in the modules that a glob names: `@*=>codes:bits=4`, `*.attn@linear=>dense;@*=>codes:bits=8`.
checkpoint and selective take a glob that says which modules are the blocks, where the model does
not say it itself: `checkpoint(encoder.*)+dense`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actprune.formats import Dense, Format
from actprune.layers.convert import convert, revert
from actprune.layers.sharding import Model, check_unsharded
from actprune.saved.rules import ANY, AT, NEXT, THEN, Rule, parse_rules, read_rules, rule_of
from actprune.strategies import STRATEGIES
from actprune.strategies.base import Strategy, put_back
from actprune.strategies.saving import Saving, Within, check_modules, save
from actprune_common.errors import InputError

RECOMMENDED = "@*=>codes:bits=4"
"""Everything that autograd saves in 4 bits, but for what a few passes over memory make again."""
_PLUS = "+"


@dataclass(frozen=True)
class Plan:
    """A format for each glob on layer names, in order, and strategies in that of STRATEGIES.

    Example:
        >>> made = actprune.read("lean+*.fc1=>dense;*=>csr")
        >>> [strategy.name for strategy in made.strategies], [glob for glob, _ in made.rules]
        (['lean'], ['*.fc1', '*'])
    """

    rules: tuple[tuple[str, Format], ...]
    strategies: tuple[Strategy, ...] = ()

    @property
    def spec(self) -> str:
        """The plan as text; `read` reads it back."""
        globs = [glob for glob, _ in self.rules]
        rules = [f"{glob}{THEN}{format.spec}" for glob, format in self.rules]
        text = self.rules[0][1].spec if globs == [ANY] else NEXT.join(rules)
        return _PLUS.join([*(strategy.spec for strategy in self.strategies), text])

    @property
    def layers(self) -> dict[str, Format]:
        """The formats of linear layers by glob, as `convert` takes them."""
        return {glob: format for glob, format in self.rules if AT not in glob}

    @property
    def saved(self) -> list[Rule]:
        """The rules on everything that autograd saves."""
        return [rule_of(target, format) for target, format in self.rules if AT in target]

    @property
    def hides(self) -> bool:
        """Whether it keeps tensors that autograd does not hold (saved_bytes' `hidden`)."""
        hides = bool(self.saved) or any(strategy.hides for strategy in self.strategies)
        return hides and not self.compiles

    @property
    def compiles(self) -> bool:
        """Whether the model is compiled, so that its graphs carry the rules with @ out."""
        return any(strategy.compiles for strategy in self.strategies)

    @property
    def format(self) -> Format | None:
        """The one format that all of this is, which kernels can be measured with; else None."""
        alone = len(self.rules) == 1 and self.rules[0][0] == ANY and not self.strategies
        return self.rules[0][1] if alone else None


def read(spec: str) -> Plan:
    """Return the plan that a spec describes.

    Args:
        spec: a format, a format for each glob, or either behind strategies.

    Returns:
        Its rules and strategies; `Plan.spec` is the text in its one canonical form.

    Raises:
        InputError: a format, a strategy or a glob is wrong; the text names which, and the known.

    Example:
        >>> actprune.read("checkpoint + bf16 + csr").spec
        'bf16+checkpoint+csr:sparsity=0.9'
    """
    if isinstance(spec, str) and spec.strip() in STRATEGIES:
        raise InputError(f"spec: expected a format after {spec!r}, such as {spec.strip()}+dense")
    strategies, plus, text = spec.rpartition(_PLUS) if isinstance(spec, str) else ("", "", spec)
    return Plan(read_rules(text), _strategies(strategies) if plus else ())


def plan(formats: Mapping[str, str | Format], strategies: str = "") -> Plan:
    """Return the plan of a mapping of globs to specs, as `actprune.convert` takes it.

    Raises InputError on a glob that the text of a plan cannot hold.
    """
    return Plan(parse_rules(formats), _strategies(strategies) if strategies else ())


def apply(
    model: Model,
    spec: str = RECOMMENDED,
    include: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
) -> Model:
    """Apply a spec to a model in place, replacing what an earlier one made of it.

    A `model.compile()` of your own comes after it, and `weighted` takes `actprune.weigh` for every
    batch, as `actprune train` does it.

    Args:
        model: any model; `checkpoint` and `selective` want one with blocks, `lean` with chains.
        spec: what `read` reads.
        include: globs on the names of layers that may take a format.
        exclude: globs on the names of layers that take none.

    Returns:
        The same model. `undo` makes it what it was.

    Raises:
        InputError: a spec or glob is wrong, the model has not what a strategy needs, or it is
            sharded already.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
        >>> list(actprune.pruned(actprune.apply(model, "bf16+lean+csr:sparsity=0.5")))
        ['0', '2']
        >>> actprune.pruned(actprune.undo(model))
        {}
    """
    chosen = read(spec)
    for strategy in chosen.strategies:
        strategy.check([format for _, format in chosen.rules], chosen.spec)
    check_modules(model, chosen.saved)
    undo(model)
    if any(not isinstance(format, Dense) for format in chosen.layers.values()):
        convert(model, chosen.layers, include, exclude)
    if chosen.saved and not chosen.compiles:
        save(model, chosen.saved)
    for strategy in reversed(chosen.strategies):
        strategy.apply(model, chosen.saved)
    return model


def undo(model: Model) -> Model:
    """Turn every block and layer of a model back into the plain one that it was.

    Args:
        model: one to which `apply`, `convert` or `lean` was applied, or any other.

    Returns:
        The same model.

    Raises:
        InputError: it is sharded, or a layer's class was exchanged since.

    Example:
        >>> model = actprune.convert(nn.Linear(4, 2), "csr")
        >>> actprune.undo(model)
        Linear(in_features=4, out_features=2, bias=True)
    """
    check_unsharded(model.named_modules())
    for module in model.modules():
        put_back(module, Saving)
        put_back(module, Within)
    for strategy in STRATEGIES.values():
        strategy.undo(model)
    return revert(model)


def _strategies(text: str) -> tuple[Strategy, ...]:
    """The strategies that stand before a format, in the order of STRATEGIES. Raises InputError."""
    found: dict[str, Strategy] = {}
    for part in text.split(_PLUS):
        name, opened, argument = part.strip().partition("(")
        if name not in STRATEGIES or (opened and not argument.endswith(")")):
            known = ", ".join(STRATEGIES)
            got = part.strip() if name in STRATEGIES else name
            raise InputError(f"spec: expected a strategy of {known} before '+', got {got!r}")
        if name in found:
            raise InputError(f"spec: strategy {name!r} is given twice in {text!r}")
        strategy = STRATEGIES[name]
        found[name] = strategy.given(argument[:-1]) if opened else strategy
    if sum(strategy.of_blocks for strategy in found.values()) > 1:
        known = ", ".join(name for name, strategy in STRATEGIES.items() if strategy.of_blocks)
        raise InputError(f"spec: expected one of {known}, got {text!r}")
    return tuple(found[name] for name in STRATEGIES if name in found)
