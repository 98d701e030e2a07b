"""ResMLP (Touvron et al. 2021, arXiv 2105.03404), with the parameter names of the reference."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actprune_common.errors import check_at_least, expected


class Affine(nn.Module):
    """Aff(x) = alpha * x + beta, per feature (equation 1 of the paper)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        return self.alpha * x + self.beta


class Mlp(nn.Module):
    """Linear, GELU, linear; four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class PatchEmbed(nn.Module):
    """Cuts images into square patches and projects each to `dim` features."""

    def __init__(self, patch_size: int, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, patches, dim)."""
        out: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return out


class Block(nn.Module):
    """A cross-patch linear and an MLP, each with an affine before and a LayerScale after it."""

    def __init__(self, dim: int, patches: int, layer_scale: float) -> None:
        super().__init__()
        self.norm1 = Affine(dim)
        self.attn = nn.Linear(patches, patches)  # the reference's name; there is no attention
        self.gamma_1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.norm2 = Affine(dim)
        self.mlp = Mlp(dim)
        self.gamma_2 = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to the same shape (equations 2 and 3)."""
        across = self.attn(self.norm1(x).transpose(1, 2))  # batch, dim, patches
        x = x + self.gamma_1 * across.transpose(1, 2)
        out: Tensor = x + self.gamma_2 * self.mlp(self.norm2(x))
        return out


class ResMLP(nn.Module):
    """Patches, blocks, a last affine, the mean over patches, and a linear classifier."""

    def __init__(self, variant: "Variant", num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.variant = variant
        self.in_channels = in_channels
        dim, patches = variant.dim, variant.patches
        self.patch_embed = PatchEmbed(variant.patch_size, in_channels, dim)
        self.blocks = nn.ModuleList(
            Block(dim, patches, variant.layer_scale) for _ in range(variant.depth)
        )
        self.norm = Affine(dim)
        self.head = nn.Linear(dim, num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, in_channels, image_size, image_size) to logits (batch, num_classes).

        Raises InputError where the images have another shape.
        """
        size = self.variant.image_size
        if images.dim() != 4 or images.shape[1:] != (self.in_channels, size, size):
            shape = f"(batch, {self.in_channels}, {size}, {size})"
            raise expected("images", f"shape {shape}", tuple(images.shape))
        x = self.patch_embed(images)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.pooled(x))
        return out

    def pooled(self, x: Tensor) -> Tensor:
        """(batch, patches, dim) to (batch, dim): the last affine and the mean over patches."""
        out: Tensor = self.norm(x).mean(1)
        return out


@dataclass(frozen=True)
class Variant:
    """The sizes of one published model; calling it makes the model.

    `layer_scale` is where LayerScale starts: 0.1 up to 18 layers, 1e-5 up to 24, 1e-6 beyond
    (section 3.1 of the paper); the reference starts its wide model at 1e-6.
    """

    image_size: int
    patch_size: int
    dim: int
    depth: int
    layer_scale: float

    @property
    def patches(self) -> int:
        """Patches per image."""
        return (self.image_size // self.patch_size) ** 2

    def __call__(self, num_classes: int = 1000, in_channels: int = 3) -> ResMLP:
        """A freshly initialised model; raises InputError on a count below 1."""
        for argument, count in (("num_classes", num_classes), ("in_channels", in_channels)):
            check_at_least(argument, count, 1)
        return ResMLP(self, num_classes, in_channels)


MODELS: dict[str, Variant] = {
    "resmlp_tiny": Variant(image_size=32, patch_size=4, dim=96, depth=3, layer_scale=0.1),
    "resmlp_s12": Variant(image_size=224, patch_size=16, dim=384, depth=12, layer_scale=0.1),
    "resmlp_s24": Variant(image_size=224, patch_size=16, dim=384, depth=24, layer_scale=1e-5),
    "resmlp_s36": Variant(image_size=224, patch_size=16, dim=384, depth=36, layer_scale=1e-6),
    "resmlp_b24": Variant(image_size=224, patch_size=8, dim=768, depth=24, layer_scale=1e-6),
}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        # The reference truncates at 100 standard deviations, which is to say not at all.
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
