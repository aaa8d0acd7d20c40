"""What a checkpoint's numbers and names become in GGUF, as far as every family has it in common.

The names are llama.cpp's (runtime/tensors.py); a test holds the files against its own converter. What is a family's own
is in its mapping file, family_*.py. Knows no file and no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import InfimedError
from ..runtime.families import family_of
from ..runtime.tensors import Tensor, TextSizes
from .rope import ROPE_KINDS, RopeScaling, rope_kind

_DEFAULT_THETA = 10000.0  # of transformers, for files that state none


class GgufUnsupported(InfimedError):
    """A checkpoint that GGUF, or llama.cpp's graph of its family, cannot express."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file and where it comes from.

    shape: slowest dimension first. source: the checkpoint's name, in the layout of the model hub. source_shape: what it
    must have there. rows: which of its rows are taken, (start, stop), or None for all. frame: which temporal slice of a
    3D convolution, or None. heads: how many heads its rows belong to where the rows of each change order: the
    checkpoint has the two of a rotary pair half a head apart, the file side by side. values: float32 numbers of a
    vector that is computed and has no source.
    """

    name: str
    shape: tuple[int, ...]
    source: str
    source_shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    frame: int | None = None
    heads: int | None = None
    values: tuple[float, ...] | None = None

    @property
    def is_vector(self) -> bool:
        """Biases and norms stay in F32 whatever the file's type."""
        return len(self.shape) == 1


@dataclass(frozen=True)
class TextShape:
    """The numbers of a text model.

    head_dim: values per head; stated where config.json says so itself. sections: how many rotary pairs follow time,
    height and width, None where all follow one position. scaling: how rotary turns are slowed, or None.
    """

    sizes: TextSizes
    heads: int
    kv_heads: int
    head_dim: int
    head_dim_stated: bool
    context: int
    norm_epsilon: float
    rope_base: float
    sections: tuple[int, int, int] | None
    scaling: RopeScaling | None

    @staticmethod
    def of(config: Mapping[str, Any]) -> TextShape:
        """Read a config.json in the layout of transformers 4 (flat) or 5 (text_config).

        Raises GgufUnsupported, UnsupportedFamily.
        """
        family = family_of(config)
        text = {**config, **(config.get("text_config") or {})}
        try:
            rope = {"rope_theta": text.get("rope_theta"), **(text.get("rope_scaling") or {})}
            rope.update(text.get("rope_parameters") or {})
            kind = rope_kind(rope)
            refuse_unless(kind in ROPE_KINDS[family.rotary], f"rotary scaling {kind!r}")
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            kv_heads = int(text.get("num_key_value_heads") or heads)
            head_dim = int(text.get("head_dim") or hidden // max(heads, 1))
            shape = TextShape(
                sizes=TextSizes(
                    layers=int(text["num_hidden_layers"]),
                    hidden=hidden,
                    ffn=int(text["intermediate_size"]),
                    queries=heads * head_dim,
                    keys=kv_heads * head_dim,
                    vocabulary=int(text["vocab_size"]),
                    # The outer value is the one that transformers obeys; text_config may say otherwise.
                    tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
                    biases=family.biases,
                ),
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                head_dim_stated=text.get("head_dim") is not None,
                context=int(text["max_position_embeddings"]),
                norm_epsilon=float(text["rms_norm_eps"]),
                rope_base=float(rope.get("rope_theta") or _DEFAULT_THETA),
                sections=_three(rope["mrope_section"]) if family.rotary == "sections" else None,
                scaling=RopeScaling.of(rope),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GgufUnsupported(f"config.json lacks or garbles {error}, which a GGUF file needs") from None
        _check(text, shape)
        return shape


def _check(text: Mapping[str, Any], shape: TextShape) -> None:
    refuse_unless(text.get("hidden_act", "silu") == "silu", f"hidden_act {text.get('hidden_act')!r}")
    refuse_unless(not text.get("use_sliding_window"), "a sliding attention window")
    heads, width = shape.heads, shape.head_dim
    whole = heads > 0 and (shape.head_dim_stated or shape.sizes.hidden % heads == 0) and width % 2 == 0
    refuse_unless(whole, f"{shape.sizes.hidden} hidden values in {heads} heads of {width}")
    if shape.sections is not None:
        refuse_unless(sum(shape.sections) * 2 == width, f"rotary sections {shape.sections} for heads of {width} values")


@dataclass(frozen=True)
class FamilyMapping:
    """What is a family's own in a text model's file.

    unusual: from a config.json, what it asks for that no graph of ours does, in words. own_head_dim: whether llama.cpp
    takes heads whose widths do not sum to the hidden one. tensors: in the order in which they are written. keys: what
    the header says beyond what every family's does, by name behind the architecture's. vision_tensors: of the vision
    tower's file, from a config.json; None for a family without one.
    """

    unusual: Callable[[Mapping[str, Any]], list[str]]
    own_head_dim: bool
    tensors: Callable[[TextShape], tuple[GgufTensor, ...]]
    keys: Callable[[TextShape], dict[str, int | list[int]]]
    vision_tensors: Callable[[Mapping[str, Any]], tuple[GgufTensor, ...]] | None = None

    def shape(self, config: Mapping[str, Any]) -> TextShape:
        """Return the numbers of a config.json. Raises GgufUnsupported for what llama.cpp's graph does otherwise."""
        shape = TextShape.of(config)
        for what in self.unusual(config):
            refuse_unless(False, what)
        fits = self.own_head_dim or shape.sizes.queries == shape.sizes.hidden
        refuse_unless(fits, f"{shape.heads} heads of {shape.head_dim} values in {shape.sizes.hidden}")
        return shape


def taken_as_is(tensors: Iterable[Tensor]) -> tuple[GgufTensor, ...]:
    """Return tensors as they come from the checkpoint: whole, a third of three that are stacked, or one frame."""
    return tuple(
        GgufTensor(
            tensor.gguf,
            tensor.shape,
            tensor.hub,
            tensor.hub_shape,
            rows=None
            if tensor.third is None
            else (tensor.third * tensor.shape[0], (tensor.third + 1) * tensor.shape[0]),
            frame=tensor.frame,
        )
        for tensor in tensors
    )


# Prefixes of other layouts -> the hub's: transformers' modules as they stand in memory, and earlier releases.
_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.visual.", "visual."),
    ("model.lm_head.", "lm_head."),
)


def hub_names(stored: Iterable[str]) -> dict[str, str]:
    """Return the hub's name of each tensor -> the name it is stored under; what is computed, not learnt, is left out.

    Raises GgufUnsupported where two stored tensors are the same one.
    """
    found: dict[str, str] = {}
    for name in stored:
        if name.endswith(".rotary_emb.inv_freq"):
            continue
        canonical = name
        for prefix, hub in _PREFIXES:
            if name.startswith(prefix):
                canonical = hub + name[len(prefix) :]
                break
        if canonical in found:
            raise GgufUnsupported(f"tensors {found[canonical]} and {name} are the same one; the checkpoint is mixed")
        found[canonical] = name
    return found


def refuse_unless(holds: bool, what: str) -> None:
    """Raise GgufUnsupported where something does not hold."""
    if not holds:
        raise GgufUnsupported(f"{what}: llama.cpp does not compute this family so; use an ONNX level")


def _three(sections: Any) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in sections)
    return first, second, third
