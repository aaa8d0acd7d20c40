"""The GGUF header reader against gguf-py, and against files that lie."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest

from infimed.runtime.gguf_file import TENSOR_TYPES, ArrayLength, GgufError, read_gguf
from infimed.runtime.llama_files import check_text_model, check_vision_model
from infimed.runtime.tensors import TextSizes, VisionSizes

gguf = pytest.importorskip("gguf")

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file by gguf-py with every kind of value and several types of tensors."""
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "test")
    writer.add_uint32("a.count", 7)
    writer.add_float32("a.epsilon", 1e-6)
    writer.add_bool("a.flag", True)
    writer.add_string("a.text", "größer")
    writer.add_array("a.sections", [8, 12, 12, 0])
    writer.add_array("a.means", [0.5, 0.25, 0.125])
    writer.add_array("a.tokens", [f"t{i % 90}" for i in range(100)])
    writer.add_array("a.kinds", list(range(100)))
    for kind in KINDS:
        row_bytes = gguf.quant_shape_to_byte_shape((4, 256), gguf.GGMLQuantizationType[kind])
        writer.add_tensor(f"w.{kind}", np.zeros(row_bytes, np.uint8), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.add_tensor("bias", np.arange(5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_values_and_tensors_are_those_of_gguf_py(written: Path) -> None:
    header = read_gguf(written)
    assert dict(header.values) == {
        "general.architecture": "test",
        "a.count": 7,
        "a.epsilon": float(np.float32(1e-6)),
        "a.flag": True,
        "a.text": "größer",
        "a.sections": (8, 12, 12, 0),
        "a.means": (0.5, 0.25, 0.125),
        "a.tokens": ArrayLength(100, 90),
        "a.kinds": ArrayLength(100, 100),
    }
    theirs = gguf.GGUFReader(written).tensors
    assert [
        (tensor.name, tensor.type, list(tensor.shape[::-1]), tensor.offset_bytes, tensor.bytes)
        for tensor in header.tensors
    ] == [(t.name, t.tensor_type.name, list(t.shape), t.data_offset, t.n_bytes) for t in theirs]
    assert header.weight_bytes == sum(int(t.n_bytes) for t in theirs)


def test_block_sizes_are_ggmls() -> None:
    for number, kind in TENSOR_TYPES.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert (kind.name, kind.values, kind.bytes) == (theirs.name, *gguf.GGML_QUANT_SIZES[theirs])


def test_a_file_cut_anywhere_is_refused(written: Path) -> None:
    data = written.read_bytes()
    end = max(tensor.offset_bytes + tensor.bytes for tensor in read_gguf(written).tensors)
    for length in [*range(0, 1100, 7), end - 1]:
        written.write_bytes(data[:length])
        with pytest.raises(GgufError, match=r"model\.gguf"):
            read_gguf(written)


def test_a_changed_header_is_read_or_refused_and_nothing_else(written: Path) -> None:
    data = written.read_bytes()
    first = min(tensor.offset_bytes for tensor in read_gguf(written).tensors)
    draw = random.Random(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        at = draw.randrange(first)
        match draw.randrange(3):
            case 0:
                changed[at] = draw.randrange(256)
            case 1:
                changed[at : at + 4] = struct.pack("<I", draw.choice([0, 1, 2**31 - 1, 2**32 - 1]))
            case _:
                changed[at : at + 8] = struct.pack("<Q", draw.choice([0, 2**32, 2**61, 2**63, 2**64 - 1]))
        written.write_bytes(changed)
        try:
            read_gguf(written)
        except GgufError:
            refused += 1
    assert refused > 80


def _header(tensors: int, values: int, body: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + body + bytes(4096)


def _tensor(name: bytes, sides: list[int], kind: int = 0, offset: int = 0) -> bytes:
    packed = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(sides))
    return packed + b"".join(struct.pack("<Q", side) for side in sides) + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"GGML" + bytes(100), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 2, 0, 0) + bytes(64), "version 2"),
        (_header(2**60, 0, b""), "claims"),  # an overflow of the tensor count
        (_header(0, 2**63, b""), "claims"),
        (_header(1, 0, _tensor(b"w", [2**32, 2**32])), "ends at byte"),  # sides whose product wraps to 0
        (_header(1, 0, _tensor(b"w", [2**40])), "ends at byte"),
        (_header(1, 0, _tensor(b"w", [4], offset=2**63)), "ends at byte"),
        (_header(1, 0, _tensor(b"w", [4], offset=3)), "ends at byte"),
        (_header(1, 0, _tensor(b"w", [0, 4])), "rows of 0"),
        (_header(1, 0, _tensor(b"w", [33], kind=8)), "cannot store"),
        (_header(1, 0, _tensor(b"w", [4], kind=99)), "type 99"),
        (_header(1, 0, _tensor(b"w", [1] * 5)), "5 dimensions"),
        (_header(2, 0, _tensor(b"w", [4]) * 2), "twice"),
        (_header(0, 1, struct.pack("<Q", 2**64 - 1)), "in the middle"),
        (_header(0, 1, struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**62)), "strings"),
        (_header(0, 1, struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 9, 1)), "type 9"),
        (_header(0, 1, struct.pack("<Q", 1) + b"\xff" + struct.pack("<II", 4, 1)), "UTF-8"),
        (_header(0, 1, struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 0)), "alignment"),
    ],
)
def test_headers_that_lie_are_refused(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(GgufError, match=what):
        read_gguf(path)


def _text_file(path: Path, sizes: TextSizes, **changes: object) -> Path:
    """Write a text model of zeros whose header says what `changes` say."""
    values: dict[str, object] = {
        "context_length": 64,
        "embedding_length": sizes.hidden,
        "block_count": sizes.layers,
        "feed_forward_length": sizes.ffn,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
        "rope.dimension_sections": [4, 6, 6, 0],
        "tokens": [f"t{i}" for i in range(sizes.vocabulary)],
        **changes,
    }
    writer = gguf.GGUFWriter(path, "qwen2vl")
    for key, value in values.items():
        name = "tokenizer.ggml.tokens" if key == "tokens" else f"qwen2vl.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    for name, shape in sizes.shapes().items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


SIZES = TextSizes(layers=1, hidden=64, ffn=32, queries=64, keys=32, vocabulary=10, tied=True, biases=True)


def test_a_text_model_gives_its_sizes(tmp_path: Path) -> None:
    assert check_text_model(read_gguf(_text_file(tmp_path / "model.gguf", SIZES))) == SIZES


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"attention.head_count": 0}, "head_count is 0"),
        ({"attention.head_count": 3}, "do not divide"),
        ({"block_count": 2}, r"blk\.1\.attn_k\.bias is missing"),
        ({"block_count": 2**31}, "block_count"),
        ({"rope.dimension_sections": [5, 0, 0, 0]}, "do not fill"),
        ({"rope.dimension_sections": [4, 6, 6, 1]}, "last 0"),
        ({"attention.layer_norm_rms_epsilon": -1.0}, "positive"),
        ({"tokens": ["same"] * 10}, "without repetition"),
        ({"tokens": ["a", "b"]}, "token_embd.weight is"),
    ],
)
def test_a_text_model_that_makes_no_sense_is_refused(changes: dict[str, object], what: str, tmp_path: Path) -> None:
    with pytest.raises(GgufError, match=what):
        check_text_model(read_gguf(_text_file(tmp_path / "model.gguf", SIZES, **changes)))


def test_a_text_model_is_no_vision_tower(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="'clip' is needed"):
        check_vision_model(read_gguf(_text_file(tmp_path / "model.gguf", SIZES)), 64)
    assert len(VisionSizes(layers=2, hidden=64, ffn=32, patch=14, out=64).shapes()) == 2 * 16 + 7
