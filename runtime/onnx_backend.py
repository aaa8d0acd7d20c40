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

from .. import InfimedError, MissingExtra
from .backend import Placed, check_settings, finite
from .onnx_file import check_onnx_file
from .preprocessing import PixelRules, patches
from .prompt import PreparedImage, read_json
from .shape import context_limit
from .vision_index import vision_index

DECODER = "decoder"
"""A level's folder holds decoder.onnx and its data files, decoder-0.data and so on."""
VISION = "vision"
"""shared/ holds vision.onnx and its data files, vision-0.data and so on."""
EMBEDDINGS = "token_embeddings.npy"
"""shared/ holds the token embeddings, (vocabulary, hidden), in the checkpoint's type; uint16: the bits of bfloat16."""
STEP_TOKENS = 256
"""Longer inputs go through the graph in steps of this: attention scores grow with tokens times context."""
LARGE_STEP_TOKENS = 32
"""After steps from this size on onnxruntime frees its working memory; a reply's single tokens need little of it."""


class OnnxError(InfimedError):
    """onnxruntime cannot open or run a graph here."""


class OnnxBackend:
    """One level of a bundle in onnxruntime, with one sequence in its KV cache."""

    def __init__(
        self,
        folder: Path,
        shared: Path,
        *,
        threads: int,
        context_tokens: int,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ) -> None:
        """Open the level in `folder` with what it uses in `shared`.

        threads: of the processor. context_tokens: room of the KV cache; memory is taken as it fills. providers: of
        onnxruntime, in order; each must really run here. Raises OnnxError, BackendError or MissingExtra.
        """
        check_settings(threads, context_tokens, context_limit(read_json(shared / "config.json")))
        self._rules = PixelRules.from_json(read_json(shared / "preprocessor_config.json"))
        self._embeddings = _open_embeddings(shared / EMBEDDINGS)
        self._decoder = _open_session(folder / f"{DECODER}.onnx", threads, providers)
        self._vision = _open_session(shared / f"{VISION}.onnx", threads, providers)
        self._give_back = _giving_back()
        self._window = _vision_sizes(self._vision, self._rules)
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
        self._cache = _Cache(self._layers, (context_tokens, kv_heads, head_dim), providers[0])
        self._tokens = 0

    def encode_image(self, image: PreparedImage) -> NDArray[np.float32]:
        """Return the vision tower's output for one image: (image tokens, hidden), float32."""
        values, grid = patches(image.rgb, self._rules)
        feeds = {"pixel_values": values, **vision_index([grid], **self._window).feeds()}
        made: NDArray[np.float32] = _run(self._vision.run, ["image_embeddings"], feeds, self._give_back)[0]
        return finite(made, "the vision tower")

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
        logits = np.empty((want, self.vocab_size), dtype=np.float32)
        for start in range(0, count, STEP_TOKENS):
            stop = min(start + STEP_TOKENS, count)
            first = min(max(count - want, start), stop)  # of this step's tokens, the first whose logits are wanted
            self._step(
                embedded[start:stop],
                positions[:, start:stop],
                np.arange(first - start, stop - start),
                logits[first - (count - want) : stop - (count - want)] if first < stop else logits[:0],
            )
        return finite(logits, "the language model")

    def _step(
        self,
        embedded: NDArray[np.float32],
        positions: NDArray[np.int64],
        rows: NDArray[np.int64],
        logits: NDArray[np.float32],
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
        _run(self._decoder.run_with_iobinding, binding, self._give_back if count >= LARGE_STEP_TOKENS else None)
        binding.synchronize_outputs()
        self._tokens = total

    def truncate(self, tokens: int, next_position: int) -> None:
        """Keep the first `tokens` tokens of the sequence."""
        self._tokens = min(tokens, self._tokens)

    def close(self) -> None:
        """Give back the library's memory."""
        del self._decoder, self._vision, self._cache, self._embeddings


class _Cache:
    """Keys and values of every layer, (capacity, kv_heads, head_dim) float32 each, where the graph runs."""

    def __init__(self, layers: int, shape: tuple[int, int, int], provider: str) -> None:
        self._device = "cuda" if provider.startswith("CUDA") else "cpu"
        self._entry = shape[1:]
        self._names = [f"{kind}.{layer}" for kind in ("key", "value") for layer in range(layers)]
        self._buffers = [self._buffer(shape) for _ in self._names]

    def _buffer(self, shape: tuple[int, int, int]) -> Any:
        if self._device == "cpu":
            return np.empty(shape, dtype=np.float32)  # pages are taken when they are first written
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self._device, 0)

    def bind(self, binding: Any, past: int, count: int) -> None:
        """Let the graph read the first `past` rows of every buffer and write the `count` rows behind them."""
        row_bytes = int(np.prod(self._entry)) * np.dtype(np.float32).itemsize
        for name, buffer in zip(self._names, self._buffers, strict=True):
            start = buffer.ctypes.data if self._device == "cpu" else buffer.data_ptr()
            binding.bind_input(f"past_{name}", self._device, 0, np.float32, (past, *self._entry), start)
            end = start + past * row_bytes
            binding.bind_output(f"new_{name}", self._device, 0, np.float32, (count, *self._entry), end)


def _open_session(path: Path, threads: int, providers: tuple[str, ...]) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtra("onnx", "onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # a plan is kept for every length seen, and lengths never end
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    check_onnx_file(path)
    missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
    session = None
    if not missing:  # without fallback: it would print, and try again by other means than those asked for
        chosen = {"providers": list(providers), "enable_fallback": 0}
        session = _run(onnxruntime.InferenceSession, str(path), options, **chosen)
    # Only a session tells what runs: the list of available providers names what was compiled in.
    if session is None or not set(providers) <= set(session.get_providers()):
        raise OnnxError(
            f"onnxruntime {onnxruntime.__version__} cannot run {providers[0]} here; use the processor, or install "
            "onnxruntime-gpu in place of onnxruntime together with the CUDA libraries it names"
        )
    return session


def _giving_back() -> Any:
    """Return the options of a run after which working memory on the processor is freed."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _run(call: Any, *arguments: Any, **named: Any) -> Any:
    """Call onnxruntime; its errors, each of its own class under Exception, become one line."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime") or isinstance(error, (RuntimeError, ValueError)):
            raise OnnxError(f"onnxruntime: {' '.join(str(error).split())[:300]}") from None
        raise


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


def _vision_sizes(session: Any, rules: PixelRules) -> Mapping[str, int]:
    """Return what vision_index needs, from the graph's metadata; it must agree with the pixel rules."""
    stated = session.get_modelmeta().custom_metadata_map
    try:
        sizes = {key: int(stated[key]) for key in ("window_size", "patch_size", "merge_size")}
    except (KeyError, ValueError):
        raise OnnxError(f"{VISION}.onnx does not state its sizes; export the level again") from None
    if (sizes["patch_size"], sizes["merge_size"]) != (rules.patch_size, rules.merge_size):
        raise OnnxError(f"{VISION}.onnx is for other patches than preprocessor_config.json; export the level again")
    return sizes
