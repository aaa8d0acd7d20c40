"""Exports the embedded model with the full environment and lets the edge's Python 3.10 answer with the same bundle.

The edge has no torch, so its tests cannot build a model; this is its engines' test on real levels. Both environments
must verify the bundle and give the same answer with nearly the same likelihoods. Usage: edge.py FULL_VENV EDGE_VENV.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
LEVELS = {"llama_cpp": ["gguf-q8_0", "gguf-q4_k_m"], "onnxruntime": ["onnx-int8-acc4", "onnx-int4"]}
QUESTION = ["What is the modality?", "--choice", "CT", "--choice", "MR", "--choice", "ultrasound", "--json"]
# Two releases of onnxruntime may sum in another order; a wrong pixel or token moves these by far more.
TOLERANCE_NATS = 0.02


def infimed(venv: str, *arguments: str) -> str:
    """Run the command line of an environment and return what it printed."""
    done = subprocess.run([f"{venv}/bin/infimed", *arguments], capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"{venv}: infimed {' '.join(arguments[:2])} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Export, answer twice, compare."""
    full, edge = sys.argv[1:3]
    levels = [level for module, names in LEVELS.items() if importlib.util.find_spec(module) for level in names]
    with tempfile.TemporaryDirectory() as place:
        bundle = str(Path(place) / "bundle")
        asked = [part for level in levels for part in ("--level", level)]
        infimed(full, "export", str(HOUSE / "training" / "base"), "--out", bundle, "--probes", "6", *asked)
        verified = [json.loads(infimed(venv, "verify", bundle, "--json")) for venv in (full, edge)]
        if verified[0] != verified[1]:
            raise SystemExit(f"the digests differ: {verified}")
        image = str(sorted(Path(bundle, "probes").glob("*.png"))[0])
        for level in levels:
            call = ["run", bundle, "--level", level, "--image", image, *QUESTION]
            here, there = (json.loads(infimed(venv, *call)) for venv in (full, edge))
            pairs = zip(here["options"], there["options"], strict=True)
            apart = max(abs(a["logprob_nats"] - b["logprob_nats"]) for a, b in pairs)
            print(f"{level:14} {here['answer']} | {there['answer']}, at most {apart:.1e} nats apart", flush=True)
            if here["answer"] != there["answer"] or apart > TOLERANCE_NATS:
                raise SystemExit(f"{level} answers differently on the edge")


if __name__ == "__main__":
    main()
