from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import nets
from command import BadInput
from nets import blocks, encoders, enlarged, weights

# Our encoders and the classifiers whose weights they start from, as an independent implementation (timm's).
SOURCES = {
    "se_resnet50": "legacy_seresnet50",
    "resnet18": "resnet18",
    "resnext101_32x4d": "resnext101_32x4d",
}


def lively(name: str) -> nn.Module:
    """A timm classifier in evaluation mode whose norms' figures are no longer zeros and ones."""
    net = timm.create_model(name, pretrained=False).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return net


def write(net: nn.Module, path: Path) -> Path:
    """As on the hub: a .safetensors file without the norms' counters of batches, which old files lack too."""
    save_file({key: x for key, x in net.state_dict().items() if not key.endswith("num_batches_tracked")}, path)
    return path


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    torch.manual_seed(0)
    net = lively("resnet18")
    return net, write(net, tmp_path_factory.mktemp("weights") / "resnet18.safetensors")


@pytest.mark.parametrize("name", SOURCES)
def test_encoder_with_imagenet_weights_computes_what_the_classifier_does(name, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "SLOPE", 0.0)  # then ABN is the norm and ReLU of the classifier
    torch.manual_seed(0)
    source = lively(SOURCES[name])
    with nets.NoInitialisation():  # every value has to come from the file
        encoder = encoders.build(name).eval()
    path = write(source, tmp_path / "model.safetensors")
    weights.load_encoder(encoder, weights.read(path), path)
    images = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        found = encoder(images)
        expected = source.forward_intermediates(enlarged.doubled(images), intermediates_only=True)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):  # timm's first map lies before the pooling
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_timms_senet154_has_the_keys_of_pretrainedmodels():
    with torch.device("meta"):
        ours = encoders.pretrainedmodels().senet154(pretrained=None).state_dict()
        theirs = timm.create_model("legacy_senet154").state_dict()
    assert {key: x.shape for key, x in ours.items()} == {key: x.shape for key, x in theirs.items()}
    assert len(ours) == 1144


@pytest.mark.parametrize("name", encoders.VGG_NAMES)
def test_timms_vgg_has_the_keys_of_torchvisions(name):
    with torch.device("meta"):
        encoder, theirs = encoders.build(name), timm.create_model(name).state_dict()
    assert set(encoder.source_keys) == {key for key in theirs if key.startswith("features.")}
    assert all(encoder.state_dict()[ours].shape == theirs[key].shape for key, ours in encoder.source_keys.items())


@pytest.mark.parametrize("name", weights.HUB)
def test_hub_names_are_timms(name):
    assert timm.models.get_pretrained_cfg(weights.HUB[name]) is not None
    assert weights.hub_repository(name) == f"timm/{weights.HUB[name]}"


def test_timm_encoders_have_their_own_repositories():
    assert weights.hub_repository("timm/convnext_atto") == "timm/convnext_atto.d2_in1k"
    assert weights.hub_repository("timm/resnet18.a1_in1k") == "timm/resnet18.a1_in1k"


def test_a_net_starts_from_a_file_and_keeps_its_decoder(resnet18):
    source, path = resnet18
    torch.manual_seed(0)
    plain = nets.build("saltnet", encoder="resnet18").state_dict()
    torch.manual_seed(0)
    started = nets.build("saltnet", encoder="resnet18", weights=str(path)).state_dict()
    assert torch.equal(started["encoder.stages.1.0.conv1.weight"], source.layer1[0].conv1.weight)
    assert torch.equal(started["encoder.stages.0.1.running_mean"], source.bn1.running_mean)
    decoder = [key for key in plain if not key.startswith("encoder.")]
    assert all(torch.equal(plain[key], started[key]) for key in decoder)


@pytest.mark.parametrize("channels", [1, 4])
def test_timm_encoders_load_by_timms_reader(resnet18, channels):
    source, path = resnet18
    encoder = encoders.build("timm/resnet18", channels).eval()
    weights.load_encoder(encoder, weights.read(path), path)
    state = encoder.net.state_dict()
    assert torch.equal(state["layer4.1.conv2.weight"], source.layer4[1].conv2.weight)
    torch.testing.assert_close(state["conv1.weight"], weights.adapt(source.conv1.weight, channels))


def test_adapted_convolutions_by_hand():
    weight = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    assert weights.adapt(weight, 3) is weight
    assert weights.adapt(weight, 1).flatten().tolist() == [7.0]
    assert weights.adapt(weight, 2).flatten().tolist() == [1.5, 3.0]
    assert weights.adapt(weight, 4).flatten().tolist() == [0.75, 1.5, 3.0, 0.75]


def test_one_channel_sees_what_three_equal_ones_saw(resnet18):
    _, path = resnet18
    one, three = (encoders.build("resnet18", channels).eval() for channels in (1, 3))
    for encoder in (one, three):
        weights.load_encoder(encoder, weights.read(path), path)
    grey = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(one(grey)[-1], three(grey.expand(-1, 3, -1, -1))[-1], rtol=1e-4, atol=1e-5)


# What is refused.


@pytest.mark.parametrize("encoder", ["resnet34", "se_resnet50", "timm/resnet34"])
def test_weights_of_another_net_are_refused(encoder, resnet18):
    with pytest.raises(BadInput, match=rf"resnet18\.safetensors does not hold the weights of {encoder}") as caught:
        nets.build("saltnet", encoder=encoder, weights=str(resnet18[1]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["resnet18", "timm/resnet18"])
def test_incomplete_weights_are_refused(encoder, resnet18, tmp_path):
    state = {key: x for key, x in resnet18[0].state_dict().items() if key != "layer3.0.conv1.weight"}
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(BadInput, match=r"part\.pth does not hold the weights"):
        nets.build("saltnet", encoder=encoder, weights=str(tmp_path / "part.pth"))


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      rest", b"<html>not found</html>"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_downloads_are_refused(content, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"weights\.\w+ "):
        nets.build("saltnet", encoder="resnet18", weights=str(path))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {"conv1.weight": "x"}}, {"state_dict": 3}])
def test_files_without_weights_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(BadInput, match=r"weights\.pth holds no weights by name"):
        nets.build("saltnet", encoder="resnet18", weights=str(tmp_path / "weights.pth"))


# Where "imagenet" looks.


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """PyTorch's folder of downloads, empty, and a hub that cannot be reached."""

    def unreachable(repository: str, file: str) -> str:
        raise ConnectionError(f"no route to {repository} {file}")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("encoder", ["resnet18", "timm/resnet18.a1_in1k"])
def test_offline_the_error_says_which_file_to_put_where(encoder, offline):
    with pytest.raises(BadInput) as caught:
        nets.build("saltnet", encoder=encoder, weights="imagenet")
    stem = encoder.replace("/", "-")
    for words in ("model.safetensors of timm/resnet18.", f"put it at {offline / stem}.safetensors", "--weights=FILE"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class ProxyError(Exception):
    """As the hub's transport raises it behind a proxy that refuses: no OSError."""


def test_any_fault_of_the_transport_is_bad_input(offline, monkeypatch):
    def refused(*_):
        raise ProxyError("403 Forbidden\n" + "blocked " * 100)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(BadInput, match=r"\(ProxyError: 403 Forbidden blocked .*--weights=none") as caught:
        nets.build("saltnet", encoder="resnet18", weights="imagenet")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(offline))


@pytest.mark.parametrize("file", ["resnet18.safetensors", "resnet18-f37072fd.pth"])
def test_files_in_the_folder_of_downloads_come_first(file, offline, resnet18):
    if file.endswith(".pth"):
        torch.save(resnet18[0].state_dict(), offline / file, _use_new_zipfile_serialization=False)
    else:
        write(resnet18[0], offline / file)
    net = nets.build("saltnet", encoder="resnet18", weights="imagenet")
    assert torch.equal(net.encoder.stages[4][1].conv2.weight, resnet18[0].layer4[1].conv2.weight)


def test_two_files_for_one_encoder_are_not_guessed_between(offline):
    for file in ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"):
        (offline / file).touch()
    with pytest.raises(BadInput, match=r"several files.*0676ba61\.pth, .*11ad3fa6\.pth.*--weights=FILE"):
        weights.imagenet_file("resnet50")


def test_the_hub_is_asked_for_timms_file(monkeypatch, tmp_path, resnet18):
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(resnet18[1])

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    nets.build("saltnet", encoder="resnet18", weights="imagenet")
    assert asked == [("timm/resnet18.tv_in1k", "model.safetensors")]
