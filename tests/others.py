"""Packages of other people's models, of which a machine may lack any."""

from types import ModuleType

import pytest

from benchmarks.scripts.models import mend_torchvision


def package(name: str) -> ModuleType:
    """timm, transformers and the like, or the test is skipped."""
    mend_torchvision()
    found: ModuleType = pytest.importorskip(name)
    return found
