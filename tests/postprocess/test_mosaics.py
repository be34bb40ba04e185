import cv2
import numpy as np
import pandas as pd
import pytest

from command import BadInput
from datasets.mosaic import COLUMNS
from postprocess import mosaics

TABLE = pd.DataFrame(
    [("007", 0, 0, 1, 1.0), ("t1", 0, 1, 0, 0.97), ("NA", 1, 0, 0, 1.0), ("t2", 1, 0, 1, 1.0)], columns=list(COLUMNS)
)


def test_tiles_are_stitched_in_their_places():
    tiles = {"007": np.array([[1, 2, 3], [4, 5, 6]]), "t1": np.array([[7, 8, 9], [10, 11, 12]])}
    found = mosaics.stitched(TABLE[TABLE["mosaic"] == 0], tiles, 0)
    assert found.tolist() == [[0, 0, 0, 1, 2, 3], [0, 0, 0, 4, 5, 6], [7, 8, 9, 0, 0, 0], [10, 11, 12, 0, 0, 0]]


def test_what_is_unknown_is_left_empty():
    cells = TABLE[TABLE["mosaic"] == 1]
    assert mosaics.stitched(cells, {}, 5).tolist() == [[5, 5]]
    assert mosaics.stitched(cells, {"t2": np.ones((1, 2), int)}, 5).tolist() == [[5, 5, 1, 1]]


@pytest.mark.parametrize("with_predictions", [True, False])
def test_the_picture_shows_each_mosaic(hand, with_predictions: bool, capsys: pytest.CaptureFixture):
    TABLE.to_csv(hand.folder / "mosaics.csv", index=False)
    if with_predictions:
        hand.write_two_folds()
        hand.ensemble()
    capsys.readouterr()
    mosaics.draw(mosaics.Options(**hand.options))
    image = cv2.imread(str(hand.folder / "mosaics.png"))
    assert image.shape[1] == 800 and image.std() > 10
    blue = (image.astype(int) @ [1, 0, -1]) > 40  # OpenCV's order is blue, green, red
    assert blue.any()
    assert ((-image.astype(int) @ [1, 0, -1]) > 150).any() == with_predictions
    assert "2 mosaics, 4 tiles, 2 labelled" in capsys.readouterr().out


def test_only_the_largest_are_drawn(hand, capsys: pytest.CaptureFixture):
    TABLE.to_csv(hand.folder / "mosaics.csv", index=False)
    mosaics.draw(mosaics.Options(**hand.options, largest=1))
    assert "1 mosaics, 2 tiles, 1 labelled" in capsys.readouterr().out


def test_without_mosaics_it_says_what_to_do(hand):
    with pytest.raises(
        BadInput, match=r"mosaics.csv is missing: run `python -m datasets\.mosaic --data=... --out=.*` first"
    ):
        mosaics.draw(mosaics.Options(**hand.options))
    TABLE[:0].to_csv(hand.folder / "mosaics.csv", index=False)
    with pytest.raises(BadInput, match="places no tile, so there is nothing to draw"):
        mosaics.draw(mosaics.Options(**hand.options))
