"""Builds a TensorRT engine from a graph and its recipe: what a device runs, and what the tests run without one.

Written against what `tensorrt` 10.3 to 11.4 and `tensorrt_rtx` have in common. Knows no bundle and keeps no record:
tensorrt_plan.py says which plan may be loaded.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import InfimedError, MissingExtra
from .files import writing
from .onnx_file import check_onnx_file
from .tensorrt_recipe import Profile

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Where TensorRT's Python API is found; the first one that is installed is used."""
RTX_WHEELS = "tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings"
SAID_CHARACTERS = 600


class TensorrtError(InfimedError):
    """TensorRT does not read a graph, or builds no engine of it; its own words are in the message."""


def find_tensorrt(for_another_gpu: bool = False) -> ModuleType:
    """Return TensorRT's module. Raises MissingExtra, or TensorrtError where one is installed that cannot be loaded.

    for_another_gpu: TensorRT for RTX first, which alone builds for a GPU that is not there; its absence is told so.
    """
    for name in (*MODULES[1:], MODULES[0]) if for_another_gpu else MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, *MODULES):
                raise TensorrtError(f"{name} is installed but lacks {error.name}; install it again") from None
        except (ImportError, OSError) as error:
            raise TensorrtError(f"{name} cannot be loaded: {_line(str(error))}") from None
    if for_another_gpu:
        raise TensorrtError(
            f"TensorRT for RTX, which builds for a GPU that is not there, is not installed; run: pip install --no-deps "
            f"{RTX_WHEELS}"
        )
    raise MissingExtra("tensorrt", MODULES[0])


def build(
    onnx: Path,
    profiles: Sequence[Profile],
    out: Path,
    *,
    workspace_bytes: int,
    compute_capability: str | None = None,
    weight_streaming: bool = False,
    trt: ModuleType | None = None,
) -> None:
    """Build a strongly typed engine of `onnx` for `profiles` and write its plan to `out`.

    workspace_bytes: what the builder may plan for. compute_capability: such as "8.6", for another GPU than this
    machine's, which TensorRT for RTX can do without any GPU; None: for this machine's. weight_streaming: the engine may
    keep weights in host memory. Raises OnnxFileError before TensorRT sees a graph that reaches outside its folder;
    TensorrtError with what the parser or the builder said.
    """
    check_onnx_file(onnx)
    trt = trt or find_tensorrt(compute_capability is not None)
    told = f"TensorRT {trt.__version__}"
    listener = _listener(trt)
    listener.said.clear()
    builder = _called(listener, f"{told} makes no builder here", lambda: trt.Builder(listener))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, onnx, listener)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)  # what the graph calls float32 is computed so
    if weight_streaming:
        config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
    if compute_capability is not None:
        _aim(trt, config, compute_capability)
    for profile in profiles:
        _add_profile(builder, network, config, profile, onnx.name, listener)
    failed = f"{told} builds no engine of {onnx.name}"
    plan = _called(listener, failed, lambda: builder.build_serialized_network(network, config))
    with writing(out) as draft:
        draft.write_bytes(memoryview(plan))


def _parse(trt: ModuleType, network: Any, onnx: Path, listener: Any) -> None:
    parser = trt.OnnxParser(network, listener)
    if parser.parse_from_file(str(onnx)):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told = [f"node {error.node()}: {error.desc()}" for error in errors[:2]]
    raise TensorrtError(f"TensorRT {trt.__version__} does not read {onnx.name}: {_joined(told or listener.said)}")


def _aim(trt: ModuleType, config: Any, compute_capability: str) -> None:
    """Let the engine be for one compute capability, where this library can build for a named one."""
    kinds = getattr(trt, "ComputeCapability", None)
    wanted = getattr(kinds, f"SM{compute_capability.replace('.', '')}", None)
    if wanted is None:
        known = [name for name in dir(kinds) if name.startswith("SM")]
        raise TensorrtError(
            f"{trt.__name__} {trt.__version__} cannot build for compute capability {compute_capability} (it can for "
            f"{', '.join(known) or 'none by name'}); build on the device itself"
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(wanted, 0)


def _add_profile(builder: Any, network: Any, config: Any, profile: Profile, name: str, listener: Any) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if strange := sorted({port.name for port in inputs} ^ set(profile.shapes)):
        raise TensorrtError(f"profile {profile.name} and {name} differ in input {strange[0]}; export the level again")
    made = builder.create_optimization_profile()
    for port in inputs:
        if port.is_shape_tensor:
            raise TensorrtError(f"TensorRT takes {port.name} of {name} for a shape; this is a fault of infimed")
        made.set_shape(port.name, *profile.shapes[port.name])
    if config.add_optimization_profile(made) < 0:
        raise TensorrtError(f"TensorRT refuses profile {profile.name} of {name}: {_joined(listener.said)}")


def _called(listener: Any, failed: str, call: Callable[[], Any]) -> Any:
    """Return what a call gives; where it gives nothing or raises, say so with what TensorRT said."""
    try:
        made = call()
    except (RuntimeError, TypeError) as error:  # pybind11's words for a constructor that returned nothing
        raise TensorrtError(f"{failed}: {_joined([*listener.said, str(error)])}") from None
    if made is None:
        raise TensorrtError(f"{failed}: {_joined(listener.said)}")
    return made


@functools.cache
def _listener(trt: ModuleType) -> Any:
    """Return the process's one logger, which keeps errors in `said`: TensorRT goes on with the first it is given."""

    class Listener(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.said.append(text)

    return Listener()


def _joined(said: Sequence[str]) -> str:
    """Return what was said in one line, each once; complaints of a missing GPU, which building can do without, last."""
    told = sorted(dict.fromkeys(said), key=lambda text: "cudaError" in text)
    return _line("; ".join(told)) if told else "it said nothing"


def _line(text: str) -> str:
    return " ".join(text.split())[:SAID_CHARACTERS]
