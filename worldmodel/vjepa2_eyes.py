"""Frozen eyes: the published V-JEPA 2 video encoder looks, and what it finds is pooled to a small grid.

A native brain may look with these instead of convolutions of its own (`premotor adapt encoder=vjepa2:FOLDER_OR_HUB_ID`).
They never learn and are no part of what is saved: a checkpoint names them, with a digest, and loads with those alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KIND = "vjepa2:"
CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model*.safetensors"
# Patch tokens are averaged to so many cells along each side of a picture.
GRID = 4
# Pictures in one pass: what it takes beside the weights does not grow with a batch.
AT_ONCE = 32
# What the published video processor does: ImageNet's mean and spread, and a margin around the crop.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MARGIN = 256 / 224

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DIGEST = re.compile(r"[0-9a-f]{16}")


class EyesError(ValueError):
    """Eyes that cannot be used, said in one sentence."""


@dataclass(frozen=True)
class Size:
    """What the published config says of the encoder.

    Attributes:
        crop: side of the pictures it is shown, px.
        patch: side of a patch, px.
        tubelet: frames in one token.
        hidden: numbers in a token.
    """

    crop: int
    patch: int
    tubelet: int
    hidden: int

    @property
    def cells(self) -> int:
        """Along each side of what is found."""
        return min(GRID, self.crop // self.patch)

    @property
    def found(self) -> int:
        """Numbers found in one camera's picture."""
        return self.cells**2 * self.hidden


class FrozenEyes:
    """V-JEPA 2's encoder as eyes: pictures in, a flat grid of layer-normed and averaged tokens out.

    No `nn.Module`, on purpose: whoever holds one has none of its weights among its parameters, its state or its
    averages. The weights follow the pictures from device to device.

    Attributes:
        name: `vjepa2:PLACE@DIGEST`, what a checkpoint remembers.
        size: of the encoder.
        mark: what it is called in names of files.
    """

    def __init__(self, name: str, size: Size, model: nn.Module) -> None:
        self.name, self.size, self.model = name, size, model.eval().requires_grad_(False)
        self.mark = f"vjepa2-{digest_in(name)}-{size.cells}x{size.cells}"
        self._device = torch.device("cpu")

    def look(self, pictures: Tensor) -> Tensor:
        """Pictures (N, C, H, W, 3) uint8 -> what is found in them (N, C * cells * cells * hidden) float32."""
        if pictures.device != self._device:
            self.to(pictures.device)
        with torch.no_grad():
            found = torch.cat([self._look(part) for part in pictures.flatten(0, 1).split(AT_ONCE)])
        return found.unflatten(0, pictures.shape[:2]).flatten(1)

    def to(self, device: torch.device) -> None:
        """Move the weights; on the CPU they leave a GPU's memory to who learns there."""
        self.model.to(device)
        self._device = device

    def _look(self, pictures: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, cells * cells * hidden): a picture is a video that stands still for one token."""
        side = self.size.crop // self.size.patch
        video = prepared(pictures, self.size.crop)[:, None].expand(-1, self.size.tubelet, -1, -1, -1)
        tokens = self.model(pixel_values_videos=video, skip_predictor=True).last_hidden_state.float()
        tokens = F.layer_norm(tokens, tokens.shape[-1:])  # as V-JEPA 2-AC takes them
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))
        return F.adaptive_avg_pool2d(grid, self.size.cells).flatten(2).transpose(1, 2).flatten(1)


def prepared(pictures: Tensor, crop: int) -> Tensor:
    """Square pictures (N, S, S, 3) uint8 -> (N, 3, crop, crop) as the published video processor makes them.

    Resized a little larger (with antialiasing, to whole bytes), cut to the middle, normalised. The outermost sixteenth
    of every side is not seen.
    """
    side = int(crop * MARGIN)
    x = pictures.permute(0, 3, 1, 2).float()
    x = F.interpolate(x, (side, side), mode="bilinear", antialias=True).round().clamp(0, 255)
    first = (side - crop) // 2
    x = x[..., first : first + crop, first : first + crop] / 255
    return (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(SPREAD)[:, None, None]


# -- names -------------------------------------------------------------------------------------------------------------


def are_meant(name: str | None) -> bool:
    """Whether a name is one of frozen eyes rather than of a checkpoint."""
    return name is not None and name.startswith(KIND)


def digest_in(name: str) -> str:
    """The digest that a checkpoint's name of its eyes ends with; empty where there is none.

    >>> digest_in("vjepa2:facebook/vjepa2-vitl-fpc64-256@0123456789abcdef"), digest_in("vjepa2:models/@mine")
    ('0123456789abcdef', '')
    """
    _, _, last = name.rpartition("@")
    return last if _DIGEST.fullmatch(last) else ""


# -- opening -----------------------------------------------------------------------------------------------------------

# Brains with the same eyes share them while one of them is there.
_open: weakref.WeakValueDictionary[str, FrozenEyes] = weakref.WeakValueDictionary()


def open_eyes(name: str, beside: Path | None = None) -> FrozenEyes:
    """Eyes by name.

    Args:
        name: `vjepa2:FOLDER` or `vjepa2:OWNER/NAME` (in the hub's cache); with `@DIGEST`, those very eyes or none.
        beside: where eyes with a digest may lie instead, should their place be gone.
    """
    if not are_meant(name):
        raise EyesError(f"eyes are called {KIND}FOLDER or {KIND}OWNER/NAME; {name!r} is neither")
    wanted = digest_in(name)
    place = name.removeprefix(KIND).removesuffix(f"@{wanted}") if wanted else name.removeprefix(KIND)
    folder = beside if wanted and beside is not None and beside.is_dir() else _folder(place, beside if wanted else None)
    size = _size(folder)
    digest = _digest(folder)
    if wanted and digest != wanted:
        other = "" if beside is None else f"; put the right ones into {beside}"
        raise EyesError(
            f"the eyes in {folder} are others than this brain learned with (digest {digest}, it wants {wanted}){other}"
        )
    kept = place if folder != beside and not Path(place).is_dir() else str(folder.resolve())
    full = f"{KIND}{kept}@{digest}"
    eyes = _open.get(full)
    if eyes is None:
        eyes = _open[full] = FrozenEyes(full, size, _load(folder))
    return eyes


def _folder(place: str, beside: Path | None) -> Path:
    """Where the files are: a folder, or what the hub's client has fetched before. Nothing is downloaded."""
    if Path(place).is_dir():
        return Path(place)
    other = "" if beside is None else f", or put its files into {beside}"
    if not _HUB_ID.fullmatch(place):
        raise EyesError(f"there are no eyes at {place}: no such folder ({CONFIG} and model.safetensors){other}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, allow_patterns=[CONFIG, INDEX, WEIGHTS], local_files_only=True))
    except Exception:  # the hub's client has a dozen kinds; each means that it is not here
        raise EyesError(
            f"{place} is no folder and not in the hub's cache; fetch it once with `hf download {place}` (V-JEPA 2 is "
            f"published under MIT; what its page on the hub says decides){other}"
        ) from None


def _size(folder: Path) -> Size:
    """The sizes in a folder's config, checked to be a V-JEPA 2 that can look at pictures."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise EyesError(f"{folder} holds no eyes: {CONFIG} is missing") from None
    except (OSError, ValueError) as error:
        raise EyesError(f"{path} is damaged ({str(error).splitlines()[0]})") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "vjepa2":
        raise EyesError(f"{path} describes a model of type {kind!r}; vjepa2 is looked with here")
    # What the config leaves out is as published: transformers writes all, others need not.
    sizes = {"crop_size": 256, "patch_size": 16, "tubelet_size": 2, "hidden_size": 1024, "in_chans": 3}
    sizes |= {key: config[key] for key in sizes if key in config}
    for key, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise EyesError(f"{path} says {key}={value!r}; it is a number of 1 or more")
    if sizes["in_chans"] != 3:
        raise EyesError(f"{path} says in_chans={sizes['in_chans']}; pictures have 3")
    if sizes["crop_size"] % sizes["patch_size"]:
        raise EyesError(f"{path}: crop_size={sizes['crop_size']} is no multiple of patch_size={sizes['patch_size']}")
    return Size(sizes["crop_size"], sizes["patch_size"], sizes["tubelet_size"], sizes["hidden_size"])


def _weights(folder: Path) -> list[Path]:
    """The files of weights, one or several; pickled ones are not read."""
    files = sorted(folder.glob(WEIGHTS))
    if not files:
        raise EyesError(f"{folder} has a {CONFIG} but no model.safetensors")
    return files


def _digest(folder: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of config and weights."""
    digest = hashlib.sha256()
    for path in (folder / CONFIG, *_weights(folder)):
        about = path.stat()
        digest.update(f"{path.name} {_digest_of_file(path.resolve(), about.st_size, about.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _digest_of_file(path: Path, size: int, changed_ns: int) -> str:
    """Read once, as long as size and time of change stay: weights are gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(folder: Path) -> nn.Module:
    """The encoder with its weights, float32; what is missing or of another shape is named, not made up."""
    try:
        from transformers import VJEPA2Model
    except ImportError:
        raise EyesError(
            "eyes called vjepa2: look through the package transformers (4.53 or newer), which is not here; install it "
            "with pip install 'premotor[vjepa2]'"
        ) from None
    try:
        with _quietly(), torch.random.fork_rng(devices=[]):  # whoever loads eyes draws what they would have drawn
            loaded: Any = VJEPA2Model.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
    except Exception as error:  # a dozen kinds, for damaged files and for configs that cannot be
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EyesError(f"the eyes in {folder} cannot be loaded ({reason})") from None
    model, about = loaded
    lacking = sorted(name for name in about["missing_keys"] if name.startswith("encoder."))
    other = sorted(str(entry[0]) for entry in about["mismatched_keys"] if str(entry[0]).startswith("encoder."))
    if lacking or other:
        what = f"lack {lacking[0]}" if lacking else f"have {other[0]} of another shape than {CONFIG} says"
        raise EyesError(f"the weights in {folder} {what}: they are not this encoder's")
    model.predictor = nn.Identity()  # nobody asks it
    return model


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's progress bar and its report of keys, which is checked instead."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
