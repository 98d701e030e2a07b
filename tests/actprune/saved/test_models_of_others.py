"""Models that others wrote step as their dense twins do where codes lose nothing."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import others
from tests.twins import log, lossless, same_step, step, twin

Made = tuple[nn.Module, Tensor]
WIDE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}


def of_timm(name: str, size: int, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        return others.package("timm").create_model(name, num_classes=10, **options), torch.randn(
            2, 3, size, size
        )

    return make


def of_transformers(name: str, task: str, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        others.package("transformers")
        library = pytest.importorskip("transformers")
        config = getattr(library, f"{name}Config")(**options)
        return getattr(library, f"{name}{task}")(config), torch.randint(0, 100, (2, 16))

    return make


MODELS = {
    "vit": of_timm("vit_tiny_patch16_224", 64, img_size=64, depth=2),
    "resnet18": of_timm("resnet18", 64),
    "convnext": of_timm("convnext_atto", 64, depths=(1, 1, 1, 1)),
    "swin": of_timm(
        *("swin_tiny_patch4_window7_224", 56),
        img_size=56,
        depths=(2, 2),
        embed_dim=24,
        num_heads=(2, 4),
    ),
    "efficientformer": of_timm("efficientformer_l1", 224, depths=(1, 1, 1, 2)),
    "gpt2": of_transformers(
        *("GPT2", "LMHeadModel"),
        n_layer=2,
        n_embd=32,
        n_head=4,
        vocab_size=100,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "llama": of_transformers("Llama", "ForCausalLM", intermediate_size=64, **WIDE),
    "bert": of_transformers("Bert", "ForSequenceClassification", intermediate_size=64, **WIDE),
    "qwen3": of_transformers(
        *("Qwen3", "ForCausalLM"),
        intermediate_size=64,
        num_key_value_heads=2,
        head_dim=16,
        **WIDE,
    ),
    "mixtral": of_transformers(
        *("Mixtral", "ForCausalLM"),
        intermediate_size=48,
        num_key_value_heads=2,
        num_local_experts=4,
        **WIDE,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("spec", ["@*=>codes:bits=4", "recompute+@*=>codes:bits=4"])
def test_a_step_is_denses(name: str, spec: str, autocast: bool) -> None:
    model, x = MODELS[name]()
    model.train()
    around = (lambda: torch.autocast("cpu", torch.bfloat16)) if autocast else nullcontext
    tolerance = 0.01 if autocast else 1e-5
    for small in (0, 2000):
        same_step(model, x, spec=spec, small=small, around=around, tolerance=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_products_are_pruned_wherever_they_stand(name: str) -> None:
    """Transformers' Conv1D and Mixtral's experts among them, of three dimensions."""
    model, x = MODELS[name]()
    other = twin(model.eval(), "@linear=>bsr:block=1x8,sparsity=0.5")
    with lossless():
        step(other, x)
    stores = {saved.store for saved in log(other) if saved.kind == "linear"}
    assert any("bsr" in store for store in stores)
    # what is left is kept for somebody else anyway, or the indices of experts
    known = "bsr", "whole", "narrow", "statistic"
    assert all(any(name in store for name in known) for store in stores), stores
