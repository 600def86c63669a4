"""SAM2 of transformers, cut in two: a frozen image encoder, and a mask decoder that is prompted and trained."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from vigil.pretrained import find_pretrained, pretrained_fingerprint

KINDS = ("sam2", "sam2_video")  # the second holds a memory too, which no frame by itself has a use for
PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
UNUSED = ("prompt_encoder.shared_embedding.", "prompt_encoder.mask_embed.", "prompt_encoder.point_embed.")
STRIDES = (4, 8, 16)  # of the three feature maps, in pixels of the image that the encoder sees
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which SAM2 was trained with
VERSION = 1  # raise when the same frame would reach the encoder otherwise


class Decoded(NamedTuple):
    """What the mask decoder says of N frames, float32.

    mask_logit (N, M, Y, X) of M candidates at a quarter of the image size; iou (N, M): how well it thinks that each
    fits, in [0, 1]; object_logit (N,): whether there is anything to be seen at all.
    """

    mask_logit: Tensor
    iou: Tensor
    object_logit: Tensor


class Sam2(nn.Module):
    """Frames to feature maps, and feature maps with one prompt vector per frame to masks.

    name: a SAM2 or SAM2-video on the hub, or the folder of one. dtype: of the image encoder, "auto" is the
    checkpoint's; the decoder is float32. weights: "random" draws them by a fixed seed, as a control. chunk: frames at a
    time in the encoder. No weights are read before they are needed; after `load`, `decoder` holds what is trained.

    Raises ValueError for an unknown dtype or weights; when first used FileNotFoundError for a model that is not there,
    and ValueError for one that is no SAM2, is not whole, or is a pickle.
    Source: SAM2, arXiv:2408.00714. Differs: frames are seen one by one, so its memory is left out.
    """

    place: Tensor

    def __init__(
        self,
        name: str,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
        weights: Literal["pretrained", "random"] = "pretrained",
        chunk: int = 8,
    ) -> None:
        super().__init__()
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype {dtype!r}: expected auto, float32, bfloat16 or float16")
        if weights not in ("pretrained", "random"):
            raise ValueError(f"weights {weights!r}: expected pretrained or random")
        self.name, self.dtype, self.weights, self.chunk = name, dtype, weights, chunk
        self.encoder: Any = None
        self.decoder: Sam2Decoder | None = None
        # moves with the module, so that weights read later land where it is
        self.register_buffer("place", torch.empty(0), persistent=False)

    # known without the weights -------------------------------------------------------------------------------------

    @cached_property
    def folder(self) -> Path:
        """Where the model lies; fetched from the hub where it is not in the cache."""
        return find_pretrained(self.name, self.weights == "pretrained")

    @cached_property
    def _parts(self) -> dict[str, Any]:
        file = self.folder / "config.json"
        try:
            said = json.loads(file.read_text())
            kind = said.get("model_type")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{file}: no configuration of a model ({error}); fetch it again") from error
        if kind not in KINDS:
            raise ValueError(
                f"{file}: model_type {kind!r}, expected {' or '.join(KINDS)}; give a SAM2, such as "
                "facebook/sam2.1-hiera-small"
            )
        return {part: said.get(part, {}) for part in PARTS}

    @cached_property
    def image_size(self) -> int:
        """Pixels that a side of a frame is brought to."""
        return int(self._parts["prompt_encoder_config"].get("image_size", 1024))

    @cached_property
    def width(self) -> int:
        """The D of feature maps and prompts."""
        return int(self._parts["vision_config"].get("fpn_hidden_size", 256))

    @cached_property
    def key(self) -> dict[str, Any]:
        """What determines its feature maps, wherever its files lie; for the store. No weights are loaded for it."""
        files = pretrained_fingerprint(self.folder)
        return {"files": files, "weights": self.weights, "dtype": self.dtype, "preparing": VERSION}

    # frames and masks ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps [(N, D, S/4, S/4), (N, D, S/8, S/8), (N, D, S/16, S/16)] of frames uint8 (N, 3, Y, X).

        S: `image_size`, to which a frame is squashed. In the encoder's own dtype, whatever the trainer's precision is;
        the neck's outputs, before conv_s0 and conv_s1, which are trained, and without the no-memory embedding.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixels are {pixels.dtype} {tuple(pixels.shape)}; expected uint8 (N, 3, Y, X)")
        self.load()
        device = self.place.device
        with torch.autocast(device.type, enabled=False):  # the trainer's precision is not in the key
            parts = [self._encode(part.to(device)) for part in torch.split(pixels, self.chunk)]
        return [torch.cat(maps) for maps in zip(*parts, strict=True)]

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        dtype = next(self.encoder.parameters()).dtype  # bf16-true casts what it finds
        return list(self.encoder(self.prepare(pixels).to(dtype), return_dict=True).fpn_hidden_states)

    def prepare(self, pixels: Tensor) -> Tensor:
        """What the encoder sees of frames uint8 (N, 3, Y, X): squashed and normalised, float32 (N, 3, S, S)."""
        size = (self.image_size, self.image_size)
        frames = functional.interpolate(pixels.float() / 255, size, mode="bilinear", antialias=True)
        mean, deviation = frames.new_tensor(MEAN), frames.new_tensor(DEVIATION)
        return (frames - mean[:, None, None]) / deviation[:, None, None]

    def decode(self, features: list[Tensor], prompt: Tensor) -> Decoded:
        """Masks of N frames from their three feature maps, as `encode` gives them, and prompts (N, D).

        Under autocast it computes in the trainer's precision. Raises ValueError for maps and prompts of other shapes.
        """
        self.load()
        assert self.decoder is not None
        decoded: Decoded = self.decoder(features, prompt)
        return decoded

    # weights -------------------------------------------------------------------------------------------------------

    @property
    def loaded(self) -> bool:
        """Whether its weights are in memory."""
        return self.decoder is not None

    def load(self) -> None:
        """Have the weights in memory; again does nothing. Raises ValueError where they do not fit."""
        if self.loaded:
            return
        model = self._read()
        self.encoder = model.vision_encoder.requires_grad_(False).eval().to(self.place.device)
        self.decoder = Sam2Decoder(model, self.image_size).float().to(self.place.device).train(self.training)

    def train(self, mode: bool = True) -> Sam2:
        """As of any module, except that the image encoder stays in eval mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def _read(self) -> Any:
        """transformers' own model, the encoder in `dtype`, every weight that is used the checkpoint's, or drawn."""
        from transformers import Sam2Config, Sam2Model  # takes seconds

        kind: Any = Sam2Model
        config: Any = Sam2Config
        config = config(**deepcopy(self._parts))
        if self.weights == "random":
            with torch.random.fork_rng(), torch.device("cpu"):  # every device would draw others
                torch.manual_seed(0)
                model = kind(config)
        else:
            model = self._pretrained(kind, config)
        if self.dtype != "auto":
            model.vision_encoder.to(getattr(torch, self.dtype))
        return model

    def _pretrained(self, kind: Any, config: Any) -> Any:
        try:
            model, report = kind.from_pretrained(
                self.folder,
                config=config,
                dtype="auto" if self.dtype == "auto" else torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:  # damaged, or of other shapes
            text = " ".join(str(error).split())[:500]
            raise ValueError(f"{self.folder}: its weights do not load as a SAM2 ({text}); fetch them again") from error
        missing = sorted(key for key in report["missing_keys"] if not key.startswith(UNUSED))
        if missing:  # transformers draws them at random
            raise ValueError(
                f"{self.folder}: weights of another model: {len(missing)} tensors of the SAM2 in its config.json are "
                f"missing, the first {missing[0]}; give a whole SAM2"
            )
        return model


class Sam2Decoder(nn.Module):
    """The trained half of a SAM2: its mask decoder, and of its prompt encoder what a prompt vector meets.

    model: transformers' Sam2Model, whose parts it takes over. All its parameters are trained and all get a gradient;
    points, boxes and masks as prompts are left out.
    """

    position: Tensor
    no_memory: Tensor

    def __init__(self, model: Any, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.mask_decoder = model.mask_decoder.requires_grad_(True)
        self.not_a_point = nn.Parameter(model.prompt_encoder.not_a_point_embed.weight.detach().clone())
        self.no_mask = nn.Parameter(model.prompt_encoder.no_mask_embed.weight.detach().clone())
        model.shared_image_embedding.float()  # bf16 would place pixels by rounded angles
        with torch.no_grad():
            position = model.get_image_wide_positional_embeddings()
        self.register_buffer("position", position, persistent=False)  # frozen: no checkpoint needs them
        self.register_buffer("no_memory", model.no_memory_embedding.detach().clone(), persistent=False)

    def forward(self, features: list[Tensor], prompt: Tensor) -> Decoded:
        """As `Sam2.decode`. Sparse prompt: an empty click, its padding, and the vector; dense: none.

        Source: LAVIDA, arXiv:2602.19248, eq. 9; the two embeddings before the vector are its authors' code's. Differs:
        the no-memory embedding is added for images too, as Meta's image predictor and Hugging Face do.
        """
        width = self.no_mask.shape[1]
        expected = [(len(prompt), width, *[self.image_size // stride] * 2) for stride in STRIDES]
        if [tuple(one.shape) for one in features] != expected or prompt.shape != (len(prompt), width):
            raise ValueError(
                f"feature maps {[tuple(one.shape) for one in features]} and prompts {tuple(prompt.shape)}; expected "
                f"maps {expected} and prompts (N, {width})"
            )
        dtype = self.no_mask.dtype
        fine, middle, coarse = (one.to(dtype) for one in features)
        n, size = len(prompt), coarse.shape[-2:]
        sparse = torch.cat([self.not_a_point.expand(n, 2, width), prompt.to(dtype)[:, None]], 1)
        mask, iou, _, present = self.mask_decoder(
            image_embeddings=coarse + self.no_memory.reshape(1, width, 1, 1),
            image_positional_embeddings=self.position.expand(n, -1, -1, -1),
            sparse_prompt_embeddings=sparse[:, None],
            dense_prompt_embeddings=self.no_mask.reshape(1, width, 1, 1).expand(n, -1, *size),
            multimask_output=True,
            high_resolution_features=[self.mask_decoder.conv_s0(fine), self.mask_decoder.conv_s1(middle)],
        )
        return Decoded(mask[:, 0].float(), iou[:, 0].float(), present[:, 0, 0].float())
