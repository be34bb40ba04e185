"""Write photographs of imagined cars on a turntable, with masks, in Carvana's layout, for demonstrations and tests.

    python -m datasets.synthetic_cars --data=data/cars --num_cars=40 --height=320 --width=480

Each car is seen from 16 sides, as in Kaggle's Carvana competition: train/CAR_VIEW.jpg and train_masks/CAR_VIEW_mask.gif
(a palette image of 0 and 1). The same seed gives the same cars.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter

import command
from command import BadInput, at_least
from datasets.newfolder import new_folder

VIEWS = 16
SIGN = "synthetic.txt"
CONTENT = {"train", "train_masks", SIGN}
FINE = 2  # drawn so many times as large, then shrunk: smooth outlines in the photograph


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str  # the folder to make; one that this command made before is replaced
    num_cars: int = 40  # each seen from 16 sides
    height: int = 320  # pixels; Carvana has 1280
    width: int = 480  # pixels; Carvana has 1918
    seed: int = 0  # of everything drawn

    def __post_init__(self) -> None:
        at_least("num_cars", self.num_cars, 1)
        at_least("seed", self.seed, 0)
        for name in ("height", "width"):
            if not 64 <= getattr(self, name) <= 4096:
                raise BadInput(f"--{name}={getattr(self, name)} is out of range: 64 to 4096 pixels")


@dataclass(frozen=True)
class Car:
    """Shares of the car's length, but for the colour."""

    height: float
    across: float  # width as seen from the front
    hood: float  # where the windscreen begins
    roof: tuple[float, float]  # where the roof begins and ends
    waist: float  # height of the windows' lower edge, as a share of the car's
    wheel: float  # radius
    colour: np.ndarray  # RGB
    length: float  # of the picture's width


def write(options: Options) -> None:
    """Make the folder."""
    with new_folder(Path(options.data), CONTENT, SIGN) as folder:
        for name in ("train", "train_masks"):
            (folder / name).mkdir()
        for number in range(options.num_cars):
            rng = np.random.default_rng([options.seed, number])
            car = imagined(rng)
            for view in range(VIEWS):
                image, mask = photograph(rng, car, view, (options.height, options.width))
                stem = f"{number:04x}{number * 7919 % 65536:04x}_{view + 1:02d}"
                Image.fromarray(image).save(folder / "train" / f"{stem}.jpg", quality=92)
                palette(mask).save(folder / "train_masks" / f"{stem}_mask.gif")
        (folder / SIGN).write_text(f"made by datasets.synthetic_cars: {options}\n")
    print(f"{options.data}: {options.num_cars * VIEWS} photographs of {options.num_cars} cars")


def imagined(rng: Generator) -> Car:
    hood = rng.uniform(0.2, 0.3)
    return Car(
        height=rng.uniform(0.3, 0.42),
        across=rng.uniform(0.38, 0.46),
        hood=hood,
        roof=(hood + rng.uniform(0.1, 0.16), rng.uniform(0.7, 0.93)),
        waist=rng.uniform(0.5, 0.6),
        wheel=rng.uniform(0.065, 0.08),
        colour=rng.uniform(20, 235, 3) * rng.uniform(0.5, 1),
        length=rng.uniform(0.55, 0.75),
    )


def photograph(rng: Generator, car: Car, view: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """RGB (H, W, 3) uint8 and mask (H, W) uint8, 0 or 1, of the car turned by `view` sixteenths."""
    height, width = (FINE * side for side in size)
    angle = 2 * np.pi * view / VIEWS
    along, across = abs(np.cos(angle)), abs(np.sin(angle))
    length = car.length * width
    seen = length * (along + car.across * across)  # of the whole car
    left, ground = (width - seen) / 2, 0.78 * height
    image = studio(rng, height, width, ground)
    body, glass, wheels = outlines(car, length, seen, left, ground, mirrored=np.cos(angle) < 0)
    shadow = np.zeros((height, width), np.float32)
    cv2.ellipse(shadow, (width // 2, int(ground)), (int(0.53 * seen), int(0.035 * height)), 0, 0, 360, 1, -1)
    image *= 1 - 0.6 * gaussian_filter(shadow, 0.008 * width)[..., None]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [body], 1)
    light = np.linspace(1.25, 0.7, height)[:, None, None]
    image = np.where(mask[..., None] > 0, np.clip(car.colour * light, 0, 250), image)
    panes = np.zeros_like(mask)
    cv2.fillPoly(panes, [glass], 1)
    image = np.where(panes[..., None] > 0, np.clip(0.25 * image + np.array([25, 32, 40]), 0, 255), image)
    for centre, radius in wheels:
        cv2.circle(mask, centre, radius, 1, -1)
        cv2.circle(image, centre, radius, (22, 22, 24), -1)
        cv2.circle(image, centre, int(0.6 * radius), (150, 150, 155), -1)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    image += rng.normal(0, 3, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)


def studio(rng: Generator, height: int, width: int, ground: float) -> np.ndarray:
    """A bright wall, a floor, and the turntable's rim: (H, W, 3) float32."""
    rows = np.arange(height)[:, None, None]
    wall = rng.uniform(190, 225) - 40 * np.abs(np.linspace(-1, 1, width))[None, :, None] ** 2
    floor = rng.uniform(130, 175)
    share = 1 / (1 + np.exp(-(rows - 0.62 * height) / (0.03 * height)))
    image = (wall * (1 - share) + floor * share) * np.array([1, 1, rng.uniform(0.96, 1.04)])
    image = np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)), np.float32)
    rim = (width // 2, int(ground)), (int(0.46 * width), int(0.13 * height))
    cv2.ellipse(image, *rim, 0, 0, 360, [float(0.88 * floor)] * 3, max(2, width // 250))
    return image


def outlines(
    car: Car, length: float, seen: float, left: float, ground: float, mirrored: bool
) -> tuple[np.ndarray, np.ndarray, list[tuple[tuple[int, int], int]]]:
    """The body and its windows as polygons (points, 2), and the wheels as centres and radii, in pixels."""
    tall = car.height * length
    bottom, waist = ground - 0.5 * car.wheel * length, ground - car.waist * tall
    rise = 0.04 * tall
    body = [
        (0.0, bottom),
        (0.0, waist + 2 * rise),
        (0.02, waist + rise),
        (car.hood, waist),
        (car.roof[0], ground - tall + rise),
        (car.roof[0] + 0.05, ground - tall),
        (car.roof[1] - 0.06, ground - tall),
        (car.roof[1], ground - tall + rise),
        (0.97, waist),
        (1.0, waist + 2 * rise),
        (1.0, bottom),
    ]
    glass = [
        (car.hood + 0.04, waist - rise),
        (car.roof[0] + 0.035, ground - tall + 2.5 * rise),
        (car.roof[1] - 0.06, ground - tall + 2.5 * rise),
        (0.9, waist - rise),
    ]

    def placed(points: list[tuple[float, float]]) -> np.ndarray:
        at = np.array([(1 - x if mirrored else x, y) for x, y in points])
        return np.column_stack([left + at[:, 0] * seen, at[:, 1]]).round().astype(np.int32)

    radius = round(car.wheel * length)
    centres = placed([(0.18, ground - radius), (0.8, ground - radius)])
    return placed(body), placed(glass), [((int(x), int(y)), radius) for x, y in centres]


def palette(mask: np.ndarray) -> Image.Image:
    """A palette image whose index 1 is white."""
    image = Image.fromarray(mask, "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


if __name__ == "__main__":
    command.run(write, Options)
