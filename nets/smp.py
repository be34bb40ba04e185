"""Every decoder of segmentation_models_pytorch on every encoder of its own or of timm's ("tu-NAME").

https://github.com/qubvel-org/segmentation_models.pytorch, imported when such a net is built: that takes seconds.
"""

import difflib
from types import ModuleType

import torch
from torch import Tensor, nn

from command import BadInput
from nets.images import Normalise, check_counts, check_images
from nets.output import Output

STRIDE = 32  # of the deepest map


class SmpNet(nn.Module):
    """Images (N, channels, H, W) in 0..1, H and W multiples of 32 -> Output with logits (N, classes, H, W).

    decoder: unet, unetplusplus, deeplabv3plus, fpn, ... (`decoders()`); encoder: resnet34, efficientnet-b0, tu-...
    Some (deeplabv3plus, pan) need two images or more in training, as they normalise over maps of one pixel.
    """

    def __init__(self, decoder: str = "unet", encoder: str = "resnet34", classes: int = 1, channels: int = 3):
        super().__init__()
        check_counts(classes=classes, channels=channels)
        if decoder not in decoders():
            raise BadInput(f"got decoder={decoder!r}, expected one of {', '.join(decoders())}")
        if not encoder.startswith("tu-") and encoder not in encoders():
            close = difflib.get_close_matches(encoder, encoders(), n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise BadInput(f"got encoder={encoder!r}: {hint}it is one of {', '.join(encoders())}, or tu-TIMMS_NAME")
        self.channels = channels
        self.normalise = Normalise(channels)
        self.made_of = {"arch": decoder, "encoder_name": encoder, "in_channels": channels, "classes": classes}
        try:
            self.model = library().create_model(**self.made_of, encoder_weights=None)
        except (
            ValueError,
            KeyError,
            RuntimeError,
            TypeError,
            AssertionError,
        ) as error:  # pairs that do not go together
            reason = " ".join(str(error).split())
            raise BadInput(f"{decoder} cannot be built on {encoder} ({reason}): choose another pair") from error

    @property
    def blocks(self) -> list[nn.Module]:
        """None of its parts is known to leave its input as it is (see nets.recompute)."""
        return []

    def fetch_imagenet(self) -> None:
        """Load the encoder's ImageNet weights, by the library from the Hugging Face hub. Raises BadInput offline."""
        try:
            with torch.random.fork_rng(devices=[]):
                started = library().create_model(**self.made_of, encoder_weights="imagenet")
            self.model.encoder.load_state_dict(started.encoder.state_dict())
        except Exception as error:  # whatever the hub, its transport, or an encoder without such weights raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise BadInput(
                f"the ImageNet weights of {self.made_of['encoder_name']} cannot be had ({reason}): "
                "train where there is a network, or from scratch with --weights=none"
            ) from error

    def forward(self, images: Tensor) -> Output:
        check_images(images, self.channels, multiple=STRIDE)
        return Output(self.model(self.normalise(images)))


def library() -> ModuleType:
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def decoders() -> list[str]:
    """Names that `decoder` takes."""
    return sorted(library().MODEL_ARCHITECTURES_MAPPING)


def encoders() -> list[str]:
    """Names that `encoder` takes, beside those that begin with tu-."""
    return sorted(library().encoders.get_encoder_names())
