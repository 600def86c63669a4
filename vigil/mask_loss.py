"""SAM2's training loss: masks, their predicted fit, and whether there is an object at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ALPHA = 0.25  # of the focal loss, whose gamma is 2, as in SAM2's training


@dataclass(frozen=True)
class MaskWeights:
    """What each term counts. Defaults: SAM2's training, arXiv:2408.00714; LAVIDA's code has 20, 2, 1, 2.

    every_iou: whether every candidate learns how well it fits, their mean, as in SAM2's training, or the best alone, as
    in LAVIDA's code, where one that is never the best says what it likes.
    """

    mask: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    object: float = 1.0
    every_iou: bool = False


SAM2_WEIGHTS = MaskWeights()


def focal_loss(logit: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of pixels, easy ones discounted by (1 - p)^2, mean over pixels: float32 (N, M).

    logit (N, M, Y, X), mask bool (N, Y, X), else ValueError. Source: arXiv:1708.02002, with SAM2's alpha.
    """
    logit, target = _aligned(logit, mask)
    entropy = functional.binary_cross_entropy_with_logits(logit, target.expand_as(logit), reduction="none")
    balance = torch.where(target > 0, ALPHA, 1 - ALPHA)
    return (balance * (logit.sigmoid() - target).square() * entropy).mean((-2, -1))


def dice_loss(logit: Tensor, mask: Tensor) -> Tensor:
    """1 - (2 overlap + 1) / (sum of both areas + 1) of soft masks: float32 (N, M), in [0, 1).

    logit (N, M, Y, X), mask bool (N, Y, X), else ValueError. Source: SAM2's training code, which smooths by 1.
    """
    logit, target = _aligned(logit, mask)
    score = logit.sigmoid()
    areas = score.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * (score * target).sum((-2, -1)) + 1) / (areas + 1)


def iou_loss(iou: Tensor, logit: Tensor, mask: Tensor) -> Tensor:
    """How far the predicted intersection over union is from that of logit > 0: float32 (N, M).

    iou (N, M), in [0, 1]; logit (N, M, Y, X), which gets no gradient; mask bool (N, Y, X), else ValueError. Where both
    masks are empty the true one is 0, as in SAM2's training code.
    """
    logit, target = _aligned(logit, mask)
    if iou.shape != logit.shape[:2]:
        raise ValueError(f"iou {tuple(iou.shape)} beside logit {tuple(logit.shape)}; expected (N, M) and (N, M, Y, X)")
    found, true = logit > 0, target > 0
    union = (found | true).sum((-2, -1)).clamp(min=1)
    return (iou.float() - (found & true).sum((-2, -1)) / union).abs()


def object_loss(object_logit: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of whether a frame holds the object: float32 (). object_logit (N,), present bool (N,)."""
    if object_logit.ndim != 1 or object_logit.shape != present.shape or present.dtype != torch.bool:
        raise ValueError(
            f"object_logit {tuple(object_logit.shape)}, present {present.dtype} {tuple(present.shape)}; expected (N,) "
            "and bool (N,) of the same N"
        )
    return functional.binary_cross_entropy_with_logits(object_logit.float(), present.float())


def mask_decoder_loss(
    logit: Tensor,
    iou: Tensor,
    object_logit: Tensor,
    mask: Tensor,
    weights: MaskWeights = SAM2_WEIGHTS,
    present: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighted "loss", and its terms "mask" (focal), "dice", "iou", "object" before their weights, float32 ().

    logit (N, M, Y, X) of M candidates, of any size: bilinear to the mask's. iou (N, M); object_logit (N,); mask bool
    (N, Y, X). Of each frame only the candidate of least weighted focal and dice loss counts; a frame without any pixel
    of mask has the object term alone. Terms are sums over frames divided by N. present bool (N,): whether a frame is to
    be taken for anomalous; by default where its mask has a pixel.
    Raises ValueError for no frame, masks that are not bool, and shapes that do not fit.
    Source: SAM2's training, arXiv:2408.00714, which LAVIDA, arXiv:2602.19248, eq. 10, takes over. Differs: divided by
    frames, not by tracked objects; of LAVIDA's code, no gate by the object score, which takes the masks their gradient.
    """
    n, m = logit.shape[:2]
    if not n or logit.ndim != 4 or mask.ndim != 3 or len(mask) != n or iou.shape != (n, m) or len(object_logit) != n:
        raise ValueError(
            f"logit {tuple(logit.shape)}, iou {tuple(iou.shape)}, object_logit {tuple(object_logit.shape)} and mask "
            f"{tuple(mask.shape)}; expected (N, M, Y, X), (N, M), (N,) and (N, Y, X), one mask for each frame and at "
            "least one"
        )
    _refuse_soft(mask)
    shows = mask.flatten(1).any(1)
    # may be none: a sum over no frame still reaches every weight of the decoder, which DDP waits for
    shown, candidates, fit = mask[shows], logit[shows], iou[shows]
    with torch.no_grad():  # the gradient of one candidate takes a third of the memory
        every = _resized(candidates, mask)
        best = (weights.mask * focal_loss(every, shown) + weights.dice * dice_loss(every, shown)).argmin(1)
    row = torch.arange(len(best), device=best.device)
    chosen = _resized(candidates[row, best][:, None], mask)
    unfit = iou_loss(fit, every, shown)
    terms = {
        "mask": focal_loss(chosen, shown).sum() / n,
        "dice": dice_loss(chosen, shown).sum() / n,
        "iou": (unfit.mean(1) if weights.every_iou else unfit[row, best]).sum() / n,
        "object": object_loss(object_logit, shows if present is None else present),
    }
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return {"loss": total, **terms}


def _resized(logit: Tensor, mask: Tensor) -> Tensor:
    """Logits at the mask's size, in float32: bf16 has steps of 0.03 at a logit of 5."""
    size = mask.shape[-2:]
    if logit.shape[-2:] == size:
        return logit.float()
    return functional.interpolate(logit.float(), size, mode="bilinear", align_corners=False)


def _aligned(logit: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, the mask (N, 1, Y, X)."""
    _refuse_soft(mask)
    if logit.ndim != 4 or logit.shape[:1] + logit.shape[2:] != mask.shape:
        raise ValueError(
            f"logit {tuple(logit.shape)} and mask {tuple(mask.shape)}; expected (N, M, Y, X) and (N, Y, X) of the same "
            "N, Y and X"
        )
    return logit.float(), mask[:, None].float()


def _refuse_soft(mask: Tensor) -> None:
    if mask.dtype != torch.bool:  # 2 where two objects overlap, or 255, would be trained towards
        raise ValueError(f"mask is {mask.dtype}; expected bool, true where the object is")
