"""Rules on what autograd saves, and the forward pass that keeps them."""

import threading
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback as _get_compiler
from torch.utils._pytree import tree_iter

from actprune.formats import Format
from actprune.saved.keeping import Saved
from actprune.saved.recorder import Recorder
from actprune.saved.rules import ANY, Rule, formats_in
from actprune.saved.tensors import owned_by
from actprune.strategies.base import Replacement, replace
from actprune_common.errors import InputError

_RECORDING = threading.local()


def recording() -> Recorder | None:
    """Return the recorder of the forward pass that this thread is in."""
    return getattr(_RECORDING, "recorder", None)


class Saving(Replacement):
    """A model's forward, in which what autograd saves is kept as rules say."""

    def __init__(self, module: nn.Module, formats: Mapping[str, Format]) -> None:
        super().__init__(module)
        self.formats, self.products = formats, False
        self.log: list[Saved] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what this one replaces, dense where nothing is saved and under functorch."""
        # Dynamo takes an error that it traces for a graph break, and runs the forward once more
        if torch.compiler.is_compiling() or _get_compiler() is not None:
            raise RuntimeError(
                "torch.compile: rules on what autograd saves (@) do not reach a compiled graph; "
                "compile without them, or prune linear layers alone (actprune.convert)"
            )
        transformed = torch._C._are_functorch_transforms_active()
        if not torch.is_grad_enabled() or transformed:
            return self.replaced(*args, **kwargs)
        weights = owned_by(self.module)
        inputs = tree_iter((args, kwargs))
        options: dict[str, Any] = {"inputs": inputs, "products": self.products, "log": self.log}
        recorder = Recorder(weights, self.formats, **options)
        around = recording()
        _RECORDING.recorder = recorder
        try:
            with recorder:
                return self.replaced(*args, **kwargs)
        finally:
            _RECORDING.recorder = around


class Within(Replacement):
    """The forward of a module that rules name, whose formats hold until it ends."""

    def __init__(self, module: nn.Module, formats: Mapping[str, Format]) -> None:
        super().__init__(module)
        self.formats = formats

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what this one replaces."""
        recorder = recording()
        if recorder is None:
            return self.replaced(*args, **kwargs)
        keeping = recorder.keeping
        before, keeping.formats = keeping.formats, self.formats
        try:
            return self.replaced(*args, **kwargs)
        finally:
            keeping.formats = before


def check_modules(model: nn.Module, rules: Sequence[Rule]) -> None:
    """Raise InputError where a glob names no module, or training does not call the forward."""
    if rules and (hasattr(model, "training_step") or type(model).forward is nn.Module.forward):
        raise InputError(
            f"model: expected one whose forward training calls, got {type(model).__name__}; apply "
            "rules with @ to the module within that it calls"
        )
    names = [name for name, _ in model.named_modules()]
    for each in rules:
        if each.glob != ANY and not any(fnmatchcase(name, each.glob) for name in names):
            raise InputError(f"spec: {each.glob!r} matches no module of the model")


def save(model: nn.Module, rules: Sequence[Rule]) -> None:
    """Let a model keep what autograd saves as rules say."""
    found = {"": formats_in("", rules)}
    replace(model, Saving(model, found[""]), innermost=True)
    for name, module in model.named_modules():
        if name:
            found[name] = formats_in(name, rules)
            if found[name] != found[name.rpartition(".")[0]]:
                replace(module, Within(module, found[name]), innermost=True)
