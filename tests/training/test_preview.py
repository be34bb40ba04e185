from dataclasses import fields

import cv2
import pytest
from small_run import folder_of

from training.config import PRESETS, Config
from training.preview import Preview, preview, shown


def test_a_row_an_image_the_first_as_it_is(small: Config):
    asked = {field.name: getattr(small, field.name) for field in fields(Config)} | {"augmentation": "medium"}
    preview(Preview(**asked, rows=3, columns=4))
    picture = cv2.imread(str(folder_of(small) / "preview.png"))
    assert picture.shape == (3 * 105, 4 * 105, 3)
    for column in (1, 2, 3):
        assert (picture[:101, :101] != picture[:101, 105 * column : 105 * column + 101]).any()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_shown(name: str):
    assert shown(PRESETS[name])().rows == 6
