import pytest
import torch
from torch import nn

from command import BadInput
from nets.blocks import ABN
from nets.images import Normalise
from nets.saltnet import SaltNet

COUNTS = {"senet154": 131_814_263, "resnet34": 30_640_199}  # as published

# Layer: channels and pixels, for a tile of 128 px, from the system's description.
COMMON = {
    "encoder5": (512, 8),
    "center": (128, 8),
    "decoder5": (128, 16),
    "decoder4": (64, 32),
    "decoder3": (32, 64),
}
WITH_STEM = {**COMMON, "decoder2": (16, 64), "decoder1": (16, 128), "fuse_pixel": (64, 128), "head": (1, 128)}
WITHOUT_STEM = {**COMMON, "decoder2": (16, 128), "decoder1": (16, 128), "fuse_pixel": (64, 128), "head": (1, 128)}
MAPS = {
    "senet154": [(128, 64), (256, 64), (512, 32), (1024, 16), (2048, 8)],
    "resnet34": [(64, 64), (64, 64), (128, 32), (256, 16), (512, 8)],
    "resnext101_32x4d": [(64, 64), (256, 64), (512, 32), (1024, 16), (2048, 8)],
    "vgg16_bn": [(64, 128), (128, 64), (256, 32), (512, 16), (1024, 8)],
    "timm/resnet18": [(64, 128), (64, 64), (128, 32), (256, 16), (512, 8)],
    "timm/convnext_atto": [(40, 64), (80, 32), (160, 16), (320, 8)],
}


def on_meta(encoder: str, **arguments) -> SaltNet:
    """Shapes and counts without memory or arithmetic."""
    with torch.device("meta"):
        return SaltNet(encoder, **arguments)


@pytest.mark.parametrize("encoder", COUNTS)
def test_number_of_parameters(encoder):
    assert sum(parameter.numel() for parameter in on_meta(encoder).parameters()) == COUNTS[encoder]


@pytest.mark.parametrize("encoder", MAPS)
def test_layer_shapes_are_the_tables(encoder):
    net = on_meta(encoder)
    seen = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda module, inputs, output: seen.update({name: output}))

    expected = WITH_STEM if len(MAPS[encoder]) == 5 and MAPS[encoder][0][1] == 64 else WITHOUT_STEM
    for name in ("encoder", *expected):
        watch(name, net.get_submodule(name))
    output = net(torch.zeros(1, 3, 128, 128, device="meta"))
    assert [tuple(x.shape[1:]) for x in seen.pop("encoder")] == [(c, side, side) for c, side in MAPS[encoder]]
    assert {name: tuple(x.shape[1:]) for name, x in seen.items()} == {
        name: (channels, side, side) for name, (channels, side) in expected.items()
    }
    assert [tuple(level.shape) for level in output.level_logits] == [(1, 1, 128, 128)] * 5
    assert output.image_logits.shape == (1,)


# Norms, activations, dropouts and poolings in the order in which they run, from the system's description.


def context(p: float) -> list[str]:
    """Of the key, behind the merge, of the merged maps."""
    return ["ABN", "ABN", f"Dropout2d {p}"]


DECODER = ["ABN", *context(0.2)]
HEAD = ["Dropout2d 0.5", "ABN"]
PARTS = {
    "encoder5": ["BatchNorm2d", *context(0.05)],
    "center": ["MaxPool2d 2 stride 2", *DECODER],
    "decoder5": DECODER,
    "decoder4": DECODER,
    "decoder3": DECODER,
    "level_heads": HEAD * 5,
    "fuse_pixel": ["Dropout2d 0.5"] * 5,  # one for each level, which together are one over all channels
    "fuse_image": ["Dropout 0.5", "ReLU"],
    "head": ["Dropout2d 0.5", *HEAD],  # of the pixels' and the image's features
}
OF_ENCODER = {
    "resnet34": {**PARTS, "decoder2": ["ABN", "ABN"], "decoder1": DECODER},
    "vgg16_bn": {**PARTS, "decoder2": DECODER, "decoder1": ["ReLU"]},
}
NORM = ["BatchNorm2d", "ReLU"]
VGGS_LAST_STAGE = ["MaxPool2d 2 stride 2", *NORM * 3, "MaxPool2d 3 stride 1", *NORM * 2]


def described(module: nn.Module) -> str:
    kind = type(module).__name__
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return f"{kind} {module.p}"
    return f"{kind} {module.kernel_size} stride {module.stride}" if isinstance(module, nn.MaxPool2d) else kind


@pytest.mark.parametrize("encoder", OF_ENCODER)
def test_norms_activations_and_dropouts_are_the_tables(encoder):
    net = on_meta(encoder)
    ran = {}
    kinds = (ABN, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Dropout, nn.Dropout2d, nn.MaxPool2d)
    for name, module in net.named_modules():
        part = "last stage" if name.startswith("encoder.stages.4.") else name.partition(".")[0]
        if isinstance(module, kinds):
            module.register_forward_hook(lambda m, *_, part=part: ran.setdefault(part, []).append(described(m)))
    net(torch.zeros(1, 3, 64, 64, device="meta"))
    assert ran.pop("encoder")
    last_stage = ran.pop("last stage")
    assert last_stage == VGGS_LAST_STAGE or encoder != "vgg16_bn"
    assert ran == OF_ENCODER[encoder]


def test_center_pools_before_it_decodes():
    net = on_meta("resnet18")
    inputs = []
    net.center[1].register_forward_hook(lambda module, given, output: inputs.append(given[0].shape[-2:]))
    net(torch.zeros(1, 3, 128, 64, device="meta"))
    assert inputs == [(4, 2)]


@pytest.mark.parametrize("encoder", ["resnet18", "vgg11", "timm/convnext_atto"])
@pytest.mark.parametrize("size", [(32, 96), (224, 64)])
def test_any_sides_that_are_multiples_of_32(encoder, size):
    net = on_meta(encoder, classes=3, channels=5)
    output = net(torch.zeros(2, 5, *size, device="meta"))
    assert output.logits.shape == (2, 3, *size)
    assert all(level.shape == (2, 3, *size) for level in output.level_logits)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 101, 101), "101x101 pixels.*multiples of 32.*128x128"),
        ((1, 3, 128, 100), "128x100.*128x128"),
        ((1, 3, 0, 32), "0x32"),
        ((1, 1, 128, 128), r"expects \(N, 3, H, W\)"),
        ((3, 128, 128), r"expects \(N, 3, H, W\)"),
    ],
)
def test_other_shapes_are_refused_before_work(shape, words):
    net = on_meta("resnet18")
    net.encoder.register_forward_pre_hook(lambda *_: pytest.fail("the encoder ran"))
    with pytest.raises(BadInput, match=words):
        net(torch.zeros(shape, device="meta"))


@pytest.mark.parametrize("arguments", [{"classes": 0}, {"channels": -1}, {"classes": 1.5}, {"channels": True}])
def test_counts_are_whole_and_positive(arguments):
    with pytest.raises(BadInput, match="expected a whole number from 1"):
        SaltNet("resnet18", **arguments)


def test_normalisation_is_imagenets_and_leaves_its_input():
    images = torch.rand(2, 3, 4, 6).to(memory_format=torch.channels_last)
    kept = images.clone()
    normalise = Normalise(3)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        torch.testing.assert_close(normalise(images)[:, channel], (kept[:, channel] - mean) / std)
    assert torch.equal(images, kept)
    assert normalise(images).is_contiguous(memory_format=torch.channels_last)
    assert set(normalise.state_dict()) == {"mean", "std"}


def test_normalisation_of_other_channel_counts():
    assert Normalise(1).mean.flatten().tolist() == pytest.approx([0.449])
    assert Normalise(4).std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225, 0.229])


def test_heads_of_an_image_see_every_level():
    """Each level's head reads its own decoder: its logits change with that decoder's last layer, the others' do not."""
    torch.manual_seed(0)
    net = SaltNet("resnet18").eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = net(images)
        net.decoder1[-1].bias.add_(1)
        after = net(images)
    changed = [not torch.equal(a, b) for a, b in zip(before.level_logits, after.level_logits, strict=True)]
    assert changed == [True, False, False, False, False]
    assert not torch.equal(before.logits, after.logits)
    assert torch.equal(before.image_logits, after.image_logits)
