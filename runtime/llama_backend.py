"""llama.cpp as a Backend: our tokens, positions and pixels go in, rows of logits come out.

Batches are built here, not by llama.cpp's helpers, so that positions are the same as in every other engine; every size
is checked before a C call, since llama.cpp ends the process where a check of its own fails. Knows no text.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import Placed
from .gguf_file import read_gguf
from .llama_files import NORM_EPSILON, check_text_model, check_vision_model
from .llama_graph import NodeCorrection, exact_gelu, norm_epsilon
from .llama_library import LlamaError, llama_library, path_bytes, pointer
from .prompt import PreparedImage

MAX_BATCH_TOKENS = 512
"""Tokens per step inside llama.cpp; longer sequences are cut here, so that its own limit is never met."""
MAX_LOGITS_BYTES = 64 * 2**20
"""What llama.cpp may hold of logits at once; more wanted rows are fetched in several steps."""
_MAX_IMAGE_TOKENS = 1 << 20


@dataclass(frozen=True)
class LlamaSettings:
    """How a model was loaded; recorded wherever its figures are. kv_type: of the KV cache. repack: weights are copied
    into another order, faster and at the price of their size in memory."""

    llama_cpp: str
    threads: int
    gpu_layers: int
    batch_tokens: int
    kv_type: str
    flash_attention: bool
    repack: bool


class LlamaBackend:
    """One GGUF model, and the mmproj file of its vision tower. See runtime/backend.py for what the methods promise."""

    def __init__(
        self,
        model: Path,
        mmproj: Path | None,
        *,
        threads: int,
        context_tokens: int,
        gpu_layers: int = 0,
        precise: bool = False,
        flash_attention: bool = False,
        repack: bool = False,
    ) -> None:
        """Load the files. Raises GgufError, LlamaError or MissingExtra.

        gpu_layers: layers on the GPU; a negative number means all. precise: KV cache in f32, for the level on which the
        graph is judged; f16 otherwise. flash_attention: moves the mean KL on a CPU to 1e-5 or more, so off by default.
        """
        self._library = llama_library()
        self._mtmd: Any = None
        self._gelu: NodeCorrection | None = None
        self._context: Any = None
        self._model: Any = None
        if threads < 1 or context_tokens < 1:
            raise LlamaError(
                f"{threads} threads and {context_tokens} context tokens asked for; both must be at least 1"
            )
        header = read_gguf(model)
        sizes = check_text_model(header)
        self._times: list[int] = []
        self.context_tokens = context_tokens
        self.settings = LlamaSettings(
            llama_cpp=self._library.version,
            threads=threads,
            gpu_layers=gpu_layers,
            batch_tokens=min(MAX_BATCH_TOKENS, context_tokens),
            kv_type="f32" if precise else "f16",
            flash_attention=flash_attention,
            repack=repack,
        )
        try:
            self._model = self._load(model)
            self._norms = norm_epsilon(self._library, float(str(header.values[NORM_EPSILON])))
            self._norms_per_step = 2 * sizes.layers + 1
            self.vocab_size = int(self._llama.llama_vocab_n_tokens(self._llama.llama_model_get_vocab(self._model)))
            self.hidden = int(self._llama.llama_model_n_embd_inp(self._model))
            self._rows_at_once = max(1, min(self.settings.batch_tokens, MAX_LOGITS_BYTES // (4 * self.vocab_size)))
            self._context = self._start()
            if mmproj is not None:
                self._factor = 2 * check_vision_model(read_gguf(mmproj), self.hidden).patch
                self._mtmd = self._load_tower(mmproj)
        except BaseException:
            self.close()
            raise

    @property
    def _llama(self) -> Any:
        return self._library.llama

    def _load(self, path: Path) -> Any:
        params = self._llama.llama_model_default_params()
        params.n_gpu_layers = self.settings.gpu_layers
        params.load_mode = self._llama.LLAMA_LOAD_MODE_MMAP
        params.check_tensors = True  # refuses NaN and Inf, which would otherwise load silently
        params.use_extra_bufts = self.settings.repack
        self._library.log.clear()
        model = self._llama.llama_model_load_from_file(path_bytes(path), params)
        if not model:
            raise LlamaError(f"llama.cpp refuses {path}: {self._library.log.reason()}; export the level again")
        return model

    def _start(self) -> Any:
        llama, settings = self._llama, self.settings
        params = llama.llama_context_default_params()
        params.n_ctx = self.context_tokens
        params.n_batch = params.n_ubatch = settings.batch_tokens
        params.n_seq_max = 1
        params.n_outputs_max = self._rows_at_once
        params.n_threads = params.n_threads_batch = settings.threads
        params.flash_attn_type = self._flash_type()
        params.type_k = params.type_v = llama.GGML_TYPE_F32 if settings.kv_type == "f32" else llama.GGML_TYPE_F16
        params.offload_kqv = settings.gpu_layers != 0
        params.op_offload = settings.gpu_layers != 0
        params.no_perf = True
        if self._norms is not None:
            params.cb_eval = self._norms.callback
        self._library.log.clear()
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise LlamaError(
                f"llama.cpp gives no context of {self.context_tokens} tokens ({self._library.log.reason()}); ask for "
                "fewer"
            )
        return context

    def _load_tower(self, path: Path) -> Any:
        params = self._library.mtmd.mtmd_context_params_default()
        params.use_gpu = self.settings.gpu_layers != 0
        params.print_timings = False
        params.n_threads = self.settings.threads
        params.flash_attn_type = self._flash_type()
        params.warmup = False
        self._gelu = exact_gelu(self._library)
        params.cb_eval = self._gelu.callback
        # Wide limits: an image of ours has its final size, and llama.cpp must not resize it again.
        params.image_min_tokens, params.image_max_tokens = 1, _MAX_IMAGE_TOKENS
        self._library.log.clear()
        tower = self._library.mtmd.mtmd_init_from_file(path_bytes(path), self._model, params)
        if not tower:
            raise LlamaError(f"llama.cpp refuses {path}: {self._library.log.reason()}; export the bundle again")
        return tower

    def _flash_type(self) -> int:
        on, off = self._llama.LLAMA_FLASH_ATTN_TYPE_ENABLED, self._llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return int(on if self.settings.flash_attention else off)

    def encode_image(self, image: PreparedImage) -> NDArray[np.float32]:
        """Return the vision tower's output for one image: (image tokens, hidden), float32."""
        if self._mtmd is None:
            raise LlamaError("an image was given, but the model was opened without its vision tower (mmproj)")
        height, width = image.rgb.shape[:2]
        tokens = height // self._factor * (width // self._factor)
        if image.rgb.dtype != np.uint8 or image.rgb.shape != (height, width, 3) or not tokens:
            raise LlamaError(
                f"an image of {image.rgb.dtype} {image.rgb.shape} was given; uint8 (height, width, 3) needed"
            )
        if height % self._factor or width % self._factor or tokens != image.tokens:
            raise LlamaError(
                f"an image of {width} x {height} gives {tokens} tokens of {self._factor} pixels, its prompt has "
                f"{image.tokens}; resize it by the model's pixel rules first"
            )
        mtmd = self._library.mtmd
        pixels = np.ascontiguousarray(image.rgb)
        chunks = mtmd.mtmd_input_chunks_init()
        bitmap = mtmd.mtmd_bitmap_init(width, height, pointer(pixels, ctypes.c_uint8))
        try:
            return self._encode(bitmap, chunks, tokens)
        finally:
            mtmd.mtmd_bitmap_free(bitmap)
            mtmd.mtmd_input_chunks_free(chunks)

    def _encode(self, bitmap: Any, chunks: Any, tokens: int) -> NDArray[np.float32]:
        """Hand a bitmap to the tower by itself: no text is tokenised, so no media marker can be mistaken."""
        mtmd = self._library.mtmd
        part = mtmd.mtmd_input_part(None, bitmap)
        parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
        self._library.log.clear()
        status = mtmd.mtmd_tokenize_from_parts(self._mtmd, chunks, parts, 1, False)
        found = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
        images = [chunk for chunk in found if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE]
        counted = [int(mtmd.mtmd_input_chunk_get_n_tokens(chunk)) for chunk in images]
        if status or counted != [tokens]:
            raise LlamaError(
                f"llama.cpp makes {counted} tokens of an image of {tokens}: {self._library.log.reason()}; "
                "the mmproj file belongs to another model"
            )
        if mtmd.mtmd_encode_chunk(self._mtmd, images[0]):
            raise LlamaError(f"llama.cpp cannot encode the image: {self._library.log.reason()}")
        if self._gelu is not None:
            self._gelu.check(1)
        output = mtmd.mtmd_get_output_embd(self._mtmd)
        if not output:
            raise LlamaError("llama.cpp returns no embeddings for the image; the mmproj file belongs to another model")
        return self._finite(np.ctypeslib.as_array(output, (tokens, self.hidden)).copy(), "the vision tower")

    def extend(
        self,
        token_ids: NDArray[np.int64],
        positions: NDArray[np.int64],
        images: Sequence[Placed],
        want: int,
    ) -> NDArray[np.float32]:
        """Append tokens to the sequence and return the logits of the last `want` of them: (want, vocab)."""
        count = len(token_ids)
        if positions.shape != (3, count) or not 0 <= want <= count:
            raise LlamaError(f"{count} tokens were given with positions {positions.shape} and {want} rows wanted")
        if len(self._times) + count > self.context_tokens:
            raise LlamaError(
                f"{len(self._times) + count} tokens do not fit the context of {self.context_tokens}; shorten the prompt"
            )
        runs = self._runs(count, images)
        self._check(token_ids, positions, runs)
        logits = np.empty((want, self.vocab_size), np.float32)
        filled, kept = 0, len(self._times)
        try:
            for start, stop, embeddings in self._steps(runs, count - want):
                inputs = embeddings if embeddings is not None else token_ids[start:stop].astype(np.int32)
                rows = self._decode(inputs, positions[:, start:stop], stop - max(start, count - want))
                logits[filled : filled + len(rows)] = rows
                filled += len(rows)
                self._times.extend(positions[0, start:stop].tolist())
        except BaseException:
            self._cut(kept, int(positions[0, 0]))
            raise
        return logits

    def truncate(self, tokens: int, next_position: int) -> None:
        """Keep the first `tokens` tokens of the sequence; the next token would sit at `next_position`."""
        if not 0 <= tokens <= len(self._times):
            raise LlamaError(f"the sequence has {len(self._times)} tokens; {tokens} of them cannot be kept")
        before, after = self._times[:tokens][-1:], self._times[tokens : tokens + 1]
        if (before and before[0] >= next_position) or (after and after[0] < next_position):
            raise LlamaError(f"position {next_position} does not part the sequence after token {tokens}")
        self._cut(tokens, next_position)

    def close(self) -> None:
        """Give back the library's memory; nothing may be asked afterwards."""
        if self._mtmd:
            self._library.mtmd.mtmd_free(self._mtmd)
        if self._context:
            self._llama.llama_free(self._context)
        if self._model:
            self._llama.llama_model_free(self._model)
        self._mtmd = self._context = self._model = None

    def _runs(self, count: int, images: Sequence[Placed]) -> list[tuple[int, int, NDArray[np.float32] | None]]:
        """Return the step's pieces in order: (start, stop, embeddings, None for tokens)."""
        runs: list[tuple[int, int, NDArray[np.float32] | None]] = []
        at = 0
        for placed in sorted(images, key=lambda placed: placed.offset):
            stop = placed.offset + len(placed.embeddings)
            if placed.offset < at or stop > count or placed.embeddings.shape[1:] != (self.hidden,):
                raise LlamaError(
                    f"image embeddings {placed.embeddings.shape} at token {placed.offset} do not fit {count} tokens of "
                    f"width {self.hidden}"
                )
            if placed.offset > at:
                runs.append((at, placed.offset, None))
            runs.append((placed.offset, stop, np.ascontiguousarray(placed.embeddings, np.float32)))
            at = stop
        if at < count:
            runs.append((at, count, None))
        return runs

    def _check(
        self,
        token_ids: NDArray[np.int64],
        positions: NDArray[np.int64],
        runs: Sequence[tuple[int, int, NDArray[np.float32] | None]],
    ) -> None:
        """Refuse what llama.cpp would take wrongly: foreign tokens, text off the diagonal, time that runs back."""
        last = self._times[-1] if self._times else -1
        for start, stop, embeddings in runs:
            here, times = positions[:, start:stop], positions[0, start:stop]
            least_step = 0 if embeddings is not None else 1
            if times[0] <= last or (np.diff(times) < least_step).any() or here.min() < 0 or here.max() >= 2**31:
                raise LlamaError(f"positions {int(times[0])} to {int(times[-1])} do not follow position {last}")
            if embeddings is None and (here != times).any():
                raise LlamaError("a text token sits at three different positions; only image tokens may")
            ids = token_ids[start:stop]
            if embeddings is None and (ids.min() < 0 or ids.max() >= self.vocab_size):
                raise LlamaError(f"token {int(ids.max())} is not in the model's vocabulary of {self.vocab_size}")
            last = int(times[-1])

    def _steps(
        self, runs: Sequence[tuple[int, int, NDArray[np.float32] | None]], first_wanted: int
    ) -> list[tuple[int, int, NDArray[np.float32] | None]]:
        """Cut the pieces so that no step exceeds the batch, nor the rows of logits held at once."""
        steps = []
        for start, stop, embeddings in runs:
            at = start
            while at < stop:
                end = min(stop, at + self.settings.batch_tokens, max(at, first_wanted) + self._rows_at_once)
                steps.append((at, end, None if embeddings is None else embeddings[at - start : end - start]))
                at = end
        return steps

    def _decode(self, inputs: NDArray[Any], positions: NDArray[np.int64], wanted: int) -> NDArray[np.float32]:
        """Run one step on token ids or embeddings; return the logits of its last `wanted` tokens.

        llama.cpp repeats a text token's one position in all sections itself; embeddings bring four sections of
        positions, one after the other: time, height, width, and one unused (llama-batch.cpp, llama-graph.cpp).
        """
        llama, count = self._llama, len(inputs)
        wanted = max(0, wanted)
        flags = np.zeros(count, np.int8)
        flags[count - wanted :] = 1
        batch = llama.llama_batch()
        batch.n_tokens = count
        if inputs.ndim == 1:
            places = positions[0].astype(np.int32)
            batch.token = pointer(inputs, llama.llama_token)
        else:
            places = np.concatenate([positions, np.zeros((1, count), np.int64)]).astype(np.int32)
            batch.embd = pointer(inputs, ctypes.c_float)
        batch.pos = pointer(places, llama.llama_pos)
        batch.logits = pointer(flags, ctypes.c_int8)
        self._library.log.clear()
        if status := llama.llama_decode(self._context, batch):
            raise LlamaError(f"llama.cpp fails on {count} tokens (code {status}): {self._library.log.reason()}")
        if self._norms is not None:
            self._norms.check(self._norms_per_step)
        if not wanted:
            return np.empty((0, self.vocab_size), np.float32)
        held = llama.llama_get_logits(self._context)
        if not held:
            raise LlamaError("llama.cpp returns no logits; export the level again")
        return self._finite(np.ctypeslib.as_array(held, (wanted, self.vocab_size)).copy(), "the language model")

    def _cut(self, tokens: int, next_position: int) -> None:
        memory = self._llama.llama_get_memory(self._context)
        if not self._llama.llama_memory_seq_rm(memory, 0, next_position if tokens else 0, -1):
            raise LlamaError(f"llama.cpp cannot shorten the sequence to {tokens} tokens")
        del self._times[tokens:]

    def _finite(self, values: NDArray[np.float32], source: str) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            raise LlamaError(f"{source} returned values that are no numbers; export the level again")
        return values
