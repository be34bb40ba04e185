"""Turn probabilities into masks and correct them by rules, each tried on out-of-fold tiles first.

    python -m postprocess.rules --run=saltnet --data=datasets/tgs [--full_empty=False] [--vertical_down=False] ...

One after another, each on the masks that the rules kept before it leave. Where a rule has numbers, the best of a few is
taken. The criterion:
* No labelled tile contradicts the rule: kept if its mean gain out of fold is not below 0. Such a rule follows from
  how the data are labelled (`full_empty` changes only masks that are certainly wrong), and reaches too few tiles for
  an interval to say more. The score still decides: a tile that is nearly all salt would lose by being emptied.
* Any other rule: kept only if the lower bound of its gain's 95 % interval is above 0. A rule by which labelled tiles
  decide of their neighbours is scored on labelled tiles whose own label is hidden from it.

Rules by labels need mosaics.csv (python -m datasets.mosaic); without it they find nothing to do.
Writes masks.npy (uint8, 0 or 1, (N, H, W), in the order of test.csv), changes.csv (one row per test tile and rule
that changed it) and rules.json (tried, gained, changed, kept; the final out-of-fold score).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import command
import runfolder
from command import BadInput
from datasets import mosaic, salt
from datasets.salt import Tiles
from losses.compare import paired_gain
from postprocess import columns, scores, stages
from postprocess.around import Around
from postprocess.corrections import RULES, Apply, Evidence, Rule

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
    around = Around(mosaics, (oof, test), threshold)
    known, unknown = (
        Evidence(
            stored.names,
            part.images.numpy(),
            stored.image_probability,
            columns.build(mosaics, stored.names, labelled.names, labelled.masks.numpy()),
            around,
        )
        for stored, part in ((oof, tiles), (test, unlabelled))
    )

    asked = [name for name in RULES if getattr(options, name)]
    found = {"threshold": threshold, "placed tiles": len(mosaics)}
    found |= try_rules(asked, known, scores.masks_at(oof, threshold), tiles, labelled)
    masks, changes = apply_kept(found["rules"], unknown, scores.masks_at(test, threshold))
    found["share of empty test masks"] = float((~masks.any(axis=(1, 2))).mean())
    with stages.together(folder, WRITTEN) as temporary:
        np.save(temporary / "masks.npy", masks)
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


def try_rules(asked: list[str], known: Evidence, masks: np.ndarray, tiles: Tiles, labelled: Tiles) -> dict[str, Any]:
    """What each rule gains out of fold on the masks that the kept ones before it leave, and the final score."""
    before = first = scores.tenths_of(masks, tiles.masks)
    tried = []
    for name, rule in RULES.items():
        if name not in asked:
            tried.append({"rule": name, "kept": False, "why": "switched off"})
            continue
        variant, tenths = best_variant(rule, known, masks, tiles)
        changed, after = rule.variants[variant](known, masks), tenths[variant]
        entry = {"rule": name, "variant": variant, "because": rule.because} | verdict(rule, labelled, before, after)
        entry["changed out of fold"] = int((changed != masks).any(axis=(1, 2)).sum())
        if len(rule.variants) > 1:
            entry["variants"] = {one: float((values - before).mean() / 10) for one, values in tenths.items()}
        if rule.by_labels:
            entry |= checks(rule.variants[variant], known, masks, before, after)
        tried.append(entry)
        if entry["kept"]:
            masks, before = changed, after
    return {
        "rules": tried,
        "out of fold before rules": scores.score(first),
        "out of fold": scores.score(before),
        "all empty": scores.score(scores.tenths_of_empty(tiles.masks)),
    }


def best_variant(rule: Rule, known: Evidence, masks: np.ndarray, tiles: Tiles) -> tuple[str, dict[str, np.ndarray]]:
    """The variant with the highest score, of equals the first, and ten times the scores of all, each (N,)."""
    tenths = {name: scores.tenths_of(apply(known, masks), tiles.masks) for name, apply in rule.variants.items()}
    return max(tenths, key=lambda name: tenths[name].sum()), tenths


def checks(apply: Apply, known: Evidence, masks: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """On how many tiles a rule by labels speaks, and the scores there of what it says and of what was predicted."""
    spoken = (apply(known, np.zeros_like(masks)) == apply(known, np.ones_like(masks))).all(axis=(1, 2))
    if not spoken.any():
        return {"checks": 0}
    mean = {name: float(values[spoken].mean() / 10) for name, values in (("rule", after), ("prediction", before))}
    return {
        "checks": int(spoken.sum()),
        "score of the rule": mean["rule"],
        "score of the prediction": mean["prediction"],
    }


def verdict(rule: Rule, labelled: Tiles, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Whether a rule is kept, by the criterion at the head of this file, and the figures that decide it."""
    gain, contradictions = paired_gain(before / 10, after / 10), None
    if rule.contradicted is not None:
        contradictions = int(rule.contradicted(labelled.images.numpy(), labelled.masks.numpy()).sum())
    if contradictions == 0:
        kept, why = gain.mean >= 0, "follows from the labels; kept if its mean gain is not below 0"
    else:
        kept, why = gain.low > 0, "not certain from the labels; kept if the lower bound of its gain is above 0"
    return {
        "labelled tiles that contradict it": contradictions,
        "gain": scores.gain(gain),
        "kept": bool(kept),
        "why": why,
    }


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
    figures = f"{entry['score of the rule']:.3f} beside {entry['score of the prediction']:.3f}"
    return f", {figures} on {entry['checks']} labelled tiles"


if __name__ == "__main__":
    command.run(rules, Options)
