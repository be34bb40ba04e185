"""Weights to start from: of an ImageNet classifier for a net's encoder, or of a whole saved net.

ImageNet weights come from a file the user names (`--weights=FILE`), else from PyTorch's folder of downloads, else from
timm's repositories on the Hugging Face hub, which keep pretrainedmodels' SE weights key for key (its own host is
gone). Nothing is done silently: weights that cannot be had, or do not fit, are an error.
"""

import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from command import BadInput
from nets import encoders
from nets.encoders import Encoder
from nets.smp import SmpNet
from nets.timm_encoders import TimmEncoder, timm

FORMAT = "saltworks net"  # marks a file of nets.save
HUB_FILE = "model.safetensors"
HEADS = ("fc.", "last_linear.", "classifier.", "pre_logits.", "head.")  # of classifiers: no part of an encoder

HUB = {  # repositories below timm/ on the Hugging Face hub
    "senet154": "legacy_senet154.in1k",
    "se_resnet50": "legacy_seresnet50.in1k",
    "se_resnet101": "legacy_seresnet101.in1k",
    "se_resnet152": "legacy_seresnet152.in1k",
    "se_resnext50_32x4d": "legacy_seresnext50_32x4d.in1k",
    "se_resnext101_32x4d": "legacy_seresnext101_32x4d.in1k",
    "resnext101_32x4d": "resnext101_32x4d.gluon_in1k",  # the same net, trained by others; see `translate`
    "resnext101_64x4d": "resnext101_64x4d.gluon_in1k",
    **{name: f"{name}.tv_in1k" for name in (*encoders.RESNET_NAMES, *encoders.VGG_NAMES)},
}


def start(net: nn.Module, weights: str) -> None:
    """Load what `weights` names into `net`: "none", "imagenet" (its encoder), or a file of either kind.

    Raises BadInput if they cannot be had or do not fit.
    """
    if weights == "none":
        return
    encoder = getattr(net, "encoder", None)
    can_load = isinstance(encoder, Encoder | TimmEncoder)
    if weights == "imagenet" and isinstance(net, SmpNet):
        net.fetch_imagenet()
        return
    if weights == "imagenet" and not can_load:
        raise BadInput(f"got --weights=imagenet, but {type(net).__name__} has no ImageNet weights: use --weights=none")
    path = imagenet_file(encoder.name) if weights == "imagenet" else Path(weights)
    content = read(path)
    if content.get("format") == FORMAT:
        load_state(net, content.get("state"), path)
    elif can_load:
        load_encoder(encoder, content, path)
    else:
        raise BadInput(f"{path} is not a net saved by this project, which is what {type(net).__name__} starts from")


def load_state(net: nn.Module, state: Mapping[str, Tensor], path: Path, assign: bool = False) -> None:
    """Strictly: every key must be there, fit, and be known. `assign` takes the tensors themselves, without a copy."""
    try:
        net.load_state_dict(state, assign=assign)
    except (RuntimeError, TypeError, AttributeError) as error:  # the last two: not tensors by name at all
        reason = " ".join(str(error).split())
        raise BadInput(f"{path} does not fit {described(net)}: {shortened(reason)}") from None


def described(net: nn.Module) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in getattr(net, "arguments", {}).items())
    name = getattr(net, "name", type(net).__name__)
    return f"{name}({arguments})" if arguments else name


def shortened(text: str, length: int = 240) -> str:
    return text if len(text) <= length else text[:length] + " ..."


# Files.


def read(path: Path | str) -> dict[str, Any]:
    """The dict of tensors, numbers, strings and containers in a .safetensors file or one of torch.save, on the CPU.

    Raises BadInput for a missing or damaged file, and for one with anything else inside: unpickling that could run
    code, so it is refused before it is looked at.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} is not there: give the path of an existing file")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    refuse_damage(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of protocols of pickles
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds {foreign[1]}, which could run code" if foreign else "it is damaged or no file of weights"
        raise BadInput(
            f"{path} is not opened: {reason}; use a file that this project or `torch.save` of weights wrote"
        ) from None
    except Exception as error:  # a file can be anything, and so can what PyTorch's reader stumbles over
        raise BadInput(f"{path} cannot be read, it is damaged or no file of weights ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} holds a {type(content).__name__}, expected a dict of weights by name")
    return content


def refuse_damage(path: Path) -> None:
    """Raise BadInput if a file of torch.save differs from its own checksums, which torch.load does not look at."""
    if not zipfile.is_zipfile(path):
        return  # PyTorch's form before 1.6, which has none
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error) as error:
        damaged = str(error)
    if damaged:
        raise BadInput(
            f"{path} is damaged ({damaged}): its checksums do not hold, so restore it, or remove it and give "
            "the command again that wrote it (`make train` goes on from latest.pt)"
        )


def read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadInput(f"{path} cannot be read, it is damaged or no safetensors file ({error})") from None


def imagenet_file(name: str) -> Path:
    """The file of ImageNet weights for the encoder called `name`: in PyTorch's folder of downloads, or from the hub."""
    repository = hub_repository(name)
    folder, stem = Path(torch.hub.get_dir()) / "checkpoints", name.replace("/", "-")
    # The second form is how torchvision and pretrainedmodels name their downloads: senet154-c7b49a05.pth.
    found = [path for form in (".safetensors", ".pth", "-????????.pth") for path in sorted(folder.glob(stem + form))]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BadInput(f"{folder} has several files of weights for {name} ({names}): choose with --weights=FILE")
    if found:
        return found[0]
    try:
        return fetch(repository)
    except OSError as error:
        raise BadInput(
            f"the ImageNet weights of {name} could not be fetched from the Hugging Face hub ({error}): "
            f"get {HUB_FILE} of {repository} on another machine and put it at {folder / stem}.safetensors, "
            "or give its path as --weights=FILE, or train from scratch with --weights=none"
        ) from error


def hub_repository(name: str) -> str:
    """Where the hub keeps the ImageNet weights of an encoder."""
    if name in HUB:
        return f"timm/{HUB[name]}"
    settings = timm().models.get_pretrained_cfg(name.removeprefix("timm/"))
    if settings is None or not settings.hf_hub_id or settings.hf_hub_filename:
        raise BadInput(f"timm's repositories have no ImageNet weights for {name}: use --weights=none or --weights=FILE")
    return settings.hf_hub_id


def fetch(repository: str) -> Path:
    """Download the weights of a hub repository, or find them in the hub's cache. Raises OSError if that fails."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, HUB_FILE))
    except Exception as error:  # the library lets its transport's errors through, which are no OSErrors: ProxyError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(shortened(reason, 120)) from error


# Into encoders.


def load_encoder(encoder: Encoder | TimmEncoder, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load a classifier's weights, under its library's keys, into the encoder made from it.

    Its head is left out. Raises BadInput, naming `path`, unless all others are there and fit. Layers that the
    classifier does not have (VGG's dilated ones) keep their initial values.
    """
    weights = weights.get("state_dict", weights)
    if not isinstance(weights, dict) or not weights or not all(isinstance(x, Tensor) for x in weights.values()):
        raise BadInput(f"{path} holds no weights by name, which {encoder.name} expects")
    if isinstance(encoder, TimmEncoder):
        load_timm(encoder, weights, path)
        return
    found = {encoder.source_keys.get(key, key): tensor for key, tensor in translate(encoder, weights).items()}
    own = encoder.state_dict()
    expected = set(encoder.source_keys.values())
    missing = sorted(key for key in expected - set(found) if not key.endswith("num_batches_tracked"))
    unknown = sorted(key for key in set(found) - expected if not key.startswith(HEADS))
    if missing or unknown:
        raise BadInput(
            f"{path} does not hold the weights of {encoder.name}: {len(missing)} of {len(expected)} are missing and "
            f"{len(unknown)} are of another net{', such as ' + unknown[0] if unknown else ''}"
        )
    first = next(iter(own))
    found[first] = adapt(found[first], own[first].shape[1])
    load_state(encoder, {**own, **{key: found[key] for key in expected if key in found}}, path)


def adapt(weight: Tensor, channels: int) -> Tensor:
    """A first convolution for `channels` channels from one for three, keeping the size of its outputs.

    For one channel the sum over R, G and B, so that a grey image gives what three equal channels gave; for more, R, G
    and B in turn, scaled by 3 / channels.
    """
    if channels == weight.shape[1]:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    turns = [channel % weight.shape[1] for channel in range(channels)]
    return weight[:, turns] * (weight.shape[1] / channels)


def translate(encoder: Encoder, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """timm's names of ResNeXt weights into pretrainedmodels', which have the same layers in the same order."""
    if encoder.name not in encoders.RESNEXT_NAMES or "layer1.0.conv1.weight" not in weights:
        return weights
    with torch.device("meta"):
        layers = timm().create_model(encoder.name, pretrained=False).state_dict()
    theirs = [key for key in layers if not key.startswith(HEADS)]
    names = dict(zip(theirs, encoder.source_keys, strict=True))
    return {names.get(key, key): tensor for key, tensor in weights.items()}


def load_timm(encoder: TimmEncoder, weights: Mapping[str, Tensor], path: Path) -> None:
    """By timm's own reader, which knows its nets' older formats and adapts the first convolution."""
    create = partial(
        timm().create_model,
        encoder.name.removeprefix("timm/"),
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": dict(weights)},
        **encoder.options,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            create()  # the whole classifier, because timm is not strict about the keys of a features_only net
            net = create(features_only=True, in_chans=encoder.in_channels)
    except (RuntimeError, KeyError) as error:
        reason = shortened(" ".join(str(error).split()))
        raise BadInput(f"{path} does not hold the weights of {encoder.name}: {reason}") from None
    encoder.net.load_state_dict(net.state_dict())
