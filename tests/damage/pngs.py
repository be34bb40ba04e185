"""PNG files written by hand, chunk by chunk: of every kind, and of kinds that should not be."""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
Chunk = tuple[bytes, bytes]  # its kind and its body


def header(image: np.ndarray, bits: int = 8, colour: int = GREY, **others: int) -> Chunk:
    """IHDR. `others` override what it says: height, width, compression, filtering, interlace."""
    values = {"width": image.shape[1], "height": image.shape[0], "bits": bits, "colour": colour}
    values |= {"compression": 0, "filtering": 0, "interlace": 0} | others
    return b"IHDR", struct.pack(">IIBBBBB", *values.values())


def scanlines(image: np.ndarray, bits: int = 8) -> bytes:
    """Rows of (H, W) or (H, W, C) integers, none of them filtered."""
    rows = image.reshape(len(image), -1)
    if bits >= 8:
        return b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in rows)
    as_bits = (rows[..., None] >> np.arange(bits)[::-1] & 1).reshape(len(rows), -1)
    return b"".join(b"\0" + np.packbits(row.astype(bool)).tobytes() for row in as_bits)


def interlaced(image: np.ndarray, bits: int = 8) -> bytes:
    return b"".join(scanlines(image[y::down, x::right], bits) for y, x, down, right in ADAM7)


def encode(
    image: np.ndarray, bits: int = 8, colour: int = GREY, before: Sequence[Chunk] = (), between: Sequence[Chunk] = ()
) -> bytes:
    """`before` stands before the pixels; `between` behind them."""
    pixels = b"IDAT", zlib.compress(scanlines(image, bits))
    return join([header(image, bits, colour), *before, pixels, *between, (b"IEND", b"")])


def rich(image: np.ndarray) -> bytes:
    """Of (H, W) uint8: with a text and its pixels in two chunks."""
    pixels = zlib.compress(scanlines(image))
    half = len(pixels) // 2
    chunks = [(b"tEXt", b"Comment\0salt"), (b"IDAT", pixels[:half]), (b"IDAT", pixels[half:])]
    return join([header(image), *chunks, (b"IEND", b"")])


def palette(*colours: tuple[int, int, int]) -> Chunk:
    return b"PLTE", bytes(value for colour in colours for value in colour)


def join(chunks: Sequence[Chunk]) -> bytes:
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def split(content: bytes) -> list[Chunk]:
    bounds = [*starts(content), len(content)]
    return [(content[first + 4 : first + 8], content[first + 8 : last - 4]) for first, last in pairwise(bounds)]


def starts(content: bytes) -> list[int]:
    """Where each chunk begins."""
    found, place = [], len(SIGNATURE)
    while place < len(content):
        found.append(place)
        place += 12 + int.from_bytes(content[place : place + 4], "big")
    return found


def places(content: bytes) -> dict[str, int]:
    """A byte within each part of each chunk: "2 IDAT body" and so on."""
    found = {}
    for number, (start, (kind, body)) in enumerate(zip(starts(content), split(content), strict=True)):
        name = f"{number} {kind.decode()}"
        found |= {f"{name} length": start + 3, f"{name} kind": start + 5, f"{name} sum": start + 9 + len(body)}
        if body:
            found[f"{name} body"] = start + 8 + len(body) // 2
    return found
