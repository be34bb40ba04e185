"""Random variation of whole batches, on the tensors' device: cutout, geometry in one sampling grid, brightness.

The default strengths are those of the 9th-place solution of TGS salt. As if applied to each tile in this order:
cutout, horizontal flip, crop and rescale, zoom, shear, rotation, elastic grid, brightness shift, scale, gamma.
Photographs and satellite images have no top: the presets `safe` to `hard` turn them by quarters, and vary more of what
they look like (datasets/photometric.py). Grey values are varied in the first three channels alone.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from command import BadInput
from datasets.photometric import Photometric


class Draws(NamedTuple):
    """What happens to each of N tiles, on the CPU. Neutral values where a transform was not drawn."""

    cutout: Tensor  # (N,) bool
    cutout_centre: Tensor  # (N, 2) x and y, whole pixels
    flip: Tensor  # (N,) bool
    crop: Tensor  # (N, 4) pixels lost left, right, top, bottom
    shear: Tensor  # (N,) pixels that the top edge moves to the right and the bottom edge to the left
    rotation: Tensor  # (N,) radians
    stretch_x: Tensor  # (N, steps) factor of each step's width
    stretch_y: Tensor  # (N, steps)
    shift: Tensor  # (N,) added
    scale: Tensor  # (N,) factor
    gamma: Tensor  # (N,) exponent
    zoom: Tensor  # (N,) factor by which things grow about the middle
    move: Tensor  # (N, 2) pixels that things go to the right and down
    turns: Tensor  # (N,) quarter turns to the left, 0 .. 3
    transposed: Tensor  # (N,) bool

    def at(self, tiles: Tensor, device: torch.device) -> "Draws":
        """What happens to these tiles, moved to `device` in one piece."""
        values = [value[tiles] for value in self]
        columns = [value.reshape(len(tiles), -1).float() for value in values]
        parts = moved(torch.cat(columns, dim=1), device).split([column.shape[1] for column in columns], dim=1)
        return Draws(*(part.view(value.shape).to(value.dtype) for part, value in zip(parts, values, strict=True)))

    def warped(self) -> Tensor:
        """Indices of the tiles that the sampling grid changes. Flips are not in it: exact, they need no sampling."""
        stretched = (self.stretch_x != 1).any(dim=1) | (self.stretch_y != 1).any(dim=1)
        moved = (self.zoom != 1) | self.move.any(dim=1)
        return (self.crop.any(dim=1) | (self.shear != 0) | (self.rotation != 0) | stretched | moved).nonzero()[:, 0]

    def brightened(self) -> Tensor:
        """Indices of the tiles whose grey values change."""
        return ((self.shift != 0) | (self.scale != 1) | (self.gamma != 1)).nonzero()[:, 0]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """`augment(images, masks, generator)` -> new images and masks; its input stays as it is."""

    cutout: float = 0.5  # probability; the mask stays; not where it would hide more than half of the salt
    cutout_size: int = 30  # pixels, side of the square, clipped at the borders
    cutout_fill: tuple[float, ...] = (0.485, 0.456, 0.406)  # per channel (ImageNet's mean); their mean for other counts
    flip: float = 0.5  # probability, horizontal
    crop: float = 0.125  # probability
    crop_share: float = 0.2  # of the side, each of the four edges loses less than this
    shear: float = 0.125  # probability
    shear_share: float = 0.07  # of the width, the most that the top edge moves
    rotation: float = 0.125  # probability
    rotation_degrees: float = 15  # the most, either way
    elastic: float = 0.125  # probability
    elastic_amplitude: float = 0.15  # the largest amplitude of a tile; below 1
    elastic_step: int = 10  # pixels
    shift: float = 0.165  # probability
    shift_bound: float = 0.1  # of the full range, either way
    scale: float = 0.165  # probability
    scale_bound: float = 0.08  # share of the value, either way
    gamma: float = 0.165  # probability
    gamma_bound: float = 0.08  # the exponent is 1 / U(1 - bound, 1 + bound)
    zoom: float = 0  # probability, of a zoom and a move
    zoom_bound: float = 0.1  # share, either way
    move_share: float = 0.0625  # of the side, the most, either way
    quarters: bool = False  # turned by 0 .. 3 quarters, all alike, and transposed half of the time
    photometric: Photometric | None = None  # applied last

    def __post_init__(self):
        for name in ("cutout", "flip", "crop", "shear", "rotation", "elastic", "shift", "scale", "gamma", "zoom"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name}={getattr(self, name)} is not a probability, expected 0..1")
        if not 0 <= self.crop_share <= 0.5:
            raise BadInput(f"crop_share={self.crop_share} leaves nothing of a tile, expected 0..0.5")
        if not 0 <= self.elastic_amplitude < 1:
            raise BadInput(f"elastic_amplitude={self.elastic_amplitude} folds tiles, expected 0 or more and below 1")

    def __call__(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """images (N, C, H, W) float, 0..1; masks (N, H, W) uint8; the generator is a CPU one for any device.

        Tiles for which nothing is drawn come back bit for bit.
        """
        draws = self.draw(len(images), *images.shape[-2:], generator)
        images, masks = images.clone(), masks.clone()
        self._cut_out(images, masks, draws)
        flip(images, masks, draws)
        if self.quarters:
            turn(images, masks, draws)
        warp(images, masks, draws, self.elastic_step)
        brighten(images[:, :3], draws)
        return self.photometric(images, generator) if self.photometric else images, masks

    def draw(self, num_tiles: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """All randomness of a batch: as many numbers whatever happens, so later batches depend on the seed only."""
        columns, rows = (max(1, math.ceil((side - 1) / self.elastic_step)) for side in (width, height))

        def happens(probability: float) -> Tensor:
            return torch.rand(num_tiles, generator=generator) < probability

        def between(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(num_tiles, generator=generator)

        def whole(count: int) -> Tensor:  # 0 .. count - 1
            return between(0, count).floor().clamp(max=max(count - 1, 0))

        cutout, centre = happens(self.cutout), torch.stack([whole(width), whole(height)], dim=1)
        mirrored = happens(self.flip)
        lost = [whole(int(self.crop_share * side)) for side in (width, width, height, height)]
        crop = torch.stack(lost, dim=1) * happens(self.crop)[:, None]
        shear = between(-self.shear_share * width, self.shear_share * width) * happens(self.shear)
        degrees = between(-self.rotation_degrees, self.rotation_degrees) * happens(self.rotation)
        amplitude = between(0, self.elastic_amplitude) * happens(self.elastic)
        stretch = 1 + torch.stack([between(-1, 1) * amplitude for _ in range(columns + rows)], dim=1)
        shift = between(-self.shift_bound, self.shift_bound) * happens(self.shift)
        scale = 1 + between(-self.scale_bound, self.scale_bound) * happens(self.scale)
        gamma = 1 / (1 + between(-self.gamma_bound, self.gamma_bound) * happens(self.gamma))
        zoom, move = torch.ones(num_tiles), torch.zeros(num_tiles, 2)
        if self.zoom:
            drawn = happens(self.zoom)
            zoom = 1 + between(-self.zoom_bound, self.zoom_bound) * drawn
            sides = (self.move_share * width, self.move_share * height)
            move = torch.stack([between(-side, side) for side in sides], dim=1) * drawn[:, None]
        turns, transposed = torch.zeros(num_tiles), torch.zeros(num_tiles, dtype=torch.bool)
        if self.quarters:
            turns, transposed = whole(4), happens(0.5)
        return Draws(
            cutout=cutout,
            cutout_centre=centre,
            flip=mirrored,
            crop=crop,
            shear=shear,
            rotation=degrees.deg2rad(),
            stretch_x=stretch[:, :columns],
            stretch_y=stretch[:, columns:],
            shift=shift,
            scale=scale,
            gamma=gamma,
            zoom=zoom,
            move=move,
            turns=turns,
            transposed=transposed,
        )

    def _cut_out(self, images: Tensor, masks: Tensor, draws: Draws) -> None:
        """Fill one square per drawn tile, in place."""
        tiles = draws.cutout.nonzero()[:, 0]
        if len(tiles) == 0:
            return
        (channels, height, width), device = images.shape[1:], images.device
        centre, tiles = moved(draws.cutout_centre[tiles], device), moved(tiles, device)
        columns = _covers(centre[:, 0], width, self.cutout_size)
        rows = _covers(centre[:, 1], height, self.cutout_size)
        square = rows[:, :, None] & columns[:, None, :]
        salt = masks[tiles] > 0
        hidden = (salt & square).sum(dim=(1, 2))
        square &= (2 * hidden <= salt.sum(dim=(1, 2)))[:, None, None]
        fill = self.cutout_fill
        if channels != len(fill):
            fill = (sum(fill) / len(fill),) * channels
        fill = moved(torch.tensor(fill, dtype=images.dtype), device)[:, None, None]
        images[tiles] = torch.where(square[:, None], fill, images[tiles])


def moved(x: Tensor, device: torch.device) -> Tensor:
    """x of the CPU on `device`; a GPU gets it in passing, where an ordinary copy would wait for all work before it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def flip(images: Tensor, masks: Tensor, draws: Draws) -> None:
    """Mirror the drawn tiles left to right, in place. Exact, so not left to the sampling grid, which interpolates."""
    tiles = moved(draws.flip.nonzero()[:, 0], images.device)
    images[tiles] = images[tiles].flip(-1)
    masks[tiles] = masks[tiles].flip(-1)


def turn(images: Tensor, masks: Tensor, draws: Draws) -> None:
    """Quarter turns, then transposition of the drawn tiles, in place; exact. Tiles that are not square: half turns."""
    square = masks.shape[-2] == masks.shape[-1]
    for turns in (1, 2, 3) if square else (2,):
        tiles = moved((draws.turns == turns).nonzero()[:, 0], images.device)
        images[tiles] = images[tiles].rot90(turns, (-2, -1))
        masks[tiles] = masks[tiles].rot90(turns, (-2, -1))
    if square:
        tiles = moved(draws.transposed.nonzero()[:, 0], images.device)
        images[tiles] = images[tiles].mT
        masks[tiles] = masks[tiles].mT


def warp(images: Tensor, masks: Tensor, draws: Draws, step: int) -> None:
    """All drawn geometry in one sampling, in place: bilinear for images, nearest for masks, reflected at the border."""
    tiles = draws.warped()
    if len(tiles) == 0:
        return
    grid = sampling_grid(draws.at(tiles, images.device), *masks.shape[-2:], step).to(images.dtype)
    tiles = moved(tiles, images.device)
    images[tiles] = sample(images[tiles], grid, "bilinear").clamp_(0, 1)
    masks[tiles] = sample(masks[tiles, None].to(images.dtype), grid, "nearest")[:, 0].to(masks.dtype)


def sample(images: Tensor, grid: Tensor, mode: str) -> Tensor:
    """images (N, C, H, W) read at grid (N, H, W, 2) of x and y in -1..1, the centres of the outermost pixels."""
    return F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=True)


def sampling_grid(draws: Draws, height: int, width: int, step: int) -> Tensor:
    """Where each pixel of the result comes from: (N, H, W, 2) of x and y in -1..1, for `sample`.

    A transform that comes later moves the result, so its source is looked up earlier: the steps run backwards.
    Between them the border is reflected, as it would be if each made an image of its own.
    """
    right, bottom = max(width - 1, 1), max(height - 1, 1)
    x = reflect(_accumulate(draws.stretch_x, width, step), right)[:, None, :]
    y = reflect(_accumulate(draws.stretch_y, height, step), bottom)[:, :, None]

    cos, sin = draws.rotation.cos()[:, None, None], draws.rotation.sin()[:, None, None]
    x, y = x - right / 2, y - bottom / 2
    x, y = cos * x - sin * y + right / 2, sin * x + cos * y + bottom / 2
    x, y = reflect(x, right), reflect(y, bottom)

    x = reflect(x - draws.shear[:, None, None] * (1 - y * (2 / bottom)), right)

    zoom, (go_right, go_down) = draws.zoom[:, None, None], draws.move[:, :, None, None].unbind(dim=1)
    x = reflect((x - go_right - right / 2) / zoom + right / 2, right)
    y = reflect((y - go_down - bottom / 2) / zoom + bottom / 2, bottom)

    left, lost_right, top, lost_bottom = draws.crop[:, :, None, None].unbind(dim=1)
    x = left + x * ((right - left - lost_right) / right)
    y = top + y * ((bottom - top - lost_bottom) / bottom)
    return torch.stack([x * (2 / right) - 1, y * (2 / bottom) - 1], dim=-1)


def reflect(position: Tensor, last: int) -> Tensor:
    """Positions outside of 0..last mirrored at the outermost pixels (reflect-101)."""
    return last - (last - position.abs() % (2 * last)).abs()


def brighten(images: Tensor, draws: Draws) -> None:
    """Shift, scale and gamma of the drawn tiles, in place, each clipped to 0..1."""
    tiles = draws.brightened()
    if len(tiles) == 0:
        return
    drawn, tiles = draws.at(tiles, images.device), moved(tiles, images.device)
    brightness = (drawn.shift, drawn.scale, drawn.gamma)
    shift, scale, gamma = (value.to(images.dtype)[:, None, None, None] for value in brightness)
    grey = images[tiles].add_(shift).clamp_(0, 1).mul_(scale).clamp_(0, 1)
    images[tiles] = grey.pow_(gamma)


def _covers(centre: Tensor, side: int, size: int) -> Tensor:
    """Which of `side` positions lie within `size` around each centre: (N,) -> (N, side), bool."""
    start = centre[:, None] - size // 2
    position = torch.arange(side, device=centre.device)
    return (position >= start) & (position < start + size)


def _accumulate(stretch: Tensor, side: int, step: int) -> Tensor:
    """Positions 0 .. side - 1 on an axis whose steps are stretched one after the other, from 0: (N, side), rising."""
    knots = F.pad(stretch.cumsum(dim=1) * step, (1, 0))
    position = torch.arange(side, device=stretch.device)
    index = (position // step).clamp(max=stretch.shape[1] - 1)
    return knots[:, index] + (position - index * step) * stretch[:, index]


NOTHING = dict.fromkeys(
    ("cutout", "flip", "crop", "shear", "rotation", "elastic", "shift", "scale", "gamma", "zoom"), 0
)
QUARTERS = NOTHING | {"quarters": True}
AUGMENTATIONS = {
    # for tiles of seismic sections, which have a top
    "saltnet": Augment(),
    "seismic": Augment(
        cutout=0,
        crop_share=0.1,
        shear_share=0.03,
        rotation_degrees=5,
        elastic=0,
        shift_bound=0.05,
        scale_bound=0.05,
        gamma=0,
    ),
    # for any images
    "none": Augment(**NOTHING),
    "safe": Augment(**QUARTERS),
    "light": Augment(
        **QUARTERS | {"zoom": 0.5, "zoom_bound": 0.05, "rotation": 0.5},
        photometric=Photometric(contrast=0.5),
    ),
    "medium": Augment(
        **NOTHING | {"flip": 0.5, "zoom": 0.5, "rotation": 0.5},
        photometric=Photometric(contrast=0.3, colour=0.1, saturation=0.1, gamma=0.1, blur=0.25, noise=0.5, holes=0.25),
    ),
    "hard": Augment(
        **QUARTERS | {"zoom": 0.4, "zoom_bound": 0.2, "rotation": 0.4, "rotation_degrees": 45, "elastic": 0.25},
        photometric=Photometric(
            contrast=0.3, colour=0.2, saturation=0.2, gamma=0.2, blur=0.25, noise=0.25, fog=0.1, holes=0.4
        ),
    ),
}
