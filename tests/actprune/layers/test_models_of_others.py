"""convert on models built from torch.nn alone: they train, and what is left alone says why."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from actprune import InputError, convert, pruned, revert, saved_bytes, survey
from actprune.layers.attention import PrunedMultiheadAttention
from actprune_bench.measure.tolerance import relative_error

SPEC = "bsr:block=1x8,sparsity=0.75,select=priority"


class ViT(nn.Module):
    """Patches of 4, a class token, positions, nn.TransformerEncoder."""

    def __init__(self, norm_first: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 4, 4)
        self.token, self.position = (
            nn.Parameter(torch.zeros(1, 1, 32)),
            nn.Parameter(torch.randn(50, 32)),
        )
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        out: Tensor = self.head(self.encoder(x)[:, 0])
        return out


class Mixer(nn.Module):
    """MLP-Mixer: an MLP across the patches, one across the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(4))
        self.across = nn.ModuleList(self._mlp(49, 64) for _ in range(2))
        self.along = nn.ModuleList(self._mlp(32, 64) for _ in range(2))
        self.head = nn.Linear(32, 10)

    @staticmethod
    def _mlp(size: int, inner: int) -> nn.Module:
        return nn.Sequential(nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        for i, (across, along) in enumerate(zip(self.across, self.along, strict=True)):
            x = x + across(self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + along(self.norms[2 * i + 1](x))
        out: Tensor = self.head(x.mean(1))
        return out


class Rows(nn.Module):
    """An LSTM over the rows of an image, and a classifier of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 32, batch_first=True)
        self.head = nn.Sequential(nn.Linear(28 * 32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(images.squeeze(1))[0].flatten(1))
        return out


class GPT(nn.Module):
    """Causal blocks between an embedding and a head that share one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.position = nn.Embedding(40, 32), nn.Embedding(16, 32)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, 0.0, F.gelu, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.tokens(tokens) + self.position(torch.arange(length))
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        out: Tensor = self.head(x)
        return out


def images() -> tuple[Tensor, Tensor]:
    labels = torch.arange(32) % 10
    return torch.randn(32, 1, 28, 28) + labels.view(-1, 1, 1, 1) / 2, labels


def text() -> tuple[Tensor, Tensor]:
    start = torch.arange(32).view(-1, 1)
    sequence = (start + torch.arange(17) * (1 + start % 3)) % 40
    return sequence[:, :-1], sequence[:, 1:]


MODELS: list[tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]]]] = [
    (ViT, images), (Mixer, images), (Rows, images), (GPT, text),
]  # fmt: skip


def loss(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, -2), labels.flatten())


def gradients(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss(model, x, labels).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("build", "data"), MODELS)
def test_it_trains_and_saves_bytes(
    build: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    plain = build()
    model, batch = convert(copy.deepcopy(plain), SPEC), data()
    saved, dense = (saved_bytes(loss, m, *batch, weights=m.parameters()) for m in (model, plain))
    assert saved < (0.97 if build is Rows else 0.85) * dense  # an LSTM keeps most of its own
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        losses.append(float(loss(model, *batch).detach()))
        gradients(model, *batch)
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert type(revert(model).head) is type(plain.head)


@pytest.mark.parametrize(("build", "data"), MODELS)
def test_nothing_pruned_is_the_model(
    build: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    plain = build()
    model, batch = convert(copy.deepcopy(plain), "bsr:block=1x8,sparsity=0"), data()
    torch.testing.assert_close(model(batch[0]), plain(batch[0]), rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(model, *batch), gradients(plain, *batch)
    for name, expected in theirs.items():
        assert relative_error(ours[name], expected) < 2e-5, name
    model.eval()
    plain.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(batch[0]), plain(batch[0]), rtol=1e-5, atol=1e-5)


def test_a_tied_matrix_collects_both_gradients() -> None:
    plain = GPT()
    model, batch = convert(copy.deepcopy(plain), "csr:sparsity=0", include="head"), text()
    assert model.head.weight is model.tokens.weight
    ours, theirs = gradients(model, *batch), gradients(plain, *batch)
    assert relative_error(ours["tokens.weight"], theirs["tokens.weight"]) < 1e-5


@settings(max_examples=40)
@given(
    batch_first=st.booleans(),
    batched=st.booleans(),
    inputs=st.sampled_from(["self", "cross", "all apart"]),
    mask=st.sampled_from([None, "bool", "float", "per head"]),
    padding=st.booleans(),
    weights=st.sampled_from([None, True, False]),
    bias=st.booleans(),
)
def test_attention_is_torch_s(
    batch_first: bool,
    batched: bool,
    inputs: str,
    mask: str | None,
    padding: bool,
    weights: bool | None,
    bias: bool,
) -> None:
    plain = nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first).double()
    layer = convert(copy.deepcopy(plain), "csr:sparsity=0")
    assert isinstance(layer, PrunedMultiheadAttention)
    length, batch = 5, 3
    source = length if inputs == "self" else 4

    def sequence(size: int) -> Tensor:
        shape = (batch, size, 8) if batch_first else (size, batch, 8)
        return torch.randn(shape if batched else (size, 8), dtype=torch.float64)

    query = sequence(length)
    key = query if inputs == "self" else sequence(source)
    value = key if inputs != "all apart" else sequence(source)
    masks: dict[str | None, Tensor | None] = {
        None: None,
        "bool": torch.rand(length, source) > 0.7,
        "float": torch.randn(length, source).double(),
        "per head": torch.randn((batch if batched else 1) * 2, length, source).double(),
    }
    attn_mask = masks[mask]
    if mask == "bool" and attn_mask is not None:
        attn_mask[:, 0] = False  # a row of which all is masked has no softmax
    padded = torch.zeros(*([batch] if batched else []), source, dtype=torch.bool)
    padded[..., -1] = True
    keys: dict[str, Any] = {
        "need_weights": weights is not None,
        "average_attn_weights": weights is True,
    }
    keys |= {"attn_mask": attn_mask, "key_padding_mask": padded if padding else None}
    if padding and mask in ("float", "per head"):
        keys["key_padding_mask"] = torch.zeros_like(padded, dtype=torch.float64)
    results = [made(query, key, value, **keys) for made in (layer, plain)]
    for got, expected in zip(*results, strict=True):
        assert (got is None) == (expected is None)
        if got is not None and expected is not None:
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    for out, _ in results:
        out.square().sum().backward()
    for ours, theirs in zip(layer.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-8)


def test_self_attention_keeps_its_input_once() -> None:
    x = torch.randn(4, 64, 32)
    plain = nn.MultiheadAttention(32, 4, batch_first=True)
    layer = convert(copy.deepcopy(plain), "bsr:block=1x8,sparsity=0.75")
    x.requires_grad_()
    saved = [saved_bytes(lambda m=m: m(x, x, x, need_weights=False)[0], weights=m.parameters())
             for m in (layer, plain)]  # fmt: skip
    assert saved[0] < saved[1]


def test_draws_of_projections_repeat() -> None:
    x = torch.randn(2, 6, 8)
    layers = [nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    grads = []
    for layer in layers:
        convert(layer, "bsr:block=1x2,sparsity=0.5,select=priority")
        layer(x, x, x)[0].square().sum().backward()
        assert layer.in_proj_weight.grad is not None
        grads.append(layer.in_proj_weight.grad)
    assert torch.equal(grads[0], grads[1])


def test_what_is_left_alone_says_why() -> None:
    class Mine(nn.Linear):
        pass

    model = nn.ModuleDict(
        {
            "lstm": nn.LSTM(4, 4),
            "emb": nn.Embedding(3, 4),
            "mine": Mine(4, 4),
            "conv": nn.Conv1d(4, 4, 1),
            "wide": nn.MultiheadAttention(4, 2, kdim=6),
            "extra": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "attn": nn.MultiheadAttention(4, 2),
            "fc": nn.Linear(4, 4),
        }
    )
    convert(model, "csr:sparsity=0.5", include="attn")
    assert survey(model) == {
        "lstm": "left alone: LSTM multiplies over all its steps in one operator",
        "emb": "left alone: an embedding keeps indices alone",
        "mine": "left alone: a subclass (Mine), whose forward may be its own",
        "conv": "left alone: no nn.Linear (Conv1d)",
        "wide": "left alone: keys or values have another width than queries (kdim, vdim)",
        "extra": "left alone: it adds a key of its own (add_bias_kv, add_zero_attn)",
        "attn": pruned(model)["attn"].spec,
        "fc": "dense",
    }
    with pytest.raises(
        InputError, match=r"^include: 'mine' matches no nn\.Linear \(mine is left alone: a subclass"
    ):
        convert(model, "csr", include="mine")
    with pytest.raises(RuntimeError, match=r"Need attn_mask if specifying the is_causal hint"):
        model["attn"](*[torch.randn(3, 1, 4)] * 3, is_causal=True)


def test_a_grad_scaler_skips_what_overflows_and_trains() -> None:
    plain = ViT()
    model, (x, labels) = convert(copy.deepcopy(plain), "bsr:block=1x8,sparsity=0.5"), images()
    assert saved_bytes(model, x) < saved_bytes(plain, x)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses, scales = [], []
    for _ in range(40):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            value = loss(model, x, labels)
        scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(value.detach()))
        scales.append(scaler.get_scale())
    assert scales[0] == 2.0**29  # the first gradients are not finite
    assert scales[-1] == scales[-5]
    assert losses[1] == losses[0]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("first", ["convert", "compile"])
def test_before_or_after_compile(first: str) -> None:
    torch._dynamo.reset()
    plain, (x, labels) = Mixer(), images()
    model = copy.deepcopy(plain)
    if first == "convert":
        convert(model, "bsr:block=1x8,sparsity=0")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    if first == "compile":
        convert(model, "bsr:block=1x8,sparsity=0")
    F.cross_entropy(compiled(x), labels).backward()  # type: ignore[no-untyped-call]
    expected = gradients(plain, x, labels)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert relative_error(parameter.grad, expected[name]) < 2e-5, name
