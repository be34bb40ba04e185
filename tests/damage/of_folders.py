"""Files that are elsewhere, too many, or under other names."""

import os
import shutil
from pathlib import Path

import numpy as np
from damage import pngs
from damage.case import (
    IMAGE,
    MASK,
    PART,
    SAMPLE,
    SECOND,
    SIZE,
    TEST,
    TESTED,
    TRAIN,
    VERIFY,
    Act,
    Cases,
    Truth,
    both,
    on,
)

CASES = Cases()
FOLDERS = {"train/images": TRAIN, "train/masks": TRAIN, "test/images": TEST}
TABLE_OF = {"train/images": "train.csv", "train/masks": "train.csv", "test/images": "sample_submission.csv"}


def move(old: str, new: str) -> Act:
    def act(data: Path, truth: Truth) -> None:
        (data / new).parent.mkdir(parents=True, exist_ok=True)
        (data / old).rename(data / new)

    return act


def swap(one: str, other: str) -> Act:
    return both(move(one, "between"), move(other, one), move("between", other))


def write(path: str, content: bytes = b"") -> Act:
    def act(data: Path, truth: Truth) -> None:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes(content)

    return act


def missing() -> None:
    for folder, by in FOLDERS.items():
        said = f"{folder} is not a folder, expected Kaggle's layout"
        CASES.refused(f"no {folder}", on(folder, shutil.rmtree), by, said)
        CASES.refused(f"{folder} is a file", both(on(folder, shutil.rmtree), write(folder)), by, said)
        CASES.refused(f"{folder} in capitals", move(folder, folder.upper()), by, said)
        broken = both(on(folder, shutil.rmtree), on(folder, lambda path: os.symlink("nowhere", path)))
        CASES.refused(f"{folder} is a broken link", broken, by, said)
        CASES.right(f"{folder} is a link", both(move(folder, "kept"), linked(folder)))
        nested = both(move(folder, "between"), move("between", f"{folder}/{Path(folder).name}"))
        said = f"{folder}/{'00e0000000' if by is TRAIN else '04e0000004'}.png is missing, expected a PNG"
        CASES.refused(f"{folder} within itself", nested, by, said)
        CASES.refused(f"{folder} is empty", both(on(folder, shutil.rmtree), on(folder, os.mkdir)), by, said)
    CASES.refused("no train", on("train", shutil.rmtree), TRAIN, "train/images is not a folder")
    CASES.refused("no test", on("test", shutil.rmtree), TEST, "test/images is not a folder")
    CASES.refused("all within a folder", within, TRAIN | SAMPLE, ".csv is missing, expected a table of")


def linked(folder: str) -> Act:
    return lambda data, truth: (data / folder).symlink_to(data / "kept", target_is_directory=True)


def within(data: Path, truth: Truth) -> None:
    """As an archive may unpack."""
    names = sorted(data.iterdir())
    (data / "competition").mkdir()
    for path in names:
        path.rename(data / "competition" / path.name)
    truth.depths.clear()


def swaps() -> None:
    act = swap("train/images", "test/images")
    CASES.refused("images of train and test swapped", act, TRAIN | TEST, ".png is missing, expected a PNG")
    CASES.refused("train and test swapped", swap("train", "test"), TRAIN | TEST, "expected")
    act = swap("train/images", "train/masks")
    CASES.refused("images and masks swapped", act, TRAIN, "train/", "expected")
    act = swap(MASK, "train/masks/02e0000002.png")
    CASES.refused("two masks swapped", act, TRAIN, f"{SECOND}.png differs from rle_mask in train.csv in")
    CASES.refused("a mask as image", copied(MASK, IMAGE), TRAIN, IMAGE, "uint16, expected 12x12 pixels of uint8")
    CASES.refused("an image as mask", copied(IMAGE, MASK), TRAIN, MASK, "values (", "expected two at most")


def copied(old: str, new: str) -> Act:
    return lambda data, truth: shutil.copy(data / old, data / new) and None


def names() -> None:
    for path, by in PART.items():
        name = Path(path).stem
        others = (
            *(f"{name}.PNG", f"{name}.png.png", f"{name} .png", f"{name}.Png", f"{name}.jpg", f" {name}.png"),
            *(name, f"{name}.png.part", f"{name.upper()}.png", f"{name} (1).png", f"{name}.png~", f"._{name}.png"),
        )
        for new in others if path == IMAGE else others[:3]:
            act = move(path, str(Path(path).with_name(new)))
            CASES.refused(f"{path} is named {new!r}", act, by, path, "is missing, expected a PNG for every id")
    for old, new in (("\u00e9", "e\u0301"), ("e\u0301", "\u00e9")):
        act = both(listed(old), write(f"train/images/{new}.png", b"x"))
        said = f"train/images/{old}.png is missing, expected a PNG"
        CASES.refused(f"the id {old!a} whose file is {new!a}", act, TRAIN, said)


def listed(name: str) -> Act:
    def act(data: Path, truth: Truth) -> None:
        with (data / "train.csv").open("a", encoding="utf-8") as table:
            table.write(f"{name},\n")

    return act


def extra() -> None:
    """Reading takes what is listed; verify tells of the rest, but for what is hidden or beside the folders."""
    sound = pngs.encode(np.zeros((SIZE, SIZE), np.uint8))
    for folder in FOLDERS:
        names = ("extra.png", "Thumbs.db", "a\nb.png", "extra.PNG", f"{SECOND}.txt", f"{TESTED} (1).png", "desktop.ini")
        for name in names if folder == "train/images" else names[:3]:
            said = f"{folder} has {name!r}, which is not listed in {TABLE_OF[folder]}: remove it or list it"
            CASES.refused(f"{folder} has {name!r} as well", write(f"{folder}/{name}", sound), VERIFY, said)
        act = on(folder, lambda path: Path(os.fsdecode(os.fsencode(path) + b"/\xe9.png")).write_bytes(b"x"))
        said = f"{folder} has '\\udce9.png', which is not listed in {TABLE_OF[folder]}"
        CASES.refused(f"{folder} has a name in Latin-1", act, VERIFY, said)
        said = f"{folder} has 'more', which is not listed in"
        CASES.refused(f"{folder} has a folder", on(f"{folder}/more", os.mkdir), VERIFY, said)
        for name in (".DS_Store", f"._{SECOND}.png", ".ipynb_checkpoints/x.png", ".extra.png"):
            CASES.right(f"{folder} has {name!r} as well", write(f"{folder}/{name}", sound))
    for name in (
        "README.md",
        "__MACOSX/train/images/x.png",
        "train.zip",
        "train/notes.txt",
        "test/masks/x.png",
        ".git/x",
    ):
        CASES.right(f"there is {name} as well", write(name, sound))


def sizes() -> None:
    for part, said in (("images", "has 12x12 pixels of uint8, expected 14x14"), ("masks", "has 14x14 pixels of uint8")):
        CASES.refused(f"{part}: all of another size", resized(f"train/{part}"), TRAIN, "train/masks", said)
    said = "test/images has 14x14 torch.uint8 tiles, expected 12x12 torch.uint8 tiles as in train/images"
    CASES.refused("test/images: all of another size", resized("test/images"), VERIFY, said)
    CASES.refused("test/images: all of 16 bits", deepened, VERIFY, "test/images has 12x12 torch.uint16 tiles, expected")


def resized(folder: str) -> Act:
    def act(data: Path, truth: Truth) -> None:
        pixels = np.arange(14 * 14, dtype=np.uint8).reshape(14, 14)
        for path in (data / folder).iterdir():
            path.write_bytes(pngs.encode(pixels if "images" in folder else pixels * 0))
            if folder == "test/images":
                truth.images[path.stem] = pixels

    return act


def deepened(data: Path, truth: Truth) -> None:
    for name in truth.test:
        truth.images[name] = truth.images[name].astype(np.uint16) * 257
        (data / f"test/images/{name}.png").write_bytes(pngs.encode(truth.images[name], 16))


for declare in (missing, swaps, names, extra, sizes):
    declare()
