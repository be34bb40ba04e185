import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from command import BadInput
from nets import encoders, weights
from nets.blocks import ABN

TIMM = ("timm/resnet18", "timm/convnext_atto", "timm/swin_tiny_patch4_window7_224", "timm/darknet53")


def on_meta(name: str, channels: int = 3) -> encoders.Encoder:
    with torch.device("meta"):
        return encoders.build(name, channels)


@pytest.mark.parametrize("name", [*encoders.ENCODERS, *TIMM])
def test_maps_are_what_the_encoder_says(name):
    encoder = on_meta(name, channels=2)
    maps = encoder(torch.zeros(1, 2, 64, 96, device="meta"))
    assert [x.shape[1] for x in maps] == list(encoder.channels)
    assert [(x.shape[2], x.shape[3]) for x in maps] == [(64 // s, 96 // s) for s in encoder.strides]
    assert encoder.name == name


def test_all_encoders_of_the_original_are_here():
    expected = {f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")}
    expected |= {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)} | {"resnext101_32x4d", "resnext101_64x4d"}
    expected |= {"senet154", "se_resnet50", "se_resnet101", "se_resnet152", "se_resnext50_32x4d", "se_resnext101_32x4d"}
    assert set(encoders.ENCODERS) == expected


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/inception_v3", "timm/maxvit_tiny_rw_224"])
def test_timm_nets_without_a_pyramid_for_any_size_are_refused(name):
    with pytest.raises(BadInput, match=f"{name}.*expected a net for any image size with maps at strides"):
        on_meta(name)


# Activated norms.


@pytest.mark.parametrize(("name", "in_stem"), [("senet154", 3), ("se_resnet50", 1), ("se_resnext50_32x4d", 1)])
def test_se_family_has_abn_in_its_stem_and_two_first_norms(name, in_stem):
    encoder = on_meta(name)
    stem, *layers = encoder.stages
    assert sum(isinstance(module, ABN) for module in stem.modules()) == in_stem
    assert not any(isinstance(module, nn.ReLU) for module in stem.modules())
    for block in (block for layer in layers for block in layer):
        assert [type(norm) for norm in (block.bn1, block.bn2, block.bn3)] == [ABN, ABN, nn.BatchNorm2d]
        assert block.downsample is None or type(block.downsample[1]) is nn.BatchNorm2d
        assert isinstance(block.se_module.relu, nn.ReLU)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext101_32x4d", "vgg11_bn"])
def test_others_keep_plain_norms_and_relu(name):
    modules = list(on_meta(name).modules())
    assert not any(isinstance(module, ABN) for module in modules)
    assert any(isinstance(module, nn.ReLU) for module in modules)


def test_se_block_by_its_formula():
    """Leaky behind the first two norms, nothing behind the third, ReLU in the gate and behind the sum."""
    torch.manual_seed(0)
    block = encoders.build("se_resnet50").stages[2][0].double().train()
    x = torch.randn(2, 256, 6, 6, dtype=torch.float64)
    kept = x.clone()

    def norm(x, layer):
        return F.batch_norm(x, None, None, layer.weight, layer.bias, training=True)

    out = F.leaky_relu(norm(F.conv2d(x, block.conv1.weight, stride=2), block.bn1), 0.01)
    out = F.leaky_relu(norm(F.conv2d(out, block.conv2.weight, padding=1), block.bn2), 0.01)
    out = norm(F.conv2d(out, block.conv3.weight), block.bn3)
    gate = block.se_module.fc2(torch.relu(block.se_module.fc1(out.mean((2, 3), keepdim=True))))
    shortcut = norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    torch.testing.assert_close(block(x), torch.relu(torch.sigmoid(gate) * out + shortcut))
    assert torch.equal(x, kept)


# Traps of pretrainedmodels.


def test_two_builds_share_no_storage_and_do_not_begin_alike():
    first, second = (encoders.build("resnext101_32x4d").state_dict() for _ in range(2))
    pointers = {tensor.data_ptr() for tensor in first.values()}
    assert not any(tensor.data_ptr() in pointers for tensor in second.values())
    assert not torch.equal(first["stages.0.0.weight"], second["stages.0.0.weight"])


def test_importing_the_library_leaves_the_seed_and_makes_no_meta_tensors(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "pretrainedmodels"]:
        monkeypatch.delitem(sys.modules, module)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.device("meta"):
        library = encoders.pretrainedmodels()
    assert torch.equal(torch.get_rng_state(), before)
    assert not library.models.resnext.resnext101_32x4d_features[0].weight.is_meta


def test_what_is_needed_but_not_declared_is_pinned():
    """`six` by pretrainedmodels; safetensors by us."""
    pins = (Path(__file__).parents[2] / "requirements.txt").read_text().splitlines()
    assert {"six", "safetensors"} <= {pin.partition("==")[0] for pin in pins if "==" in pin}


def test_vggs_last_stage_keeps_its_size_by_dilation():
    convolutions = [m for m in on_meta("vgg16").stages[-1] if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.dilation) for c in convolutions[-2:]] == [
        (1024, (3, 3), (6, 6)),
        (1024, (1, 1), (1, 1)),
    ]
    norms = [m for m in on_meta("vgg16_bn").stages[-1] if isinstance(m, nn.BatchNorm2d)]
    assert [n.num_features for n in norms] == [512, 512, 512, 1024, 1024]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in on_meta("vgg16").modules())


def test_every_encoder_has_a_source_of_imagenet_weights():
    assert set(weights.HUB) == set(encoders.ENCODERS)
