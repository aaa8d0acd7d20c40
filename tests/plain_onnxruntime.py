"""Runs an exported ONNX level with numpy and onnxruntime alone, by what docs/onnx.md says: a reader without infimed.

python plain_onnxruntime.py BUNDLE LEVEL PROMPT.npz REPLY.npz. The prompt holds token_ids (tokens,), positions
(3, tokens), ends (steps,) and, with images, pixel_values (patches, 1176), grids (images, 3) and image_token; the reply
gets the tokens of a greedy answer and the rows of logits they were chosen from.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read while onnxruntime is imported
import onnxruntime

REPLY_TOKENS = 5


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def embeddings(shared):
    """The table in float32; uint16 are the upper halves of float32 numbers."""
    table = np.load(shared / "token_embeddings.npy", mmap_mode="r")
    return (table.astype(np.uint32) << 16).view(np.float32) if table.dtype == np.uint16 else table.astype(np.float32)


def windows(grids, side, merge):
    """The integer inputs of the vision graph, patch by patch: its place, its window, and its slot there."""
    slots = (side * merge) ** 2
    places, slot_of, images, first = [], [], [], 0
    for image, (_, rows, columns) in enumerate(grids):
        across = -(-columns // (side * merge))
        filled = {}
        for row in range(0, rows, merge):
            for column in range(0, columns, merge):
                for inner in range(merge * merge):
                    place = row + inner // merge, column + inner % merge
                    window = first + place[0] // (side * merge) * across + place[1] // (side * merge)
                    filled[window] = filled.get(window, -1) + 1
                    places.append(place)
                    slot_of.append(window * slots + filled[window])
                    images.append(image)
        first += len(filled)
    gather, mask = np.zeros(first * slots, np.int64), np.zeros(first * slots, bool)
    gather[slot_of], mask[slot_of] = np.arange(len(slot_of)), True
    return {
        "position_ids": np.array(places, np.int64),
        "win_gather": gather.reshape(first, slots),
        "win_mask": mask.reshape(first, slots),
        "win_scatter": np.array(slot_of, np.int64),
        "seg_ids": np.array(images, np.int64),
    }


def see(path, pixels, grids):
    eyes = session(path)
    told = {name: int(value) for name, value in eyes.get_modelmeta().custom_metadata_map.items() if value.isdigit()}
    merge = told["merge_size"]
    side = told["window_size"] // told["patch_size"] // merge
    return eyes.run(["image_embeddings"], {"pixel_values": pixels, **windows(grids, side, merge)})[0]


def answer(graph, embedded, table, positions, ends):
    """Tokens of a greedy reply, and the rows they come from; the cache is what the graph gave, row after row.

    ends: where each step of the prompt ends; the reply goes token by token.
    """
    ports = {port.name: port for port in graph.get_inputs()}
    number = np.float16 if ports["inputs_embeds"].type == "tensor(float16)" else np.float32
    names = [name.removeprefix("past_") for name in ports if name.startswith("past_")]
    past = {name: np.zeros((0, *ports[f"past_{name}"].shape[1:]), number) for name in names}
    start, rows, tokens = 0, [], []
    while len(tokens) < REPLY_TOKENS:
        end = next((end for end in ends if end > start), start + 1)
        feeds = {
            "inputs_embeds": embedded[None, start:end].astype(number),
            "position_ids": positions[:, None, start:end],
            "attention_mask": np.ones((1, end), np.int64),
            "logit_rows": np.array([end - start - 1]),
            **{f"past_{name}": values for name, values in past.items()},
        }
        logits, *new = graph.run(["logits", *(f"new_{name}" for name in names)], feeds)
        past = {name: np.concatenate([past[name], made]) for name, made in zip(names, new, strict=True)}
        start = end
        if end == len(embedded):
            rows.append(logits[0])
            tokens.append(int(logits[0].argmax()))
            embedded = np.concatenate([embedded, table[tokens[-1:]]])
            positions = np.concatenate([positions, np.full((3, 1), positions.max() + 1)], axis=1)
    return np.array(tokens), np.stack(rows)


def main(bundle, level, prompt, reply):
    given, shared = dict(np.load(prompt)), Path(bundle) / "shared"
    table = embeddings(shared)
    embedded = table[given["token_ids"]]
    if "image_token" in given:
        seen = see(shared / "vision-fp32.onnx", given["pixel_values"], given["grids"])
        embedded[given["token_ids"] == given["image_token"]] = seen
    graph = session(Path(bundle) / level / "decoder.onnx")
    tokens, rows = answer(graph, embedded, table, given["positions"], given["ends"])
    assert not [name for name in sys.modules if name.split(".")[0] in ("infimed", "torch", "transformers")]
    np.savez(reply, tokens=tokens, rows=rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
