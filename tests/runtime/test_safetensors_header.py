"""A damaged safetensors file or index is refused by our reader wherever the safetensors library refuses it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from infimed.runtime.shape import CheckpointError, checkpoint_tensors, read_header

Header = dict[str, Any]
WEIGHTS = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float16), "empty": np.zeros((0, 2), np.float32)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(WEIGHTS, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path / "model.safetensors"


def rewritten(file: Path, change: Callable[[Header], object], behind: bytes = b"") -> None:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(change(header) or header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :] + behind)


def test_a_whole_file_is_read(file: Path) -> None:
    assert {tensor.name: tensor.shape for tensor in read_header(file)} == {"empty": (0, 2), "a": (2, 3), "b": (4,)}


FAULTS: dict[str, Callable[[Header], object]] = {
    "two tensors on one place": lambda header: header["b"].update(data_offsets=[0, 8]),
    "begins before the data": lambda header: header["b"].update(data_offsets=[-8, 0]),
    "a gap": lambda header: header.pop("a"),
    "a hole at the end": lambda header: header.pop("b"),
    "a fraction as a side": lambda header: header["b"].update(shape=[4.0]),
    "a text as a side": lambda header: header["b"].update(shape=["4"]),
    "a negative side": lambda header: header["b"].update(shape=[-2, -2]),
    "a type that is none": lambda header: header["b"].update(dtype=["F16"]),
    "an unknown type": lambda header: header["b"].update(dtype="F12"),
    "three offsets": lambda header: header["b"].update(data_offsets=[24, 32, 40]),
    "no shape": lambda header: header["b"].pop("shape"),
    "a list": lambda header: [header],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_library_refuses_is_refused(file: Path, fault: str) -> None:
    rewritten(file, FAULTS[fault])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        list(read_header(file))
    with pytest.raises(Exception, match=r"."), safe_open(file, "numpy"):
        pass


def test_bytes_behind_the_last_tensor_are_refused(file: Path) -> None:
    rewritten(file, lambda header: None, behind=b"x" * 100)
    with pytest.raises(CheckpointError, match="goes on for 100 bytes"):
        list(read_header(file))
    with pytest.raises(Exception, match=r"(?i)incomplete"), safe_open(file, "numpy"):
        pass


def test_a_tensor_that_is_named_twice_in_a_header_is_refused(file: Path) -> None:
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    text = data[8 : 8 + length].rstrip()[:-1] + b',"b":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}}'
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    with pytest.raises(CheckpointError, match="malformed"):
        list(read_header(file))


def test_a_type_of_eight_bits_is_named(file: Path) -> None:
    rewritten(file, lambda header: header["b"].update(dtype="F8_E4M3", shape=[8]))
    with pytest.raises(CheckpointError, match="b is stored as F8_E4M3"):
        list(read_header(file))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    save_file({"a": WEIGHTS["a"]}, tmp_path / "one.safetensors")
    save_file({"b": WEIGHTS["b"]}, tmp_path / "two.safetensors")
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    return tmp_path


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_whole_shards_are_read(shards: Path) -> None:
    assert {tensor.name: tensor.file.name for tensor in checkpoint_tensors(shards)} == {
        "a": "one.safetensors",
        "b": "two.safetensors",
    }


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"a": "one.safetensors", "b": 3}, "names no file beside it"),
        ({"a": "../one.safetensors"}, "names no file beside it"),
        ({"a": "/one.safetensors"}, "names no file beside it"),
        ([1], "names no file beside it"),
        ({"a": "one.safetensors", "b": "three.safetensors"}, "three.safetensors is missing"),
        ({"a": "two.safetensors", "b": "two.safetensors"}, "tensor a of the index is in no shard"),
        ({"a": "two.safetensors", "b": "one.safetensors"}, "tensor a is in one.safetensors, by the index in two"),
        ({"a": "one.safetensors", "c": "two.safetensors"}, "tensor b is in two.safetensors, by the index nowhere"),
    ],
)
def test_an_index_that_is_not_of_its_shards_is_refused(shards: Path, weight_map: Any, words: str) -> None:
    write_index(shards, weight_map)
    with pytest.raises(CheckpointError, match=words):
        checkpoint_tensors(shards)


def test_an_index_that_names_a_tensor_twice_is_refused(shards: Path) -> None:
    text = '{"weight_map": {"a": "two.safetensors", "a": "one.safetensors", "b": "two.safetensors"}}'
    (shards / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="twice"):
        checkpoint_tensors(shards)


def test_a_tensor_in_two_shards_is_refused(shards: Path) -> None:
    save_file({"a": WEIGHTS["a"] + 1, "b": WEIGHTS["b"]}, shards / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor a is in one\.safetensors and in two\.safetensors"):
        checkpoint_tensors(shards)


def test_a_single_file_beside_an_index_is_refused(shards: Path) -> None:
    save_file(WEIGHTS, shards / "model.safetensors")
    with pytest.raises(CheckpointError, match="which holds the model"):
        checkpoint_tensors(shards)
