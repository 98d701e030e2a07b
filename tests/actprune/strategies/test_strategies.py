"""Strategies: their text, what they do to a model, and how it is undone."""

import copy
import shlex

import pytest
import torch
import yaml

from actprune import InputError, PrunedLinear, convert, parse, pruned, saved_bytes
from actprune.inspect.fidelity import fidelity, mean_cosine
from actprune.strategies import STRATEGIES
from actprune.strategies.base import replacements
from actprune.strategies.checkpoint import KeepingInputs, KeepingProducts
from actprune.strategies.grammar import apply, plan, read, undo
from actprune.strategies.offload import moved_to_host
from actprune_bench.models import Block, LeanBlock, ResMLP
from actprune_bench.models.resmlp import Variant
from actprune_bench.training.config import TrainConfig

SMALL = Variant(image_size=16, patch_size=4, dim=8, depth=2, layer_scale=0.3)
SPECS = [
    "checkpoint+dense",
    "bf16+checkpoint+dense",
    "selective+csr:sparsity=0.5",
    "bf16+lean+csr:sparsity=0.5",
    "lean+csr:sparsity=0.5",
    "lean-exact+bsr:block=1x8,sparsity=0.5",
    "lean-4bit+bsr:block=1x8,sparsity=0.5",
]


def model() -> ResMLP:
    torch.manual_seed(0)
    return SMALL(num_classes=3, in_channels=1)


@pytest.mark.parametrize("spec", [*SPECS, "dense", "coo:sparsity=0.9"])
def test_a_spec_is_read_back(spec: str) -> None:
    assert read(spec).spec == spec
    assert read(read(spec).spec) == read(spec)
    assert TrainConfig(spec=spec).spec == spec


def test_an_unknown_strategy_names_the_known_ones() -> None:
    known = ", ".join(STRATEGIES)
    with pytest.raises(InputError, match=f"expected a strategy of {known} before '\\+', got 'x'"):
        read("x+dense")
    with pytest.raises(InputError, match="expected a format of"):
        read("lean+nothing")
    with pytest.raises(InputError, match=r"expected a format after 'bf16', such as bf16\+dense"):
        read("bf16")
    with pytest.raises(InputError, match=r"got 'lean\+dense'; actprune\.apply takes str"):
        convert(torch.nn.Linear(2, 2), "lean+dense")
    with pytest.raises(InputError, match="checkpoint: expected a model with blocks, repeated"):
        apply(torch.nn.Sequential(torch.nn.Linear(2, 2)), "checkpoint+dense")


PLAN = "lean+*.attn=>dense;blocks.0.*=>csr:sparsity=0.5;*=>bsr:block=1x8,sparsity=0.9"


def test_a_format_for_each_glob_the_first_that_matches() -> None:
    made = apply(model(), PLAN)
    assert all(type(block) is LeanBlock for block in made.blocks)
    assert {name: layer.spec for name, layer in pruned(made).items()} == {
        "blocks.0.mlp.fc1": "csr:sparsity=0.5",
        "blocks.0.mlp.fc2": "csr:sparsity=0.5",
        "blocks.1.mlp.fc1": "bsr:block=1x8,sparsity=0.9",
        "blocks.1.mlp.fc2": "bsr:block=1x8,sparsity=0.9",
        "head": "bsr:block=1x8,sparsity=0.9",
    }
    assert list(pruned(apply(model(), "head=>csr"))) == ["head"]
    assert not pruned(apply(model(), "head=>dense;*=>dense"))
    with pytest.raises(InputError, match=r"spec: 'tail' matches no nn.Linear; the model has bl"):
        apply(model(), "tail=>csr")


def test_a_plan_is_written_in_one_way_and_is_a_format_only_if_it_is_no_more() -> None:
    assert read(PLAN).spec == PLAN
    assert TrainConfig(spec=PLAN).spec == PLAN
    loose = " lean + *.attn => dense ; blocks.0.*=>csr:sparsity=0.50;*=>bsr:block=1x8"
    assert read(loose) == read(PLAN)
    assert read("*=>csr").spec == "csr:sparsity=0.9"
    formats = {"*.attn": "csr:sparsity=0.5", "*": "dense"}
    assert plan(formats, "lean").spec == "lean+*.attn=>csr:sparsity=0.5;*=>dense"
    assert read("csr").format == parse("csr")
    assert [read(spec).format for spec in (PLAN, "lean+csr", "head=>csr")] == [None] * 3


def test_a_plan_survives_yaml_and_a_shell() -> None:
    assert yaml.safe_load(yaml.safe_dump([PLAN, PLAN.removeprefix("lean+")])) == [
        PLAN,
        PLAN.removeprefix("lean+"),
    ]
    assert yaml.safe_load(f"spec: {PLAN}") == {"spec": PLAN}
    assert PLAN in shlex.split(TrainConfig(spec=PLAN).command())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a=>csr;dense", r"expected GLOB=>FORMAT between ';', got 'dense' in 'a=>csr;dense'"),
        ("csr;", r"expected GLOB=>FORMAT between ';', got 'csr' in 'csr;'"),
        ("a=>csr;a=>dense", r"glob 'a' is given twice in 'a=>csr;a=>dense'"),
        ("a=>ell", r"expected a format of dense, coo, csr, bsr, .*, got 'ell'"),
        ("a b=>csr", r"expected a glob without spaces and ; \+ = > before '=>', got 'a b'"),
        ("=>csr", r"expected a glob without spaces and ; \+ = > before '=>', got ''"),
        (
            "lean+checkpoint+csr",
            r"expected one of checkpoint, selective, lean, lean-4bit, lean-exact, got 'lean\+check",
        ),
        ("bf16+bf16+csr", r"strategy 'bf16' is given twice in 'bf16\+bf16'"),
        ("x+a=>csr", r"expected a strategy of .* before '\+', got 'x'"),
    ],
)
def test_a_bad_plan_says_what_was_expected(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=f"spec: {message}"):
        read(spec)


@pytest.mark.parametrize("spec", SPECS)
def test_apply_and_undo(spec: str) -> None:
    plain = model()
    made = apply(copy.deepcopy(plain), spec)
    kinds = {"checkpoint": [KeepingInputs], "selective": [KeepingProducts]}
    kind = next((kind for word, kind in kinds.items() if word in spec), [])
    assert all(type(block) is (Block if kind else LeanBlock) for block in made.blocks)
    assert all([type(one) for one in replacements(block)] == kind for block in made.blocks)
    assert list(made.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 1, 16, 16)
    near = 0.05 if "bf16" in spec else 1e-5
    torch.testing.assert_close(made(images), plain(images), rtol=near, atol=near)
    undo(made)
    assert torch.equal(made(images), plain(images))
    assert all(type(block) is Block for block in made.blocks)
    assert not any("forward" in vars(module) for module in made.modules())
    assert not pruned(made)
    assert saved_bytes(made, images) == saved_bytes(plain, images)


@pytest.mark.parametrize("first", [*SPECS, "csr:sparsity=0.5"])
@pytest.mark.parametrize("second", ["dense", "checkpoint+dense", "lean+quant:bits=4"])
def test_apply_replaces_what_was_applied_before(first: str, second: str) -> None:
    x = torch.randn(4, 1, 16, 16)
    twice, once = apply(apply(model(), first), second), apply(model(), second)
    names = [
        {n: (type(m), *map(type, replacements(m))) for n, m in each.named_modules()}
        for each in (twice, once)
    ]
    assert names[0] == names[1]
    assert twice(x).dtype == once(x).dtype == torch.float32
    torch.testing.assert_close(twice(x), once(x))
    assert saved_bytes(twice, x) == saved_bytes(once, x)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "checkpoint" in spec])
def test_what_lies_behind_frozen_layers_trains_when_checkpointed(spec: str) -> None:
    x = torch.randn(4, 1, 16, 16)
    gradients = []
    for text in ("dense", spec):
        made = model()
        made.patch_embed.requires_grad_(False)
        made.blocks[0].requires_grad_(False)
        apply(made, text)(x).square().sum().backward()
        gradients.append({n: p.grad for n, p in made.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        found = gradients[1][name]
        assert gradient is not None
        assert found is not None, name
        if "bf16" in spec:  # no twin in bf16: the direction tells that it is the gradient
            assert torch.cosine_similarity(found.flatten(), gradient.flatten(), dim=0) > 0.98, name
        else:
            torch.testing.assert_close(found, gradient)


def test_checkpointing_keeps_each_block_s_input_and_every_gradient() -> None:
    plain = model()
    made = apply(copy.deepcopy(plain), "checkpoint+dense")
    images = torch.randn(4, 1, 16, 16)
    one = 4 * 16 * 8 * 4  # bytes of a block's input
    # the images, both blocks' inputs, the last affine's, the classifier's
    assert saved_bytes(made, images) == 4 * 16 * 16 * 4 + 2 * one + one + 4 * 8 * 4
    for each in (plain, made):
        each(images).square().sum().backward()
    for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_selective_checkpointing_keeps_products_too_and_every_gradient() -> None:
    plain = model()
    made = apply(copy.deepcopy(plain), "selective+dense")
    images = torch.randn(4, 1, 16, 16)
    one = 4 * 16 * 8 * 4  # bytes of a block's input
    # beside what checkpointing keeps, in both blocks: of the cross-patch layer, fc1 and fc2
    cached = 2 * (one + 4 * one + one)
    checkpointed = 4 * 16 * 16 * 4 + 2 * one + one + 4 * 8 * 4
    assert saved_bytes(made, images) == checkpointed
    assert saved_bytes(made, images, hidden=True) == checkpointed + cached
    for each in (plain, made):
        each(images).square().sum().backward()
    for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("select", ["topk", "priority"])
def test_a_selectively_checkpointed_block_prunes_as_a_plain_one(select: str) -> None:
    spec = f"bsr:block=1x8,sparsity=0.5,select={select}"
    plain, made = apply(model(), spec), apply(model(), f"selective+{spec}")
    images = torch.randn(4, 1, 16, 16)
    for each in (plain, made):
        each(images).square().sum().backward()
    if select == "topk":  # a random selection is drawn in both of its forward passes
        for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
    for parameter in made.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "selective" not in spec])
def test_nothing_lives_on_that_autograd_does_not_hold(spec: str) -> None:
    """The two counts, one by hooks and one by what is still alive, share nothing."""
    made, images = apply(model(), spec), torch.randn(4, 1, 16, 16)
    saved_bytes(made, images)  # what a first pass makes once
    assert saved_bytes(made, images, hidden=True) == saved_bytes(made, images)


def test_lean_saves_what_its_stores_and_two_bits_are() -> None:
    images = torch.randn(8, 1, 16, 16)
    dense = saved_bytes(model(), images)
    pruned_alone = saved_bytes(apply(model(), "bsr:block=1x8,sparsity=0.9"), images)
    lean = saved_bytes(apply(model(), "lean+bsr:block=1x8,sparsity=0.9"), images)
    exact = saved_bytes(apply(model(), "lean-exact+bsr:block=1x8,sparsity=0.9"), images)
    assert lean < exact < pruned_alone < dense
    assert exact - lean == 2 * 8 * 16 * 32 * (4 - 0.25)  # blocks x images x patches x inner


def test_the_gradients_direction_is_against_the_plain_model() -> None:
    batch = torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])

    def grad_cosine(made: ResMLP) -> float:
        return mean_cosine(fidelity(made, batch))

    assert grad_cosine(model()) == 1
    assert grad_cosine(apply(model(), "checkpoint+dense")) == 1
    exact = apply(model(), "lean-exact+dense")
    assert grad_cosine(exact) == pytest.approx(1, abs=1e-6)
    two_bits = grad_cosine(apply(model(), "lean+dense"))
    assert 0.9 < two_bits < 0.9999
    both = apply(model(), "lean+csr:sparsity=0.8")
    assert grad_cosine(both) < two_bits
    assert all(isinstance(layer, PrunedLinear) for layer in pruned(both).values())


def test_a_lean_step_trains() -> None:
    made = apply(model(), "lean+bsr:block=1x8,sparsity=0.5,select=priority")
    images, labels = torch.randn(32, 1, 16, 16), torch.arange(32) % 3
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(made(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_bf16_is_autocast_with_a_loss_in_fp32() -> None:
    plain, made = model(), apply(model(), "bf16+dense")
    images = torch.randn(4, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(images)
    assert made(images).dtype == torch.float32
    assert torch.equal(made(images), expected.float())
    for block in (plain, made):
        block.zero_grad()
    made(images).square().sum().backward()
    expected.float().square().sum().backward()
    for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert saved_bytes(made, images) < 0.8 * saved_bytes(plain, images)
    assert read("lean + bf16 + csr").spec == "bf16+lean+csr:sparsity=0.9"


def test_wrappers_go_around_what_is_there_and_come_off() -> None:
    made = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
    x = torch.randn(3, 4)
    lean_forward = vars(apply(made, "lean+dense"))["forward"]
    apply(made, "bf16+lean+dense")
    assert made(x).dtype == torch.float32
    assert type(vars(made)["forward"].beneath) is type(lean_forward)
    twin = copy.deepcopy(made)
    for parameter in twin[2].parameters():
        parameter.data.zero_()
    assert not torch.equal(twin(x), made(x))  # a copy runs on its own parameters
    undo(made)
    assert "forward" not in vars(made)


def test_offload_wants_a_gpu() -> None:
    made = apply(model(), "offload+dense")
    message = "offload: expected a model on a GPU, got one on the CPU: all is in host memory"
    with pytest.raises(InputError, match=message):
        made(torch.randn(1, 1, 16, 16))


def test_what_is_moved_comes_back_and_weights_stay() -> None:
    plain = model()
    images = torch.randn(4, 1, 16, 16)
    plain(images).square().sum().backward()
    expected = [p.grad for p in plain.parameters() if p.grad is not None]
    plain.zero_grad(set_to_none=True)
    hooks = moved_to_host(pin=False)
    with hooks:
        out = plain(images).square().sum()
    out.backward()
    for parameter, grad in zip(plain.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, grad)
    kept, device = hooks.pack_hook(plain.head.weight)
    assert kept is plain.head.weight
    assert device is None
    moved, device = hooks.pack_hook(images)
    assert moved.data_ptr() != images.data_ptr()
    assert device == images.device
