"""DeiT frame encoder: uint8 frames to class-token features. The only file that imports timm, once one is built."""

from __future__ import annotations

import contextlib
import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# what stands in for ImageNet weights in the demo: small enough for a CPU, pretrained by weights/demo_deit.py
DEMO = "demo_deit"
DEMO_SHAPE: dict[str, Any] = {"img_size": 96, "patch_size": 12, "embed_dim": 128, "depth": 4, "num_heads": 4}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as every DeiT of timm is trained with


class DeitEncoder(nn.Module):
    """Frames to the class token after the last norm; resizes and normalises for itself.

    name: one of timm's DeiTs, or "demo_deit" (width 128, depth 4, 96 pixels). weights: "pretrained" (timm's, by name),
    a path (.safetensors, or a .pth state dict, read without unpickling objects), or None: random. A relative path is
    sought in the working directory, then beside the package. train_blocks: how many of the last blocks train, with the
    final norm; all of them: the embedding trains as well; 0: the encoder is frozen and stays in eval mode.

    width is the D of the features. Raises ValueError for an unknown name or weights of another shape, FileNotFoundError
    for weights that are not there.
    Source: DeiT, arXiv:2012.12877. Differs: the whole frame is squeezed to a square, where DeiT crops the centre; an
    event at the edge of a surveillance picture counts.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "deit_small_patch16_224",
        weights: str | Path | None = "pretrained",
        train_blocks: int = 0,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        self.name, self.train_blocks, self.chunk = name, train_blocks, chunk
        self.model = _build(name, pretrained=weights == "pretrained")
        if weights is not None and weights != "pretrained":
            _load(self.model, name, Path(weights))
        self.width: int = self.model.embed_dim
        self.size: int = self.model.patch_embed.img_size[0]
        depth = len(self.model.blocks)
        if not 0 <= train_blocks <= depth:
            raise ValueError(
                f"train_blocks is {train_blocks}, but {name} has {depth} blocks; give a number from 0 to {depth}"
            )
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        if train_blocks < depth:
            self.model.requires_grad_(False)
            for part in (*self.model.blocks[depth - train_blocks :], *([self.model.norm] if train_blocks else [])):
                part.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> DeitEncoder:
        """As of any module, except that what is frozen stays in eval mode."""
        super().train(mode)
        frozen = len(self.model.blocks) - self.train_blocks
        if frozen:
            self.model.eval()
            self.model.blocks[frozen:].train(mode)
        return self

    def preprocess(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, Y, X) to the normalised float32 (B, C, size, size) that the model sees: bicubic, antialiased."""
        if pixels.dtype != torch.uint8 or pixels.shape[-3] != 3:
            raise ValueError(f"pixels are {pixels.dtype} {tuple(pixels.shape)}; expected uint8 (..., 3, Y, X)")
        picture = pixels.float() / 255
        if picture.shape[-2:] != (self.size, self.size):
            picture = functional.interpolate(picture, (self.size, self.size), mode="bicubic", antialias=True).clamp(
                0, 1
            )
        return (picture - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        """Features float32 (..., D) of uint8 (..., C, Y, X); without gradients `chunk` frames at a time."""
        frames = pixels.flatten(0, -4) if pixels.ndim > 3 else pixels[None]
        if self.train_blocks and torch.is_grad_enabled():
            features = self._encode(frames)
        else:
            with torch.no_grad():
                features = torch.cat([self._encode(part) for part in torch.split(frames, self.chunk)])
        return features.float().reshape(*pixels.shape[:-3], self.width)

    def _encode(self, frames: Tensor) -> Tensor:
        model, frozen = self.model, len(self.model.blocks) - self.train_blocks
        with torch.set_grad_enabled(torch.is_grad_enabled() and frozen == 0):
            tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(self.preprocess(frames)))))
            tokens = model.blocks[:frozen](tokens)
        tokens = model.norm(model.blocks[frozen:](tokens))
        return tokens[:, 0]  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the architecture's name or any weight, and with nothing else."""
        digest = hashlib.sha256(f"{self.name} {self.size} bicubic".encode())
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class ConvolutionalStem(nn.Module):
    """Patch tokens from strided convolutions in place of one: the small DeiT learns from far fewer frames.

    Source: Early Convolutions Help Transformers See Better, arXiv:2106.14881. Differs: group norm, three layers.
    """

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: Any) -> None:
        super().__init__()
        if patch_size != 12:
            raise ValueError(f"patches of {patch_size} pixels; the strides 2, 2 and 3 make 12")
        self.img_size, self.patch_size = (img_size, img_size), (patch_size, patch_size)
        self.num_patches = (img_size // patch_size) ** 2
        self.layers = nn.Sequential(
            *(nn.Conv2d(in_chans, 24, 3, 2, 1), nn.GroupNorm(4, 24), nn.ReLU()),
            *(nn.Conv2d(24, 64, 3, 2, 1), nn.GroupNorm(4, 64), nn.ReLU()),
            *(nn.Conv2d(64, embed_dim, 5, 3, 1), nn.GroupNorm(4, embed_dim), nn.ReLU()),
            nn.Conv2d(embed_dim, embed_dim, 1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Tokens (B, S, D) of normalised pictures (B, C, Y, X), row by row."""
        return self.layers(picture).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


def _build(name: str, pretrained: bool) -> Any:
    import timm  # takes seconds, and few need it

    if name == DEMO:
        if pretrained:
            raise ValueError(
                f"{DEMO} is not in timm's hub; give its weights by path, weights/{DEMO}.safetensors, or none"
            )
        return timm.models.vision_transformer.VisionTransformer(
            **DEMO_SHAPE, embed_layer=ConvolutionalStem, num_classes=0
        )
    known = [*timm.list_models("deit*"), DEMO]
    if name not in known:
        raise ValueError(f"{name!r} is no DeiT that timm {timm.__version__} knows; expected one of {', '.join(known)}")
    if not pretrained:
        return timm.create_model(name, num_classes=0)
    failure: Exception | None = None
    for offline in (True, False):  # what the cache holds needs no network
        try:
            with _hub(offline):
                return timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:  # the hub's clients raise what they like: OSError, httpx's errors, RuntimeError
            failure = error
    raise FileNotFoundError(
        f"the pretrained weights of {name} are not in the cache and could not be fetched ({type(failure).__name__}); "
        f"build DeitEncoder({name!r}) once where there is a network and copy the cache, or give weights by path"
    ) from failure


@contextlib.contextmanager
def _hub(offline: bool) -> Iterator[None]:
    """Keep the hub's client off the network, or, where the hub cannot be reached, from trying for a minute."""
    from huggingface_hub import constants  # timm brings it

    before = constants.HF_HUB_OFFLINE
    if not offline and not before:
        with contextlib.suppress(urllib.error.HTTPError):  # an error it sends is an answer
            urllib.request.urlopen(constants.ENDPOINT, timeout=10).close()
    constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _load(model: Any, name: str, path: Path) -> None:
    """Weights of a file into the model; a classification head in the file is left out."""
    beside = Path(__file__).parents[1] / path
    found = path if path.is_file() else beside
    if not found.is_file():
        advice = (
            f"python weights/{DEMO}.py makes it" if name == DEMO else "give the path of a .safetensors or .pth file"
        )
        raise FileNotFoundError(f"weights {path} are not there, in {Path.cwd()} or in {beside.parent}; {advice}")
    if found.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(found)
    else:
        state = torch.load(found, map_location="cpu", weights_only=True)
        state = state.get("model", state.get("state_dict", state))  # the authors' files nest the weights under "model"
    state = {key: value.float() for key, value in state.items() if not key.startswith(("head.", "head_dist."))}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    if expected != given:
        wrong = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
        raise ValueError(
            f"{found.name} does not fit {name}: {len(wrong)} tensors differ, the first is {wrong[0]}, "
            f"{given.get(wrong[0], 'missing')} in the file, {expected.get(wrong[0], 'not expected')} in the model; "
            "give the weights of that architecture, or its name"
        )
    model.load_state_dict(state)
