"""Changed GGUF files in the real engine: each in a process of its own, none of which may die by a signal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infimed.export.gguf_write import write_text_model, write_vision_model
from infimed.training.checkpoint import Checkpoint

from ..models import build_random_checkpoint

pytestmark = pytest.mark.full

# Forks once per case, before anything has started a thread.
CASES = """
import json, os, random, signal, struct, sys
from pathlib import Path
import numpy as np
from infimed import InfimedError
from infimed.runtime.gguf_file import read_gguf
from infimed.runtime.llama_backend import LlamaBackend
from infimed.runtime.preprocessing import Grid
from infimed.runtime.prompt import PreparedImage

text, tower, changed, seed, count = *map(Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5])

def answer(text, tower):
    try:
        backend = LlamaBackend(text, tower, threads=1, context_tokens=256)
        rgb = np.zeros((112, 112, 3), np.uint8)
        backend.encode_image(PreparedImage("", rgb, Grid(1, 8, 8), 0, 16))
        backend.extend(np.arange(3), np.tile(np.arange(3), (3, 1)), (), 3)
    except InfimedError:
        return 2
    return 0

draw = random.Random(seed)
ends = {}
for source in (text, tower):
    data = source.read_bytes()
    header = min(tensor.offset_bytes for tensor in read_gguf(source).tensors)
    for case in range(count):
        damaged = bytearray(data)
        at = draw.choice([draw.randrange(8, 900), draw.randrange(8, header), draw.randrange(header - 1800, header)])
        kind = draw.randrange(4)
        if kind == 0:
            damaged[at] = draw.randrange(256)
        elif kind == 1:
            damaged[at : at + 4] = struct.pack("<I", draw.choice([0, 1, 2, 1000, 2**31 - 1, 2**32 - 1]))
        elif kind == 2:
            damaged[at] ^= 1 << draw.randrange(8)
        else:
            damaged[at : at + 8] = struct.pack("<Q", draw.choice([0, 2**32, 2**63, 2**64 - 1]))
        changed.write_bytes(damaged)
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(answer(changed if source == text else text, changed if source == tower else tower))
        status = os.waitpid(child, 0)[1]
        end = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        ends.setdefault(f"{source.stem}: {end}", []).append(case)
print(json.dumps(ends))
"""


def test_no_changed_header_ends_the_process(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(build_random_checkpoint(tmp_path / "checkpoint", dtype="float16"))
    text, tower = tmp_path / "text.gguf", tmp_path / "tower.gguf"
    write_text_model(checkpoint, text, "F16")
    write_vision_model(checkpoint, tower, "F16")
    arguments = [str(text), str(tower), str(tmp_path / "changed.gguf"), "7", "80"]
    done = subprocess.run([sys.executable, "-c", CASES, *arguments], capture_output=True, text=True, check=True)
    ends = json.loads(done.stdout)
    assert set(ends) == {f"{name}: exit {code}" for name in ("text", "tower") for code in (0, 2)}, ends
    assert len(ends["text: exit 2"]) > 40 and len(ends["tower: exit 2"]) > 40
