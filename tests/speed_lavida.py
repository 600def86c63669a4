"""What compression saves of a language model's pass, and what kept image features save of an epoch. `make speed`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from datamodules.clips import join
from datamodules.demo_segmentation import write_segmentation
from datamodules.pseudo_anomaly import PseudoAnomaly
from lightning_modules import Lavida
from tests.conftest import SpeedRow
from tests.live_memory import peak_bytes
from tests.real_shapes import write_shape
from vigil.compression import kept_length

TEST_TOKENS, WORDS = 5184, 90  # of 8 frames of 756 x 1344 as the released code tests them; a prompt of 18 categories
CLIPS = 16


def test_counted_activations_at_a_fifth_of_the_tokens(speed_row: SpeedRow, tmp_path: Path) -> None:
    """Tensors alive in the pass of one layer of Qwen2-VL-7B's sizes: what a pass of all needs beyond the weights."""
    config = AutoConfig.from_pretrained(write_shape(tmp_path, "Qwen2-VL-7B", num_hidden_layers=1, vocab_size=400))
    config.vision_config.depth = 1
    decoder: Any = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa").model.language_model

    def of(ratio: float) -> int:
        words = torch.randn(1, kept_length(TEST_TOKENS, ratio) + WORDS, 3584)
        with torch.no_grad():
            return peak_bytes(lambda: decoder(inputs_embeds=words, use_cache=False))

    share = of(0.2) / of(1.0)
    print(f"activations of the language model's pass at ratio 0.2: {share:.1%} of those at 1.0 (weights not counted)")
    assert share <= 0.541


def timed(log: dict[str, float], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, with its seconds added to log[name]."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            log[name] = log.get(name, 0.0) + time.perf_counter() - start

    return run


def test_a_second_epoch_over_the_same_clips(
    speed_row: SpeedRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both printed, with each part's share; the demo's models, whose image encoder is small beside the rest."""
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path / "cache"))
    write_segmentation(tmp_path / "sets", size="tiny")
    system = Lavida(
        "weights/demo_mllm", "weights/demo_sam2", "weights/demo_clip", dtype="float32", adapter_width=64,
        adapter_blocks=2, adapter_heads=2, save_memory=False, keep_image_features=True,
    )  # fmt: skip
    system.configure_model()
    system.log_dict = lambda *_, **__: None
    data = PseudoAnomaly(str(tmp_path / "sets"))
    data.watch(system)
    exposures = data.exposures("train")
    log: dict[str, float] = {}
    monkeypatch.setattr(system, "_image_features", timed(log, "image features", system._image_features))
    monkeypatch.setattr(system.mllm, "say_token", timed(log, "MLLM", system.mllm.say_token))
    monkeypatch.setattr(system.sam2, "decode", timed(log, "mask decoder", system.sam2.decode))
    took = []
    for epoch in ("first", "second"):
        log.clear()
        start = time.perf_counter()
        for i in range(0, CLIPS, 4):
            clip = timed(log, "images and masks", lambda i=i: join([exposures[0, k, True] for k in range(i, i + 4)]))()
            loss = system.training_step(clip, 0)
            timed(log, "backward pass", loss.backward)()
        took.append(time.perf_counter() - start)
        shares = ", ".join(f"{name} {seconds / took[-1]:.0%}" for name, seconds in sorted(log.items()))
        print(f"{epoch} epoch over {CLIPS} clips: {took[-1]:.2f} s: {shares}, the rest projector and losses")
    speed_row("an epoch over 16 clips, image features kept", took[1], {"the first": took[0]}, "faster")
