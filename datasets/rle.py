"""Kaggle's run-length encoding of masks: "start length start length ...", column-major and 1-based.

Pixel 1 is the top left, pixel 2 lies below it; runs are sorted and apart; an empty mask is the empty string.
"""

import numpy as np

from command import BadInput

CHUNK = 1 << 24  # pixels encoded at a time, to stay below 100 MB


def encode(mask: np.ndarray) -> str:
    """(H, W) bool or integer, not 0 is salt -> its runs; "" if there are none."""
    return encode_many(np.asarray(mask)[None])[0]


def encode_many(masks: np.ndarray) -> list[str]:
    """(N, H, W) bool or integer, not 0 is salt (a CPU tensor will do) -> N texts."""
    masks = np.asarray(masks)
    assert masks.ndim == 3 and masks.dtype.kind in "bui", f"{masks.dtype} {masks.shape} are not masks (N, H, W)"
    step = max(1, CHUNK // max(1, masks[:1].size))
    return [text for first in range(0, len(masks), step) for text in encode_chunk(masks[first : first + step])]


def encode_chunk(masks: np.ndarray) -> list[str]:
    num, height, width = masks.shape
    # One background pixel before and after each mask: every run then has a first change and a last one.
    padded = np.zeros((num, height * width + 2), bool)
    padded[:, 1:-1].reshape(num, width, height)[:] = masks.transpose(0, 2, 1) != 0
    flat = padded.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    mask_of, place = np.divmod(changes, height * width + 2)
    numbers = np.empty_like(place)
    numbers[0::2] = place[0::2] + 1
    numbers[1::2] = place[1::2] - place[0::2]
    ends = np.cumsum(np.bincount(mask_of, minlength=num))
    words = list(map(str, numbers.tolist()))
    return [" ".join(words[first:last]) for first, last in zip([0, *ends[:-1]], ends, strict=True)]


def decode(text: str, height: int, width: int) -> np.ndarray:
    """Runs -> (height, width) uint8, 0 or 1. Raises BadInput as `check` does."""
    starts, lengths = runs(text, height, width)
    changes = np.zeros(height * width + 1, np.int8)
    changes[starts - 1] = 1
    changes[starts - 1 + lengths] = -1
    return np.cumsum(changes[:-1], dtype=np.int8).view(np.uint8).reshape(width, height).T


def check(text: str, height: int, width: int) -> None:
    """Raise BadInput unless `text` holds positive integers in pairs, runs sorted, apart and inside the tile."""
    runs(text, height, width)


def runs(text: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Checked (starts, lengths) of `text`, starts from 1."""
    words = text.split()
    odd_ones = [word for word in words if not (word.isascii() and word.isdecimal())]
    if odd_ones:
        raise BadInput(f"the RLE holds {odd_ones[0]!r}, expected whole numbers: start length start length ...")
    if len(words) % 2:
        raise BadInput(f"the RLE holds {len(words)} numbers, expected pairs of start and length: one is lost")
    pixels = height * width
    # Longer numbers than the tile's own are outside, and might not fit an integer.
    digits = [word.lstrip("0") or "0" for word in words]
    numbers = [int(word) if len(word) <= 18 else 10**18 for word in digits]
    starts, lengths = np.array(numbers[0::2], np.int64), np.array(numbers[1::2], np.int64)
    ends = starts + lengths  # the first pixel after each run
    previous = np.r_[0, ends[:-1]][: len(ends)]
    for wrong, reason in (
        ((starts < 1) | (lengths < 1), "has a number below 1: pixels count from 1, and a run is 1 pixel or longer"),
        (ends > pixels + 1, f"ends outside the tile of {height}x{width} = {pixels} pixels: is it of another size"),
        (starts <= previous, "touches or precedes the run before it: sort the runs and join those that touch"),
    ):
        if wrong.any():
            run = int(np.argmax(wrong))
            raise BadInput(f"run {run + 1} of the RLE, '{words[2 * run]} {words[2 * run + 1]}', {reason}")
    return starts, lengths
