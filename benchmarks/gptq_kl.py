"""Would GPTQ, by optimum's GPTQQuantizer, bring 4-bit weights closer to the reference than our own int4 levels do?

The decoder's matrices of a Qwen2.5-VL checkpoint are quantised in blocks of 32, the head and the tower left alone, and
put back as the numbers they stand for; torch then answers held-out questions on images. KL(torch float32 || quantised)
in nats, 95 % intervals by a bootstrap over images, differences paired. optimum needs gptqmodel, which pip fetches into
the cache of peers.py; it runs on the processor. optimum hands a model token ids and a mask, so images cannot be
calibrated on: GPTQ sees the questions' texts.

    python benchmarks/gptq_kl.py [--images 240] [--rows 400] [--texts 128]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from infimed.benchmarks.calibration_kl import BASE, KINDS, PHANTOM_SEED, Bootstrap, Measured, items_of, measure
from infimed.benchmarks.peers import cache_folder
from infimed.evaluation.dataset import Dataset
from infimed.evaluation.phantoms import write_phantoms
from infimed.evaluation.prompting import messages_for
from infimed.export.onnx_schemes import SCHEMES
from infimed.runtime.decoding import Decoder
from infimed.runtime.hqq import fit_hqq, quantise_hqq
from infimed.runtime.kquant import quantise_kquant
from infimed.runtime.messages import ImagePart
from infimed.runtime.prompt import Prompter
from infimed.runtime.quantise import BlockFormat, dequantise, quantise
from infimed.training.checkpoint import Checkpoint
from infimed.training.reference import open_reference
from infimed.training.torch_backend import TorchBackend, load_model, use_threads

NEEDED = (
    "gptqmodel==7.7.0", "defuser==0.0.28", "device-smi==0.5.7", "logbar==0.4.15", "pypcre==0.6.4", "tokenicer==0.0.14",
    "torchao==0.18.0",
)  # fmt: skip
BLOCKS = "model.language_model.layers"
FORMATS = {"int4": "rtn", "int4-hqq": "hqq", "int4-kquant": "kquant"}


def fetch() -> None:
    """Make gptqmodel importable, fetched on the first call. SystemExit where pip cannot get it."""
    folder = cache_folder() / NEEDED[0].replace("==", "-")
    if not (folder / "torchao").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *NEEDED]
        if subprocess.run(command, env={**os.environ, "BUILD_CUDA_EXT": "0"}).returncode:
            raise SystemExit(f"pip cannot install {NEEDED[0]}; this benchmark needs a package registry")
    sys.path.append(str(folder))


def matrices(model: Any) -> dict[str, Any]:
    """Return the decoder's linear layers by name."""
    import torch

    return {
        name: layer
        for name, layer in model.named_modules()
        if name.startswith(BLOCKS) and isinstance(layer, torch.nn.Linear)
    }


def by_ours(storage: str) -> Any:
    """Return the model with the decoder's matrices as a level of ours stores them."""
    import torch

    scheme = SCHEMES[storage].matrices
    format: BlockFormat = scheme.format  # type: ignore[union-attr]
    model = load_model(Checkpoint.open(BASE))
    for layer in matrices(model).values():
        rows = layer.weight.detach().numpy()
        match FORMATS[storage]:
            case "hqq":
                blocks = quantise_hqq(rows, fit_hqq(lambda rows=rows: [rows], format)[0], format)  # type: ignore[misc]
            case "kquant":
                blocks = quantise_kquant(rows, format)
            case _:
                blocks = quantise(rows, format)
        layer.weight.data = torch.from_numpy(np.array(dequantise(blocks, rows.shape[1], format)))
    return model


def by_gptq(symmetric: bool, texts: list[list[int]]) -> Any:
    """Return the model with the decoder's matrices as GPTQ leaves them before it packs them."""
    from optimum.gptq import GPTQQuantizer

    class Unpacked(GPTQQuantizer):  # type: ignore[misc]
        def pack_model(self, model: Any, quantizers: Any) -> None:
            """Leave the float32 layers, which hold the quantised numbers by now."""

        def post_init_model(self, model: Any) -> Any:
            return model

    model = load_model(Checkpoint.open(BASE))
    model.config.use_cache = False  # optimum asks for it, and a config of several models has none
    seen = [{"input_ids": [ids], "attention_mask": [[1] * len(ids)]} for ids in texts]
    quantiser = Unpacked(bits=4, dataset=seen, group_size=32, sym=symmetric, model_seqlen=256,
                         block_name_to_quantize=BLOCKS)  # fmt: skip
    return quantiser.quantize_model(model, object()).eval()


def ways(texts: list[list[int]]) -> Iterator[tuple[str, Any]]:
    """Yield each way's name and model."""
    for storage in FORMATS:
        yield f"onnx-{storage}'s weights", by_ours(storage)
    yield "GPTQ, symmetric", by_gptq(True, texts)
    yield "GPTQ, asymmetric", by_gptq(False, texts)


def main() -> int:
    """Print the table; return 1 where GPTQ left weights that are not of 4 bits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--rows", type=int, default=400, help="held-out questions, at least")
    parser.add_argument("--texts", type=int, default=128, help="calibration rows that GPTQ sees")
    parser.add_argument("--draws", type=int, default=4000)
    given = parser.parse_args()
    use_threads(1)
    fetch()
    prompter, reference = Prompter.open(BASE), open_reference(BASE)
    with tempfile.TemporaryDirectory(prefix="infimed-gptq-") as folder:
        dataset = write_phantoms(
            Path(folder) / "data", given.images, PHANTOM_SEED, KINDS, per_image=3,
            roles={"calibration": 0.5, "test": 0.5},
        )  # fmt: skip
        items = items_of(dataset, reference, given.rows, 0)
        texts = texts_of(dataset, prompter, given.texts)
    boot = Bootstrap([i.group for i in items], np.array([float(len(i.rows)) for i in items]), given.draws, 0)
    rows = sum(len(item.rows) for item in items)
    lines = [
        f"{len(items)} questions, {rows} rows, {boot.groups} images; GPTQ on {len(texts)} texts\n",
        "| weights | error of the weights | KL, nats | top-1 | KL less onnx-int4's |\n|---|---|---|---|---|",
    ]
    before = {
        name: layer.weight.detach().clone() for name, layer in matrices(load_model(Checkpoint.open(BASE))).items()
    }
    first: Measured | None = None
    failed = False
    for name, model in ways(texts):
        after = {layer: value.weight.detach() for layer, value in matrices(model).items()}
        apart = sum(float(((after[n] - before[n]) ** 2).sum()) for n in before)
        error = (apart / sum(float((before[n] ** 2).sum()) for n in before)) ** 0.5
        most = max(len(np.unique(value.numpy()[0, :32])) for value in after.values())
        failed |= most > 16
        found = measure(Decoder(TorchBackend(model, prompter.pixel_rules), prompter, "checkpoint"), items)
        first = first or found
        kl, less = boot.mean(found.kl), boot.mean(found.kl - first.kl)
        beside = "" if found is first else told(less)
        lines.append(f"| {name} | {error:.4f} | {told(kl)} | {found.same.sum() / rows:.4f} | {beside} |")
    print("\n" + "\n".join(lines))  # at the end: gptqmodel prints much of its own
    if failed:
        print("a block of 32 weights holds more than 16 numbers: they are not of 4 bits", file=sys.stderr)
    return int(failed)


def texts_of(dataset: Dataset, prompter: Prompter, count: int) -> list[list[int]]:
    """Return the token ids of calibration rows drawn at random, without those in place of an image."""
    rows = list(dataset.in_role("calibration"))
    found = []
    for index in np.random.default_rng(1).permutation(len(rows))[:count]:
        example = rows[index]
        prompt = prompter.prompt(messages_for(example, [ImagePart(image) for image in dataset.images(example)]))
        found.append([int(one) for one in prompt.token_ids if one != prompter.image_token_id])
    return found


def told(value: tuple[float, float, float]) -> str:
    """Return a mean with its interval."""
    return f"{value[0]:.1e} ({value[1]:.1e} to {value[2]:.1e})"


if __name__ == "__main__":
    sys.exit(main())
