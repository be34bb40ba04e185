import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from command import BadInput
from datasets import geology, rle, salt
from datasets.synthetic import EMPTY_SHARE, cut_apart, write_competition

NUM_TRAIN, NUM_TEST, SIZE = 240, 60, 101


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "competition"
    write_competition(folder, NUM_TRAIN, NUM_TEST, seed=0)
    return folder


@pytest.fixture(scope="module")
def images(data) -> dict[str, np.ndarray]:
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in data.glob("*/images/*.png")}


@pytest.fixture(scope="module")
def masks(data) -> dict[str, np.ndarray]:
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in data.glob("train/masks/*.png")}


def table(data: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(data / name, dtype={"id": str, "rle_mask": str}, keep_default_na=False)


def digests(data: Path) -> dict[str, str]:
    files = [path for path in sorted(data.rglob("*")) if path.is_file()]
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_files_and_tables_name_the_same_tiles(data, images, masks):
    train, test = set(table(data, "train.csv")["id"]), set(table(data, "sample_submission.csv")["id"])
    assert (len(train), len(test), len(train & test)) == (NUM_TRAIN, NUM_TEST, 0)
    assert train == {path.stem for path in data.glob("train/images/*")} == set(masks)
    assert test == {path.stem for path in data.glob("test/images/*")}
    for name in ("depths.csv", "layout.csv"):
        assert set(table(data, name)["id"]) == set(images)
    assert all(re.fullmatch("[0-9a-f]{10}", name) for name in images)


def test_columns_are_kaggles(data):
    assert list(table(data, "train.csv")) == list(table(data, "sample_submission.csv")) == ["id", "rle_mask"]
    assert list(table(data, "depths.csv")) == ["id", "z"]


def test_images_are_rgb_with_equal_channels(images):
    for image in images.values():
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        assert (image == image[..., :1]).all()


def test_empty_masks_have_8_bits_and_others_16(masks):
    for mask in masks.values():
        assert mask.shape == (SIZE, SIZE)
        assert mask.dtype == (np.uint16 if mask.any() else np.uint8)
        assert set(np.unique(mask)) in ({0}, {0, 65535})  # never full


def test_runs_equal_the_png(data, masks):
    runs = dict(table(data, "train.csv").itertuples(index=False))
    assert all((rle.decode(runs[name], SIZE, SIZE) == (mask > 0)).all() for name, mask in masks.items())


def test_verify_finds_no_fault(data):
    assert salt.verify(data) == []


def test_shares_are_those_of_the_competition(images, masks):
    salt_share = np.array([(mask > 0).mean() for mask in masks.values()])
    assert abs((salt_share == 0).mean() - EMPTY_SHARE) < 0.08
    assert 0.18 < salt_share.mean() < 0.33
    uniform = [name for name, image in images.items() if np.ptp(image) == 0]
    assert 0.005 < len(uniform) / len(images) < 0.04
    assert not any(masks[name].any() for name in uniform if name in masks)


def test_the_layout_puts_neighbours_side_by_side(data, images):
    """Borders of true neighbours, one extrapolated by a pixel, agree; those of other tiles do not."""
    places = {}
    for name, section, row, column in table(data, "layout.csv").itertuples(index=False):
        assert places.setdefault((section, row, column), name) == name
    rng, names = np.random.default_rng(0), list(images)
    true, other = [], []
    for (section, row, column), name in places.items():
        for down, right in ((1, 0), (0, 1)):
            neighbour = places.get((section, row + down, column + right))
            if neighbour is None or min(np.ptp(images[name]), np.ptp(images[neighbour])) == 0:
                continue
            true.append(border_error(images[name], images[neighbour], right))
            other.append(border_error(images[name], images[rng.choice(names)], right))
    assert len(true) > 150
    assert np.median(true) < 0.35 * np.median(other)


def border_error(first: np.ndarray, second: np.ndarray, right: int) -> float:
    """Root mean square of what `first`, continued by one pixel down or right, misses of `second`'s border."""
    first, second = (np.swapaxes(tile[..., 0], 0, right).astype(float) for tile in (first, second))
    return float(np.sqrt(((2 * first[-1] - first[-2] - second[0]) ** 2).mean()))


def test_tiles_reassemble_their_section():
    drawn = geology.section(np.random.default_rng(3), 4 * 48, 5 * 48, water=True)
    cut = cut_apart(drawn, 4, 5)
    image = np.zeros_like(drawn.image)
    for tile, row, column in zip(cut.images, cut.row, cut.column, strict=True):
        image[row * 48 : (row + 1) * 48, column * 48 : (column + 1) * 48] = tile
    assert (image == drawn.image).all()


def test_train_and_test_share_sections(data):
    layout, train = table(data, "layout.csv"), table(data, "train.csv")["id"]
    is_train = layout["id"].isin(train)
    assert set(layout.loc[is_train, "section"]) == set(layout.loc[~is_train, "section"])


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_competition(tmp_path / name, 12, 4, seed, tile_size=64)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not set(digests(tmp_path / "a").values()) & {
        digest for name, digest in digests(tmp_path / "c").items() if "images" in name
    }


def test_brightness_does_not_give_salt_away(images, masks):
    """No threshold on grey, up or down, is worth 0.1 over predicting nothing, also when uniform tiles and predictions
    below any least area count as empty."""
    truth = np.stack([masks[name] > 0 for name in masks]).reshape(len(masks), -1)
    grey = np.stack([images[name][..., 0] for name in masks]).reshape(len(masks), -1)
    assert best_threshold(grey, truth) < (~truth.any(1)).mean() + 0.1


def best_threshold(grey: np.ndarray, truth: np.ndarray) -> float:
    """Kaggle's metric of the best (threshold, sign, least area) on (N, pixels) arrays."""
    offsets = 256 * np.arange(len(grey))[:, None]
    counts, hits = (
        np.bincount((grey + offsets).ravel(), weights, 256 * len(grey)).reshape(-1, 256).cumsum(1)
        for weights in (None, truth.ravel())
    )  # (N, 256): pixels, and salt pixels, of at most each grey value
    area, uniform = truth.sum(1)[:, None], np.ptp(grey, 1)[:, None] == 0
    best = 0.0
    for pixels, inside in ((counts, hits), (counts[:, -1:] - counts, area - hits)):
        union = pixels + area - inside
        tenths = sum(20 * inside > k * union for k in range(10, 20)) / 10
        for least in (1, 50, 500, 2000, 4000, 6000, 8000, 10000):
            empty = uniform | (pixels < least)
            score = np.where(area == 0, empty, np.where(empty, 0, tenths))
            best = max(best, score.mean(0).max())
    return best


def test_best_threshold_finds_bright_salt():
    """The bound above means something: where salt is bright, the same search scores 1."""
    truth = np.zeros((4, 100), bool)
    truth[:2, :60] = True
    assert best_threshold(np.where(truth, 200, 100) - 5 * np.eye(4, 100, dtype=int), truth) == 1


def test_replaces_only_its_own(tmp_path):
    write_competition(tmp_path / "made", 3, 2, tile_size=32)
    before = digests(tmp_path / "made")
    write_competition(tmp_path / "made", 4, 2, tile_size=32)
    assert len(digests(tmp_path / "made")) == len(before) + 2
    (tmp_path / "made" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="did not make"):
        write_competition(tmp_path / "made", 3, 2, tile_size=32)
    assert (tmp_path / "made" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.synthetic.write_tables", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_competition(tmp_path / "made", 3, 2, tile_size=32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"num_test": 0}, {"seed": -1}, {"tile_size": 8}])
def test_senseless_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        write_competition(tmp_path / "made", **({"num_train": 3, "num_test": 2} | wrong))
    assert list(tmp_path.iterdir()) == []
