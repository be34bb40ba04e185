"""PNG files as arrays: a folder at a time, in their own depth of 8 or 16 bits, every fault naming its file."""

import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from command import BadInput

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_folder(
    folder: Path,
    names: Sequence[str],
    read: Callable,
    faults: list[str],
    size: tuple[int, int] | None = None,
    dtype: np.dtype | None = None,
) -> list[np.ndarray | None]:
    """What `read` makes of NAME.png; None for files at fault. All of `size` and `dtype`, or else of the same ones.

    "The same" is what most have, so that one odd file is the one that is named.
    """

    def attempt(path: Path) -> np.ndarray | BadInput:
        try:
            return read(path)
        except BadInput as error:
            return error

    if not folder.is_dir():
        faults.append(f"{folder} is not a folder, expected Kaggle's layout in the folder that --data names")
        return [None] * len(names)
    paths = [folder / f"{name}.png" for name in names]
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        arrays = list(pool.map(attempt, paths))
    kinds = Counter((array.shape[:2], array.dtype) for array in arrays if isinstance(array, np.ndarray))
    (shape, common), _ = kinds.most_common(1)[0] if kinds else ((size, None), 0)
    height, width = size or shape or (0, 0)
    dtype = common if dtype is None else dtype
    for i, (path, array) in enumerate(zip(paths, arrays, strict=True)):
        if isinstance(array, BadInput):
            faults.append(str(array))
        elif array.shape[:2] != (height, width) or array.dtype != dtype:
            expected = f"{height}x{width} pixels of {dtype} as the other tiles"
            faults.append(f"{path} has {array.shape[0]}x{array.shape[1]} pixels of {array.dtype}, expected {expected}")
        else:
            continue
        arrays[i] = None
    return arrays


def decode(path: Path) -> np.ndarray:
    """A PNG as (H, W), or (H, W, 3) RGB if its channels differ, in its own 8 or 16 bits. Raises BadInput."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadInput(f"{path} is a folder or a pipe, expected a PNG: remove it and put the file there")
        content = np.fromfile(path, np.uint8)  # not cv2.imread, which cannot open every name on every system
    except FileNotFoundError:
        raise BadInput(f"{path} is missing, expected a PNG for every id of its table") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}), expected a PNG") from error
    try:
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if is_whole(content.tobytes()) else None
    except cv2.error:  # a header that tells of more pixels than OpenCV reads
        image = None
    if image is None:
        raise BadInput(f"{path} ({content.size} bytes) is not a whole PNG: download it again")
    if image.ndim == 3 and image.shape[2] != 3:
        raise BadInput(f"{path} has {image.shape[2]} channels, expected grey or RGB without transparency")
    if image.ndim == 2:
        return image
    grey = (image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all()
    return image[..., 0] if grey else image[..., ::-1]


def decode_mask(path: Path) -> np.ndarray:
    """(H, W) uint8, 0 or 1. Raises BadInput for a mask of more than two values or of colours."""
    mask = decode(path)
    if mask.ndim == 3:
        raise BadInput(f"{path} is in colour, expected a grey mask of at most two values")
    if not ((mask == mask.min()) | (mask == mask.max())).all():
        values = np.unique(mask)
        raise BadInput(
            f"{path} has {len(values)} values ({values[0]}, {values[1]}, ...), expected two at most: 0 and salt"
        )
    return (mask > 0).astype(np.uint8)


def is_whole(content: bytes) -> bool:
    """Whether every chunk of a PNG is there and has its checksum.

    Asked before OpenCV, whose answer to damage has changed with its versions and goes to stderr as well.
    """
    place = len(SIGNATURE)
    while content.startswith(SIGNATURE) and place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        if zlib.crc32(content[place + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            return False
        if content[place + 4 : place + 8] == b"IEND":
            return True
        place = end + 4
    return False


def stack(images: list[np.ndarray]) -> Tensor:
    """(N, C, H, W): C is 3 if any tile has colours, else 1."""
    if any(image.ndim == 3 for image in images):
        images = [np.broadcast_to(np.atleast_3d(image), (*image.shape[:2], 3)).transpose(2, 0, 1) for image in images]
    else:
        images = [image[None] for image in images]
    return torch.from_numpy(np.stack(images))


def pick(images: Tensor, indices: Tensor) -> Tensor:
    """images[indices], also for uint16, which torch indexes through its signed twin only."""
    return images.view(torch.int16)[indices].view(torch.uint16) if images.dtype == torch.uint16 else images[indices]
