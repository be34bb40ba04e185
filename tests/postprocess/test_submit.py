import json
import os

import numpy as np
import pytest

import command
from command import BadInput
from postprocess import rules, submit

MAPS = (  # two runs, none, and one that goes on from column to column
    np.array([[0.9, 0, 0.9], [0.1, 0, 0.9]]),
    np.zeros((2, 3)),
    np.array([[0, 0.9, 0], [0.9, 0.9, 0]]),
)


def prepared(hand):
    hand.write_two_folds(MAPS)
    for stage in (hand.ensemble, hand.threshold, hand.rules):
        stage()


def test_rows_and_runs_by_hand(hand, capsys):
    prepared(hand)
    capsys.readouterr()
    hand.submit()
    # Down, then right, from 1, in the order of sample_submission.csv: t3, t1, t2.
    assert (hand.folder / "submission.csv").read_text() == "id,rle_mask\nt3,2 3\nt1,1 1 5 2\nt2,\n"
    output = capsys.readouterr().out
    assert "submission.csv: 3 rows, 33.3% of the masks empty" in output
    assert "out-of-fold metric 1.0000 ± 0.0000 (4 tiles); all masks empty 0.5000 ± 0.2887 (4 tiles)" in output
    assert "2 model(s) of 4: pad/fold0 pad/fold1" in output and "NOT IN IT: resize/fold0 resize/fold1" in output
    for file in hand.files():
        assert file == "folds.csv" or str(hand.folder / file) in output
    hand.submit(show=True)
    assert capsys.readouterr().out == output


def test_show_changes_nothing(hand):
    hand.write_two_folds()
    hand.all_stages()
    before, mtime = hand.files(), (hand.folder / "submission.csv").stat().st_mtime_ns
    command.run(submit.submit, submit.Options, ["--run=hand", f"--data={hand.data}", "--show"])
    assert hand.files() == before and (hand.folder / "submission.csv").stat().st_mtime_ns == mtime


def test_show_refuses_what_is_missing_or_old(hand):
    prepared(hand)
    with pytest.raises(
        BadInput, match=r"submission.csv is missing: run `python -m postprocess.submit --run=hand --data=\.\.\.`"
    ):
        hand.submit(show=True)
    hand.submit()
    os.utime(hand.folder / "submission.csv", (1, 1))
    with pytest.raises(BadInput, match=r"older than rules.json beside it: run .*submit"):
        hand.submit(show=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            "ensemble.json",
            r"ensemble.json is missing: run `python -m postprocess.ensemble --run=hand --data=\.\.\.` first",
        ),
        ("rules.json", r"rules.json is missing: run `python -m postprocess.rules --run=hand --data=\.\.\.` first"),
        ("masks.npy", r"masks.npy is missing: run `python -m postprocess.rules --run=hand --data=\.\.\.` first"),
        ("test.csv", r"test.csv is missing: run `python -m postprocess.ensemble --run=hand --data=\.\.\.` first"),
    ],
)
def test_missing_stages(hand, spoil, message):
    prepared(hand)
    (hand.folder / spoil).unlink()
    with pytest.raises(BadInput, match=message):
        hand.submit()
    assert not (hand.folder / "submission.csv").exists()


def test_masks_of_another_time_are_refused(hand):
    prepared(hand)
    np.save(hand.folder / "masks.npy", np.zeros((3, 2, 3), np.uint8))
    with pytest.raises(BadInput, match=r"masks.npy is not the one that .*rules.json tells of: run .*rules"):
        hand.submit()
    prepared(hand)
    threshold = json.loads((hand.folder / "threshold.json").read_text())
    (hand.folder / "threshold.json").write_text(json.dumps(threshold | {"threshold": 0.4}))
    with pytest.raises(BadInput, match=r"threshold.json is not the one that .*rules.json tells of: run .*rules"):
        hand.submit()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("id\nt1\nt2\n", "differ in 1 ids, such as 't3' .only test.csv has it"),
        ("id\nt1\nt2\nt3\nt4\n", "such as 't4' .sample_submission.csv lists it"),
        ("id\nt1\nt2\nt3\nt3\n", "more than once"),
        ("name\nt1\n", "expected a header"),
    ],
)
def test_other_ids_are_refused(hand, sample, message):
    prepared(hand)
    hand.submit()
    before = hand.files()
    (hand.data / "sample_submission.csv").write_text(sample)
    with pytest.raises(BadInput, match=message):
        hand.submit()
    assert hand.files() == before


def test_a_submission_that_differs_from_its_masks_never_gets_its_name(hand, monkeypatch):
    prepared(hand)
    hand.submit()
    before = hand.files()
    monkeypatch.setattr(submit.rle, "encode_many", lambda masks: ["1 1"] * len(masks))
    with pytest.raises(AssertionError, match="'t3' is not its mask"):
        hand.submit()
    assert hand.files() == before


def test_bad_input_is_one_line(hand):
    with pytest.raises(SystemExit) as stopped:
        command.run(rules.rules, rules.Options, ["--run=hand", f"--data={hand.data}"])
    assert str(stopped.value.code).startswith("error: ") and "ensemble.json is missing" in str(stopped.value.code)
    assert "\n" not in str(stopped.value.code)
