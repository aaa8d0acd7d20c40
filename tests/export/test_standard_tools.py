"""What is written opens in the tools of others: gguf-py, llama.cpp, onnxruntime, and a reader of a Modelfile.

Nothing of infimed reads the files here; only the answers to compare with come from its engines.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _library in ("torch", "llama_cpp", "onnxruntime"):
    pytest.importorskip(_library)
gguf = pytest.importorskip("gguf")

from infimed.export.gguf_export import export_gguf  # noqa: E402
from infimed.export.transformers_prompt import transformers_prompter  # noqa: E402
from infimed.runtime.distance import kl_rows  # noqa: E402
from infimed.runtime.engine import Engine, Sampling  # noqa: E402
from infimed.runtime.manifest import LevelEntry  # noqa: E402
from infimed.runtime.messages import ImagePart, Message, user  # noqa: E402
from infimed.runtime.open_engine import open_level  # noqa: E402
from infimed.runtime.prompt import Prompter  # noqa: E402

from .. import plain_onnxruntime  # noqa: E402
from ..models import CONTROL_TOKENS, build_random_checkpoint  # noqa: E402
from ..onnx_levels import LEVELS as ONNX_LEVELS  # noqa: E402
from ..onnx_levels import export_levels  # noqa: E402
from ..text_models import TEXT_FAMILIES, build_text_checkpoint  # noqa: E402

HOUSE = Path(__file__).resolve().parents[2]
VISION_FAMILY = "qwen2.5-vl"
ARCHITECTURES = {VISION_FAMILY: gguf.MODEL_ARCH.QWEN2VL, "qwen2": gguf.MODEL_ARCH.QWEN2, "llama": gguf.MODEL_ARCH.LLAMA}
GGUF_LEVELS = ("gguf-f32", "gguf-q4_k_m")
QUESTION = "Is there a lesion in the left lung?"


@dataclass(frozen=True)
class Made:
    """A checkpoint and the folder of some of its levels."""

    family: str
    checkpoint: Path
    folder: Path
    entries: dict[str, LevelEntry]

    def engine(self, level: str) -> Engine:
        return open_level(self.folder, self.entries[level], threads=1)


@pytest.fixture(
    scope="module", params=[VISION_FAMILY, *(pytest.param(name, marks=pytest.mark.full) for name in TEXT_FAMILIES)]
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a family's tiny checkpoint at two GGUF levels and in plain ONNX."""
    folder = tmp_path_factory.mktemp("tools")
    if request.param == VISION_FAMILY:
        checkpoint = build_random_checkpoint(
            folder / "checkpoint", vision_depth=2, fullatt_block_indexes=(1,), dtype="bfloat16"
        )
    else:
        checkpoint = build_text_checkpoint(folder / "checkpoint", request.param, dtype="bfloat16")
    entries = dict(export_levels(checkpoint, folder / "bundle").entries)
    entries |= export_gguf(checkpoint, folder / "bundle", GGUF_LEVELS, threads=1)
    return Made(request.param, checkpoint, folder / "bundle", entries)


def weights_of(checkpoint: Path) -> dict[str, np.ndarray]:
    """Return a checkpoint's tensors in float32, by safetensors and torch."""
    from safetensors.torch import load_file

    return {name: values.float().numpy() for name, values in load_file(checkpoint / "model.safetensors").items()}


def in_rotary_order(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key rows as llama.cpp's Llama has them: the two halves of each head in turn."""
    width = len(rows) // heads // 2
    return rows.reshape(heads, 2, width, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize("level", GGUF_LEVELS)
def test_gguf_py_reads_every_tensor_under_llama_cpps_own_name(made: Made, level: str) -> None:
    reader = gguf.GGUFReader(made.folder / level / "model.gguf")
    architecture = ARCHITECTURES[made.family]
    assert reader.fields["general.architecture"].contents() == gguf.MODEL_ARCH_NAMES[architecture]
    config = json.loads((made.checkpoint / "config.json").read_text())
    config = config.get("text_config", config)
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    found = {tensor.name: tensor for tensor in reader.tensors}
    compared = 0
    for name, values in weights_of(made.checkpoint).items():
        if name.startswith(("visual.", "model.visual.")):
            continue
        stem, _, end = name.replace("language_model.", "").rpartition(".")
        tensor = found[f"{names.get_name(stem)}.{end}"]
        if made.family == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            values = in_rotary_order(values, config[heads])
        read = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(values.shape)
        error = float(np.linalg.norm(read - values) / np.linalg.norm(values))
        exact = level == "gguf-f32" or values.ndim == 1
        assert error == 0 if exact else 0.01 < error < 0.15, (name, tensor.tensor_type, error)
        compared += 1
    assert compared == len([name for name in found if name != "rope_freqs.weight"])


def test_gguf_py_reads_the_vision_tower(made: Made) -> None:
    towers = sorted((made.folder / "shared").glob("mmproj-*.gguf"))
    if made.family != VISION_FAMILY:
        assert not towers
        return
    assert [path.stem for path in towers] == ["mmproj-f16", "mmproj-f32"]
    reader = gguf.GGUFReader(towers[1])
    assert reader.fields["general.architecture"].contents() == "clip"
    stored = {tensor.name: tensor.data.reshape(-1) for tensor in reader.tensors}
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH.MMPROJ, 4
    )  # counts the two parts of the merger, 0 and 2, as blocks
    for name, values in weights_of(made.checkpoint).items():
        if not name.startswith("visual.") or "qkv" in name or "patch_embed" in name:
            continue  # these two are parted: tests/export/test_gguf_write.py
        stem, _, end = name.rpartition(".")
        assert np.array_equal(stored[f"{names.get_name(stem)}.{end}"], values.reshape(-1)), name


def load(path: Path) -> Any:
    """Return a model as a program of llama.cpp's users loads it, every tensor checked; None if it is refused."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.check_tensors = True
    return llama_cpp.llama_model_load_from_file(str(path).encode(), params)


@pytest.mark.parametrize("level", GGUF_LEVELS)
def test_llama_cpp_loads_with_every_tensor_checked_and_tokenises_alike(made: Made, level: str, tmp_path: Path) -> None:
    import ctypes

    import llama_cpp
    from llama_cpp import mtmd_cpp
    from tokenizers import Tokenizer

    path = made.folder / level / "model.gguf"
    model = load(path)
    assert model
    reader = gguf.GGUFReader(path)
    # llama.cpp does not count what it computes from, only what it multiplies by.
    assert llama_cpp.llama_model_n_params(model) == sum(int(tensor.n_elements) for tensor in reader.tensors)
    tokenizer = Tokenizer.from_file(str(made.checkpoint / "tokenizer.json"))
    vocabulary, room = llama_cpp.llama_model_get_vocab(model), (llama_cpp.llama_token * 256)()
    for text in (QUESTION, f"{CONTROL_TOKENS[0]}user\nHow many lesions? 12,5 mm\n\n  Größe ß 病変"):
        data = text.encode()
        count = llama_cpp.llama_tokenize(vocabulary, data, len(data), room, 256, False, True)
        assert list(room[:count]) == tokenizer.encode(text, add_special_tokens=False).ids
    if made.family == VISION_FAMILY:
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu, params.warmup = False, False
        tower = made.folder / "shared" / ("mmproj-f32.gguf" if level == "gguf-f32" else "mmproj-f16.gguf")
        context = mtmd_cpp.mtmd_init_from_file(str(tower).encode(), model, params)
        assert context and mtmd_cpp.mtmd_support_vision(ctypes.c_void_p(context) if type(context) is int else context)
        mtmd_cpp.mtmd_free(context)
    llama_cpp.llama_model_free(model)
    norm = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_norm.weight")
    data = bytearray(path.read_bytes())
    data[norm.data_offset : norm.data_offset + 4] = np.array([np.nan], np.float32).tobytes()
    (tmp_path / "damaged.gguf").write_bytes(data)
    assert not load(tmp_path / "damaged.gguf")


def test_llama_cpps_python_class_gives_the_rows_of_our_engine(made: Made) -> None:
    from llama_cpp import Llama

    asked = [{"role": "user", "content": QUESTION}]
    ids = tokens_by_transformers(made.checkpoint, asked)
    llama = Llama(str(made.folder / "gguf-f32/model.gguf"), n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    llama.eval(ids)
    theirs = np.array(llama.scores[: len(ids)], np.float32)
    llama.close()
    engine = made.engine("gguf-f32")
    ours = engine.prompt_logits([user(QUESTION)])
    engine.close()
    # Its cache is in half precision, ours at this level is not.
    assert ours.shape == theirs.shape and kl_rows(ours, theirs).mean() < 1e-5


def tokens_by_transformers(checkpoint: Path, asked: list[dict[str, str]]) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    return list(tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=True, return_dict=False))


def as_ollama(template: str, turns: list[dict[str, str]]) -> str:
    """Return what Go's text/template makes of a template that is one range over messages and plain text."""
    parts = re.fullmatch(r"\{\{-? range \.Messages \}\}(.*?)\{\{ end \}\}(.*)", template, re.DOTALL)
    assert (
        parts
        and "{{" not in parts[2]
        and set(re.findall(r"\{\{.*?\}\}", parts[1]))
        == {
            "{{ .Role }}",
            "{{ .Content }}",
        }
    )
    each = (parts[1].replace("{{ .Role }}", t["role"]).replace("{{ .Content }}", t["content"]) for t in turns)
    return "".join(each) + parts[2]


def test_a_modelfile_names_its_files_ends_and_turns_for_ollama(made: Made) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(made.checkpoint)
    ends = json.loads((made.checkpoint / "generation_config.json").read_text())["eos_token_id"]
    for level in GGUF_LEVELS:
        path = made.folder / level / "Modelfile"
        text = path.read_text("utf-8")
        sources = re.findall(r"^FROM (.+)$", text, re.MULTILINE)
        assert len(sources) == 1 + (made.family == VISION_FAMILY)
        assert all((path.parent / source).read_bytes()[:4] == b"GGUF" for source in sources)
        stops = re.findall(r'^PARAMETER stop "(.+)"$', text, re.MULTILINE)
        assert sorted(stops) == sorted(tokenizer.decode([end]) for end in ends)
        (template,) = re.findall(r'^TEMPLATE """(.*?)"""$', text, re.MULTILINE | re.DOTALL)
        system = re.findall(r'^SYSTEM """(.*?)"""$', text, re.MULTILINE | re.DOTALL)
        turns = [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "Where?"},
        ]
        expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        made_of_it = as_ollama(template, [*({"role": "system", "content": one} for one in system), *turns])
        # A token that begins every text is in the model file, and Ollama adds it by that.
        assert expected.removeprefix(tokenizer.bos_token or "") == made_of_it


def documented(table: str) -> dict[str, str]:
    """Return the names of a graph's inputs or outputs, and their types, as a table of docs/onnx.md has them."""
    text = (HOUSE / "docs/onnx.md").read_text("utf-8")
    rows = re.search(rf"{re.escape(table)}.*?\n\n\| (?:in|out)put \|.*?\n\|[-|]+\n(.*?)\n\n", text, re.DOTALL)
    assert rows, table
    cells = [line.split("|")[1:3] for line in rows[1].splitlines()]
    return {name.strip(): kind.split("[")[0].strip() for names, kind in cells for name in names.split(",")}


def test_the_graphs_have_the_ports_that_the_document_names(made: Made) -> None:
    import onnxruntime

    types = {"tensor(float)": "float", "tensor(int64)": "int64", "tensor(bool)": "bool"}
    graphs = {"`decoder.onnx`, for one sequence": made.folder / "onnx-fp32/decoder.onnx"}
    if made.family == VISION_FAMILY:
        graphs["`vision-TYPE.onnx`, for any number of images"] = made.folder / "shared/vision-fp32.onnx"
    for table, path in graphs.items():
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = {re.sub(r"\.\d+$", ".L", port.name): types[port.type] for port in session.get_inputs()}
        assert found == {name: kind.replace("float32", "float") for name, kind in documented(table).items()}
        outputs = {re.sub(r"\.\d+$", ".L", port.name) for port in session.get_outputs()}
        assert outputs == {"image_embeddings"} if "vision" in table else {"logits", "new_key.L", "new_value.L"}


def ask(family: str) -> tuple[Message, ...]:
    random = np.random.default_rng(5)
    pictures = [ImagePart(random.integers(0, 256, size, dtype=np.uint8)) for size in ((140, 196, 3), (84, 112, 3))]
    return (user(*(pictures if family == VISION_FAMILY else ()), QUESTION),)


def run_plainly(made: Made, levels: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    """Hold what numpy and onnxruntime alone make of levels, in a process without infimed, against our engine."""
    prompt = transformers_prompter(made.checkpoint)(ask(made.family))
    config = json.loads((made.checkpoint / "config.json").read_text())
    seen = {"pixel_values": prompt.pixels, "grids": prompt.grids, "image_token": config.get("image_token_id")}
    cuts = Prompter.open(made.checkpoint).prompt(ask(made.family)).boundaries
    # In the steps of our engine: levels with 8-bit activations round what is given at once by one range.
    ends = [*(cut for cut in cuts if cut), len(prompt.token_ids)]
    given = {"token_ids": prompt.token_ids, "positions": prompt.positions, "ends": ends}
    np.savez(tmp_path / "prompt.npz", **given, **(seen if made.family == VISION_FAMILY else {}))
    for level in levels:
        words = [plain_onnxruntime.__file__, folder, level, tmp_path / "prompt.npz", tmp_path / "reply.npz"]
        done = subprocess.run([sys.executable, *map(str, words)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        reply = np.load(tmp_path / "reply.npz")
        engine = made.engine(level)
        answer = engine.generate(ask(made.family), Sampling(max_tokens=len(reply["tokens"])))
        assert answer.token_ids == tuple(reply["tokens"][: len(answer.token_ids)]), level
        rows = reply["rows"].astype(np.float64)
        chances = rows[np.arange(len(rows)), reply["tokens"]] - np.log(np.exp(rows).sum(axis=1))
        # The windows of an image are filled in another order: its embeddings differ by 1e-6, then rounding by more.
        limit = 0.1 if made.family == VISION_FAMILY and level != "onnx-fp32" else 1e-4
        apart = np.abs(chances[: len(answer.token_ids)] - answer.logprobs_nats).max()
        assert apart < limit, (level, apart)
        if level == "onnx-fp32":
            ours = engine.logits(ask(made.family), reply["tokens"][:-1].tolist())
            assert np.abs(ours - rows).max() < 1e-4
        engine.close()


def test_plain_onnxruntime_gives_the_rows_and_the_reply_of_our_engine(made: Made, tmp_path: Path) -> None:
    run_plainly(made, ("onnx-fp32",), made.folder, tmp_path)


@pytest.mark.full
def test_plain_onnxruntime_runs_every_level_that_needs_no_calibration(made: Made, tmp_path: Path) -> None:
    levels = tuple(level for level in ONNX_LEVELS if level != "onnx-int8-static")
    every = export_levels(made.checkpoint, tmp_path / "every", levels)
    run_plainly(Made(made.family, made.checkpoint, every.bundle, dict(every.entries)), levels, every.bundle, tmp_path)
