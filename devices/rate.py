"""How fast a level decodes: what memory can read, times the share of it that the named engine was seen to reach.

Every share stands with the figures it comes from; where none exist there is no prediction. Knows no memory need.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.levels import QuantLevel
from .profiles import DeviceProfile


@dataclass(frozen=True)
class Share:
    """The lowest share of a device's bandwidth that an engine was seen to reach while decoding.

    backend: "cuda" counts against the peak bandwidth, "cpu" against what the processor reads. kinds: of device.
    storages: of the level, empty for all of the engine's. basis: where the share comes from.
    """

    engine: str
    backend: str
    kinds: tuple[str, ...]
    share: float
    basis: str
    storages: tuple[str, ...] = ()


# The most particular row first. A share of one engine says nothing of another.
SHARES: tuple[Share, ...] = (
    Share("llama.cpp", "cuda", ("jetson",), 0.40, "a 2B model in Q4 reached 41 % of Orin Nano Super's peak"),
    Share("llama.cpp", "cpu", ("cpu",), 0.66, "a 3B model in Q4_K_M on x86-64 reached 67-77 %", ("Q4_K_M",)),
    Share("llama.cpp", "cpu", ("cpu",), 0.76, "several processors reached 76-99 % of what they read"),
    Share("onnxruntime", "cpu", ("cpu",), 0.75, "a 0.5B model in fp32 on x86-64 reached 95 %", ("fp32",)),
    Share(
        "onnxruntime",
        "cpu",
        ("cpu",),
        0.65,
        "a 0.5B model in int8 with int8 activations on x86-64 reached 75 %",
        ("int8-acc4",),
    ),
    Share("onnxruntime", "cpu", ("cpu",), 0.35, "a 0.5B model in int4 on x86-64 reached 38 %", ("int4",)),
)

# The highest rate published for any of the devices; with smaller models other costs than memory decide.
HIGHEST_PUBLISHED_TOKENS_PER_S = 150.0

ENGINES = {"gguf": "llama.cpp", "onnx": "onnxruntime"}


@dataclass(frozen=True)
class Rate:
    """A predicted decode rate. tokens_per_s: None where nothing supports a figure. basis: why."""

    tokens_per_s: float | None
    bound_tokens_per_s: float
    basis: str


def backend_for(device: DeviceProfile, row: QuantLevel) -> str:
    """Return where the level's engine computes on this device: the GPU only where its own wheel or build can use it."""
    # The published onnxruntime wheels for aarch64 serve neither Orin nor Thor: on a Jetson it runs on the processor.
    if row.format == "onnx" and device.kind == "jetson":
        return "cpu"
    return device.backend if device.backend in row.runs_on else "cpu"


def decode_rate(device: DeviceProfile, row: QuantLevel, read_per_token_bytes: float) -> Rate:
    """Predict tokens per second while decoding.

    read_per_token_bytes: weights and KV cache that one token makes the device read.
    """
    engine, backend = ENGINES[row.format], backend_for(device, row)
    bandwidth = device.bandwidth_bytes_per_s if backend == "cuda" else device.read_bytes_per_s()
    bound = bandwidth / read_per_token_bytes
    for share in SHARES:
        fits = share.engine == engine and share.backend == backend and device.kind in share.kinds
        if fits and (not share.storages or row.storage in share.storages):
            rate = share.share * bound
            if rate <= HIGHEST_PUBLISHED_TOKENS_PER_S:
                return Rate(rate, bound, share.basis)
            capped = f"capped at {HIGHEST_PUBLISHED_TOKENS_PER_S:.0f}, the highest rate published for any device here"
            return Rate(HIGHEST_PUBLISHED_TOKENS_PER_S, bound, f"{share.basis}; {capped}")
    place = "GPU" if backend == "cuda" else "processor"
    return Rate(None, bound, f"nothing published or measured says how {engine} decodes on this {place}")
