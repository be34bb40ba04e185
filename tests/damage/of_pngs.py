"""PNG files cut, bent, mislabelled, or only unusual."""

import base64
import gzip
import io
import os
import struct
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from competition import salt_mask
from damage import pngs
from damage.case import IMAGE, MASK, PART, SECOND, SIZE, TRAIN, Act, Cases, Truth, both, change, put, remade
from PIL import Image

CASES = Cases()
PIXELS = np.random.default_rng(7).integers(0, 256, (SIZE, SIZE), np.uint8)  # of an image that is put anew
COLOURS = np.random.default_rng(8).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
SALT = salt_mask(1, SIZE)


def image_of(name: str, pixels: np.ndarray) -> Act:
    return lambda data, truth: truth.images.update({name: pixels})


def new_image(content: bytes, pixels: np.ndarray = PIXELS) -> Act:
    """A labelled image whose file is this, and its right pixels."""
    return both(put(IMAGE, content), image_of(SECOND, pixels))


def encoded(suffix: str, image: np.ndarray, *options) -> bytes:
    return cv2.imencode(suffix, image if image.ndim == 2 else image[..., ::-1], *options)[1].tobytes()


def cuts() -> None:
    whole = pngs.rich(PIXELS)
    for number in (1, 4, 8):
        CASES.refused(f"signature cut to {number}", put(IMAGE, whole[:number]), TRAIN, IMAGE, "not a whole PNG")
    for name, place in pngs.places(whole).items():
        CASES.refused(f"cut in {name}", put(IMAGE, whole[:place]), TRAIN, IMAGE, "not a whole PNG: download it again")
    for path, by in PART.items():
        for left in ("half", "without IEND", "one byte short", "nothing"):
            act = change(path, {"half": half, "without IEND": no_end, "one byte short": short, "nothing": empty}[left])
            CASES.refused(f"{path}: {left}", act, by, path, "not a whole PNG: download it again")


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def no_end(content: bytes) -> bytes:
    return content[:-12]


def short(content: bytes) -> bytes:
    return content[:-1]


def empty(content: bytes) -> bytes:
    return b""


def flips() -> None:
    whole = pngs.rich(PIXELS)
    for name, place in {"signature": 2, **pngs.places(whole)}.items():
        act = put(IMAGE, flipped(place, whole))
        CASES.refused(f"bit flipped in {name}", act, TRAIN, IMAGE, "not a whole PNG")
    for path, by in PART.items():
        act = change(path, lambda content: flipped(len(content) // 2, content))
        CASES.refused(f"{path}: bit flipped", act, by, path, "not a whole PNG")
        act = change(path, lambda content: half(content) + bytes(len(content) - len(content) // 2))
        CASES.refused(f"{path}: second half is zeros", act, by, path, "not a whole PNG")
        CASES.refused(f"{path}: zeros", change(path, lambda content: bytes(len(content))), by, path, "not a whole PNG")
        act = change(path, lambda content: content.replace(b"\r\n", b"\n"))
        CASES.refused(f"{path}: sent as text", act, by, path, "not a whole PNG")


def flipped(place: int, content: bytes) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def lies() -> None:
    """Every checksum is right, and yet."""
    lines = pngs.scanlines(PIXELS)
    data, end, head = (b"IDAT", zlib.compress(lines)), (b"IEND", b""), pngs.header(PIXELS)
    for field, value in (
        *(("width", value) for value in (0, 6, 13, 2**31 - 1, 2**31)),
        *(("height", value) for value in (0, 13, 2**31 - 1)),
        *(("bits", value) for value in (0, 3, 16, 32)),
        *(("colour", value) for value in (1, 2, 3, 5, 7)),
        ("compression", 1),
        ("filtering", 1),
        ("interlace", 1),
        ("interlace", 2),
    ):
        content = pngs.join([pngs.header(PIXELS, **{field: value}), data, end])
        CASES.refused(f"header with {field} {value}", put(IMAGE, content), TRAIN, IMAGE, "not a whole PNG")
    content = pngs.join([pngs.header(PIXELS, height=6), data, end])
    CASES.refused("header with height 6", put(IMAGE, content), TRAIN, IMAGE, "6x12 pixels of uint8, expected 12x12")
    content = pngs.join([pngs.header(PIXELS, height=100_000, width=100_000), data, end])
    CASES.refused("header of 10,000,000,000 pixels", put(IMAGE, content), TRAIN, IMAGE, "not a whole PNG")
    for name, chunks in {
        "no header": [data, end],
        "no pixels": [head, end],
        "no end": [head, data],
        "only a header": [head],
        "pixels before the header": [data, head, end],
        "two headers": [head, head, data, end],
        "long header": [(b"IHDR", head[1] + b"\0"), data, end],
        "short header": [(b"IHDR", head[1][:-1]), data, end],
        "end before the pixels": [head, end, data],
        "a critical chunk of another kind": [head, (b"SALT", b"abc"), data, end],
        "a chunk whose name is no name": [head, (b"\0\1\2\3", b"abc"), data, end],
        "pixels apart": [head, (b"IDAT", data[1][:40]), (b"tEXt", b"a\0b"), (b"IDAT", data[1][40:]), end],
        "a palette of odd length": [pngs.header(PIXELS, colour=pngs.PALETTE), (b"PLTE", bytes(17)), data, end],
    }.items():
        CASES.refused(f"chunks: {name}", put(IMAGE, pngs.join(chunks)), TRAIN, IMAGE, "not a whole PNG")
    for name, pixels in {
        "cut": data[1][:-20],
        "without its sum": data[1][:-4],
        "with another sum": flipped(len(data[1]) - 1, data[1]),
        "empty": b"",
        "not compressed": lines,
        "of another compression": b"\0\0" + data[1][2:],
        "with a bit flipped": flipped(len(data[1]) // 2, data[1]),
        "stored, with a bit flipped": flipped(60, zlib.compress(lines, 0)),
        "one pixel short": zlib.compress(lines[:-1]),
        "one row short": zlib.compress(lines[: -SIZE - 1]),
        "of a filter that is none": zlib.compress(b"\7" + lines[1:]),
    }.items():
        content = pngs.join([head, (b"IDAT", pixels), end])
        CASES.refused(f"pixels {name}", put(IMAGE, content), TRAIN, IMAGE, "not a whole PNG")


def unusual() -> None:
    """All of them are sound."""
    exif = Image.Exif()
    exif[274] = 6  # to be shown turned
    chunks = {
        "gamma": (b"gAMA", struct.pack(">I", 45455)),
        "odd gamma": (b"gAMA", struct.pack(">I", 220000)),
        "sRGB": (b"sRGB", b"\0"),
        "chromaticities": (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        "pixel shape": (b"pHYs", struct.pack(">IIB", 1, 2, 0)),
        "background": (b"bKGD", b"\0\5"),
        "significant bits": (b"sBIT", b"\5"),
        "histogram": (b"hIST", b"\0\1"),
        "text": (b"tEXt", b"Comment\0salt"),
        "compressed text": (b"zTXt", b"Comment\0\0" + zlib.compress(b"salt")),
        "international text": (b"iTXt", b"Comment\0\0\0\0\0" + "\u5869".encode()),
        "time": (b"tIME", struct.pack(">HBBBBB", 2020, 1, 1, 1, 1, 1)),
        "EXIF that turns": (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        "a chunk of its own": (b"saLt", bytes(300)),
        "an empty chunk": (b"saLt", b""),
    }
    for name, chunk in chunks.items():
        CASES.right(f"with {name}", new_image(pngs.encode(PIXELS, before=[chunk])))
    CASES.right("with text behind the pixels", new_image(pngs.encode(PIXELS, between=[chunks["text"]])))
    CASES.right("with several chunks", new_image(pngs.encode(PIXELS, before=[chunks["time"], chunks["text"]])))
    pixels = zlib.compress(pngs.scanlines(PIXELS))
    pieces = [(b"IDAT", pixels[i : i + 1]) for i in range(len(pixels))]
    end = (b"IEND", b"")
    CASES.right("a byte a chunk", new_image(pngs.join([pngs.header(PIXELS), *pieces, end])))
    empty_ones = [(b"IDAT", b""), (b"IDAT", pixels), (b"IDAT", b"")]
    CASES.right("empty chunks around the pixels", new_image(pngs.join([pngs.header(PIXELS), *empty_ones, end])))
    lace = b"IDAT", zlib.compress(pngs.interlaced(PIXELS))
    CASES.right("interlaced", new_image(pngs.join([pngs.header(PIXELS, interlace=1), lace, end])))
    lace = b"IDAT", zlib.compress(pngs.interlaced(COLOURS))
    content = pngs.join([pngs.header(COLOURS, colour=pngs.RGB, interlace=1), lace, end])
    CASES.right("interlaced colours", new_image(content, COLOURS))
    for level in (0, 9):
        data = b"IDAT", zlib.compress(pngs.scanlines(PIXELS), level)
        CASES.right(f"compressed by {level}", new_image(pngs.join([pngs.header(PIXELS), data, end])))
    for number in range(1, 5):
        content = encoded(".png", PIXELS, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE << number])
        CASES.right(f"rows of filter {number}", new_image(content))
    for name, behind in {"zeros": bytes(9), "text": b"junk", "another PNG": pngs.encode(PIXELS // 2)}.items():
        CASES.right(f"{name} behind the end", new_image(pngs.encode(PIXELS) + behind))
        CASES.right(f"{name} behind the end of a mask", change(MASK, lambda content, behind=behind: content + behind))
    control = b"acTL", struct.pack(">II", 1, 0)
    frame = b"fcTL", struct.pack(">IIIIIHHBB", 0, SIZE, SIZE, 0, 0, 1, 1, 0, 0)
    other = b"fdAT", struct.pack(">I", 1) + zlib.compress(pngs.scanlines(PIXELS // 2))
    CASES.right("animated", new_image(pngs.encode(PIXELS, before=[control], between=[frame, other])))


def kinds() -> None:
    """Modes and depths of an image among grey ones of 8 bits."""
    for bits in (1, 2, 4):
        few, most = PIXELS >> (8 - bits), 2**bits - 1
        CASES.right(f"grey of {bits} bits", new_image(pngs.encode(few, bits), few * np.uint8(255 // most)))
        greys = [(20 + 30 * i, 5, 9 * i) for i in range(2 ** min(bits, 3))]
        few = few >> max(0, bits - 3)
        content = pngs.encode(few, bits, pngs.PALETTE, [pngs.palette(*greys)])
        CASES.right(f"palette of {bits} bits", new_image(content, np.uint8(greys)[few]))
    CASES.right("RGB", new_image(pngs.encode(COLOURS, colour=pngs.RGB), COLOURS))
    CASES.right("RGB that is grey", new_image(pngs.encode(np.dstack([PIXELS] * 3), colour=pngs.RGB)))
    greys = pngs.palette(*((i, i, i) for i in range(256)))
    CASES.right("grey by palette", new_image(pngs.encode(PIXELS, colour=pngs.PALETTE, before=[greys])))
    black = pngs.palette(*((255 - i, i, i) for i in range(256)))
    content = pngs.encode(PIXELS, colour=pngs.PALETTE, before=[black])
    CASES.right("colours by palette", new_image(content, np.dstack([255 - PIXELS, PIXELS, PIXELS])))
    opaque = np.full_like(PIXELS, 255)
    for name, alpha in {"opaque": opaque, "translucent": opaque - PIXELS // 2, "transparent": opaque * 0}.items():
        content = pngs.encode(np.dstack([PIXELS, alpha]), colour=pngs.GREY_ALPHA)
        CASES.refused(f"{name} grey", put(IMAGE, content), TRAIN, IMAGE, "expected grey or RGB without transparency")
        content = pngs.encode(np.dstack([COLOURS, alpha]), colour=pngs.RGBA)
        CASES.refused(f"{name} RGB", put(IMAGE, content), TRAIN, IMAGE, "expected grey or RGB without transparency")
    few, seen = pngs.palette((0, 0, 0), (9, 99, 9)), (b"tRNS", b"\0\xff")
    content = pngs.encode(PIXELS >> 7, colour=pngs.PALETTE, before=[few, seen])
    CASES.refused("transparent palette", put(IMAGE, content), TRAIN, IMAGE, "expected grey or RGB without transparency")
    deep = PIXELS.astype(np.uint16) * 257
    expected = "12x12 pixels of uint16, expected 12x12 pixels of uint8 as the other tiles"
    CASES.refused("grey of 16 bits", put(IMAGE, pngs.encode(deep, 16)), TRAIN, IMAGE, expected)
    content = pngs.encode(COLOURS.astype(np.uint16) * 257, 16, pngs.RGB)
    CASES.refused("RGB of 16 bits", put(IMAGE, content), TRAIN, IMAGE, expected)
    CASES.right("all of 16 bits", all_of_16_bits)
    for path, by in PART.items():
        for height, width in ((12, 11), (11, 12), (24, 24), (1, 1)):
            content = pngs.encode(np.zeros((height, width), np.uint8))
            said = f"{height}x{width} pixels of uint8, expected 12x12"
            CASES.refused(f"{path} of {height}x{width}", put(path, content), by, path, said)


def all_of_16_bits(data: Path, truth: Truth) -> None:
    for name, pixels in truth.images.items():
        truth.images[name] = pixels.astype(np.uint16) * 250 + 3
        part = "train" if name in truth.train else "test"
        (data / part / "images" / f"{name}.png").write_bytes(pngs.encode(truth.images[name], 16))


def others() -> None:
    """What is no PNG, under the name of one."""
    mask = SALT * np.uint8(255)
    numpy = io.BytesIO()
    np.save(numpy, PIXELS)
    contents = {
        "text": b"no image\n",
        "HTML": b"<!DOCTYPE html><html><body><h1>403 Forbidden</h1></body></html>",
        "JSON": b'{"code": 401, "message": "Unauthorized"}',
        "pointer to a large file": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "JPEG": encoded(".jpg", mask),
        "GIF": gif(mask),
        "BMP": encoded(".bmp", mask),
        "TIFF": encoded(".tif", mask),
        "WebP": encoded(".webp", mask),
        "PGM": encoded(".pgm", mask),
        "array": numpy.getvalue(),
        "gzip": gzip.compress(pngs.encode(mask), mtime=0),
        "base64": base64.b64encode(pngs.encode(mask)),
        "PNG behind a byte order mark": b"\xef\xbb\xbf" + pngs.encode(mask),
    }
    for path, by in PART.items():
        for name in contents if path == IMAGE else ("HTML", "JPEG"):
            act = put(path, contents[name])
            CASES.refused(f"{path}: {name}", act, by, path, "is not a whole PNG: download it again")
        CASES.refused(f"{path}: folder", remade(path, os.mkdir), by, path, "expected a PNG")
        CASES.refused(f"{path}: pipe", remade(path, os.mkfifo), by, path, "expected a PNG")
        CASES.refused(f"{path}: no file", remade(path, lambda _: None), by, path, "is missing, expected a PNG")
        act = remade(path, partial(os.symlink, "nowhere.png"))
        CASES.refused(f"{path}: broken link", act, by, path, "is missing, expected a PNG")
        act = remade(path, lambda file: os.symlink(file.name, file))
        CASES.refused(f"{path}: link to itself", act, by, path, "expected a PNG")
        act = remade(path, lambda file: os.symlink(".", file))
        CASES.refused(f"{path}: link to a folder", act, by, path, "expected a PNG")
        CASES.right(f"{path}: link to the file", linked(path, Path.symlink_to))
        CASES.right(f"{path}: second name of the file", linked(path, Path.hardlink_to))


def gif(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "GIF")
    return content.getvalue()


def linked(path: str, link) -> Act:
    def act(data: Path, truth: Truth) -> None:
        target = (data / path).rename(data / f"elsewhere{SECOND}")
        link(data / path, target)

    return act


def masks() -> None:
    whole, bits = pngs.encode, SALT.astype(np.uint8)
    black, white, red = (0, 0, 0), (255, 255, 255), (200, 0, 0)
    by_palette = partial(whole, colour=pngs.PALETTE)
    for name, content in {
        "of 0 and 1": whole(bits),
        "of 0 and 128": whole(bits * 128),
        "of 0 and 255": whole(bits * 255),
        "of 1 bit": whole(bits, 1),
        "of 2 bits": whole(bits * 3, 2),
        "of 4 bits": whole(bits, 4),
        "of 16 bits, 0 and 1": whole(bits.astype(np.uint16), 16),
        "of 16 bits, 0 and 256": whole(bits.astype(np.uint16) * 256, 16),
        "of 16 bits, 0 and 65535": whole(bits.astype(np.uint16) * 65535, 16),
        "in grey RGB": whole(np.dstack([bits * 255] * 3), colour=pngs.RGB),
        "in grey RGB of 16 bits": whole(np.dstack([bits.astype(np.uint16) * 256] * 3), 16, pngs.RGB),
        "by palette": by_palette(bits, before=[pngs.palette(black, white)]),
        "by palette from white": by_palette(1 - bits, before=[pngs.palette(white, black)]),
        "by palette of 1 bit": by_palette(bits, 1, before=[pngs.palette(black, white)]),
        "interlaced": pngs.join(
            [pngs.header(bits, interlace=1), (b"IDAT", zlib.compress(pngs.interlaced(bits))), (b"IEND", b"")]
        ),
    }.items():
        CASES.right(f"mask {name}", put(MASK, content))
    three, lacking = bits * 255, bits * 255
    three[0, 0], lacking[-1, -1] = 7, 0
    for name, content, said in (
        ("of three values", whole(three), "has 3 values (0, 7, ...), expected two at most"),
        ("of three 16-bit values", whole(three.astype(np.uint16) * 200, 16), "has 3 values (0, 1400, ...)"),
        ("of noise", whole(PIXELS), "expected two at most: 0 and salt"),
        ("of 2 bits and three values", whole(bits * 2 + (three == 7), 2), "has 3 values (0, 85, ...)"),
        ("in red", whole(np.dstack([bits * 255, bits, bits]), colour=pngs.RGB), "is in colour, expected a grey mask"),
        ("by red palette", by_palette(bits, before=[pngs.palette(black, red)]), "is in colour, expected a grey mask"),
        ("with alpha", whole(np.dstack([bits, bits * 255]), colour=pngs.GREY_ALPHA), "without transparency"),
        ("in RGBA", whole(np.dstack([bits] * 4), colour=pngs.RGBA), "without transparency"),
        ("of two values above 0", whole(bits * 200 + 7), "differs from rle_mask in train.csv in"),
        ("inverted", whole(255 - bits * 255), "differs from rle_mask in train.csv in 144 pixels"),
        ("transposed", whole(bits.T), "differs from rle_mask in train.csv in"),
        ("mirrored", whole(bits[:, ::-1]), "differs from rle_mask in train.csv in"),
        ("upside down", whole(bits[::-1]), "differs from rle_mask in train.csv in"),
        ("shifted by a pixel", whole(np.roll(bits, 1, 0)), "differs from rle_mask in train.csv in"),
        ("of another tile", whole(salt_mask(2, SIZE).astype(np.uint8)), "differs from rle_mask in train.csv in"),
        ("empty", whole(bits * 0), "differs from rle_mask in train.csv in"),
        ("full", whole(bits * 0 + 255), "differs from rle_mask in train.csv in"),
        ("that lacks a pixel", whole(lacking), "differs from rle_mask in train.csv in 1 pixels"),
    ):
        CASES.refused(f"mask {name}", put(MASK, content), TRAIN, MASK, said)


for declare in (cuts, flips, lies, unusual, kinds, others, masks):
    declare()
