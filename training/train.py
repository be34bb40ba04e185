"""Train one model: one fold in one framing.

    python -m training.train saltnet --fold=0 --variant=pad --data=datasets/tgs --run=saltnet

Killed and started again with the same command, it goes on from the last finished epoch and ends with the same weights.
Writes runs/RUN/VARIANT/foldK/{config.json, metrics.csv, times.csv, events/, latest.pt, best-*.pt, final.pt}, and while
it lasts previous.pt: latest.pt of the epoch before.
"""

import time
from dataclasses import asdict, replace
from pathlib import Path
from sys import stderr

from torch.optim import Optimizer
from tqdm import tqdm

import command
import nets
import runfolder
from command import BadInput
from training import memory, setup, state, watch
from training.config import PRESETS, Config, resolve
from training.evaluate import Scores, evaluate
from training.events import Events
from training.schedules import SCHEDULES
from training.setup import Job
from training.state import Progress
from training.step import epoch_groups, seed_epoch, train_step
from training.watch import Watch


def train(config: Config) -> None:
    """Train the model that `config` names, or what is left of it."""
    folder = runfolder.model_folder(config.run, config.variant, config.fold)
    identity = {"folds": runfolder.checksum(runfolder.folds_file(config.run))}
    state.refuse_other(folder, config, identity)
    if (folder / "final.pt").exists():
        if state.stored_config(folder)["epochs"] >= config.epochs:
            print(f"{folder}/final.pt is trained already: nothing to do")
            return
        if not state.newest(folder):
            raise BadInput(
                f"{folder}/latest.pt is gone, so training cannot go on: give another RUN and --start=final.pt"
            )
    job = setup.prepare(adopt(folder, resolve(config)))
    with runfolder.lock(folder):
        state.refuse_other(folder, job.config, identity)  # again: nobody can come between any more
        done = begin(job, folder, identity)
        (folder / "final.pt").unlink(missing_ok=True)  # of fewer epochs; what was begun from has its weights
        made_with = {"made with": runfolder.provenance()}
        runfolder.write_json(folder / "config.json", asdict(job.config) | identity | made_with)
        print(f"{folder}: {describe(job)}", flush=True)
        with memory.shortage_told():
            run_epochs(job, done, folder, identity)


def adopt(folder: Path, config: Config) -> Config:
    """An interrupted model goes on with the threads, precision and batch that it began with."""
    stored = state.stored_config(folder)
    if not stored:
        return memory.fitted(config) if config.fit_batch else config
    kept = ("threads", "precision", *(("batch", "accumulate") if config.fit_batch else ()))
    return replace(config, **{name: stored[name] for name in kept})


def begin(job: Job, folder: Path, identity: dict[str, str]) -> Progress:
    """From the last finished epoch, or from the start."""
    newest = state.newest(folder)
    if not newest:
        setup.set_normalisation(job)
        return Progress()
    done = state.resume(job, newest, identity)
    print(f"going on at epoch {done.epoch} of 0 .. {job.config.epochs - 1}", flush=True)
    return done


def run_epochs(job: Job, done: Progress, folder: Path, identity: dict[str, str]) -> None:
    """Train until the last epoch is done and final.pt is there."""
    epochs = job.config.epochs
    bar = tqdm(total=epochs, initial=done.epoch, unit="epoch", disable=None)
    with bar, Events(folder / "events", done.epoch) as events:
        while done.epoch < epochs:
            started = time.perf_counter()
            training = train_epoch(job, done, bar)
            trained = time.perf_counter()
            watch.refuse_broken_weights(job.net, done.epoch)
            validation = None if is_coarse(job.config, done.epoch) else scores(job)
            watch.refuse_broken_loss(validation and validation.loss, done.epoch)
            more = more_scores(job, done.epoch)
            done.times.append({"epoch": done.epoch} | timing(started, trained, len(job.train)))
            done.history.append({"epoch": done.epoch} | training | named(validation) | more)
            report(job, done, bar, events)  # flushed before latest.pt says that the epoch is done
            state.save_epoch(job, done, folder, identity)
    (folder / "previous.pt").unlink(missing_ok=True)
    nets.save(folder / "final.pt", job.net, **state.checkpoint_details(job, done, identity))


def train_epoch(job: Job, done: Progress, bar: tqdm) -> dict[str, float]:
    """One pass over the training tiles. Returns the last learning rate and what the steps tell (Watch.row)."""
    config, start = job.config, bar.n
    size = config.coarse_size if is_coarse(config, done.epoch) else config.image_size
    generator = seed_epoch(config.seed, done.epoch)
    groups = epoch_groups(len(job.train), config.batch, config.accumulate, generator)
    watched = Watch(done.epoch, job.train.names, job.scaler)
    job.model.train()
    batches = job.feed([indices for group in groups for indices in group])
    for step, group in enumerate(groups, start=1):
        progress = done.epoch + (step - 1) / len(groups)
        rate = config.lr * SCHEDULES[config.schedule](config, progress, done.validation_losses)
        set_rate(job.optimizer, rate)
        watched.note(group, train_step(job, group, batches, generator, size))
        bar.update(start + step / len(groups) - bar.n)
    return {"lr": rate} | watched.row()


def is_coarse(config: Config, epoch: int) -> bool:
    """In such an epoch the net learns another scale than the one it is used at, so a validation would tell nothing."""
    return epoch < config.coarse_epochs


def scores(job: Job) -> Scores:
    return evaluate(job.model, job.framing, job.loss, job.validation, job.config.batch)


def more_scores(job: Job, epoch: int) -> dict[str, float | None]:
    """Columns NAME_SCORE of the further validation sets, None in epochs that leave them out."""
    config = job.config
    left_out = is_coarse(config, epoch) or ((epoch + 1) % config.validate_more_every and epoch + 1 < config.epochs)
    found = {}
    for name, source in job.more.items():
        of_set = None if left_out else evaluate(job.model, job.framing, job.loss, source, config.batch)
        found |= {f"{name}_{score}": of_set and getattr(of_set, score) for score in Scores._fields}
    return found


def set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def named(validation: Scores | None) -> dict[str, float | None]:
    return {f"validation_{name}": validation and getattr(validation, name) for name in Scores._fields}


def timing(started: float, trained: float, count: int) -> dict[str, float]:
    seconds = trained - started
    spent = {"train_seconds": seconds, "validation_seconds": time.perf_counter() - trained}
    return {name: round(value, 3) for name, value in (spent | {"images_per_second": count / seconds}).items()}


def report(job: Job, done: Progress, bar: tqdm, events: Events) -> None:
    """TensorBoard's scalars, the progress bar's figures, and a line an epoch where there is no bar."""
    scores, times = done.history[-1], done.times[-1]
    known = {name: value for name, value in (scores | times).items() if name != "epoch" and value is not None}
    events.scalars(known, scores["epoch"])
    if watch.has_exploded(scores):
        largest, usual = (f"{scores[name]:.3g}" for name in ("largest_gradient_norm", "gradient_norm"))
        bar.write(f"NOTE: a gradient's norm was {largest} in epoch {scores['epoch']}, {usual} mostly", file=stderr)
    told = {"loss": "train_loss", "validation": "validation_loss", "metric": "validation_metric"}
    figures = {name: f"{scores[key]:.4f}" for name, key in told.items() if scores[key] is not None}
    figures["images/s"] = f"{times['images_per_second']:.1f}"
    bar.set_postfix(figures)
    if bar.disable:
        config, epoch = job.config, scores["epoch"]
        shrunk = f" (shrunk to {config.coarse_size} px)" if is_coarse(config, epoch) else ""
        listed = ", ".join(f"{name} {value}" for name, value in figures.items())
        print(f"{config.variant}/fold{config.fold} epoch {epoch}{shrunk}: {listed}", flush=True)


def describe(job: Job) -> str:
    config, parameters = job.config, sum(parameter.numel() for parameter in job.net.parameters())
    return (
        f"{config.net} with {parameters:,} parameters, {len(job.train):,} training and {len(job.validation):,} "
        f"validation tiles, {config.epochs} epochs, {config.device}, {config.precision}, {config.threads} threads"
    )


if __name__ == "__main__":
    command.run(train, PRESETS)
