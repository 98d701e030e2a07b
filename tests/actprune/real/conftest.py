"""These packages import torchvision, whose build may not fit a CPU's torch."""

from tests import others

others.mend_torchvision()
