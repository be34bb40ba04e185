import math

import pytest
import torch
import torch.nn.functional as F

from command import BadInput
from datasets.augment import AUGMENTATIONS, Augment, Draws, brighten, flip, reflect, sample, sampling_grid, warp

OFF = AUGMENTATIONS["none"]
TRANSFORMS = ("cutout", "flip", "crop", "shear", "rotation", "elastic", "shift", "scale", "gamma", "zoom")
GEOMETRY = ("crop", "zoom", "shear", "rotation", "elastic")
ALL = Augment(**dict.fromkeys(TRANSFORMS, 1.0))


def only(*names, **settings):
    return Augment(**dict.fromkeys(TRANSFORMS, 0.0) | dict.fromkeys(names, 1.0) | settings)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiles(num_tiles=6, height=101, width=101, channels=3, seed=0):
    """Noise, with blobs of salt that differ from tile to tile."""
    random = generator(seed)
    images = torch.rand(num_tiles, channels, height, width, generator=random)
    coarse = torch.rand(num_tiles, 1, 5, 5, generator=random)
    masks = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)[:, 0] > 0.55
    return images, masks.to(torch.uint8)


def neutral(num_tiles=1, side=101, **changes):
    draws = OFF.draw(num_tiles, side, side, generator())
    return draws._replace(**{name: torch.as_tensor(value) for name, value in changes.items()})


def warped(image, draws):
    """One (H, W) image."""
    images = image[None, None].clone()
    warp(images, torch.zeros(1, *image.shape, dtype=torch.uint8), draws, 10)
    return images[0, 0]


# --- the batch as a whole


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_shapes_types_bounds_and_an_untouched_input(name, channels):
    images, masks = tiles(12, height=61, width=84, channels=channels)
    masks[3:6] *= 4  # a label map
    before = images.clone(), masks.clone()
    new_images, new_masks = AUGMENTATIONS[name](images, masks, generator())
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
    assert (new_images.shape, new_images.dtype) == (images.shape, images.dtype)
    assert (new_masks.shape, new_masks.dtype) == (masks.shape, masks.dtype)
    assert new_images.data_ptr() != images.data_ptr()
    assert new_masks.data_ptr() != masks.data_ptr()
    assert new_images.min() >= 0
    assert new_images.max() <= 1
    assert set(new_masks.unique().tolist()) <= {0, 1, 4}


def test_none_is_the_identity():
    images, masks = tiles()
    new_images, new_masks = AUGMENTATIONS["none"](images, masks, generator())
    assert torch.equal(new_images, images)
    assert torch.equal(new_masks, masks)


def test_tiles_without_draws_come_back_bit_for_bit():
    images, masks = tiles(64)
    augment = Augment(flip=0.2, cutout=0.2)
    draws = augment.draw(64, 101, 101, generator(5))
    drawn = draws.cutout | draws.flip
    drawn[draws.warped()] = True
    drawn[draws.brightened()] = True
    new_images, new_masks = augment(images, masks, generator(5))
    assert 5 < drawn.sum() < 59
    assert torch.equal(new_images[~drawn], images[~drawn])
    assert torch.equal(new_masks[~drawn], masks[~drawn])
    changed = (new_images != images).flatten(1).any(dim=1)
    assert (changed == drawn).sum() >= 60  # cutouts that would hide the salt were drawn and skipped


def test_one_seed_one_result():
    images, masks = tiles()
    first, second, other = (ALL(images, masks, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_as_many_numbers_are_drawn_whatever_happens(name: str):
    states = []
    for images, masks in (tiles(), [torch.zeros_like(one) for one in tiles()]):
        random = generator(3)
        AUGMENTATIONS[name](images, masks, random)
        states.append(random.get_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("shape", [(0, 3, 20, 20), (2, 1, 1, 1), (2, 3, 5, 200)])
def test_odd_batches(shape):
    images, masks = ALL(torch.rand(shape), torch.ones(shape[0], *shape[2:], dtype=torch.uint8), generator())
    assert images.shape == shape
    assert images.isfinite().all()
    assert masks.all()


def test_probabilities_over_many_draws():
    num_tiles = 40_000
    draws = Augment().draw(num_tiles, 101, 101, generator())
    happened = {
        "cutout": draws.cutout,
        "flip": draws.flip,
        "crop": draws.crop.any(dim=1),
        "shear": draws.shear != 0,
        "rotation": draws.rotation != 0,
        "elastic": (draws.stretch_x != 1).any(dim=1),
        "shift": draws.shift != 0,
        "scale": draws.scale != 1,
        "gamma": draws.gamma != 1,
    }
    for name, drawn in happened.items():
        probability = getattr(Augment(), name)
        noise = math.sqrt(probability * (1 - probability) / num_tiles)
        assert drawn.float().mean().item() == pytest.approx(probability, abs=4 * noise), name
    both = (happened["shear"] & happened["rotation"]).float().mean().item()
    assert both == pytest.approx(0.125**2, abs=0.003)  # drawn independently


def test_impossible_settings_are_refused():
    for settings in ({"flip": 1.5}, {"cutout": -0.1}, {"crop_share": 0.6}, {"elastic_amplitude": 1.0}):
        with pytest.raises(BadInput, match=next(iter(settings))):
            Augment(**settings)


# --- cutout


def cut(centre_x, centre_y, mask=None, channels=3, augment=None):
    images = torch.zeros(1, channels, 101, 101)
    masks = torch.zeros(1, 101, 101, dtype=torch.uint8) if mask is None else mask[None].clone()
    draws = neutral(cutout=[True], cutout_centre=[[centre_x, centre_y]])
    (augment or Augment())._cut_out(images, masks, draws)
    assert mask is None or torch.equal(masks[0], mask)
    return images[0]


def test_cutout_fills_30_by_30_pixels_per_channel():
    image = cut(40, 60)
    assert (image[:, 45:75, 25:55] == torch.tensor([0.485, 0.456, 0.406])[:, None, None]).all()
    assert (image > 0).sum() == 3 * 900


def test_cutout_is_clipped_at_the_borders():
    assert (cut(0, 0) > 0).sum() == 3 * 15 * 15
    assert (cut(100, 50) > 0).sum() == 3 * 16 * 30  # 85 .. 100 of 85 .. 114


def test_cutout_of_other_channels_takes_the_mean_colour():
    image = cut(50, 50, channels=1)
    torch.testing.assert_close(image.max(), torch.tensor((0.485 + 0.456 + 0.406) / 3))


@pytest.mark.parametrize(("hidden", "outside", "filled"), [(4, 4, True), (5, 4, False), (1, 0, False), (0, 7, True)])
def test_cutout_hides_at_most_half_of_the_salt(hidden, outside, filled):
    mask = torch.zeros(101, 101, dtype=torch.uint8)
    mask[50, 50 : 50 + hidden] = 1
    mask[90, 10 : 10 + outside] = 1
    assert bool((cut(50, 50, mask) > 0).any()) == filled


def test_cutout_centres_are_uniform_over_the_tile():
    centre = Augment().draw(20_000, 31, 101, generator()).cutout_centre
    assert torch.equal(centre, centre.round())
    assert (centre.amin(dim=0).tolist(), centre.amax(dim=0).tolist()) == ([0, 0], [100, 30])
    assert centre.mean(dim=0).tolist() == pytest.approx([50, 15], abs=1)


# --- geometry


def test_flip_is_exact():
    images, masks = tiles()
    new_images, new_masks = only("flip")(images, masks, generator())
    assert torch.equal(new_images, images.flip(-1))
    assert torch.equal(new_masks, masks.flip(-1))


def test_flip_of_some():
    images, masks = tiles(3)
    expected = images.clone()
    expected[1] = expected[1].flip(-1)
    flip(images, masks, neutral(3, flip=[False, True, False]))
    assert torch.equal(images, expected)


def test_shear_moves_the_edges_against_each_other():
    image = torch.rand(101, 101, generator=generator())
    result = warped(image, neutral(shear=[4.0]))
    torch.testing.assert_close(result[0, 4:], image[0, :-4], atol=1e-4, rtol=0)
    torch.testing.assert_close(result[0, :4], image[0, 1:5].flip(0), atol=1e-4, rtol=0)  # reflect-101
    torch.testing.assert_close(result[-1, :-4], image[-1, 4:], atol=1e-4, rtol=0)
    torch.testing.assert_close(result[-1, -4:], image[-1, -5:-1].flip(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(result[50], image[50], atol=1e-4, rtol=0)
    torch.testing.assert_close(result[25, 2:], image[25, :-2], atol=1e-4, rtol=0)


def test_shear_stays_within_seven_percent_of_the_width():
    shear = only("shear").draw(5000, 50, 101, generator()).shear
    assert 6.9 < shear.max() <= 7.07
    assert -7.07 <= shear.min() < -6.9


def test_crop_shows_its_rectangle_from_corner_to_corner():
    image = torch.rand(101, 101, generator=generator())
    result = warped(image, neutral(crop=[[3.0, 5.0, 7.0, 0.0]]))
    corners = image[[7, 7, 100, 100], [3, 95, 3, 95]]
    torch.testing.assert_close(result[[0, 0, 100, 100], [0, 100, 0, 100]], corners, atol=1e-4, rtol=0)
    ramp = warped(torch.linspace(0, 1, 101).expand(101, 101), neutral(crop=[[10.0, 10.0, 0.0, 0.0]]))
    torch.testing.assert_close(ramp[50], torch.linspace(0.1, 0.9, 101))


def test_crop_loses_less_than_a_fifth_of_each_side():
    crop = only("crop").draw(5000, 50, 101, generator()).crop
    assert torch.equal(crop, crop.round())
    assert crop.amin(dim=0).tolist() == [0, 0, 0, 0]
    assert crop.amax(dim=0).tolist() == [19, 19, 9, 9]
    correlation = torch.corrcoef(crop.T) - torch.eye(4)
    assert correlation.abs().max() < 0.06  # each edge by itself


def test_a_quarter_turn_is_exact():
    image = torch.rand(101, 101, generator=generator())
    result = warped(image, neutral(rotation=[math.pi / 2]))
    torch.testing.assert_close(result, image.rot90(1), atol=2e-4, rtol=0)


def test_rotation_keeps_a_centred_disc():
    y, x = torch.meshgrid(torch.arange(101) - 50, torch.arange(101) - 50, indexing="ij")
    disc = ((x**2 + y**2) < 30**2).to(torch.uint8).expand(8, 101, 101)
    masks = only("rotation")(disc[:, None].float(), disc, generator())[1]
    both, either = (masks & disc).sum(dim=(1, 2)), (masks | disc).sum(dim=(1, 2))
    assert (both / either).min() > 0.97
    half = disc * (x > 0)
    assert (only("rotation")(half[:, None].float(), half, generator())[1] != half).flatten(1).any(dim=1).all()


def test_rotation_stays_within_15_degrees():
    degrees = only("rotation").draw(5000, 101, 101, generator()).rotation.rad2deg()
    assert 14.9 < degrees.max() <= 15.001
    assert -15.001 <= degrees.min() < -14.9


def test_elastic_steps_accumulate_from_the_top_left():
    stretch = torch.ones(1, 10)
    stretch[0, 0], stretch[0, 2] = 1.1, 0.9
    grid = sampling_grid(neutral(stretch_x=stretch), 101, 101, 10)
    x = (grid[0, 50, :, 0] + 1) * 50
    expected = {0: 0, 5: 5.5, 10: 11, 20: 21, 25: 25.5, 30: 30, 70: 70, 100: 100}
    assert {i: pytest.approx(x[i].item(), abs=1e-4) for i in expected} == expected
    torch.testing.assert_close((grid[0, :, 50, 1] + 1) * 50, torch.arange(101.0))


def test_elastic_grid_is_monotone_until_the_border():
    draws = only("elastic", elastic_amplitude=0.9).draw(50, 101, 73, generator())
    assert draws.stretch_x.min() > 0
    assert draws.stretch_y.min() > 0
    mild = only("elastic").draw(50, 101, 73, generator())
    x = (sampling_grid(mild, 101, 73, 10)[:, 0, :, 0] + 1) * 36
    steps = x.diff(dim=1)
    assert (steps[:, :50] > 0.849).all()  # where no path can have reached the border
    assert (steps.abs() < 1.151).all()


def test_elastic_amplitude_is_one_per_tile_and_bounded():
    stretch = only("elastic").draw(4000, 101, 101, generator()).stretch_x - 1
    assert 0.14 < stretch.abs().max() <= 0.15
    largest = stretch.abs().amax(dim=1)
    assert largest.quantile(0.1) < 0.03  # amplitudes near 0 occur: one amplitude rules all steps of a tile
    images, masks = tiles()
    new_images, new_masks = only("elastic", elastic_amplitude=0)(images, masks, generator())
    assert torch.equal(new_images, images)
    assert torch.equal(new_masks, masks)


def test_neutral_grid_reads_every_pixel_at_its_place():
    image = torch.rand(2, 1, 61, 84, generator=generator())
    grid = sampling_grid(OFF.draw(2, 61, 84, generator()), 61, 84, 10)
    assert torch.equal(sample(image, grid, "nearest"), image)
    torch.testing.assert_close(sample(image, grid, "bilinear"), image, atol=1e-4, rtol=0)


def test_reflect():
    positions = torch.tensor([-3.0, -0.5, 0.0, 7.0, 10.0, 10.5, 12.0, 20.0, 23.0, -11.0])
    assert reflect(positions, 10).tolist() == [3.0, 0.5, 0.0, 7.0, 10.0, 9.5, 8.0, 0.0, 3.0, 9.0]


@pytest.mark.parametrize("names", [*((name,) for name in ("flip", *GEOMETRY)), ("flip", *GEOMETRY)], ids="+".join)
def test_a_mask_coloured_image_stays_equal_to_its_mask(names):
    _, masks = tiles(12)
    images = masks[:, None].float().repeat(1, 3, 1, 1)
    augment = only(*names)
    new_images, new_masks = augment(images, masks, generator(4))
    surely_salt, surely_none = new_images > 1 - 1e-3, new_images < 1e-3
    assert (new_masks[:, None].expand_as(new_images)[surely_salt] == 1).all()
    assert (new_masks[:, None].expand_as(new_images)[surely_none] == 0).all()
    assert (surely_salt | surely_none).float().mean() > 0.9
    if names != ("flip",):  # sampled by nearest like the mask: equal to the last pixel
        draws = augment.draw(12, 101, 101, generator(4))
        flip(images, masks, draws)
        images = sample(images, sampling_grid(draws, 101, 101, 10), "nearest")
        assert torch.equal(images, new_masks[:, None].expand_as(images).float())


def test_quarters_are_exact_and_all_eight_come():
    images = torch.arange(16.0).view(1, 1, 4, 4).repeat(400, 3, 1, 1) / 16
    masks = torch.arange(16, dtype=torch.uint8).view(1, 4, 4).repeat(400, 1, 1)
    new_images, new_masks = AUGMENTATIONS["safe"](images, masks, generator())
    assert torch.equal(new_images[:, 0] * 16, new_masks.float())
    assert len(new_masks.flatten(1).unique(dim=0)) == 8
    wide, wide_masks = images[:, :, :3], masks[:, :3]
    new_images, new_masks = AUGMENTATIONS["safe"](wide, wide_masks, generator())
    assert torch.equal(new_images[:, 0] * 16, new_masks.float())
    assert len(new_masks.flatten(1).unique(dim=0)) == 2  # half turns alone keep the shape


def test_zoom_by_hand():
    image = torch.zeros(101, 101)
    image[46:55, 46:55] = 1  # 9 pixels wide, in the middle
    grown = warped(image, neutral(zoom=[2.0], move=[[10.0, -20.0]]))
    rows, columns = (grown > 0.5).nonzero().T
    assert (columns.max() - columns.min() + 1) in (17, 18, 19) and (rows.max() - rows.min() + 1) in (17, 18, 19)
    assert columns.float().mean() == pytest.approx(60, abs=0.6) and rows.float().mean() == pytest.approx(30, abs=0.6)


# --- brightness


def brightened(value, **changes):
    images = torch.full((1, 3, 2, 2), value)
    brighten(images, neutral(**changes))
    return images[0, 0, 0, 0].item()


def test_brightness_by_hand():
    assert brightened(0.5, shift=[0.1]) == pytest.approx(0.6)
    assert brightened(0.5, scale=[0.9]) == pytest.approx(0.45)
    assert brightened(0.25, gamma=[0.5]) == pytest.approx(0.5)
    assert brightened(0.4, shift=[0.1], scale=[1.08], gamma=[2.0]) == pytest.approx(((0.4 + 0.1) * 1.08) ** 2)


def test_brightness_is_clipped():
    assert brightened(0.05, shift=[-0.1]) == 0
    assert brightened(0.05, shift=[-0.1], gamma=[0.95]) == 0  # not nan
    assert brightened(0.99, scale=[1.08]) == 1
    assert brightened(0.95, shift=[0.1], scale=[0.95]) == pytest.approx(0.95)  # clipped between the two


def test_brightness_bounds():
    draws = only("shift", "scale", "gamma").draw(5000, 11, 11, generator())
    assert (draws.shift.min(), draws.shift.max()) == (pytest.approx(-0.1, abs=1e-3), pytest.approx(0.1, abs=1e-3))
    assert (draws.scale.min(), draws.scale.max()) == (pytest.approx(0.92, abs=1e-3), pytest.approx(1.08, abs=1e-3))
    exponent = 1 / draws.gamma
    assert (exponent.min(), exponent.max()) == (pytest.approx(0.92, abs=1e-3), pytest.approx(1.08, abs=1e-3))


def test_brightness_leaves_masks_and_position():
    images, masks = tiles()
    new_images, new_masks = only("shift")(images * 0.5 + 0.2, masks, generator())
    assert torch.equal(new_masks, masks)
    shift = new_images - (images * 0.5 + 0.2)
    torch.testing.assert_close(shift, shift[:, :1, :1, :1].expand_as(shift), atol=1e-6, rtol=0)


# --- order


def test_cutout_is_warped_and_brightened_with_the_tile():
    augment = only("cutout", "flip", "shift", cutout_fill=(0.5,))
    images, masks = torch.zeros(20, 1, 101, 101), torch.zeros(20, 101, 101, dtype=torch.uint8)
    draws = augment.draw(20, 101, 101, generator(6))
    new_images, _ = augment(images, masks, generator(6))
    for image, centre, shift in zip(new_images[:, 0], draws.cutout_centre, draws.shift, strict=True):
        torch.testing.assert_close(image.max(), 0.5 + shift)
        columns = (image > image.min() + 0.3).any(dim=0).nonzero()[:, 0]
        first, last = max(0, centre[0].int() - 15), min(100, centre[0].int() + 14)
        assert (columns.min(), columns.max()) == (100 - last, 100 - first)


def test_one_grid_equals_one_transform_after_the_other():
    """Crop, zoom, shear, rotation, elastic in this order, each by an image of its own, on a smooth tile."""
    coarse = torch.rand(8, 1, 4, 4, generator=generator())
    smooth = F.interpolate(coarse, size=(101, 101), mode="bicubic", align_corners=True)
    draws = only(*GEOMETRY, elastic_amplitude=0.1).draw(8, 101, 101, generator(7))

    def one_by_one(order):
        fields = {"elastic": ("stretch_x", "stretch_y"), "zoom": ("zoom", "move")}
        images = smooth
        for name in order:
            step = neutral(8)._replace(**{field: getattr(draws, field) for field in fields.get(name, (name,))})
            images = sample(images, sampling_grid(step, 101, 101, 10), "bilinear")
        return images

    at_once = sample(smooth, sampling_grid(draws, 101, 101, 10), "bilinear")
    right = (one_by_one(GEOMETRY) - at_once).abs()
    wrong = (one_by_one(GEOMETRY[::-1]) - at_once).abs()
    assert right.mean() < 0.002
    assert right.max() < 0.03
    assert wrong.mean() > 5 * right.mean()


def test_flip_comes_before_the_grid():
    image = torch.rand(1, 1, 101, 101, generator=generator())
    draws = neutral(flip=[True], crop=[[19.0, 0.0, 0.0, 0.0]])
    images, masks = image.clone(), torch.zeros(1, 101, 101, dtype=torch.uint8)
    flip(images, masks, draws)
    warp(images, masks, draws, 10)
    torch.testing.assert_close(images[0, 0, 0, 0], image[0, 0, 0, 100 - 19], atol=1e-4, rtol=0)


def test_seismic_is_milder():
    light, full = (AUGMENTATIONS[name].draw(4000, 101, 101, generator()) for name in ("seismic", "saltnet"))
    assert isinstance(light, Draws)
    assert not light.cutout.any()
    assert (light.stretch_x == 1).all()
    assert light.flip.any()
    for name in ("crop", "shear", "rotation", "shift"):
        assert 0 < getattr(light, name).abs().max() < getattr(full, name).abs().max()
