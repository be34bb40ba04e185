"""Images that stay on the disk: any sizes, masks by labels, further channels from files of the same name.

    DATA/train/{images, gt, EXTRA...} and DATA/val/{...}        layout "tiles", split as the folders say
    DATA/{images, gt, EXTRA...}                                 layout "tiles", split by datasets.folds
    DATA/train/CAR_VIEW.jpg, DATA/train_masks/CAR_VIEW_mask.gif layout "carvana", views of one car stay together

Files of one tile have the same stem; each may be any of pictures.SUFFIXES.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from command import BadInput
from datasets import labels, pictures
from datasets.labels import Labels
from datasets.salt import Tiles

TRAIN, VAL, IMAGES, MASKS = "train", "val", "images", "gt"
THREADS = 4  # that read files ahead


@dataclass(frozen=True)
class Files:
    """N images by name, in that order."""

    names: list[str]
    images: list[Path]
    extra: list[tuple[Path, ...]]  # of each image, one file a further channel
    masks: list[Path] | None  # None where nothing is labelled
    labels: Labels
    groups: list[str]  # of each image; those of one group belong into one fold
    validation: list[bool]  # whether the folders say that an image validates; all False where they say nothing

    def __len__(self) -> int:
        return len(self.names)

    @property
    def channels(self) -> int:
        return 3 + len(self.extra[0])

    def select(self, names: Sequence[str]) -> "Files":
        """The images of these names, in this order. Raises BadInput for a name that is not here."""
        place = {name: i for i, name in enumerate(self.names)}
        unknown = [name for name in names if name not in place]
        if unknown:
            raise BadInput(
                f"got the name {unknown[0]!r}, expected one of the {len(self)} images of --data: is it other data"
            )
        chosen = [place[name] for name in names]
        parts = (self.images, self.extra, self.masks, self.groups, self.validation)
        images, extra, masks, groups, validation = (part and [part[i] for i in chosen] for part in parts)
        return Files(list(names), images, extra, masks, self.labels, groups, validation)

    def read(self, index: int) -> Tiles:
        """One image as Tiles: (1, channels, H, W), RGB before the further channels, and its label map."""
        path = self.images[index]
        image = pictures.read(path)
        planes = [image] * 3 if image.ndim == 2 else list(image.transpose(2, 0, 1))
        for file in self.extra[index]:
            planes.append(plane(file, image.shape[:2], path))
        mask = None if self.masks is None else torch.from_numpy(self.read_mask(index, image.shape[:2]))[None]
        stacked = torch.from_numpy(np.stack(in_one_depth(planes)))[None]
        return Tiles([self.names[index]], stacked, mask, torch.full((1,), torch.nan))

    def read_mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Label map (H, W) uint8. Raises BadInput if it is not of `size`."""
        path = self.masks[index]
        mask = self.labels.classes_of(pictures.read_mask(path), path)
        if size and mask.shape != tuple(size):
            raise BadInput(
                f"{path} has {mask.shape[0]}x{mask.shape[1]} pixels and {self.images[index]} {size[0]}x{size[1]}: "
                "they should be of one size"
            )
        return mask

    def pieces(self, count: int, num_ahead: int = 8) -> Iterator[Tiles]:
        """All images in their order, as Tiles of at most `count` that follow each other and have one size and depth.

        `num_ahead` images are read in advance: few for large ones.
        """
        waiting: list[Tiles] = []
        for tile in ahead(self.read, len(self), num_ahead):
            if waiting and (len(waiting) == count or kind(tile) != kind(waiting[0])):
                yield joined(waiting)
                waiting = []
            waiting.append(tile)
        if waiting:
            yield joined(waiting)

    @property
    def coverage(self) -> Tensor:
        """(N,) float64, 0..1: the share of pixels above 0, whatever the labels. Reads every mask."""
        shares = ahead(lambda index: float((pictures.read_mask(self.masks[index]) > 0).mean()), len(self))
        return torch.tensor(list(shares), dtype=torch.float64)

    def sizes(self) -> dict[tuple[int, int], Path]:
        """Each height and width that there is, the most common first, with one of its images. Reads headers only."""
        all_sizes = [pictures.size(path) for path in self.images]
        of_size = dict(zip(all_sizes, self.images, strict=True))
        return {size: of_size[size] for size, _ in Counter(all_sizes).most_common()}

    def histogram(self) -> Counter[int]:
        """Mask values as stored -> number of pixels. Reads every mask."""
        return labels.totals(ahead(lambda index: labels.histogram(pictures.read_mask(self.masks[index])), len(self)))


def open_tiles(data: Path | str, chosen: Labels, extra: Sequence[str] = ()) -> Files:
    """Layout "tiles". Raises BadInput for folders or files that are missing."""
    data = Path(data)
    if not (data / TRAIN).is_dir():
        return one_folder(data, chosen, extra)
    train, val = (one_folder(data / part, chosen, extra) for part in (TRAIN, VAL))
    if both := set(train.names) & set(val.names):
        raise BadInput(f"{data} has {min(both)!r} in {TRAIN} and in {VAL}: an image can train or validate, not both")
    validation = [False] * len(train) + [True] * len(val)
    parts = ((*train_part, *val_part) for train_part, val_part in zip(fields(train), fields(val), strict=True))
    names, images, extras, masks, groups = map(list, parts)
    return Files(names, images, extras, masks, chosen, groups, validation)


def fields(files: Files) -> tuple[list, ...]:
    return files.names, files.images, files.extra, files.masks, files.groups


def one_folder(data: Path, chosen: Labels, extra: Sequence[str]) -> Files:
    """The images of DATA/images with their masks and further channels, all matched by stem."""
    images, masks = pictures.by_stem(data / IMAGES), pictures.by_stem(data / MASKS)
    channels = [pictures.by_stem(data / name) for name in extra]
    for folder, found in zip((MASKS, *extra), (masks, *channels), strict=True):
        refuse_missing(data / folder, images, found)
    names = list(images)
    return Files(
        names,
        list(images.values()),
        [tuple(channel[name] for channel in channels) for name in names],
        [masks[name] for name in names],
        chosen,
        groups=names,
        validation=[False] * len(names),
    )


def open_carvana(data: Path | str, chosen: Labels, extra: Sequence[str] = ()) -> Files:
    """Layout "carvana": train (or train_hq) and train_masks; the group of an image is its car. Raises BadInput."""
    data = Path(data)
    if extra:
        raise BadInput(f"--extra={' '.join(extra)} does not go with the layout carvana: use the layout tiles")
    folder = data / "train_hq" if (data / "train_hq").is_dir() else data / "train"
    images = pictures.by_stem(folder)
    masks: dict[str, Path] = {}
    for stem, path in pictures.by_stem(data / "train_masks").items():
        other = masks.setdefault(stem.removesuffix("_mask"), path)
        if other != path:
            raise BadInput(f"{path.parent} has {other.name} and {path.name}: keep one mask of each image")
    refuse_missing(data / "train_masks", images, masks)
    names = list(images)
    return Files(
        names,
        list(images.values()),
        [()] * len(names),
        [masks[name] for name in names],
        chosen,
        groups=[name.rpartition("_")[0] or name for name in names],
        validation=[False] * len(names),
    )


def open_images(source: Path | str, extra: Sequence[str] = ()) -> Files:
    """A plain folder of images, or one image, without labels. Further channels: DATA/images and DATA/EXTRA."""
    source = Path(source)
    if source.is_file():
        images = {source.stem: source}
    else:
        images = pictures.by_stem(source / IMAGES if (source / IMAGES).is_dir() else source)
    beside = source.parent.parent if source.is_file() else source
    channels = [pictures.by_stem(beside / name) for name in extra]
    for name, found in zip(extra, channels, strict=True):
        refuse_missing(beside / name, images, found)
    names = list(images)
    extras = [tuple(channel[name] for channel in channels) for name in names]
    return Files(names, list(images.values()), extras, None, Labels(), names, [False] * len(names))


LAYOUTS = {"tiles": open_tiles, "carvana": open_carvana}


def refuse_missing(folder: Path, images: dict[str, Path], found: dict[str, Path]) -> None:
    missing = sorted(images.keys() - found.keys())
    if missing:
        raise BadInput(
            f"{folder} has no file for {len(missing)} of {len(images)} images, such as {images[missing[0]].name}: "
            "every image needs one of the same name without suffix"
        )


def plane(path: Path, size: tuple[int, int], image: Path) -> np.ndarray:
    """One further channel (H, W)."""
    found = pictures.read_mask(path)
    if found.ndim != 2 or found.shape != size:
        shape = "x".join(map(str, found.shape))
        raise BadInput(f"{path} is {shape}, expected one channel of {size[0]}x{size[1]} pixels as {image} has")
    return found


def in_one_depth(planes: list[np.ndarray]) -> list[np.ndarray]:
    """8-bit planes beside 16-bit ones become 16-bit: 255 becomes 65535."""
    if len({one.dtype for one in planes}) == 1:
        return planes
    return [one if one.dtype == np.uint16 else one.astype(np.uint16) * 257 for one in planes]


def kind(tile: Tiles) -> tuple:
    return tile.images.shape[1:], tile.images.dtype


def joined(tiles: list[Tiles]) -> Tiles:
    masks = None if tiles[0].masks is None else torch.cat([tile.masks for tile in tiles])
    names = [name for tile in tiles for name in tile.names]
    images = torch.from_numpy(np.concatenate([tile.images.numpy() for tile in tiles]))
    return replace(tiles[0], names=names, images=images, masks=masks, depths=torch.full((len(tiles),), torch.nan))


def ahead(function, count: int, num_ahead: int = 8) -> Iterator:
    """function(0), function(1), ... in order, a few computed ahead by threads (decoding frees Python's lock)."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = []
        for index in range(count):
            waiting.append(pool.submit(partial(function, index)))
            if len(waiting) > num_ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
