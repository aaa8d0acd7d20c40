"""A graph that is made of a shallow one equals, byte for byte, the one that torch traces layer by layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infimed.export import onnx_decoder, onnx_vision
from infimed.export.graph_model import read_config
from infimed.export.onnx_decoder import DecoderNumbers
from infimed.export.onnx_repeat import deepen, shallow_kinds
from infimed.export.onnx_trace import TraceError
from infimed.export.onnx_vision import VisionNumbers
from infimed.training.adapter import embedded_base


@pytest.fixture(scope="module")
def config():
    return read_config(embedded_base())


def test_what_is_traced_of_a_deep_model():
    assert shallow_kinds(("a",) * 36) == ("a", "a", "a")
    assert shallow_kinds("wwwwwwwfwwwwwwwf") == ("w", "w", "f", "f", "f")
    assert shallow_kinds("fwfwfwfw") == ("f", "f", "w", "w", "w")
    assert shallow_kinds("aaa") is None  # not shallower
    assert shallow_kinds("wwwwwwwf") is None  # the only full layer is the last one


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.full), "float16"])
def test_the_decoder_equals_the_whole_trace(config, dtype):
    numbers = replace(DecoderNumbers.of(config), layers=5)
    made, whole = onnx_decoder.trace_decoder(numbers, dtype), onnx_decoder.trace_whole(numbers, dtype)
    assert len(made.graph.node) == len(whole.graph.node) > 300
    assert made.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


@pytest.mark.full
def test_a_decoder_without_biases_and_with_one_position_equals_the_whole_trace(config):
    numbers = DecoderNumbers.of(config)
    numbers = replace(numbers, layers=5, biases=False, sections=(numbers.head_dim // 2,))
    made, whole = onnx_decoder.trace_decoder(numbers), onnx_decoder.trace_whole(numbers)
    assert made.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("layers", "full"),
    [(6, (3, 5)), (8, (2, 5, 7)), (8, (0, 3)), (8, (3, 4))],
    ids=str,
)
@pytest.mark.full
def test_the_tower_equals_the_whole_trace(config, layers, full):
    numbers = replace(VisionNumbers.of(config), layers=layers, full=full)
    made, whole = onnx_vision.trace_vision(numbers), onnx_vision.trace_whole(numbers)
    assert made.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


@pytest.mark.full
def test_a_graph_whose_layers_cannot_be_told_apart_is_refused(config):
    numbers = replace(DecoderNumbers.of(config), layers=3)
    traced = onnx_decoder.trace_whole(numbers)
    with pytest.raises(TraceError, match="used 0 times"):
        deepen(traced, ("a",) * 8, "blocks.{}.norm.weight", [], [])
