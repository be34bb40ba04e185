"""Turn probabilities into masks and correct them by rules, each tried on out-of-fold tiles first.

    python -m postprocess.rules --run=saltnet --data=datasets/tgs [--full_empty=False] [--vertical_down=False] ...

One after another, each on the masks that the rules kept before it leave. Where a rule has numbers, the best of a few is
taken. No rule is kept whose mean gain out of fold is below 0. Beyond that, the criterion:
* SUPPORT labelled tiles or more bear the rule out and none contradicts it: kept. It follows from how the data are
  labelled, and reaches too few tiles for a gain to be certain.
* Labelled tiles decide of their neighbours: tried on every labelled tile that it speaks of, whose own label is hidden
  from it. Kept if it is certain to score higher there than the prediction: if the lower bound of the share that it gets
  wholly right (Clopper & Pearson 1934, one-sided 97.5 %) is above the prediction's mean score.
* Any other rule: kept if chance makes the best of its variants gain as much in at most 2.5 % of cases, tiles of one
  mosaic taken together (losses.compare.chance_of_best).
Masks, threshold and rules are chosen on the same tiles, so the last out-of-fold score is an upper estimate.

Rules by labels need mosaics.csv (python -m datasets.mosaic); without it they find nothing to do.
Writes masks.npy (uint8, 0 or 1, (N, H, W), in the order of test.csv), changes.csv (one row per test tile and rule
that changed it) and rules.json (tried, gained, changed, kept; the final out-of-fold score).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

import command
import runfolder
from command import BadInput
from datasets import folds, mosaic, predictions, salt
from datasets.salt import Tiles
from losses.compare import chance_of_best, paired_gain
from postprocess import columns, scores, stages
from postprocess.around import Around
from postprocess.corrections import RULES, Apply, Evidence, Rule

SUPPORT = 20  # labelled tiles that a rule needs which none contradicts
DOUBT = 0.025  # of a rule that is kept: the chance that it gains nothing

INPUTS = ("oof.csv", "oof.npy", "test.csv", "test.npy", "threshold.json")
WRITTEN = ("masks.npy", "changes.csv", "rules.json")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Threshold and correct the masks of a run."""

    data: str = "datasets/tgs"  # a folder in Kaggle's layout
    run: str = "saltnet"  # folder under runs/
    neighbour_smoothing: bool = False  # probabilities blurred across borders of placed tiles: an experiment
    small_components: bool = True  # specks of salt -> removed
    small_holes: bool = True  # small gaps in salt -> filled
    small_masks: bool = True  # masks of few pixels -> empty
    empty_gate: bool = True  # tiles that hardly hold any salt as a whole -> empty
    uniform_empty: bool = True  # tiles of one grey value -> empty
    full_empty: bool = True  # masks that are all salt -> empty
    vertical_up: bool = True  # above vertical labelled salt -> the same columns
    vertical_down: bool = True  # below vertical labelled salt -> the same columns
    cap_empty: bool = True  # below a labelled row that is all salt -> empty
    under_salt_empty: bool = True  # below a labelled empty tile below labelled salt -> empty


def rules(options: Options) -> None:
    """Write the test masks, what the rules changed, and rules.json."""
    folder = stages.existing_run(options.run)
    stages.read_stage(folder, "ensemble.json", {})
    threshold = read_threshold(folder)
    oof, test = stages.read_predictions(folder, "oof"), stages.read_predictions(folder, "test")
    labelled = salt.load_train(options.data)
    tiles = labelled.select(oof.names)
    everyone = salt.load_test(options.data)
    unlabelled = everyone.select(test.names)
    stages.refuse_other_size(oof, tiles, folder / "oof.npy")
    stages.refuse_other_size(test, unlabelled, folder / "test.npy")

    mosaics = read_mosaics(folder, [*labelled.names, *everyone.names])
    table = folds.read(runfolder.folds_file(options.run), labelled.names)
    fold_of = dict(zip(table["id"], table["fold"], strict=True))
    known, unknown = (
        Evidence(
            stored.names,
            part.images.numpy(),
            stored.image_probability,
            columns.build(mosaics, stored.names, labelled.names, labelled.masks.numpy()),
            around,
        )
        for stored, part, around in (
            (oof, tiles, Around(mosaics, (oof,), threshold, fold_of)),
            (test, unlabelled, Around(mosaics, (oof, test), threshold)),
        )
    )

    asked = [name for name in RULES if getattr(options, name)]
    found = {"threshold": threshold, "placed tiles": len(mosaics)}
    found |= try_rules(asked, known, scores.masks_at(oof, threshold), tiles, labelled, mosaics)
    masks, changes = apply_kept(found["rules"], unknown, scores.masks_at(test, threshold))
    found["share of empty test masks"] = float((~masks.any(axis=(1, 2))).mean())
    with stages.together(folder, WRITTEN) as temporary:
        with open(temporary / "masks.npy", "wb") as file:
            predictions.write_header(file, masks.shape, np.uint8)
            file.write(masks.astype(np.uint8).tobytes())
        changes.to_csv(temporary / "changes.csv", index=False, encoding="utf-8", lineterminator="\n")
        found["made from"] = stages.checksums(folder, [*INPUTS, *(["mosaics.csv"] if has_mosaics(folder) else [])])
        found["written"] = stages.checksums(temporary, WRITTEN[:-1])
        runfolder.write_json(temporary / "rules.json", found | {"made with": runfolder.provenance()})
    report(folder, found)


def read_threshold(folder: Path) -> float:
    found = stages.read_stage(folder, "threshold.json", {"threshold": (int, float)})["threshold"]
    if not 0 < found < 1 or abs(100 * found - round(100 * found)) > 1e-9:
        remedy = f"run {stages.again(folder, 'threshold.json')} again"
        raise BadInput(f"{folder}/threshold.json has the threshold {found}, expected hundredths in 0..1: {remedy}")
    return found


def has_mosaics(folder: Path) -> bool:
    return (folder / "mosaics.csv").exists()


def read_mosaics(folder: Path, names: list[str]) -> pd.DataFrame:
    """The run's mosaics; a table without rows where it has none."""
    return mosaic.read(folder / "mosaics.csv", names) if has_mosaics(folder) else pd.DataFrame(columns=mosaic.COLUMNS)


def try_rules(
    asked: list[str], known: Evidence, masks: np.ndarray, tiles: Tiles, labelled: Tiles, mosaics: pd.DataFrame
) -> dict[str, Any]:
    """What each rule gains out of fold on the masks that the kept ones before it leave, and the final score.

    `known` and `masks` are of the predicted tiles `tiles`, some of all the `labelled` ones.
    """
    before = first = scores.tenths_of(masks, tiles.masks)
    groups = mosaic_of(tiles.names, mosaics)
    said = spoken_of(labelled, mosaics)
    tried = []
    for name, rule in RULES.items():
        if name not in asked:
            tried.append({"rule": name, "kept": False, "why": "switched off"})
            continue
        variant, changed, tenths = best_variant(rule, known, masks, tiles)
        after = tenths[variant]
        entry = {"rule": name, "variant": variant, "because": rule.because}
        entry["gain"] = scores.gain(paired_gain(before / 10, after / 10))
        if rule.witnesses:
            entry |= by_witnesses(rule, labelled)
        if rule.by_labels:
            entry |= by_labels(rule.variants[variant], said, labelled, dict(zip(tiles.names, before, strict=True)))
        elif not entry.get("certain from the labels"):
            gains = np.stack([values - before for values in tenths.values()])
            entry["chance of such a gain"] = chance_of_best(gains, groups)
        entry |= verdict(entry)
        entry["changed out of fold"] = int((changed != masks).any(axis=(1, 2)).sum())
        if len(rule.variants) > 1:
            entry["variants"] = {one: float((values - before).mean() / 10) for one, values in tenths.items()}
        tried.append(entry)
        if entry["kept"]:
            masks, before = changed, after
    return {
        "rules": tried,
        "out of fold before rules": scores.score(first),
        "out of fold": scores.score(before),
        "all empty": scores.score(scores.tenths_of_empty(tiles.masks)),
    }


def mosaic_of(names: Sequence[str], mosaics: pd.DataFrame) -> np.ndarray:
    """(N,) number of each tile's mosaic; tiles that are not placed have one of their own."""
    number = dict(zip(mosaics["id"], mosaics["mosaic"], strict=True))
    return np.array([number.get(name, -1 - index) for index, name in enumerate(names)], np.int64)


def spoken_of(labelled: Tiles, mosaics: pd.DataFrame) -> Evidence:
    """What other labelled tiles say of each labelled one, without any prediction."""
    truth = labelled.masks.numpy()
    said = columns.build(mosaics, labelled.names, labelled.names, truth)
    return Evidence(labelled.names, labelled.images.numpy(), np.zeros(len(labelled)), said)


def best_variant(
    rule: Rule, known: Evidence, masks: np.ndarray, tiles: Tiles
) -> tuple[str, np.ndarray, dict[str, np.ndarray]]:
    """The variant with the highest score, of equals the first; its masks; ten times the scores of all, each (N,)."""
    tenths, best, best_masks = {}, "", masks
    for name, apply in rule.variants.items():
        changed = apply(known, masks)
        tenths[name] = scores.tenths_of(changed, tiles.masks)
        if len(tenths) == 1 or tenths[name].sum() > tenths[best].sum():
            best, best_masks = name, changed
    return best, best_masks, tenths


def by_witnesses(rule: Rule, labelled: Tiles) -> dict[str, Any]:
    """How many labelled tiles bear a rule out and contradict it, and whether that makes it certain."""
    bear_out, contradict = (
        int(tiles.sum()) for tiles in rule.witnesses(labelled.images.numpy(), labelled.masks.numpy())
    )
    return {
        "labelled tiles that bear it out": bear_out,
        "labelled tiles that contradict it": contradict,
        "certain from the labels": bear_out >= SUPPORT and not contradict,
    }


def by_labels(apply: Apply, said: Evidence, labelled: Tiles, predicted: Mapping[str, int]) -> dict[str, Any]:
    """On how many labelled tiles a rule by labels speaks, and its score there beside that of what was predicted.

    `predicted` has ten times the score of each predicted tile. Where none of those spoken of is, all of them count.
    """
    truth = labelled.masks.numpy()
    empty, full = apply(said, np.zeros_like(truth)), apply(said, np.ones_like(truth))
    spoken = np.flatnonzero((empty == full).all(axis=(1, 2)))
    if not len(spoken):
        return {"checks": 0}
    tenths = scores.tenths_of(empty[spoken], labelled.masks[spoken])
    names = [labelled.names[index] for index in spoken]
    beside = [predicted[name] for name in names if name in predicted] or list(predicted.values())
    right = np.count_nonzero(tenths == 10)
    return {
        "checks": len(spoken),
        "score of the rule": float(tenths.mean() / 10),
        "wholly right at least": float(beta.ppf(DOUBT, right, len(spoken) - right + 1)) if right else 0.0,
        "score of the prediction": float(np.mean(beside) / 10),
        "of them predicted": sum(name in predicted for name in names),
    }


def verdict(entry: dict[str, Any]) -> dict[str, Any]:
    """Whether a rule is kept, by the criterion at the head of this file."""
    if entry.get("certain from the labels"):
        certain, why = True, "follows from the labels; kept if its mean gain is not below 0"
    elif "checks" in entry:
        certain = entry["checks"] > 0 and entry["wholly right at least"] > entry["score of the prediction"]
        why = "speaks by labels; kept if certain to be right more often there than the prediction scores"
    else:
        certain, why = entry["chance of such a gain"] <= DOUBT, "kept if its gain is beyond chance"
    return {"kept": bool(certain and entry["gain"]["mean"] >= 0), "why": why}


def apply_kept(tried: list[dict[str, Any]], known: Evidence, masks: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Test masks after the kept rules and a row for every change; notes in `tried` how many tiles each rule changed."""
    rows = []
    for entry in tried:
        if not entry["kept"]:
            continue
        changed = RULES[entry["rule"]].variants[entry["variant"]](known, masks)
        places = np.flatnonzero((changed != masks).any(axis=(1, 2)))
        entry["changed in test"] = len(places)
        rows += [(known.names[i], entry["rule"], int(masks[i].sum()), int(changed[i].sum())) for i in places]
        masks = changed
    return masks, pd.DataFrame(rows, columns=["id", "rule", "pixels_before", "pixels_after"])


def report(folder: Path, found: dict[str, Any]) -> None:
    for entry in found["rules"]:
        if "gain" not in entry:
            print(f"{entry['rule']:28}{entry['why']}")
            continue
        gain = entry["gain"]
        does = f"applied, changes {entry['changed in test']} test tiles" if entry["kept"] else "not applied"
        name = " ".join(filter(None, (entry["rule"], entry["variant"])))
        print(
            f"{name:28}{gain['mean']:+.4f} (95 % {gain['low']:+.4f} to {gain['high']:+.4f}) by "
            f"{entry['changed out of fold']} changes out of fold{spoken(entry)}: {does}"
        )
    print(f"{'out of fold':28}{scores.text(found['out of fold'])}, threshold {found['threshold']:.2f}")
    print(f"wrote {', '.join(str(folder / file) for file in WRITTEN)}")


def spoken(entry: dict[str, Any]) -> str:
    if not entry.get("checks"):
        return ""
    figures = f"{entry['score of the rule']:.3f} (predicted {entry['score of the prediction']:.3f})"
    return f", {figures} on {entry['checks']} labelled tiles"


if __name__ == "__main__":
    command.run(rules, Options)
