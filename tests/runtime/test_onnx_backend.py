from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infimed import InfimedError
from infimed.runtime.backend import BackendError, Placed
from infimed.runtime.decoding import Decoder
from infimed.runtime.distance import kl_rows
from infimed.runtime.engine import Engine
from infimed.runtime.messages import ImagePart, Message, user
from infimed.runtime.onnx_backend import OnnxBackend, OnnxError
from infimed.runtime.prompt import Prompter

for _library in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(_library)
from infimed.training.reference import open_reference  # noqa: E402

from ..onnx_levels import LEVELS, TOWERS, Exported, tiny_levels  # noqa: E402

KL_LIMIT_NATS = 1e-6


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return tiny_levels(tmp_path_factory)


@pytest.fixture(scope="module")
def reference(exported: Exported) -> Engine:
    return open_reference(exported.checkpoint, threads=1)


def open_backend(exported: Exported, level: str = "onnx-fp32", threads: int = 1, context: int = 2048) -> OnnxBackend:
    return OnnxBackend(exported.bundle / level, exported.bundle / "shared", threads=threads, context_tokens=context)


def open_level(exported: Exported, level: str = "onnx-fp32", threads: int = 1) -> Decoder:
    prompter = Prompter.open(exported.bundle / "shared")
    return Decoder(open_backend(exported, level, threads), prompter, level)


@pytest.fixture(scope="module")
def backend(exported: Exported) -> OnnxBackend:
    return open_backend(exported)


def image(seed: int, height: int, width: int) -> ImagePart:
    return ImagePart(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


PROMPTS: dict[str, tuple[Message, ...]] = {
    "text": (user("Is there a lesion? yes or no"),),
    "square": (user(image(1, 112, 112), "Which modality is this?"),),
    "wide": (user(image(2, 56, 168), "Is there a lesion?"),),
    "tall": (user(image(3, 140, 84), "What is the size of the finding?"),),
    "smallest": (user(image(4, 56, 56), "left or right"),),
    "ragged": (user(image(5, 391, 245), "How many lesions?"),),
    "two images": (user("Prior: ", image(6, 84, 196), " Current: ", image(7, 224, 112), "What changed?"),),
    "long": (user(image(8, 252, 336), "The chest radiograph shows a round opacity. " * 60 + "Is that so?"),),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_every_row_of_the_prompt_is_the_torch_references(name: str, exported: Exported, reference: Engine) -> None:
    engine = open_level(exported)
    messages = PROMPTS[name]
    theirs, ours = reference.prompt_logits(messages), engine.prompt_logits(messages)
    assert float(kl_rows(theirs, ours).mean()) <= KL_LIMIT_NATS
    ordered = np.sort(theirs, axis=-1)
    decided = ordered[:, -1] - ordered[:, -2] > 0.01
    assert np.array_equal(theirs.argmax(-1)[decided], ours.argmax(-1)[decided])
    for made, expected in zip(engine.image_embeddings(messages), reference.image_embeddings(messages), strict=True):
        assert np.abs(made - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_long_prompt_takes_several_steps(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_level(exported).prompt_logits(PROMPTS["long"])
    monkeypatch.setattr("infimed.runtime.onnx_backend.STEP_TOKENS", 100)
    assert len(whole) > 2 * 256
    assert np.abs(open_level(exported).prompt_logits(PROMPTS["long"]) - whole).max() < 1e-4


@pytest.mark.parametrize("level", LEVELS)
def test_a_prompt_in_pieces_gives_the_logits_of_the_whole(level: str, exported: Exported) -> None:
    backend = open_backend(exported, level)
    prompter = Prompter.open(exported.bundle / "shared")
    prompt = prompter.prompt(PROMPTS["tall"])
    (picture,) = prompt.images
    embeddings = backend.encode_image(picture)
    whole = backend.extend(prompt.token_ids, prompt.positions, [Placed(picture.start, embeddings)], 5)
    backend.truncate(0, 0)
    cut = picture.start + picture.tokens
    backend.extend(prompt.token_ids[:cut], prompt.positions[:, :cut], [Placed(picture.start, embeddings)], 0)
    for index in range(cut, len(prompt.token_ids)):
        rest = slice(index, index + 1)
        row = backend.extend(prompt.token_ids[rest], prompt.positions[:, rest], (), 1)
    # dynamic quantisation measures one range for all rows that are given at once
    limit = {"onnx-fp32": 1e-4, "onnx-int8-dynamic": 0.5}.get(level, 0.05)
    assert np.abs(row[0] - whole[-1]).max() < limit


@pytest.mark.parametrize("level", LEVELS)
def test_what_was_cut_away_leaves_no_trace(level: str, exported: Exported) -> None:
    backend = open_backend(exported, level)
    ids = np.arange(3, 40)
    positions = np.tile(np.arange(len(ids)), (3, 1))
    backend.extend(ids[:20], positions[:, :20], (), 0)
    first = backend.extend(ids[20:], positions[:, 20:], (), 17)
    backend.truncate(20, 20)
    backend.extend(ids[::-1].copy()[:9], positions[:, 20:29], (), 1)
    backend.truncate(20, 20)
    again = backend.extend(ids[20:], positions[:, 20:], (), 17)
    assert np.array_equal(first, again)


def test_only_the_rows_that_are_wanted_are_made(backend: OnnxBackend) -> None:
    ids = np.arange(5, 30)
    positions = np.tile(np.arange(25), (3, 1))
    backend.truncate(0, 0)
    every = backend.extend(ids, positions, (), 25)
    for want in (0, 1, 7):
        backend.truncate(0, 0)
        rows = backend.extend(ids, positions, (), want)
        assert rows.shape == (want, backend.vocab_size)
        assert np.allclose(rows, every[25 - want :], atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_one_and_two_threads_give_the_same_logits(level: str, exported: Exported) -> None:
    one, two = (open_level(exported, level, threads).prompt_logits(PROMPTS["wide"]) for threads in (1, 2))
    # where onnxruntime unpacks a matrix at every call, its threads share the sums otherwise
    unpacked = level == "onnx-int8" or level.endswith("hqq")
    assert np.allclose(one, two, rtol=0, atol=1e-4) if unpacked else np.array_equal(one, two)


def test_levels_with_fewer_bits_lie_further_from_the_reference(exported: Exported, reference: Engine) -> None:
    theirs = reference.prompt_logits(PROMPTS["square"])
    ladder = ("fp32", "fp16", "int8", "int8-acc4", "int8-dynamic", "int8-static", "int4", "int4-b128")
    distances = [
        float(kl_rows(theirs, open_level(exported, f"onnx-{storage}").prompt_logits(PROMPTS["square"])).mean())
        for storage in ladder
    ]
    assert distances == sorted(distances) and distances[-1] < 0.5


@pytest.mark.parametrize("tower", TOWERS)
def test_every_type_of_tower_sees_the_image_of_the_reference(tower: str, exported: Exported, reference: Engine) -> None:
    backend = OnnxBackend(
        exported.bundle / "onnx-fp32", exported.bundle / "shared", threads=1, context_tokens=2048, vision=tower
    )
    engine = Decoder(backend, Prompter.open(exported.bundle / "shared"), "onnx-fp32")
    ((theirs,), (ours,)) = (one.image_embeddings(PROMPTS["tall"]) for one in (reference, engine))
    apart = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    limit = {"fp32": 1e-5, "fp16": 1e-3, "int8": 0.02, "int8-acc4": 0.03}.get(tower, 0.05 if "int8" in tower else 0.3)
    assert limit / 100 < apart < limit


def test_a_float16_level_keeps_its_cache_in_half_the_memory(exported: Exported) -> None:
    full, half = open_backend(exported), open_backend(exported, "onnx-fp16")
    ids, positions = np.arange(3, 40), np.tile(np.arange(37), (3, 1))
    rows = [backend.extend(ids, positions, (), 37) for backend in (full, half)]
    assert all(row.dtype == np.float32 for row in rows)
    assert half._cache._buffers[0].nbytes * 2 == full._cache._buffers[0].nbytes
    assert float(kl_rows(*rows).mean()) < 1e-5


def test_more_tokens_than_the_context_holds_are_refused(exported: Exported) -> None:
    backend = open_backend(exported, context=8)
    with pytest.raises(OnnxError, match="9 tokens are more than the context of 8"):
        backend.extend(np.arange(9), np.tile(np.arange(9), (3, 1)), (), 1)


def test_settings_beyond_the_machine_or_the_model_are_refused(exported: Exported) -> None:
    for threads in (0, 100_000):
        with pytest.raises(BackendError, match="1 to 512"):
            open_backend(exported, threads=threads)
    for context in (0, 8193, 10**9):
        with pytest.raises(BackendError, match="1 to 8192"):
            open_backend(exported, context=context)


def test_values_that_are_no_numbers_are_refused(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.bundle / "shared", tmp_path / "shared")
    table = np.load(tmp_path / "shared/token_embeddings.npy")
    table[7] = 0x7FC0  # NaN in bfloat16
    np.save(tmp_path / "shared/token_embeddings.npy", table)
    damaged = OnnxBackend(exported.bundle / "onnx-fp32", tmp_path / "shared", threads=1, context_tokens=64)
    assert damaged.extend(np.arange(3), np.tile(np.arange(3), (3, 1)), (), 1).shape == (1, damaged.vocab_size)
    with pytest.raises(BackendError, match="the language model returned values that are no numbers"):
        damaged.extend(np.array([7]), np.full((3, 1), 3), (), 1)
    backend = open_backend(exported)
    prompt = Prompter.open(exported.bundle / "shared").prompt(PROMPTS["square"])
    backend._rules = dataclasses.replace(backend._rules, mean=(float("nan"), 0.5, 0.5))
    with pytest.raises(BackendError, match="the vision tower returned values that are no numbers"):
        backend.encode_image(prompt.images[0])


def test_a_provider_that_does_not_run_here_is_refused_not_replaced(exported: Exported) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(OnnxError, match="cannot run CUDAExecutionProvider here"):
        OnnxBackend(
            exported.bundle / "onnx-fp32",
            exported.bundle / "shared",
            threads=1,
            context_tokens=64,
            providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
        )


@pytest.mark.parametrize("broken", ["decoder.onnx", "decoder-0.data", "vision-fp32.onnx", "token_embeddings.npy"])
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "noise"])
def test_a_broken_file_gives_one_line(broken: str, how: str, exported: Exported, tmp_path: Path) -> None:
    for folder in ("onnx-int4", "shared"):
        shutil.copytree(exported.bundle / folder, tmp_path / folder)
    (file,) = tmp_path.rglob(broken)
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "noise":
        file.write_bytes(
            np.random.default_rng(0).bytes(len(data)) if not broken.endswith("data") else data[: len(data) // 3]
        )
    else:
        file.write_bytes(b"" if how == "empty" else data[: len(data) // 2])
    with pytest.raises(InfimedError) as caught:
        OnnxBackend(tmp_path / "onnx-int4", tmp_path / "shared", threads=1, context_tokens=64)
    assert "\n" not in str(caught.value)


def test_running_a_graph_writes_nothing_into_the_home_folder(exported: Exported, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from infimed.runtime.onnx_backend import OnnxBackend; import numpy as np\n"
        "b = OnnxBackend(Path(sys.argv[1]) / 'onnx-int4', Path(sys.argv[1]) / 'shared', threads=1, context_tokens=64)\n"
        "b.extend(np.arange(4), np.tile(np.arange(4), (3, 1)), (), 1)\n"
        "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"
    )
    settings = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    settings |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code, str(exported.bundle)], env=settings, check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
