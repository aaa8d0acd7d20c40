"""Opens a checkpoint, or an adapter upon its base, as the torch reference: an Engine like every other.

An adapter stays unmerged, so that it can be compared with what merging and storing made of it.
"""

from __future__ import annotations

from pathlib import Path

from ..runtime.decoding import Decoder
from ..runtime.engine import Engine
from ..runtime.prompt import Prompter
from .adapter import PIXELS_FILE, Adapter
from .checkpoint import Checkpoint
from .lora import load_lora
from .torch_backend import Dtype, TorchBackend, load_model, open_rules, use_threads


def open_reference(
    path: Path, *, threads: int = 1, dtype: Dtype = "float32", device: str = "cpu", base: Path | None = None
) -> Engine:
    """Return the torch reference of a checkpoint folder (level "checkpoint") or an adapter folder (level "adapter").

    threads: how many torch computes with, for the whole process. base: where an adapter's base lies, if not where the
    adapter says. The model computes in `dtype` whatever its stored type.
    """
    path = Path(path)
    use_threads(threads)
    if not Adapter.is_adapter(path):
        checkpoint = Checkpoint.open(path)
        prompter = Prompter.open(path)
        model = load_model(checkpoint, dtype=dtype, device=device)
        return Decoder(TorchBackend(model, prompter.pixel_rules), prompter, "checkpoint")
    adapter = Adapter.open(path)
    checkpoint = adapter.find_base(base)
    prompter = open_prompter(checkpoint, adapter)
    model = load_lora(load_model(checkpoint, dtype=dtype, device=device), adapter).get_base_model()
    return Decoder(TorchBackend(model, prompter.pixel_rules), prompter, "adapter")


def open_prompter(checkpoint: Checkpoint, adapter: Adapter) -> Prompter:
    """Return the base's prompter with the pixel rules that the adapter was trained with."""
    prompter = Prompter.open(checkpoint.folder)
    if (adapter.folder / PIXELS_FILE).is_file():
        prompter.rules = open_rules(adapter.folder)
    return prompter
