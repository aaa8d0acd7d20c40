"""The language model of a family as one ONNX graph for prompts and single tokens, for one sequence.

Embeddings go in, because images are placed among them outside; logits come out for the rows that are asked for. The
KV cache is laid out token by token, so that an engine extends and cuts it in place. Knows no file and no weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .. import InfimedError
from ..runtime.families import family_of
from .family_mappings import mapping_of
from .onnx_repeat import trace_deep
from .onnx_trace import Dtype, Port, trace, weight_ports
from .optimum_tables import text_numbers
from .rope import ROPE_KINDS, RopeScaling, inverse_frequencies

if TYPE_CHECKING:
    import torch

HEAD = "lm_head.weight"
FIRST_WEIGHT = "layers.{}.input_layernorm.weight"
"""What a layer uses first."""
INVERSE_FREQUENCIES = "rotary.inverse_frequencies"
SAMPLES = {"tokens": 5, "past": 3, "total": 8, "rows": 2}


class GraphError(InfimedError):
    """The checkpoint's config.json asks for what the graph does not do."""


@dataclass(frozen=True)
class DecoderNumbers:
    """What the graph is made of.

    sections: rotary frequencies per axis (time, height, width), in all head_dim / 2; one number where there is one
    position. biases: whether queries, keys and values have them. scaling: how rotary turns are slowed, or None.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    norm_epsilon: float
    rope_theta: float
    sections: tuple[int, ...]
    biases: bool
    scaling: RopeScaling | None

    @classmethod
    def of(cls, config: Any) -> DecoderNumbers:
        """Read the transformers config of a family. Raises GraphError for what this graph does not do."""
        stated = config.to_dict()
        family = family_of(stated)
        text = text_numbers(config)
        rope = text.rope_parameters
        unusual = {
            "hidden_act": text.hidden_act != "silu",
            "sliding window": "sliding_attention" in (getattr(text, "layer_types", None) or ()),
            "rope_type": rope["rope_type"] not in ROPE_KINDS[family.rotary],
        }
        wrong = [name for name, differs in unusual.items() if differs]
        if wrong := [*wrong, *mapping_of(stated).unusual(stated)]:
            raise GraphError(f"config.json: {', '.join(wrong)} is not what the ONNX graph of {family.name} does")
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        half = (head_dim // 2,)
        sections = tuple(map(int, rope.get("mrope_section", ()))) if family.rotary == "sections" else half
        try:
            scaling = RopeScaling.of(rope)
        except (KeyError, TypeError, ValueError) as error:
            raise GraphError(f"config.json lacks or garbles {error} of its rotary positions") from None
        if sum(sections) * 2 != head_dim:
            raise GraphError(f"config.json: mrope_section {list(sections)} must sum to half of head_dim {head_dim}")
        return cls(
            layers=text.num_layers,
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=head_dim,
            vocabulary=text.vocab_size,
            norm_epsilon=text.rms_norm_eps,
            rope_theta=rope["rope_theta"],
            sections=sections,
            biases=family.biases,
            scaling=scaling,
        )

    def inverse_frequencies(self) -> torch.Tensor:
        """Return how fast each pair of a head turns, (head_dim / 2,), float32, in radians per position."""
        if self.scaling:
            return self.scaling.frequencies(self.rope_theta, self.head_dim)
        return inverse_frequencies(self.rope_theta, self.head_dim)

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the matrices by name, each (in, out): the checkpoint's turned around."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, int]] = {}
        for layer in range(self.layers):
            at, mlp = f"layers.{layer}.self_attn", f"layers.{layer}.mlp"
            shapes |= {
                f"{at}.q_proj.weight": (self.hidden, queries),
                f"{at}.k_proj.weight": (self.hidden, keys),
                f"{at}.v_proj.weight": (self.hidden, keys),
                f"{at}.o_proj.weight": (queries, self.hidden),
                f"{mlp}.gate_proj.weight": (self.hidden, self.intermediate),
                f"{mlp}.up_proj.weight": (self.hidden, self.intermediate),
                f"{mlp}.down_proj.weight": (self.intermediate, self.hidden),
            }
        return {**shapes, HEAD: (self.hidden, self.vocabulary)}

    def vectors(self) -> dict[str, tuple[int]]:
        """Return the norms and biases of the checkpoint by name."""
        shapes = {"norm.weight": (self.hidden,)}
        for layer in range(self.layers):
            at = f"layers.{layer}.self_attn"
            shapes |= {
                f"layers.{layer}.input_layernorm.weight": (self.hidden,),
                f"layers.{layer}.post_attention_layernorm.weight": (self.hidden,),
            }
            if self.biases:
                shapes |= {
                    f"{at}.q_proj.bias": (self.heads * self.head_dim,),
                    f"{at}.k_proj.bias": (self.kv_heads * self.head_dim,),
                    f"{at}.v_proj.bias": (self.kv_heads * self.head_dim,),
                }
        return shapes

    def cache_names(self, word: str) -> list[str]:
        """Return the names of the cache's ports: `word` is "past" or "new"."""
        return [f"{word}_{kind}.{layer}" for kind in ("key", "value") for layer in range(self.layers)]


def trace_decoder(numbers: DecoderNumbers, dtype: Dtype = "float32") -> Any:
    """Return the graph as an onnx.ModelProto whose first inputs are the weights.

    float16: matrices, biases, embeddings and the cache are; norms, rotation, softmax and the sum over the layers stay
    float32, with explicit casts between them, and so do the logits that come out.
    """
    weights, inputs, outputs = _ports(numbers, dtype)
    return trace_deep(
        lambda kinds: trace_whole(replace(numbers, layers=len(kinds)), dtype),
        ("layer",) * numbers.layers,
        FIRST_WEIGHT,
        [*weight_ports(weights, halves(weights) if dtype == "float16" else ()), *inputs],
        outputs,
    )


def trace_whole(numbers: DecoderNumbers, dtype: Dtype = "float32") -> Any:
    """Return the same graph, every layer traced: slower, and the judge of what is repeated."""
    weights, inputs, outputs = _ports(numbers, dtype)

    def function(w: Mapping[str, torch.Tensor], *given: torch.Tensor) -> Sequence[torch.Tensor]:
        return decode(numbers, w, *given)

    model = trace(function, weights, inputs, outputs, SAMPLES, halves(weights) if dtype == "float16" else ())
    for node in model.graph.node:  # every layer's cache is as long as any other's; which one torch asks is chance
        if node.op_type == "Shape" and node.input[0].startswith("past_"):
            node.input[0] = "past_key.0"
    return model


def _ports(numbers: DecoderNumbers, dtype: Dtype) -> tuple[dict[str, tuple[int, ...]], list[Port], list[Port]]:
    """Return the weights, the inputs beside them and the outputs."""
    entry = (numbers.kv_heads, numbers.head_dim)
    inputs = [
        Port("inputs_embeds", dtype, (1, "tokens", numbers.hidden)),
        Port("position_ids", "int64", (3, 1, "tokens")),
        Port("attention_mask", "int64", (1, "total")),
        Port("logit_rows", "int64", ("rows",)),
        *(Port(name, dtype, ("past", *entry)) for name in numbers.cache_names("past")),
    ]
    outputs = [
        Port("logits", "float32", ("rows", numbers.vocabulary)),
        *(Port(name, dtype, ("tokens", *entry)) for name in numbers.cache_names("new")),
    ]
    return {**numbers.vectors(), **numbers.matrices(), INVERSE_FREQUENCIES: (numbers.head_dim // 2,)}, inputs, outputs


def halves(weights: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the weights that a float16 graph takes in float16: its matrices and biases, not norms or frequencies."""
    return [name for name, shape in weights.items() if len(shape) == 2 or name.endswith(".bias")]


def decode(
    numbers: DecoderNumbers,
    w: Mapping[str, torch.Tensor],
    inputs_embeds: torch.Tensor,
    position_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    logit_rows: torch.Tensor,
    *past: torch.Tensor,
) -> list[torch.Tensor]:
    """Return logits (rows, vocabulary), then each layer's new keys and each one's values (tokens, kv_heads, head_dim).

    The cache is of the matrices' type and so are their products; all between them is float32, and so are the logits.
    inputs_embeds: (1, tokens, hidden). position_ids: (3, 1, tokens). attention_mask: (1, past + tokens), 0 where a
    token must not be looked at. logit_rows: which of the tokens. past: the keys of each layer, then the values of each.
    """
    import torch

    kind = w[HEAD].dtype
    hidden = inputs_embeds[0].float()  # the sum over the layers grows beyond what float16 holds with few digits
    cos, sin = _rotation(numbers, w[INVERSE_FREQUENCIES], position_ids[:, 0])
    bias = _causal_bias(attention_mask[0], hidden.shape[0])
    for one in past:  # said once, so that no layer computes the length of its own cache
        torch._check(one.shape[0] == attention_mask.shape[1] - inputs_embeds.shape[1])  # type: ignore[no-untyped-call]
    keys, values = [], []
    for layer in range(numbers.layers):
        at = f"layers.{layer}"
        normed = rms_norm(hidden, w[f"{at}.input_layernorm.weight"], numbers.norm_epsilon).to(kind)
        query, key, value = (
            _projected(w, f"{at}.self_attn.{part}_proj", normed).reshape(-1, heads, numbers.head_dim)
            for part, heads in (("q", numbers.heads), ("k", numbers.kv_heads), ("v", numbers.kv_heads))
        )
        # scaled before the product and not after it: unscaled scores can be too large for float16
        query = (rotate(query.float(), cos, sin) * numbers.head_dim**-0.5).to(kind)
        key = rotate(key.float(), cos, sin).to(kind)
        keys.append(key)
        values.append(value)
        seen = _attend(
            numbers,
            query,
            torch.cat([past[layer], key]),
            torch.cat([past[numbers.layers + layer], value]),
            bias,
        )
        hidden = hidden + (seen @ w[f"{at}.self_attn.o_proj.weight"]).float()
        normed = rms_norm(hidden, w[f"{at}.post_attention_layernorm.weight"], numbers.norm_epsilon).to(kind)
        gate = torch.nn.functional.silu(normed @ w[f"{at}.mlp.gate_proj.weight"])
        gated = gate * (normed @ w[f"{at}.mlp.up_proj.weight"])
        hidden = hidden + (gated @ w[f"{at}.mlp.down_proj.weight"]).float()
    asked = rms_norm(hidden.index_select(0, logit_rows), w["norm.weight"], numbers.norm_epsilon).to(kind)
    return [(asked @ w[HEAD]).float(), *keys, *values]


def _projected(w: Mapping[str, torch.Tensor], name: str, values: torch.Tensor) -> torch.Tensor:
    """Return values @ weight, and its bias where the family has one."""
    product = values @ w[f"{name}.weight"]
    return product + w[f"{name}.bias"] if f"{name}.bias" in w else product


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return hidden / sqrt(mean(hidden^2) + epsilon) * weight, all float32 (Zhang and Sennrich, arXiv 1910.07467)."""
    import torch

    return weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon))


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return (tokens, heads, head_dim) rotated by the angles of each token: cos and sin are (tokens, head_dim / 2)."""
    import torch

    half = heads.shape[-1] // 2
    left, right = heads[..., :half], heads[..., half:]
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def _rotation(
    numbers: DecoderNumbers, frequencies: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cos and sin, (tokens, head_dim / 2): each section of frequencies turns with its own axis' position."""
    import torch

    parts, start = [], 0
    for axis, size in enumerate(numbers.sections):
        parts.append(positions[axis % 3, :, None].to(frequencies.dtype) * frequencies[start : start + size])
        start += size
    angles = torch.cat(parts, dim=-1)
    return angles.cos(), angles.sin()


def _causal_bias(mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return (tokens, past + tokens), float32: 0 where a token may look, the least number elsewhere."""
    import torch

    total = mask.shape[0]
    place = torch.arange(total, device=mask.device)
    hidden_from = (place[None] > place[total - tokens :, None]) | (mask == 0)[None]
    return torch.zeros_like(hidden_from, dtype=torch.float).masked_fill(hidden_from, torch.finfo(torch.float).min)


def _attend(
    numbers: DecoderNumbers, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Return (tokens, heads * head_dim). The heads that share a key are one batch of rows, so no key is copied.

    query: scaled. The softmax is float32, the products are of the type of what they are given.
    """
    tokens, total = query.shape[0], key.shape[0]
    group = numbers.heads // numbers.kv_heads
    rows = query.reshape(tokens, numbers.kv_heads, group, numbers.head_dim).permute(1, 2, 0, 3)
    rows = rows.reshape(numbers.kv_heads, group * tokens, numbers.head_dim)
    scores = (rows @ key.permute(1, 2, 0)).float().reshape(numbers.kv_heads, group, tokens, total) + bias
    shares = scores.softmax(-1).to(value.dtype).reshape(numbers.kv_heads, group * tokens, total)
    seen = (shares @ value.permute(1, 0, 2)).reshape(numbers.kv_heads, group, tokens, numbers.head_dim)
    joined: torch.Tensor = seen.permute(2, 0, 1, 3).reshape(tokens, numbers.heads * numbers.head_dim)
    return joined
