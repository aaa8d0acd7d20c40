"""Do all benchmarks still run? Each file of this folder in small, one after the other; `./dev bench` calls it.

What a small run prints shows that the benchmark works; for its answer run the file itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# What makes each benchmark small; a file without a row is refused, so that none is forgotten.
SMALL: dict[str, tuple[str, ...]] = {
    "anon_memory": ("--check",),
    "checkpoint_3b": ("--small",),
    "calibration_kl": ("--quick", "--images", "20", "--rows", "20", "--draws", "500", "--halves", "1"),
    "drift_error_rates": ("--small",),
    "drift_risks": ("--draws", "50"),
    "evaluate_speed": ("--images", "3", "--levels", "gguf-f16", "gguf-q4_k_m", "--harness", "--text-rows", "3"),
    "export_scale": ("--small", "--steps", "merge,b,d", "--genai-layers", "0"),
    "extraction_agreement": (),
    "gptq_kl": ("--images", "20", "--rows", "12", "--texts", "6", "--draws", "200"),
    "harness_peer": ("--small",),
    "help_time": ("--quick",),
    "kernel_bounds": ("--models", "random-0", "--levels", "gguf-q8_0", "onnx-int4", "--probes", "3"),
    "level_kl": ("--levels", "gguf-q4_k_m", "onnx-int4", "--probes", "6", "--images", "5", "--draws", "200"),
    "near_duplicates": ("--phantoms", "60", "--changed", "20"),
    "rationale_agreement": ("tests/evaluation/rationales.jsonl",),
    "onnx_matmul": ("--repeat", "3", "--levels", "onnx-int4", "onnx-int8-dynamic", "tensorrt-int4"),
    "optimum_onnx_peer": ("--small",),
    "peers": ("--llama-cpp-only",),
    "phantom_thumbnails": ("--images", "600"),
    "planned_memory": ("--quick",),
    "probe_error_rates": ("--draws", "20"),
    "run_scale": ("--small",),
    "scale_table": (),
    "weight_errors": ("--rows", "32", "--types", "Q4_K", "Q8_0", "int4-block64-symmetric"),
}


def main() -> int:
    """Run the named benchmarks, or all; return 0 if every one ended well, 1 if one failed, 2 for an unknown name."""
    found = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.stem != Path(__file__).stem}
    names = sys.argv[1:] or list(found)
    if unknown := [name for name in names if name not in found]:
        print(f"no benchmark is called {unknown[0]}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    if missing := [name for name in names if name not in SMALL]:
        print(f"benchmarks/run_all.py has no row for {missing[0]}: say in SMALL what makes it small", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        print(f"\n== {name}", flush=True)
        start = time.perf_counter()
        if subprocess.run([sys.executable, str(found[name]), *SMALL[name]]).returncode:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - start:.1f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
