"""What varies pixels alone: by hand, and what stays as it is."""

import cv2
import numpy as np
import pytest
import torch

from command import BadInput
from datasets.photometric import Photometric

EVERYTHING = Photometric(
    contrast=1, colour=1, saturation=1, gamma=1, blur=1, noise=1, fog=1, holes=1, num_holes=3, hole_share=0.2
)
OPERATIONS = ("contrast", "colour", "saturation", "gamma", "blur", "noise", "fog", "holes")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=4, channels=3, height=24, width=30):
    return 0.3 + 0.4 * torch.rand(count, channels, height, width, generator=generator(9))


def test_nothing_is_the_identity():
    assert torch.equal(Photometric()(images(), generator()), images())


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_everything_stays_in_range_and_leaves_its_input(channels):
    before = images(channels=channels)
    given = before.clone()
    found = EVERYTHING(given, generator())
    assert torch.equal(given, before)
    assert found.shape == before.shape and found.min() >= 0 and found.max() <= 1
    assert torch.equal(found, EVERYTHING(given, generator()))
    assert not torch.equal(found, EVERYTHING(given, generator(1)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_only_drawn_images_change(name):
    before = images(60)
    after = Photometric(**{name: 0.5})(before, generator())
    changed = (after != before).flatten(1).any(1)
    assert 15 < changed.sum() < 45


def test_12_bits_in_16_are_varied_as_much_as_a_photograph():
    photograph = images()
    dark = photograph / 16
    for name in OPERATIONS:
        augment = Photometric(**{name: 1})
        bright, found = augment(photograph, generator()), augment(dark, generator())
        kept = (bright < 1).all(dim=1, keepdim=True).expand_as(found)  # what is clipped at white is not comparable
        torch.testing.assert_close(found[kept] * 16, bright[kept], atol=2e-2, rtol=0)
        assert found.flatten(1).std(1).min() > 0.001


@pytest.mark.parametrize("name", ["contrast", "colour", "saturation", "gamma", "blur", "fog"])
def test_further_channels_keep_their_values(name):
    before = images(channels=5)
    after = Photometric(**{name: 1})(before, generator())
    assert torch.equal(after[:, 3:], before[:, 3:])
    assert not torch.equal(after[:, :3], before[:, :3])


def test_contrast_by_hand():
    before = torch.tensor([0.25, 0.75]).view(1, 1, 1, 2)
    for seed in range(20):
        after = Photometric(contrast=1, contrast_bound=0.5, brightness_bound=0.1)(before, generator(seed))[0, 0, 0]
        spread, mean = (after[1] - after[0]).item(), after.mean().item()
        assert 0.25 <= spread <= 0.75 and abs(mean - 0.5) <= 0.1 + 1e-6


def test_saturation_keeps_the_luminance_and_grey():
    weights = torch.tensor([0.299, 0.587, 0.114])
    before = images()
    after = Photometric(saturation=1)(before, generator())
    luminance = [torch.einsum("nchw,c->nhw", one, weights) for one in (before, after)]
    torch.testing.assert_close(*luminance, atol=1e-5, rtol=0)
    grey = before[:, :1].repeat(1, 3, 1, 1)
    torch.testing.assert_close(Photometric(saturation=1)(grey, generator()), grey, atol=1e-6, rtol=0)


def test_blur_is_a_gaussian():
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1
    after = Photometric(blur=1, blur_sigma=1.5)(point, generator(4))[0, 0].numpy()
    sigma = np.sqrt((after.sum(0) * (np.arange(21) - 10) ** 2).sum())  # the second moment of its profile
    assert 0.3 <= sigma <= 1.5
    expected = cv2.GaussianBlur(point[0, 0].numpy(), (9, 9), sigma)
    assert np.abs(after - expected).max() < 0.02 and after.sum() == pytest.approx(1, abs=1e-5)


def test_noise_has_at_most_its_spread_on_all_channels():
    before = images(channels=4, height=100, width=100)
    spread = (Photometric(noise=1, noise_spread=0.05)(before, generator()) - before).flatten(2).std(2)
    assert (spread <= 0.052).all() and (spread > 0).all()


def test_fog_brightens_towards_white():
    before = images()
    after = Photometric(fog=1, fog_most=0.5)(before, generator())
    reach = before.amax((1, 2, 3), keepdim=True)
    share = ((after - before) / (reach - before).clamp(min=1e-2))[before < reach - 0.05]
    share = share.view(-1)
    assert (share >= 0).all() and (share <= 0.5).all()
    first = (after - before)[0] / (reach - before)[0].clamp(min=1e-2)
    inside = before[0] < reach[0] - 0.05
    assert first[inside].max() - first[inside].min() < 1e-4  # one share an image


def test_holes_take_the_images_mean():
    before = images(2, height=50, width=50)
    after = Photometric(holes=1, num_holes=2, hole_share=0.2)(before, generator())
    for old, new in zip(before, after, strict=True):
        hole = (old != new).any(0)
        assert 60 <= hole.sum() <= 250  # two of ten by ten or so, cut off at the border
        assert torch.allclose(new[:, hole], old.mean((1, 2))[:, None].expand(-1, int(hole.sum())))


def test_what_is_no_probability_is_refused():
    with pytest.raises(BadInput, match=r"blur=1\.5 is not a probability"):
        Photometric(blur=1.5)
