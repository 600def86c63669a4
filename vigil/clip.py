"""CLIP image and text towers of transformers: frames and sentences to features of one space."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from vigil.pretrained import find_pretrained, pretrained_fingerprint
from vigil.reading_file import CLOSED, FULL
from vigil.store import cache_root


class ClipTowers(nn.Module):
    """Frames and texts to unit vectors whose cosine says how well they fit; frozen, always in eval mode.

    name: a CLIP on the hub, or the folder of one, a relative path sought in the working directory, then beside the
    package. dtype: of the weights, "float32", "bfloat16" or "float16". chunk: frames or texts at a time.
    Nothing is read until it is needed: readings on disk, and texts that were asked about before, need no weights.

    Raises ValueError for an unknown dtype; when first used FileNotFoundError for a model that is not there, and
    ValueError for one that is no CLIP, is not whole, or is a pickle.
    Source: CLIP, arXiv:2103.00020. Differs: nothing; the model's own image processor prepares the frames, and where it
    crops the centre, what happens at the edge of a surveillance picture is not seen.
    """

    place: Tensor
    _told: ClassVar[set[Path]] = set()

    def __init__(
        self,
        name: str = "openai/clip-vit-base-patch16",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        chunk: int = 64,
    ) -> None:
        super().__init__()
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype {dtype!r}: expected float32, bfloat16 or float16")
        self.name, self.dtype, self.chunk = name, dtype, chunk
        self.model: Any = None
        # moves with the module, so that weights read later land where it is
        self.register_buffer("place", torch.empty(0), persistent=False)

    # known without the weights -------------------------------------------------------------------------------------

    @cached_property
    def folder(self) -> Path:
        """Where the model lies; fetched from the hub where it is not in the cache."""
        folder = find_pretrained(self.name)
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
        if kind != "clip":
            raise ValueError(f"{folder}: config.json says model_type {kind!r}, not 'clip'; give the folder of a CLIP")
        return folder

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with weights, preprocessing, tokenizer or dtype, and not with the folder."""
        return hashlib.sha256(f"{pretrained_fingerprint(self.folder)} {self.dtype}".encode()).hexdigest()[:16]

    @cached_property
    def width(self) -> int:
        """The D of the features."""
        return int(json.loads((self.folder / "config.json").read_text()).get("projection_dim", 512))

    @cached_property
    def text_width(self) -> int:
        """How wide the text tower is, before its features are projected into the common space."""
        return int(json.loads((self.folder / "config.json").read_text()).get("text_config", {}).get("hidden_size", 512))

    @cached_property
    def logit_scale(self) -> float:
        """What a cosine is multiplied by before a softmax over texts: 100 in OpenAI's."""
        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(file, framework="pt") as weights:
                    if "logit_scale" in weights.keys():  # noqa: SIM118 - a handle, no dict
                        return float(weights.get_tensor("logit_scale").float().exp())
            except SafetensorError as error:
                raise ValueError(f"{file}: damaged ({error}); fetch it again") from error
        raise ValueError(f"{self.folder}: no tensor logit_scale in its weights; give the folder of a whole CLIP")

    # frames and texts ----------------------------------------------------------------------------------------------

    def images(self, pixels: Tensor) -> Tensor:
        """Unit vectors float32 (..., D) of frames uint8 (..., C, Y, X)."""
        if pixels.dtype != torch.uint8 or pixels.ndim < 3 or pixels.shape[-3] != 3:
            raise ValueError(f"pixels are {pixels.dtype} {tuple(pixels.shape)}; expected uint8 (..., 3, Y, X)")
        self.load()
        frames = pixels.flatten(0, -4) if pixels.ndim > 3 else pixels[None]
        features = torch.cat([self._encode_images(part) for part in torch.split(frames, self.chunk)])
        return features.reshape(*pixels.shape[:-3], -1)

    def texts(self, texts: list[str], pooled: bool = False) -> Tensor:
        """Unit vectors float32 (K, D) of texts, at least one; kept on disk, each under the fingerprint and its words.

        pooled: the text tower's own output at the end of each text instead, which is no unit vector and lies in a space
        of its own, `text_width` wide. Where they cannot be kept, that is said once, and they are made anew each time.
        Raises ValueError for a text of more tokens than the tower reads: cut short it would be another text.
        """
        if not texts or isinstance(texts, str):
            raise ValueError(f"texts {texts!r}: a list of at least one is expected")
        name = "pooled" if pooled else "feature"
        found = {text: self._recall(text, name) for text in texts}
        missing = [text for text, feature in found.items() if feature is None]
        if missing:
            self.load()
            for text, feature, state in zip(missing, *self._encode_texts(missing), strict=True):
                made = {"feature": feature, "pooled": state}
                found[text] = made[name]
                self._remember(text, made)
        return torch.stack([feature for text in texts if (feature := found[text]) is not None]).to(self.place.device)

    def refuse_long(self, texts: Sequence[str]) -> None:
        """Raises ValueError for texts of more tokens than the tower reads, before anything is made of them."""
        self.load()
        limit = self.model.config.text_config.max_position_embeddings
        for first in range(0, len(texts), 4096):
            part = list(texts[first : first + 4096])
            for text, row in zip(part, self.tokenizer(part)["input_ids"], strict=True):
                if len(row) > limit:
                    raise ValueError(f"{text!r} is {len(row)} tokens long, {self.name} reads {limit}; say it shorter")

    @torch.no_grad()
    def _encode_images(self, frames: Tensor) -> Tensor:
        values = self.image_processor(list(frames), return_tensors="pt")["pixel_values"]
        weight = self.model.visual_projection.weight  # bf16-true casts what it finds
        out = self.model.get_image_features(pixel_values=values.to(weight.device, weight.dtype))
        return functional.normalize(out.pooler_output.float(), dim=-1)

    @torch.no_grad()
    def _encode_texts(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """On the CPU: unit vectors of the common space, and what the text tower says before it is projected there."""
        self.refuse_long(texts)
        features, states = [], []
        for first in range(0, len(texts), self.chunk):
            batch = self.tokenizer(texts[first : first + self.chunk], padding=True, return_tensors="pt")
            batch = batch.to(self.model.device)
            with torch.autocast(self.model.device.type, enabled=False):  # the trainer's precision is not in the key
                state = self.model.text_model(**batch).pooler_output
                features.append(functional.normalize(self.model.text_projection(state).float(), dim=-1).cpu())
            states.append(state.float().cpu())
        return torch.cat(features), torch.cat(states)

    # weights -------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the weights, the image processor and the tokenizer, unless they are there."""
        if self.model is not None:
            return
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel  # takes seconds, and few need it

        try:
            loaded: Any = CLIPModel.from_pretrained(
                self.folder,
                dtype=getattr(torch, self.dtype),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (SafetensorError, RuntimeError) as error:  # damaged, or of other shapes
            raise ValueError(f"{self.folder}: its weights do not load as a CLIP ({error}); fetch them again") from error
        model, info = loaded
        missing = sorted(info["missing_keys"])
        unexpected = sorted(info["unexpected_keys"])
        if missing or unexpected:  # transformers draws the missing ones at random
            raise ValueError(
                f"{self.folder}: its weights are not those of the CLIP in its config.json: {len(missing)} tensors "
                f"missing{_first(missing)}, {len(unexpected)} unexpected{_first(unexpected)}; give a whole CLIP"
            )
        image_processor: Any = AutoImageProcessor  # untyped
        try:
            self.image_processor = image_processor.from_pretrained(self.folder, local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{self.folder}: no image processor and tokenizer that can be read ({str(error).splitlines()[0]}); "
                "complete the folder from where its weights come from"
            ) from error
        self.model = model.requires_grad_(False).eval().to(self.place.device)

    def train(self, mode: bool = True) -> ClipTowers:
        """Stays in eval mode, whatever is asked."""
        return super().train(False)

    # texts asked about before --------------------------------------------------------------------------------------

    def _file(self, text: str) -> Path:
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        return cache_root() / "texts" / self.fingerprint / f"{digest}.safetensors"

    def _recall(self, text: str, name: str) -> Tensor | None:
        try:
            return load_file(self._file(text))[name]
        except (FileNotFoundError, SafetensorError, KeyError):  # none, or damaged: made again
            return None

    def _remember(self, text: str, features: dict[str, Tensor]) -> None:
        folder = self._file(text).parent
        try:
            whole = {name: feature.clone() for name, feature in features.items()}  # not the batch that it is a row of
            self._write(self._file(text), save(whole, metadata={"text": text}))
        except OSError as error:
            if error.errno not in (*CLOSED, *FULL):
                raise
            if folder not in self._told:
                self._told.add(folder)
                sys.stderr.write(f"{folder}: {error.strerror}; what is made of the texts is not remembered.\n")

    @staticmethod
    def _write(file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
            os.replace(name, file)  # whole or not at all
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def anomalous_share(
    image: Tensor, anomalous: Tensor, normal: Tensor, scale: float, aggregate: Literal["sum", "max"] = "sum"
) -> Tensor:
    """How much of a picture's softmax over texts falls to the anomalous ones: float32 (B,), in [0, 1].

    image (B, D), anomalous (K, D) and normal (J, D): unit vectors; scale multiplies the cosines. sum: over all texts of
    a side; max: the softmax of the best text of each side alone, so that many phrases of one side do not outvote few.
    """
    if aggregate not in ("sum", "max"):
        raise ValueError(f"aggregate {aggregate!r}: expected sum or max")
    with torch.autocast(image.device.type, enabled=False):  # a bf16 cosine has steps of 0.002, 0.2 once scaled
        logit = scale * image.float() @ torch.cat([anomalous, normal]).float().to(image.device).T
        ours, theirs = logit[:, : len(anomalous)], logit[:, len(anomalous) :]
        if aggregate == "max":
            ours, theirs = ours.amax(1, keepdim=True), theirs.amax(1, keepdim=True)
        return (ours.logsumexp(1) - theirs.logsumexp(1)).sigmoid()


def _first(keys: list[str]) -> str:
    return f" ({keys[0]})" if keys else ""
