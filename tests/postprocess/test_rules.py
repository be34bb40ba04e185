import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

import runfolder
from command import BadInput
from datasets import predictions
from datasets.salt import Tiles
from postprocess import columns, corrections, rules
from postprocess.around import Around
from postprocess.columns import NONE, Columns
from postprocess.corrections import RULES, Evidence

MASKS = np.array([[[0, 1], [1, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]], np.uint8)

RIGHT = [[0, 0, 1], [0, 0, 1]]
LABELS = {"1e1": [[0] * 3] * 2, "007": RIGHT, "NA": RIGHT, "d": [[0] * 3] * 2}  # as in conftest.py


def alone(count):
    """Columns of tiles that are placed nowhere."""
    nowhere = np.full(count, NONE)
    return Columns(np.zeros((0, 2, 2), np.uint8), nowhere, nowhere, np.zeros(count, bool), nowhere)


def evidence(images, known=None):
    names = [str(i) for i in range(len(images))]
    return Evidence(names, np.asarray(images), np.zeros(len(images)), known or alone(len(images)))


def apply(name, given, masks, variant=""):
    before = masks.copy()
    after = RULES[name].variants[variant](given, masks)
    assert np.array_equal(masks, before) and after.dtype == masks.dtype and after.shape == masks.shape
    return after


def entry(found, name):
    return next(one for one in found["rules"] if one["rule"] == name)


def test_uniform_empty_on_constructed_tiles():
    images = np.array([[[[7, 7], [7, 7]]], [[[7, 7], [7, 8]]], [[[0, 0], [0, 0]]]], np.uint8)
    after = apply("uniform_empty", evidence(images), MASKS)
    assert np.array_equal(after, [np.zeros((2, 2)), MASKS[1], MASKS[2]])


def test_uniform_looks_at_each_channel_and_at_16_bits():
    one_colour = np.stack([np.full((2, 2), value) for value in (1, 2, 3)])
    assert corrections.is_uniform(np.array([one_colour, one_colour + np.eye(2, dtype=int)])).tolist() == [True, False]
    assert not corrections.is_uniform(np.array([[[[256, 0], [256, 256]]]], np.uint16)).any()


def test_full_empty_on_constructed_masks():
    after = apply("full_empty", evidence(np.zeros((3, 1, 2, 2))), MASKS)
    assert np.array_equal(after, [MASKS[0], np.zeros((2, 2)), MASKS[2]])


def test_witnesses():
    images = np.array([[[[7, 7], [7, 7]]], [[[7, 7], [7, 8]]], [[[0, 0], [0, 0]]]], np.uint8)
    bear_out, contradict = RULES["uniform_empty"].witnesses(images, MASKS)
    assert bear_out.tolist() == [False, False, True] and contradict.tolist() == [True, False, False]
    bear_out, contradict = RULES["full_empty"].witnesses(images, MASKS)
    assert bear_out.tolist() == [True, False, False] and contradict.tolist() == [False, True, False]


def test_every_rule_has_its_switch():
    switches = [field.name for field in dataclasses.fields(rules.Options) if field.type is bool]
    assert switches == list(RULES)


def labelled_tiles(masks, images=None):
    masks = torch.tensor(np.array(masks, np.uint8))
    images = torch.zeros(len(masks), 1, *masks.shape[1:], dtype=torch.uint8) if images is None else images
    return Tiles([f"t{i}" for i in range(len(masks))], images, masks, torch.zeros(len(masks)))


@pytest.mark.parametrize(
    ("salt", "full", "mean", "kept"),
    [
        (20, 0, 0.0, True),  # borne out and not contradicted: not losing is enough
        (20, 0, -0.01, False),
        (19, 0, 0.0, False),  # too few labels to rest on, and no gain
        (20, 1, 0.0, False),
    ],
)
def test_criterion_of_rules_with_witnesses(salt, full, mean, kept):
    masks = [[[0, 1], [0, 0]]] * salt + [[[1, 1], [1, 1]]] * full
    found = rules.by_witnesses(RULES["full_empty"], labelled_tiles(masks))
    assert found["labelled tiles that bear it out"] == salt and found["labelled tiles that contradict it"] == full
    entry = found | {"gain": {"mean": mean}, "chance of such a gain": 1.0}
    assert rules.verdict(entry)["kept"] is kept


@pytest.mark.parametrize(("chance", "mean", "kept"), [(0.025, 0.01, True), (0.026, 0.01, False)])
def test_criterion_of_searched_rules(chance, mean, kept):
    assert rules.verdict({"gain": {"mean": mean}, "chance of such a gain": chance})["kept"] is kept


@pytest.mark.parametrize(
    ("checks", "right", "beside", "mean", "kept"),
    [
        (15, 15, 7, 0.0, True),  # 0.025^(1/15) = 0.78: certain to beat 0.7
        (15, 15, 8, 0.0, False),
        (15, 14, 7, 0.0, False),  # once wrong in 15: 0.68 at least
        (15, 14, 6, 0.0, True),
        (15, 15, 7, -0.01, False),
        (0, 0, 0, 0.0, False),
    ],
)
def test_criterion_of_rules_by_labels(checks, right, beside, mean, kept):
    """`right` of `checks` tiles below vertical salt go on like it; predictions score `beside` tenths on each."""
    truth = np.zeros((2 * checks + 1, 4, 4), np.uint8)
    truth[:-1] = tall([0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0])
    truth[1 : 2 * (checks - right) : 2] = 0
    labelled = labelled_tiles(truth)
    rows = [(f"t{i}", i // 2, i % 2, 0, 1.0) for i in range(2 * checks)]
    said = rules.spoken_of(labelled, placed(*rows))
    found = rules.by_labels(RULES["vertical_down"].variants[""], said, labelled, dict.fromkeys(labelled.names, beside))
    assert found["checks"] == checks
    if checks:
        assert found["score of the rule"] == pytest.approx(right / checks)
        assert found["score of the prediction"] == beside / 10
    assert rules.verdict(found | {"gain": {"mean": mean}})["kept"] is kept


@pytest.fixture(autouse=True)
def few_labels_suffice(request, monkeypatch):
    """Runs by hand have four labelled tiles."""
    if "hand" in request.fixturenames:
        monkeypatch.setattr(rules, "SUPPORT", 1)


def prepared(hand, test=(0.8, 0.2, 0.7)):
    hand.write_two_folds(test)
    hand.ensemble()
    hand.threshold()


def test_masks_and_changes_by_hand(hand, capsys):
    # t1 is all salt; t2 is below the threshold; t3 has one grey value and is all salt: the first rule has it.
    images = {name: 10 * np.arange(6).reshape(2, 3) for name in ("1e1", "007", "NA", "d", "t1", "t2")}
    hand.write_data(images | {"t3": np.full((2, 3), 9), "d": np.full((2, 3), 7)}, LABELS)
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
    assert [one["rule"] for one in found["rules"]] == list(RULES)
    assert [(one["rule"], one["changed in test"]) for one in found["rules"] if one["kept"]] == [
        ("uniform_empty", 1),
        ("full_empty", 1),
    ]
    assert found["out of fold"]["metric"] == 1.0 and found["all empty"]["metric"] == 0.5
    assert found["threshold"] == 0.5 and found["share of empty test masks"] == 1.0
    assert "applied, changes 1 test tiles" in capsys.readouterr().out


def test_switched_off(hand, capsys):
    prepared(hand)
    hand.rules(full_empty=False)
    masks = np.load(hand.folder / "masks.npy")
    assert masks.all(axis=(1, 2)).tolist() == [True, False, True] and masks.sum() == 12
    found = entry(json.loads((hand.folder / "rules.json").read_text()), "full_empty")
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
    full = entry(found, "full_empty")
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
    full = entry(json.loads((hand.folder / "rules.json").read_text()), "full_empty")
    assert (
        full["chance of such a gain"] == 1
        and full["labelled tiles that contradict it"] == 1
        and full["gain"]["mean"] == 0
        and not full["kept"]
    )


def test_refusals(hand):
    hand.write_two_folds()
    hand.ensemble()
    with pytest.raises(
        BadInput, match=r"threshold.json is missing: run `python -m postprocess.threshold --run=hand --data=\.\.\.`"
    ):
        hand.rules()
    hand.threshold()
    whole = runfolder.read_json(hand.folder / "threshold.json")
    for wrong in (1.5, 0.123, True, "0.5", None):
        (hand.folder / "threshold.json").write_text(json.dumps(whole | {"threshold": wrong}))
        with pytest.raises(BadInput, match=r"threshold.json .*postprocess.threshold --run=hand --data=\.\.\.` again"):
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


# ---------------------------------------------------------------------------- rules by labels


def tall(*rows):
    """A mask of four columns with these rows."""
    return np.array(rows, np.uint8)


VERTICAL = tall([0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0])  # from its second row on
CAP = tall([0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1])
BLANK = np.zeros((4, 4), np.uint8)


def column(labels, above=None, below=None, under_salt=None, row=None):
    count = len(next(one for one in (above, below) if one is not None))
    filled = [np.full(count, NONE) if one is None else np.array(one) for one in (above, below)]
    under = np.zeros(count, bool) if under_salt is None else np.array(under_salt)
    rows = np.arange(count) if row is None else np.array(row)
    return Columns(np.array(labels), *filled, under, rows)


def predicted(count):
    return np.tile(tall([1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]), (count, 1, 1))


def test_vertical_salt_goes_on_below():
    given = evidence(np.zeros((4, 1, 4, 4)), column([VERTICAL, CAP, BLANK], above=[0, 1, 2, NONE]))
    after = apply("vertical_down", given, predicted(4))
    assert np.array_equal(after[0], [[0, 1, 1, 0]] * 4)
    assert np.array_equal(after[1:], predicted(3))


def test_below_a_full_row_and_below_ended_salt_tiles_are_empty():
    given = evidence(
        np.zeros((4, 1, 4, 4)),
        column([VERTICAL, CAP, BLANK], above=[0, 1, 2, 2], under_salt=[True, False, True, False]),
    )
    assert apply("cap_empty", given, predicted(4)).any(axis=(1, 2)).tolist() == [True, False, True, True]
    assert apply("under_salt_empty", given, predicted(4)).any(axis=(1, 2)).tolist() == [True, True, False, True]


def test_vertical_salt_goes_up_one_tile_far_below_the_top():
    upper = tall([0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0])
    given = evidence(np.zeros((3, 1, 4, 4)), column([upper, VERTICAL], below=[0, 0, 1], row=[2, 3, 9]))
    after = apply("vertical_up", given, predicted(3))
    assert np.array_equal(after[1], [[0, 1, 1, 0]] * 4)
    assert np.array_equal(after[[0, 2]], predicted(2))


def placed(*rows):
    return pd.DataFrame(rows, columns=["id", "mosaic", "row", "column", "strength"])


def test_columns_end_at_the_next_label_and_at_gaps():
    table = placed(
        ("a", 0, 0, 0, 1.0),  # labelled, salt
        ("t1", 0, 1, 0, 1.0),
        ("b", 0, 2, 0, 1.0),  # labelled, empty
        ("t2", 0, 3, 0, 1.0),
        ("t3", 0, 5, 0, 1.0),  # below a gap
        ("t4", 0, 0, 1, 1.0),  # another column
        ("t5", 1, 1, 0, 1.0),  # another mosaic
    )
    names = ["t1", "t2", "t3", "t4", "t5", "elsewhere", "b"]
    found = columns.build(table, names, ["a", "b"], np.stack([VERTICAL, BLANK]))
    assert found.above.tolist() == [0, 1, NONE, NONE, NONE, NONE, 0]
    assert found.below.tolist() == [1, NONE, NONE, NONE, NONE, NONE, NONE]
    assert found.under_salt.tolist() == [False, True, False, False, False, False, False]
    assert found.row.tolist() == [1, 3, 5, 0, 0, NONE, 2]


def test_weakly_placed_tiles_neither_speak_nor_hear():
    table = placed(("a", 0, 0, 0, 0.9), ("t1", 0, 1, 0, 1.0), ("b", 0, 2, 0, 1.0), ("t2", 0, 3, 0, 0.9))
    found = columns.build(table, ["t1", "t2"], ["a", "b"], np.stack([VERTICAL, BLANK]))
    assert found.above.tolist() == [NONE, NONE] and found.below.tolist() == [1, NONE]


def test_a_tile_does_not_hear_itself():
    found = columns.build(
        placed(("a", 0, 0, 0, 1.0), ("b", 0, 1, 0, 1.0)), ["a", "b"], ["a", "b"], np.stack([VERTICAL] * 2)
    )
    assert found.above.tolist() == [NONE, 0] and found.below.tolist() == [1, NONE]


# ---------------------------------------------------------------------------- searched rules

SPECKED = np.array([[[1, 1, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]], np.uint8)


def test_small_components_are_removed_by_sides_and_corners():
    images = np.zeros((1, 1, 5, 5))
    assert corrections.small_components(evidence(images), SPECKED, pixels=1).sum() == 6
    assert corrections.small_components(evidence(images), SPECKED, pixels=2).sum() == 4  # a corner joins the other two
    assert corrections.small_components(evidence(images), SPECKED, pixels=4).sum() == 0


def test_holes_are_filled_unless_they_touch_the_border():
    ring = np.ones((1, 5, 5), np.uint8)
    ring[0, 1:3, 1] = 0
    ring[0, 0, 4] = 0
    images = np.zeros((1, 1, 5, 5))
    assert corrections.small_holes(evidence(images), ring, pixels=1).sum() == 22
    filled = corrections.small_holes(evidence(images), ring, pixels=2)
    assert filled.sum() == 24 and filled[0, 0, 4] == 0
    assert np.array_equal(
        corrections.small_holes(evidence(images), 1 - np.ones_like(ring), pixels=99), np.zeros_like(ring)
    )


def test_small_masks_and_unlikely_ones_become_empty():
    assert corrections.small_masks(evidence(np.zeros((3, 1, 2, 2))), MASKS, pixels=3).any(axis=(1, 2)).tolist() == [
        False,
        True,
        False,
    ]
    given = evidence(np.zeros((3, 1, 2, 2)))._replace(image_probability=np.array([0.3, 0.29, 0.9]))
    assert corrections.empty_gate(given, MASKS, probability=0.3).any(axis=(1, 2)).tolist() == [True, False, False]


def stored(values):
    """Predictions by name, each (2, 3)."""
    pixels = np.rint(65535 * np.stack(list(values.values()))).astype(np.uint16)
    return predictions.Predictions(list(values), np.ones(len(values), np.float32), pixels)


def test_neighbours_are_smoothed_across_their_border_only():
    names = [f"t{i}" for i in range(3)]
    table = placed(("t0", 0, 0, 0, 1.0), ("t1", 0, 1, 0, 1.0), ("t2", 1, 0, 0, 1.0))
    probability = np.full((3, 20, 20), 0.9)
    probability[1] = 0.45
    by_name = dict(zip(names, probability, strict=True))
    parts = [stored({"t0": by_name["t0"]}), stored({name: by_name[name] for name in names[1:]})]
    around = Around(table, parts, 0.5)
    given = Evidence(names, np.zeros((3, 1, 20, 20)), np.ones(3), alone(3), around)
    masks = (probability > 0.5).astype(np.uint8)
    after = corrections.neighbour_smoothing(given, masks, sigma=2)
    assert np.array_equal(after[[0, 2]], masks[[0, 2]])
    assert after[1, 0].all()  # the mean of 0.9 and 0.45 is salt
    assert not after[1, 5:].any()


def test_without_neighbours_nothing_is_smoothed():
    given = evidence(np.zeros((3, 1, 2, 2)))
    assert np.array_equal(corrections.neighbour_smoothing(given, MASKS, sigma=1), MASKS)
    nothing = given._replace(around=Around(placed(), [stored({"0": np.ones((2, 2))})], 0.5))
    assert np.array_equal(corrections.neighbour_smoothing(nothing, MASKS, sigma=1), MASKS)


def test_the_best_variant_is_taken():
    """Specks of 15 pixels: only the variants that reach their size help, and the largest takes salt away too."""
    truth = np.zeros((8, 30, 30), np.uint8)
    truth[:, 10:17, 10:17] = 1  # 49 pixels
    masks = truth.copy()
    masks[:, :3, :5] = 1
    tiles = labelled_tiles(truth)
    given = evidence(np.zeros((8, 1, 30, 30)))
    variant, changed, tenths = rules.best_variant(RULES["small_components"], given, masks, tiles)
    assert variant == "20 pixels"
    assert np.array_equal(changed, truth)
    means = {name: values.mean() for name, values in tenths.items()}
    assert means["20 pixels"] == means["40 pixels"] == 10 and means["80 pixels"] == 0
    assert means["3 pixels"] == means["10 pixels"] < 10


def test_labels_correct_predictions_through_the_stage(hand):
    """Four tiles in a column below labelled vertical salt, each predicted empty: `vertical_down` mends test tiles."""
    names = ["1e1", "007", "NA", "d"]
    hand.write_data(
        {name: 10 * np.arange(6).reshape(2, 3) for name in [*names, "t1", "t2", "t3"]}, dict.fromkeys(names, RIGHT)
    )
    hand.write_model("pad/fold0", {"1e1": 0.1, "007": 0.1}, {"t1": 0.1, "t2": 0.1, "t3": 0.1})
    hand.write_model("pad/fold1", {"NA": 0.1, "d": 0.1}, {"t1": 0.1, "t2": 0.1, "t3": 0.1})
    column_of = [*names, "t1", "t2"]
    rows = [f"{name},0,{row},0,1.0" for row, name in enumerate(column_of)]
    (hand.folder / "mosaics.csv").write_text("\n".join(["id,mosaic,row,column,strength", *rows]) + "\n")
    hand.ensemble()
    hand.threshold()
    hand.rules()
    found = json.loads((hand.folder / "rules.json").read_text())
    down = entry(found, "vertical_down")
    assert down["checks"] == 3 and down["of them predicted"] == 3
    assert down["score of the rule"] == 1 and down["score of the prediction"] == 0
    assert down["kept"] and down["changed out of fold"] == 3 and down["changed in test"] == 2
    assert found["placed tiles"] == 6 and "mosaics.csv" in found["made from"]
    masks = dict(zip(["t1", "t2", "t3"], np.load(hand.folder / "masks.npy"), strict=True))
    assert np.array_equal(masks["t1"], RIGHT) and np.array_equal(masks["t2"], RIGHT) and not masks["t3"].any()
    assert (hand.folder / "changes.csv").read_text().splitlines()[1:] == [
        "t1,vertical_down,0,2",
        "t2,vertical_down,0,2",
    ]


def test_weak_places_do_not_count_as_rows():
    table = placed(("weak", 0, 0, 0, 0.6), ("a", 0, 1, 0, 1.0), ("b", 0, 2, 0, 1.0))
    assert columns.build(table, ["a", "b"], ["a"], np.stack([VERTICAL])).row.tolist() == [0, 1]


def test_a_tile_is_smoothed_by_its_own_fold_alone():
    """Out of fold: models of other folds were trained on it, and their predictions would tell of its label."""
    table = placed(("t0", 0, 0, 0, 1.0), ("t1", 0, 1, 0, 1.0), ("t2", 0, 2, 0, 1.0))
    parts = [stored({name: np.full((4, 4), 0.5) for name in ("t0", "t1", "t2")})]
    around = Around(table, parts, 0.5, {"t0": 0, "t1": 1, "t2": 1})
    assert around.picture("t0") is None
    _, known = around.picture("t1")
    assert not known[:4].any() and known[8:, 4:8].all()


def test_rules_restore_masks_that_were_damaged_on_purpose():
    """A section of vertical salt, its test tiles predicted wrong everywhere: rules by labels mend what labels tell."""
    section = np.zeros((20, 4), np.uint8)
    section[2:, 1:3] = 1
    truth = section.reshape(5, 4, 4)
    names = [f"t{i}" for i in range(5)]
    table = placed(*[(name, 0, row, 0, 1.0) for row, name in enumerate(names)])
    known = columns.build(table, names, ["t0"], truth[:1])
    damaged = np.where(np.arange(5)[:, None, None] == 0, truth, 1 - truth).astype(np.uint8)
    given = evidence(np.zeros((5, 1, 4, 4)), known)
    assert np.array_equal(apply("vertical_down", given, damaged), truth)
