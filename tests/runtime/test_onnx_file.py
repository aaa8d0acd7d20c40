from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infimed.runtime.onnx_file import OnnxFileError, check_onnx_file

onnx = pytest.importorskip("onnx")


def tensor(name: str, location: str = "x.data", **entries: int) -> Any:
    made = onnx.TensorProto(name=name, dims=[4], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        made.external_data.add(key=key, value=str(value))
    return made


def write(folder: Path, *initialisers: Any, nodes: Any = (), functions: Any = ()) -> Path:
    graph = onnx.GraphProto(name="g", initializer=initialisers, node=nodes)
    (folder / "m.onnx").write_bytes(onnx.ModelProto(graph=graph, functions=functions).SerializeToString())
    (folder / "x.data").write_bytes(bytes(32))
    return folder / "m.onnx"


def test_tensors_in_plain_files_beside_the_graph_are_taken(tmp_path: Path) -> None:
    check_onnx_file(write(tmp_path, tensor("a", length=16), tensor("b", offset=16, length=16)))


@pytest.mark.parametrize("location", ["../x.data", "/etc/passwd", "inner/x.data", "", ".", "..", "x.data/../y", "x\\y"])
def test_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    inner = tmp_path / "level"
    inner.mkdir()
    (tmp_path / "x.data").write_bytes(bytes(32))
    with pytest.raises(OnnxFileError, match="only plain files beside it"):
        check_onnx_file(write(inner, tensor("a", location)))


def test_a_link_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, tensor("a", "link.data"))
    os.symlink(tmp_path / "x.data", tmp_path / "link.data")
    with pytest.raises(OnnxFileError, match="only plain files beside it"):
        check_onnx_file(path)


def test_a_tensor_beyond_the_end_of_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OnnxFileError, match=r"x\.data is shorter than m\.onnx says"):
        check_onnx_file(write(tmp_path, tensor("a", offset=24, length=16)))


@pytest.mark.parametrize("place", ["attribute", "subgraph", "function", "sparse"])
def test_a_tensor_is_found_wherever_it_hides(place: str, tmp_path: Path) -> None:
    outside = tensor("a", "../x.data")
    node = onnx.NodeProto(op_type="Constant", output=["y"])
    functions = []
    if place == "subgraph":
        node.attribute.add(name="body", type=5).g.initializer.append(outside)
    elif place == "sparse":
        node.attribute.add(name="value", type=11).sparse_tensor.values.CopyFrom(outside)
    else:
        node.attribute.add(name="value", type=4).t.CopyFrom(outside)
    if place == "function":
        functions = [onnx.FunctionProto(name="f", node=[node])]
        node = onnx.NodeProto(op_type="f", output=["y"])
    with pytest.raises(OnnxFileError, match="only plain files beside it"):
        check_onnx_file(write(tmp_path, nodes=[node], functions=functions))


def test_a_location_given_twice_is_refused(tmp_path: Path) -> None:
    twice = tensor("a")
    twice.external_data.add(key="location", value="../x.data")
    with pytest.raises(OnnxFileError):
        check_onnx_file(write(tmp_path, twice))


def test_damaged_files_never_do_more_than_be_refused(tmp_path: Path) -> None:
    data = write(tmp_path, tensor("a", length=16), nodes=[onnx.NodeProto(op_type="Relu", input=["a"])]).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(data[: int(random.integers(1, len(data) + 1))])
        for index in random.integers(0, len(changed), 3):
            changed[index] = int(random.integers(256))
        (tmp_path / "m.onnx").write_bytes(changed)
        try:
            check_onnx_file(tmp_path / "m.onnx")
        except OnnxFileError:
            refused += 1
    assert refused > 200
