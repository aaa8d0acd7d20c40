"""The importance matrix in GGUF; with --full against llama.cpp's own tool, compiled from the installed source."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from infimed.benchmarks.peers import imatrix_command  # noqa: E402
from infimed.evaluation.dataset import Dataset  # noqa: E402
from infimed.export.activations import Activations, ActivationsError  # noqa: E402
from infimed.export.calibration_pass import Watch  # noqa: E402
from infimed.export.calibration_run import IMATRIX, calibrate, entry_folder  # noqa: E402
from infimed.export.calibration_totals import Totals  # noqa: E402
from infimed.export.family_mappings import mapping_of  # noqa: E402
from infimed.export.gguf_write import write_text_model  # noqa: E402
from infimed.export.imatrix import importance_rows, write_imatrix  # noqa: E402
from infimed.runtime.gguf_file import read_gguf  # noqa: E402
from infimed.runtime.prompt import Prompter  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402
from infimed.training.torch_backend import TorchBackend, load_model  # noqa: E402

from ..models import CORPUS  # noqa: E402
from ..text_models import TEXT_FAMILIES, build_text_checkpoint  # noqa: E402
from .calibration_sets import phantom_set, rewritten, tiny_checkpoint  # noqa: E402

BASE = Path(__file__).resolve().parents[2] / "training" / "base"
CHUNK_TOKENS = 64


def tensors_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def calibrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """Return a checkpoint, its importance matrix and its activations."""
    folder = tmp_path_factory.mktemp("imatrix")
    checkpoint = tiny_checkpoint(folder / "checkpoint", tied=request.param)
    made = calibrate(checkpoint, Dataset.open(phantom_set(folder / "set")), cache=folder / "cache")
    return checkpoint, entry_folder(folder / "cache", made) / IMATRIX, made


def test_every_matrix_of_both_files_has_its_row_of_importance(calibrated: tuple[Path, Path, Activations]) -> None:
    folder, _, activations = calibrated
    config = Checkpoint.open(folder).config
    rows = importance_rows(activations, config)
    mapping = mapping_of(config)
    shape = mapping.shape(config)
    assert mapping.vision_tensors is not None
    tensors = [t for t in (*mapping.tensors(shape), *mapping.vision_tensors(config)) if not t.is_vector]
    # The embedding is looked up, not multiplied by, unless it is the head as well.
    wanted = {tensor.name for tensor in tensors} - (set() if shape.sizes.tied else {"token_embd.weight"})
    assert set(rows) == wanted
    for tensor in tensors:
        if tensor.name in rows:
            assert rows[tensor.name].shape == (int(np.prod(tensor.shape[1:])),), tensor.name


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_model_of_text_alone_is_calibrated_on_rows_without_images(family: str, tmp_path: Path) -> None:
    folder = build_text_checkpoint(tmp_path / "checkpoint", family)
    drawn = Dataset.open(phantom_set(tmp_path / "set"))
    texts = [example for example in drawn.examples if not example.images]
    rows = Dataset.open(rewritten(drawn, tmp_path / "texts", texts))
    made = calibrate(folder, rows, cache=tmp_path / "cache")
    rows = importance_rows(made, Checkpoint.open(folder).config)
    stored = read_gguf(entry_folder(tmp_path / "cache", made) / IMATRIX).tensors
    assert len(stored) == 2 * len(rows)
    written = write_text_model(Checkpoint.open(folder), tmp_path / "model.gguf", "F32")
    matrices = {tensor.name: tensor.shape[1] for tensor in written.tensors if len(tensor.shape) == 2}
    assert {name: len(row) for name, row in rows.items()} == {n: matrices[n] for n in rows}
    assert set(matrices) - set(rows) <= {"token_embd.weight"}


def test_the_two_halves_of_the_patch_convolution_get_their_own_channels(
    calibrated: tuple[Path, Path, Activations],
) -> None:
    folder, _, activations = calibrated
    whole = activations.mean_square["visual.patch_embed.proj.weight"].reshape(3, 2, 14, 14)
    rows = importance_rows(activations, Checkpoint.open(folder).config)
    assert np.array_equal(rows["v.patch_embd.weight"].reshape(3, 14, 14), whole[:, 0])
    assert np.array_equal(rows["v.patch_embd.weight.1"].reshape(3, 14, 14), whole[:, 1])


def test_the_file_holds_sums_and_counts_under_llama_cpps_keys(calibrated: tuple[Path, Path, Activations]) -> None:
    folder, path, activations = calibrated
    values, tensors = read_gguf(path).values, tensors_of(path)
    fields = gguf.GGUFReader(path).fields
    assert set(values) == {"general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"}
    assert values["general.type"] == "imatrix"
    assert fields["imatrix.datasets"].contents() == [activations.dataset_sha256]
    rows = importance_rows(activations, Checkpoint.open(folder).config)
    assert set(tensors) == {f"{name}.{end}" for name in rows for end in ("in_sum2", "counts")}
    for name, mean_square in rows.items():
        np.testing.assert_allclose(tensors[f"{name}.in_sum2"] / tensors[f"{name}.counts"], mean_square, rtol=3e-7)


def test_activations_of_a_wider_model_are_refused(calibrated: tuple[Path, Path, Activations], tmp_path: Path) -> None:
    with pytest.raises(ActivationsError, match="channels, the weight has"):
        write_imatrix(tmp_path / "none.gguf", calibrated[2], Checkpoint.open(BASE).config, rows=1)
    assert not list(tmp_path.iterdir())


def run_tool(*options: object) -> None:
    done = subprocess.run(imatrix_command(*options), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]


@pytest.mark.full
def test_llama_cpps_own_tool_reads_the_file_and_writes_the_same_figures(
    calibrated: tuple[Path, Path, Activations], tmp_path: Path
) -> None:
    again = tmp_path / "again.gguf"
    run_tool("-m", "none", "--in-file", calibrated[1], "-o", again)
    ours, theirs = tensors_of(calibrated[1]), tensors_of(again)
    assert set(ours) == set(theirs)
    for name in ours:
        assert ours[name].shape == theirs[name].shape and np.array_equal(ours[name], theirs[name]), name
    assert gguf.GGUFReader(again).fields["imatrix.datasets"].contents() == [calibrated[2].dataset_sha256]


def text_matrix(folder: Path, text: str, path: Path, epsilon: float | None = None) -> int:
    """Write our importance matrix of a text in chunks of CHUNK_TOKENS, each a row; return the number of chunks.

    epsilon: of every norm of the text model, if not the checkpoint's own.
    """
    checkpoint, prompter = Checkpoint.open(folder), Prompter.open(folder)
    model = load_model(checkpoint)
    for module in model.model.language_model.modules():
        if epsilon is not None and hasattr(module, "variance_epsilon"):
            module.variance_epsilon = epsilon
    watch, backend, totals = Watch(model), TorchBackend(model, prompter.rules), Totals()
    ids = np.array(prompter.encode(text), np.int64)
    chunks = len(ids) // CHUNK_TOKENS
    positions = np.tile(np.arange(CHUNK_TOKENS), (3, 1))
    for chunk in range(chunks):
        part = ids[chunk * CHUNK_TOKENS : (chunk + 1) * CHUNK_TOKENS]
        backend.truncate(0, 0)
        _, seen = watch.seen_in(lambda part=part: backend.extend(part, positions, (), CHUNK_TOKENS))
        totals.add(seen, 1 / chunks)
    made = Activations(totals.mean_square(), totals.largest(), totals.tokens(), "0" * 64, "1" * 64)
    write_imatrix(path, made, checkpoint.config, rows=chunks)
    return chunks


@pytest.mark.full
@pytest.mark.parametrize("model", ["tied", "untied", "base"])
@pytest.mark.parametrize(("epsilon", "limit"), [(None, 0.01), (0.0, 2e-5)], ids=["as it is", "epsilon of llama.cpp"])
def test_every_channel_agrees_with_llama_cpps_own(
    model: str, epsilon: float | None, limit: float, tmp_path: Path
) -> None:
    """Given the epsilon 0 with which llama.cpp computes this family's norms (docs/decisions/012), all but exactly."""
    folder = BASE if model == "base" else tiny_checkpoint(tmp_path / "checkpoint", tied=model == "tied")
    text = " ".join(CORPUS * 8)
    chunks = text_matrix(folder, text, tmp_path / "ours.gguf", epsilon)
    assert chunks > 4
    write_text_model(Checkpoint.open(folder), tmp_path / "model.gguf", "F32")
    (tmp_path / "text.txt").write_text(text, "utf-8")
    run_tool(
        "-m", tmp_path / "model.gguf", "-f", tmp_path / "text.txt", "-o", tmp_path / "theirs.gguf",
        "-c", CHUNK_TOKENS, "-b", CHUNK_TOKENS, "--process-output", "--no-ppl", "-t", 1, "-fa", "off",
        "-ctk", "f32", "-ctv", "f32",
    )  # fmt: skip
    ours, theirs = tensors_of(tmp_path / "ours.gguf"), tensors_of(tmp_path / "theirs.gguf")
    # llama.cpp watches a head of its own only; a tied one is ours alone.
    assert set(ours) - set(theirs) <= {"token_embd.weight.in_sum2", "token_embd.weight.counts"}
    assert set(theirs) <= set(ours) and ("output.weight.in_sum2" in theirs) == (model == "untied")
    worst = 0.0
    for name in sorted(theirs):
        if name.endswith(".counts"):
            assert ours[name] == theirs[name], name
            continue
        difference = np.abs(ours[name] - theirs[name]) / np.maximum(theirs[name], 1e-6 * theirs[name].max())
        worst = max(worst, float(difference.max()))
        assert difference.max() < limit, f"{name}: {difference.max():.2e}"
    print(f"largest difference of a channel: {worst:.2e}")
