"""Images and masks of any kind come in right, or are refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from folders import shapes, write, write_cars, write_tiles
from PIL import Image

import runfolder
from command import BadInput
from datasets import files, folds, labels, layouts, pictures
from datasets.labels import BINARY, Labels

MASK = np.zeros((20, 30), np.uint8)
MASK[4:9, 5:17] = 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_images_come_back_in_rgb(tmp_path: Path, suffix: str, channels: int):
    image = np.random.default_rng(0).integers(0, 255, (9, 11, channels)[: 2 if channels == 1 else 3], np.uint8)
    write(tmp_path / f"a{suffix}", image)
    assert np.array_equal(pictures.read(tmp_path / f"a{suffix}"), image)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_kept(tmp_path: Path, suffix: str):
    image = np.random.default_rng(0).integers(0, 65535, (9, 11, 3), np.uint16)
    write(tmp_path / f"a{suffix}", image)
    found = pictures.read(tmp_path / f"a{suffix}")
    assert found.dtype == np.uint16 and np.array_equal(found, image)


def test_jpg_and_gif_come_in_colour(tmp_path: Path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    for suffix in (".jpg", ".gif"):
        write(tmp_path / f"a{suffix}", red)
        found = pictures.read(tmp_path / f"a{suffix}")
        assert found.shape == (16, 16, 3) and found[..., 0].mean() > 240 and found[..., 2].mean() < 10


def palette_file(path: Path) -> None:
    image = Image.fromarray(MASK, "L").convert("P")
    image.putdata(MASK.ravel().tolist())
    image.putpalette([0, 0, 0, 200, 30, 90] + [0] * 762)
    image.save(path)


MASKS = {
    "8 bits 0 and 255": lambda folder: write(folder / "a.png", MASK * 255),
    "8 bits 0 and 1": lambda folder: write(folder / "a.png", MASK),
    "16 bits": lambda folder: write(folder / "a.png", MASK.astype(np.uint16) * 65535),
    "16 bits tif": lambda folder: write(folder / "a.tif", MASK.astype(np.uint16) * 256),
    "grey as rgb": lambda folder: write(folder / "a.png", np.stack([MASK * 255] * 3, -1)),
    "palette": lambda folder: palette_file(folder / "a.png"),
    "palette tif": lambda folder: palette_file(folder / "a.tif"),
    "gif": lambda folder: write(folder / "a.gif", MASK),
    "one bit": lambda folder: Image.fromarray(MASK.astype(bool)).save(folder / "a.png"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind_are_0_and_1(tmp_path: Path, kind: str):
    MASKS[kind](tmp_path)
    path = next(tmp_path.iterdir())
    found = BINARY.classes_of(pictures.read_mask(path), path)
    assert found.dtype == np.uint8 and np.array_equal(found, MASK)


def test_labels_become_classes_and_go_back():
    mask = np.array([[0, 64, 192], [64, 0, 192]], np.uint8)
    chosen = labels.parse("192, 64")
    classes = chosen.classes_of(mask, Path("m.png"))
    assert classes.tolist() == [[0, 2, 1], [2, 0, 1]] and chosen.num_classes == 3
    assert np.array_equal(chosen.values_of(classes), mask)
    assert labels.parse("64").num_classes == BINARY.num_classes == 1
    assert labels.parse("1..3").values == (1, 2, 3)
    assert BINARY.values_of(np.array([0, 1])).tolist() == [0, 255]
    assert labels.parse("64", others_are_background=True).classes_of(mask, Path("m.png")).tolist() == [
        [0, 1, 0],
        [1, 0, 0],
    ]


@pytest.mark.parametrize(
    ("chosen", "values", "message"),
    [
        (BINARY, [0, 3, 7], "m.png has the values .*expected two at most.*--labels='1 2 5'"),
        (BINARY, [3, 7, 7], "expected two at most, 0 and the object"),
        (Labels((1, 2)), [0, 1, 9], "expected 0 and 1 2: .*--other_labels"),
    ],
)
def test_surprises_in_masks_are_told_with_a_histogram(chosen, values, message):
    mask = np.repeat(np.array([values], np.uint8), 50, axis=0)
    with pytest.raises(BadInput, match=message) as error:
        chosen.classes_of(mask, Path("m.png"))
    assert f"{values[-1]} (" in str(error.value) and "pixels)" in str(error.value)


@pytest.mark.parametrize("text", ["a", "0 1", "-3", "1 1", "5..2", "70000", "1.5"])
def test_what_is_no_list_of_labels_is_refused(text):
    with pytest.raises(BadInput, match="--labels="):
        labels.parse(text)


def test_tiles_are_matched_by_stem_with_their_channels(tmp_path: Path):
    write_tiles(tmp_path, labels=(1, 2, 5), extra=("nir", "kv"), suffixes=(".jpg", ".png"))
    found = files.open_tiles(tmp_path, labels.parse("1 2 5"), ("nir", "kv"))
    assert found.names == [f"tile {i}" for i in range(6)] and found.channels == 5
    tile = found.read(2)
    assert tile.images.shape == (1, 5, 40, 48) and tile.images.dtype == torch.uint16  # 8 bits beside 16 become 16
    mask = shapes(2, (40, 48), (1, 2, 5))[1]
    assert np.array_equal(tile.images[0, 3].numpy(), (mask > 0) * 60000 + 1000)
    assert set(np.unique(tile.masks.numpy())) <= {0, 1, 2, 3} and np.array_equal(tile.masks[0].numpy() == 3, mask == 5)
    batch = tile.batch([0], 5)
    assert batch.shape == (1, 5, 40, 48) and batch.min() >= 0 and batch.max() <= 1


def test_pieces_have_one_size_each_and_keep_the_order(tmp_path: Path):
    write_tiles(tmp_path, count=3)
    write_tiles(tmp_path, count=2, size=(50, 50), first=3)
    found = files.open_tiles(tmp_path, BINARY)
    assert [(len(piece), piece.size) for piece in found.pieces(2)] == [(2, (40, 48)), (1, (40, 48)), (2, (50, 50))]
    assert [name for piece in found.pieces(2) for name in piece.names] == found.names
    assert np.allclose(
        found.coverage, [(shapes(i, (40, 48) if i < 3 else (50, 50), (255,))[1] > 0).mean() for i in range(5)]
    )


def test_statistics_are_those_of_all_pixels(tmp_path: Path):
    write_tiles(tmp_path, count=3)
    write_tiles(tmp_path, count=2, size=(50, 50), first=3)
    found = files.open_tiles(tmp_path, BINARY)
    pixels = np.concatenate([pictures.read(path).reshape(-1, 3) for path in found.images]) / 255
    mean, std = layouts.statistics(found)
    assert np.allclose(mean, pixels.mean(0)) and np.allclose(std, pixels.std(0))


def test_histogram_is_of_the_values_as_stored(tmp_path: Path):
    write_tiles(tmp_path, count=2, labels=(7, 9))
    total = sum(shapes(i, (40, 48), (7, 9))[1].ravel().tolist().count(9) for i in range(2))
    assert files.open_tiles(tmp_path, BINARY).histogram()[9] == total


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: (data / "gt/tile 3.png").unlink(), "gt has no file for 1 of 6 images, such as tile 3.png"),
        (
            lambda data: (data / "images/tile 3.jpg").write_bytes(b"x"),
            "tile 3.jpg and tile 3.png: names",
        ),
        (lambda data: (data / "images/tile 3.png").write_bytes(b"damaged"), "tile 3.png cannot be read as an image"),
        (lambda data: (data / "images/tile 3.png").write_bytes(b""), "tile 3.png is empty"),
        (lambda data: write(data / "gt/tile 3.png", MASK), "20x30 pixels and .*tile 3.png 40x48: .*one size"),
        (lambda data: write(data / "images/tile 3.tif", MASK.astype(np.float32)), "names have to differ"),
    ],
)
def test_faults_of_folders_are_named(tmp_path: Path, spoil, message):
    write_tiles(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BadInput, match=message):
        list(files.open_tiles(tmp_path, BINARY).pieces(2))


def test_layouts_are_told_apart(tmp_path: Path):
    assert layouts.layout_of(write_tiles(tmp_path / "flat")) == "tiles"
    assert layouts.layout_of(write_tiles(tmp_path / "split/train").parent) == "tiles"
    assert layouts.layout_of(write_cars(tmp_path / "cars")) == "carvana"
    with pytest.raises(BadInput, match="no layout that is known"):
        layouts.layout_of(tmp_path)


def split(data: Path, run: str, **options) -> dict[str, int]:
    folds.write(folds.Options(data=str(data), run=run, **options))
    table = folds.read(runfolder.folds_file(run), layouts.load_labelled(data).names)
    return dict(zip(table["id"], table["fold"], strict=True))


def test_folds_follow_folders_and_cars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))
    data = write_tiles(tmp_path / "tiles/train", count=4).parent
    write_tiles(data / "val", count=2, first=4)
    assert list(split(data, "a").values()) == [1, 1, 1, 1, 0, 0]
    assert runfolder.read_json(runfolder.run_folder("a") / "labels.json").keys() == {"0", "255"}
    found = split(write_cars(tmp_path / "cars", cars=5, views=3), "b", num_folds=3)
    assert all(len({fold for name, fold in found.items() if name.startswith(f"c{car}_")}) == 1 for car in range(5))
    assert set(found.values()) == {0, 1, 2}
    assert sorted(split(write_tiles(tmp_path / "flat"), "c", num_folds=2).values()) == [0, 0, 0, 1, 1, 1]
    with pytest.raises(BadInput, match="leave --scheme and --leaks out"):
        split(data, "d", scheme="mosaic")


def test_an_image_in_train_and_val_is_refused(tmp_path: Path):
    for part in ("train", "val"):
        write_tiles(tmp_path / part)
    with pytest.raises(BadInput, match="'tile 0' in train and in val"):
        layouts.load_labelled(tmp_path)
