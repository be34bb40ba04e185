import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from command import BadInput
from datasets.predictions import Predictions
from losses import metric
from postprocess import scores, threshold


def stored(probability):
    probability = np.asarray(probability, float)
    names = [str(i) for i in range(len(probability))]
    return Predictions(names, probability.max(axis=(1, 2)), np.rint(65535 * probability).astype(np.uint16))


def halves(num):
    """(num, 4, 4) masks whose right half is salt."""
    return np.tile(np.array([0, 0, 1, 1], np.uint8), (num, 4, 1))


def test_finds_what_was_built_in():
    truth = halves(40)
    found = threshold.search(stored(0.1 + 0.3 * truth), torch.from_numpy(truth))
    # Salt has 0.4, all else 0.1: any threshold below 0.40 is right everywhere, and 0.39 is the nearest to 0.5.
    assert found["best"] == found["threshold"] == 0.39 and found["kept"]
    assert found["gain"] == {"mean": 1.0, "low": 1.0, "high": 1.0} and found["tiles"] == 40
    curve = {point["threshold"]: point["metric"] for point in found["curve"]}
    assert len(curve) == 61 and curve[0.2] == curve[0.39] == 1.0 and curve[0.4] == curve[0.8] == 0.0
    assert found["out of fold"]["metric"] == 1.0 and found["all empty"]["metric"] == 0.0


def test_a_gain_within_chance_is_not_kept():
    truth = halves(40)
    probability = 0.9 * truth
    probability[0] *= 0.494  # 0.4446: one tile of forty is better up to 0.44
    found = threshold.search(stored(probability), torch.from_numpy(truth))
    assert found["best"] == 0.44 and found["gain"]["mean"] == pytest.approx(1 / 40) and found["gain"]["low"] == 0
    assert found["threshold"] == 0.5 and not found["kept"]
    assert found["out of fold"]["metric"] == pytest.approx(39 / 40)


def test_half_stays_where_all_are_equal():
    truth = halves(3)
    found = threshold.search(stored(truth), torch.from_numpy(truth))
    assert found["best"] == found["threshold"] == 0.5 and not found["kept"]


def test_grid_is_the_metric_of_every_threshold():
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 7, 5)) < rng.choice([0, 0.01, 0.5, 1], (300, 1, 1))).astype(np.uint8)
    predicted = stored(np.clip(truth * 0.4 + rng.random(truth.shape) * rng.random((300, 1, 1)), 0, 1))
    tenths = scores.tenths_on_grid(predicted, torch.from_numpy(truth), threshold.GRID)
    for i, level in enumerate(threshold.GRID):
        masks = torch.from_numpy(predicted.pixels / 65535 > level)
        assert np.array_equal(tenths[:, i], metric.tenths(masks, torch.from_numpy(truth)).numpy())
        assert np.array_equal(tenths[:, i], scores.tenths_at(predicted, torch.from_numpy(truth), level))
    assert np.array_equal(scores.masks_at(predicted, 0.29), predicted.pixels / 65535 > 0.29)


def test_limit_is_exact():
    for hundredths in range(1, 100):
        limit = scores.limit(hundredths / 100)
        assert Fraction(limit, 65535) <= Fraction(hundredths, 100) < Fraction(limit + 1, 65535)


def test_score_of_a_single_tile_has_no_error():
    assert scores.score(np.array([7])) == {"metric": 0.7, "standard_error": None, "tiles": 1}
    assert scores.text(scores.score(np.array([7]))) == "0.7000 ± ? (1 tiles)"


def test_test_tiles_have_no_say(hand):
    found = []
    for test in ((0.8, 0.2, 0.7), (0.0, 0.0, 0.0)):
        hand.write_two_folds(test)
        hand.ensemble()
        hand.threshold()
        found.append((hand.folder / "threshold.json").read_text())
    assert found[0] == found[1] and json.loads(found[0])["tiles"] == 4
    assert set(json.loads(found[0])["made from"]) == {"oof.csv", "oof.npy"}


def test_refusals(hand):
    with pytest.raises(
        BadInput, match=r"ensemble.json is missing: run `python -m postprocess.ensemble --run=hand --data=\.\.\.`"
    ):
        hand.threshold()
    hand.write_two_folds()
    hand.ensemble()
    whole = (hand.folder / "ensemble.json").read_text()
    for content, message in ((whole[:100], "not readable JSON"), ("[]", "lacks 'made from'"), ("{}", "lacks")):
        (hand.folder / "ensemble.json").write_text(content)
        with pytest.raises(BadInput, match=message):
            hand.threshold()
    (hand.folder / "ensemble.json").write_text(whole)
    hand.write_predictions(hand.folder / "oof", {"1e1": 1})
    with pytest.raises(BadInput, match=r"oof.csv is not the one that .*ensemble.json tells of: run .*ensemble"):
        hand.threshold()
    (hand.folder / "oof.npy").unlink()
    with pytest.raises(BadInput, match=r"oof.npy is missing|oof.csv is not the one"):
        hand.threshold()
    assert not (hand.folder / "threshold.json").exists()


def test_models_predicted_anew_ask_for_a_new_ensemble(hand):
    hand.write_two_folds()
    hand.ensemble()
    hand.write_two_folds(test=(0.1, 0.1, 0.1))
    with pytest.raises(BadInput, match=r"pad/fold0/test.csv is not the one that .*ensemble.json tells of"):
        hand.threshold()
    for file in hand.folder.glob("pad/fold*/*"):
        file.unlink()  # cleared away: the average still stands
    hand.threshold()


def test_other_data_is_refused(hand):
    hand.write_two_folds()
    hand.ensemble()
    images = {name: np.zeros((2, 3)) for name in ("1e1", "t1", "t2", "t3")}
    hand.write_data(images, {"1e1": [[0, 0, 0], [0, 0, 0]]})
    with pytest.raises(BadInput, match="'007', expected one of the 1 tiles of --data"):
        hand.threshold()
