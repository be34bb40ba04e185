"""Images and masks in folders of their own: files of many kinds cut, mislabelled, or only unusual."""

import io
import os
import shutil
import struct
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from damage import pngs
from damage.case import Act, Cases, both, on
from PIL import Image, TiffImagePlugin

HEIGHT, WIDTH = 20, 24
IMAGE, MASK, NAME = "images/tile 1.png", "gt/tile 1.png", "tile 1"
PHOTO, GIF_MASK, CAR = "train/c0_01.jpg", "train_masks/c0_01_mask.gif", "c0_01"
REFUSED = frozenset({"reading"})
TILES, CARS = Cases(), Cases()
# A truth is {name: (image (H, W) or (H, W, 3) RGB, mask (H, W) bool)}.
Truth = dict[str, tuple[np.ndarray, np.ndarray]]

COLOURS = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GREYS = COLOURS[..., 0]
DEEP = COLOURS.astype(np.uint16) * 250 + 7
BITS = np.zeros((HEIGHT, WIDTH), np.uint8)
BITS[3:9, 5:17] = 1


def pillow(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(content, kind, **options)
    return content.getvalue()


def opencv(suffix: str, image: np.ndarray, *options) -> bytes:
    return cv2.imencode(suffix, image if image.ndim == 2 else image[..., ::-1], *options)[1].tobytes()


def decoded(content: bytes) -> np.ndarray:
    """In RGB, by Pillow alone."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def indexed(*colours: tuple[int, int, int], indices: np.ndarray = BITS) -> Image.Image:
    image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def file(path: str, suffix: str, content: bytes, image=None, mask=None) -> Act:
    """In place of `path`, under this suffix; with what is right of it, unless it is to be refused."""

    def act(data: Path, truth: Truth) -> None:
        (data / path).unlink()
        (data / path).with_suffix(suffix).write_bytes(content)
        name = Path(path).stem.removesuffix("_mask")
        old_image, old_mask = truth[name]
        truth[name] = old_image if image is None else image, old_mask if mask is None else mask > 0

    return act


def right_image(name: str, suffix: str, content: bytes, image: np.ndarray = COLOURS) -> None:
    TILES.right(f"image: {name}", file(IMAGE, suffix, content, image=image))


def wrong_image(name: str, suffix: str, content: bytes, *said: str) -> None:
    TILES.refused(f"image: {name}", file(IMAGE, suffix, content), REFUSED, f"images/tile 1{suffix}", *said)


def right_mask(name: str, suffix: str, content: bytes, mask: np.ndarray = BITS) -> None:
    TILES.right(f"mask: {name}", file(MASK, suffix, content, mask=mask))


def wrong_mask(name: str, suffix: str, content: bytes, *said: str) -> None:
    TILES.refused(f"mask: {name}", file(MASK, suffix, content), REFUSED, f"gt/tile 1{suffix}", *said)


def cuts() -> None:
    whole = {
        "PNG": (".png", opencv(".png", COLOURS)),
        "PNG of 16 bits": (".png", opencv(".png", DEEP)),
        "JPEG": (".jpg", pillow(COLOURS, "JPEG")),
        "progressive JPEG": (".jpg", pillow(COLOURS, "JPEG", progressive=True)),
        "JPEG with a thumbnail": (".jpeg", with_thumbnail(pillow(COLOURS, "JPEG"))),
        "GIF": (".gif", pillow(COLOURS, "GIF")),
        "BMP": (".bmp", opencv(".bmp", COLOURS)),
        "TIFF": (".tif", pillow(COLOURS, "TIFF")),
        "TIFF of 16 bits": (".tiff", opencv(".tif", DEEP)),
        **{f"TIFF by {how}": (".tif", pillow(COLOURS, "TIFF", compression=how)) for how in ("tiff_lzw", "jpeg")},
    }
    for name, (suffix, content) in whole.items():
        for left in (10, len(content) // 3, len(content) * 9 // 10, len(content) - 4):
            wrong_image(f"{name} cut to {left}", suffix, content[:left], "cannot be read as an image")
    for name in ("PNG", "JPEG"):
        suffix, content = whole[name]
        wrong_image(f"{name} one byte short", suffix, content[:-1], "it is cut off or damaged, so save or download")
    content = whole["GIF"][1]
    right_image("GIF without its last byte", ".gif", content[:-1], decoded(content))
    for name, content, image in (("PNG", whole["PNG"][1], COLOURS), ("JPEG", *[pillow(COLOURS, "JPEG")] * 2)):
        image = image if name == "PNG" else decoded(content)
        right_image(f"{name} with zeros behind", whole[name][0], content + bytes(9), image)
    for place in (20, 45, 100, -2):
        content = bytearray(opencv(".png", COLOURS))
        content[place] ^= 4
        wrong_image(f"PNG with a bit flipped at {place}", ".png", bytes(content), "cannot be read as an image")
    red = indexed((0, 0, 0), (200, 0, 0))
    for suffix, kind in {".png": "PNG", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF"}.items():
        content = pillow(red, kind)
        wrong_mask(f"{kind} by palette cut", suffix, content[: len(content) // 2], "cannot be read as an image")
    wrong_mask("PNG by palette without an end", ".png", pillow(red, "PNG")[:-12], "it is cut off or damaged")


def with_thumbnail(content: bytes) -> bytes:
    """A whole JPEG within the EXIF of a JPEG, which ends before the pixels do."""
    within = b"Exif\0\0" + pillow(COLOURS[:8, :8], "JPEG")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(within) + 2) + within + content[2:]


def suffixes() -> None:
    jpeg, gif = pillow(COLOURS, "JPEG"), pillow(COLOURS, "GIF")
    right_image("PNG as .jpg", ".jpg", opencv(".png", COLOURS))
    right_image("PNG as .gif", ".gif", opencv(".png", COLOURS))
    right_image("PNG of 16 bits as .gif", ".gif", opencv(".png", DEEP), DEEP)
    right_image("grey PNG of 16 bits as .gif", ".gif", opencv(".png", DEEP[..., 0]), DEEP[..., 0])
    right_image("TIFF as .png", ".png", opencv(".tif", COLOURS))
    right_image("BMP as .tif", ".tif", opencv(".bmp", COLOURS))
    right_image("WebP as .png", ".png", opencv(".webp", COLOURS, [cv2.IMWRITE_WEBP_QUALITY, 101]))
    right_image("JPEG as .png", ".png", jpeg, decoded(jpeg))
    right_image("GIF as .png", ".png", gif, decoded(gif))
    right_mask("palette PNG as .jpg", ".jpg", pillow(indexed((0, 0, 0), (200, 0, 0)), "PNG"))
    right_mask("GIF as .bmp", ".bmp", pillow(indexed((0, 0, 0), (200, 0, 0)), "GIF"))
    for suffix in (".PNG", ".Png"):
        right_image(f"PNG as {suffix}", suffix, opencv(".png", COLOURS))
    right_image("JPEG as .JPEG", ".JPEG", jpeg, decoded(jpeg))
    for name, content in {
        "text": b"no image",
        "HTML": b"<!DOCTYPE html><h1>403 Forbidden</h1>",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="24" height="20"></svg>',
        "PDF": b"%PDF-1.4\n%%EOF\n",
        "zeros": bytes(2000),
        "array": b"\x93NUMPY\x01\x00" + bytes(100),
    }.items():
        wrong_image(name, ".png", content, "cannot be read as an image: it is damaged or of another kind")
    wrong_image("nothing", ".tif", b"", "is empty, expected an image: save it again")


def kinds() -> None:
    opaque = np.full_like(GREYS, 255)
    right_image("of 1 bit", ".png", pillow(Image.fromarray(GREYS > 99), "PNG"), (GREYS > 99) * np.uint8(255))
    right_image("grey", ".png", opencv(".png", GREYS), GREYS)
    right_image("grey and opaque", ".png", pngs.encode(np.dstack([GREYS, opaque]), colour=pngs.GREY_ALPHA), GREYS)
    right_image("opaque", ".png", pngs.encode(np.dstack([COLOURS, opaque]), colour=pngs.RGBA))
    content = pngs.encode(np.dstack([DEEP, np.full_like(DEEP[..., 0], 65535)]), 16, pngs.RGBA)
    right_image("opaque of 16 bits", ".png", content, DEEP)
    right_image(
        "by palette", ".png", pillow(indexed((9, 8, 7), (99, 0, 1)), "PNG"), np.uint8([[9, 8, 7], [99, 0, 1]])[BITS]
    )
    right_image("PNG of 16 bits", ".png", opencv(".png", DEEP), DEEP)
    right_image("TIFF of 16 bits", ".tif", opencv(".tif", DEEP), DEEP)
    right_image("TIFF of 16 bits from its large end", ".tif", large_end(DEEP[..., 0]), DEEP[..., 0])
    right_image("TIFF by deflate", ".tif", pillow(COLOURS, "TIFF", compression="tiff_adobe_deflate"))
    white = {262: 0}  # the tag of what 0 means
    right_image("TIFF from white", ".tif", pillow(GREYS, "TIFF", tiffinfo=white), GREYS)
    wrong_image(
        "TIFF of 16 bits from white", ".tif", pillow(DEEP[..., 0], "TIFF", tiffinfo=white), "0 is white, expected"
    )
    more = {"save_all": True, "append_images": [Image.fromarray(COLOURS[::-1])]}
    right_image("TIFF of two pages", ".tif", pillow(COLOURS, "TIFF", **more))
    gif = pillow(COLOURS, "GIF", **more)
    right_image("animated GIF", ".gif", gif, decoded(gif))
    right_image("animated PNG", ".png", pillow(COLOURS, "PNG", **more))
    for name, alpha in {"translucent": GREYS, "transparent": opaque * 0}.items():
        content = pngs.encode(np.dstack([COLOURS, alpha]), colour=pngs.RGBA)
        wrong_image(name, ".png", content, "has 4 channels, expected grey or RGB")
    content = pillow(indexed((0, 0, 0), (200, 0, 0)), "PNG", transparency=0)
    wrong_image("transparent palette", ".png", content, "has 4 channels, expected grey or RGB")
    for mode, kind, suffix in (("CMYK", "JPEG", ".jpg"), ("CMYK", "TIFF", ".tif"), ("LAB", "TIFF", ".tif")):
        content = pillow(Image.fromarray(COLOURS).convert(mode), kind)
        wrong_image(f"{kind} in {mode}", suffix, content, f"has the colours {mode}, expected grey or RGB: convert it")
    content = pillow(Image.fromarray(COLOURS).convert("YCbCr"), "TIFF")
    wrong_image("TIFF in YCbCr", ".tif", content, "has the colours YCbCr, expected grey or RGB: convert it")
    for dtype in (np.float32, np.int32):
        content = opencv(".tif", GREYS.astype(dtype))
        wrong_image(f"TIFF of {dtype.__name__}", ".tif", content, f"type {dtype.__name__}, expected 8 or 16 bits")


def large_end(image: np.ndarray) -> bytes:
    """A TIFF of 16 bits in the other order of bytes."""
    content = io.BytesIO()
    Image.frombytes("I;16B", image.shape[::-1], image.astype(">u2").tobytes()).save(content, "TIFF")
    return content.getvalue()


def turns() -> None:
    """Images and masks are read as stored."""
    exif, tags = Image.Exif(), TiffImagePlugin.ImageFileDirectory_v2()
    for turn in (2, 3, 6):
        exif[274] = tags[274] = turn
        jpeg = pillow(COLOURS, "JPEG", exif=exif.tobytes())
        right_image(f"JPEG to be turned by {turn}", ".jpg", jpeg, decoded(jpeg))
        right_image(f"PNG to be turned by {turn}", ".png", pillow(COLOURS, "PNG", exif=exif.tobytes()))
        right_mask(f"PNG to be turned by {turn}", ".png", pillow(BITS, "PNG", exif=exif.tobytes()))
        said = "is stored turned or mirrored, by its orientation tag: save it upright"
        wrong_image(f"TIFF to be turned by {turn}", ".tif", pillow(COLOURS, "TIFF", tiffinfo=tags), said)
        palette = indexed((0, 0, 0), (200, 0, 0))
        wrong_mask(f"TIFF to be turned by {turn}", ".tif", pillow(palette, "TIFF", tiffinfo=tags), said)


def masks() -> None:
    right_mask("of 0 and 1", ".png", opencv(".png", BITS))
    right_mask("of 16 bits, 0 and 256", ".png", opencv(".png", BITS.astype(np.uint16) * 256))
    right_mask("of 1 bit", ".bmp", pillow(Image.fromarray(BITS > 0), "BMP"))
    right_mask("in grey RGB", ".tif", opencv(".tif", np.dstack([BITS * 255] * 3)))
    right_mask(
        "in grey and opaque RGBA", ".png", pngs.encode(np.dstack([BITS * 255] * 3 + [BITS * 0 + 255]), colour=pngs.RGBA)
    )
    right_mask("empty", ".png", opencv(".png", BITS * 0), BITS * 0)
    right_mask("full", ".png", opencv(".png", BITS * 0 + 255), BITS * 0 + 1)
    frames = {"save_all": True, "append_images": [indexed((0, 0, 0), (200, 0, 0), indices=1 - BITS)]}
    right_mask("animated", ".gif", pillow(indexed((0, 0, 0), (200, 0, 0)), "GIF", **frames))
    for kind, suffix in (("PNG", ".png"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif")):
        right_mask(f"{kind} by red palette", suffix, pillow(indexed((0, 0, 0), (200, 0, 0)), kind))
        right_mask(f"{kind} by grey palette", suffix, pillow(indexed((0, 0, 0), (255, 255, 255)), kind))
        content = pillow(indexed((255, 255, 255), (0, 0, 0), indices=1 - BITS), kind)
        wrong_mask(
            f"{kind} by palette from white", suffix, content, "greys that do not rise, such as white before black: save"
        )
    three = BITS * 255
    three[0, 0] = 7
    said = "has the values 0 (407 pixels), 255 (72), 7 (1), expected two at most, 0 and the object: name the labels"
    wrong_mask("of three values", ".png", opencv(".png", three), said)
    wrong_mask("of two values above 0", ".png", opencv(".png", BITS * 3 + 4), "expected two at most, 0 and the object")
    wrong_mask("JPEG", ".jpg", pillow(BITS * 255, "JPEG"), "has the values", "expected two at most, 0 and the object")
    wrong_mask(
        "in colour", ".png", opencv(".png", np.dstack([BITS * 255, BITS, BITS])), "is in colour, expected a mask"
    )
    content = opencv(".png", np.dstack([BITS * 255] * 4))
    wrong_mask("translucent", ".png", content, "has 4 channels, expected grey or RGB")
    wrong_mask("of decimals", ".tif", opencv(".tif", BITS.astype(np.float32)), "type float32, expected 8 or 16 bits")
    for name, mask in {
        "transposed": BITS.T,
        "a row short": BITS[1:],
        "doubled": np.kron(BITS, np.uint8([[1] * 2] * 2)),
    }.items():
        said = f"has {mask.shape[0]}x{mask.shape[1]} pixels and", "tile 1.png 20x24: they should be of one size"
        wrong_mask(name, ".png", opencv(".png", np.ascontiguousarray(mask)), *said)


def without(name: str) -> Act:
    return lambda data, truth: truth.pop(name) and None


def renamed(new: str) -> Act:
    """The tile has another name in both folders."""

    def act(data: Path, truth: Truth) -> None:
        for folder in ("images", "gt"):
            (data / folder / f"{NAME}.png").rename(data / folder / f"{new}.png")
        truth[new] = truth.pop(NAME)

    return act


def folders() -> None:
    sound = opencv(".png", COLOURS)
    for folder in ("images", "gt"):
        for name in (".DS_Store", "._tile 1.png", "Thumbs.db", "notes.txt", "more/x.png", "tile 1.txt"):
            TILES.right(f"{folder} has {name} as well", on(f"{folder}/{name}", partial(write, content=sound)))
        said = "names have to differ without suffix"
        for name in ("tile 1.jpg", "tile 1.PNG"):
            act = on(f"{folder}/{name}", partial(write, content=sound))
            TILES.refused(f"{folder} has {name} as well", act, REFUSED, folder, name, said)
        for name, make in {
            "folder": os.mkdir,
            "pipe": os.mkfifo,
            "broken link": partial(os.symlink, "nowhere"),
            "link to itself": lambda path: os.symlink(path.name, path),
        }.items():
            said = f"{folder} has 'x.png', which is no file that can be read: remove it"
            TILES.refused(f"{folder} has a {name}", on(f"{folder}/x.png", make), REFUSED, said)
        for name in ("a\nb.png", "a\tb.png"):
            act = on(f"{folder}/{name}", partial(write, content=sound))
            TILES.refused(
                f"{folder} has {name!r}", act, REFUSED, f"{folder} has {name!r}, a name of odd characters: rename"
            )
        act = on(folder, lambda path: Path(os.fsdecode(os.fsencode(path) + b"/\xe9.png")).write_bytes(b"x"))
        TILES.refused(f"{folder} has a name in Latin-1", act, REFUSED, f"{folder} has '\\udce9.png', a name of odd")
        act = both(on(folder, shutil.rmtree), on(folder, os.mkdir))
        TILES.refused(f"{folder} is empty", act, REFUSED, f"{folder} has no image", "put some there or name another")
    TILES.refused("no gt", on("gt", shutil.rmtree), REFUSED, "gt is not a folder: it should hold images")
    TILES.refused("no images", on("images", shutil.rmtree), REFUSED, "has no layout that is known: expected")
    said = "gt has no file for 1 of 3 images, such as tile 1.png: every image needs one of the same name"
    TILES.refused("no mask", on(MASK, os.unlink), REFUSED, said)
    TILES.refused("a mask of another suffix", on(MASK, lambda p: p.rename(p.with_suffix(".webp"))), REFUSED, said)
    TILES.refused("a mask of other capitals", on(MASK, lambda p: p.rename(p.with_name("Tile 1.png"))), REFUSED, said)
    TILES.right("no image of a mask", both(on(IMAGE, os.unlink), without(NAME)))
    TILES.right("an image by a link", on(IMAGE, lambda p: (p.rename(p.with_name("kept")), p.symlink_to("kept"))))
    for name in ("1e5", "NA", "a,b", 'a"b', "a.b", "\u00e9", "e\u0301", "\u5869", "tile 1.jpg"):
        TILES.right(f"the name {name!r}", renamed(name))
    act = both(renamed("\u00e9"), on("gt/\u00e9.png", lambda p: p.rename(p.with_name("e\u0301.png"))))
    TILES.refused("the name in two spellings", act, REFUSED, "gt has no file for 1 of 3 images, such as \u00e9.png")
    act = both(*(on(part, lambda p: shutil.copytree(p.parent / "images", p / "images")) for part in ("train", "val")))
    more = both(act, *(on(part, lambda p: shutil.copytree(p.parent / "gt", p / "gt")) for part in ("train", "val")))
    TILES.refused("all in train and in val", more, REFUSED, "has 'tile 0' in train and in val: an image can train or")
    act = on(
        "train",
        lambda p: (shutil.copytree(p.parent / "images", p / "images"), shutil.copytree(p.parent / "gt", p / "gt")),
    )
    TILES.refused("train without val", act, REFUSED, "val/images is not a folder: it should hold images")


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def cars() -> None:
    def mask(name: str, suffix: str, content: bytes, *said: str) -> None:
        act = file(GIF_MASK, suffix, content, mask=BITS)
        words = (f"train_masks/c0_01_mask{suffix}", *said)
        CARS.refused(f"mask: {name}", act, REFUSED, *words) if said else CARS.right(f"mask: {name}", act)

    for left in ("half", "one byte"):
        act = on(PHOTO, lambda p, left=left: p.write_bytes(p.read_bytes()[: -1 if left == "one byte" else 500]))
        CARS.refused(f"image cut by {left}", act, REFUSED, PHOTO, "cannot be read as an image")
    CARS.refused(
        "image is a page", on(PHOTO, lambda p: p.write_text("<html>")), REFUSED, PHOTO, "damaged or of another"
    )
    mask("another one", ".gif", pillow(indexed((0, 0, 0), (255, 255, 255)), "GIF"))
    mask("PNG", ".png", opencv(".png", BITS * 255))
    mask("TIFF", ".tif", opencv(".tif", BITS))
    mask(
        "animated",
        ".gif",
        pillow(
            indexed((0, 0, 0), (9, 0, 0)),
            "GIF",
            save_all=True,
            append_images=[indexed((0, 0, 0), (9, 0, 0), indices=1 - BITS)],
        ),
    )
    mask(
        "from white",
        ".gif",
        pillow(indexed((255, 255, 255), (0, 0, 0), indices=1 - BITS), "GIF"),
        "white before black: save",
    )
    mask(
        "of another size",
        ".gif",
        pillow(indexed((0, 0, 0), (9, 0, 0), indices=BITS[2:]), "GIF"),
        "18x24 pixels and",
        "of one size",
    )
    mask("cut", ".gif", pillow(indexed((0, 0, 0), (9, 0, 0)), "GIF")[:-60], "cannot be read as an image")
    mask("empty", ".gif", b"", "is empty, expected an image")
    mask(
        "of three values",
        ".gif",
        pillow(indexed((0, 0, 0), (9, 0, 0), (0, 9, 0), indices=BITS + (COLOURS[..., 0] > 250)), "GIF"),
        "has the values 0",
        "expected two at most",
    )
    CARS.refused(
        "no mask", on(GIF_MASK, os.unlink), REFUSED, "train_masks has no file for 1 of 4 images, such as c0_01.jpg"
    )
    CARS.right("a mask without _mask", on(GIF_MASK, lambda p: p.rename(p.with_name("c0_01.gif"))))
    act = on(GIF_MASK, lambda p: shutil.copy(p, p.with_name("c0_01.gif")))
    CARS.refused("two masks of an image", act, REFUSED, "train_masks has c0_01.gif and c0_01_mask.gif: keep one mask")
    act = on(PHOTO, lambda p: p.with_suffix(".png").write_bytes(opencv(".png", COLOURS)))
    CARS.refused("two images of a name", act, REFUSED, "train has c0_01.jpg and c0_01.png: names have to differ")
    CARS.refused("no masks", on("train_masks", shutil.rmtree), REFUSED, "has no layout that is known: expected")
    CARS.refused("no images", on("train", shutil.rmtree), REFUSED, "train is not a folder: it should hold images")
    CARS.right("no image of a mask", both(on(PHOTO, os.unlink), without(CAR)))


for declare in (cuts, suffixes, kinds, turns, masks, folders, cars):
    declare()
