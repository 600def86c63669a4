"""Prompting: p(yes) of an unprobed MLLM, a baseline that learns nothing; it can also say what it sees."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lightning_modules.system import System
from vigil.mllm import Mllm
from vigil.mllm_prompts import frame_rate
from vigil.temporal import smooth
from vigil.types import Clip, Prediction, View

UNNAMED = "fighting, robbery, an accident, fire or people in danger"  # ours, for data that names no anomalies


class Prompting(System):
    """How likely a frozen MLLM is to say yes when it is asked whether a window shows an anomaly.

    backbone, dtype, attention, device_map, weights: as in vigil.mllm.Mllm. question: what is asked; "{phrases}" in it
    becomes what the dataset calls its anomalies by, or general words where it has none. answers: yes and no as the
    question wants them; a score is the likelihood of the first beside that of the second. ask: another question, whose
    answer becomes the window's caption; pixels are then needed, and nothing is kept. sigma_frames: smoothing of a
    finished curve.
    Source: the "LLaVA-1.5" and direct-prompting rows of HiProbe-VAD, arXiv:2507.17394, table 1, which tell neither
    prompt nor how an answer becomes a score. Both are this project's choices.
    """

    trained = False
    supervision = "zero-shot"

    def __init__(
        self,
        backbone: str,
        question: str = "Is there an abnormal event in this video, such as {phrases}? Answer Yes or No.",
        answers: tuple[str, str] = ("Yes", "No"),
        ask: str | None = None,
        max_new_tokens: int = 64,
        test_view: View = View(frames=8, stride=3, hop=24),
        window_batch: int = 8,
        sigma_frames: float | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        attention: str = "sdpa",
        device_map: str | None = None,
        weights: Literal["pretrained", "random"] = "pretrained",
    ) -> None:
        test_view = View(**test_view) if isinstance(test_view, dict) else test_view
        if test_view.segments is not None:
            raise ValueError(f"test_view {test_view} must be windows: stride and hop, and no segments")
        if len(answers) != 2 or len(set(answers)) != 2:
            raise ValueError(f"answers {answers}: two different ones are expected, that of an anomaly first")
        if not question.strip():
            raise ValueError("question is empty; say what is to be asked")
        super().__init__({"video": test_view}, {"video": test_view}, 1, window_batch)
        self.save_hyperparameters()
        self.mllm = Mllm(backbone, dtype, attention, device_map, weights)
        self.template, self.question, self.answers = question, question, list(answers)
        self.ask, self.max_new_tokens, self.sigma_frames = ask, max_new_tokens, sigma_frames
        self.threshold.fill_(0.5)  # it says yes rather than no

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number of this system depends on besides the data."""
        smoothing = "none" if self.sigma_frames is None else f"Gaussian, sigma {self.sigma_frames} frames, both ways"
        named = "dataset" if "{phrases}" in self.template else "none"
        return {
            "backbone": self.mllm.name,
            **self._asked(),
            "smoothing": smoothing,
            "prompt_class_names": named,
        }

    def _asked(self) -> dict[str, Any]:
        return {**self.mllm.key, "question": self.question, "answers": self.answers, "at": "last_prompt"}

    def setup(self, stage: str) -> None:
        phrases = ", ".join(self.trainer.datamodule.phrases) or UNNAMED
        self.question = self.template.replace("{phrases}", phrases)
        super().setup(stage)

    def predict(self, clip: Clip) -> Prediction:
        likelihood = clip.features["answers"][:, 0] if "answers" in clip.features else self._answer(clip, "video")
        score = likelihood.float().softmax(-1)[:, :1]
        caption = None if self.ask is None else self._say(clip, self.ask)
        return Prediction(frame_score=score.expand(-1, clip.frame["video"].shape[-1]), caption=caption)

    def refine(self, curve: Tensor) -> Tensor:
        return curve if self.sigma_frames is None else smooth(curve, self.sigma_frames)

    def _answer(self, clip: Clip, stream: str) -> Tensor:
        """Log-likelihood of both answers, float32 (B, 2)."""
        rate = frame_rate(clip.frame[stream], clip.fps)
        return self.mllm.choose(clip.pixels[stream], self.question, self.answers, frame_rate=rate)

    def _say(self, clip: Clip, prompt: str) -> list[str]:
        rate = frame_rate(clip.frame["video"], clip.fps)
        return self.mllm.generate(clip.pixels["video"], prompt, self.max_new_tokens, frame_rate=rate)

    def reading_key(self) -> dict[str, Any] | None:
        return {"reads": "log-likelihood of answers", **self._asked()}

    def reading_names(self, stream: str) -> list[str]:
        return [] if self.ask else ["answers"]

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        return {"answers": self._answer(clip, stream)}
