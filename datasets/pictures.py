"""Image and mask files of any common kind from and to arrays, in their own depth of 8 or 16 bits and in RGB order.

Images and masks are read as they are stored: what EXIF says of turning them is for showing them. Of several frames or
pages the first is read. JPEG, GIF, BMP and most TIFF have no checksums, so that damage within them cannot be told.
"""

import os
import struct
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

import runfolder
from command import BadInput, fits_a_line
from datasets import png

Image.MAX_IMAGE_PIXELS = None  # rasters are large, and these files are the user's own
# What Pillow raises for damaged files, by what it stumbles over.
DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
NOT_RGB = ("CMYK", "LAB", "YCbCr", "HSV")  # Pillow's modes that would be taken for RGB, or turned into it by guess
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_SCAN = 0xDA  # the marker before an image's data
JPEG_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without content
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names without suffix, sorted.

    Raises BadInput for two of one stem, for none, and for what is no file or has a name that no table can hold.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder: it should hold images ({' '.join(SUFFIXES)})")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        if not os.path.isfile(path):
            raise BadInput(f"{folder} has {path.name!r}, which is no file that can be read: remove it")
        if not fits_a_line(path.name):
            raise BadInput(f"{folder} has {path.name!r}, a name of odd characters: rename it")
        if path.stem in found:
            raise BadInput(f"{folder} has {found[path.stem].name} and {path.name}: names have to differ without suffix")
        found[path.stem] = path
    if not found:
        raise BadInput(f"{folder} has no image ({' '.join(SUFFIXES)}): put some there or name another folder")
    return found


def read(path: Path) -> np.ndarray:
    """(H, W) grey or (H, W, 3) RGB, uint8 or uint16. Raises BadInput."""
    return decode(path, *opened(path))


def decode(path: Path, header: Image.Image, content: bytes) -> np.ndarray:
    if header.format == "GIF":
        return load(header, path, mode="RGB")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
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
    header, content = opened(path)
    # Pillow takes a BMP of 8 bits and two greys for one of 1 bit.
    if header.mode == "P" or (header.mode == "1" and header.format != "BMP"):
        return indices(header, path)
    mask = decode(path, header, content)
    if mask.ndim == 3 and (mask[..., 0] == mask[..., 1]).all() and (mask[..., 1] == mask[..., 2]).all():
        return mask[..., 0]
    return mask


def write(path: Path, image: np.ndarray) -> None:
    """Of the kind that the suffix names, whole or not at all. (H, W) or RGB (H, W, 3), uint8 or uint16."""
    done, content = cv2.imencode(path.suffix, image if image.ndim == 2 else image[..., ::-1])
    assert done, path
    with runfolder.atomic(path) as temporary:
        temporary.write_bytes(content)  # not tofile, to which a full disk is none


def size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, by the file's header. Raises BadInput."""
    with header_of(path, path) as image:
        return image.height, image.width


def opened(path: Path) -> tuple[Image.Image, bytes]:
    """A file's header and its bytes. Raises BadInput where it is cut off or would be read as what it is not."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}), expected an image") from error
    if not content:
        raise BadInput(f"{path} is empty, expected an image: save it again")
    header = header_of(path, BytesIO(content))
    if not is_whole(content):
        raise BadInput(f"{path} cannot be read as an image: it is cut off or damaged, so save or download it again")
    refuse_unusual(path, header)
    return header, content


def refuse_unusual(path: Path, header: Image.Image) -> None:
    if header.mode in NOT_RGB:
        raise BadInput(f"{path} has the colours {header.mode}, expected grey or RGB: convert it")
    if header.format != "TIFF":
        return
    # Pillow and OpenCV heed these tags for some kinds of pixels and not for others.
    if header.tag_v2.get(ExifTags.Base.Orientation, 1) != 1:
        raise BadInput(f"{path} is stored turned or mirrored, by its orientation tag: save it upright")
    if header.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0 and header.mode.startswith("I;16"):
        raise BadInput(f"{path} has 16 bits of which 0 is white, expected 0 to be black: invert it")


def header_of(path: Path, file: Path | BytesIO) -> Image.Image:
    try:
        return Image.open(file)
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or "it is damaged or of another kind"
        raise BadInput(f"{path} cannot be read as an image: {reason}") from error


def is_whole(content: bytes) -> bool:
    """Whether a PNG or JPEG goes on to its end, which OpenCV has not always asked. True for other kinds."""
    if content.startswith(png.SIGNATURE):
        return png.is_whole(content)
    return not content.startswith(JPEG_START) or jpeg_ends(content)


def jpeg_ends(content: bytes) -> bool:
    """Whether an end follows the image's data; one of a thumbnail lies before it, and anything may lie behind."""
    place = len(JPEG_START)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == JPEG_SCAN:
            return content.find(JPEG_END, place) > 0
        if marker == 0xFF:
            place += 1
        elif marker in JPEG_ALONE:
            place += 2
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return False


def load(image: Image.Image, path: Path, mode: str = "") -> np.ndarray:
    try:
        return np.asarray(image.convert(mode) if mode else image).astype(np.uint8)
    except DAMAGE as error:
        raise BadInput(f"{path} cannot be read as an image ({error}): it is damaged") from error


def indices(image: Image.Image, path: Path) -> np.ndarray:
    """Of a palette or of one bit. Raises BadInput for a palette of greys that do not rise with their indices.

    The values of such a mask are not what it looks like: inverted, as a rule.
    """
    found = load(image, path)
    if image.mode == "P":
        palette = np.zeros((256, 3), np.int64)
        colours = image.getpalette("RGB")
        palette.flat[: len(colours)] = colours
        used = palette[np.bincount(found.ravel(), minlength=256).nonzero()[0]]
        if (used == used[:, :1]).all() and (np.diff(used[:, 0]) < 0).any():
            raise BadInput(
                f"{path} has a palette of greys that do not rise, such as white before black: save it in grey"
            )
    return found
