"""Small folders of images and masks in the layouts of datasets/files.py."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write(path: Path, image: np.ndarray) -> None:
    """By the suffix; RGB order; a gif by palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        Image.fromarray(image, "L").convert("P").save(path) if image.ndim == 2 else Image.fromarray(image).save(path)
        return
    done, content = cv2.imencode(path.suffix, image if image.ndim == 2 else image[..., ::-1])
    assert done
    content.tofile(path)


def shapes(seed: int, size: tuple[int, int], labels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image (H, W, 3) uint8 of coloured rectangles on noise, and its mask of these labels."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint16 if max(labels) > 255 else np.uint8)
    image = rng.normal(90, 15, (*size, 3))
    for number, label in enumerate(labels):
        top, left = (int(rng.integers(0, side - side // 3)) for side in size)
        place = np.s_[top : top + size[0] // 3, left : left + size[1] // 3]
        mask[place] = label
        image[place] += 40 * np.eye(3)[number % 3] + 50
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_tiles(
    folder: Path, count: int = 6, size=(40, 48), labels=(255,), extra=(), suffixes=(".png", ".png"), first: int = 0
) -> Path:
    """FOLDER/{images, gt, extra...}: an extra channel tells the labels, in 16 bits."""
    for number in range(first, first + count):
        image, mask = shapes(number, size, labels)
        write(folder / "images" / f"tile {number}{suffixes[0]}", image)
        write(folder / "gt" / f"tile {number}{suffixes[1]}", mask)
        for name in extra:
            write(folder / name / f"tile {number}.tif", (mask > 0).astype(np.uint16) * 60000 + 1000)
    return folder


def write_cars(folder: Path, cars: int = 3, views: int = 2, size=(40, 60)) -> Path:
    for car in range(cars):
        for view in range(1, views + 1):
            image, mask = shapes(100 * car + view, size, (1,))
            write(folder / "train" / f"c{car}_{view:02d}.jpg", image)
            write(folder / "train_masks" / f"c{car}_{view:02d}_mask.gif", mask)
    return folder
