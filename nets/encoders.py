"""Encoders: ImageNet classifiers without their head, behind one contract.

An `Encoder` takes normalised images (N, channels, H, W) and returns its feature maps, finest first. `channels` and
`strides` describe the maps; strides are relative to the tile (the images given), because most encoders first enlarge
it to twice its size:

    SE family, ResNet, ResNeXt   enlarged, stem with pooling   strides 2, 2, 4, 8, 16
    VGG                          tile as it is                 strides 1, 2, 4, 8, 16
    timm/NAME                    enlarged                      strides 1, 2, 4, 8, 16, or 2, 4, 8, 16

`timm/NAME` is any of timm's feature extractors (`nets.timm_encoders`), the others are made here.
The libraries are imported when an encoder of theirs is built: that takes seconds. No builder here reads weights or
touches the network; `nets.weights` does that.
"""

import copy
import difflib
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from command import BadInput
from nets.blocks import ABN
from nets.enlarged import doubled
from nets.grouped import GroupedConv2d
from nets.images import IMAGENET_MEAN, IMAGENET_STD
from nets.timm_encoders import TimmEncoder, timm_encoder

STEM_STRIDES = (2, 2, 4, 8, 16)
FULL_STRIDES = (1, 2, 4, 8, 16)


class Encoder(nn.Module):
    """Stages run in turn, the output of each being one feature map.

    `source_keys` maps the state-dict keys of the library's classifier `source` to the keys here, for ImageNet weights.
    """

    def __init__(self, stages: Iterable[nn.Module], source: nn.Module, channels: tuple[int, ...], double: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.double = double
        self.strides = STEM_STRIDES if double else FULL_STRIDES
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        own = {id(tensor): key for key, tensor in self.state_dict(keep_vars=True).items()}
        theirs = source.state_dict(keep_vars=True)
        self.source_keys = {key: own[id(tensor)] for key, tensor in theirs.items() if id(tensor) in own}

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks, or VGG's stages: parts that leave their input as it is."""
        return [block for stage in self.stages[1:] for block in stage] if self.double else list(self.stages[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        x = doubled(images) if self.double else images
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def build(name: str, channels: int = 3) -> Encoder | TimmEncoder:
    """The encoder called `name` for images of `channels` channels, freshly initialised.

    Where channels is not 3, the first convolution is a new one of the same kind. Sets `name` on the encoder.
    Raises BadInput for unknown names and for timm's nets without a pyramid of maps.
    """
    if name.startswith("timm/"):
        encoder = timm_encoder(name.removeprefix("timm/"), channels)
    elif name in ENCODERS:
        encoder = ENCODERS[name](channels)
    else:
        close = difflib.get_close_matches(name, ENCODERS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise BadInput(f"got encoder {name!r}: {hint}The encoders are {', '.join(ENCODERS)} and timm/NAME")
    encoder.name = name
    return encoder


# The SE family: ABN in place of norm and ReLU in the stem and behind the first two convolutions of each block.


def squeeze_excite(name: str, channels: int) -> Encoder:
    source = getattr(pretrainedmodels(), name)(num_classes=1000, pretrained=None)
    stem = source.layer0
    stem.conv1 = first_convolution(stem.conv1, channels)
    for number in (1, 2, 3) if hasattr(stem, "conv3") else (1,):
        setattr(stem, f"bn{number}", ABN(getattr(stem, f"bn{number}").num_features))
        setattr(stem, f"relu{number}", nn.Identity())
    layers = (source.layer1, source.layer2, source.layer3, source.layer4)
    for layer in layers:
        for position, block in enumerate(layer):
            layer[position] = SqueezeExciteBlock(block)
    stem_channels = layers[0][0].conv1.in_channels
    return Encoder((stem, *layers), source, (stem_channels, 256, 512, 1024, 2048), double=True)


class SqueezeExciteBlock(nn.Module):
    """A bottleneck of pretrainedmodels' SE family with ABN as its first two norms.

    Holds that block's own modules under their names, so that its weights keep their keys. The third norm and the
    shortcut's have no activation; the ReLUs of the squeeze-excite gate and behind the sum stay.
    Hu, Shen & Sun 2018, https://arxiv.org/abs/1709.01507
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = block.conv1, ABN(block.bn1.num_features)
        self.conv2, self.bn2 = grouped(block.conv2), ABN(block.bn2.num_features)
        self.conv3, self.bn3 = block.conv3, block.bn3
        self.se_module = block.se_module
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x))
        x = self.bn3(self.conv3(x))
        return F.relu(self.se_module(x) + shortcut, inplace=True)


# Plain batch norm and ReLU: ResNet, ResNeXt, VGG.


def resnet(name: str, channels: int) -> Encoder:
    source = getattr(torchvision_models(), name)(weights=None)
    source.conv1 = first_convolution(source.conv1, channels)
    stem = nn.Sequential(source.conv1, source.bn1, source.relu, source.maxpool)
    wide = source.fc.in_features // 512  # 1 with basic blocks, 4 with bottlenecks
    widths = (64, 64 * wide, 128 * wide, 256 * wide, 512 * wide)
    return Encoder((stem, source.layer1, source.layer2, source.layer3, source.layer4), source, widths, double=True)


def resnext(name: str, channels: int) -> Encoder:
    source = getattr(pretrainedmodels(), name)(num_classes=1000, pretrained=None)
    # The library makes these modules once, at its import: without a copy all builds of a process would share weights,
    # and without a fresh start all would begin alike, whatever the seed.
    source.features = copy.deepcopy(source.features).to_empty(device=torch.get_default_device())
    restart(source.features)
    features = source.features
    merge_groups(features)
    features[0] = first_convolution(features[0], channels)
    return Encoder((features[:4], *features[4:]), source, (64, 256, 512, 1024, 2048), double=True)


def vgg(name: str, channels: int) -> Encoder:
    """Split before each pooling; the fifth stage ends in dilated convolutions instead of fully connected layers."""
    source = getattr(torchvision_models(), name)(weights=None)
    layers = list(source.features)
    layers[0] = source.features[0] = first_convolution(layers[0], channels)
    poolings = [position for position, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    starts = (0, *poolings[:-1])
    stages = [nn.Sequential(*layers[start:end]) for start, end in zip(starts, poolings, strict=True)]
    norm = nn.BatchNorm2d if name.endswith("_bn") else nn.Identity
    stages[-1] = nn.Sequential(
        *stages[-1],
        nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
        *(nn.Conv2d(512, 1024, kernel_size=3, padding=6, dilation=6), norm(1024), nn.ReLU()),
        *(nn.Conv2d(1024, 1024, kernel_size=1), norm(1024), nn.ReLU()),
    )
    return Encoder(stages, source, (64, 128, 256, 512, 1024), double=False)


def first_convolution(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """`conv` itself for as many channels as it has, else a new one like it."""
    if channels == conv.in_channels:
        return conv
    bias = conv.bias is not None
    return nn.Conv2d(channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=bias)


def grouped(conv: nn.Conv2d) -> nn.Conv2d:
    """`conv` itself, or in the form that knows what to do on CPUs with matrix units, with its parameters."""
    return conv if conv.groups == 1 else GroupedConv2d.like(conv)


def merge_groups(module: nn.Module) -> None:
    """`grouped` for all convolutions below `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, grouped(child))
        else:
            merge_groups(child)


def restart(module: nn.Module) -> None:
    """Initialise all layers below `module` anew, the way PyTorch does."""
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()


# The libraries. Importing them draws random numbers and makes modules, which must depend on neither seed nor device.


def pretrainedmodels() -> ModuleType:
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        import pretrainedmodels
    return pretrainedmodels


def torchvision_models() -> ModuleType:
    from torchvision import models

    return models


SE_NAMES = ("senet154", "se_resnet50", "se_resnet101", "se_resnet152", "se_resnext50_32x4d", "se_resnext101_32x4d")
RESNET_NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
RESNEXT_NAMES = ("resnext101_32x4d", "resnext101_64x4d")
VGG_NAMES = ("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")

ENCODERS: dict[str, Callable[[int], Encoder]] = {
    **{name: partial(squeeze_excite, name) for name in SE_NAMES},
    **{name: partial(resnet, name) for name in RESNET_NAMES},
    **{name: partial(resnext, name) for name in RESNEXT_NAMES},
    **{name: partial(vgg, name) for name in VGG_NAMES},
}
