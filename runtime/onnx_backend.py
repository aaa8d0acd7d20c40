"""OnnxBackend: the vision and the decoder graph in onnxruntime, driven by plain numpy.

The KV cache is one buffer per layer laid out token by token: the graph reads its beginning and writes its new rows
right behind, so extending copies nothing and cutting is a number. Knows nothing of messages or scoring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import Placed, check_settings, finite
from .families import family_of
from .onnx_cache import Cache
from .onnx_session import OnnxError, float_types, giving_back, open_session, run
from .preprocessing import PixelRules, patches
from .prompt import PreparedImage, open_rules, read_json
from .shape import context_limit
from .vision_index import vision_index

DECODER = "decoder"
"""A level's folder holds decoder.onnx and its data files, decoder-0.data and so on."""
EMBEDDINGS = "token_embeddings.npy"
"""shared/ holds the token embeddings, (vocabulary, hidden), in the checkpoint's type; uint16: the bits of bfloat16."""
FULL_VISION = "fp32"
"""How the vision tower is stored unless another type is asked for."""
STEP_TOKENS = 256
"""Longer inputs go through the graph in steps of this: attention scores grow with tokens times context."""
LARGE_STEP_TOKENS = 32
"""After steps from this size on onnxruntime frees its working memory; a reply's single tokens need little of it."""


def vision_stem(type: str) -> str:
    """Return how a tower's files begin: shared/ holds vision-fp32.onnx, its data vision-fp32-0.data and so on."""
    return f"vision-{type}"


class OnnxBackend:
    """One level of a bundle in onnxruntime, with one sequence in its KV cache."""

    def __init__(
        self,
        folder: Path,
        shared: Path,
        *,
        threads: int,
        context_tokens: int,
        vision: str = FULL_VISION,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        as_written: bool = False,
    ) -> None:
        """Open the level in `folder` with what it uses in `shared`.

        threads: of the processor. context_tokens: room of the KV cache; memory is taken as it fills. vision: how the
        vision tower is stored. providers: of onnxruntime, in order; each must really run here. as_written: as for
        open_session. Raises OnnxError, BackendError or MissingExtra.
        """
        config = read_json(shared / "config.json")
        check_settings(threads, context_tokens, context_limit(config))
        self._rules = open_rules(shared, family_of(config))
        self._embeddings = _open_embeddings(shared / EMBEDDINGS)
        self._decoder = open_session(folder / f"{DECODER}.onnx", threads, providers, as_written=as_written)
        self._vision: Any = None  # stays so in a family that takes no images
        if self._rules is not None:
            eyes = shared / f"{vision_stem(vision)}.onnx"
            self._vision = open_session(eyes, threads, providers, as_written=as_written)
            self._window = _vision_sizes(self._vision, self._rules, eyes.name)
            self._pixel_type = float_types(self._vision)["pixel_values"]
        self._give_back = giving_back()
        inputs = {port.name: port.shape for port in self._decoder.get_inputs()}
        self._layers = sum(name.startswith("past_key.") for name in inputs)
        outputs = {port.name: port.shape for port in self._decoder.get_outputs()}
        try:
            _, _, hidden = inputs["inputs_embeds"]
            kv_heads, head_dim = (int(side) for side in inputs["past_key.0"][1:])
            self.vocab_size = int(outputs["logits"][1])
        except (KeyError, ValueError, IndexError, TypeError):
            raise OnnxError(f"{folder / DECODER}.onnx is not a decoder that infimed wrote; export it again") from None
        if self._embeddings.shape != (self.vocab_size, hidden):
            raise OnnxError(
                f"{EMBEDDINGS} is {self._embeddings.shape}, {DECODER}.onnx needs {(self.vocab_size, hidden)}"
            )
        self.context_tokens = context_tokens
        types = float_types(self._decoder)
        self._input_type, self._logit_type = types["inputs_embeds"], types["logits"]
        shape = (context_tokens, kv_heads, head_dim)
        self._cache = Cache(self._layers, shape, types["past_key.0"], providers[0])
        self._tokens = 0

    def encode_image(self, image: PreparedImage) -> NDArray[np.float32]:
        """Return the vision tower's output for one image: (image tokens, hidden), float32."""
        if self._rules is None:
            raise OnnxError("an image was given to a model that takes none; ask in text alone")
        values, grid = patches(image.rgb, self._rules)
        feeds = vision_index([grid], **self._window).feeds()
        feeds = {"pixel_values": values.astype(self._pixel_type, copy=False), **feeds}
        (made,) = run(self._vision.run, ["image_embeddings"], feeds, self._give_back)
        return finite(made.astype(np.float32, copy=False), "the vision tower")

    def extend(
        self,
        token_ids: NDArray[np.int64],
        positions: NDArray[np.int64],
        images: Sequence[Placed],
        want: int,
    ) -> NDArray[np.float32]:
        """Append tokens to the sequence and return the logits of the last `want` of them: (want, vocab)."""
        count = len(token_ids)
        if self._tokens + count > self.context_tokens:
            raise OnnxError(f"{self._tokens + count} tokens are more than the context of {self.context_tokens} holds")
        embedded = _to_float32(self._embeddings[token_ids])
        for placed in images:
            embedded[placed.offset : placed.offset + len(placed.embeddings)] = placed.embeddings
        with np.errstate(over="ignore"):  # what float16 cannot hold shows in the logits
            given = embedded.astype(self._input_type, copy=False)
        logits = np.empty((want, self.vocab_size), dtype=self._logit_type)
        for start in range(0, count, STEP_TOKENS):
            stop = min(start + STEP_TOKENS, count)
            first = min(max(count - want, start), stop)  # of this step's tokens, the first whose logits are wanted
            self._step(
                given[start:stop],
                positions[:, start:stop],
                np.arange(first - start, stop - start),
                logits[first - (count - want) : stop - (count - want)] if first < stop else logits[:0],
            )
        return finite(logits.astype(np.float32, copy=False), "the language model")

    def _step(
        self,
        embedded: NDArray[Any],
        positions: NDArray[np.int64],
        rows: NDArray[np.int64],
        logits: NDArray[Any],
    ) -> None:
        """Run the decoder on tokens that fit one step; its logits of `rows` are written into `logits`."""
        count = len(embedded)
        total = self._tokens + count
        inputs: dict[str, NDArray[Any]] = {
            "inputs_embeds": embedded[None],
            "position_ids": np.ascontiguousarray(positions, dtype=np.int64)[:, None],
            "attention_mask": np.ones((1, total), dtype=np.int64),
            "logit_rows": rows,
        }
        binding = self._decoder.io_binding()
        for name, value in inputs.items():
            binding.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        binding.bind_output("logits", "cpu", 0, logits.dtype, logits.shape, logits.ctypes.data)
        self._cache.bind(binding, self._tokens, count)
        run(self._decoder.run_with_iobinding, binding, self._give_back if count >= LARGE_STEP_TOKENS else None)
        binding.synchronize_outputs()
        self._tokens = total

    def truncate(self, tokens: int, next_position: int) -> None:
        """Keep the first `tokens` tokens of the sequence."""
        self._tokens = min(tokens, self._tokens)

    def close(self) -> None:
        """Give back the library's memory."""
        del self._decoder, self._vision, self._cache, self._embeddings


def _open_embeddings(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise OnnxError(f"{path} is missing; export the level again")
    try:
        table: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise OnnxError(f"{path} is no array ({error}); export the level again") from None
    if table.ndim != 2 or table.dtype not in (np.float64, np.float32, np.float16, np.uint16):
        raise OnnxError(f"{path} holds {table.dtype} {table.shape}; token embeddings are floating-point rows")
    return table


def _to_float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows of the embedding table as a float32 copy, exactly."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return np.array(rows, dtype=np.float32)


def _vision_sizes(session: Any, rules: PixelRules, name: str) -> Mapping[str, int]:
    """Return what vision_index needs, from the graph's metadata; it must agree with the pixel rules."""
    stated = session.get_modelmeta().custom_metadata_map
    try:
        sizes = {key: int(stated[key]) for key in ("window_size", "patch_size", "merge_size")}
    except (KeyError, ValueError):
        raise OnnxError(f"{name} does not state its sizes; export the level again") from None
    if (sizes["patch_size"], sizes["merge_size"]) != (rules.patch_size, rules.merge_size):
        raise OnnxError(f"{name} is for other patches than preprocessor_config.json; export the level again")
    return sizes
