import dataclasses
import json

import numpy as np
import pytest
import torch

from command import BadInput
from datasets.salt import Tiles
from postprocess import corrections, rules
from postprocess.corrections import RULES, Evidence, Rule

MASKS = np.array([[[0, 1], [1, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]], np.uint8)

RIGHT = [[0, 0, 1], [0, 0, 1]]
LABELS = {"1e1": [[0] * 3] * 2, "007": RIGHT, "NA": RIGHT, "d": [[0] * 3] * 2}  # as in conftest.py


def evidence(images):
    return Evidence([str(i) for i in range(len(images))], np.asarray(images), np.zeros(len(images)))


def test_uniform_empty_on_constructed_tiles():
    images = np.array([[[[7, 7], [7, 7]]], [[[7, 7], [7, 8]]], [[[0, 0], [0, 0]]]], np.uint8)
    before = MASKS.copy()
    after = RULES["uniform_empty"].apply(evidence(images), MASKS)
    assert np.array_equal(after, [np.zeros((2, 2)), MASKS[1], MASKS[2]]) and np.array_equal(MASKS, before)


def test_uniform_looks_at_each_channel_and_at_16_bits():
    one_colour = np.stack([np.full((2, 2), value) for value in (1, 2, 3)])
    assert corrections.is_uniform(np.array([one_colour, one_colour + np.eye(2, dtype=int)])).tolist() == [True, False]
    assert not corrections.is_uniform(np.array([[[[256, 0], [256, 256]]]], np.uint16)).any()


def test_full_empty_on_constructed_masks():
    after = RULES["full_empty"].apply(evidence(np.zeros((3, 1, 2, 2))), MASKS)
    assert np.array_equal(after, [MASKS[0], np.zeros((2, 2)), MASKS[2]])


def test_contradictions():
    images = np.array([[[[7, 7], [7, 7]]], [[[7, 7], [7, 8]]], [[[0, 0], [0, 0]]]], np.uint8)
    assert RULES["uniform_empty"].contradicted(images, MASKS).tolist() == [True, False, False]
    assert RULES["full_empty"].contradicted(images, MASKS).tolist() == [False, True, False]


def test_every_rule_has_its_switch():
    switches = [field.name for field in dataclasses.fields(rules.Options) if field.type is bool]
    assert switches == list(RULES)


@pytest.mark.parametrize(
    ("contradicted", "after", "kept"),
    [
        (False, [5, 5, 5, 5], True),  # certain: not losing is enough
        (False, [5, 5, 5, 6], True),
        (False, [5, 5, 5, 4], False),
        (True, [5, 5, 5, 5], False),  # not certain: only beyond chance
        (True, [5, 5, 5, 6], False),
        (True, [9, 9, 9, 8], True),
        (None, [5, 5, 5, 6], False),  # searched: the same
        (None, [9, 9, 9, 8], True),
    ],
)
def test_criterion(contradicted, after, kept):
    check = None if contradicted is None else (lambda images, truth: np.array([contradicted]))
    labelled = Tiles(["a"], torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2), torch.zeros(1))
    found = rules.verdict(Rule(lambda e, m: m, check, ""), labelled, np.full(4, 5), np.array(after))
    assert found["kept"] is kept


def prepared(hand, test=(0.8, 0.2, 0.7)):
    hand.write_two_folds(test)
    hand.ensemble()
    hand.threshold()


def test_masks_and_changes_by_hand(hand, capsys):
    # t1 is all salt; t2 is below the threshold; t3 has one grey value and is all salt: the first rule has it.
    images = {name: 10 * np.arange(6).reshape(2, 3) for name in ("1e1", "007", "NA", "d", "t1", "t2")}
    hand.write_data(images | {"t3": np.full((2, 3), 9)}, LABELS)
    prepared(hand)
    hand.rules()
    masks = np.load(hand.folder / "masks.npy")
    assert masks.dtype == np.uint8 and masks.shape == (3, 2, 3) and not masks.any()
    assert (hand.folder / "changes.csv").read_text().splitlines() == [
        "id,rule,pixels_before,pixels_after",
        "t3,uniform_empty,6,0",
        "t1,full_empty,6,0",
    ]
    found = json.loads((hand.folder / "rules.json").read_text())
    assert [(one["rule"], one["kept"], one["changed in test"]) for one in found["rules"]] == [
        ("uniform_empty", True, 1),
        ("full_empty", True, 1),
    ]
    assert found["out of fold"]["metric"] == 1.0 and found["all empty"]["metric"] == 0.5
    assert found["threshold"] == 0.5 and found["share of empty test masks"] == 1.0
    assert "applied, changes 1 test tiles" in capsys.readouterr().out


def test_switched_off(hand, capsys):
    prepared(hand)
    hand.rules(full_empty=False)
    masks = np.load(hand.folder / "masks.npy")
    assert masks.all(axis=(1, 2)).tolist() == [True, False, True] and masks.sum() == 12
    found = json.loads((hand.folder / "rules.json").read_text())["rules"][1]
    assert found == {"rule": "full_empty", "kept": False, "why": "switched off"}
    assert (hand.folder / "changes.csv").read_text() == "id,rule,pixels_before,pixels_after\n"
    assert "switched off" in capsys.readouterr().out


def test_a_rule_that_loses_out_of_fold_touches_no_test_tile(hand):
    nearly = [[1, 1, 1], [1, 1, 1]]
    nearly[0][0] = 0  # IoU of a full prediction is 5/6: it scores 0.7, and emptied 0
    masks = LABELS | {"NA": nearly}
    hand.write_data({name: 10 * np.arange(6).reshape(2, 3) for name in [*masks, "t1", "t2", "t3"]}, masks)
    values = {"t1": 0.8, "t2": 0.2, "t3": 0.7}
    hand.write_model("pad/fold1", {"NA": 0.9, "d": 0.3}, values)
    hand.ensemble("pad/fold1")
    hand.threshold()
    hand.rules()
    found = json.loads((hand.folder / "rules.json").read_text())
    full = found["rules"][1]
    assert not full["kept"] and full["gain"]["mean"] == pytest.approx(-0.35) and full["changed out of fold"] == 1
    assert found["out of fold"]["metric"] == pytest.approx(0.85) and "changed in test" not in full
    assert np.load(hand.folder / "masks.npy").sum() == 12


def test_a_full_label_takes_the_certainty_away(hand):
    masks = LABELS | {"007": [[1] * 3] * 2}
    hand.write_data({name: 10 * np.arange(6).reshape(2, 3) for name in [*masks, "t1", "t2", "t3"]}, masks)
    hand.write_model("pad/fold1", {"NA": np.array(masks["NA"]), "d": 0.3}, {"t1": 0.8, "t2": 0.2, "t3": 0.7})
    hand.ensemble()
    hand.threshold()
    hand.rules()
    full = json.loads((hand.folder / "rules.json").read_text())["rules"][1]
    assert full["labelled tiles that contradict it"] == 1 and full["gain"]["mean"] == 0 and not full["kept"]


def test_refusals(hand):
    hand.write_two_folds()
    hand.ensemble()
    with pytest.raises(BadInput, match=r"threshold.json is missing: run `python -m postprocess.threshold --run=hand`"):
        hand.rules()
    hand.threshold()
    whole = json.loads((hand.folder / "threshold.json").read_text())
    for wrong in (1.5, 0.123, True, "0.5", None):
        (hand.folder / "threshold.json").write_text(json.dumps(whole | {"threshold": wrong}))
        with pytest.raises(BadInput, match=r"threshold.json .*postprocess.threshold --run=hand` again"):
            hand.rules()
    (hand.folder / "threshold.json").write_text(json.dumps(whole)[:-9])
    with pytest.raises(BadInput, match="not readable JSON"):
        hand.rules()
    (hand.folder / "threshold.json").write_text(json.dumps(whole | {"threshold": 0.29}))
    hand.rules()


def test_a_threshold_of_another_ensemble_is_refused(hand):
    prepared(hand)
    hand.ensemble("pad/fold0")
    with pytest.raises(BadInput, match=r"oof.csv is not the one that .*threshold.json tells of: run .*threshold"):
        hand.rules()
    assert not (hand.folder / "masks.npy").exists()


def test_test_tiles_of_other_data_are_refused(hand):
    prepared(hand)
    (hand.data / "sample_submission.csv").write_text("id\nt1\nt2\n")
    with pytest.raises(BadInput, match="'t3', expected one of the 2 tiles of --data"):
        hand.rules()
