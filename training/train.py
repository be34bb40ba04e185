"""Train one model: one fold in one framing.

    python -m training.train saltnet --fold=0 --variant=pad --data=datasets/tgs --run=saltnet

Killed and started again with the same command, it goes on from the last finished epoch and ends with the same weights.
Writes runs/RUN/VARIANT/foldK/{config.json, metrics.csv, times.csv, events/, latest.pt, best-*.pt, final.pt}.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from tensorboardX import SummaryWriter
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

import command
import nets
import runfolder
from command import BadInput
from losses import metric
from training import setup, state
from training.config import PRESETS, Config, resolve
from training.evaluate import Scores, evaluate
from training.feed import Batch
from training.schedules import SCHEDULES
from training.setup import Job
from training.state import Progress


def train(config: Config) -> None:
    """Train the model that `config` names, or what is left of it."""
    folder = runfolder.model_folder(config.run, config.variant, config.fold)
    identity = {"folds": runfolder.checksum(runfolder.folds_file(config.run))}
    state.refuse_other(folder, config, identity)
    if (folder / "final.pt").exists():
        if state.stored_config(folder)["epochs"] >= config.epochs:
            print(f"{folder}/final.pt is trained already: nothing to do")
            return
        if not (folder / "latest.pt").exists():
            raise BadInput(
                f"{folder}/latest.pt is gone, so training cannot go on: give another RUN and --start=final.pt"
            )
    job = setup.prepare(adopt(folder, resolve(config)))
    with runfolder.lock(folder):
        state.refuse_other(folder, job.config, identity)  # again: nobody can come between any more
        (folder / "final.pt").unlink(missing_ok=True)  # of fewer epochs; latest.pt has its weights
        runfolder.write_json(folder / "config.json", asdict(job.config) | identity | runfolder.provenance())
        print(f"{folder}: {describe(job)}", flush=True)
        run_epochs(job, folder, identity)


def adopt(folder: Path, config: Config) -> Config:
    """An interrupted model goes on with the threads and precision that it began with."""
    stored = state.stored_config(folder)
    kept = {name: stored[name] for name in ("threads", "precision")} if stored else {}
    return Config(**asdict(config) | kept)


def run_epochs(job: Job, folder: Path, identity: dict[str, str]) -> None:
    """Train until the last epoch is done and final.pt is there."""
    epochs = job.config.epochs
    done = Progress()
    if not (folder / "latest.pt").exists():
        setup.set_normalisation(job)
    else:
        done = state.resume(job, folder / "latest.pt", identity)
        print(f"going on at epoch {done.epoch} of 0 .. {epochs - 1}", flush=True)
    bar = tqdm(total=epochs, initial=done.epoch, unit="epoch", disable=None)
    with bar, SummaryWriter(str(folder / "events"), purge_step=done.epoch) as events:
        while done.epoch < epochs:
            started = time.perf_counter()
            rate, training = train_epoch(job, done, bar)
            trained = time.perf_counter()
            validation = None if is_coarse(job.config, done.epoch) else scores(job)
            more = more_scores(job, done.epoch)
            done.times.append({"epoch": done.epoch} | timing(started, trained, len(job.train)))
            done.history.append(row(done.epoch, rate, training, validation) | more)
            refuse_nan(done.history[-1])
            report(job, done, bar, events)  # flushed before latest.pt says that the epoch is done
            state.save_epoch(job, done, folder, identity)
    nets.save(folder / "final.pt", job.net, **state.checkpoint_details(job, done, identity))


def train_epoch(job: Job, done: Progress, bar: tqdm) -> tuple[float, Tensor]:
    """One pass over the training tiles. Returns the last learning rate and the means of (loss, metric) as a tensor.

    Nothing in it waits for the device: sums stay there until the epoch is over.
    """
    config, start = job.config, bar.n
    size = config.coarse_size if is_coarse(config, done.epoch) else config.image_size
    generator = seed_epoch(config.seed, done.epoch)
    groups = epoch_groups(len(job.train), config.batch, config.accumulate, generator)
    total = torch.zeros(2, device=job.fabric.device)
    job.model.train()
    batches = job.feed([indices for group in groups for indices in group])
    for step, group in enumerate(groups, start=1):
        progress = done.epoch + (step - 1) / len(groups)
        rate = config.lr * SCHEDULES[config.schedule](config, progress, done.validation_losses)
        set_rate(job.optimizer, rate)
        total += train_step(job, group, batches, generator, size)
        bar.update(start + step / len(groups) - bar.n)
    return rate, total / len(groups)


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


def train_step(
    job: Job, group: Sequence[Tensor], batches: Iterator[Batch], generator: torch.Generator, image_size: int
) -> Tensor:
    """One optimiser step over a group of batches, shown to the net at `image_size` pixels.

    `group` are the indices of each batch, `batches` hands them over (Job.feed). Returns the means of (loss, metric) on
    the device.
    """
    size = sum(len(indices) for indices in group)
    total = torch.zeros(2, device=job.fabric.device)
    for part, _ in enumerate(group, start=1):
        images, masks = job.augment(*next(batches), generator)
        with job.fabric.no_backward_sync(job.model, enabled=part < len(group)):
            try:
                output = forward(job, images, image_size)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                remedy = "give a larger --batch, or more images"
                raise BadInput(f"a batch of {len(images)} cannot be normalised by this net: {remedy}") from error
            loss = job.loss(output.map(job.framing.loss_view), job.framing.loss_mask(masks))
            job.fabric.backward(loss * (len(images) / size))
        total += torch.stack([loss.detach(), batch_metric(job, output, masks)]) * (len(images) / size)
    job.optimizer.step()
    job.optimizer.zero_grad()
    return total


def forward(job: Job, images: Tensor, image_size: int) -> nets.Output:
    """What the net says of tiles (N, C, H, W), always at the framing's size; it sees them at `image_size` pixels."""
    framed = job.framing.frame(images)
    full = framed.shape[-2:]
    if image_size == full[0]:
        return job.model(framed.contiguous(memory_format=torch.channels_last))
    shrunk = F.interpolate(framed, (image_size, image_size), mode="bilinear", antialias=True)
    output = job.model(shrunk.contiguous(memory_format=torch.channels_last))
    return output.map(lambda logits: F.interpolate(logits, full, mode="bilinear"))


@torch.no_grad()
def batch_metric(job: Job, output: nets.Output, masks: Tensor) -> Tensor:
    """Kaggle's metric of a training batch at threshold 0.5, at the tiles' size, as a tensor on the device."""
    logits = job.framing.unframe(output.logits.detach())
    scores = metric.over_labels(metric.tenths, metric.decide(logits, 0.0), masks, logits.shape[1])
    return scores.float().mean() / 10


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """All randomness of an epoch follows from (seed, epoch): dropout's from torch's, the rest from this generator."""
    number = seed * 1_000_003 + epoch
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


def epoch_groups(count: int, batch: int, accumulate: int, generator: torch.Generator) -> list[tuple[Tensor, ...]]:
    """Shuffled indices as groups of `accumulate` batches, one optimiser step each.

    Tiles that fill no group sit this epoch out; a data set smaller than one group is one group.
    """
    group = min(batch * accumulate, count)
    order = torch.randperm(count, generator=generator)[: count // group * group]
    groups = [part.split(batch) for part in order.split(group)]
    if batch == 1 or group % batch != 1 or group == 1:
        return groups
    return [parts[:-1] for parts in groups]  # a last batch of one cannot be normalised by itself


def set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def row(epoch: int, rate: float, training: Tensor, validation: Scores | None) -> dict[str, float | None]:
    loss, score = training.tolist()
    head = {"epoch": epoch, "lr": rate, "train_loss": loss, "train_metric": score}
    return head | {f"validation_{name}": validation and getattr(validation, name) for name in Scores._fields}


def timing(started: float, trained: float, count: int) -> dict[str, float]:
    seconds = trained - started
    spent = {"train_seconds": seconds, "validation_seconds": time.perf_counter() - trained}
    return {name: round(value, 3) for name, value in (spent | {"images_per_second": count / seconds}).items()}


def refuse_nan(scores: dict[str, float | None]) -> None:
    if not all(math.isfinite(scores[name]) for name in ("train_loss", "validation_loss") if scores[name] is not None):
        remedy = "try a lower --lr or --precision=float32; latest.pt holds the epoch before"
        raise BadInput(f"the loss of epoch {scores['epoch']} is not finite: {remedy}")


def report(job: Job, done: Progress, bar: tqdm, events: SummaryWriter) -> None:
    """TensorBoard's scalars, the progress bar's figures, and a line an epoch where there is no bar."""
    scores, times = done.history[-1], done.times[-1]
    for name, value in (scores | times).items():
        if name != "epoch" and value is not None:
            events.add_scalar(name.replace("_", "/", 1), value, scores["epoch"])
    events.flush()
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
