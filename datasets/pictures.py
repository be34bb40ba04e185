"""Image and mask files of any common kind from and to arrays, in their own depth of 8 or 16 bits and in RGB order."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

import runfolder
from command import BadInput

Image.MAX_IMAGE_PIXELS = None  # rasters are large, and these files are the user's own
BY_PALETTE = (".gif", ".png", ".bmp", ".tif", ".tiff")  # masks that may hold indices

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names without suffix, sorted. Raises BadInput for two of one stem, or none."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder: it should hold images ({' '.join(SUFFIXES)})")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in found:
            raise BadInput(f"{folder} has {found[path.stem].name} and {path.name}: names have to differ without suffix")
        found[path.stem] = path
    if not found:
        raise BadInput(f"{folder} has no image ({' '.join(SUFFIXES)}): put some there or name another folder")
    return found


def read(path: Path) -> np.ndarray:
    """(H, W) grey or (H, W, 3) RGB, uint8 or uint16. Raises BadInput."""
    if path.suffix.lower() == ".gif":
        with opened(path) as image:  # frames after the first are left out
            return load(image, path, mode="RGB")
    try:
        image = cv2.imdecode(content(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadInput(f"{path} cannot be read as an image ({error.err}): cut it into smaller ones") from error
    if image is None:
        raise BadInput(f"{path} cannot be read as an image: it is damaged or of another kind than its suffix says")
    if image.dtype not in (np.uint8, np.uint16):
        raise BadInput(f"{path} has values of type {image.dtype}, expected 8 or 16 bits: scale and save it as such")
    if image.ndim == 3 and image.shape[2] == 4 and (image[..., 3] == np.iinfo(image.dtype).max).all():
        image = image[..., :3]  # opaque everywhere
    if image.ndim == 3 and image.shape[2] != 3:
        raise BadInput(
            f"{path} has {image.shape[2]} channels, expected grey or RGB: put others into folders of their own"
        )
    return image if image.ndim == 2 else image[..., ::-1]


def read_mask(path: Path) -> np.ndarray:
    """(H, W) integers as stored: a palette's indices, not its colours; RGB of equal channels counts as grey."""
    if path.suffix.lower() in BY_PALETTE:
        with opened(path) as image:
            if image.mode in ("P", "1"):
                return load(image, path)
    mask = read(path)
    if mask.ndim == 3 and (mask[..., 0] == mask[..., 1]).all() and (mask[..., 1] == mask[..., 2]).all():
        return mask[..., 0]
    return mask


def write(path: Path, image: np.ndarray) -> None:
    """Of the kind that the suffix names, whole or not at all. (H, W) or RGB (H, W, 3), uint8 or uint16."""
    done, content = cv2.imencode(path.suffix, image if image.ndim == 2 else image[..., ::-1])
    assert done, path
    with runfolder.atomic(path) as temporary:
        content.tofile(temporary)


def size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, by the file's header. Raises BadInput."""
    with opened(path) as image:
        return image.height, image.width


def opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} cannot be read as an image ({error}): it is damaged or of another kind") from error


def load(image: Image.Image, path: Path, mode: str = "") -> np.ndarray:
    try:
        return np.asarray(image.convert(mode) if mode else image).astype(np.uint8)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        raise BadInput(f"{path} cannot be read as an image ({error}): it is damaged") from error


def content(path: Path) -> np.ndarray:
    try:
        found = np.fromfile(path, np.uint8)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}), expected an image") from error
    if not found.size:
        raise BadInput(f"{path} is empty, expected an image: save it again")
    return found
