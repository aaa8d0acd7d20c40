"""TorchBackend: a transformers model behind the Backend protocol; the reference for every exported level.

Pixels and positions come from runtime/, never from the transformers processor. Knows nothing of messages or scoring.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import InfimedError, MissingExtra
from ..runtime.backend import MAX_THREADS, Placed, finite
from ..runtime.families import family_of
from ..runtime.preprocessing import PixelRules, patches
from ..runtime.prompt import PreparedImage
from ..runtime.shape_check import check_shapes
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

Dtype = Literal["float32", "bfloat16", "float16"]


class TorchError(InfimedError):
    """The model cannot be run by torch here."""


class TorchBackend:
    """One transformers model with one sequence in its KV cache.

    model: as `load_model` returns it, with or without LoRA layers inside. rules: how its pixels are made, None for a
    family that takes no images.
    """

    def __init__(self, model: Any, rules: PixelRules | None) -> None:
        self._model = model.eval().requires_grad_(False)
        self._rules = rules
        text = model.config.get_text_config()
        self.vocab_size: int = text.vocab_size
        self.context_tokens: int = text.max_position_embeddings
        family = family_of({"architectures": [type(model).__name__]})
        self._axes = 3 if family.rotary == "sections" else 1
        self._cache = self._empty_cache()

    def encode_image(self, image: PreparedImage) -> NDArray[np.float32]:
        """Return the vision tower's output for one image: (image tokens, hidden), float32."""
        import torch

        if self._rules is None:
            raise TorchError("an image was given to a model that takes none; ask in text alone")
        values, grid = patches(image.rgb, self._rules)
        with torch.inference_mode():
            made = self._model.model.get_image_features(
                torch.from_numpy(values).to(self._model.device),
                torch.tensor([[grid.t, grid.h, grid.w]], device=self._model.device),
                return_dict=True,
            ).pooler_output[0]
        return finite(_to_numpy(made), "the vision tower")

    def extend(
        self,
        token_ids: NDArray[np.int64],
        positions: NDArray[np.int64],
        images: Sequence[Placed],
        want: int,
    ) -> NDArray[np.float32]:
        """Append tokens to the sequence and return the logits of the last `want` of them: (want, vocab)."""
        import torch

        device = self._model.device
        with torch.inference_mode():
            embeddings = self._model.get_input_embeddings()(torch.from_numpy(token_ids).to(device))
            for placed in images:
                rows = torch.from_numpy(placed.embeddings).to(embeddings)
                embeddings[placed.offset : placed.offset + len(rows)] = rows
            places = torch.from_numpy(np.ascontiguousarray(positions)).to(device)
            hidden = self._model.model(
                inputs_embeds=embeddings[None],
                position_ids=places[:, None] if self._axes == 3 else places[:1],
                past_key_values=self._cache,
                use_cache=True,
            ).last_hidden_state[0]
            return finite(_to_numpy(self._model.lm_head(hidden[len(hidden) - want :])), "the language model")

    def truncate(self, tokens: int, next_position: int) -> None:
        """Keep the first `tokens` tokens of the sequence."""
        if tokens == 0:
            self._cache = self._empty_cache()
        else:
            self._cache.crop(tokens - self._cache.get_seq_length())

    def close(self) -> None:
        """Give back the model's memory."""
        self._cache = None
        self._model = None

    def _empty_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config.get_text_config())


def load_model(checkpoint: Checkpoint, *, dtype: Dtype = "float32", device: str = "cpu") -> Any:
    """Return the checkpoint as the transformers model that its family names, with weights in `dtype` on `device`.

    Only local files are read and no code of the checkpoint is run. Raises MissingExtra, TorchError, CheckpointError,
    UnsupportedFamily.
    """
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra("train", error.name or "torch") from None
    family = family_of(checkpoint.config)
    # Before transformers builds anything: it would take as much memory as a damaged config.json says.
    check_shapes(checkpoint.folder)
    # Bars are drawn by the cli alone, and notes of libraries to their developers are not for users.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TorchError(f"device {device} is not here: torch {torch.__version__} sees no GPU; use --device cpu")
    try:
        model, report = getattr(transformers, family.architecture).from_pretrained(
            str(checkpoint.folder),
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except MemoryError:
        raise
    except Exception as error:  # of many kinds for a config.json that means nothing; all are about the checkpoint
        reason = " ".join(str(error).split())[:200]
        raise TorchError(f"transformers cannot build {checkpoint.folder} ({type(error).__name__}: {reason})") from None
    for kind in ("missing_keys", "mismatched_keys"):
        if wrong := sorted(map(str, report[kind])):
            raise TorchError(f"{checkpoint.folder}: {len(wrong)} tensors such as {wrong[0]} do not fit its config.json")
    return model.to(device)


def blank_model(checkpoint: Checkpoint) -> Any:
    """Return the checkpoint's model with every layer and no weight: its tensors are of torch's meta device.

    Raises MissingExtra, TorchError, CheckpointError, UnsupportedFamily.
    """
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra("train", error.name or "torch") from None
    kind = getattr(transformers, family_of(checkpoint.config).architecture)
    check_shapes(checkpoint.folder)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.|peft\.")
    try:
        with torch.device("meta"):
            return kind(kind.config_class.from_pretrained(str(checkpoint.folder), local_files_only=True))
    except MemoryError:
        raise
    except Exception as error:  # of many kinds for a config.json that means nothing; all are about the checkpoint
        reason = " ".join(str(error).split())[:200]
        raise TorchError(f"transformers cannot build {checkpoint.folder} ({type(error).__name__}: {reason})") from None


def use_threads(threads: int) -> None:
    """Fix how many threads torch computes with: sums are split by it, so results repeat only at the same number."""
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingExtra("train", "torch") from None
    if not 1 <= threads <= MAX_THREADS:
        raise TorchError(f"{threads} threads asked for; 1 to {MAX_THREADS} can be had")
    torch.set_num_threads(threads)


def open_rules(folder: Path) -> PixelRules:
    """Return the pixel rules of a checkpoint or adapter folder of a family that takes images."""
    from ..runtime.prompt import read_json

    return PixelRules.from_json(read_json(folder / "preprocessor_config.json"))


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.float().cpu().numpy()
    return values
