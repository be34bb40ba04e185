"""Write satellite tiles of an imagined land with labels and a near-infrared channel, all images in 16 bits.

    python -m datasets.synthetic_satellite --data=data/land --num_train=240 --num_val=60 --size=128

    DATA/{train, val, winter/val}/{images/*.png (RGB), nir/*.tif, gt/*.png}

Labels: 1 water, 2 forest, 5 buildings; 0 is everything else. `winter` is a second validation set, of paler tiles. Near
infrared tells forest from water and dark fields. The same seed gives the same tiles.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

import command
from command import BadInput, at_least
from datasets import pictures
from datasets.newfolder import new_folder

WATER, FOREST, BUILDING = 1, 2, 5
SIGN = "synthetic.txt"
CONTENT = {"train", "val", "winter", SIGN}
FIELD = 0
COLOURS = {
    FIELD: (0.36, 0.38, 0.22),
    WATER: (0.10, 0.17, 0.23),
    FOREST: (0.12, 0.22, 0.12),
    BUILDING: (0.55, 0.5, 0.47),
}
INFRARED = {FIELD: 0.45, WATER: 0.04, FOREST: 0.72, BUILDING: 0.35}


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str  # the folder to make; one that this command made before is replaced
    num_train: int = 240  # tiles
    num_val: int = 60  # tiles of each validation set
    size: int = 128  # pixels, both sides
    seed: int = 0  # of everything drawn

    def __post_init__(self) -> None:
        for name, least in (("num_train", 1), ("num_val", 1), ("seed", 0)):
            at_least(name, getattr(self, name), least)
        if not 32 <= self.size <= 4096:
            raise BadInput(f"--size={self.size} is out of range: 32 to 4096 pixels")


def write(options: Options) -> None:
    """Make the folder."""
    parts = {"train": options.num_train, "val": options.num_val, "winter/val": options.num_val}
    with new_folder(Path(options.data), CONTENT, SIGN) as folder:
        for number, (part, count) in enumerate(parts.items()):
            for tile in range(count):
                rng = np.random.default_rng([options.seed, number, tile])
                rgb, infrared, labels = land(rng, options.size, winter=part.startswith("winter"))
                stem = f"{part.partition('/')[0]}_{tile:04d}"
                pictures.write(folder / part / "images" / f"{stem}.png", rgb)
                pictures.write(folder / part / "nir" / f"{stem}.tif", infrared)
                pictures.write(folder / part / "gt" / f"{stem}.png", labels)
        (folder / SIGN).write_text(f"made by datasets.synthetic_satellite: {options}\n")
    print(f"{options.data}: {options.num_train} training tiles, twice {options.num_val} for validation")


def land(rng: Generator, size: int, winter: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB (S, S, 3) and near infrared (S, S), uint16, and labels (S, S) uint8."""
    labels = np.zeros((size, size), np.uint8)
    height = relief(rng, size, 0.18 * size)
    woods = relief(rng, size, 0.07 * size)
    labels[woods > rng.uniform(0.3, 1.2)] = FOREST
    labels[height < rng.uniform(-1.6, -0.5)] = WATER
    build(rng, labels)
    fields = np.digitize(relief(rng, size, 0.12 * size), (-0.6, 0.3)) - 1  # three kinds of crops
    rgb, infrared = np.empty((size, size, 3)), np.empty((size, size))
    for label, colour in COLOURS.items():
        place = labels == label
        rgb[place], infrared[place] = colour, INFRARED[label]
    plain = labels == FIELD
    rgb[plain] *= (1 + 0.35 * fields[plain])[:, None]
    infrared[plain] *= 1 + 0.3 * fields[plain]
    rough = np.where(labels == FOREST, 0.3, np.where(labels == WATER, 0.05, 0.12))
    texture = gaussian_filter(rng.standard_normal((size, size)), 0.8)
    rgb *= (1 + rough * texture / texture.std())[..., None]
    infrared *= 1 + 0.5 * rough * texture / texture.std()
    if winter:
        snow = (labels == FIELD) * rng.uniform(0.4, 0.8)
        rgb += (0.8 - rgb) * snow[..., None]
        infrared += (0.6 - infrared) * snow
    rgb = gaussian_filter(rgb, (0.7, 0.7, 0)) * rng.uniform(0.8, 1.2) + rng.normal(0, 0.012, rgb.shape)
    infrared = gaussian_filter(infrared, 0.7) + rng.normal(0, 0.012, infrared.shape)
    return to_16_bits(rgb), to_16_bits(infrared), labels


def relief(rng: Generator, size: int, scale: float) -> np.ndarray:
    """A smooth field (S, S) of mean 0 and spread 1, with detail at half and a quarter of the scale."""
    total = sum(
        share * gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap") * sigma
        for sigma, share in ((scale, 1), (scale / 2, 0.5), (scale / 4, 0.25))
    )
    return (total - total.mean()) / total.std()


def build(rng: Generator, labels: np.ndarray) -> None:
    """Rows of houses along a street, on dry land without trees, in place; none in a third of the tiles."""
    size = len(labels)
    if rng.random() < 1 / 3:
        return
    angle, centre = rng.uniform(0, 180), rng.uniform(0.2, 0.8, 2) * size
    turned = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    houses = np.zeros_like(labels)
    for along in np.arange(-0.45, 0.45, 0.11):
        for across in (-0.07, 0.07):
            if rng.random() < 0.25:
                continue
            place = centre + size * (along * turned + across * np.array([-turned[1], turned[0]]))
            sides = size * rng.uniform(0.04, 0.075, 2)
            corners = cv2.boxPoints((tuple(map(float, place)), tuple(map(float, sides)), float(angle)))
            cv2.fillPoly(houses, [corners.round().astype(np.int32)], 1)
    labels[(houses > 0) & (labels == FIELD)] = BUILDING


def to_16_bits(image: np.ndarray) -> np.ndarray:
    return np.rint(65535 * image.clip(0, 1)).astype(np.uint16)


if __name__ == "__main__":
    command.run(write, Options)
