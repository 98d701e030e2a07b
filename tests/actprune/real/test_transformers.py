"""Converted models of transformers in its Trainer, saved and loaded, and compiled."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actprune import apply, convert, pruned, saved_bytes, survey
from actprune_bench.measure.tolerance import relative_error
from tests.twins import lossless

transformers: Any = pytest.importorskip("transformers", reason="no transformers (extra `models`)")
WHOLE = "bsr:block=1x8,sparsity=0"
PRUNED = "bsr:block=1x8,sparsity=0.75,select=priority,values=int4"


def llama(spec: str | None = None) -> Any:
    """A tiny one, the same in every call; in eval mode, as from_pretrained leaves it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        vocab_size=50, attention_dropout=0.1, use_cache=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    return model if spec is None else convert(model, spec, exclude="lm_head")


class Texts(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Sixteen of nine tokens."""

    def __init__(self) -> None:
        self.tokens = torch.randint(0, 50, (16, 9), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def trained(model: Any, folder: Path, resume: bool = False, **options: Any) -> dict[str, Tensor]:
    """Parameters after four steps of transformers' Trainer."""
    pytest.importorskip("accelerate", reason="no accelerate (the extra `models`)")
    given: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "seed": 3,
    }
    given |= {"report_to": [], "use_cpu": True, "save_steps": 2, "disable_tqdm": True} | options
    arguments = transformers.TrainingArguments(output_dir=str(folder), **given)
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Texts())
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resume else None)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Of what the steps changed, the largest relative difference."""
    first = llama().state_dict()
    assert ours.keys() == theirs.keys()
    return max(
        relative_error(ours[name] - first[name], theirs[name] - first[name]) for name in theirs
    )


def test_trainer_takes_the_steps_of_the_dense_model(tmp_path: Path) -> None:
    assert furthest(trained(llama(WHOLE), tmp_path), trained(llama(), tmp_path)) < 1e-2


def test_trainer_in_bf16(tmp_path: Path) -> None:
    ours = trained(llama(WHOLE), tmp_path, bf16=True)
    assert furthest(ours, trained(llama(), tmp_path, bf16=True)) < 0.3
    trained(llama(PRUNED), tmp_path, bf16=True)


# transformers: 5.2x renames it, and older ones have the old name alone
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_trainer_with_checkpointing_takes_the_steps_without(
    reentrant: bool, tmp_path: Path
) -> None:
    """Also of random selections, and dropout beside them."""
    model = llama(PRUNED)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert furthest(trained(model, tmp_path), trained(llama(PRUNED), tmp_path)) < 1e-5


def test_trainer_accumulates(tmp_path: Path) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    ours = trained(llama(WHOLE), tmp_path, **options)
    assert furthest(ours, trained(llama(), tmp_path, **options)) < 1e-2
    trained(llama(PRUNED), tmp_path, **options)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    "options",
    [{}, {"bf16": True}, {"gradient_accumulation_steps": 2}, {"gradient_checkpointing": True}],
)
def test_trainer_of_what_keeps_everything_in_stores(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """It asks the forward which inputs it takes; the steps are dense's where codes lose nothing."""
    with lossless():
        ours = trained(apply(llama()), tmp_path, **options)
    limit = 0.3 if "bf16" in options else 1e-2
    assert furthest(ours, trained(llama(), tmp_path, **options)) < limit


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
def test_the_gate_of_a_feed_forward_keeps_its_derivative(tmp_path: Path) -> None:
    rule = "@activation=>derivative:bits=2;@*=>codes:bits=4"
    ids = torch.randint(0, 50, (8, 32))
    found = survey(llama(), {"input_ids": ids, "labels": ids}, rule)
    gates = [each for each in found.saved if each.kind == "activation"]
    assert [(each.module, each.function, each.store) for each in gates] == [
        (f"model.layers.{at}.mlp.act_fn", "silu", "derivative:bits=2") for at in (0, 1)
    ]
    assert all(each.held == each.nbytes // 16 for each in gates)
    with lossless():
        ours = trained(apply(llama(), rule), tmp_path, gradient_checkpointing=True)
    assert furthest(ours, trained(llama(), tmp_path)) < 1e-2


def test_trainer_resumes_to_the_bit(tmp_path: Path) -> None:
    """Random selections too, of which the Trainer knows nothing."""
    whole = trained(llama(PRUNED), tmp_path)
    again = trained(llama(PRUNED), tmp_path, resume=True)
    for name, parameter in whole.items():
        assert torch.equal(again[name], parameter), name
    coded = "@linear=>bsr:block=1x8,sparsity=0.5,select=priority;@*=>codes:bits=4"
    whole = trained(apply(llama(), coded), tmp_path / "rules")
    again = trained(apply(llama(), coded), tmp_path / "rules", resume=True)
    assert all(torch.equal(again[name], parameter) for name, parameter in whole.items())


def test_saved_and_loaded_it_is_the_plain_model(tmp_path: Path) -> None:
    model = llama(PRUNED)
    model.save_pretrained(tmp_path)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    assert pruned(loaded) == {}
    assert not loaded.training
    ids = torch.randint(0, 50, (2, 9))
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    convert(loaded, PRUNED, exclude="lm_head")
    for each in (model, loaded):
        each(ids, labels=ids).loss.backward()
    for (name, ours), theirs in zip(loaded.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


def test_in_eval_mode_it_keeps_less_than_dense() -> None:
    ids = torch.randint(0, 50, (2, 9))
    dense, ours = (saved_bytes(each, ids, labels=ids) for each in (llama(), llama(PRUNED)))
    assert ours < dense


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Qwen2"])
def test_compiled_in_one_graph(name: str) -> None:
    torch._dynamo.reset()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    sizes |= {"intermediate_size": 64, "num_key_value_heads": 1}
    config = getattr(transformers, f"{name}Config")(**sizes, use_cache=False)
    model: nn.Module = getattr(transformers, f"{name}ForCausalLM")(config)
    convert(model, PRUNED, exclude="lm_head")
    twin, ids = copy.deepcopy(model), torch.randint(0, 50, (2, 9))
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for each in (model, compiled):
        each(input_ids=ids, labels=ids).loss.backward()
    for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert relative_error(ours.grad, theirs.grad) < 1e-4
