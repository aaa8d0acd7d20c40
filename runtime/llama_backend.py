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

from .backend import Placed, check_settings, finite
from .gguf_file import read_gguf
from .llama_files import CONTEXT_LENGTH, NORM_EPSILON, check_text_model, text_value
from .llama_graph import norm_epsilon
from .llama_library import LlamaError, flash_type, llama_library, path_bytes, pointer
from .llama_steps import check_pieces, cut_pieces, split_images
from .llama_vision import LlamaVision
from .prompt import PreparedImage

MAX_BATCH_TOKENS = 512
"""Tokens per step inside llama.cpp; longer sequences are cut here, so that its own limit is never met."""
MAX_LOGITS_BYTES = 64 * 2**20
"""What llama.cpp may hold of logits at once; more wanted rows are fetched in several steps."""


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
    """One GGUF model, and the mmproj file of its vision tower where it has one.

    See runtime/backend.py for what the methods promise.
    """

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
        """Load the files. Raises GgufError, LlamaError, BackendError or MissingExtra.

        gpu_layers: layers on the GPU, refused where this llama.cpp has none; a negative number means all. precise: KV
        cache in f32, for the level on which the graph is judged; f16 otherwise. flash_attention: moves the mean KL on a
        CPU to 1e-5 or more, so off by default.
        """
        self._library = llama_library()
        self._tower: LlamaVision | None = None
        self._context: Any = None
        self._model: Any = None
        header = read_gguf(model)
        sizes = check_text_model(header)
        check_settings(threads, context_tokens, int(text_value(header, CONTEXT_LENGTH)), gpu_layers)
        if gpu_layers and not self._llama.llama_supports_gpu_offload():
            raise LlamaError(
                f"{gpu_layers} GPU layers asked for, but this llama.cpp is built for the processor alone; ask for 0, "
                "or compile llama-cpp-python for the GPU (CMAKE_ARGS=-DGGML_CUDA=ON)"
            )
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
            self._norms = norm_epsilon(self._library, float(text_value(header, NORM_EPSILON)))
            self._norms_per_step = 2 * sizes.layers + 1
            self.vocab_size = int(self._llama.llama_vocab_n_tokens(self._llama.llama_model_get_vocab(self._model)))
            self.hidden = int(self._llama.llama_model_n_embd_inp(self._model))
            self._rows_at_once = max(1, min(self.settings.batch_tokens, MAX_LOGITS_BYTES // (4 * self.vocab_size)))
            self._context = self._start()
            if mmproj is not None:
                self._tower = LlamaVision(
                    self._library,
                    mmproj,
                    self._model,
                    self.hidden,
                    threads=threads,
                    on_gpu=gpu_layers != 0,
                    flash_attention=flash_attention,
                )
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
        params.flash_attn_type = flash_type(self._library, settings.flash_attention)
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

    def encode_image(self, image: PreparedImage) -> NDArray[np.float32]:
        """Return the vision tower's output for one image: (image tokens, hidden), float32."""
        if self._tower is None:
            raise LlamaError("an image was given, but the model was opened without its vision tower (mmproj)")
        if image.tokens > self.context_tokens:
            raise LlamaError(
                f"an image of {image.tokens} tokens does not fit the context of {self.context_tokens}; lower max_pixels"
            )
        return finite(self._tower.encode(image), "the vision tower")

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
        pieces = split_images(count, images, self.hidden)
        check_pieces(pieces, token_ids, positions, self._times[-1] if self._times else -1, self.vocab_size)
        first_wanted = count - want
        logits = np.empty((want, self.vocab_size), np.float32)
        filled, kept = 0, len(self._times)
        try:
            for step in cut_pieces(pieces, first_wanted, self.settings.batch_tokens, self._rows_at_once):
                here = slice(step.start, step.stop)
                inputs = token_ids[here].astype(np.int32) if step.embeddings is None else step.embeddings
                rows = self._decode(inputs, positions[:, here], step.stop - max(step.start, first_wanted))
                logits[filled : filled + len(rows)] = rows
                filled += len(rows)
                self._times.extend(positions[0, here].tolist())
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
        if self._tower:
            self._tower.close()
        if self._context:
            self._llama.llama_free(self._context)
        if self._model:
            self._llama.llama_model_free(self._model)
        self._tower = self._context = self._model = None

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
        return finite(np.ctypeslib.as_array(held, (wanted, self.vocab_size)).copy(), "the language model")

    def _cut(self, tokens: int, next_position: int) -> None:
        memory = self._llama.llama_get_memory(self._context)
        if not self._llama.llama_memory_seq_rm(memory, 0, next_position if tokens else 0, -1):
            raise LlamaError(f"llama.cpp cannot shorten the sequence to {tokens} tokens")
        del self._times[tokens:]
