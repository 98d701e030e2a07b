"""convert and revert on whole models."""

import pytest
import torch
from torch import nn

from actprune import (
    FORMATS,
    InputError,
    PrunedLinear,
    convert,
    parse,
    pruned,
    redraw,
    revert,
    survey,
)


def mlp() -> nn.Module:
    block = nn.Sequential()
    block.add_module("fc1", nn.Linear(16, 32))
    block.add_module("act", nn.GELU())
    block.add_module("fc2", nn.Linear(32, 16, bias=False))
    model = nn.Sequential()
    model.add_module("mlp", block)
    model.add_module("head", nn.Linear(16, 4))
    return model


def test_every_linear_in_place_and_back() -> None:
    model = mlp()
    modules, names = list(model.modules()), [name for name, _ in model.named_parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert convert(model, "bsr:block=1x4,sparsity=0.5") is model
    assert list(pruned(model)) == ["mlp.fc1", "mlp.fc2", "head"]
    assert list(model.modules()) == modules
    assert [name for name, _ in model.named_parameters()] == names
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    model(torch.randn(3, 16)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.state_dict()["head.weight"], state["head.weight"])
    assert "spec='bsr:block=1x4,sparsity=0.5'" in repr(model)
    assert revert(model) is model
    assert pruned(model) == {}
    assert {type(m) for m in modules if isinstance(m, nn.Linear)} == {nn.Linear}
    assert not any("spec" in vars(module) or "draw" in vars(module) for module in modules)


def test_include_and_exclude() -> None:
    assert list(pruned(convert(mlp(), "csr", include="mlp.*"))) == ["mlp.fc1", "mlp.fc2"]
    assert list(pruned(convert(mlp(), "csr", exclude=["head", "*fc2"]))) == ["mlp.fc1"]
    assert list(pruned(convert(mlp(), parse("csr"), include=["head"]))) == ["head"]


def test_a_mapping_of_globs() -> None:
    model = convert(mlp(), {"*.fc1": "bsr:block=1x4", "mlp.*": "csr", "head": "dense"})
    assert {name: layer.spec for name, layer in pruned(model).items()} == {
        "mlp.fc1": "bsr:block=1x4,sparsity=0.9",
        "mlp.fc2": "csr:sparsity=0.9",
    }


def test_converting_again_takes_the_new_spec() -> None:
    model = convert(convert(mlp(), "csr"), "coo:select=priority")
    assert {layer.spec for layer in pruned(model).values()} == {"coo:sparsity=0.9,select=priority"}
    assert pruned(convert(model, "dense")) == {}


def test_subclasses_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    with pytest.raises(InputError, match=r"include: '\*' matches no nn.Linear \(.* subclass \(Own"):
        convert(Own(8, 2), "csr")


def test_parametrized_and_lazy_layers_are_left_alone_and_named() -> None:
    made = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3), nn.Linear(4, 4))
    nn.utils.parametrizations.weight_norm(made[0])
    assert survey(made) == {
        "0": "left alone: parametrized (ParametrizedLinear): its weight is computed anew at each "
        "call",
        "1": "left alone: its sizes are not known before its first batch (LazyLinear)",
        "2": "dense",
    }
    convert(made, "csr:sparsity=0.5")
    assert list(pruned(made)) == ["2"]


def test_a_layer_whose_class_was_exchanged_since_is_named() -> None:
    made = convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "csr:sparsity=0.5")
    nn.utils.parametrizations.weight_norm(made[1])
    message = "^model: 1 is a ParametrizedPrunedLinear since it was converted; undo that first$"
    with pytest.raises(InputError, match=message):
        revert(made)
    assert list(pruned(made)) == ["0", "1"]
    nn.utils.parametrize.remove_parametrizations(made[1], "weight")
    assert not pruned(revert(made))


def test_a_single_layer_is_a_model() -> None:
    layer = nn.Linear(8, 4)
    assert convert(layer, "csr") is layer
    assert isinstance(layer, PrunedLinear)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"spec": "csr", "include": "fc*"},
            "include: 'fc\\*' matches no nn.Linear; the model has ml",
        ),
        ({"spec": "csr", "exclude": "tail"}, "exclude: 'tail' matches no nn.Linear; the model has"),
        (
            {"spec": {"*": "csr", "x": "coo"}},
            "spec: 'x' matches no nn.Linear; the model has mlp.fc1",
        ),
        ({"spec": {}}, "spec: expected at least one glob in the mapping, got none"),
        ({"spec": "csr", "exclude": "*"}, "include: no nn.Linear is left to convert after exclude"),
        ({"spec": "csr", "include": [3]}, "include: expected globs on module names, got 3"),
        (
            {"spec": {"head": "csr", "*": "cs"}},
            f"spec: expected a format of {', '.join(FORMATS)}, got",
        ),
    ],
)
def test_bad_arguments_leave_the_model_untouched(
    arguments: dict[str, object], message: str
) -> None:
    model = mlp()
    with pytest.raises(InputError, match=message):
        convert(model, **arguments)  # type: ignore[arg-type]
    assert pruned(model) == {}


def test_a_loaded_model_selects_as_the_saved_one_would() -> None:
    specs = {"*.fc?": "bsr:block=1x4,select=priority", "head": "csr"}
    model, x = convert(mlp(), specs), torch.randn(20, 16)
    model(x).sum().backward()
    model.zero_grad()
    other = convert(mlp(), specs)
    other.load_state_dict(model.state_dict())  # which is a plain model's
    for each in (model, other):
        each(x).sum().backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]


def test_counts_select_apart() -> None:
    model, x, found = convert(mlp(), "csr:select=priority,values=int4"), torch.randn(20, 16), []
    for count in (0, 1, 0):
        model.zero_grad()
        redraw(model, count)
        model(x).sum().backward()
        found.append(next(model.parameters()).grad)
    first, other, again = found
    assert first is not None
    assert other is not None
    assert again is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(InputError, match=r"^count: expected 0 or more, got -1$"):
        redraw(model, -1)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_weights_that_no_format_multiplies_are_left_alone(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(torch.zeros(4, 4, dtype=dtype), requires_grad=False)
    convert(model, "csr")
    assert survey(model)["1"] == f"left alone: its weight is of {dtype}"
    with pytest.raises(InputError, match=rf"'1' matches no nn.Linear \(1 .* is of {dtype}\)"):
        convert(model, "csr", include="1")


def test_the_survey_names_a_layer_that_was_frozen_since() -> None:
    model = convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "csr")
    model[0].requires_grad_(False)
    frozen = "left alone: frozen, so that its input is kept nowhere"
    assert survey(model) == {"0": frozen, "1": "csr:sparsity=0.9"}
