"""ResMLP against the published sizes, its equations, and published state_dicts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from actprune import InputError, convert
from actprune_bench.models import MODELS, Affine, Block, ResMLP, load_reference_state_dict


def reference_state(depth: int = 3, dim: int = 96, patches: int = 64) -> dict[str, Tensor]:
    """What facebookresearch/deit would save for resmlp_tiny: its names and shapes, written out."""
    state = {
        "patch_embed.proj.weight": torch.randn(dim, 3, 4, 4),
        "patch_embed.proj.bias": torch.randn(dim),
        "norm.alpha": torch.randn(dim),
        "norm.beta": torch.randn(dim),
        "head.weight": torch.randn(1000, dim),
        "head.bias": torch.randn(1000),
    }
    for i in range(depth):
        state |= {
            f"blocks.{i}.gamma_1": torch.randn(dim),
            f"blocks.{i}.gamma_2": torch.randn(dim),
            f"blocks.{i}.norm1.alpha": torch.randn(dim),
            f"blocks.{i}.norm1.beta": torch.randn(dim),
            f"blocks.{i}.attn.weight": torch.randn(patches, patches),
            f"blocks.{i}.attn.bias": torch.randn(patches),
            f"blocks.{i}.norm2.alpha": torch.randn(dim),
            f"blocks.{i}.norm2.beta": torch.randn(dim),
            f"blocks.{i}.mlp.fc1.weight": torch.randn(4 * dim, dim),
            f"blocks.{i}.mlp.fc1.bias": torch.randn(4 * dim),
            f"blocks.{i}.mlp.fc2.weight": torch.randn(dim, 4 * dim),
            f"blocks.{i}.mlp.fc2.bias": torch.randn(dim),
        }
    return state


def as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under timm's names."""
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in (
            ("patch_embed.", "stem."),
            ("attn.", "linear_tokens."),
            ("mlp.", "mlp_channels."),
            ("gamma_", "ls"),
        ):
            name = name.replace(ours, theirs)
        if name.endswith((".alpha", ".beta")):
            tensor = tensor.reshape(1, 1, -1)
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resmlp_s12", 15_350_872),
        ("resmlp_s24", 30_020_680),
        ("resmlp_s36", 44_690_488),
        ("resmlp_b24", 129_138_280),  # the paper's table: 129.1 million
    ],
)
def test_published_parameter_counts(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = MODELS[name]()
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "start"),
    [("resmlp_s12", 0.1), ("resmlp_s24", 1e-5), ("resmlp_s36", 1e-6), ("resmlp_tiny", 0.1)],
)
def test_layer_scale_starts_by_depth(name: str, start: float) -> None:
    variant = MODELS[name]
    block = Block(8, 4, variant.layer_scale)
    assert torch.equal(block.gamma_1, torch.full((8,), start))
    assert torch.equal(block.gamma_2, torch.full((8,), start))


def test_block_is_the_papers_equations() -> None:
    block = Block(dim=6, patches=5, layer_scale=0.3).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    p = dict(block.named_parameters())
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    a = p["norm1.alpha"] * x + p["norm1.beta"]
    across = torch.einsum("pq,bqd->bpd", p["attn.weight"], a) + p["attn.bias"][None, :, None]
    y = x + p["gamma_1"] * across
    b = p["norm2.alpha"] * y + p["norm2.beta"]
    hidden = b @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    z = y + p["gamma_2"] * (hidden @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"])
    torch.testing.assert_close(block(x), z, rtol=1e-12, atol=1e-12)


def test_affine_starts_as_identity() -> None:
    x = torch.randn(3, 7)
    assert torch.equal(Affine(7)(x), x)


def test_patches_are_read_in_rows_and_averaged_at_the_end() -> None:
    model = MODELS["resmlp_tiny"](num_classes=10, in_channels=1)
    images = torch.randn(2, 1, 32, 32)
    patches = model.patch_embed(images)
    weight = model.patch_embed.proj.weight.flatten(1)  # dim, pixels of a patch
    second = F.linear(images[:, 0, 0:4, 4:8].flatten(1), weight, model.patch_embed.proj.bias)
    torch.testing.assert_close(patches[:, 1], second, rtol=1e-5, atol=1e-5)
    for block in model.blocks:
        patches = block(patches)
    torch.testing.assert_close(model(images), model.head(model.norm(patches).mean(1)))
    assert model(images).shape == (2, 10)


@pytest.mark.parametrize("style", ["deit", "timm"])
@pytest.mark.parametrize("pruned", [False, True])
def test_reference_weights_load(style: str, pruned: bool) -> None:
    model = MODELS["resmlp_tiny"]()
    if pruned:
        convert(model, "bsr:sparsity=0.9")
    state = reference_state()
    load_reference_state_dict(model, as_timm(state) if style == "timm" else state)
    own = model.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_reference_weights_that_do_not_fit_are_named_and_change_nothing() -> None:
    model = MODELS["resmlp_tiny"]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = reference_state()
    for change, message in (
        ({"head.weight": None}, "state: is missing head.weight"),
        ({"cls_token": torch.zeros(1)}, "state: has unknown cls_token"),
        (
            {"head.weight": torch.zeros(10, 96)},
            r"state: head.weight: expected shape \(1000, 96\), got \(10, 96\)",
        ),
        ({"head.weight": 3}, "state: expected a mapping of names to tensors"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(InputError, match=f"^{message}"):
            load_reference_state_dict(model, changed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^state: is missing .* and 38 more$"):
        load_reference_state_dict(model, {"head.weight": state["head.weight"]})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_wrong_images_and_sizes_are_refused() -> None:
    model: ResMLP = MODELS["resmlp_tiny"](num_classes=10, in_channels=1)
    message = r"^images: expected shape \(batch, 1, 32, 32\), got \(2, 1, 28, 28\)$"
    with pytest.raises(InputError, match=message):
        model(torch.zeros(2, 1, 28, 28))
    with pytest.raises(InputError, match=r"^num_classes: expected 1 or more, got 0$"):
        MODELS["resmlp_tiny"](num_classes=0)
