"""Prepare folders of images for training: cut rasters, filter tiles, recolour labels, copy what belongs to a split.

    python -m datasets.prepare cut --data=rasters --out=tiles --size=256 --step=128
    python -m datasets.prepare filter --data=tiles --out=water --label=64 --share=0.05
    python -m datasets.prepare recolour --data=masks --out=new --pairs="3:64 1:255"
    python -m datasets.prepare copy --data=all --split=chosen/images --out=val

cut: rasters of one stem, which lie on each other, DATA/{images, gt, ...} -> OUT/{images, gt, ...}/STEM_ROW_COLUMN:
squares of `size` pixels every `step` pixels; what is left over at the right and at the bottom gets a last square that
ends with the raster.
filter: keeps the tiles of which the label covers at least a share, in every folder.
recolour: all pairs at once, so that labels can be swapped.
copy: for the images of a split, the files of the same stem from DATA's other folders.
OUT is new: it appears as a whole, or not at all.
"""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

import command
from command import BadInput, at_least
from datasets import pictures
from datasets.files import IMAGES, MASKS
from datasets.newfolder import new_folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to do with the images of a folder."""

    task: str = "cut"  # set by the first word of the command line
    data: str = ""  # the folder that has the files
    out: str = ""  # the folder to make
    size: int = 256  # cut: pixels of a square's side
    step: int = 0  # cut: pixels from one square to the next; 0 = size, side by side
    label: int = 255  # filter: value in gt
    share: float = 0.0  # filter: least share of the pixels, 0..1; 0 asks for a single pixel
    pairs: str = ""  # recolour: OLD:NEW apart by spaces; other values stay
    split: str = ""  # copy: a folder with images that are chosen already

    def __post_init__(self) -> None:
        at_least("size", self.size, 1)
        at_least("step", self.step, 0)
        if not 0 <= self.share <= 1:
            raise BadInput(f"--share={self.share} is no share: give 0 to 1")


def prepare(options: Options) -> None:
    """Make the folder `out`."""
    for flag in ("data", "out"):
        if not getattr(options, flag):
            raise BadInput(f"--{flag} is missing: --data=FOLDER --out=NEW_FOLDER")
    out = Path(options.out)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise BadInput(f"--out={out} is there already: name a new folder")
    with new_folder(out, (), "") as folder:
        count = DO[options.task](options, folder)
        if not count:
            raise BadInput(f"nothing of --data={options.data} is left for --out={out}, which is not made")
    print(f"{out}: {count} images")


def cut(options: Options, folder: Path) -> int:
    """Squares of all rasters; each folder of DATA gives one of the same name."""
    data, step = Path(options.data), options.step or options.size
    parts = {name: pictures.by_stem(data / name) for name in subfolders(data)}
    count = 0
    for stem, path in tqdm(pictures.by_stem(data / IMAGES).items(), "cut", disable=None):
        size = pictures.size(path)
        if min(size) < options.size:
            raise BadInput(f"{path} has {size[0]}x{size[1]} pixels, fewer than --size={options.size}: give less")
        corners = [(y, x) for y in starts(size[0], options.size, step) for x in starts(size[1], options.size, step)]
        for part, found in parts.items():
            source = file_of(data / part, found, stem)
            raster = as_stored(source)
            if raster.shape[:2] != size:
                raise BadInput(f"{source} is of another size than {path}: they have to lie on each other")
            for y, x in corners:
                square = raster[y : y + options.size, x : x + options.size]
                pictures.write(folder / part / f"{stem}_{y:05d}_{x:05d}{suffix_for(source)}", square)
        count += len(corners)
    return count


def starts(length: int, size: int, step: int) -> list[int]:
    """Every `step` pixels, and a last one that ends with the side."""
    found = list(range(0, length - size + 1, step))
    return found if found[-1] + size == length else [*found, length - size]


def filter_by_label(options: Options, folder: Path) -> int:
    """Copies of the tiles whose mask has enough of the label."""
    data = Path(options.data)
    kept = []
    for stem, path in tqdm(pictures.by_stem(data / MASKS).items(), "filter", disable=None):
        found = pictures.read_mask(path) == options.label
        if found.any() and found.mean() >= options.share:
            kept.append(stem)
    for part in subfolders(data):
        copy_files(data / part, kept, folder / part)
    return len(kept)


def recolour(options: Options, folder: Path) -> int:
    """Masks of DATA with old values replaced by new ones, as PNG."""
    pairs = [pair.split(":") for pair in options.pairs.split()]
    if not pairs or any(len(pair) != 2 or not all(word.isdecimal() for word in pair) for pair in pairs):
        raise BadInput(f"--pairs={options.pairs!r} is no list of OLD:NEW: write for example '3:64 1:255'")
    pairs = [(int(old), int(new)) for old, new in pairs]
    if len({old for old, _ in pairs}) < len(pairs) or max(max(pair) for pair in pairs) > 65535:
        raise BadInput(f"--pairs={options.pairs!r} has a value twice or above 65535: name each old value once")
    masks = pictures.by_stem(Path(options.data))
    for stem, path in tqdm(masks.items(), "recolour", disable=None):
        mask = pictures.read_mask(path)
        found = mask.astype(np.uint16)
        for old, new in pairs:
            found[mask == old] = new
        pictures.write(folder / f"{stem}.png", found if found.max() > 255 else found.astype(np.uint8))
    return len(masks)


def copy(options: Options, folder: Path) -> int:
    """The files that belong to the images of a split, and these images."""
    if not options.split:
        raise BadInput("--split is missing: the folder whose images are chosen already")
    split = Path(options.split)
    images = pictures.by_stem(split / IMAGES if (split / IMAGES).is_dir() else split)
    for part in subfolders(Path(options.data)):
        copy_files(Path(options.data) / part, list(images), folder / part)
    return len(images)


def subfolders(data: Path) -> list[str]:
    """Names of the folders in `data`, images first. Raises BadInput without one of images or masks."""
    folders = [path.name for path in data.iterdir() if path.is_dir()] if data.is_dir() else []
    names = sorted(name for name in folders if not name.startswith("."))
    if IMAGES not in names and MASKS not in names:
        raise BadInput(f"--data={data} has no folder {IMAGES} or {MASKS}: name the folder above them")
    return sorted(names, key=lambda name: name != IMAGES)


def copy_files(source: Path, stems: list[str], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    found = pictures.by_stem(source)
    for stem in stems:
        path = file_of(source, found, stem)
        shutil.copyfile(path, target / path.name)


def file_of(folder: Path, found: dict[str, Path], stem: str) -> Path:
    """The picture of that stem among those `found` in the folder."""
    if stem not in found:
        raise BadInput(f"{folder} has no file for {stem!r}, expected one in every folder")
    return found[stem]


def as_stored(path: Path) -> np.ndarray:
    """Masks keep their values, palettes included; images are RGB."""
    return pictures.read_mask(path) if path.parent.name == MASKS else pictures.read(path)


def suffix_for(path: Path) -> str:
    """PNG where the file's own kind would lose pixels of a mask or cannot be written."""
    lossy = path.suffix.lower() in (".gif", ".jpg", ".jpeg")
    return ".png" if lossy and (path.parent.name == MASKS or path.suffix.lower() == ".gif") else path.suffix.lower()


DO = {"cut": cut, "filter": filter_by_label, "recolour": recolour, "copy": copy}

if __name__ == "__main__":
    command.run(prepare, {task: partial(Options, task=task) for task in DO})
