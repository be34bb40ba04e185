"""Folders of images and masks, damaged: each is read right, or refused in one sentence that names the file."""

import contextlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from damage.case import Case, check_sentence, holds
from damage.of_pictures import CARS, HEIGHT, TILES, WIDTH, Truth
from folders import shapes, write_cars, write_tiles
from PIL import Image

import runfolder
from command import BadInput
from datasets import layouts, pictures
from datasets.files import Files


def tiles(folder: Path) -> Truth:
    write_tiles(folder, 3, (HEIGHT, WIDTH))
    sound = {f"tile {i}": shapes(i, (HEIGHT, WIDTH), (255,)) for i in range(3)}
    return {name: (image, mask > 0) for name, (image, mask) in sound.items()}


def cars(folder: Path) -> Truth:
    write_cars(folder, 2, 2, (HEIGHT, WIDTH))
    photos = {path.stem: np.asarray(Image.open(path)) for path in sorted((folder / "train").iterdir())}
    numbers = (1, 2, 101, 102)  # by which `write_cars` draws
    drawn = [shapes(number, (HEIGHT, WIDTH), (1,))[1] > 0 for number in numbers]
    return {name: (photo, mask) for (name, photo), mask in zip(photos.items(), drawn, strict=True)}


@pytest.mark.parametrize("name", TILES)
def test_tiles_are_read_right_or_refused(name: str, tmp_path: Path):
    check(TILES[name], tmp_path, tiles(tmp_path))


@pytest.mark.parametrize("name", CARS)
def test_cars_are_read_right_or_refused(name: str, tmp_path: Path):
    check(CARS[name], tmp_path, cars(tmp_path))


def check(case: Case, data: Path, truth: Truth) -> None:
    case.act(data, truth)
    if not case.by:
        found = layouts.load_labelled(data)
        same(found, dict(sorted(truth.items())))
        return
    with pytest.raises(BadInput) as error:
        list(layouts.load_labelled(data).pieces(2))
    assert holds(str(error.value), case.words), str(error.value)
    check_sentence(str(error.value), data)
    with contextlib.suppress(BadInput):  # whichever of them sees the fault
        found = layouts.load_labelled(data)
        for read in (found.sizes, found.histogram, lambda: found.coverage, lambda: layouts.statistics(found)):
            with contextlib.suppress(BadInput):
                read()


def same(found: Files, truth: Truth) -> None:
    assert found.names == list(truth)
    loaded = [piece.select([name]) for piece in found.pieces(2) for name in piece.names]
    for tile, (image, mask) in zip(loaded, truth.values(), strict=True):
        expected = np.broadcast_to(np.atleast_3d(image), (*image.shape[:2], 3)).transpose(2, 0, 1)
        assert tile.images.numpy().dtype == image.dtype and np.array_equal(tile.images[0].numpy(), expected)
        assert tile.masks.dtype == torch.uint8 and np.array_equal(tile.masks[0].numpy(), mask)
    assert np.allclose(found.coverage, [mask.mean() for _, mask in truth.values()])
    assert set(found.sizes()) == {image.shape[:2] for image, _ in truth.values()}
    assert found.histogram().total() == sum(mask.size for _, mask in truth.values())


def test_there_are_dozens():
    right = sum(not case.by for cases in (TILES, CARS) for case in cases.values())
    assert right >= 50 and len(TILES) + len(CARS) - right >= 50


def test_what_lies_behind_a_jpegs_end_does_not_matter(tmp_path: Path):
    """As the film in a telephone's photograph, in which markers occur by chance."""
    image = np.full((40, 60), 90, np.uint8)
    whole = cv2.imencode(".jpg", image)[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(whole + b"film \xff\xda more \xff\xd9 \xff\xda")
    assert np.abs(pictures.read(tmp_path / "a.jpg").astype(int) - 90).max() < 3
    (tmp_path / "a.jpg").write_bytes(whole[:-2])
    with pytest.raises(BadInput, match="cut off"):
        pictures.read(tmp_path / "a.jpg")


def test_a_picture_that_has_no_room_leaves_none(tmp_path: Path):
    """NumPy's tofile would take a full disk for none."""
    code = (
        "import resource, sys, numpy as np; from pathlib import Path; from datasets import pictures\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "pictures.write(Path(sys.argv[1]), np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    finished = subprocess.run(command, cwd=runfolder.ROOT, capture_output=True, text=True)
    assert "File too large: '" in finished.stderr and "a.png'" in finished.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
