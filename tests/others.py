"""Packages of other people's models, of which a machine may lack any."""

import sys
from importlib import import_module
from types import ModuleType

import pytest
import torch


def mend_torchvision() -> None:
    """Let timm and transformers be imported beside a CPU's torch.

    Both import torchvision, whose build for CUDA cannot load its operators there; two of their
    names are all that the import needs.
    """
    try:
        import_module("torchvision")
    except ModuleNotFoundError:
        pass
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        _KEPT.append(library)
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]


def package(name: str) -> ModuleType:
    """timm, transformers and the like, or the test is skipped."""
    mend_torchvision()
    found: ModuleType = pytest.importorskip(name)
    return found


_KEPT: list[torch.library.Library] = []
"""A library's operators live as long as it does."""
