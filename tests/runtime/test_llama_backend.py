"""llama.cpp against transformers on the same pixels, tokens and positions; its sequence; what it refuses."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from infimed import InfimedError  # noqa: E402
from infimed.export.gguf_write import write_text_model, write_vision_model  # noqa: E402
from infimed.runtime import llama_backend, llama_graph  # noqa: E402
from infimed.runtime.backend import BackendError, Placed  # noqa: E402
from infimed.runtime.distance import distance  # noqa: E402
from infimed.runtime.gguf_file import GgufError, read_gguf  # noqa: E402
from infimed.runtime.llama_backend import LlamaBackend  # noqa: E402
from infimed.runtime.llama_library import LlamaError, llama_library  # noqa: E402
from infimed.runtime.messages import ImagePart, Message, user  # noqa: E402
from infimed.runtime.preprocessing import patches  # noqa: E402
from infimed.runtime.prompt import Prompt, Prompter  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402

from ..models import build_random_checkpoint  # noqa: E402

CONTEXT_TOKENS = 1024


def picture(height: int, width: int, seed: int) -> ImagePart:
    """Return an image of 8-pixel squares of random colours, so that neighbouring patches differ."""
    squares = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return ImagePart(np.ascontiguousarray(squares.repeat(8, 0).repeat(8, 1)[:height, :width]))


CONVERSATIONS: dict[str, Message] = {
    "text": user("Is there a lesion in the left lower lobe?"),
    "one image": user(picture(112, 112, 1), "How many lesions?"),
    "ragged image": user(picture(140, 231, 2), "Which modality is this?"),
    "two images": user("First:", picture(112, 168, 3), " second:", picture(200, 90, 4), "Which shows an effusion?"),
    "long": user("the chest radiograph shows a small opacity. " * 60, picture(300, 300, 5), "Is it normal?"),
}


@dataclass(frozen=True)
class Bench:
    """A random checkpoint, its GGUF files in F32, and what transformers makes of them."""

    folder: Path
    text: Path
    tower: Path
    prompter: Prompter
    model: Any

    def prompt(self, name: str) -> Prompt:
        return self.prompter.prompt([CONVERSATIONS[name]])

    def logits(self, prompt: Prompt) -> NDArray[np.float32]:
        seen = self.images(prompt)
        with torch.no_grad():
            rows = self.model(
                input_ids=torch.from_numpy(prompt.token_ids)[None],
                position_ids=torch.from_numpy(prompt.positions)[:, None],
                **seen,
            ).logits[0]
        return np.asarray(rows.numpy(), np.float32)

    def embeddings(self, prompt: Prompt) -> list[NDArray[np.float32]]:
        seen = self.images(prompt)
        with torch.no_grad():
            made = self.model.get_image_features(seen["pixel_values"], seen["image_grid_thw"]).pooler_output
        return [part.numpy() for part in made]

    def images(self, prompt: Prompt) -> dict[str, Any]:
        if not prompt.images:
            return {}
        made = [patches(image.rgb, self.prompter.rules) for image in prompt.images]
        return {
            "pixel_values": torch.from_numpy(np.concatenate([values for values, _ in made])),
            "image_grid_thw": torch.tensor([[grid.t, grid.h, grid.w] for _, grid in made]),
        }


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = build_random_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    return _bench(folder)


def _bench(folder: Path) -> Bench:
    from transformers import Qwen2_5_VLForConditionalGeneration

    checkpoint = Checkpoint.open(folder)
    text, tower = folder / "text.gguf", folder / "mmproj.gguf"
    write_text_model(checkpoint, text, "F32")
    write_vision_model(checkpoint, tower, "F32")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return Bench(folder, text, tower, Prompter.open(folder), model)


@pytest.fixture(scope="module")
def backend(bench: Bench) -> Iterator[LlamaBackend]:
    made = LlamaBackend(bench.text, bench.tower, threads=1, context_tokens=CONTEXT_TOKENS, precise=True)
    yield made
    made.close()


def place(backend: LlamaBackend, prompt: Prompt, start: int = 0, stop: int | None = None) -> list[Placed]:
    stop = len(prompt.token_ids) if stop is None else stop
    inside = [image for image in prompt.images if start <= image.start < stop]
    return [Placed(image.start - start, backend.encode_image(image)) for image in inside]


def run_whole(backend: LlamaBackend, prompt: Prompt) -> NDArray[np.float32]:
    backend.truncate(0, 0)
    images = place(backend, prompt)
    return backend.extend(prompt.token_ids, prompt.positions, images, len(prompt.token_ids))


def run_in_steps(backend: LlamaBackend, prompt: Prompt, first: int = 0) -> NDArray[np.float32]:
    cuts = [cut for cut in (*prompt.boundaries, len(prompt.token_ids)) if cut > first]
    rows = []
    for start, stop in zip([first, *cuts[:-1]], cuts, strict=True):
        images = place(backend, prompt, start, stop)
        rows.append(backend.extend(prompt.token_ids[start:stop], prompt.positions[:, start:stop], images, stop - start))
    return np.concatenate(rows)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_full_precision_equals_transformers(name: str, bench: Bench, backend: LlamaBackend) -> None:
    prompt = bench.prompt(name)
    found = distance(bench.logits(prompt), run_whole(backend, prompt), 0.01)
    assert found.rows == len(prompt.token_ids)
    assert found.kl_mean_nats <= 1e-6
    assert found.top1_decided == 1.0
    if not prompt.images:  # nothing of an image is rounded to half precision here
        assert found.kl_max_nats <= 1e-10


def test_image_embeddings_are_those_of_transformers(bench: Bench, backend: LlamaBackend) -> None:
    prompt = bench.prompt("two images")
    for image, expected in zip(prompt.images, bench.embeddings(prompt), strict=True):
        made = backend.encode_image(image)
        assert made.shape == expected.shape == (image.tokens, backend.hidden)
        # llama.cpp rounds the pixels to half precision before its first convolution: 5e-4 of the values.
        assert np.abs(made - expected).max() <= 1e-3 * np.abs(expected).max()


def test_llama_cpp_sees_our_pixels(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NDArray[np.float16]] = []

    class Watching(llama_graph.NodeCorrection):
        """Copies what the first convolution of the tower reads: one column per patch, in half precision."""

        def _visit(self, node: int, asked: bool, _: object) -> bool:
            super()._visit(node, asked, _)
            head = llama_graph._TensorHead.from_address(node)
            if head.op != llama_graph._number(llama_library(), "ggml_op_name", "IM2COL"):
                return False
            if not asked:
                values = np.empty(list(head.sides)[2::-1], np.float16)
                read = llama_library().llama._lib.ggml_backend_tensor_get
                read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
                read(node, values.ctypes.data, 0, values.nbytes)
                seen.append(values)
            return True

    monkeypatch.setattr(llama_graph, "NodeCorrection", Watching)
    backend = LlamaBackend(bench.text, bench.tower, threads=1, context_tokens=256)
    image = bench.prompt("ragged image").images[0]
    backend.encode_image(image)
    backend.close()
    ours, grid = patches(image.rgb, bench.prompter.rules)
    blocks = ours.reshape(grid.h // 2, grid.w // 2, 2, 2, 3, 2, 14, 14)  # merge order -> rows of patches
    frame = blocks[:, :, :, :, :, 0].transpose(0, 2, 1, 3, 4, 5, 6).reshape(grid.h, grid.w, -1)
    assert len(seen) == 2
    for values in seen:
        # Where our float32 and llama.cpp's round to two neighbouring half-precision values, one unit lies between.
        assert np.abs(values.astype(np.float32) - frame.astype(np.float16)).max() <= 2**-9
        assert (values == frame.astype(np.float16)).mean() > 0.99


def test_one_zeroed_bias_shows(bench: Bench, tmp_path: Path) -> None:
    data = bytearray(bench.text.read_bytes())
    bias = next(tensor for tensor in read_gguf(bench.text).tensors if tensor.name == "blk.1.attn_k.bias")
    data[bias.offset_bytes : bias.offset_bytes + bias.bytes] = bytes(bias.bytes)
    path = tmp_path / "text.gguf"
    path.write_bytes(data)
    backend = LlamaBackend(path, None, threads=1, context_tokens=256, precise=True)
    prompt = bench.prompt("text")
    assert distance(bench.logits(prompt), run_whole(backend, prompt), 0.01).kl_mean_nats > 1e-4
    backend.close()


@pytest.mark.parametrize("name", ["text", "two images", "long"])
def test_a_shortened_sequence_goes_on_bit_for_bit(name: str, bench: Bench, backend: LlamaBackend) -> None:
    prompt = bench.prompt(name)
    backend.truncate(0, 0)
    rows = run_in_steps(backend, prompt)
    for cut in reversed(prompt.boundaries):
        backend.truncate(cut, int(prompt.positions[0, cut]))
        assert np.array_equal(run_in_steps(backend, prompt, cut), rows[cut:])


def test_a_reply_is_taken_back_and_given_again(bench: Bench, backend: LlamaBackend) -> None:
    prompt = bench.prompt("one image")
    reply = np.array([300, 301, 302])
    whole = replace(
        prompt,
        token_ids=np.concatenate([prompt.token_ids, reply]),
        positions=np.concatenate([prompt.positions, np.tile(prompt.next_position + np.arange(3), (3, 1))], axis=1),
    )
    expected = bench.logits(whole)[-3:]
    run_whole(backend, prompt)
    for _ in range(2):
        for index in range(3):
            at = np.full((3, 1), prompt.next_position + index)
            row = backend.extend(reply[index : index + 1], at, (), 1)
            assert distance(expected[index : index + 1], row, 0.01).kl_max_nats <= 1e-6
        backend.truncate(len(prompt.token_ids), prompt.next_position)


def test_a_prompt_cut_into_small_steps_gives_the_same_logits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_backend, "MAX_BATCH_TOKENS", 7)  # within images too
    monkeypatch.setattr(llama_backend, "MAX_LOGITS_BYTES", 3 * 4 * 640)
    small = LlamaBackend(bench.text, bench.tower, threads=2, context_tokens=CONTEXT_TOKENS, precise=True)
    prompt = bench.prompt("two images")
    assert distance(bench.logits(prompt), run_whole(small, prompt), 0.01).kl_mean_nats <= 1e-6
    small.truncate(0, 0)
    last = small.extend(prompt.token_ids, prompt.positions, place(small, prompt), 1)
    assert distance(bench.logits(prompt)[-1:], last, 0.01).kl_mean_nats <= 1e-6
    small.truncate(0, 0)
    assert small.extend(prompt.token_ids, prompt.positions, place(small, prompt), 0).shape == (0, 640)
    small.close()


def test_small_embeddings_keep_the_norms_epsilon(bench: Bench, tmp_path: Path) -> None:
    # Embeddings of 0.01, where llama.cpp's own epsilon of 0 would move the KL to 1e-4.
    from safetensors.torch import load_file, save_file

    weights = load_file(bench.folder / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 0.1
    for path in bench.folder.glob("*.json*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes((bench.folder / "chat_template.jinja").read_bytes())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    small = _bench(tmp_path)
    backend = LlamaBackend(small.text, None, threads=1, context_tokens=256, precise=True)
    prompt = small.prompt("text")
    assert distance(small.logits(prompt), run_whole(backend, prompt), 0.01).kl_max_nats <= 1e-10
    backend.close()


def test_a_graph_of_another_shape_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LlamaBackend(bench.text, None, threads=1, context_tokens=256)
    if backend._norms is None:
        pytest.skip("this llama.cpp reads the norms' epsilon itself")
    backend._norms_per_step += 1
    with pytest.raises(LlamaError, match="5 nodes to correct where 6 are known"):
        backend.extend(np.array([1]), np.zeros((3, 1), np.int64), (), 1)
    backend.close()


def test_what_does_not_fit_is_refused_before_llama_cpp_sees_it(bench: Bench, backend: LlamaBackend) -> None:
    prompt = bench.prompt("one image")
    image = prompt.images[0]
    embeddings = backend.encode_image(image)
    text = np.arange(5)
    line = np.tile(np.arange(5), (3, 1))
    backend.truncate(0, 0)
    for tokens, positions, images, want, what in (
        (np.zeros(CONTEXT_TOKENS + 1, np.int64), np.tile(np.arange(CONTEXT_TOKENS + 1), (3, 1)), (), 1, "do not fit"),
        (text, line[:2], (), 1, "positions"),
        (text, line, (), 6, "rows wanted"),
        (text, line[:, ::-1], (), 1, "do not follow"),
        (text, line + np.array([[0], [1], [0]]), (), 1, "three different positions"),
        (text - 1, line, (), 1, "vocabulary"),
        (text + 640, line, (), 1, "vocabulary"),
        (text, line, [Placed(2, embeddings)], 1, "do not fit"),
        (text, line, [Placed(0, embeddings[:5, :100])], 1, "do not fit"),
    ):
        with pytest.raises(LlamaError, match=what):
            backend.extend(tokens, positions, images, want)
    assert backend.extend(text, line, (), 1).shape == (1, 640)
    for tokens, position in ((6, 6), (2, 1), (2, 4), (-1, 0)):
        with pytest.raises(LlamaError, match=r"cannot be kept|does not part"):
            backend.truncate(tokens, position)
    for wrong in (
        replace(image, tokens=15),
        replace(image, rgb=image.rgb[:100]),
        replace(image, rgb=image.rgb[..., 0]),
    ):
        with pytest.raises(LlamaError, match="an image of"):
            backend.encode_image(wrong)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"threads": 0}, "1 to 512"),
        ({"threads": 100_000}, "1 to 512"),
        ({"context_tokens": 0}, "1 to 8192"),
        ({"context_tokens": 8193}, "1 to 8192"),
        ({"context_tokens": 2**32 + 256}, "1 to 8192"),  # llama.cpp would take it for 256
        ({"gpu_layers": 2**31}, "no model has more"),
        ({"gpu_layers": -(2**40)}, "no model has more"),
    ],
)
def test_settings_that_llama_cpp_would_end_the_process_for_are_refused(
    wish: dict[str, int], words: str, bench: Bench
) -> None:
    with pytest.raises(BackendError, match=words):
        LlamaBackend(bench.text, None, **{"threads": 1, "context_tokens": 256, **wish})  # type: ignore[arg-type]


def test_gpu_layers_are_refused_where_llama_cpp_has_no_gpu(bench: Bench) -> None:
    if llama_library().llama.llama_supports_gpu_offload():
        pytest.skip("this llama.cpp has a GPU")
    for layers in (5, -1):
        with pytest.raises(LlamaError, match="processor alone"):
            LlamaBackend(bench.text, None, threads=1, context_tokens=256, gpu_layers=layers)


def test_an_image_without_a_vision_tower_is_refused(bench: Bench) -> None:
    backend = LlamaBackend(bench.text, None, threads=1, context_tokens=256)
    with pytest.raises(LlamaError, match="mmproj"):
        backend.encode_image(bench.prompt("one image").images[0])
    backend.close()
    backend.close()


def test_damaged_files_are_refused(bench: Bench, tmp_path: Path) -> None:
    header = read_gguf(bench.text)
    data = bytearray(bench.text.read_bytes())
    weight = next(tensor for tensor in header.tensors if tensor.name == "blk.0.ffn_up.weight")
    data[weight.offset_bytes : weight.offset_bytes + 4] = struct.pack("<f", np.nan)
    cases: dict[str, bytes | None] = {
        "nan": bytes(data),
        "cut": bench.text.read_bytes()[:-100],
        "empty": b"",
        "foreign": b"PK" + bytes(100),
        "tower": bench.tower.read_bytes(),
        "missing": None,
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.gguf"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InfimedError, match=path.name):
            LlamaBackend(path, None, threads=1, context_tokens=256)
    with pytest.raises(GgufError, match=r"text\.gguf"):
        LlamaBackend(bench.text, bench.text, threads=1, context_tokens=256)


def test_a_vision_tower_that_returns_no_numbers_is_refused(bench: Bench, tmp_path: Path) -> None:
    data = bytearray(bench.tower.read_bytes())
    bias = next(tensor for tensor in read_gguf(bench.tower).tensors if tensor.name == "mm.2.bias")
    data[bias.offset_bytes : bias.offset_bytes + 4] = struct.pack("<f", np.inf)
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(data)
    backend = LlamaBackend(bench.text, path, threads=1, context_tokens=256)
    with pytest.raises(BackendError, match="no numbers"):
        backend.encode_image(bench.prompt("one image").images[0])
    backend.close()


def test_llama_cpp_says_nothing_on_its_own(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    backend = LlamaBackend(bench.text, bench.tower, threads=1, context_tokens=256)
    run_whole(backend, bench.prompt("one image"))
    backend.close()
    with pytest.raises(GgufError):
        LlamaBackend(bench.tower, None, threads=1, context_tokens=256)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
