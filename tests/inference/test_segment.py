"""Any image gets a mask of its own size, however large; windows leave no seam."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from folders import shapes, write, write_tiles
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nets
from command import BadInput
from datasets import sections
from inference import rasters
from inference.segment import Options, segment


@given(st.integers(1, 500), st.integers(1, 200), st.floats(0, 0.9))
def test_windows_cover_a_side_and_overlap_as_asked(length, window, overlap):
    found = rasters.starts(length, window, overlap)
    assert found[0] == 0 and found == sorted(set(found))
    assert found[-1] + window == length or (length <= window and found == [0])
    steps = np.diff(found)
    assert (steps <= max(1, round(window * (1 - overlap))) + 0.5).all()


def test_windows_of_half_overlap_weigh_one_in_all():
    weights = torch.zeros(100, 100)
    for y in range(0, 81, 20):
        for x in range(0, 81, 20):
            weights[y : y + 40, x : x + 40] += rasters.fade((40, 40))[: 100 - y, : 100 - x]
    torch.testing.assert_close(weights[20:80, 20:80], torch.ones(60, 60), atol=5e-3, rtol=0)


@pytest.mark.parametrize("size", [(30, 30), (101, 70), (64, 130), (20, 200)])
def test_windows_give_what_the_whole_image_gives_away_from_their_borders(size):
    """A net that sees two pixels around each: windows and the whole image agree but for windows' outermost pixels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1), nn.Softmax(dim=1)
    ).eval()
    image = torch.rand(3, *size)
    with torch.no_grad():
        whole = net(image[None])[0]
        found = rasters.blend(image, (32, 32), 0.5, 5, net)
    assert found.shape == whole.shape
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert (found - whole).abs()[inner].max() < 0.02  # the outermost two pixels of a window weigh next to nothing
    assert (found - whole).abs()[inner].mean() < 1e-3


def save_net(path: Path, labels: str = "", native=(40, 48), **arguments) -> Path:
    torch.manual_seed(0)
    config = {"labels": labels, "extra": "", "precision": "float32", "threads": 1, "batch": 3}
    framing = {"variant": "resize", "tile_size": (64, 64), "image_size": 64}
    net = nets.build("fastnet", width=8, **arguments)
    nets.save(path, net, config=config, framing=framing, native_size=native)
    return path


def test_a_folder_of_any_sizes(tmp_path: Path):
    data = write_tiles(tmp_path / "data", 2, labels=(2, 5))
    write(data / "images" / "wide.jpg", shapes(7, (60, 200), (1,))[0])
    checkpoint = save_net(tmp_path / "net.pt", "2 5", classes=3)
    out = tmp_path / "out"
    segment(Options(checkpoint=str(checkpoint), images=str(data), out=str(out)))
    table = pd.read_csv(out / "images.csv")
    assert table["name"].tolist() == ["tile 0", "tile 1", "wide"]
    assert table[["height", "width"]].values.tolist() == [[40, 48], [40, 48], [60, 200]]
    for name, height, width in table[["name", "height", "width"]].itertuples(index=False):
        mask = cv2.imread(str(out / f"masks/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (height, width) and set(np.unique(mask)) <= {0, 2, 5}
        row = table.set_index("name").loc[name]
        assert (mask == 5).mean() == pytest.approx(row["share of 5"], abs=1e-6)
        assert cv2.imread(str(out / f"overlays/{name}.png")).shape == (height, width, 3)
        assert cv2.imread(str(out / f"probabilities/{name}_2.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_one_image_whole_and_in_windows(tmp_path: Path):
    write(tmp_path / "one.png", shapes(1, (40, 48), (1,))[0])
    checkpoint = save_net(tmp_path / "net.pt")
    found = {}
    for windows in ("auto", "never", "always"):
        out = tmp_path / windows
        options = {"checkpoint": str(checkpoint), "images": str(tmp_path / "one.png"), "out": str(out)}
        segment(Options(**options, windows=windows, overlays=False))
        found[windows] = cv2.imread(str(out / "probabilities/one.png"), cv2.IMREAD_UNCHANGED)
        assert not (out / "overlays").exists()
    assert all(np.array_equal(found["auto"], found[name]) for name in found)  # it has the training's size


def test_a_model_that_pads_takes_images_of_any_size(tmp_path: Path):
    config = {"labels": "", "extra": "", "precision": "float32", "threads": 1, "batch": 3}
    framing = {"variant": "pad", "tile_size": (40, 40), "image_size": 64}
    checkpoint = tmp_path / "net.pt"
    nets.save(checkpoint, nets.build("fastnet", width=8), config=config, framing=framing, native_size=(40, 40))
    for name, size in (("small", (12, 50)), ("usual", (40, 40)), ("wide", (40, 300)), ("large", (70, 90))):
        write(tmp_path / f"images/{name}.png", shapes(1, size, (1,))[0])
    segment(Options(checkpoint=str(checkpoint), images=str(tmp_path / "images"), out=str(tmp_path / "out")))
    table = pd.read_csv(tmp_path / "out/images.csv").set_index("name")
    assert table.loc["small", ["height", "width"]].tolist() == [12, 50]
    assert cv2.imread(str(tmp_path / "out/masks/wide.png")).shape[:2] == (40, 300)


def test_one_file_finds_its_further_channels(tmp_path: Path):
    data = write_tiles(tmp_path / "land", 2, extra=("nir",))
    config = {"labels": "", "extra": "nir", "precision": "float32", "threads": 1, "batch": 3}
    framing = {"variant": "resize", "tile_size": (64, 64), "image_size": 64}
    net = nets.build("fastnet", width=8, channels=4)
    nets.save(tmp_path / "net.pt", net, config=config, framing=framing, native_size=(40, 48))
    options = {"checkpoint": str(tmp_path / "net.pt"), "images": str(data / "images/tile 1.png")}
    segment(Options(**options, out=str(tmp_path / "out")))
    assert (tmp_path / "out/masks/tile 1.png").exists()


def test_thresholds_reach_the_mask(tmp_path: Path):
    write(tmp_path / "one.png", shapes(1, (40, 48), (1,))[0])
    checkpoint = save_net(tmp_path / "net.pt")
    for threshold, expected in ((0.0, {255}), (1.0, {0})):
        options = {"checkpoint": str(checkpoint), "images": str(tmp_path / "one.png"), "out": str(tmp_path / "out")}
        segment(Options(**options, threshold=threshold))
        assert set(np.unique(cv2.imread(str(tmp_path / "out/masks/one.png"), cv2.IMREAD_UNCHANGED))) == expected


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "--checkpoint is missing"),
        ({"images": "nowhere"}, "nowhere is not there"),
        ({"images": "."}, "has no image"),
        ({"images": "net.pt"}, "net.pt cannot be read as an image"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch, bad, message):
    monkeypatch.chdir(tmp_path)
    save_net(tmp_path / "net.pt")
    with pytest.raises(BadInput, match=message):
        segment(Options(**({"checkpoint": "net.pt"} if bad else {}) | bad))
    with pytest.raises(BadInput, match=r"not from 0 to 0\.9"):
        Options(overlap=1)


# ---------------------------------------------------------------------------- SEG-Y


def write_section(path: Path, traces: int = 90, samples: int = 70, form: int = 5) -> np.ndarray:
    """A line of waves; returns its amplitudes (samples, traces)."""
    segyio = pytest.importorskip("segyio")
    amplitudes = np.sin(np.arange(samples)[:, None] / 3 + np.arange(traces) / 9).astype(np.float32) * 1000
    spec = segyio.spec()
    spec.format, spec.samples, spec.tracecount = form, np.arange(samples) * 4.0, traces
    with segyio.create(str(path), spec) as file:
        for trace in range(traces):
            file.header[trace] = {segyio.TraceField.CDP_X: 1000 + trace}
            file.trace[trace] = amplitudes[:, trace].astype(file.dtype)
    return amplitudes


@pytest.mark.parametrize(("form", "scale"), [(1, 1), (5, 1), (3, 2**15 - 1), (2, 2**31 - 1)])
def test_a_section_is_read_as_an_image_and_written_back_in_place(tmp_path: Path, form: int, scale: int):
    segyio = pytest.importorskip("segyio")
    amplitudes = write_section(tmp_path / "line.segy", form=form)
    image = sections.read(tmp_path / "line.segy", 3)
    assert image.shape == (3, 70, 90) and image.min() == 0 and image.max() == 1
    assert np.corrcoef(image[0].numpy().ravel(), amplitudes.ravel())[0, 1] > 0.99
    values = torch.linspace(0, 1, 70 * 90).view(70, 90)
    sections.write_like(tmp_path / "line.segy", tmp_path / "out.segy", values)
    with segyio.open(tmp_path / "out.segy", ignore_geometry=True) as file:
        assert np.allclose(file.trace.raw[:].T / scale, values, atol=1e-3)
        assert [file.header[trace][segyio.TraceField.CDP_X] for trace in (0, 89)] == [1000, 1089]


def test_a_section_is_segmented_in_windows(tmp_path: Path):
    segyio = pytest.importorskip("segyio")
    write_section(tmp_path / "line.sgy")
    checkpoint = save_net(tmp_path / "net.pt", native=(32, 32))
    segment(Options(checkpoint=str(checkpoint), images=str(tmp_path / "line.sgy"), out=str(tmp_path / "out")))
    probability = cv2.imread(str(tmp_path / "out/probabilities/line.png"), cv2.IMREAD_UNCHANGED) / 65535
    with segyio.open(tmp_path / "out/line_probability.sgy", ignore_geometry=True) as file:
        assert np.allclose(file.trace.raw[:].T, probability, atol=1e-4)


def test_what_is_no_section_is_refused(tmp_path: Path):
    pytest.importorskip("segyio")
    (tmp_path / "line.segy").write_bytes(b"no traces")
    with pytest.raises(BadInput, match="cannot be read as SEG-Y"):
        sections.read(tmp_path / "line.segy", 3)
    with pytest.raises(BadInput, match="the model takes 4"):
        sections.read(tmp_path / "line.segy", 4)
