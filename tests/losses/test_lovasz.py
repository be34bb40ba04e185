import pytest
import torch
import torch.nn.functional as F

from bench.plain import lovasz_hinge as slow_hinge
from bench.plain import symmetric_lovasz as slow_symmetric
from losses.lovasz import _descending, lovasz_hinge, symmetric_lovasz


def masks(size=20):
    """Random, empty, full, one-pixel, half and all-but-one-pixel masks."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.rand(8, size, size, generator=generator) > 0.6).to(torch.uint8)
    mask[1], mask[2], mask[3], mask[6] = 0, 1, 0, 1
    mask[3, 4, 5], mask[6, 7, 7] = 1, 0
    mask[4, : size // 2], mask[4, size // 2 :] = 1, 0
    return mask


def random_logits(shape, spread=3.0):
    """Multiples of 2^-16: 1 - logit is exact in float32 too, so both precisions rank the errors alike."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
    return (logits * 2**16).round() / 2**16


def value_and_gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach().double(), gradient.double()


FORMS = {
    "hinge": (lovasz_hinge, lambda o, t: torch.stack([slow_hinge(a, b) for a, b in zip(o, t, strict=True)]).mean()),
    "symmetric": (symmetric_lovasz, slow_symmetric),
    "non-empty": (lambda o, t: symmetric_lovasz(o, t, non_empty_only=True), lambda o, t: slow_symmetric(o, t, True)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_agrees_with_one_image_at_a_time(form, dtype, tolerance):
    fast, slow = FORMS[form]
    mask, logits = masks(), random_logits((8, 20, 20))
    expected, expected_gradient = value_and_gradient(lambda o: slow(o, mask), logits)
    value, gradient = value_and_gradient(lambda o: fast(o, mask), logits.to(dtype))
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=tolerance * 1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("index", range(7))
def test_agrees_on_every_kind_of_mask_by_itself(index, dtype, tolerance):
    mask, logits = masks()[index : index + 1], random_logits((1, 20, 20), spread=10)
    expected = slow_symmetric(logits, mask)
    torch.testing.assert_close(symmetric_lovasz(logits.to(dtype), mask).double(), expected, rtol=tolerance, atol=0)


def test_agrees_at_full_tile_size():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 101, 101, generator=generator)
    mask = torch.rand(4, 101, 101, generator=generator) > 0.8
    expected = slow_symmetric(logits.double(), mask.to(torch.uint8))
    torch.testing.assert_close(symmetric_lovasz(logits, mask).double(), expected, rtol=1e-6, atol=0)


def test_a_right_and_sure_tile_keeps_its_digits():
    """elu(error) + 1 computed as 1 + (exp - 1) would be 0 or several per cent off in float32."""
    mask = torch.tensor([[[1, 0]]])
    logits = torch.tensor([[[16.0, -16.0]]])
    assert symmetric_lovasz(logits, mask).item() == pytest.approx(torch.tensor(-15.0).double().exp().item(), rel=1e-6)


def test_two_pixels_by_hand():
    # errors: salt 1 - 0.5 = 0.5, other 1 + 0.5 = 1.5. Falling: 1.5 (other), 0.5 (salt).
    # Jaccard loss of {other wrong} = 1 - 1/2, of both = 1: weights 0.5, 0.5: 0.5 * 2.5 + 0.5 * 1.5 = 2.
    # The complement's only pixel is the other one: its loss is 1 after the first error: weights 1, 0: 2.5.
    logits, mask = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1, 0]]])
    assert lovasz_hinge(logits, mask).item() == 2.0
    assert lovasz_hinge(-logits, 1 - mask).item() == 2.5
    assert symmetric_lovasz(logits, mask).item() == 2.25


def test_empty_mask():
    logits = random_logits((1, 6, 6)).float()
    largest = F.elu(1 + logits.max()) + 1
    everywhere = (F.elu(1 + logits) + 1).mean()
    empty = torch.zeros(1, 6, 6)
    torch.testing.assert_close(lovasz_hinge(logits, empty), largest)
    torch.testing.assert_close(symmetric_lovasz(logits, empty), (largest + everywhere) / 2)


def test_full_mask_is_the_mean_over_pixels():
    logits = random_logits((1, 6, 6)).float()
    torch.testing.assert_close(lovasz_hinge(logits, torch.ones(1, 6, 6)), (F.elu(1 - logits) + 1).mean())


def test_both_halves_change_places_with_the_classes():
    mask, logits = masks(), random_logits((8, 20, 20))
    torch.testing.assert_close(symmetric_lovasz(-logits, 1 - mask), symmetric_lovasz(logits, mask), rtol=0, atol=0)


def test_batch_is_the_mean_of_its_images():
    mask, logits = masks(), random_logits((8, 20, 20))
    alone = torch.stack([symmetric_lovasz(logits[i : i + 1], mask[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(symmetric_lovasz(logits, mask), alone.mean())
    torch.testing.assert_close(symmetric_lovasz(logits, mask, True), alone[mask.bool().flatten(1).any(1)].mean())


def test_no_salt_at_all_is_zero_with_a_gradient():
    logits = torch.randn(3, 5, 5, requires_grad=True)
    loss = symmetric_lovasz(logits, torch.zeros(3, 5, 5), non_empty_only=True)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 5, 5))


def test_gradient_by_differences():
    logits = random_logits((2, 3, 3), spread=1).requires_grad_()
    mask = masks()[[0, 3], 3:6, 4:7]
    assert torch.autograd.gradcheck(lambda o: symmetric_lovasz(o, mask), logits, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_float32_inside_autocast(dtype):
    mask, logits = masks(), random_logits((8, 20, 20)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = symmetric_lovasz(logits, mask)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, symmetric_lovasz(logits.float(), mask))


def test_both_sorts_rank_alike():
    errors = torch.tensor([[0.0, 3.0, -2.0, 3.0, -0.5, 1e-30, -1e30, 1e30, -2.0]])
    expected = [7, 1, 3, 5, 0, 4, 2, 8, 6]
    assert _descending(errors).tolist() == [expected]
    assert _descending(errors.double()).tolist() == [expected]
    random = torch.randn(3, 999, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_descending(random), random.argsort(dim=1, descending=True, stable=True))


def test_mask_stays_and_shapes_are_checked():
    mask = masks()
    before = mask.clone()
    symmetric_lovasz(random_logits((8, 20, 20)), mask)
    assert torch.equal(mask, before)
    with pytest.raises(ValueError, match=r"expected \(N, H, W\) twice"):
        symmetric_lovasz(torch.zeros(8, 1, 20, 20), mask)
