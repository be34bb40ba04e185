"""A small residual U-Net that takes tiles of any size as they are: transposed convolutions, cut to the skip's size.

He et al. 2016 (identity mappings), https://arxiv.org/abs/1603.05027, with ReLU before batch norm; Ronneberger et al.
2015 (U-Net), https://arxiv.org/abs/1505.04597
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.images import Normalise, check_counts, check_images
from nets.output import Output

DEPTH = 4  # halvings
FIRST_DROPOUT, DROPOUT = 0.1, 0.2  # of single values: at the finest level, at all others


class ResidualUNet(nn.Module):
    """Images (N, channels, H, W) in 0..1, H and W from 16 on -> Output with logits (N, classes, H, W).

    `width` channels at full size, twice as many a level. `norm=False` leaves batch norm out.
    """

    def __init__(self, width: int = 16, classes: int = 1, channels: int = 3, norm: bool = True):
        super().__init__()
        check_counts(width=width, classes=classes, channels=channels)
        self.channels = channels
        self.normalise = Normalise(channels)
        levels = [width * 2**level for level in range(DEPTH + 1)]
        self.down = nn.ModuleList(
            level(inputs, outputs, norm) for inputs, outputs in zip([channels, *levels], levels, strict=False)
        )
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(2 * outputs, outputs, 3, stride=2) for outputs in reversed(levels[:-1])
        )
        self.up = nn.ModuleList(level(2 * outputs, outputs, norm) for outputs in reversed(levels[:-1]))
        self.head = nn.Conv2d(width, classes, 3, padding=1)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts whose activations are worth computing again (see nets.recompute)."""
        return [*self.down, *self.up]

    def forward(self, images: Tensor) -> Output:
        check_images(images, self.channels, multiple=1, least=2**DEPTH)
        maps = [self.down[0](self.normalise(images))]
        for depth, stage in enumerate(self.down[1:]):
            maps.append(stage(self.drop(F.max_pool2d(maps[-1], 2), FIRST_DROPOUT if depth == 0 else DROPOUT)))
        x = maps.pop()
        for enlarge, stage in zip(self.enlarge, self.up, strict=True):
            skip = maps.pop()
            height, width = skip.shape[-2:]
            x = stage(self.drop(torch.cat([enlarge(x)[..., :height, :width], skip], dim=1), DROPOUT))
        return Output(self.head(self.drop(x, FIRST_DROPOUT)))

    def drop(self, x: Tensor, share: float) -> Tensor:
        return F.dropout(x, share, self.training)


def level(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), PreActivated(outputs, norm), PreActivated(outputs, norm), nn.ReLU()
    )


class PreActivated(nn.Module):
    """ReLU, batch norm, 3x3 convolution, batch norm, ReLU, 3x3 convolution, batch norm; added to its input."""

    def __init__(self, channels: int, norm: bool):
        super().__init__()

        def make_norm() -> nn.Module:
            return nn.BatchNorm2d(channels) if norm else nn.Identity()

        self.branch = nn.Sequential(
            nn.ReLU(),
            make_norm(),
            nn.Conv2d(channels, channels, 3, padding=1),
            make_norm(),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            make_norm(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)
