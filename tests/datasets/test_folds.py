import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import BadInput
from datasets import folds, salt


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))


def tiles(num: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    return [f"{i:010x}" for i in rng.permutation(num)], np.maximum(0, rng.uniform(-0.4, 0.9, num))


def test_no_tile_is_lost_on_the_way_through_the_file(tmp_path):
    """3,600 and 400 of 4,000: a list without header, read with one, would give 3,599 and 399."""
    names, coverage = tiles(4000)
    path = tmp_path / "folds.csv"
    folds.split(coverage, names, 10, 0).to_csv(path, index=False)
    table = folds.read(path, names)
    validated = []
    for fold in range(10):
        train, validation = folds.members(table, fold)
        assert (len(train), len(validation)) == (3600, 400)
        assert set(train) | set(validation) == set(names)
        validated += validation
    assert sorted(validated) == sorted(names)


@given(st.integers(2, 60), st.integers(2, 12), st.integers(0, 99))
def test_sizes_and_strata_differ_by_one_at_most(num, num_folds, seed):
    names, coverage = tiles(num, seed)
    if num_folds > num:
        with pytest.raises(BadInput, match=f"--num_folds={num_folds} for {num} tiles, expected 2 to {num}"):
            folds.split(coverage, names, num_folds, seed)
        return
    table = folds.split(coverage, names, num_folds, seed)
    assert table["id"].tolist() == names
    classes = [0 if share == 0 else 1 + next(t for t in range(10) if share <= (t + 1) / 10) for share in coverage]
    for chosen in (table, *(group for _, group in table.groupby(classes))):
        sizes = np.bincount(chosen["fold"], minlength=num_folds)
        assert sizes.max() - sizes.min() <= 1


def test_seed_decides_and_order_does_not():
    names, coverage = tiles(100)
    one = folds.split(coverage, names, 5, 1)
    assert one.equals(folds.split(coverage, names, 5, 1))
    assert not one.equals(folds.split(coverage, names, 5, 2))
    turned = folds.split(coverage[::-1], names[::-1], 5, 1)
    assert turned[::-1].reset_index(drop=True).equals(one)


def test_one_fold_is_no_split():
    with pytest.raises(BadInput, match="--num_folds=1 for 10 tiles, expected 2 to 10"):
        folds.split(np.zeros(10), [str(i) for i in range(10)], 1, 0)


def test_the_command_writes_once(tiny_competition, tmp_path, capsys):
    options = folds.Options(data=str(tiny_competition), run="a", num_folds=3)
    path = tmp_path / "runs" / "a" / "folds.csv"
    folds.write(options)
    assert "12 tiles in 3 folds of 4 to 4" in capsys.readouterr().out
    assert path.read_text().startswith("id,fold\n00e0000000,")
    before = path.stat()
    folds.write(options)
    assert path.stat() == before and "holds this split already" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"folds.csv holds another split than the one asked for.* use another --run"):
        folds.write(folds.Options(data=str(tiny_competition), run="a", num_folds=4))
    assert path.stat() == before


def test_the_empty_tiles_are_a_stratum_of_their_own(tiny_competition):
    loaded = salt.load_train(tiny_competition)
    table = folds.split(loaded.coverage, loaded.names, 4, 0)
    assert sorted(table["fold"][(loaded.coverage == 0).numpy()]) == [0, 1, 2, 3]


def test_a_split_of_ones_own(tiny_competition, tmp_path):
    names = salt.load_train(tiny_competition).names
    own = tmp_path / "my folds \u00e9.csv"
    rows = [f"{i % 2},{name},x" for i, name in enumerate(names[::-1])]
    own.write_bytes(("\ufefffold,id,remark\r\n" + "\r\n".join(rows)).encode())  # BOM, CRLF, other order and columns
    folds.write(folds.Options(data=str(tiny_competition), run="own", csv=str(own)))
    table = folds.read(tmp_path / "runs" / "own" / "folds.csv", names)
    assert table["id"].tolist() == names
    assert table["fold"].tolist() == [1, 0] * 6


BAD = {
    "id,fold\na,0\nb,1\nb,0\nc,0\n": "lists 'b' twice",
    "id,fold\na,0\nb,1\n": "has 2 ids and lacks 'c', expected all 3 labelled tiles",
    "a,0\nb,1\nc,0\n": "begins with 'a,0', expected a header with id, fold",
    "id,fold\na,0\nb,1\nc,0\nd,1\n": "lists 'd' which --data lacks",
    "id,fold\na,0\nb,2\nc,0\n": "has the folds [0, 2], expected 0, 1, ... without a gap",
    "id,fold\na,1\nb,2\nc,1\n": "has the folds [1, 2]",
    "id,fold\na,0\nb,0\nc,0\n": "has the folds [0], expected 0, 1, ... without a gap, two or more",
    "id,fold\na,0\nb,1.0\nc,0\n": "has the fold '1.0' for 'b'",
    "id,fold\na,0\nb\nc,0\n": "has the fold '' for 'b'",
    "id,fold\na,-1\nb,1\nc,0\n": "has the fold '-1' for 'a'",
    "": "cannot be read",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_tables_are_refused(tmp_path, text):
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        folds.read(path, ["a", "b", "c"])
    assert BAD[text] in str(error.value) and str(path) in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"none.csv is missing, expected a table of id, fold: python -m"):
        folds.read(tmp_path / "none.csv", ["a"])


def test_a_fold_that_is_not_there():
    table = pd.DataFrame({"id": ["a", "b"], "fold": [0, 1]})
    with pytest.raises(BadInput, match=r"got fold 2, expected one of 0..1"):
        folds.members(table, 2)
