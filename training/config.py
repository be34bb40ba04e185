"""What a training run is: every option with its default, and the named presets."""

import re
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch

import losses
from command import BadInput, at_least, choose
from datasets import labels
from datasets.augment import AUGMENTATIONS
from datasets.framing import VARIANTS
from datasets.labels import Labels
from losses.regions import OVER
from nets import NETS
from nets.device import DEVICES, PRECISIONS, choose_device, num_cores, resolve_precision
from training.muon import Muon
from training.schedules import SCHEDULES

OPTIMIZERS = {
    "adamw": partial(torch.optim.AdamW, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rmsprop": torch.optim.RMSprop,
    "muon": Muon,
    "sgd": partial(torch.optim.SGD, fused=True),
}
WITH_MOMENTUM = ("sgd", "rmsprop")  # the optimisers that take --momentum
LONGER = ("constant", "noam", "plateau", "milestones")  # schedules that do not depend on how many epochs there will be
SCORES = ("loss", "metric", "accuracy", "iou", "dice", "micro_iou", "miou")  # of validation, see training/evaluate.py
NORMALISE = ("imagenet", "data")
NET_OPTIONS = {  # the fields below that go to each net
    "saltnet": ("encoder",),
    "fastnet": ("width",),
    "unet": ("norm",),
    "residual-unet": ("width", "norm"),
    "smp": ("decoder", "encoder"),
}
SIDES = {"saltnet": 32, "fastnet": 2, "unet": 1, "residual-unet": 1, "smp": 32}  # the framed side is a multiple of this


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train one model: one framing variant, one fold. The defaults are the 9th place's recipe (preset `saltnet`)."""

    # which model
    data: str = "datasets/tgs"  # a folder in Kaggle's layout, or in one of datasets/files.py
    labels: str = ""  # values of masks that are classes, as in "1 2 5" or 1..5; empty = whatever is above 0 is the one
    other_labels: bool = False  # whether mask values that --labels leaves out are background; else they are an error
    extra: str = ""  # folders of further channels beside images, as in "nir ndvi"
    run: str = "saltnet"  # folder under runs/
    variant: str = "pad"  # pad or resize, see datasets/framing.py
    fold: int = 0  # the fold of folds.csv that validates

    # net
    net: str = "saltnet"  # saltnet, fastnet, unet, residual-unet or smp, see nets/
    encoder: str = "senet154"  # saltnet's (nets/encoders.py) or smp's
    decoder: str = "unet"  # smp's: unet, unetplusplus, deeplabv3plus, fpn, ..., see nets/smp.py
    width: int = 64  # fastnet's and residual-unet's, channels of the first stage
    norm: bool = True  # False leaves batch norm out of unet and residual-unet
    weights: str = "imagenet"  # of the encoder: none, imagenet, or a file
    start: str = ""  # a checkpoint whose weights to start from (its optimiser is not taken along)
    image_size: int = 128  # pixels of the framed tile's side, a multiple of what the net asks for
    normalise: str = "imagenet"  # images by the mean and spread of imagenet or of the training data

    # recipe
    epochs: int = 250  # passes over the training tiles
    coarse_epochs: int = 0  # the first epochs, on framed images shrunk to coarse_size: cheap, and not validated
    coarse_size: int = 64  # pixels, a multiple of what the net asks for
    batch: int = 32  # tiles that pass through the net at once
    accumulate: int = 1  # batches per optimiser step
    loss: str = "saltnet"  # saltnet (deeply supervised), or a sum such as lovasz+0.5ce, see losses/__init__.py
    loss_over: str = "batch"  # what losses of regions sum over: the batch, or each image
    augmentation: str = "saltnet"  # saltnet, seismic; none, safe, light, medium, hard: see datasets/augment.py
    cutout: bool = True  # False leaves cutout out of the augmentation
    optimizer: str = "adamw"  # adamw, adam, nadam, radam, adamax, adagrad, adadelta, rmsprop, muon or sgd
    momentum: float = 0.9  # of sgd and rmsprop
    nesterov: bool = False  # of sgd
    lr: float = 5e-4  # peak learning rate
    weight_decay: float = 1e-4  # decoupled for adamw; of every parameter
    schedule: str = "noam"  # noam, constant, plateau, step, milestones, cosine, clr or onecycle
    cycles: int = 1  # restarts of the schedule clr, each with its own set of checkpoints
    milestones: str = "100 200"  # epochs at which `milestones` divides the rate by ten
    patience: int = 15  # epochs without a better validation loss before `plateau` divides the rate by ten
    drop_mask_threshold: int = 0  # leave out training tiles with 1..N salt pixels
    limit_tiles: int = 0  # train and validate on the first N tiles of each side of the fold; 0 = all

    # validation
    best: str = "loss metric accuracy"  # scores whose best epochs are kept, of these and iou, dice, micro_iou, miou
    more_validation: str = ""  # folders of further labelled images, scored as well, none of them decides; as in "a b"
    validate_more_every: int = 1  # epochs

    # machine
    device: str = "auto"  # auto, cpu, cuda or mps
    workers: int = -1  # processes that read files; -1 = the machine's cores; tiles in memory need none
    precision: str = "auto"  # bf16, fp16, float32; auto = bf16 where the device computes in it
    threads: int = 0  # CPU threads, part of the result's identity; 0 = the machine's cores
    seed: int = 0  # of the weights, the order of tiles, augmentation and dropout
    fit_batch: bool = False  # a smaller batch if memory needs it, and as many more accumulated
    deterministic: bool = False  # the same bits at every run on a GPU too, slower; a CPU needs no switch
    compile: bool = False  # by torch.compile: minutes before the first step; a CPU needs a C++ compiler
    recompute: bool = False  # activations in the backward pass instead of keeping them: less memory, a third slower

    def __post_init__(self) -> None:
        choose("variant", self.variant, VARIANTS)
        choose("net", self.net, NETS)
        choose("normalise", self.normalise, NORMALISE)
        labels.parse(self.labels)
        losses.parse(self.loss)
        for name in self.best.split():
            choose("best", name, SCORES)
        if not self.best.split():
            raise BadInput(f"--best is empty: name one or more of {', '.join(SCORES)}")
        names = [name_of(folder) for folder in self.more_validation.split()]
        if len(set(names)) < len(names):
            raise BadInput(f"--more_validation={self.more_validation} has folders of one name: give each its own")
        if taken := {"train", "validation", "lr", "epoch"} & set(names):
            raise BadInput(f"--more_validation: {min(taken)!r} is the name of other scores: rename that folder")
        if self.start and self.normalise == "data":
            raise BadInput("--start brings its own normalisation: add --normalise=imagenet, which leaves it as it is")
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum > 0):
            raise BadInput("--nesterov goes with --optimizer=sgd and a --momentum above 0")
        if not 0 <= self.momentum < 1:
            raise BadInput(f"--momentum={self.momentum} is not from 0 to below 1: 0.9 is usual")
        choose("loss_over", self.loss_over, OVER)
        choose("augmentation", self.augmentation, AUGMENTATIONS)
        choose("optimizer", self.optimizer, OPTIMIZERS)
        choose("schedule", self.schedule, SCHEDULES)
        choose("precision", self.precision, ("auto", *PRECISIONS))
        choose("device", self.device, DEVICES)
        for name in ("epochs", "batch", "accumulate", "cycles", "patience", "validate_more_every"):
            at_least(name, getattr(self, name), 1)
        at_least("width", self.width, 8)
        at_least("workers", self.workers, -1)
        for name in ("fold", "coarse_epochs", "drop_mask_threshold", "limit_tiles", "threads", "seed", "weight_decay"):
            at_least(name, getattr(self, name), 0)
        if not 0 < self.lr < float("inf"):
            raise BadInput(f"--lr={self.lr} is not a number above 0: 5e-4 is the recipe's")
        if self.seed >= 2**32:
            raise BadInput(f"--seed={self.seed} is too large: give one below {2**32}")
        if self.coarse_epochs >= self.epochs:
            raise BadInput(
                f"--coarse_epochs={self.coarse_epochs} leaves none of {self.epochs} at full size: give less of it"
            )
        if self.schedule == "clr" and self.epochs % self.cycles:
            raise BadInput(f"--epochs={self.epochs} is no multiple of --cycles={self.cycles}: cycles are equally long")
        for name in ("image_size", "coarse_size"):
            if getattr(self, name) < 32 or getattr(self, name) % SIDES[self.net]:
                remedy = f"{self.net} takes multiples of {SIDES[self.net]} from 32 on, and 128 suits 101 px tiles"
                raise BadInput(f"--{name}={getattr(self, name)} does not suit the net: {remedy}")
        if self.compile and self.recompute:
            raise BadInput("--compile and --recompute exclude each other: leave one of them out")
        if not all(word.isdigit() for word in self.milestones.split()):
            raise BadInput(f"--milestones={self.milestones!r} is not a list of epochs: write for example '100 200'")

    @property
    def optimizer_arguments(self) -> dict[str, object]:
        found = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer in WITH_MOMENTUM:
            found["momentum"] = self.momentum
        return found | ({"nesterov": True} if self.nesterov else {})

    @property
    def chosen_labels(self) -> Labels:
        return labels.parse(self.labels, self.other_labels)

    @property
    def net_arguments(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in NET_OPTIONS[self.net]}


# fast: the best that half an hour a fold gives on two cores; hour: an hour. demo: a fold in less than a minute.
FAST = {
    "net": "fastnet",
    "width": 48,
    "image_size": 104,
    "weights": "none",
    "epochs": 20,
    "coarse_epochs": 12,
    "batch": 16,
    "loss": "lovasz+0.5ce",
    "augmentation": "seismic",
    "optimizer": "muon",
    "lr": 2e-3,
    "weight_decay": 1e-2,
    "schedule": "onecycle",
}
HOUR = {"epochs": 38, "coarse_epochs": 22}
DEMO = {
    "width": 16,
    "epochs": 15,
    "coarse_epochs": 10,
    "batch": 8,
    "lr": 3e-3,
    "threads": 1,  # nets this small gain nothing from a second one; `make demo` trains several models at once
}
# Of any images: carvana for photographs with one object, tiles for land with labels; their demo sizes train from
# scratch in minutes. unet and residual-unet are small nets to compare losses and other choices by.
CARVANA = {
    "net": "smp",
    "decoder": "unet",
    "encoder": "resnet34",
    "variant": "resize",
    "image_size": 1024,
    "epochs": 7,
    "batch": 4,
    "accumulate": 4,
    "loss": "jaccard+ce",
    "augmentation": "medium",
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "best": "loss dice",
}
CARVANA_DEMO = {"image_size": 128, "encoder": "resnet18", "weights": "none", "epochs": 5, "batch": 8, "accumulate": 1}
TILES = CARVANA | {
    "decoder": "deeplabv3plus",
    "encoder": "efficientnet-b0",
    "image_size": 512,
    "epochs": 50,
    "batch": 6,
    "accumulate": 1,
    "loss": "dice+ce",
    "augmentation": "hard",
    "normalise": "data",
    "best": "loss miou",
}
# EfficientNet's batch norms follow their batches by a hundredth: too slow for a few hundred steps from scratch.
TILES_DEMO = {
    "encoder": "resnet18",
    "image_size": 128,
    "weights": "none",
    "epochs": 12,
    "batch": 8,
    "augmentation": "light",
}
UNET = {
    "net": "unet",
    "weights": "none",
    "variant": "resize",
    "epochs": 30,
    "batch": 16,
    "loss": "combo",
    "augmentation": "seismic",
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "schedule": "plateau",
    "patience": 3,
}
RESIDUAL_UNET = UNET | {"net": "residual-unet", "width": 16, "variant": "pad", "image_size": 101}  # the tile's own size
PRESETS = {
    "saltnet": Config,
    "fast": partial(Config, **FAST),
    "hour": partial(Config, **FAST | HOUR),
    "demo": partial(Config, **FAST | DEMO),
    "unet": partial(Config, **UNET),
    "residual-unet": partial(Config, **RESIDUAL_UNET),
    "carvana": partial(Config, **CARVANA),
    "carvana-demo": partial(Config, **CARVANA | CARVANA_DEMO),
    "tiles": partial(Config, **TILES),
    "tiles-demo": partial(Config, **TILES | TILES_DEMO),
}


def name_of(folder: str) -> str:
    """What a further validation set is called in metrics.csv: its folder's name, or the one above for train or val."""
    parts = [part for part in Path(folder).parts if part not in ("train", "val", "validation")]
    return re.sub(r"\W+", "_", parts[-1]) if parts else folder


def resolve(config: Config) -> Config:
    """`config` with its `auto` fields as this machine decides them: they are part of the result's identity."""
    device = choose_device(config.device)
    precision = resolve_precision(config.precision, device)
    return replace(config, device=device, precision=precision, threads=config.threads or num_cores())


# Where things are and how they fit there, not what they are.
WHERE = {"data", "run", "device", "recompute", "workers", "fit_batch"}


AUTO = {"threads": 0, "precision": "auto"}  # what agrees with anything


def differences(asked: Config, stored: dict[str, object]) -> list[str]:
    """Fields in which a stored model is not what is asked for. One that it does not tell of yet had its default.

    More epochs are no difference where the schedule does not depend on their number: training goes on. With
    --fit_batch, a step of the same size is none.
    """
    found, step = [], stored.get("batch", Config.batch) * stored.get("accumulate", Config.accumulate)
    for field in fields(Config):
        want, has = getattr(asked, field.name), stored.get(field.name, field.default)
        if field.name in ("batch", "accumulate") and asked.fit_batch and asked.batch * asked.accumulate == step:
            continue
        if field.name == "epochs" and asked.schedule in LONGER and want > has:
            continue
        if field.name not in WHERE and want != has and want != AUTO.get(field.name, has):
            found.append(f"{field.name}: {has!r}, asked {want!r}")
    return found
