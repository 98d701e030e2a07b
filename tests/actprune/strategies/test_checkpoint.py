"""checkpoint and selective on models of every shape: the same gradients, fewer bytes."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actprune import InputError, apply, saved_bytes, undo
from actprune.layers.blocks import blocks_of
from actprune.strategies.base import replacements
from actprune.strategies.checkpoint import KeepingInputs
from tests import others

STRATEGIES = ["checkpoint", "selective"]


class Cache:
    """What a transformer's layers put their keys in, as transformers' caches do."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []

    def get_seq_length(self) -> int:
        return len(self.keys)


class Layer(nn.Module):
    """A block that takes keywords, others than tensors and nested ones, and returns the like."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(dim), nn.Dropout(0.2)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        x: Tensor,
        scale: float,
        *,
        mask: Tensor | None = None,
        shifts: dict[str, list[Tensor]] | None = None,
        cache: Cache | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, dict[str, list[Tensor | None]]]:
        out = x + scale * self.drop(self.mlp(self.norm(x))).to(dtype)
        if cache is not None:
            cache.keys.append(out)
            out = out * len(cache.keys)
        if mask is not None:
            out = out * mask
        if shifts is not None:
            out = out + shifts["one"][0]
        return out, {"all": [out.mean(-1), None]}


class Layered(nn.Module):
    """Such blocks, behind a stem that may be frozen."""

    def __init__(self, *, sequential: bool = False) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
        made = [Layer(), Layer(), Layer()]
        self.layers = nn.Sequential(*made) if sequential else nn.ModuleList(made)
        self.shift = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        x, aside = self.stem(x), x.new_zeros(())
        mask = torch.ones(x.shape[-2], 1, dtype=torch.bool)
        shifts = {"one": [self.shift * 2]}  # a tensor with a gradient, inside of containers
        for layer in self.layers:
            x, more = layer(x, 0.5, mask=mask, shifts=shifts, cache=cache)
            aside = aside + more["all"][0].sum()
        out: Tensor = self.head(x).sum() + aside
        return out


class Normed(nn.Module):
    """A convolution and a batch norm, which counts every batch that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(*(Normed() for _ in range(3))))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "keywords": (Layered, (2, 5, 8)),
    "sequential": (lambda: Layered(sequential=True), (2, 5, 8)),
    "encoder": (encoder, (2, 5, 8)),
    "convolutional": (convolutional, (2, 3, 9, 9)),
}


def trained(model: nn.Module, x: Tensor, *args: Any) -> dict[str, Tensor]:
    """Gradients and buffers after a step, dropout being the same in every call."""
    torch.manual_seed(1)
    model(x, *args).square().mean().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found | dict(model.named_buffers())


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_buffers_are_dense_s_and_bytes_are_fewer(name: str, strategy: str) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    plain, x = make(), torch.randn(shape)
    made = apply(copy.deepcopy(plain), f"{strategy}+dense")
    assert sum(bool(replacements(module)) for module in made.modules()) == 3
    held = [saved_bytes(copy.deepcopy(each), x, hidden=True) for each in (made, plain)]
    assert held[0] < held[1]
    assert list(made.state_dict()) == list(plain.state_dict())
    assert_same(trained(made, x), trained(plain, x))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_behind_a_frozen_stem_blocks_train(strategy: str) -> None:
    plain, x = Layered(), torch.randn(2, 5, 8)
    plain.stem.requires_grad_(False)
    plain.layers[0].requires_grad_(False)
    plain.shift.requires_grad_(False)
    made = apply(copy.deepcopy(plain), f"{strategy}+dense")
    assert_same(trained(made, x), trained(plain, x))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cache_is_left_out_in_training_alone(strategy: str) -> None:
    plain, x = Layered(), torch.randn(2, 5, 8)
    made = apply(copy.deepcopy(plain), f"{strategy}+dense")
    assert_same(trained(made, x, Cache()), trained(plain, x))
    caches = Cache(), Cache()
    assert torch.equal(made.eval()(x, caches[0]), plain.eval()(x, caches[1]))
    assert caches[0].get_seq_length() == caches[1].get_seq_length() == 3


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", MODELS)
def test_eval_mode_drops_as_much_and_trains(name: str, strategy: str) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    plain, x = make().eval(), torch.randn(shape)
    made = apply(copy.deepcopy(plain), f"{strategy}+dense")
    held = [saved_bytes(copy.deepcopy(each), x, hidden=True) for each in (made, plain)]
    assert held[0] < held[1]
    # torch has a faster encoder for a pass without gradients, as checkpoint's first one is
    torch.testing.assert_close(trained(made, x), trained(plain, x))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_copies_hooks_pickles_and_undo(strategy: str) -> None:
    plain, x = Layered(), torch.randn(2, 5, 8)
    seen: list[nn.Module] = []
    made = apply(copy.deepcopy(plain), f"bf16+{strategy}+dense")
    for each in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        for layer in each.layers:
            (one,) = replacements(layer)
            assert one.module is layer
        each.layers[0].register_forward_hook(lambda module, *_: seen.append(module))
        assert {type(module) for module in each.modules()} == {type(m) for m in plain.modules()}
        each(x).backward()
        assert all(p.grad is not None for p in each.layers[0].parameters())
    assert len(seen) == 2
    undo(made)
    assert not any("forward" in vars(module) for module in made.modules())
    assert_same(trained(made, x), trained(plain, x))


def test_somebody_s_own_forward_stays_beneath_and_comes_back() -> None:
    made, x = Layered(), torch.randn(2, 5, 8)
    calls: list[int] = []
    own = made.layers[0].forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return own(*args, **kwargs)

    made.layers[0].forward = counted
    apply(made, "checkpoint+dense")(x).backward()
    assert len(calls) == 2
    assert vars(undo(made).layers[0])["forward"] is counted


def test_a_glob_names_the_blocks() -> None:
    made = apply(Layered(), "checkpoint(layers.*.mlp)+dense")
    found = {name for name, module in made.named_modules() if replacements(module)}
    assert found == {"layers.0.mlp", "layers.1.mlp", "layers.2.mlp"}
    apply(made, "checkpoint(layers.*)+dense")  # the outermost that match
    found = {name for name, module in made.named_modules() if replacements(module)}
    assert found == {"layers.0", "layers.1", "layers.2"}
    assert all(type(one) is KeepingInputs for m in made.modules() for one in replacements(m))
    with pytest.raises(InputError, match=r"^checkpoint: 'tail' matches no module of the model$"):
        apply(made, "checkpoint(tail)+dense")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("checkpoint()+dense", r"spec: expected a glob in checkpoint\(\), got ''"),
        ("checkpoint(a b)+dense", r"spec: expected a glob in checkpoint\(\), got 'a b'"),
        ("checkpoint(a+dense", r"expected a strategy of .* before '\+', got 'checkpoint\(a'"),
        ("bf16(a)+dense", r"spec: strategy 'bf16' takes nothing in parentheses: 'a'"),
    ],
)
def test_bad_globs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply(Layered(), spec)


def test_what_counts_as_a_block() -> None:
    def pair() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.GELU())

    assert blocks_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []  # no parts in them
    assert blocks_of(nn.Sequential(pair(), Layer())) == []  # none is there twice
    assert len(blocks_of(nn.Sequential(pair(), pair(), Layer()))) == 2
    assert len(blocks_of(nn.ModuleList([Layer()]))) == 1
    inner = nn.ModuleList([nn.ModuleList([Layer(), pair()]), nn.ModuleList([Layer()])])
    assert len(blocks_of(inner)) == 3  # a list has no forward
    shared = Layer()
    assert blocks_of(nn.ModuleList([shared, shared])) == [shared]


class Box:
    """Nothing in which torch looks for tensors."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_an_output_whose_gradients_would_be_lost_is_refused() -> None:
    class Boxing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Box:
            return Box(self.inner(x))

    made = apply(nn.ModuleList([Boxing()]), "checkpoint+dense")
    with pytest.raises(InputError, match="return tensors in tuples, lists and dicts, got Box"):
        made[0](torch.randn(3, 2))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_models_of_timm(name: str, strategy: str) -> None:
    timm = others.package("timm")
    plain = timm.create_model(name, num_classes=3)
    x = torch.randn(2, 3, 224, 224)
    made = apply(copy.deepcopy(plain), f"{strategy}+dense")
    assert_same(trained(made, x), trained(plain, x))


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Bert"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_models_of_transformers(name: str, strategy: str) -> None:
    transformers = others.package("transformers")
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 50,
    }
    config = getattr(transformers, f"{name}Config")(**sizes)
    plain = getattr(transformers, f"{name}Model")(config).train()
    ids = torch.randint(0, 50, (2, 9))

    class Hidden(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, use_cache: bool | None = None) -> Tensor:
            out: Tensor = self.model(ids, use_cache=use_cache).last_hidden_state
            return out

    made = Hidden(apply(copy.deepcopy(plain), f"{strategy}+dense"))
    # of keys out of a cache the products are in another order
    assert_same(trained(made, ids), trained(Hidden(plain), ids, False))
