from pathlib import Path

import cv2
import numpy as np
import pytest
from folders import shapes, write, write_tiles

from command import BadInput
from datasets import pictures
from datasets.prepare import Options, prepare, starts


def test_squares_cover_a_side():
    assert starts(10, 4, 4) == [0, 4, 6]
    assert starts(8, 4, 4) == [0, 4]
    assert starts(9, 4, 2) == [0, 2, 4, 5]


def test_cut_keeps_all_rasters_on_each_other(tmp_path: Path):
    write_tiles(tmp_path / "data", 2, (70, 90), labels=(3, 9), extra=("nir",))
    prepare(Options(task="cut", data=str(tmp_path / "data"), out=str(tmp_path / "out"), size=32, step=24))
    names = {part: sorted(pictures.by_stem(tmp_path / "out" / part)) for part in ("images", "gt", "nir")}
    assert names["images"] == names["gt"] == names["nir"] and len(names["gt"]) == 2 * 3 * 4
    image, mask = shapes(1, (70, 90), (3, 9))
    assert np.array_equal(pictures.read(tmp_path / "out/images/tile 1_00024_00048.png"), image[24:56, 48:80])
    assert np.array_equal(pictures.read_mask(tmp_path / "out/gt/tile 1_00038_00058.png"), mask[38:70, 58:90])
    nir = cv2.imread(str(tmp_path / "out/nir/tile 1_00000_00000.tif"), cv2.IMREAD_UNCHANGED)
    assert nir.dtype == np.uint16 and np.array_equal(nir, (mask[:32, :32] > 0) * 60000 + 1000)


def test_upper_case_suffixes_and_hidden_folders_are_no_trouble(tmp_path: Path):
    image, mask = shapes(1, (40, 48), (3,))
    for part, content in (("images", image), ("gt", mask)):
        write(tmp_path / f"data/{part}/scene.tif", content)
        (tmp_path / f"data/{part}/scene.tif").rename(tmp_path / f"data/{part}/SCENE.TIF")
    (tmp_path / "data/.hidden").mkdir()
    prepare(Options(task="cut", data=str(tmp_path / "data"), out=str(tmp_path / "out"), size=20))
    assert len(pictures.by_stem(tmp_path / "out/gt")) == 6


def test_filter_keeps_tiles_with_enough_of_a_label(tmp_path: Path):
    write_tiles(tmp_path / "data", 3, labels=(64,), extra=("nir",))
    write(tmp_path / "data/gt/tile 1.png", np.zeros((40, 48), np.uint8))
    options = {"data": str(tmp_path / "data"), "label": 64}
    prepare(Options(task="filter", out=str(tmp_path / "some"), **options))
    for part in ("images", "gt", "nir"):
        assert sorted(pictures.by_stem(tmp_path / "some" / part)) == ["tile 0", "tile 2"]
    with pytest.raises(BadInput, match=r"nothing of .* is left"):
        prepare(Options(task="filter", out=str(tmp_path / "none"), share=0.5, **options))
    assert not (tmp_path / "none").exists()


def test_recolour_swaps(tmp_path: Path):
    mask = np.array([[0, 1, 3], [3, 1, 7]], np.uint8)
    write(tmp_path / "masks/a.png", mask)
    prepare(Options(task="recolour", data=str(tmp_path / "masks"), out=str(tmp_path / "new"), pairs="1:3 3:1"))
    assert pictures.read_mask(tmp_path / "new/a.png").tolist() == [[0, 3, 1], [1, 3, 7]]


def test_copy_brings_what_belongs_to_a_split(tmp_path: Path):
    write_tiles(tmp_path / "all", 4, extra=("nir", "ndvi"))
    write(tmp_path / "split/images/tile 2.png", shapes(2, (40, 48), (255,))[0])
    prepare(Options(task="copy", data=str(tmp_path / "all"), split=str(tmp_path / "split"), out=str(tmp_path / "val")))
    assert sorted(path.relative_to(tmp_path / "val").as_posix() for path in (tmp_path / "val").rglob("*.*")) == [
        "gt/tile 2.png",
        "images/tile 2.png",
        "ndvi/tile 2.tif",
        "nir/tile 2.tif",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": ""}, "--out is missing"),
        ({"out": "data"}, "data is there already"),
        ({"data": "nowhere"}, "no folder images or gt"),
        ({"size": 999}, "40x48 pixels, fewer than --size=999"),
        ({"task": "recolour", "pairs": "1"}, "no list of OLD:NEW"),
        ({"task": "recolour", "pairs": "1:2 1:3"}, "has a value twice"),
        ({"task": "copy"}, "--split is missing"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_tiles(tmp_path / "data", 2)
    with pytest.raises(BadInput, match=message):
        prepare(Options(**{"task": "cut", "data": "data", "out": "out"} | options))
    assert not (tmp_path / "out").exists()
