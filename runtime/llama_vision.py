"""The vision tower inside llama.cpp (mtmd): one image at its final size in, its embeddings out.

The image is handed over as bytes, without any text, and must not be resized again: its size and the number of its
tokens are checked on both sides. Knows no prompt and no text model but its width.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gguf_file import read_gguf
from .llama_files import check_vision_model
from .llama_graph import exact_gelu
from .llama_library import LlamaError, LlamaLibrary, flash_type, path_bytes, pointer
from .prompt import PreparedImage

_MAX_IMAGE_TOKENS = 1 << 20


class LlamaVision:
    """One mmproj file, loaded beside its text model."""

    def __init__(
        self,
        library: LlamaLibrary,
        path: Path,
        model: Any,
        hidden: int,
        *,
        threads: int,
        on_gpu: bool,
        flash_attention: bool,
    ) -> None:
        """Load the file; model: llama.cpp's pointer to the text model. Raises GgufError, LlamaError."""
        self._library = library
        self._hidden = hidden
        self._factor = 2 * check_vision_model(read_gguf(path), hidden).patch
        self._gelu = exact_gelu(library)
        params = library.mtmd.mtmd_context_params_default()
        params.use_gpu = on_gpu
        params.print_timings = False
        params.n_threads = threads
        params.flash_attn_type = flash_type(library, flash_attention)
        params.warmup = False
        params.cb_eval = self._gelu.callback
        # Wide limits: an image of ours has its final size, and llama.cpp must not resize it again.
        params.image_min_tokens, params.image_max_tokens = 1, _MAX_IMAGE_TOKENS
        library.log.clear()
        self._context = library.mtmd.mtmd_init_from_file(path_bytes(path), model, params)
        if not self._context:
            raise LlamaError(f"llama.cpp refuses {path}: {library.log.reason()}; export the bundle again")

    def encode(self, image: PreparedImage) -> NDArray[np.float32]:
        """Return an image's embeddings: (image tokens, hidden), float32. Raises LlamaError."""
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

    def close(self) -> None:
        """Give back the library's memory; before the text model is freed."""
        if self._context:
            self._library.mtmd.mtmd_free(self._context)
        self._context = None

    def _encode(self, bitmap: Any, chunks: Any, tokens: int) -> NDArray[np.float32]:
        """Hand over a bitmap by itself: no text is tokenised, so no media marker can be mistaken."""
        mtmd, log = self._library.mtmd, self._library.log
        part = mtmd.mtmd_input_part(None, bitmap)
        parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
        log.clear()
        status = mtmd.mtmd_tokenize_from_parts(self._context, chunks, parts, 1, False)
        found = [mtmd.mtmd_input_chunks_get(chunks, index) for index in range(mtmd.mtmd_input_chunks_size(chunks))]
        images = [chunk for chunk in found if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE]
        counted = [int(mtmd.mtmd_input_chunk_get_n_tokens(chunk)) for chunk in images]
        if status or counted != [tokens]:
            raise LlamaError(
                f"llama.cpp makes {counted} tokens of an image of {tokens} ({log.reason()}); the mmproj file is of "
                "another model"
            )
        if mtmd.mtmd_encode_chunk(self._context, images[0]):
            raise LlamaError(f"llama.cpp cannot encode the image: {log.reason()}")
        self._gelu.check(1)
        output = mtmd.mtmd_get_output_embd(self._context)
        if not output:
            raise LlamaError("llama.cpp returns no embeddings for the image; the mmproj file belongs to another model")
        return np.ctypeslib.as_array(output, (tokens, self._hidden)).copy()
