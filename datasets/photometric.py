"""Random variation of what pixels look like, not of where they are: contrast, colour, blur, noise, fog, holes.

For whole batches (N, C, H, W) float in 0..1 on their device, whatever their depth was. Colours are those of the first
three channels; further channels, such as near infrared, keep their values but for noise and holes. Strengths are shares
of an image's own reach, its largest value: 12 bits in a file of 16 are varied as much as a photograph.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from command import BadInput

RGB = slice(0, 3)
GREY = (0.299, 0.587, 0.114)  # of R, G and B in their luminance (ITU-R BT.601)
KERNEL = 9  # pixels, side of the blur


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """`photometric(images, generator)` -> new images in 0..1. Probabilities are of one image."""

    contrast: float = 0  # probability
    contrast_bound: float = 0.2  # share of the distance from the image's mean, either way
    brightness_bound: float = 0.2  # of the reach, either way; drawn with the contrast
    colour: float = 0  # probability
    colour_bound: float = 0.08  # of the reach that R, G and B each move, either way
    saturation: float = 0  # probability
    saturation_bound: float = 0.3  # share of the distance from grey, either way
    gamma: float = 0  # probability
    gamma_bound: float = 0.2  # the exponent is 1 / U(1 - bound, 1 + bound)
    blur: float = 0  # probability
    blur_sigma: float = 1.5  # pixels, the most
    noise: float = 0  # probability
    noise_spread: float = 0.03  # of a channel's reach, the largest standard deviation
    fog: float = 0  # probability
    fog_most: float = 0.3  # share of the reach, the most
    holes: float = 0  # probability
    num_holes: int = 8
    hole_share: float = 0.08  # of the side

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default == 0 and not 0 <= value <= 1:
                raise BadInput(f"{field.name}={value} is not a probability, expected 0..1")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The generator is a CPU one for any device; as many numbers are drawn whatever happens."""
        (count, _, height, width), device = images.shape, images.device

        def happens(probability: float) -> Tensor:
            return (torch.rand(count, generator=generator) < probability).to(device)

        def between(low: float, high: float, *shape: int) -> Tensor:
            drawn = low + (high - low) * torch.rand(count, *shape, generator=generator)
            return drawn.to(device, images.dtype)

        images = images.clone()
        colours = images[:, RGB]
        reach = colours.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
        if self.contrast:
            factor = 1 + between(-self.contrast_bound, self.contrast_bound, 1, 1, 1)
            added = between(-self.brightness_bound, self.brightness_bound, 1, 1, 1)
            mean = colours.mean((1, 2, 3), keepdim=True)
            colours = chosen(happens(self.contrast), (colours - mean) * factor + mean + reach * added, colours)
        if self.colour:
            moved = colours + reach * between(-self.colour_bound, self.colour_bound, colours.shape[1], 1, 1)
            colours = chosen(happens(self.colour), moved, colours)
        if self.saturation and colours.shape[1] == 3:
            factor = 1 + between(-self.saturation_bound, self.saturation_bound, 1, 1, 1)
            grey = (colours * torch.tensor(GREY, dtype=images.dtype, device=device).view(3, 1, 1)).sum(1, keepdim=True)
            colours = chosen(happens(self.saturation), grey + (colours - grey) * factor, colours)
        colours = colours.clamp(0, 1)
        if self.gamma:
            exponent = 1 / (1 + between(-self.gamma_bound, self.gamma_bound, 1, 1, 1))
            colours = chosen(happens(self.gamma), reach * (colours / reach) ** exponent, colours)
        if self.fog:
            share = between(0, self.fog_most, 1, 1, 1)
            colours = chosen(happens(self.fog), colours + (reach - colours) * share, colours)
        if self.blur:
            colours = chosen(happens(self.blur), blurred(colours, between(0.3, self.blur_sigma)), colours)
        images[:, RGB] = colours
        if self.noise:
            spread = between(0, self.noise_spread, 1, 1, 1)
            added = torch.randn(images.shape, generator=generator).to(device, images.dtype)
            images = chosen(happens(self.noise), images + images.amax((2, 3), keepdim=True) * spread * added, images)
        if self.holes:
            side = max(1, round(self.hole_share * min(height, width)))
            inside = covered(between(0, height, self.num_holes), height, side)[:, :, :, None]
            inside = (inside & covered(between(0, width, self.num_holes), width, side)[:, :, None, :]).any(dim=1)
            drawn = happens(self.holes)[:, None, None] & inside
            images = torch.where(drawn[:, None], images.mean((2, 3), keepdim=True), images)
        return images.clamp_(0, 1)


def chosen(drawn: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """`changed` where an image is drawn (N,) bool, `images` elsewhere, bit for bit."""
    return torch.where(drawn.view(-1, 1, 1, 1), changed, images)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """By a Gaussian of its own sigma (N,), in pixels, for each image (N, C, H, W); borders repeat their last pixel."""
    count, channels = images.shape[:2]
    offset = torch.arange(KERNEL, device=images.device) - KERNEL // 2
    weight = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2))
    weight = (weight / weight.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None, None]  # (N C, 1, 1, K)
    half = KERNEL // 2
    flat = F.pad(images, (half, half, half, half), mode="replicate").flatten(0, 1)[None]
    flat = F.conv2d(flat, weight, groups=count * channels)
    return F.conv2d(flat, weight.mT, groups=count * channels)[0].view_as(images)


def covered(centre: Tensor, length: int, side: int) -> Tensor:
    """Which of `length` positions lie within `side` around each centre: (N, holes) -> (N, holes, length), bool."""
    position = torch.arange(length, device=centre.device)
    return (position - centre[..., None].floor()).abs() * 2 < side
