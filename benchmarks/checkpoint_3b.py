"""Does everything open and fit at the size of the real model? Writes a base of Qwen2.5-VL-3B's shape and an adapter.

Names, shapes, types, shards, config.json, vocabulary and template are the published ones; the weights are random, drawn
so that activations stay finite. So sizes, memory, speed and parity are true on it, and accuracy is not. The vocabulary
is taken from llama.cpp's source package (see peers.py) and never kept here. A few million weights are in memory at a
time. Then transformers, the checkpoint reader, the shape check and the prompter open what was written.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infimed.benchmarks.anon_memory import end_tidily
from infimed.benchmarks.peers import VOCABULARY, llama_cpp_source
from infimed.runtime.files import canonical_json, write_bytes
from infimed.runtime.messages import ImagePart, user
from infimed.runtime.prompt import Prompter
from infimed.runtime.shape_check import check_shapes
from infimed.training.adapter import Adapter, embedded_base
from infimed.training.checkpoint import Checkpoint, TensorSpec, write_weights
from infimed.training.merge import store
from infimed.training.tokenizer import CONTROL_TOKENS, PLAIN_TOKENS

SHARD_BYTES = 4 << 30
BLOCK_WEIGHTS = 1 << 22
RANK, ALPHA = 8, 16
UPDATE_SHARE = 0.1
"""How large the adapter's update of a layer is beside its weight, by Frobenius norm."""
_ADAPTED = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)


@dataclass(frozen=True)
class Size:
    """The numbers of a relative of the model. tokens: of the real vocabulary, from its beginning; the rest is cut."""

    layers: int = 36
    hidden: int = 2048
    heads: int = 16
    kv_heads: int = 2
    ffn: int = 11008
    tokens: int = 151643
    vocabulary: int = 151936
    eyes_layers: int = 32
    eyes: int = 1280
    eyes_heads: int = 16
    eyes_ffn: int = 3420
    full_attention: tuple[int, ...] = (7, 15, 23, 31)

    @property
    def is_real_vocabulary(self) -> bool:
        """Return whether no token is cut, so that llama.cpp's converter knows the vocabulary by its hash."""
        return self.tokens == Size.tokens


SMALL = Size(
    layers=2, hidden=256, heads=2, kv_heads=1, ffn=768, tokens=2000, vocabulary=2048, eyes_layers=4, eyes=160,
    eyes_heads=2, eyes_ffn=428, full_attention=(1, 3),
)  # fmt: skip
"""A relative that is made in seconds: heads of the real width, a cut vocabulary."""


def write_base(folder: Path, size: Size, seed: int = 0) -> Path:
    """Write the base into `folder` and return it. Same arguments, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    first_added = write_tokenizer(folder, size)
    write_bytes(folder / "config.json", canonical_json(config_of(size, first_added)))
    ids = {"bos_token_id": first_added, "pad_token_id": first_added, "eos_token_id": [first_added + 2, first_added]}
    sampling = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.000001}
    write_bytes(folder / "generation_config.json", canonical_json({**ids, **sampling}))
    pixels = json.loads((embedded_base() / "preprocessor_config.json").read_text("utf-8"))
    for key in ("size", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize", "resample", "rescale_factor"):
        pixels.pop(key)  # the published file leaves them to the library
    write_bytes(folder / "preprocessor_config.json", canonical_json({**pixels, "max_pixels": 12845056}))
    specs = list(tensors_of(size))
    numbers = {spec.name: number for number, spec in enumerate(specs)}
    write_weights(folder, specs, lambda spec: _drawn(spec, seed, numbers[spec.name]), SHARD_BYTES)
    return folder


def config_of(size: Size, first_added: int) -> dict[str, Any]:
    """Return config.json as it is published (transformers 4, flat). first_added: the id of <|endoftext|>."""
    config = json.loads((embedded_base() / "config.json").read_text("utf-8"))
    ids = {name: first_added + CONTROL_TOKENS.index(f"<|{text}|>") for name, text in (
        ("bos_token_id", "endoftext"), ("eos_token_id", "im_end"), ("vision_start_token_id", "vision_start"),
        ("vision_end_token_id", "vision_end"), ("vision_token_id", "vision_pad"), ("image_token_id", "image_pad"),
        ("video_token_id", "video_pad"),
    )}  # fmt: skip
    eyes = {
        **config["vision_config"],
        "depth": size.eyes_layers,
        "hidden_size": size.eyes,
        "num_heads": size.eyes_heads,
        "intermediate_size": size.eyes_ffn,
        "out_hidden_size": size.hidden,
        "fullatt_block_indexes": list(size.full_attention),
    }
    for key in ("in_channels", "model_type"):
        eyes.pop(key)
    return {
        **config,
        **ids,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "intermediate_size": size.ffn,
        "vocab_size": size.vocabulary,
        "max_position_embeddings": 128000,
        "max_window_layers": 70,
        "sliding_window": 32768,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "transformers_version": "4.41.2",
        "vision_config": eyes,
    }


def tensors_of(size: Size) -> Iterator[TensorSpec]:
    """Yield the tensors as the model hub names them, all bfloat16."""
    hidden, keys, eyes, merged = size.hidden, size.hidden // size.heads * size.kv_heads, size.eyes, 4 * size.eyes
    shapes: dict[str, tuple[int, ...]] = {"visual.patch_embed.proj.weight": (eyes, 3, 2, 14, 14)}
    for layer in range(size.eyes_layers):
        at = f"visual.blocks.{layer}"
        shapes |= {f"{at}.norm1.weight": (eyes,), f"{at}.norm2.weight": (eyes,)}
        shapes |= _linear(f"{at}.attn.qkv", 3 * eyes, eyes) | _linear(f"{at}.attn.proj", eyes, eyes)
        shapes |= _linear(f"{at}.mlp.gate_proj", size.eyes_ffn, eyes) | _linear(
            f"{at}.mlp.up_proj", size.eyes_ffn, eyes
        )
        shapes |= _linear(f"{at}.mlp.down_proj", eyes, size.eyes_ffn)
    shapes |= {"visual.merger.ln_q.weight": (eyes,)}
    shapes |= _linear("visual.merger.mlp.0", merged, merged) | _linear("visual.merger.mlp.2", hidden, merged)
    shapes["model.embed_tokens.weight"] = (size.vocabulary, hidden)
    for layer in range(size.layers):
        at = f"model.layers.{layer}"
        shapes |= _linear(f"{at}.self_attn.q_proj", hidden, hidden) | _linear(f"{at}.self_attn.k_proj", keys, hidden)
        shapes |= _linear(f"{at}.self_attn.v_proj", keys, hidden)
        shapes |= {f"{at}.self_attn.o_proj.weight": (hidden, hidden)}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (size.ffn, hidden) for name in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (hidden, size.ffn)}
        shapes |= {f"{at}.input_layernorm.weight": (hidden,), f"{at}.post_attention_layernorm.weight": (hidden,)}
    shapes["model.norm.weight"] = (hidden,)
    yield from (TensorSpec(name, "BF16", shape) for name, shape in shapes.items())


def write_tokenizer(folder: Path, size: Size) -> int:
    """Write the real vocabulary, or its beginning, with Qwen2.5-VL's added tokens and template; return the first's id.

    A merge is kept where its two parts and what it makes are.
    """
    import gguf

    stored = gguf.GGUFReader(llama_cpp_source() / VOCABULARY).fields
    tokens, merges = (stored[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    kept = {token: index for index, token in enumerate(tokens[: size.tokens])}
    pairs = [merge.split(" ") for merge in merges]
    tokenizer = json.loads((embedded_base() / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["vocab"] = kept
    tokenizer["model"]["merges"] = [pair for pair in pairs if {*pair, "".join(pair)} <= kept.keys()]
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    first = len(kept)
    named = [{**added[text], "id": first + at} for at, text in enumerate((*CONTROL_TOKENS, *PLAIN_TOKENS))]
    tokenizer["added_tokens"] = named
    write_bytes(folder / "tokenizer.json", json.dumps(tokenizer, ensure_ascii=False).encode("utf-8"))
    settings = json.loads((embedded_base() / "tokenizer_config.json").read_text("utf-8"))
    settings["added_tokens_decoder"] = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in named
    }
    settings["model_max_length"] = 131072
    settings["chat_template"] = (embedded_base() / "chat_template.jinja").read_text("utf-8")
    write_bytes(folder / "tokenizer_config.json", json.dumps(settings, ensure_ascii=False, indent=2).encode("utf-8"))
    return first


def write_adapter(folder: Path, base: Path, size: Size, seed: int = 1) -> Path:
    """Write a LoRA adapter on every linear layer of the base's text model, in PEFT's layout; return its folder."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shapes = {spec.name: spec.shape for spec in tensors_of(size)}
    draw = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    # ||scale B A|| = scale sqrt(rank) deviation(B) beside ||W|| where A, like W, has deviation 1 / sqrt(in).
    deviation = UPDATE_SHARE / (ALPHA / RANK) / RANK**0.5
    for layer in range(size.layers):
        for part in _ADAPTED:
            rows, columns = shapes[f"model.layers.{layer}.{part}.weight"]
            at = f"base_model.model.model.language_model.layers.{layer}.{part}"
            tensors[f"{at}.lora_A.weight"] = draw.standard_normal((RANK, columns), np.float32) / columns**0.5
            tensors[f"{at}.lora_B.weight"] = draw.standard_normal((rows, RANK), np.float32) * np.float32(deviation)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "bias": "none",
        "target_modules": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj",
        "base_model_name_or_path": os.path.relpath(base, folder),
    }
    write_bytes(folder / "adapter_config.json", canonical_json(config))
    return folder


def check(base: Path, adapter: Path, size: Size) -> None:
    """Open all of it by everything that will; an error of theirs is ours. SystemExit where they disagree."""
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(str(base), local_files_only=True)
    shape, opened = check_shapes(base), Checkpoint.open(base)
    prompter, tokenizer = Prompter.open(base), AutoTokenizer.from_pretrained(str(base), local_files_only=True)
    eyes = shape.vision
    assert eyes is not None
    text = "Is there a pleural effusion on the left side? Réponse: 42 mm.\n\n<|im_end|>"
    image = ImagePart(np.zeros((448, 448, 3), np.uint8))
    told = {
        "layers": (config.get_text_config().num_hidden_layers, shape.layers, size.layers),
        "vocabulary": (config.get_text_config().vocab_size, shape.vocab, size.vocabulary),
        "image token": (config.image_token_id, prompter.image_token_id, size.tokens + 12),
        "ids of a text": (tokenizer(text)["input_ids"], prompter.encode(text), prompter.encode(text)),
        "bytes": (opened.weight_bytes, 2 * (shape.language_parameters + eyes.parameters), opened.weight_bytes),
        "image tokens": (prompter.prompt([user(image, "?")]).images[0].tokens, 256, 256),
        "adapted layers": (sum(1 for _ in Adapter.open(adapter).updates()), len(_ADAPTED) * size.layers) * 2,
    }
    for what, values in told.items():
        if any(value != values[0] for value in values):
            raise SystemExit(f"{what}: {values} should be equal")
    print(
        f"{base}: {opened.weight_bytes / 1e9:.2f} GB in {len(list(base.glob('*.safetensors')))} files, opens everywhere"
    )


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _drawn(spec: TensorSpec, seed: int, number: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a tensor's bytes: norms 1, matrices normal with deviation 1 / sqrt(in), biases with 0.02."""
    vector = len(spec.shape) == 1
    inner = int(np.prod(spec.shape[1:]))
    deviation = np.float32(0.02 if vector else inner**-0.5)
    draw = np.random.default_rng([seed, number])
    step = max(1, BLOCK_WEIGHTS // inner)
    for first in range(0, spec.shape[0], step):
        shape = (min(step, spec.shape[0] - first), *spec.shape[1:])
        if vector and not spec.name.endswith(".bias"):
            values = np.ones(shape, np.float32)
        else:
            values = draw.standard_normal(shape, np.float32) * deviation
        yield store(values, replace(spec, shape=shape))


def main() -> None:
    """Write base and adapter and open them; where no folder is named, in a temporary one that is removed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write OUT/base and OUT/adapter and keep them")
    parser.add_argument("--layers", type=int, help="of the text model; default 36")
    parser.add_argument("--small", action="store_true", help="a relative of 2 layers, narrow, with a cut vocabulary")
    given = parser.parse_args()
    size = SMALL if given.small else Size()
    size = replace(size, layers=given.layers or size.layers)
    end_tidily()
    with tempfile.TemporaryDirectory(prefix="infimed-scale-") as place:
        folder = given.out or Path(place)
        base = write_base(folder / "base", size)
        check(base, write_adapter(folder / "adapter", base, size), size)


if __name__ == "__main__":
    main()
