"""timm's feature extractors as encoders: any net that gives a pyramid of maps for images of any size.

`encoders.build("timm/NAME")` makes them; NAME may carry a tag of weights (`timm/convnext_tiny.fb_in1k`), which changes
the figures of normalisation and where "imagenet" weights come from. Unlike `encoders.Encoder`, which takes a classifier
apart into stages, the net runs as timm built it, and its weights are read by timm.
"""

from types import ModuleType

import torch
from torch import Tensor, nn

from command import BadInput
from nets.enlarged import doubled

STRIDES = (1, 2, 4, 8, 16)  # of the maps, relative to the tile, before it is doubled; some nets lack the first
SIZE = (128, 192)  # pixels, of the image by which a net is probed; unequal, to tell (N, H, W, C) from (N, C, H, W)
SIZES = [(SIZE[0] // (2 * stride), SIZE[1] // (2 * stride)) for stride in STRIDES]  # of its maps


class TimmEncoder(nn.Module):
    """A timm net of `features_only`, giving the maps at `positions` of its list."""

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        # `channels_last` here is a shape, (N, H, W, C), in which some transformers give their maps.
        self.options, positions, self.channels_last = probe(name)
        net = timm().create_model(name, pretrained=False, features_only=True, in_chans=in_channels, **self.options)
        self.net = net
        self.positions = positions
        self.channels = tuple(net.feature_info.channels()[position] for position in positions)
        self.strides = STRIDES[-len(positions) :]
        settings = net.pretrained_cfg
        self.mean, self.std = settings["mean"], settings["std"]

    @property
    def blocks(self) -> list[nn.Module]:
        """None that all of timm's nets have."""
        return []

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.net(doubled(images))
        maps = [maps[position] for position in self.positions]
        return [x.permute(0, 3, 1, 2) for x in maps] if self.channels_last else maps


def timm_encoder(name: str, channels: int) -> TimmEncoder:
    """timm's `name` for images of `channels` channels. Raises BadInput for a name unknown or without such maps."""
    if not timm().is_model(name):
        close = ", ".join(timm().list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
        raise BadInput(f"got encoder 'timm/{name}', which timm {timm().__version__} does not have; perhaps {close}")
    return TimmEncoder(name, channels)


def probe(name: str) -> tuple[dict[str, bool], list[int], bool]:
    """How to create timm's `name` so that it takes any size, which of its maps to use, and if they are (N, H, W, C).

    Runs it without memory or arithmetic (on the meta device) to see the shapes it gives.
    """
    fault = None
    for options in ({}, {"strict_img_size": False}):
        try:
            with torch.device("meta"):
                net = timm().create_model(name, pretrained=False, features_only=True, **options)
                maps = net(torch.zeros(1, 3, *SIZE))
            reductions = net.feature_info.reduction()
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            fault = fault or error
            continue
        positions = [position for position, reduction in enumerate(reductions) if reduction > 1]
        for channels_last, (height, width) in ((False, (-2, -1)), (True, (-3, -2))):
            sizes = [(maps[position].shape[height], maps[position].shape[width]) for position in positions]
            if sizes in (SIZES, SIZES[1:]):
                return options, positions, channels_last
        fault = f"its maps have the strides {reductions}"
    raise BadInput(
        f"got encoder 'timm/{name}', expected a net for any image size with maps at strides 4, 8, 16, 32 and perhaps "
        f"2 ({fault}); resnet34d, efficientnet_b0 and convnext_tiny are some"
    )


def timm() -> ModuleType:
    """The library, imported when it is needed: that takes seconds."""
    import timm

    return timm
