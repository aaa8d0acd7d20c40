"""Adapter: a LoRA adapter folder in PEFT's layout, opened without peft: its weights, its scale and its base.

Beside adapter_config.json and adapter_model.safetensors lie infimed.json (where it comes from) and
preprocessor_config.json (what its images looked like). Builds no model.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError
from ..runtime.files import canonical_json, sha256_file, write_bytes
from ..runtime.shape import TensorInfo, read_header
from .checkpoint import Checkpoint, decode
from .provenance import PROVENANCE_FILE, Provenance

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PIXELS_FILE = "preprocessor_config.json"
_BASE_KEY = "base_model_name_or_path"
EMBEDDED_BASE = "infimed-base"
"""What an adapter of the packaged base model names as its base."""
_PREFIX = "base_model.model."
# Settings under which a merged weight is not W + scale * B A; PEFT's value for "not used" each.
_UNUSED: Mapping[str, tuple[object, ...]] = {
    "bias": ("none",),
    "use_dora": (False,),
    "lora_bias": (False,),
    "fan_in_fan_out": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
}


class AdapterError(InfimedError):
    """A folder that is no adapter, an adapter of another kind, or one without its base."""


@dataclass(frozen=True, eq=False)
class Update:
    """What LoRA adds to one linear layer: weight + scale * (b @ a).

    module: the layer's name in the transformers model. a: (rank, in), b: (out, rank), float32.
    """

    module: str
    a: NDArray[np.float32]
    b: NDArray[np.float32]
    scale: float

    def merged_into(self, weight: NDArray[np.float32], first_row: int = 0) -> NDArray[np.float32]:
        """Return weight + scale * (b @ a), float32, of the rows of the layer from `first_row` on that are given.

        The product is summed in float64: so the bytes do not depend on how a library divides a sum among threads.
        """
        b = self.b[first_row : first_row + len(weight)]
        product = b.astype(np.float64) @ self.a.astype(np.float64)
        merged: NDArray[np.float32] = (weight.astype(np.float64) + self.scale * product).astype(np.float32)
        return merged


@dataclass(frozen=True, eq=False)
class Adapter:
    """An opened adapter. rank, alpha: as trained; scale: what b @ a is multiplied with. base: adapter_config's name."""

    folder: Path
    rank: int
    alpha: float
    scale: float
    base: str
    config: Mapping[str, Any]
    _places: Mapping[str, TensorInfo] = field(repr=False)

    @staticmethod
    def is_adapter(folder: Path) -> bool:
        """Return whether `folder` holds an adapter (rather than a checkpoint)."""
        return (folder / CONFIG_FILE).is_file()

    @staticmethod
    def open(folder: Path) -> Adapter:
        """Open the adapter in `folder`. Raises AdapterError for what cannot be merged exactly."""
        from ..runtime.prompt import read_json

        folder = Path(folder)
        if not Adapter.is_adapter(folder):
            raise AdapterError(f"{folder / CONFIG_FILE} is missing; name an adapter made by: infimed train sft")
        config = read_json(folder / CONFIG_FILE)
        if config.get("peft_type") != "LORA":
            raise AdapterError(f"{folder}: peft_type is {config.get('peft_type')!r}; only LORA adapters are supported")
        for key, allowed in _UNUSED.items():
            if config.get(key, allowed[0]) not in allowed:
                raise AdapterError(f"{folder}: {key} = {config[key]!r} is not supported; train the adapter without it")
        try:
            rank, alpha = int(config["r"]), float(config["lora_alpha"])
            scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
            base = str(config[_BASE_KEY])
        except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
            raise AdapterError(f"{folder / CONFIG_FILE}: {error} is missing or wrong; train it again") from None
        if not math.isfinite(scale):
            raise AdapterError(f"{folder / CONFIG_FILE}: lora_alpha = {alpha} is no finite number; train it again")
        if not (folder / WEIGHTS_FILE).is_file():
            raise AdapterError(f"{folder / WEIGHTS_FILE} is missing; copy or train the adapter again")
        places = {place.name: place for place in read_header(folder / WEIGHTS_FILE)}
        if not places:
            raise AdapterError(f"{folder / WEIGHTS_FILE} holds no tensor, so it changes nothing; train it again")
        return Adapter(folder, rank, alpha, scale, base, config, places)

    @cached_property
    def sha256(self) -> str:
        """The digest upon the base that it was trained on, or that it names where it does not say."""
        provenance = self.provenance
        trained_on = provenance.inputs.get("base") if provenance else None
        return self.sha256_upon(trained_on or self.find_base().sha256)

    def sha256_upon(self, base_sha256: str) -> str:
        """One digest over all that decides an answer: weights, settings (rank, alpha, ...), pixel rules and base.

        Where the base lies is left out: the same adapter has the same digest on every machine.
        """
        pixels = self.folder / PIXELS_FILE
        try:
            settings = canonical_json({key: value for key, value in self.config.items() if key != _BASE_KEY})
        except ValueError as error:
            raise AdapterError(f"{self.folder / CONFIG_FILE}: {error}; train the adapter again") from None
        parts = {
            "base": base_sha256,
            "settings": hashlib.sha256(settings).hexdigest(),
            "pixels": sha256_file(pixels) if pixels.is_file() else "",
            "weights": sha256_file(self.folder / WEIGHTS_FILE),
        }
        return hashlib.sha256(canonical_json(parts)).hexdigest()

    @property
    def weight_bytes(self) -> int:
        """Return the size of the adapter's own tensors."""
        return sum(place.end - place.begin for place in self._places.values())

    @property
    def provenance(self) -> Provenance | None:
        """Return where the adapter comes from, None where it brings no infimed.json (an adapter from elsewhere)."""
        return Provenance.read(self.folder) if (self.folder / PROVENANCE_FILE).is_file() else None

    def updates(self) -> Iterator[Update]:
        """Yield what the adapter adds, layer by layer, in the order of its file."""
        for name, place in self._places.items():
            if name.endswith(".lora_B.weight"):
                continue
            module = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
            other = name.replace(".lora_A.", ".lora_B.")
            if not name.startswith(_PREFIX) or not name.endswith(".lora_A.weight") or other not in self._places:
                raise AdapterError(f"{self.folder}: tensor {name} is no half of a LoRA pair; train the adapter again")
            yield Update(module, _read(place), _read(self._places[other]), self.scale)

    def find_base(self, base: Path | None = None) -> Checkpoint:
        """Open the base: `base`, else the named folder (absolute or from the adapter's folder), else the packaged one.

        Raises AdapterError where it is not there or is not the one that the adapter was trained on.
        """
        folder = base or _named_base(self.folder, self.base)
        if not (folder / "config.json").is_file():
            raise AdapterError(f"{self.folder}: its base {self.base!r} is not at {folder}; name it with --base")
        checkpoint = Checkpoint.open(folder)
        provenance = self.provenance
        if provenance and provenance.inputs.get("base", checkpoint.sha256) != checkpoint.sha256:
            raise AdapterError(
                f"{folder} is not the base of {self.folder}: its sha256 is {checkpoint.sha256[:16]}..., "
                f"trained on {provenance.inputs['base'][:16]}...; name the right one with --base"
            )
        return checkpoint


def embedded_base() -> Path:
    """Return the folder of the base model that the package brings along."""
    return Path(__file__).parent / "base"


def base_name(base: Path, adapter: Path) -> str:
    """Return what an adapter at `adapter` names its base: the packaged one by name, others relative to the adapter."""
    if base.resolve() == embedded_base().resolve():
        return EMBEDDED_BASE
    return os.path.relpath(base.resolve(), adapter.resolve())


def write_adapter_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write adapter_config.json with sorted keys, so that the same adapter has the same bytes."""
    write_bytes(folder / CONFIG_FILE, canonical_json(dict(config)))


def _named_base(adapter: Path, name: str) -> Path:
    return embedded_base() if name == EMBEDDED_BASE else adapter / name


def _read(place: TensorInfo) -> NDArray[np.float32]:
    if place.dtype not in ("F32", "BF16", "F16"):
        raise AdapterError(f"{place.file}: tensor {place.name} is of type {place.dtype}; a float type is needed")
    raw = np.memmap(place.file, np.uint8, "r", offset=place.begin, shape=(place.end - place.begin,))
    return decode(raw, place.dtype, place.shape).astype(np.float32)
