from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import runfolder
from command import BadInput
from datasets import families, folds, mosaic, salt, synthetic


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def imagined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families") / "data"
    synthetic.write_competition(folder, 120, 40, seed=3)
    return folder


def tiles_of(data: Path) -> tuple[salt.Tiles, salt.Tiles]:
    return salt.load_train(data), salt.load_test(data)


def textures(count: int, size: int = 101) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((count, size, size))
    smooth = np.stack([cv2.GaussianBlur(one, (0, 0), 4) for one in noise])
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_near_duplicates_survive_noise_and_brightness():
    tiles = textures(6)
    tiles[4] = np.clip(0.6 * tiles[1] + 30 + np.random.default_rng(1).normal(0, 10, tiles[1].shape), 0, 255)
    assert families.near_duplicates(tiles).tolist() == [[1, 4]]


def test_tiles_of_one_grey_value_are_like_nothing():
    tiles = np.full((4, 50, 50), 7, np.uint8)
    assert families.near_duplicates(tiles).shape == (0, 2)


def test_families_hang_together_by_mosaics_and_likeness():
    mosaics = np.array([5, 5, 9, 8, 9, 7])
    found = families.families(mosaics, np.array([[1, 3], [0, 1]]))
    assert [sorted(np.flatnonzero(found == one).tolist()) for one in dict.fromkeys(found.tolist())] == [
        [0, 1, 3],
        [2, 4],
        [5],
    ]
    assert len(set(families.families(mosaics, np.empty((0, 2), int)).tolist())) == 4


def test_split_up_counts_tiles_with_kin_elsewhere():
    assert families.split_up(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 0, 0, 1])) == 3


def test_families_of_a_competition_are_its_sections(imagined: Path):
    names = salt.load_train(imagined).names
    layout = pd.read_csv(imagined / synthetic.LAYOUT).set_index("id")
    train, test = tiles_of(imagined)
    mosaics, kin = families.of_tiles(train, mosaic.find_all(train, test)[0])
    sections = layout.loc[names, "section"].to_numpy()
    for mosaic_number in np.unique(mosaics):
        assert len(set(sections[mosaics == mosaic_number])) == 1
    assert len(set(mosaics)) < len(names) / 3
    assert len(set(kin)) <= len(set(mosaics))


def test_no_family_is_split_and_strata_stay_even():
    rng = np.random.default_rng(0)
    count, num_folds = 600, 5
    coverage = np.where(rng.random(count) < 0.4, 0, rng.random(count))
    kin = np.where(rng.random(count) < 0.3, rng.integers(0, 20, count), 100 + np.arange(count))
    names = [f"t{i}" for i in range(count)]
    table = folds.split_families(coverage, names, kin, num_folds, seed=0)
    assert table["id"].tolist() == names
    assert families.split_up(kin, table["fold"].to_numpy()) == 0
    sizes = np.bincount(table["fold"])
    assert sizes.max() - sizes.min() <= 3
    strata = folds.strata_of(coverage)
    counts = np.stack([np.bincount(strata[table["fold"] == fold], minlength=11) for fold in range(num_folds)])
    assert (counts.max(0) - counts.min(0)).max() <= 4


def test_a_split_by_families_depends_on_names_and_seed_alone():
    coverage, kin = np.linspace(0, 1, 40), np.arange(40) // 3
    names = [f"t{i:02d}" for i in range(40)]
    table = folds.split_families(coverage, names, kin, 4, seed=1)
    order = np.random.default_rng(2).permutation(40)
    other = folds.split_families(coverage[order], [names[i] for i in order], kin[order] + 7, 4, seed=1)
    pd.testing.assert_frame_equal(table, other.sort_values("id", ignore_index=True))
    assert not table.equals(folds.split_families(coverage, names, kin, 4, seed=2))


def test_fewer_families_than_folds_are_refused():
    with pytest.raises(BadInput, match="3 families of tiles, expected 2 to 3"):
        folds.split_families([0.0] * 9, list("abcdefghi"), [0, 0, 0, 1, 1, 1, 2, 2, 2], 4, 0)


def test_the_command_splits_by_mosaics_and_reports_leaks(imagined: Path, capsys: pytest.CaptureFixture):
    options = {"data": str(imagined), "num_folds": 3}
    folds.write(folds.Options(**options, run="random"))
    folds.write(folds.Options(**options, run="whole", scheme="mosaic"))
    capsys.readouterr()
    leaks = {}
    for run in ("random", "whole"):
        folds.write(folds.Options(**options, run=run, leaks=True))
        leaks[run] = [int(line.split()[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert leaks["whole"] == [0, 0]
    assert leaks["random"][1] >= leaks["random"][0] > 40
    folds.write(folds.Options(**options, leaks=True, csv=str(runfolder.run_folder("random") / "folds.csv")))
    assert f"{leaks['random'][0]} of them share a mosaic" in capsys.readouterr().out


def test_mosaics_run_through_test_tiles(imagined: Path):
    """Two labelled tiles with a test tile between them are kin, a third one is not."""
    train, test = tiles_of(imagined)
    train = train.select(train.names[:3])
    rows = [(train.names[0], 0, 0, 0, 1.0), (test.names[0], 0, 1, 0, 1.0), (train.names[1], 0, 2, 0, 1.0)]
    mosaics, kin = families.of_tiles(train, pd.DataFrame(rows, columns=list(mosaic.COLUMNS)))
    assert mosaics[0] == mosaics[1] != mosaics[2]
    assert kin[0] == kin[1]
