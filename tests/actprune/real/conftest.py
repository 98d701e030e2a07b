"""These packages import torchvision, whose build may not fit a CPU's torch."""

from benchmarks.scripts.models import mend_torchvision

mend_torchvision()
