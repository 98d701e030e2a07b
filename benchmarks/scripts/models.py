"""What settings hold, cost and err on models that others wrote, beside dense and checkpointing.

``python -m benchmarks.scripts.models --json FILE`` needs timm and transformers (random weights,
nothing is downloaded). For each model and spec: bytes alive between forward and backward and the
most alive in both as shares of dense's, the relative L2 error of the whole gradient, the step as a
ratio to dense's (medians of interleaved steps), all beside checkpointing. On a CPU a step is the
processor time of its one thread, page faults included: what else the machine does is not in it.

On a CPU bytes are those of storages that operators made and that are still alive; on CUDA they are
the allocator's.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import actprune
from actprune.budget.peak import Alive
from actprune_bench.records.environment import environment
from actprune_common.files import write_json

SPECS = (
    actprune.RECOMMENDED,
    f"recompute+{actprune.RECOMMENDED}",
    "@*=>codes:bits=8",
)
CHECKPOINTING = (
    "set_grad_checkpointing",
    "activation_checkpointing_enable",
    "gradient_checkpointing_enable",
)
"""What timm calls it, transformers, and older versions of transformers."""
Make = Callable[[], tuple[nn.Module, Tensor]]
Step = Callable[[], Tensor]
_LIBRARIES: list[torch.library.Library] = []


def mend_torchvision() -> None:
    """Let timm and transformers be imported where torchvision is built for CUDA and torch is not.

    Its operators then fail to load; two of their names are all that the import needs.
    """
    try:
        import_module("torchvision")
    except ModuleNotFoundError:
        return
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        _LIBRARIES.append(library)
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call,unused-ignore]


def models() -> dict[str, Make]:
    """The models by name; each call makes one, and a batch of four."""
    mend_torchvision()
    timm: Any = import_module("timm")
    hf: Any = import_module("transformers")

    def image(name: str, size: int = 224) -> Make:
        def make() -> tuple[nn.Module, Tensor]:
            return timm.create_model(name, num_classes=10), torch.randn(4, 3, size, size)

        return make

    def text(model: Any, config: Any, **options: Any) -> Make:
        def make() -> tuple[nn.Module, Tensor]:
            return model(config(vocab_size=1000, **options)), torch.randint(0, 1000, (4, 128))

        return make

    wide = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    two = {"num_key_value_heads": 2}
    gpt2 = {"n_layer": 4, "n_embd": 256, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    vit = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3}
    experts = wide | two | {"num_hidden_layers": 2, "num_local_experts": 4}
    return {
        "vit_tiny": image("vit_tiny_patch16_224"),
        "deit3_small": image("deit3_small_patch16_224"),
        "mixer_s32": image("mixer_s32_224"),
        "resmlp_12": image("resmlp_12_224"),
        "gmlp_s16": image("gmlp_s16_224"),
        "convnext_atto": image("convnext_atto"),
        "swin_tiny": image("swin_tiny_patch4_window7_224"),
        "resnet18": image("resnet18"),
        "vit_small_dinov3": image("vit_small_patch16_dinov3", 256),
        "efficientformer_l1": image("efficientformer_l1"),
        "poolformer_s12": image("poolformer_s12"),
        "hf_gpt2": text(hf.GPT2LMHeadModel, hf.GPT2Config, **gpt2),
        "hf_llama": text(hf.LlamaForCausalLM, hf.LlamaConfig, intermediate_size=688, **wide),
        "hf_bert": text(
            hf.BertForSequenceClassification, hf.BertConfig, intermediate_size=1024, **wide
        ),
        "hf_vit": lambda: (
            hf.ViTForImageClassification(hf.ViTConfig(intermediate_size=768, **vit)),
            torch.randn(4, 3, 224, 224),
        ),
        "hf_qwen3": text(
            *(hf.Qwen3ForCausalLM, hf.Qwen3Config),
            **{"intermediate_size": 688, "head_dim": 64, **wide, **two},
        ),
        "hf_mixtral": text(
            hf.MixtralForCausalLM, hf.MixtralConfig, intermediate_size=344, **experts
        ),
    }


def held(model: nn.Module, step: Step) -> tuple[int, int]:
    """Bytes that the forward pass leaves for the backward pass, and the most alive in both."""
    model.zero_grad(set_to_none=True)
    own = [*model.parameters(), *model.buffers()]
    if own[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = step()
        kept = torch.cuda.memory_allocated() - before
        loss.backward()  # type: ignore[no-untyped-call]
        return kept, torch.cuda.max_memory_allocated() - before
    alive = Alive("cpu")
    with alive:
        loss = step()
        gc.collect()
        apart = {tensor.untyped_storage()._cdata for tensor in (*own, loss)}
        kept = sum(size for address, size in alive.sizes.items() if address not in apart)
        loss.backward()  # type: ignore[no-untyped-call]
    return kept, alive.peak


def step_of(model: nn.Module, x: Tensor, bf16: bool) -> Step:
    def step() -> Tensor:
        torch.manual_seed(1)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            out = model(x)
        logits: Tensor = getattr(out, "logits", out)
        return (logits.float() - 1).square().mean()

    return step


def build(make: Make, device: str, spec: str | None = None) -> tuple[nn.Module, Tensor]:
    """The same weights in every call, none of them at a start that would hide errors."""
    torch.manual_seed(0)
    model, x = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model = model.to(device).train()
    if spec == "checkpoint":
        getattr(model, next(name for name in CHECKPOINTING if hasattr(model, name)))()
    elif spec is not None:
        actprune.apply(model, spec)
    return model, x.to(device)


def measure(
    make: Make, specs: Sequence[str], steps: int, bf16: bool, device: str, times: int
) -> dict[str, dict[str, Any]]:
    """By spec, dense first: what it holds, costs and errs."""
    variants: dict[str, tuple[nn.Module, Step]] = {}
    found: dict[str, dict[str, Any]] = {}
    exact: dict[str, Tensor] = {}
    for spec in ("dense", *specs, "checkpoint"):
        try:
            model, x = build(make, device, None if spec == "dense" else spec)
            step = step_of(model, x.repeat(times, *[1] * (x.dim() - 1)), bf16)
            if device == "cuda":
                step().backward()  # type: ignore[no-untyped-call]
            kept, peak = held(model, step)
        except StopIteration:  # it has no checkpointing of its own
            continue
        except Exception as problem:  # one that fails is a row, not the end
            found[spec] = {"error": f"{type(problem).__name__}: {problem}"}
            continue
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        exact = exact or gradients
        whole = sum(float(g.double().square().sum()) for g in exact.values())
        off = sum(float((gradients[n] - g).double().square().sum()) for n, g in exact.items())
        found[spec] = {"held_bytes": kept, "peak_bytes": peak, "error": (off / whole) ** 0.5}
        variants[spec] = model, step
    for spec, samples in _times(variants, steps, device).items():
        found[spec]["samples_ms"] = samples
    dense = found["dense"]
    for each in found.values():
        if "held_bytes" in each:
            each["held"] = each["held_bytes"] / dense["held_bytes"]
            each["peak"] = each["peak_bytes"] / dense["peak_bytes"]
        if each.get("samples_ms"):
            medians = [statistics.median(one["samples_ms"]) for one in (each, dense)]
            each["step"] = medians[0] / medians[1]
    return found


def _times(
    variants: dict[str, tuple[nn.Module, Step]], steps: int, device: str
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {spec: [] for spec in variants}
    now = time.perf_counter if device == "cuda" else time.process_time
    for number in range(steps + 1 if steps else 0):
        for spec, (model, step) in variants.items():
            model.zero_grad(set_to_none=True)
            _wait(device)
            begin = now()
            step().backward()  # type: ignore[no-untyped-call]
            _wait(device)
            if number:
                taken[spec].append((now() - begin) * 1e3)
    return taken


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure, print a line for each model and spec, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spec", action="append", help="instead of the three of the documentation")
    parser.add_argument("--model", action="append")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--bf16", action="store_true", help="under autocast, dense as well")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--times", type=int, default=1, help="so many times the batch of four")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="no new model then")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start, rows = time.monotonic(), {}
    for name, make in models().items():
        if (given.model and name not in given.model) or time.monotonic() - start > given.budget_s:
            continue
        settings = (given.steps, given.bf16, given.device, given.times)
        rows[name] = measure(make, given.spec or SPECS, *settings)
        for spec, row in rows[name].items():
            shown = ("held", "peak", "error", "step")
            said = [f"{key} {row[key]:.3f}" for key in shown if isinstance(row.get(key), float)]
            print(f"{name:20s} {spec:30s} {' '.join(said) or row.get('error')}", flush=True)
        if given.json:
            about = environment("python -m benchmarks.scripts.models " + " ".join(sys.argv[1:]))
            write_json(given.json, about | {"models": rows})
    for spec in dict.fromkeys(spec for row in rows.values() for spec in row):
        for key in ("held", "peak", "error", "step"):
            values = [row[spec][key] for row in rows.values() if key in row.get(spec, {})]
            numbers = [value for value in values if isinstance(value, float)]
            if numbers:
                middle, worst = statistics.median(numbers), max(numbers)
                print(f"{spec:30s} {key}: median {middle:.3f}, worst {worst:.3f} of {len(numbers)}")


if __name__ == "__main__":
    main()
