"""FastNet: a residual U-Net for machines without a GPU.

A ResNet-18 encoder of adjustable width, skips that are added instead of concatenated, concurrent squeeze and excitation
in the decoder, a hypercolumn, and logits computed at half resolution that a pixel shuffle brings to full size.

He et al. 2016 (basic block), https://arxiv.org/abs/1512.03385; Roy et al. 2018 (scSE), https://arxiv.org/abs/1803.02579;
Hariharan et al. 2015 (hypercolumn), https://arxiv.org/abs/1411.5752; Shi et al. 2016 (pixel shuffle),
https://arxiv.org/abs/1609.05158
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.images import Normalise, check_counts, check_images
from nets.output import Output

HYPERCOLUMN = 32  # channels into which each decoder level is projected


class FastNet(nn.Module):
    """Images (N, channels, H, W) in 0..1, any even H and W -> Output with logits (N, classes, H, W).

    `width` is the number of channels at a quarter of the resolution; an eighth has twice, all below four times as many.
    """

    def __init__(self, width: int = 64, classes: int = 1, channels: int = 3):
        super().__init__()
        check_counts(width=width, classes=classes, channels=channels)
        self.channels = channels
        self.normalise = Normalise(channels)
        half, w = width // 2, width
        self.stem = nn.Sequential(conv_norm(channels, half, stride=2), nn.ReLU(), conv_norm(half, half), nn.ReLU())
        self.stage1 = nn.Sequential(nn.MaxPool2d(3, 2, 1), Residual(half, w), Residual(w, w))
        self.stage2 = nn.Sequential(Residual(w, 2 * w, stride=2), Residual(2 * w, 2 * w))
        self.stage3 = nn.Sequential(Residual(2 * w, 4 * w, stride=2), Residual(4 * w, 4 * w))
        self.stage4 = nn.Sequential(Residual(4 * w, 4 * w, stride=2), Residual(4 * w, 4 * w))
        self.decoder4 = Decoder(4 * w, 4 * w)
        self.decoder3 = Decoder(4 * w, 2 * w)
        self.decoder2 = Decoder(2 * w, w)
        self.decoder1 = Decoder(w, half)
        self.hypercolumn = Hypercolumn((half, w, 2 * w, 4 * w))
        self.head = nn.Sequential(
            conv_norm(HYPERCOLUMN, HYPERCOLUMN), nn.ReLU(), nn.Conv2d(HYPERCOLUMN, 4 * classes, 1), nn.PixelShuffle(2)
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts whose activations are worth computing again (see nets.recompute)."""
        stages = (self.stage1, self.stage2, self.stage3, self.stage4)
        residuals = [block for stage in stages for block in stage if isinstance(block, Residual)]
        return [*residuals, self.decoder4, self.decoder3, self.decoder2, self.decoder1]

    def forward(self, images: Tensor) -> Output:
        check_images(images, self.channels, multiple=2)
        e0 = self.stem(self.normalise(images))  # 1/2
        e1 = self.stage1(e0)  # 1/4
        e2 = self.stage2(e1)  # 1/8
        e3 = self.stage3(e2)  # 1/16
        e4 = self.stage4(e3)  # 1/32
        d4 = self.decoder4(e4, e3)
        d3 = self.decoder3(d4, e2)
        d2 = self.decoder2(d3, e1)
        d1 = self.decoder1(d2, e0)
        return Output(self.head(self.hypercolumn((d1, d2, d3, d4))))


def conv_norm(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv_norm(inputs, outputs, stride)
        self.conv2 = conv_norm(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class Decoder(nn.Module):
    """The deeper level, projected and enlarged to the skip's size, is added to the skip and refined there."""

    def __init__(self, deeper: int, skip: int):
        super().__init__()
        self.project = conv_norm(deeper, skip, kernel=1)
        self.refine = Residual(skip, skip)
        self.attention = SqueezeExcite(skip)

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        enlarged = F.interpolate(self.project(deeper), skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.attention(self.refine(F.relu(enlarged + skip)))


class SqueezeExcite(nn.Module):
    """scSE: one gate per channel plus one per pixel."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(8, channels // 4)
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )
        self.pixel = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.sigmoid(self.channel(x)) + torch.sigmoid(self.pixel(x)))


class Hypercolumn(nn.Module):
    """Every level projected to HYPERCOLUMN channels at its own size, then enlarged to the finest and summed.

    A 1x1 convolution of concatenated enlarged levels is this same sum, at many times the work.
    """

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(channels, HYPERCOLUMN, 1, bias=False) for channels in levels)
        self.norm = nn.BatchNorm2d(HYPERCOLUMN)

    def forward(self, levels: tuple[Tensor, ...]) -> Tensor:
        size = levels[0].shape[-2:]
        projected = [project(level) for project, level in zip(self.projections, levels, strict=True)]
        enlarged = [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in projected[1:]]
        return F.relu(self.norm(sum(enlarged, projected[0])))
