import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from command import BadInput
from datasets import framing

sides = st.integers(2, 24)


def random_images(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_pad_by_hand():
    """1 before and 2 after, mirrored at the pixels of the edge, which are not repeated."""
    padded = framing.build("pad", (3, 3), 6).frame(torch.arange(9.0).reshape(1, 1, 3, 3))[0, 0]
    assert padded[1].tolist() == [1, 0, 1, 2, 1, 0]
    assert padded[:, 1].tolist() == [3, 0, 3, 6, 3, 0]


def test_pad_of_a_salt_tile_is_13_before_and_14_after():
    images = random_images(101, 101)
    framed = framing.build("pad", (101, 101)).frame(images)
    assert framed.shape == (2, 3, 128, 128)
    assert torch.equal(framed[..., 13:114, 13:114], images)
    assert torch.equal(framed[..., 12, 13:114], images[..., 1, :])
    assert torch.equal(framed[..., 127, 13:114], images[..., 100 - 14, :])


@given(sides, sides, st.integers(0, 20))
@settings(deadline=None)
def test_pad_agrees_with_numpy_and_is_undone_exactly(height, width, more):
    image_size = max(height, width) + more
    if image_size - min(height, width) - (image_size - min(height, width)) // 2 >= min(height, width):
        with pytest.raises(BadInput, match="a reflection reaches"):
            framing.build("pad", (height, width), image_size)
        return
    pad, images = framing.build("pad", (height, width), image_size), random_images(height, width)
    before = [(image_size - side) // 2 for side in (height, width)]
    after = [image_size - side - b for side, b in zip((height, width), before, strict=True)]
    expected = np.pad(images, [(0, 0), (0, 0), *zip(before, after, strict=True)], mode="reflect")
    assert np.array_equal(pad.frame(images), expected)
    assert torch.equal(pad.unframe(pad.frame(images)), images)


@given(sides, sides, st.integers(0, 40), st.integers(0, 9))
@settings(deadline=None)
def test_resize_is_undone_within_its_bound(height, width, more, seed):
    resize = framing.build("resize", (height, width), max(height, width) + more)
    images = random_images(height, width, seed)
    neighbours = max(images.diff(dim=2).abs().max(), images.diff(dim=3).abs().max())
    bound = (height + width) / (2 * resize.image_size) * neighbours + 1e-5
    assert (resize.unframe(resize.frame(images)) - images).abs().max() <= bound


def fits(variant: str, height: int, width: int, image_size: int) -> bool:
    """By the rules in words: one pixel or more, and pad neither cuts nor reflects more than there is."""
    after = [image_size - side - (image_size - side) // 2 for side in (height, width)]
    padded = image_size >= max(height, width) and after[0] < height and after[1] < width
    return min(height, width, image_size) >= 1 and (variant == "resize" or padded)


@given(st.sampled_from(list(framing.VARIANTS)), st.integers(-1, 20), st.integers(-1, 20), st.integers(-1, 45))
@settings(max_examples=400, derandomize=True, deadline=None)
def test_any_sizes_are_refused_or_undone(variant, height, width, image_size):
    if not fits(variant, height, width, image_size):
        with pytest.raises(BadInput) as error:
            framing.build(variant, (height, width), image_size)
        assert "expected" in str(error.value) or ": use " in str(error.value)
        return
    frame, images = framing.build(variant, (height, width), image_size), random_images(height, width)
    framed, masks = frame.frame(images), (images[:, 0] > 0.5).to(torch.uint8)
    back, framed_masks = frame.unframe(framed), frame.frame_mask(masks)
    assert framed.shape == (2, 3, image_size, image_size) and back.shape == images.shape
    assert set(framed_masks.unique().tolist()) <= set(masks.unique().tolist())
    assert framed.min() >= images.min() - 1e-6 and framed.max() <= images.max() + 1e-6
    if variant == "pad":
        assert torch.equal(back, images) and torch.equal(frame.unframe(framed_masks), masks)
        assert torch.equal(framed_masks, (framed[:, 0] > 0.5).to(torch.uint8))
    elif image_size >= max(height, width):
        steps = [images.diff(dim=side).abs().max() for side in (2, 3) if images.shape[side] > 1]
        bound = (height + width) / (2 * image_size) * max(steps, default=0) + 1e-5
        assert (back - images).abs().max() <= bound


@pytest.mark.parametrize("variant", framing.VARIANTS)
def test_flat_images_stay_flat(variant):
    frame = framing.build(variant, (101, 101))
    flat = torch.full((1, 1, 101, 101), 0.3)
    assert torch.allclose(frame.unframe(frame.frame(flat)), flat, atol=1e-6)


def test_resize_to_the_same_size_changes_nothing():
    resize, images = framing.build("resize", (16, 16), 16), random_images(16, 16)
    assert torch.equal(resize.unframe(resize.frame(images)), images)


def test_resize_of_a_mask_takes_the_nearest_pixel_centre():
    mask = torch.tensor([[[0, 1, 0]] * 3], dtype=torch.uint8)
    centres = (np.arange(5) + 0.5) * 3 / 5 - 0.5  # in the tile's pixels: 0.8 lies nearest to 1, 2.0 to 2
    expected = mask[0, 0][np.rint(centres).astype(int)]
    assert torch.equal(framing.build("resize", (3, 3), 5).frame_mask(mask)[0, 0], expected)


def test_resize_reads_every_pixel_when_it_shrinks():
    """One bright pixel in 64 keeps its share of the mean; plain bilinear sampling would skip most of them."""
    images = torch.zeros(1, 1, 64, 64)
    images[..., ::8, ::8] = 1
    assert framing.build("resize", (64, 64), 8).frame(images).mean() == pytest.approx(1 / 64, rel=0.2)


@pytest.mark.parametrize("variant", framing.VARIANTS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32])
def test_masks_keep_their_type_and_values(variant, dtype):
    frame = framing.build(variant, (30, 20), 32)
    masks = (random_images(30, 20)[:, 0] > 0.5).to(torch.uint8)
    framed = frame.frame_mask(masks.to(dtype))
    assert framed.shape == (2, 32, 32) and framed.dtype == dtype
    assert set(framed.unique().tolist()) == {0, 1}


def test_images_and_masks_are_framed_alike():
    """A mask as an image, framed as an image, is the framed mask (by nearest in resize: above one half)."""
    masks = torch.zeros(1, 101, 101)
    masks[:, 40:, 20:70] = 1
    for variant in framing.VARIANTS:
        frame = framing.build(variant, (101, 101))
        as_image = frame.frame(masks[:, None])[:, 0]
        assert ((as_image > 0.5).float() - frame.frame_mask(masks)).abs().sum() <= 2 * 128


def test_pad_takes_its_loss_on_the_tile():
    pad = framing.build("pad", (101, 101))
    logits, masks = random_images(128, 128), torch.ones(2, 101, 101)
    assert torch.equal(pad.loss_view(logits), logits[:, :, 13:114, 13:114])
    assert pad.loss_mask(masks) is masks


def test_resize_takes_its_loss_at_the_size_of_the_net():
    resize = framing.build("resize", (101, 101))
    logits, masks = random_images(128, 128), (random_images(101, 101)[:, 0] > 0.5).to(torch.uint8)
    assert resize.loss_view(logits) is logits
    assert torch.equal(resize.loss_mask(masks), resize.frame_mask(masks))
    assert resize.loss_mask(masks).shape == (2, 128, 128)


@pytest.mark.parametrize("variant", framing.VARIANTS)
def test_predictions_come_back_at_101_not_128(variant):
    assert framing.build(variant, (101, 101)).unframe(torch.rand(2, 1, 128, 128)).shape == (2, 1, 101, 101)


@pytest.mark.parametrize("variant", framing.VARIANTS)
def test_unframe_passes_gradients(variant):
    logits = torch.rand(1, 1, 32, 32, requires_grad=True)
    framing.build(variant, (20, 24), 32).unframe(logits).sum().backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("variant", "tile_size", "image_size", "said"),
    [
        ("pat", (101, 101), 128, "got --variant=pat, expected one of pad, resize"),
        ("pad", (101, 130), 128, "--image_size=128 is smaller than the tiles (101x130)"),
        ("pad", (40, 101), 128, "would pad tiles of 40x101 by 44 pixels, and a reflection reaches 39 at most"),
        ("pad", (101, 101), 0, "--image_size=0, expected 1 or more"),
        ("resize", (0, 101), 128, "got tiles of 0x101"),
    ],
)
def test_bad_sizes_are_refused(variant, tile_size, image_size, said):
    with pytest.raises(BadInput) as error:
        framing.build(variant, tile_size, image_size)
    assert said in str(error.value)


@pytest.mark.parametrize("variant", framing.VARIANTS)
def test_tiles_of_another_size_are_refused(variant):
    frame = framing.build(variant, (101, 101))
    for act, x in ((frame.frame, torch.rand(1, 3, 101, 100)), (frame.loss_mask, torch.rand(1, 102, 101))):
        with pytest.raises(BadInput, match="expected 101x101"):
            act(x)


def test_largest_reflection():
    """Padding by one less than the side is the most that reflection can do."""
    images = random_images(5, 5)
    pad = framing.build("pad", (5, 5), 13)
    assert torch.equal(pad.frame(images), F.pad(images, (4, 4, 4, 4), mode="reflect"))
