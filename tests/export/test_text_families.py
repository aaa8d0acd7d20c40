"""Qwen2 and Llama from checkpoint to answer: prompts and graphs as transformers', files as they must be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("llama_cpp")
pytest.importorskip("onnxruntime")

from infimed import InfimedError  # noqa: E402
from infimed.devices.plan import plan  # noqa: E402
from infimed.devices.profiles import device  # noqa: E402
from infimed.devices.weights import read_planned  # noqa: E402
from infimed.export.export_bundle import export_bundle  # noqa: E402
from infimed.export.family_mappings import MAPPINGS, mapping_of  # noqa: E402
from infimed.export.gguf_export import export_gguf  # noqa: E402
from infimed.export.gguf_names import GgufUnsupported, TextShape  # noqa: E402
from infimed.export.gguf_write import write_text_model  # noqa: E402
from infimed.export.graph_model import read_config  # noqa: E402
from infimed.export.onnx_decoder import DecoderNumbers, GraphError  # noqa: E402
from infimed.export.parity import KL_LIMIT_NATS, check_prompts, measure, take_references  # noqa: E402
from infimed.export.probes import TEXT_KINDS, make_probes  # noqa: E402
from infimed.export.rope import RopeScaling, inverse_frequencies  # noqa: E402
from infimed.export.transformers_prompt import transformers_prompter  # noqa: E402
from infimed.runtime.families import FAMILIES  # noqa: E402
from infimed.runtime.gguf_file import GgufError, read_gguf  # noqa: E402
from infimed.runtime.levels import LEVELS as ALL_LEVELS  # noqa: E402
from infimed.runtime.llama_backend import LlamaBackend  # noqa: E402
from infimed.runtime.llama_files import check_text_model  # noqa: E402
from infimed.runtime.messages import user  # noqa: E402
from infimed.runtime.open_engine import open_engine  # noqa: E402
from infimed.runtime.prompt import Prompter  # noqa: E402
from infimed.runtime.shape import CheckpointError  # noqa: E402
from infimed.runtime.shape_check import check_shapes  # noqa: E402
from infimed.training.checkpoint import Checkpoint  # noqa: E402
from infimed.training.reference import open_reference  # noqa: E402

from ..support import Shown  # noqa: E402
from ..text_models import LLAMA3_ROPE, PLAIN_ROPE, TEXT_FAMILIES, build_text_checkpoint  # noqa: E402

StateIt = Callable[[Shown], None]
LEVELS = ("gguf-f32", "gguf-q8_0", "onnx-fp32", "onnx-int4")
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {"dtype": "bfloat16"}),
    "qwen2-tied": ("qwen2", {"tied": True, "max_shard_size": "2MB", "norm_epsilon": 1e-6}),
    "llama3": ("llama", {"dtype": "bfloat16"}),
    "llama2": ("llama", {"rope": PLAIN_ROPE, "kv_heads": 4, "tied": True, "dtype": "float16"}),
    "llama-head-dim": ("llama", {"head_dim": 32, "kv_heads": 1}),
}


@pytest.fixture(scope="module", params=["llama", pytest.param("qwen2", marks=pytest.mark.full)])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text_checkpoint(tmp_path_factory.mktemp("text") / "checkpoint", request.param, dtype="bfloat16")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Any:
    """Return the bundle of all LEVELS of a family; export itself holds each format's graph against transformers."""
    return export_bundle(checkpoint, checkpoint.parent / "bundle", LEVELS, probe_count=6, threads=1)


def changed(checkpoint: Path, folder: Path, **values: Any) -> Path:
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder


def test_every_family_has_a_mapping() -> None:
    assert sorted(MAPPINGS) == sorted(family.name for family in FAMILIES)


def test_prompts_are_those_of_transformers_token_for_token(checkpoint: Path) -> None:
    prompter = Prompter.open(checkpoint)
    probes = make_probes(12, prompter.pixel_rules, seed=2)
    assert {probe.kind for probe in probes} == set(TEXT_KINDS)
    assert check_prompts(prompter, transformers_prompter(checkpoint), probes) == 0.0


def test_a_clock_in_the_template_is_unknown_to_both_sides(checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(checkpoint, tmp_path / "clock")
    dated = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}"
    (folder / "chat_template.jinja").write_text(dated + (folder / "chat_template.jinja").read_text())
    prompter = Prompter.open(folder)
    assert check_prompts(prompter, transformers_prompter(folder), make_probes(3, None)) == 0.0
    assert "26 Jul 2024" in prompter.render([user("yes")])


def test_both_formats_pass_the_gate_and_every_level_answers(bundle: Any) -> None:
    assert [parity.level for parity in bundle.gate] == ["gguf-f32", "onnx-fp32"]
    assert all(parity.kl_mean_nats <= KL_LIMIT_NATS and parity.vision == 0.0 for parity in bundle.gate)
    asked = [user("Which imaging modality uses no ionising radiation?")]
    for name in LEVELS:
        engine = open_engine(bundle.bundle, name, threads=1)
        scores = engine.score(asked, ["CT", "ultrasound"])
        assert np.isclose(scores.probabilities().sum(), 1.0)
        assert engine.generate(asked).token_ids
        engine.close()


@pytest.mark.parametrize("name", ["gguf-q8_0+vision-f32", "onnx-int4+vision-fp16", "tensorrt-fp16+vision-fp32"])
def test_a_level_that_names_a_vision_tower_is_refused(
    name: str, checkpoint: Path, tmp_path: Path, shown: StateIt
) -> None:
    with pytest.raises(InfimedError, match=rf"models have no vision tower; ask for {name.split('+')[0]}$"):
        export_bundle(checkpoint, tmp_path / "bundle", [name], threads=1)
    assert not (tmp_path / "bundle").exists()
    format = name.split("-")[0]
    shown(Shown(family_name(checkpoint), f"every {format} level", "export", "refused", "+vision-TYPE: it has no tower"))


def family_name(checkpoint: Path) -> str:
    return Prompter.open(checkpoint).family.name


def test_a_bundle_of_a_text_only_family_holds_nothing_of_images(bundle: Any) -> None:
    manifest = bundle.bundle.manifest
    assert manifest.family in TEXT_FAMILIES and manifest.preprocessing == {}
    assert manifest.provenance["task"] == "text-generation"
    assert not [path for path in manifest.files if "vision" in path or "mmproj" in path or "preprocessor" in path]


def test_both_the_checkpoint_and_its_bundle_can_be_planned(checkpoint: Path, bundle: Any) -> None:
    for folder in (checkpoint, bundle.bundle.folder):
        planned = read_planned(folder)
        assert planned.shape.vision is None and planned.max_pixels == 0
        fits = plan(planned, device("orin-nano-8gb"), use_of(4096))
        assert fits and all(fit.fits and fit.memory.vision_weights_bytes == 0 for fit in fits)
        assert all(fit.memory.vision_activations_bytes == 0 for fit in fits if fit.level.startswith("gguf"))


def use_of(tokens: int) -> Any:
    from infimed.devices.memory import Use

    return Use(context_tokens=tokens)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_precision_equals_transformers_in_every_layout(layout: str, tmp_path: Path) -> None:
    family, options = LAYOUTS[layout]
    folder = build_text_checkpoint(tmp_path / "checkpoint", family, seed=3, **options)
    prompter = Prompter.open(folder)
    references = take_references(open_reference(folder), make_probes(3, None, long_tokens=1200))
    write_text_model(Checkpoint.open(folder), tmp_path / "text.gguf", "F32")
    backend = LlamaBackend(tmp_path / "text.gguf", None, threads=1, context_tokens=4096, precise=True)
    assert backend._norms is None  # llama.cpp reads the norms' epsilon of these families itself
    engine = decoder(backend, prompter)
    assert measure(engine, references).kl_mean_nats <= KL_LIMIT_NATS
    engine.close()


def decoder(backend: Any, prompter: Prompter) -> Any:
    from infimed.runtime.decoding import Decoder

    return Decoder(backend, prompter, "text")


def test_small_embeddings_keep_the_norms_epsilon(checkpoint: Path, tmp_path: Path) -> None:
    """With an epsilon of 0 this would be a KL far beyond the gate's."""
    from safetensors.torch import load_file, save_file

    folder = changed(checkpoint, tmp_path / "small")
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 0.02
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    references = take_references(open_reference(folder), make_probes(3, None, long_tokens=50))
    kl = {}
    for epsilon in (1e-5, 1e-9):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": epsilon}))
        path = tmp_path / f"{epsilon}.gguf"
        write_text_model(Checkpoint.open(folder), path, "F32")
        engine = decoder(
            LlamaBackend(path, None, threads=1, context_tokens=1024, precise=True), Prompter.open(checkpoint)
        )
        kl[epsilon] = measure(engine, references).kl_mean_nats
        engine.close()
    assert kl[1e-5] <= KL_LIMIT_NATS < kl[1e-9]


def test_without_their_new_order_the_rows_of_llamas_heads_fail_the_gate(tmp_path: Path) -> None:
    folder = build_text_checkpoint(tmp_path / "checkpoint", "llama")
    references = take_references(open_reference(folder), make_probes(3, None, long_tokens=50))
    wrong = changed(folder, tmp_path / "wrong", rope_parameters=PLAIN_ROPE)
    write_text_model(Checkpoint.open(wrong), tmp_path / "text.gguf", "F32")
    backend = LlamaBackend(tmp_path / "text.gguf", None, threads=1, context_tokens=1024, precise=True)
    assert measure(decoder(backend, Prompter.open(folder)), references).kl_mean_nats > 100 * KL_LIMIT_NATS


def test_slowed_turns_are_those_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    for head_dim, rope in ((64, LLAMA3_ROPE), (128, {**LLAMA3_ROPE, "factor": 32.0})):
        config = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, rope_parameters=dict(rope))
        scaling = RopeScaling.of(rope)
        assert scaling is not None
        found = scaling.frequencies(rope["rope_theta"], head_dim)
        assert torch.equal(found, LlamaRotaryEmbedding(config).inv_freq)
        divided = inverse_frequencies(rope["rope_theta"], head_dim) / torch.tensor(
            scaling.divisors(rope["rope_theta"], head_dim)
        )
        assert torch.allclose(found, divided, rtol=3e-7)
        divisors = set(scaling.divisors(rope["rope_theta"], head_dim))
        assert {1.0, rope["factor"]} < divisors  # of all three kinds


@pytest.mark.parametrize(
    ("family", "values", "what"),
    [
        ("llama", {"attention_bias": True}, "attention_bias True"),
        ("llama", {"mlp_bias": True}, "mlp_bias True"),
        ("llama", {"rope_parameters": {**LLAMA3_ROPE, "rope_type": "yarn"}}, "yarn|rope_type"),
        ("llama", {"rope_parameters": {k: v for k, v in LLAMA3_ROPE.items() if k != "factor"}}, "factor"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("qwen2", {"rope_parameters": dict(LLAMA3_ROPE)}, "llama3|rope_type"),
        ("qwen2", {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}, "sliding"),
    ],
)
def test_what_no_graph_computes_is_refused_by_name(
    family: str, values: dict[str, Any], what: str, tmp_path: Path, shown: StateIt
) -> None:
    folder = build_text_checkpoint(tmp_path / "checkpoint", family, hidden=64, ffn=64, layers=2)
    wrong = changed(folder, tmp_path / "wrong", **values)
    with pytest.raises(GgufUnsupported, match=what):
        mapping_of(Checkpoint.open(wrong).config).shape(Checkpoint.open(wrong).config)
    with pytest.raises((GraphError, CheckpointError), match=what):
        DecoderNumbers.of(read_config(wrong))
    for level in ("gguf-f16", "onnx-fp32", "tensorrt-fp16"):
        with pytest.raises(InfimedError, match=what):
            export_bundle(wrong, tmp_path / "bundle", [level], threads=1)
    assert not (tmp_path / "bundle").exists()
    asked = ", ".join(sorted(values))
    shown(Shown(family, "every level", "export", "refused", f"config.json: {asked} that its graph does not compute"))


def test_heads_of_another_width_are_for_llama_alone_in_gguf(tmp_path: Path, shown: StateIt) -> None:
    folder = build_text_checkpoint(tmp_path / "checkpoint", "qwen2", head_dim=32)
    with pytest.raises(GgufUnsupported, match=r"4 heads of 32 values in 256.*use an ONNX level"):
        write_text_model(Checkpoint.open(folder), tmp_path / "text.gguf", "F16")
    for row in ALL_LEVELS:
        if row.format == "gguf" and not row.calibrated:
            with pytest.raises(GgufUnsupported, match="use an ONNX level"):
                export_bundle(folder, tmp_path / "bundle", [row.name], threads=1)
    assert not (tmp_path / "bundle").exists()
    assert DecoderNumbers.of(read_config(folder)).head_dim == 32
    shown(Shown("qwen2", "every gguf level", "export", "refused", "head_dim other than hidden / heads; ONNX takes it"))


def test_the_flat_layout_of_transformers_4_gives_the_same_numbers(tmp_path: Path) -> None:
    folder = build_text_checkpoint(tmp_path / "checkpoint", "llama")
    config = json.loads((folder / "config.json").read_text())
    rope = config["rope_parameters"]
    older = {key: value for key, value in config.items() if key != "rope_parameters"}
    older |= {"rope_theta": rope["rope_theta"], "rope_scaling": {k: v for k, v in rope.items() if k != "rope_theta"}}
    assert TextShape.of(older) == TextShape.of(config)
    plain = {**older, "rope_scaling": None}
    del plain["rope_theta"], plain["num_key_value_heads"], plain["head_dim"]
    shape = TextShape.of(plain)
    assert (shape.rope_base, shape.kv_heads, shape.head_dim, shape.scaling) == (10000.0, 4, 64, None)


def test_a_tokenizer_of_sentencepiece_is_refused_with_what_works(
    checkpoint: Path, tmp_path: Path, shown: StateIt
) -> None:
    folder = changed(checkpoint, tmp_path / "pieces")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["byte_fallback"] = True
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for row in ALL_LEVELS:
        if row.format == "gguf" and not row.calibrated:
            with pytest.raises(GgufUnsupported, match=r"sentencepiece.*use an ONNX level"):
                export_gguf(folder, tmp_path / "out", [row.name])
    assert not (tmp_path / "out").exists()
    note = "a tokenizer of sentencepiece, such as Llama 2's own; ONNX takes it"
    shown(Shown(family_name(checkpoint), "every gguf level", "export", "refused", note))


def test_a_missing_bias_is_named_before_anything_is_built(tmp_path: Path) -> None:
    folder = build_text_checkpoint(tmp_path / "checkpoint", "llama")
    wrong = changed(folder, tmp_path / "wrong", architectures=["Qwen2ForCausalLM"])
    with pytest.raises(CheckpointError, match=r"q_proj\.bias is missing"):
        check_shapes(wrong)
    with pytest.raises(InfimedError):
        open_reference(wrong)


def test_a_file_whose_rotary_width_is_not_its_heads_is_refused(tmp_path: Path) -> None:
    folder = build_text_checkpoint(tmp_path / "checkpoint", "llama", hidden=64, ffn=64)
    write_text_model(Checkpoint.open(folder), tmp_path / "text.gguf", "F16")
    header = read_gguf(tmp_path / "text.gguf")
    assert check_text_model(header).queries == 64
    for key, value, what in (
        ("llama.rope.dimension_count", 8, "dimension_count is 8, 16 is needed"),
        ("llama.vocab_size", 3, "vocab_size is 3"),
        ("llama.attention.value_length", 8, "the same is needed"),
        ("general.architecture", "gpt2", "one of 'qwen2vl'"),
        ("llama.expert_count", 8, "llama.expert_count is nothing that such a model's header says"),
    ):
        from dataclasses import replace

        with pytest.raises(GgufError, match=what):
            check_text_model(replace(header, values={**header.values, key: value}))


def test_a_tokenizer_of_sentencepiece_works_where_onnx_does(tmp_path: Path, shown: StateIt) -> None:
    """As the hub has Llama 2's: every space a piece, unknown characters as bytes, and no pre-tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    folder = build_text_checkpoint(tmp_path / "checkpoint", "llama", rope=PLAIN_ROPE)
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        *"abcdefghijklmnopqrstuvwxyz",
    ]
    merges = [("\u2581", "t"), ("h", "e"), ("\u2581t", "he")]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True, ignore_merges=False)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **named}))
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    )
    exported = export_bundle(folder, tmp_path / "bundle", ["onnx-int4"], probe_count=6, threads=1)
    assert exported.gate[0].kl_mean_nats <= KL_LIMIT_NATS
    engine = open_engine(exported.bundle, "onnx-int4", threads=1)
    assert engine.generate([user("the the")]).token_ids and engine.score([user("the")], ["a", "b"]).choice() in "ab"
    engine.close()
    shown(Shown("llama", "onnx-int4", "onnxruntime", "executed", "with a tokenizer of sentencepiece, as Llama 2's"))
    with pytest.raises(GgufUnsupported, match="sentencepiece"):
        export_bundle(folder, tmp_path / "other", ["gguf-q8_0"], probe_count=6, threads=1)
