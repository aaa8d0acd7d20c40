"""Are our decoder graphs as right and as fast as optimum-onnx's, on Qwen2 and Llama?

optimum-onnx pins an older transformers, so it lives in an environment of its own, made once by venv and pip in the
cache of peers.py. Both export the same random checkpoint; both graphs run in this environment's onnxruntime, ours
through the engine, theirs from one OrtValue to the next, as their own library drives it. Numbers are held against torch
in float32: a time beside a graph that differs means nothing, so then the run fails. Ratios are of rounds that follow
each other. Ours computes the logits it is asked for; theirs has no way to ask, so it is compared with both.

    python benchmarks/optimum_onnx_peer.py [--small] [--threads 1] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infimed.benchmarks.anon_memory import Metered, metered
from infimed.benchmarks.peers import cache_folder
from infimed.runtime.onnx_backend import OnnxBackend

PEER = "optimum-onnx==0.1.0"
LEVEL = "onnx-fp32"
PROMPT, REPLY = 256, 32
LIMIT = 1e-4
"""Largest difference of a logit from torch's, as a share of the largest logit: two orders above what was ever seen."""
SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 640},
    "100M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
             "num_key_value_heads": 4, "vocab_size": 16_000},
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
_EXPORT = """
import sys
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="text-generation-with-past", do_validation=False, local_files_only=True)
"""
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Outcome:
    """One checkpoint through both. prompt, reply: largest difference from torch as a share of the largest logit.

    speed: what was timed -> ours / theirs of each round. exports: ours and theirs, each alone in its process.
    """

    model: str
    parameters: int
    prompt: tuple[float, float]
    reply: tuple[float, float]
    speed: dict[str, list[float]]
    exports: tuple[Metered, Metered]


class Theirs:
    """Their graph with its cache: keys and values go from an output to the next input without a copy."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._value = onnxruntime.OrtValue.ortvalue_from_numpy
        self._inputs = [port.name for port in self._session.get_inputs()]
        self._outputs = [port.name for port in self._session.get_outputs()]
        (shape,) = {tuple(p.shape[1::2]) for p in self._session.get_inputs() if p.name.startswith("past_key_values.")}
        self._empty = np.zeros((1, shape[0], 0, shape[1]), np.float32)
        self.clear()

    def clear(self) -> None:
        """Forget the sequence."""
        self._tokens = 0
        past = [name for name in self._inputs if name.startswith("past_key_values.")]
        self._past = {name: self._value(self._empty) for name in past}

    def extend(self, ids: NDArray[np.int64]) -> Logits:
        """Append tokens; return the logits of all of them: (tokens, vocabulary)."""
        total = self._tokens + len(ids)
        feeds = {
            "input_ids": ids[None],
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(self._tokens, total)[None],
        }
        given = {name: self._value(value) for name, value in feeds.items() if name in self._inputs}
        made = dict(zip(self._outputs, self._session.run_with_ort_values(None, {**given, **self._past}), strict=True))
        self._past = {name: made[name.replace("past_key_values.", "present.")] for name in self._past}
        self._tokens = total
        logits: Logits = made["logits"].numpy()[0]
        return logits


class Ours:
    """Our graph in our engine's backend."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._backend = OnnxBackend(
            bundle / LEVEL, bundle / "shared", threads=threads, context_tokens=PROMPT + REPLY + 1
        )
        self.clear()

    def clear(self) -> None:
        """Forget the sequence."""
        self._backend.truncate(0, 0)
        self._tokens = 0

    def extend(self, ids: NDArray[np.int64], want: int | None = None) -> Logits:
        """Append tokens; return the logits of the last `want` of them, or of all."""
        places = np.arange(self._tokens, self._tokens + len(ids))
        self._tokens += len(ids)
        return self._backend.extend(ids, np.stack([places] * 3), (), len(ids) if want is None else want)


def peer_python() -> Path:
    """Return the interpreter of the peer's environment, made on the first call. SystemExit where pip cannot."""
    folder = cache_folder() / PEER.replace("==", "-")
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = [PEER, *(f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "onnxruntime", "onnx"))]
    wanted = [name.split("+")[0] for name in wanted]  # a build's own mark is no part of what pip is asked for
    if not done.is_file() or done.read_text("utf-8").split() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)]).returncode
        if made or subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted]).returncode:
            raise SystemExit(f"pip cannot install {PEER}; this benchmark needs a package registry")
        done.write_text("\n".join(wanted), "utf-8")
    return python


def write_checkpoint(folder: Path, family: str, sizes: dict[str, int]) -> int:
    """Write a random checkpoint whose config.json both versions of transformers read; return its parameters."""
    import torch
    import transformers

    torch.manual_seed(0)
    rope = {"rope_theta": 500_000.0, **(LLAMA3 if family == "Llama" else {"rope_type": "default"})}
    config = getattr(transformers, f"{family}Config")(
        **sizes, max_position_embeddings=8192, rope_parameters=rope, tie_word_embeddings=False,
        architectures=[f"{family}ForCausalLM"],
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith(".bias"):  # transformers begins with zeros, which would hide a bias that is lost
                values.normal_(0, 0.1)
    model.save_pretrained(folder)
    stated = json.loads((folder / "config.json").read_text("utf-8"))
    theta = stated.pop("rope_parameters")["rope_theta"]  # the older one would read nothing of it, and say nothing
    stated |= {"rope_theta": theta, "rope_scaling": LLAMA3 if family == "Llama" else None}
    (folder / "config.json").write_text(json.dumps(stated), "utf-8")
    return sum(values.numel() for values in model.parameters())


def torch_logits(folder: Path, ids: NDArray[np.int64]) -> Logits:
    """Return torch's logits of every token in float32: (tokens, vocabulary)."""
    import torch

    from infimed.training.checkpoint import Checkpoint
    from infimed.training.torch_backend import load_model

    model = load_model(Checkpoint.open(folder))
    with torch.inference_mode():
        found: Logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
    return found


def run(folder: Path, family: str, size: str, threads: int, rounds: int) -> Outcome:
    """Export a checkpoint by both, hold both against torch, and time them in turns."""
    checkpoint, ours_at, theirs_at = folder / "checkpoint", folder / "ours", folder / "theirs"
    parameters = write_checkpoint(checkpoint, family, SIZES[size])
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    exports = (
        _must(metered([sys.executable, __file__, "--export", str(checkpoint), str(ours_at)])),
        _must(metered([str(peer_python()), "-c", _EXPORT, str(checkpoint), str(theirs_at)], environment=offline)),
    )
    shutil.copyfile(checkpoint / "config.json", ours_at / "shared" / "config.json")
    ids = np.random.default_rng(1).integers(0, SIZES[size]["vocab_size"], PROMPT + REPLY)
    wanted = torch_logits(checkpoint, ids)
    ours, theirs = Ours(ours_at, threads), Theirs(theirs_at, threads)
    prompt, reply = [], []
    for one in (ours, theirs):
        apart = np.abs(one.extend(ids[:PROMPT]) - wanted[:PROMPT]).max()
        steps = np.concatenate([one.extend(ids[at : at + 1]) for at in range(PROMPT, len(ids))])
        prompt.append(float(apart / np.abs(wanted).max()))
        reply.append(float(np.abs(steps - wanted[PROMPT:]).max() / np.abs(wanted).max()))
    speed = timed(ours, theirs, ids, rounds)
    return Outcome(f"{family} {size}", parameters, (prompt[0], prompt[1]), (reply[0], reply[1]), speed, exports)


def timed(ours: Ours, theirs: Theirs, ids: NDArray[np.int64], rounds: int) -> dict[str, list[float]]:
    """Return ours / theirs of each round; a round's measurements follow each other, and the first to go changes."""

    def once(one: Ours | Theirs, work: Callable[[], object]) -> float:
        one.clear()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def replying(one: Ours | Theirs) -> float:
        one.clear()
        one.extend(ids[:PROMPT])
        start = time.perf_counter()
        for at in range(PROMPT, len(ids)):
            one.extend(ids[at : at + 1])
        return time.perf_counter() - start

    found: dict[str, list[float]] = {"prompt, last row": [], "prompt, all rows": [], "reply": []}
    for number in range(rounds):
        works: list[tuple[str, Callable[[], float]]] = [
            ("last", lambda: once(ours, lambda: ours.extend(ids[:PROMPT], 1))),
            ("theirs", lambda: once(theirs, lambda: theirs.extend(ids[:PROMPT]))),
            ("all", lambda: once(ours, lambda: ours.extend(ids[:PROMPT]))),
            ("our reply", lambda: replying(ours)),
            ("their reply", lambda: replying(theirs)),
        ]
        took = {name: work() for name, work in (works if number % 2 else works[::-1])}
        found["prompt, last row"].append(took["last"] / took["theirs"])
        found["prompt, all rows"].append(took["all"] / took["theirs"])
        found["reply"].append(took["our reply"] / took["their reply"])
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as Markdown; ratios are ours / theirs, the median and in brackets the quartiles."""
    speeds = list(outcomes[0].speed)
    lines = [
        "| model | parameters | prompt: ours, theirs | reply: ours, theirs | "
        + " | ".join(f"time, {name}" for name in speeds) + " | time, export | export GB: ours, theirs |",
        "|---" * (6 + len(speeds)) + "|",
    ]  # fmt: skip
    for one in outcomes:
        cells = [one.model, f"{one.parameters / 1e6:.1f} M"]
        cells += [f"{ours:.1e}, {theirs:.1e}" for ours, theirs in (one.prompt, one.reply)]
        for name in speeds:
            low, middle, high = np.quantile(one.speed[name], (0.25, 0.5, 0.75))
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        ours, theirs = one.exports
        cells += [f"{ours.wall_s / theirs.wall_s:.2f}", f"{ours.anon_gb:.2f}, {theirs.anon_gb:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def wrong(outcome: Outcome) -> list[str]:
    """Return what of an outcome is not torch's."""
    found = {"our prompt": outcome.prompt[0], "their prompt": outcome.prompt[1]}
    found |= {"our reply": outcome.reply[0], "their reply": outcome.reply[1]}
    return [f"{outcome.model}: {name} is {apart:.1e} off" for name, apart in found.items() if not apart <= LIMIT]


def _must(found: Metered) -> Metered:
    if found.code:
        raise SystemExit(f"an export ended with {found.code}:\n{found.errors}")
    return found


def main() -> int:
    """Print the table; return 1 where a graph's logits are not torch's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny models, three rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    parser.add_argument("--export", type=Path, nargs=2, metavar=("CHECKPOINT", "BUNDLE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.export:
        from infimed.export.onnx_export import export_onnx

        checkpoint, bundle = given.export
        export_onnx(checkpoint, bundle, [LEVEL], threads=given.threads)
        return 0
    from infimed.training.torch_backend import use_threads

    use_threads(given.threads)
    outcomes = []
    for size in ("tiny",) if given.small else SIZES:
        for family in ("Qwen2", "Llama"):
            with tempfile.TemporaryDirectory(prefix="infimed-peer-") as folder:
                outcomes.append(run(Path(folder), family, size, given.threads, 3 if given.small else given.rounds))
    print(table(outcomes))
    if given.json:
        rows: list[dict[str, Any]] = [
            {"model": o.model, "prompt": o.prompt, "reply": o.reply, "ours / theirs": o.speed,
             "export s": [e.wall_s for e in o.exports], "export bytes": [e.anon_bytes for e in o.exports]}
            for o in outcomes
        ]  # fmt: skip
        given.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    failed = [line for outcome in outcomes for line in wrong(outcome)]
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
