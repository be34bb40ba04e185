"""What a training run leaves on disk after each epoch, and how it goes on from there."""

import csv
import io
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import nets
import runfolder
from command import BadInput
from training.config import Config, differences
from training.schedules import cycle_of
from training.setup import Job, framing_settings

Rows = list[dict[str, float | None]]  # None: not validated


@dataclass
class Progress:
    """A row per finished epoch. With the weights and the optimiser, all that changes in training."""

    history: Rows = field(default_factory=list)  # scores: equal for equal runs
    times: Rows = field(default_factory=list)  # seconds: never equal

    @property
    def epoch(self) -> int:
        """The epoch to train next, from 0."""
        return len(self.history)

    @property
    def validation_losses(self) -> list[float]:
        return [row["validation_loss"] for row in self.history if row["validation_loss"] is not None]


def save_epoch(job: Job, done: Progress, folder: Path, identity: dict[str, str]) -> None:
    """Best checkpoints, then the tables, then latest.pt: a kill in between repeats the epoch and writes the same.

    The last latest.pt stays as previous.pt, for the case that a disk spoils the new one.
    """
    details = checkpoint_details(job, done, identity)
    for score in improved(done.history, job.config):
        nets.save(folder / f"{prefix(job.config, done.epoch - 1)}best-{score}.pt", job.net, **details)
    runfolder.write_text(folder / "metrics.csv", table(done.history))
    runfolder.write_text(folder / "times.csv", table(done.times))
    resumable = {
        "optimizer": job.optimizer.state_dict(),
        "precision": job.fabric.strategy.precision.state_dict(),  # the loss scale of fp16
        "history": done.history,
        "times": done.times,
    }
    nets.save(folder / "next.pt", job.net, **details, **resumable)
    if (folder / "latest.pt").exists():
        os.replace(folder / "latest.pt", folder / "previous.pt")
    os.replace(folder / "next.pt", folder / "latest.pt")


def newest(folder: Path) -> Path | None:
    """What to go on from: latest.pt, or what a kill between the two renamings above has left of it."""
    return next((path for name in ("latest", "previous") if (path := folder / f"{name}.pt").exists()), None)


def resume(job: Job, path: Path, identity: dict[str, str]) -> Progress:
    """Go on from latest.pt, bit for bit."""
    try:
        net, details = nets.load(path)
    except BadInput as error:
        raise BadInput(f"{error}; {remedy(path)}") from error
    if "history" not in details:
        raise BadInput(f"{path} holds weights but no training state: remove it to train this model from the start")
    differing = unlike(details["config"], job.config, identity)
    if differing:
        raise BadInput(f"{path} is of another training ({'; '.join(differing)}): remove it to start this one anew")
    job.net.load_state_dict(net.state_dict())
    job.optimizer.load_state_dict(details["optimizer"])
    job.fabric.strategy.precision.load_state_dict(details["precision"])
    return Progress(details["history"], details["times"])


def remedy(damaged: Path) -> str:
    """How to go on without this checkpoint."""
    before = damaged.with_name("previous.pt")
    try:
        if damaged != before and before.exists():
            epoch = nets.load(before)[1]["epoch"]
            return f"`mv {before} {damaged}` and the same command go on from epoch {epoch}, which is whole"
    except BadInput:
        pass  # so that neither is
    return "remove it to train this model from the start"


def checkpoint_details(job: Job, done: Progress, identity: dict[str, str]) -> dict[str, Any]:
    """What a checkpoint tells beside its weights."""
    return {
        "config": asdict(job.config) | identity,
        "framing": framing_settings(job.config, job.train),
        "native_size": job.native_size,
        "epoch": done.epoch - 1,
        "scores": done.history[-1],
    }


def improved(history: Rows, config: Config) -> list[str]:
    """Scores in which the last epoch is the first best one of its cycle; none if it was not validated."""
    if history[-1]["validation_loss"] is None:
        return []
    cycle = cycle_of(config, len(history) - 1)
    rows = [row for epoch, row in enumerate(history) if cycle_of(config, epoch) == cycle]
    rows = [row for row in rows if row["validation_loss"] is not None]
    sign = {"loss": -1}  # that makes higher better
    scores = {name: [sign.get(name, 1) * row[f"validation_{name}"] for row in rows] for name in config.best.split()}
    return [name for name, values in scores.items() if all(values[-1] > value for value in values[:-1])]


def prefix(config: Config, epoch: int) -> str:
    """`cycle2-` before the checkpoints of a clr run's third cycle, nothing before those of other schedules."""
    return f"cycle{cycle_of(config, epoch)}-" if config.schedule == "clr" and config.cycles > 1 else ""


def table(rows: Rows) -> str:
    """CSV text of dicts; what some of them lack is empty."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def stored_config(folder: Path) -> dict[str, Any] | None:
    """config.json of a model that has something worth keeping, else None."""
    if not (folder / "final.pt").exists() and not newest(folder):
        return None
    path = folder / "config.json"
    if not path.exists():
        raise BadInput(f"{folder} has weights but no config.json that tells what they are: restore or remove it")
    stored = runfolder.read_json(path)
    missing = {"threads", "precision", "folds"} - set(stored if isinstance(stored, dict) else ())
    if missing:
        raise BadInput(f"{path} lacks {min(missing)!r}, so it is damaged: restore it, or remove {folder}")
    refuse_other_version(stored, stored.get("made with", {}), path)
    return stored


def refuse_other_version(stored: dict[str, Any], made_with: dict[str, str], path: Path) -> None:
    """Raise BadInput for a config with options that this code does not have."""
    unknown = sorted(set(stored) - {item.name for item in fields(Config)} - {"folds", "made with"})
    if unknown:
        raise BadInput(
            f"{path} has the option {unknown[0]!r}, which this version of Saltworks does not know: go on with the "
            f"version that wrote it (commit {made_with.get('commit', 'unknown')}), or train under another RUN"
        )


def refuse_other(folder: Path, config: Config, identity: dict[str, str]) -> None:
    """Raise BadInput if the folder holds a model of another config or other folds than asked for."""
    stored = stored_config(folder)
    differing = unlike(stored, config, identity) if stored else []
    if differing:
        raise BadInput(
            f"{folder} holds a model of another config ({'; '.join(differing)}): "
            "ask for the same, give another RUN, or remove that folder"
        )


def unlike(stored: dict[str, Any], config: Config, identity: dict[str, str]) -> list[str]:
    """In what a stored config differs from the one asked for; `identity` are checksums that must agree too."""
    changed = [f"{name} changed" for name, value in identity.items() if stored.get(name) != value]
    return differences(config, stored) + changed
