"""Converted models in Lightning's Trainer, which trains what it got in eval mode in eval mode."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actprune import RECOMMENDED, InputError, apply, convert, saved_bytes
from actprune_bench.measure.tolerance import relative_error

lightning: Any = pytest.importorskip("lightning", reason="no lightning (the extra `models`)")
WHOLE = "bsr:block=1x8,sparsity=0"
PRUNED = "bsr:block=1x8,sparsity=0.75,select=priority"


def module(spec: str | None = None, training: bool = True) -> Any:
    """One that Lightning trains, the same in every call."""

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 4))
            self.held: list[int] = []

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            images, labels = batch
            self.held.append(saved_bytes(self.net, images))
            return nn.functional.cross_entropy(self.net(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    torch.manual_seed(0)
    made = Module().train(training)
    if spec == RECOMMENDED:
        apply(made.net)
        return made
    return made if spec is None else convert(made, spec)


def trained(made: Any, folder: Path, **options: Any) -> dict[str, Tensor]:
    """Parameters after four steps."""
    random = torch.Generator().manual_seed(1)
    data = torch.utils.data.TensorDataset(
        torch.randn(64, 32, generator=random), torch.randint(0, 4, (64,), generator=random)
    )
    given: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    given |= {"enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 1}
    trainer = lightning.Trainer(default_root_dir=folder, **given, **options)
    trainer.fit(made, torch.utils.data.DataLoader(data, batch_size=16))
    return {name: parameter.detach().clone() for name, parameter in made.named_parameters()}


# lightning: it uses what torch deprecates, and advises more processes for the data, and the mode
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
@pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_trains_as_the_dense_model(
    precision: str, training: bool, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"precision": precision}
    exact, dense, pruned = module(WHOLE, training), module(None, training), module(PRUNED, training)
    first = dense.state_dict()
    first = {name: tensor.clone() for name, tensor in first.items()}
    ours, theirs = trained(exact, tmp_path, **options), trained(dense, tmp_path, **options)
    for name, parameter in theirs.items():
        error = relative_error(ours[name] - first[name], parameter - first[name])
        assert error < (0.3 if precision == "bf16-mixed" else 1e-3), name
    trained(pruned, tmp_path, **options)
    assert 0 < pruned.held[-1] < dense.held[-1]
    coded = module(RECOMMENDED, training)
    trained(coded, tmp_path, **options)
    # within autocast its copies of weights are alive beside what is saved, and counted
    assert 0 < coded.held[-1] <= dense.held[-1] + (precision == "bf16-mixed") * 2 * (2048 + 256)


def test_rules_on_what_training_does_not_call_are_refused() -> None:
    with pytest.raises(InputError, match="expected one whose forward training calls, got Module;"):
        apply(module())
