"""What a multimodal LLM is asked of the segments that a system found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vigil.types import View


@dataclass(frozen=True)
class Explanation:
    """Questions on detected segments, and when they are put: never, after a predict, or always, after a test too.

    anomalous, normal: the question on a segment above the threshold and below it, empty for none. frames: of each
    segment, spread evenly over it. Source: HiProbe-VAD, arXiv:2507.17394, Sec. 4.2.3, which prints no question.
    """

    when: Literal["never", "predict", "always"] = "predict"
    anomalous: str = "Describe the abnormal event in this video."
    normal: str = "Describe what happens in this video."
    frames: int = 16
    max_new_tokens: int = 64

    def questions(self, stage: str) -> dict[str, str]:
        """{"anomalous" or "normal": question} of a stage, test or predict; {} where nothing is asked."""
        asked = {"anomalous": self.anomalous, "normal": self.normal} if self.when in ("always", stage) else {}
        return {kind: question for kind, question in asked.items() if question.strip()}

    @property
    def view(self) -> View:
        """How a segment is watched."""
        return View(frames=self.frames, segments=1)
