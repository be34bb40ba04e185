from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from competition import write_competition as write_small

from command import BadInput
from datasets import mosaic, synthetic
from datasets.borders import Edges
from datasets.mosaic import Options, assemble, find_all, table_of
from datasets.salt import Tiles


@pytest.fixture(scope="module")
def imagined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mosaic") / "data"
    synthetic.write_competition(folder, 240, 60, seed=5)
    return folder


def tiles_of(data: Path) -> tuple[Tiles, Tiles]:
    return mosaic.salt.load_train(data), mosaic.salt.load_test(data)


def adjacency(table: pd.DataFrame) -> set[tuple[str, str, int]]:
    return set(mosaic.adjacent(table))


def test_the_true_layout_is_found(imagined: Path):
    layout = pd.read_csv(imagined / synthetic.LAYOUT).rename(columns={"section": "mosaic"}).assign(strength=1.0)
    table, report = find_all(*tiles_of(imagined))
    uniform = uniform_tiles(imagined)
    assert len(uniform) == report["of one grey value"] > 0
    truth, found = adjacency(layout[~layout["id"].isin(uniform)]), adjacency(table)
    assert len(truth & found) >= 0.99 * len(found)
    assert len(truth & found) >= 0.80 * len(truth)
    assert report["loops of certain borders"] == report["of them consistent"] > 20


def uniform_tiles(data: Path) -> set[str]:
    tiles = tiles_of(data)
    return {
        name
        for part in tiles
        for name, image in zip(part.names, part.images.numpy(), strict=True)
        if image.min() == image.max()
    }


def test_equal_tiles_give_equal_tables(imagined: Path):
    first, second = (find_all(*tiles_of(imagined))[0] for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_each_tile_and_place_occurs_once_and_mosaics_begin_at_zero(imagined: Path):
    table, _ = find_all(*tiles_of(imagined), min_strength=0)
    assert table["id"].is_unique
    assert not table.duplicated(["mosaic", "row", "column"]).any()
    sizes = table.groupby("mosaic").size()
    assert sizes.index.tolist() == list(range(len(sizes)))
    assert all(a >= b > 1 for a, b in pairwise(sizes))
    assert (table.groupby("mosaic")[["row", "column"]].min() == 0).all(axis=None)
    assert table["strength"].between(0, 1).all()


def candidates(*rows: tuple[int, int, float]) -> Edges:
    rows = sorted(rows)
    first, second, strength = zip(*rows, strict=True) if rows else ((), (), ())
    return Edges(np.array(first, int), np.array(second, int), np.array(strength, float))


def layout(down: Edges, right: Edges, num_tiles: int, min_strength: float = 0.5) -> dict[str, tuple[int, int, int]]:
    table = table_of(assemble((down, right), num_tiles, min_strength), [str(tile) for tile in range(num_tiles)])
    return {name: tuple(place) for name, *place, _ in table.itertuples(index=False)}


def test_two_weak_borders_that_agree_join_two_mosaics():
    # 0 1   0-1 and 2-3 are certain; 0-2 and 1-3 have no strength of their own
    # 2 3
    right = candidates((0, 1, 1.0), (2, 3, 1.0))
    down = candidates((0, 2, 0.0), (1, 3, 0.0))
    assert layout(down, right, 4) == {"0": (0, 0, 0), "1": (0, 0, 1), "2": (0, 1, 0), "3": (0, 1, 1)}


def test_one_weak_border_joins_a_single_tile_only():
    right = candidates((0, 1, 1.0), (2, 3, 1.0), (4, 5, 0.7))
    down = candidates((0, 2, 0.7))
    found = layout(down, right, 6)
    assert found["0"][0] != found["2"][0]
    assert found["4"][0] == found["5"][0]
    assert "4" not in layout(down, right, 6, min_strength=0.8)


def test_no_two_tiles_share_a_place():
    # 0 1   2 is above 4, and 4 claims to be right of 3: then 2 would lie where 1 is
    # 3
    down, right = candidates((0, 3, 1.0), (2, 4, 0.98)), candidates((0, 1, 0.99), (3, 4, 0.97))
    found = layout(down, right, 5)
    assert found == {"0": (0, 0, 0), "1": (0, 0, 1), "3": (0, 1, 0), "2": (1, 0, 0), "4": (1, 1, 0)}
    assert assemble((down, right), 5, 0.5).refused() == 1


def test_more_strangers_than_neighbours_are_refused():
    # two columns of three side by side, but only one of their three borders is a candidate
    down = candidates((0, 1, 1.0), (1, 2, 1.0), (3, 4, 1.0), (4, 5, 1.0))
    found = layout(down, candidates((0, 3, 0.96)), 6)
    assert found["0"][0] != found["3"][0]


def test_strength_of_a_tile_grows_with_its_neighbours():
    right = candidates((0, 1, 1.0), (2, 3, 0.6), (4, 5, 0.7))
    down = candidates((0, 2, 0.6), (1, 3, 0.6))
    assembly = assemble((down, right), 6, 0.5)
    assert assembly.certainty(3) == mosaic.AGREED
    assert assembly.certainty(4) == pytest.approx(0.7)


def test_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Noise has no neighbours; a table without rows is written, and its reader takes it."""
    data = write_small(tmp_path / "data", 3, 2)
    mosaic.write(Options(data=str(data), out=str(tmp_path / "m.csv")))
    assert "nothing to do" in capsys.readouterr().out
    assert mosaic.read(tmp_path / "m.csv", []).empty


def test_one_tile_and_tiny_tiles_have_no_neighbours():
    one = np.random.default_rng(0).integers(0, 255, (1, 1, 40, 40), np.uint8)
    tiny = np.random.default_rng(0).integers(0, 255, (5, 1, 8, 8), np.uint8)
    for images in (one, tiny):
        table, report = mosaic.find(mosaic.as_grey(images), [str(i) for i in range(len(images))], 0.5)
        assert table.empty
        assert report["tiles"] == len(images)


def test_sixteen_bits_are_as_good_as_eight(imagined: Path):
    tiles = mosaic.salt.load_train(imagined)
    images = tiles.images.numpy()[:80]
    eight, _ = mosaic.find(mosaic.as_grey(images), tiles.names[:80], 0.5)
    assert len(eight)
    for factor, offset in ((256, 7), (16, 0)):  # all of the range, and 12 bits of it
        sixteen, _ = mosaic.find(mosaic.as_grey(images.astype(np.uint16) * factor + offset), tiles.names[:80], 0.5)
        pd.testing.assert_frame_equal(eight, sixteen)


def test_colours_and_depths_may_differ_between_parts(imagined: Path):
    train, test = tiles_of(imagined)
    expected, _ = find_all(train, test)
    wide = replace(test, images=torch.from_numpy(test.images.numpy().astype(np.uint16) * 257))
    for other in (replace(test, images=test.images.repeat(1, 3, 1, 1)), wide):
        found, _ = find_all(train, other)
        pd.testing.assert_frame_equal(found, expected)


def test_an_id_in_both_parts_is_refused(imagined: Path):
    train, test = tiles_of(imagined)
    with pytest.raises(BadInput, match=f"'{train.names[0]}' as a labelled and as a test tile"):
        find_all(train, replace(test, names=[train.names[0], *test.names[1:]]))


def test_other_sizes_are_refused(tmp_path: Path):
    data = write_small(tmp_path / "data", 3, 2)
    other = write_small(tmp_path / "other", 3, 2, size=64)
    for path in (other / "test/images").iterdir():
        (data / "test/images" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadInput, match="mosaics need one size"):
        find_all(*tiles_of(data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,mosaic,row,column\na,0,0,0\n", "expected a header with strength"),
        ("id,mosaic,row,column,strength\nz,0,0,0,1\n", "places 'z', which --data lacks"),
        ("id,mosaic,row,column,strength\na,0,0,x,1\n", "cannot be read"),
        ("id,mosaic,row,column,strength\na,0,0,0,1\nb,0,0,0,1\n", "has 'b' or its place twice"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        mosaic.read(tmp_path / "m.csv", ["a", "b"])


def test_a_missing_table_names_its_command(tmp_path: Path):
    with pytest.raises(BadInput, match=r"python -m datasets\.mosaic"):
        mosaic.read(tmp_path / "none.csv", [])


def test_probabilities_outside_of_bounds_are_refused():
    with pytest.raises(BadInput, match="min_strength=2"):
        Options(min_strength=2)
