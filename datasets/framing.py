"""How a tile becomes the square image a net takes, and how the net's output becomes a tile again.

`pad` reflects the tile at its borders (reflect-101: the edge itself is not repeated) and crops back, which is exact.
`resize` samples it bilinearly both ways. Training, validation and inference share one framing, so that all of them
score at the tile's own size.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from command import BadInput


@dataclass(frozen=True)
class Framing(ABC):
    """Tiles of `tile_size` (H, W) to squares of `image_size` (S) pixels and back; N images, C channels."""

    tile_size: tuple[int, int]  # pixels, height and width
    image_size: int  # pixels, the side of what the net sees

    def __post_init__(self):
        if min(*self.tile_size, self.image_size) < 1:
            raise BadInput(
                f"got tiles of {size(self.tile_size)} and --image_size={self.image_size}, expected 1 or more"
            )

    @abstractmethod
    def frame(self, images: Tensor) -> Tensor:
        """(N, C, H, W) floating point -> (N, C, S, S)."""

    @abstractmethod
    def frame_mask(self, masks: Tensor) -> Tensor:
        """(N, H, W) of any type, 0 or 1 -> (N, S, S) of the same type, 0 or 1."""

    @abstractmethod
    def unframe(self, x: Tensor) -> Tensor:
        """(N, C, S, S) floating point -> (N, C, H, W)."""

    @abstractmethod
    def loss_view(self, logits: Tensor) -> Tensor:
        """The part of (N, C, S, S) logits that the loss is taken on; beside `loss_mask`."""

    @abstractmethod
    def loss_mask(self, masks: Tensor) -> Tensor:
        """(N, H, W) masks at the size of `loss_view`."""

    def fitting(self, tile_size: tuple[int, int]) -> "Framing":
        """The same framing for tiles of another size. Raises BadInput where it cannot be."""
        return self if tile_size == self.tile_size else replace(self, tile_size=tuple(tile_size))

    def check_tiles(self, x: Tensor) -> None:
        if tuple(x.shape[-2:]) != self.tile_size:
            raise BadInput(
                f"got tiles of {size(x.shape[-2:])} pixels, expected {size(self.tile_size)}, "
                "the size that this framing (and its model) was made for: use data of that size or train a new model"
            )

    def check_images(self, x: Tensor) -> None:
        assert x.shape[-2:] == (self.image_size, self.image_size), (
            f"{tuple(x.shape)} is not framed to {self.image_size}"
        )


class Pad(Framing):
    """Reflection around the centred tile: 101 to 128 pixels is 13 before and 14 after. `unframe` is exact."""

    def __post_init__(self):
        super().__post_init__()
        for side in self.tile_size:
            before, after = padding(side, self.image_size)
            if before < 0:
                raise BadInput(
                    f"--image_size={self.image_size} is smaller than the tiles ({size(self.tile_size)}), which padding "
                    "cannot shrink: use a larger --image_size or --variant=resize"
                )
            if after >= side:
                raise BadInput(
                    f"--image_size={self.image_size} would pad tiles of {size(self.tile_size)} by {after} pixels, and "
                    f"a reflection reaches {side - 1} at most: use a smaller --image_size or --variant=resize"
                )

    def frame(self, images: Tensor) -> Tensor:
        self.check_tiles(images)
        top, bottom = padding(self.tile_size[0], self.image_size)
        left, right = padding(self.tile_size[1], self.image_size)
        return F.pad(images, (left, right, top, bottom), mode="reflect")

    def frame_mask(self, masks: Tensor) -> Tensor:
        # Through float32, as reflection of integers is not offered on every device; 0 and 1 pass it unchanged.
        return self.frame(masks[:, None].float())[:, 0].to(masks.dtype)

    def unframe(self, x: Tensor) -> Tensor:
        self.check_images(x)
        height, width = self.tile_size
        top, left = padding(height, self.image_size)[0], padding(width, self.image_size)[0]
        return x[..., top : top + height, left : left + width]

    def loss_view(self, logits: Tensor) -> Tensor:
        return self.unframe(logits)

    def loss_mask(self, masks: Tensor) -> Tensor:
        self.check_tiles(masks)
        return masks


class Resize(Framing):
    """Bilinear resizing, masks by nearest neighbour, pixel centres aligned (`align_corners=False`).

    Not smaller than the tile (S >= H, W), `unframe(frame(x))` differs from x by at most (H + W) / (2 S) times the
    largest difference between horizontal or vertical neighbours of x: 0.79 of it for 101 to 128 pixels. (Along one
    side the two framed pixels around a tile's pixel lie a and b from it, a + b = H / S in the tile's pixels, which
    moves it by 2 a b S / H <= H / (2 S) of that difference.) Flat images come back exactly but for rounding.
    """

    def frame(self, images: Tensor) -> Tensor:
        self.check_tiles(images)
        if self.tile_size == (self.image_size, self.image_size):
            return images
        shrinks = max(self.tile_size) > self.image_size  # then every pixel of the tile should count
        return bilinear(images, (self.image_size, self.image_size), antialias=shrinks)

    def frame_mask(self, masks: Tensor) -> Tensor:
        self.check_tiles(masks)
        # "nearest-exact" takes the nearest pixel centre, as bilinear does; "nearest" is half a pixel off.
        shape = (self.image_size, self.image_size)
        return F.interpolate(masks[:, None].float(), shape, mode="nearest-exact")[:, 0].to(masks.dtype)

    def unframe(self, x: Tensor) -> Tensor:
        self.check_images(x)
        return x if tuple(x.shape[-2:]) == self.tile_size else bilinear(x, self.tile_size)

    def loss_view(self, logits: Tensor) -> Tensor:
        self.check_images(logits)
        return logits

    def loss_mask(self, masks: Tensor) -> Tensor:
        return self.frame_mask(masks)


VARIANTS = {"pad": Pad, "resize": Resize}


def build(variant: str, tile_size: tuple[int, int], image_size: int = 128) -> Framing:
    """The framing of `variant` for tiles of (height, width) pixels. Raises BadInput where it cannot be."""
    if variant not in VARIANTS:
        raise BadInput(f"got --variant={variant}, expected one of {', '.join(VARIANTS)}")
    height, width = tile_size
    return VARIANTS[variant]((int(height), int(width)), int(image_size))


def padding(side: int, image_size: int) -> tuple[int, int]:
    """Pixels before and after; the odd one goes after."""
    before = (image_size - side) // 2
    return before, image_size - side - before


def bilinear(x: Tensor, shape: tuple[int, int], antialias: bool = False) -> Tensor:
    return F.interpolate(x, shape, mode="bilinear", align_corners=False, antialias=antialias)


def size(shape) -> str:
    height, width = shape
    return f"{height}x{width}"
