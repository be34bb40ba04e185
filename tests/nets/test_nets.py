import ast
import copy
import os
import pickle
import random
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import nets
from command import BadInput
from nets import weights

SMALL = {"saltnet": {"encoder": "resnet18"}, "fastnet": {"width": 8}}  # quick stand-ins for the defaults
ZOO = [(name, SMALL.get(name, {})) for name in nets.NETS] + [("saltnet", {"encoder": "vgg11_bn"})]


def batch(count: int = 2, channels: int = 3, height: int = 64, width: int = 32) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def wake(net: nn.Module) -> None:
    """Layers that start at zero (the object context's) hold back the gradient of those before them: move them."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)


def check_gradients(net: nn.Module, images: torch.Tensor, classes: int) -> None:
    """Shapes of all outputs, the input as it was, a gradient in every weight (a bias before a batch norm has none)."""
    kept = images.clone()
    output = net.train()(images)
    assert torch.equal(images, kept)
    assert output.logits.shape == (len(images), classes, *images.shape[-2:])
    assert all(level.shape == output.logits.shape for level in output.level_logits)
    pixels = [output.logits, *output.level_logits]
    loss = sum(logits.square().mean() for logits in pixels)
    if output.image_logits is not None:
        assert output.image_logits.shape == (len(images),)
        loss = loss + output.image_logits.square().mean()
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.dim() == 1 or parameter.grad.any(), name


@pytest.fixture(params=ZOO, scope="module")
def zoo_net(request):
    torch.manual_seed(0)
    name, arguments = request.param
    net = nets.build(name, classes=2, channels=2, **arguments)
    wake(net)
    return net


def test_every_net_has_its_shapes_and_gradients(zoo_net):
    check_gradients(copy.deepcopy(zoo_net), batch(channels=2), classes=2)


def test_senet154_has_its_shapes_and_gradients():
    torch.manual_seed(0)
    net = nets.build("saltnet")
    assert net.arguments == {"encoder": "senet154", "classes": 1, "channels": 3}
    wake(net)
    check_gradients(net, batch(height=32), classes=1)


def test_channels_last_gives_the_same_and_leaves_the_input(zoo_net):
    net, images = copy.deepcopy(zoo_net).eval(), batch(channels=2)
    with torch.no_grad():
        expected = net(images).logits
        other = images.clone(memory_format=torch.channels_last)
        found = net.to(memory_format=torch.channels_last)(other).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5)
    assert torch.equal(images, batch(channels=2))
    assert torch.equal(other, images)


def test_output_maps_every_pixel_map():
    output = nets.Output(torch.ones(1, 1, 4, 4), (torch.ones(1, 1, 4, 4),) * 2, torch.ones(1))
    cropped = output.map(lambda x: x[..., :3, :2])
    assert [x.shape[-2:] for x in (cropped.logits, *cropped.level_logits)] == [(3, 2)] * 3
    assert cropped.image_logits is output.image_logits


def test_heavy_libraries_wait_until_an_encoder_of_theirs_is_built():
    """By our own imports; `test_architecture` looks at what is imported in the end."""
    heavy = {"timm", "torchvision", "pretrainedmodels", "huggingface_hub", "safetensors"}
    for path in Path(nets.__file__).parent.glob("*.py"):
        top = ast.parse(path.read_text(encoding="utf-8")).body  # functions may import them
        names = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in top if isinstance(node, ast.ImportFrom)]
        assert not heavy & {name.partition(".")[0] for name in names}, path.name


# build


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("unet154", {}, "'unet154', expected one of saltnet, fastnet"),
        ("saltnet", {"encodr": "resnet18"}, "no argument 'encodr'.*did you mean encoder.*encoder, classes, channels"),
        ("saltnet", {"encoder": "resnet35"}, "'resnet35'.*did you mean.*senet154.*vgg19_bn and timm/NAME"),
        ("saltnet", {"encoder": "timm/resnet35"}, "timm/resnet35.*does not have"),
        ("fastnet", {"weights": "imagenet"}, "FastNet has no ImageNet weights"),
        ("fastnet", {"weights": "nowhere.pt"}, "nowhere.pt is not there"),
    ],
)
def test_build_names_what_is_wrong(name, arguments, words):
    with pytest.raises(BadInput, match=words):
        nets.build(name, **arguments)


def test_build_depends_on_the_seed_alone():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(nets.build("saltnet", encoder="resnet18").state_dict()["encoder5.0.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


# save and load


SAVED = [("saltnet", {"encoder": "resnet18", "channels": 1}), ("fastnet", {"width": 8})]


@pytest.fixture(params=SAVED, scope="module")
def saved(request, tmp_path_factory):
    torch.manual_seed(0)
    name, arguments = request.param
    net, path = nets.build(name, **arguments), tmp_path_factory.mktemp("saved") / "net.pt"
    net(batch(channels=net.arguments["channels"]))  # moves the batch norms' buffers
    nets.save(path, net, epoch=3, scores={"metric": 0.5}, order=torch.arange(3), note=None, sizes=(1, 2), path="a")
    return net, path


def test_load_gives_back_what_was_saved(saved):
    net, path = saved
    state = torch.get_rng_state()
    loaded, details = nets.load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(net)
    assert not loaded.training
    assert (loaded.name, loaded.arguments) == (net.name, net.arguments)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), net.state_dict().values(), strict=True))
    images = batch(channels=net.arguments["channels"])
    assert torch.equal(loaded(images).logits, net.eval()(images).logits)
    assert (details["epoch"], details["scores"], details["note"], details["sizes"]) == (
        3,
        {"metric": 0.5},
        None,
        (1, 2),
    )
    assert torch.equal(details["order"], torch.arange(3))
    assert details["provenance"]["torch"] == torch.__version__.split("+")[0]
    assert [file.name for file in path.parent.iterdir()] == ["net.pt"]


def test_load_opens_with_torchs_safe_default(saved):
    assert torch.load(saved[1], weights_only=True)["net"] == saved[0].name


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the network, or for ImageNet weights; all of it is refused."""
    asked = []

    def watch(place: object, name: str) -> None:
        def refuse(*arguments, **_):
            asked.append((name, arguments))
            raise AssertionError(f"{name} was called")

        monkeypatch.setattr(place, name, refuse)

    for place, names in {
        socket.socket: ("connect", "connect_ex"),
        socket: ("getaddrinfo",),
        weights: ("imagenet_file", "fetch"),
        torch.hub: ("load_state_dict_from_url", "download_url_to_file"),
        safetensors.torch: ("load_file",),
    }.items():
        for name in names:
            watch(place, name)
    return asked


def test_load_touches_neither_network_nor_imagenet_weights(saved, asked):
    nets.load(saved[1])
    assert asked == []


@pytest.mark.parametrize(
    "encoder", ["se_resnext50_32x4d", "resnet18", "resnext101_32x4d", "vgg11_bn", "timm/convnext_atto"]
)
def test_building_any_kind_of_encoder_touches_neither(encoder, asked, monkeypatch):
    # By which all libraries but timm read in the end; loading a net of ours needs it.
    monkeypatch.setattr(torch, "load", lambda path, *_, **__: asked.append(("load", path)))
    with torch.device("meta"):
        nets.build("saltnet", encoder=encoder)
    assert asked == []


def test_load_takes_files_from_gpus_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    nets.save(tmp_path / "net.pt", nets.build("fastnet", width=8), optimizer={"step": torch.ones(1)})
    monkeypatch.undo()
    assert b"cuda:0" in (tmp_path / "net.pt").read_bytes()
    net, details = nets.load(tmp_path / "net.pt")
    assert {tensor.device.type for tensor in net.state_dict().values()} == {"cpu"}
    assert details["optimizer"]["step"].device.type == "cpu"


def test_save_sees_through_compile_and_data_parallelism(tmp_path):
    net = nets.build("fastnet", width=8)
    nets.save(tmp_path / "net.pt", torch.compile(nn.DataParallel(net)))
    loaded, _ = nets.load(tmp_path / "net.pt")
    assert loaded.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize("details", [{"path": os}, {"scores": [{"best": {1.0}}]}, {"config": {"loss": pickle.dumps}}])
def test_save_refuses_what_the_safe_default_would_not_open(details, tmp_path):
    with pytest.raises(TypeError, match="expected tensors, numbers, strings"):
        nets.save(tmp_path / "net.pt", nets.build("fastnet", width=8), **details)
    assert not list(tmp_path.iterdir())


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle"])
def test_pickles_are_refused_without_running(form, tmp_path):
    path, trap = tmp_path / "net.pt", tmp_path / "it ran"
    content = {"format": weights.FORMAT, "net": "fastnet", "arguments": {}, "state": {}, "details": Payload(str(trap))}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    for opened in (lambda: nets.load(path), lambda: nets.build("fastnet", weights=str(path))):
        with pytest.raises(BadInput, match=r"net.pt is not opened") as caught:
            opened()
        assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_truncated_files_are_refused(share, tmp_path):
    path = tmp_path / "net.pt"
    nets.save(path, nets.build("fastnet", width=8))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInput, match=r"net.pt .*damaged") as caught:
        nets.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"conv1.weight": torch.ones(1)},
        [1, 2],
        {"format": weights.FORMAT, "net": "fastnet"},
        {"format": weights.FORMAT, "net": ["fastnet"], "arguments": {}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "fastnet", "arguments": {"width": 8}, "state": {"mean": 3}, "details": {}},
        {"format": weights.FORMAT, "net": "unet", "arguments": {}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "fastnet", "arguments": {"depth": 3}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "fastnet", "arguments": {"width": "x"}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "fastnet", "arguments": {3: 4}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "fastnet", "arguments": {"name": "x"}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "fastnet", "arguments": {"weights": "imagenet"}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "saltnet", "arguments": {"encoder": 3}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "saltnet", "arguments": {"encoder": None}, "state": {}, "details": {}},
        {"format": weights.FORMAT, "net": "fastnet", "arguments": {"width": 8}, "state": {}, "details": {}},
    ],
)
def test_files_that_are_not_ours_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "net.pt")
    for opened in (nets.load, lambda path: nets.build("fastnet", weights=str(path), width=8)):
        with pytest.raises(BadInput, match=r"net\.pt") as caught:
            opened(tmp_path / "net.pt")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"id,rle_mask\n", b"\x89PNG\r\n\x1a\n" + bytes(64), bytes(range(256)) * 8, b"PK\x03\x04"]
)
def test_files_of_other_kinds_are_refused(content, tmp_path):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(BadInput, match=r"net\.pt"):
        nets.load(tmp_path / "net.pt")
    for missing in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(BadInput, match="is not there"):
            nets.load(missing)


def test_warm_start_takes_a_saved_net_and_refuses_another(saved):
    net, path = saved
    started = nets.build(net.name, weights=str(path), **net.arguments)
    assert all(torch.equal(a, b) for a, b in zip(started.state_dict().values(), net.state_dict().values(), strict=True))
    with pytest.raises(BadInput, match=rf"does not fit {net.name}\(.*classes=2") as caught:
        nets.build(net.name, weights=str(path), **{**net.arguments, "classes": 2})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("norm", "parameters"), [(True, 17_267_393), (False, 17_258_561)])
def test_the_plain_unet_has_its_published_size(norm: bool, parameters: int):
    with torch.device("meta"):
        net = nets.build("unet", norm=norm)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


@pytest.mark.parametrize("name", ["unet", "residual-unet"])
@pytest.mark.parametrize("size", [(101, 101), (16, 37), (50, 64)])
def test_plain_nets_take_any_size(name: str, size: tuple[int, int]):
    net = nets.build(name, **({"width": 8} if name == "residual-unet" else {})).eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, *size)).logits.shape == (1, 1, *size)
    with pytest.raises(BadInput, match="16 or more"):
        net(torch.rand(1, 3, 15, 40))


def test_any_flipped_bit_of_a_checkpoint_is_found(tmp_path):
    """Or changes nothing, as in the archive's padding; torch.load itself looks at no checksum."""
    path, rng, found = tmp_path / "net.pt", random.Random(0), 0
    nets.save(path, nets.build("fastnet", width=8), epoch=3)
    whole, expected = path.read_bytes(), nets.load(path)[0].state_dict()
    for turn in range(50):
        content, place = bytearray(whole), rng.randrange(len(whole) if turn % 2 else 6000)  # its pickle, and all
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            net, details = nets.load(path)
        except BadInput as error:
            assert str(path) in str(error)
            found += 1
            continue
        assert details["epoch"] == 3
        assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())
    assert found > 25
