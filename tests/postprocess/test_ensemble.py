import json
import tracemalloc

import numpy as np
import pytest

from command import BadInput
from datasets import predictions
from datasets.predictions import Predictions
from postprocess import ensemble

RIGHT = np.array([[0, 0, 1], [0, 0, 1]])


def values(stored):
    """One rounded probability per tile, that of its last pixel."""
    return dict(zip(stored.names, stored.probability(slice(None))[:, 1, 2].round(3).tolist(), strict=True))


def test_means_by_hand(hand, capsys):
    hand.write_model("pad/fold0", {"1e1": 0.2, "007": 0.9 * RIGHT}, {"t1": 0.0, "t2": 0.3, "t3": 1.0})
    hand.write_model("resize/fold0", {"007": 0.3 * RIGHT, "1e1": 0.6}, {"t3": 0.4, "t1": 0.3, "t2": 0.3})
    hand.write_model("pad/fold1", {"NA": 0.7 * RIGHT, "d": 0.8}, {"t1": 0.9, "t2": 0.3, "t3": 0.1})
    hand.ensemble()
    oof, test = predictions.read(hand.folder / "oof"), predictions.read(hand.folder / "test")
    assert values(oof) == pytest.approx({"1e1": 0.4, "007": 0.6, "NA": 0.7, "d": 0.8})  # in train.csv's order
    assert values(test) == pytest.approx({"t1": 0.4, "t2": 0.3, "t3": 0.5})
    assert oof.image_probability == pytest.approx([0.4, 0.6, 0.7, 0.8])
    assert test.image_probability == pytest.approx([0.4, 0.3, 0.5])

    found = json.loads((hand.folder / "ensemble.json").read_text())
    single = {one["model"]: (one["metric"], one["tiles"]) for one in found["models"]}
    # pad/fold0 is right twice; resize/fold0 fills the empty tile and misses the other; pad/fold1 fills the empty one.
    assert single == {"pad/fold0": (1.0, 2), "resize/fold0": (0.0, 2), "pad/fold1": (0.5, 2)}
    assert found["models"][1]["standard_error"] == pytest.approx(0.5)  # of 1 and 0: sd sqrt(0.5) over sqrt(2)
    assert found["out of fold"] == {"metric": 0.75, "standard_error": 0.25, "tiles": 4}
    assert found["all empty"] == {"metric": 0.5, "standard_error": pytest.approx(1 / np.sqrt(12)), "tiles": 4}
    assert found["left out"] == {"resize/fold1": "not trained"}
    assert len(found["made from"]) == 12 and set(found["written"]) == {"oof.csv", "oof.npy", "test.csv", "test.npy"}
    assert "left out, not trained: resize/fold1" in capsys.readouterr().out


def test_only_held_out_tiles_are_out_of_fold(hand):
    hand.write_two_folds()
    hand.ensemble("pad/fold1")
    assert predictions.read(hand.folder / "oof").names == ["NA", "d"]
    found = json.loads((hand.folder / "ensemble.json").read_text())
    assert found["all empty"]["tiles"] == 2 and found["left out"]["pad/fold0"] == "not asked for"


def test_stale_and_unfinished_models_stay_out(hand, capsys):
    hand.write_two_folds()
    for name in ("pad-old/fold0", "pad/fold0-copy", "pad/fold7"):
        hand.write_model(name, {"1e1": 1.0}, dict.fromkeys(["t1", "t2", "t3"], 1.0))
    hand.write_model("resize/fold0", {"1e1": 1.0, "007": 1.0}, dict.fromkeys(["t1", "t2", "t3"], 1.0))
    (hand.folder / "resize/fold0/test.csv").unlink()  # killed while it predicted
    hand.ensemble()
    found = json.loads((hand.folder / "ensemble.json").read_text())
    assert [one["model"] for one in found["models"]] == ["pad/fold0", "pad/fold1"]
    assert values(predictions.read(hand.folder / "test")) == pytest.approx({"t1": 0.8, "t2": 0.2, "t3": 0.7})
    output = capsys.readouterr().out
    assert "not predicted: resize/fold0" in output and "not trained: resize/fold1" in output
    assert "not of this run's folds and framings: pad-old/fold0 pad/fold0-copy pad/fold7" in output


def lose(name):
    return lambda hand: (hand.folder / name).unlink()


def damage(name, content=b"\x00\x01\x02"):
    return lambda hand: (hand.folder / name).write_bytes(content)


def rewrite(stem, predicted):
    return lambda hand: hand.write_predictions(hand.folder / stem, predicted)


def several_classes(hand):
    predictions.write(hand.folder / "pad/fold0/test", ["t1", "t2", "t3"], [(np.zeros((3, 2, 2, 3)), np.zeros(3))])


def another_size(hand):
    predictions.write(hand.folder / "pad/fold0/oof", ["1e1", "007"], [(np.zeros((2, 3, 2)), np.zeros(2))])


@pytest.mark.parametrize(
    ("spoil", "models", "message"),
    [
        (lose("pad/fold1/oof.csv"), "", r"oof.csv is missing: run `make predict RUN=hand VARIANT=pad FOLD=1` first"),
        (lose("pad/fold1/test.csv"), "pad/fold0 pad/fold1", r"fold1/test.csv is missing: run `make predict RUN=hand"),
        (lose("pad/fold0/test.npy"), "", r"test.npy is missing"),
        (lose("folds.csv"), "", "folds.csv is missing"),
        (damage("pad/fold0/test.npy"), "", "test.npy is not a whole array"),
        (damage("pad/fold0/oof.csv"), "", "oof.csv"),
        (rewrite("pad/fold1/test", {"t1": 0, "t2": 0, "other": 0}), "", "differ in 2 ids .'other'"),
        (rewrite("pad/fold1/oof", {"NA": 0, "d": 0, "1e1": 0}), "", "holds out '1e1', which .*fold0/oof.csv does too"),
        (rewrite("pad/fold0/oof", {"1e1": 0}), "", "lacks '007', expected the 2 tiles of fold 0"),
        (rewrite("pad/fold1/oof", {"NA": 0, "d": 0, "1e1": 0}), "pad/fold1", "has '1e1', on which this model may"),
        (several_classes, "", "has 2 classes"),
        (
            lambda hand: (hand.folder / "pad/fold1/windows.txt").write_text("f00\n"),
            "",
            "not predicted by the same windows",
        ),
        (another_size, "", r"holds predictions of \(3, 2\), expected \(2, 3\)"),
        (None, "pad/fold0 pad/fold0", "twice"),
        (None, "pad", "expected VARIANT/foldK"),
        (None, "../hand/fold0", "expected VARIANT/foldK"),
        (None, "pad/fold1 resize/fold1", "resize/fold1/oof.csv is missing"),
    ],
)
def test_refusals(hand, spoil, models, message):
    hand.write_two_folds()
    if spoil:
        spoil(hand)
    before = hand.files()
    with pytest.raises(BadInput, match=message):
        hand.ensemble(models)
    assert hand.files() == before


def test_a_run_without_models_or_without_a_folder(hand):
    with pytest.raises(BadInput, match=r"no model with test.csv: run `make predict RUN=hand` first"):
        hand.ensemble()
    hand.options["run"] = "hnad"
    with pytest.raises(BadInput, match=r"hnad is missing, .* \['hand'\]"):
        hand.ensemble()
    assert not (hand.folder.parent / "hnad").exists()


def test_failing_halfway_leaves_the_old_files(hand, monkeypatch):
    hand.write_two_folds()
    hand.ensemble()
    before, write = hand.files(), predictions.write

    def full_disk(stem, names, chunks):
        if stem.name == "test":
            raise OSError("no space left")
        write(stem, names, chunks)

    monkeypatch.setattr(predictions, "write", full_disk)
    with pytest.raises(OSError, match="no space"):
        hand.ensemble("pad/fold0")
    assert hand.files() == before and not list(hand.folder.glob(".making-*"))


def peak_memory(tmp_path, num):
    names = [str(i) for i in range(num)]
    np.save(tmp_path / f"{num}.npy", np.zeros((num, 32, 32), np.uint16))
    stored = Predictions(names, np.zeros(num, np.float32), np.load(tmp_path / f"{num}.npy", mmap_mode="r"))
    tracemalloc.start()
    for _ in ensemble.mean_chunks(names, [stored, stored]):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_tiles(tmp_path):
    assert peak_memory(tmp_path, 2048) < 1.2 * peak_memory(tmp_path, 256)
