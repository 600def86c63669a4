"""SAM2's losses against plain loops over pixels, which candidate counts, and what an empty frame is told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vigil.mask_loss import MaskWeights, dice_loss, focal_loss, iou_loss, mask_decoder_loss, object_loss

N, M, Y, X = 4, 3, 5, 6


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, predicted fits, object logits and masks of four frames, the third of them empty."""
    draw = torch.Generator().manual_seed(0)
    logit = torch.randn(N, M, Y, X, generator=draw) * 3
    mask = torch.rand(N, Y, X, generator=draw) > 0.6
    mask[2] = False
    iou, object_logit = torch.rand(N, M, generator=draw), torch.randn(N, generator=draw)
    return logit.requires_grad_(), iou.requires_grad_(), object_logit.requires_grad_(), mask


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def plain_focal(logit: list[list[float]], mask: list[list[bool]]) -> float:
    total, n = 0.0, 0
    for row, truth in zip(logit, mask, strict=True):
        for value, true in zip(row, truth, strict=True):
            p = probability(value)
            alpha, p = (0.25, p) if true else (0.75, 1 - p)
            total += -alpha * (1 - p) ** 2 * math.log(p)
            n += 1
    return total / n


def plain_dice(logit: list[list[float]], mask: list[list[bool]]) -> float:
    overlap = area = 0.0
    for row, truth in zip(logit, mask, strict=True):
        for value, true in zip(row, truth, strict=True):
            overlap += probability(value) * true
            area += probability(value) + true
    return 1 - (2 * overlap + 1) / (area + 1)


def plain_iou(logit: list[list[float]], mask: list[list[bool]]) -> float:
    both = either = 0
    for row, truth in zip(logit, mask, strict=True):
        for value, true in zip(row, truth, strict=True):
            both += value > 0 and true
            either += value > 0 or true
    return both / max(either, 1)


def plain_total(case: tuple[Tensor, Tensor, Tensor, Tensor], weights: MaskWeights) -> dict[str, float]:
    logit, iou, object_logit, mask = (one.detach().tolist() for one in case)
    terms = {"mask": 0.0, "dice": 0.0, "iou": 0.0, "object": 0.0}
    for n in range(len(mask)):
        present = any(any(row) for row in mask[n])
        p = probability(object_logit[n])
        terms["object"] += -math.log(p if present else 1 - p) / len(mask)
        if not present:
            continue
        focal = [plain_focal(one, mask[n]) for one in logit[n]]
        dice = [plain_dice(one, mask[n]) for one in logit[n]]
        combined = [weights.mask * a + weights.dice * b for a, b in zip(focal, dice, strict=True)]
        best = combined.index(min(combined))
        terms["mask"] += focal[best] / len(mask)
        terms["dice"] += dice[best] / len(mask)
        unfit = [abs(said - plain_iou(one, mask[n])) for said, one in zip(iou[n], logit[n], strict=True)]
        terms["iou"] += (sum(unfit) / len(unfit) if weights.every_iou else unfit[best]) / len(mask)
    total = sum(getattr(weights, name) * value for name, value in terms.items())
    return {"loss": total, **terms}


def plainly(found: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in found.items()}


def test_each_loss_is_the_papers_over_pixels(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    logit, iou, object_logit, mask = case
    focal, dice, fit = focal_loss(logit, mask), dice_loss(logit, mask), iou_loss(iou, logit, mask)
    assert focal.shape == dice.shape == fit.shape == (N, M)
    for n in range(N):
        for m in range(M):
            one, truth = logit[n, m].tolist(), mask[n].tolist()
            assert focal[n, m].item() == pytest.approx(plain_focal(one, truth), rel=1e-5)
            assert dice[n, m].item() == pytest.approx(plain_dice(one, truth), rel=1e-5)
            assert fit[n, m].item() == pytest.approx(abs(iou[n, m].item() - plain_iou(one, truth)), rel=1e-5)
    present = mask.flatten(1).any(1)
    said = zip(object_logit.tolist(), present.tolist(), strict=True)
    plain = [-math.log(probability(one if there else -one)) for one, there in said]
    assert object_loss(object_logit, present).item() == pytest.approx(sum(plain) / N, rel=1e-5)


@pytest.mark.parametrize("weights", [MaskWeights(), MaskWeights(20, 2, 1, 2, every_iou=True), MaskWeights(0, 1, 0, 0)])
def test_the_total_is_that_of_a_plain_loop(case: tuple[Tensor, Tensor, Tensor, Tensor], weights: MaskWeights) -> None:
    found = mask_decoder_loss(*case, weights)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == dict.fromkeys(
        ("loss", "mask", "dice", "iou", "object"), (torch.Size([]), torch.float32)
    )
    assert plainly(found) == pytest.approx(plain_total(case, weights), rel=1e-5)


def test_the_weights_are_sam2s_unless_others_are_given(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    found = plainly(mask_decoder_loss(*case))
    by_hand = 20 * found["mask"] + found["dice"] + found["iou"] + found["object"]
    assert found["loss"] == pytest.approx(by_hand, rel=1e-5)


def test_nothing_found_where_nothing_is_fits_as_badly_as_nothing_found_at_all() -> None:
    logit, mask = torch.full((2, 1, 2, 2), -1.0), torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[1] = True
    assert iou_loss(torch.full((2, 1), 0.25), logit, mask).tolist() == [[0.25], [0.25]]


def test_only_the_best_candidate_of_a_frame_learns() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2] = True
    near = torch.where(mask, 2.0, -2.0)
    logit = torch.stack([-near, near, torch.zeros_like(near)], 1).requires_grad_()
    iou = torch.full((1, 3), 0.5, requires_grad=True)
    found = mask_decoder_loss(logit, iou, torch.zeros(1), mask)
    found["loss"].backward()
    assert found["iou"].item() == 0.5  # of the second, which fits entirely
    assert logit.grad is not None
    assert iou.grad is not None
    assert (logit.grad.flatten(2).abs().amax(-1) > 0).tolist() == [[False, True, False]]
    assert iou.grad.tolist() == [[0, -1, 0]]


def test_a_frame_without_mask_is_told_only_that_nothing_is_there(
    case: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    logit, iou, object_logit, mask = case
    mask_decoder_loss(*case)["loss"].backward()
    assert logit.grad is not None
    assert iou.grad is not None
    assert object_logit.grad is not None
    assert (logit.grad.flatten(1).abs().amax(1) > 0).tolist() == [True, True, False, True]
    assert (iou.grad.abs().amax(1) > 0).tolist() == [True, True, False, True]
    there = mask.flatten(1).any(1).float()
    torch.testing.assert_close(object_logit.grad, (object_logit.detach().sigmoid() - there) / N)


def test_frames_all_empty_still_give_every_input_a_gradient(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    logit, iou, object_logit, mask = case
    found = mask_decoder_loss(logit, iou, object_logit, torch.zeros_like(mask))
    found["loss"].backward()
    assert plainly(found)["mask"] == plainly(found)["dice"] == plainly(found)["iou"] == 0
    assert logit.grad is not None
    assert iou.grad is not None
    assert not logit.grad.any()
    assert not iou.grad.any()


def test_an_object_that_fills_the_frame_and_sure_logits_stay_finite() -> None:
    logit = torch.full((2, 3, 4, 4), 1e4, requires_grad=True)
    mask = torch.stack([torch.ones(4, 4), torch.eye(4)]).bool()
    found = mask_decoder_loss(logit, torch.ones(2, 3), torch.tensor([1e4, -1e4]), mask)
    found["loss"].backward()
    assert all(math.isfinite(value) for value in plainly(found).values())
    assert logit.grad is not None
    assert bool(torch.isfinite(logit.grad).all())


def test_logits_of_another_size_go_to_the_masks(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    _, iou, object_logit, mask = case
    small = torch.randn(N, M, 3, 2, generator=torch.Generator().manual_seed(1))
    enlarged = torch.nn.functional.interpolate(small, (Y, X), mode="bilinear", align_corners=False)
    found = plainly(mask_decoder_loss(small, iou, object_logit, mask))
    assert found == plainly(mask_decoder_loss(enlarged, iou, object_logit, mask))
    assert found == pytest.approx(plain_total((enlarged, iou, object_logit, mask), MaskWeights()), rel=1e-5)


def test_bfloat16_predictions_lose_nothing_more_than_their_own_rounding(
    case: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    logit, iou, object_logit, mask = case
    rough = [one.detach().bfloat16() for one in (logit, iou, object_logit)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mask_decoder_loss(*rough, mask)
    assert plainly(found) == plainly(mask_decoder_loss(*(one.float() for one in rough), mask))


def test_masks_that_do_not_fit_their_frames_are_refused(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    logit, iou, object_logit, mask = case
    with pytest.raises(ValueError, match=r"mask \(3, 5, 6\).*one mask for each frame"):
        mask_decoder_loss(logit, iou, object_logit, mask[:3])
    with pytest.raises(ValueError, match=r"iou \(4, 2\)"):
        mask_decoder_loss(logit, iou[:, :2], object_logit, mask)
    with pytest.raises(ValueError, match="at least one"):
        mask_decoder_loss(logit[:0], iou[:0], object_logit[:0], mask[:0])
    with pytest.raises(ValueError, match=r"mask is torch\.uint8; expected bool"):
        mask_decoder_loss(logit, iou, object_logit, mask.byte())
    with pytest.raises(ValueError, match=r"mask is torch\.float32; expected bool"):
        dice_loss(logit, mask.float())
    with pytest.raises(ValueError, match=r"logit \(4, 3, 5, 6\) and mask \(4, 5, 5\)"):
        focal_loss(logit, mask[..., :5])
    with pytest.raises(ValueError, match=r"iou \(4,\) beside"):
        iou_loss(iou[:, 0], logit, mask)
    with pytest.raises(ValueError, match=r"present torch.float32"):
        object_loss(object_logit, torch.ones(N))


def test_a_label_may_say_more_than_the_mask(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Equation 2 of LAVIDA: every frame of an anomalous clip is anomalous, also one that does not show the object."""
    present = torch.tensor([True, True, True, False])
    terms = mask_decoder_loss(*case, present=present)
    entropy = [
        -math.log(probability(value if true else -value)) for value, true in zip(case[2].tolist(), present, strict=True)
    ]
    assert float(terms["object"]) == pytest.approx(sum(entropy) / 4, rel=1e-5)
    assert float(terms["mask"]) == pytest.approx(plain_total(case, MaskWeights())["mask"], rel=1e-5)
