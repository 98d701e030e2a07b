"""LoRA by PEFT, put on a model before it is converted and after."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from actprune import convert, pruned, saved_bytes, survey
from actprune_bench.measure.tolerance import relative_error

peft = pytest.importorskip("peft", reason="no peft (the extra `models`)")
SPEC = "bsr:block=1x8,sparsity=0.75,select=priority"


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))


def adapted(model: nn.Module) -> Any:
    """With adapters of which both factors have gradients."""
    made = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["0", "2"]))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return made


def gradients(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_adapters_are_reached_by_a_conversion_after() -> None:
    model, x = adapted(mlp()), torch.randn(64, 32)
    expected, dense = gradients(model, x), saved_bytes(model, x)
    convert(model, "bsr:block=1x8,sparsity=0")
    found = gradients(model, x)
    assert set(found) == set(expected)
    assert all("lora_" in name for name in found)
    for name, gradient in expected.items():
        assert relative_error(found[name], gradient) < 1e-5, name
    assert saved_bytes(convert(model, SPEC), x) < 0.75 * dense


def test_adapters_on_a_converted_model_are_announced_and_reached_by_another() -> None:
    model, x = adapted(convert(mlp(), SPEC)), torch.randn(64, 32)
    with pytest.warns(UserWarning, match="frozen since and keep nothing; adapters that PEFT put"):
        before = saved_bytes(model, x)
    said = survey(model)
    adapters = [name for name in said if "lora_" in name]
    assert len(adapters) == 4
    assert {said[name] for name in adapters} == {"dense"}
    convert(model, SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert saved_bytes(model, x) < 0.75 * before
    assert set(adapters) < set(pruned(model))


def test_merging_and_unloading_leave_pruned_layers() -> None:
    model, x = adapted(convert(mlp(), SPEC)), torch.randn(64, 32)
    with torch.no_grad():
        expected = model(x)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(x), expected, rtol=1e-4, atol=1e-4)
    assert list(pruned(merged)) == ["0", "2"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_everything_that_lora_saves_of_a_llama_is_reached() -> None:
    transformers = pytest.importorskip("transformers", reason="no transformers (extra `models`)")
    config = transformers.LlamaConfig(
        hidden_size=128,
        intermediate_size=344,
        vocab_size=200,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)  # at zero it would hide every error
    batch = {"input_ids": torch.randint(0, 200, (4, 128))}
    found = survey(model, batch)
    assert 0 < found.error < 0.1
    frozen = [each for each in found.saved if each.module.endswith(("o_proj", "gate_proj"))]
    assert not frozen  # frozen weights need no inputs
    assert found.held < 0.2 * saved_bytes(model, batch["input_ids"])
