"""Measures in onnxruntime what each matrix of an exported onnx-fp32 level is multiplied by: for static levels.

Independent of export's own calibration, which hooks into torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infimed.export.activations import Activations
from infimed.runtime.messages import Message
from infimed.runtime.preprocessing import patches
from infimed.runtime.prompt import Prompter
from infimed.runtime.vision_index import vision_index


def measure_activations(bundle: Path, prompts: Sequence[Sequence[Message]]) -> Activations:
    """Run prompts through onnx-fp32 in `bundle` and return the statistics of every product's input."""
    sums: dict[str, NDArray[np.float64]] = {}
    largest: dict[str, NDArray[np.float32]] = {}
    counts: dict[str, int] = {}
    decoder, eyes = Watched(bundle / "onnx-fp32/decoder.onnx"), Watched(bundle / "shared/vision-fp32.onnx")
    prompter = Prompter.open(bundle / "shared")
    table = np.load(bundle / "shared/token_embeddings.npy")

    def note(seen: dict[str, NDArray[np.float32]], prefix: str) -> None:
        for name, values in seen.items():
            hub = name if name == "lm_head.weight" else prefix + name
            sums[hub] = sums.get(hub, np.zeros(values.shape[-1])) + (values.astype(np.float64) ** 2).sum(0)
            largest[hub] = np.maximum(largest.get(hub, np.zeros(values.shape[-1], np.float32)), np.abs(values).max(0))
            counts[hub] = counts.get(hub, 0) + len(values)

    for messages in prompts:
        prompt = prompter.prompt(messages)
        rows = table[prompt.token_ids]
        rows = (rows.astype(np.uint32) << 16).view(np.float32) if rows.dtype == np.uint16 else rows.astype(np.float32)
        for image in prompt.images:
            pixels, grid = patches(image.rgb, prompter.rules)
            made, seen = eyes.run({"pixel_values": pixels, **vision_index([grid], **eyes.sizes).feeds()})
            note(seen, "visual.")
            rows[image.start : image.start + image.tokens] = made
        count = len(rows)
        feeds = {
            "inputs_embeds": rows[None],
            "position_ids": np.ascontiguousarray(prompt.positions)[:, None],
            "attention_mask": np.ones((1, count), np.int64),
            "logit_rows": np.arange(count),
            **{name: np.zeros((0, *shape[1:]), np.float32) for name, shape in decoder.past.items()},
        }
        note(decoder.run(feeds)[1], "model.")
    mean_square = {name: (total / counts[name]).astype(np.float32) for name, total in sums.items()}
    return Activations(mean_square, largest, counts, sha256="0" * 64, dataset_sha256="1" * 64)


class Watched:
    """A graph that also gives what each of its matrices is multiplied by."""

    def __init__(self, path: Path) -> None:
        """Open the graph at `path` with an output more for each input of a product by a weight."""
        import onnx
        import onnxruntime

        model = onnx.load(str(path))
        weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
        self._given = {
            node.input[1]: node.input[0]
            for node in model.graph.node
            if node.op_type == "MatMul" and node.input[1] in weights
        }
        inputs = {value.name for value in model.graph.input}
        self._first = model.graph.output[0].name
        for name in dict.fromkeys(self._given.values()):
            if name not in inputs:
                model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        self._inputs = inputs
        self._session: Any = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        self.past = {port.name: port.shape for port in self._session.get_inputs() if port.name.startswith("past_")}
        self.sizes = {one.key: int(one.value) for one in model.metadata_props}

    def run(self, feeds: dict[str, Any]) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Return the first output, and by weight the rows (rows, in) that it was multiplied by."""
        asked = [name for name in dict.fromkeys(self._given.values()) if name not in self._inputs]
        first, *values = self._session.run([self._first, *asked], feeds)
        seen = {**feeds, **dict(zip(asked, values, strict=True))}
        return first, {weight: seen[given].reshape(-1, seen[given].shape[-1]) for weight, given in self._given.items()}
