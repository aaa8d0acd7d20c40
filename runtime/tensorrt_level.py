"""Builds a level's engines by its recipe and keeps them with their records; what is built already is not built again.

Knows the order of the steps; how an engine is built is in tensorrt_build.py, what may be loaded in tensorrt_plan.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .bundle import Bundle
from .events import Event, OnEvent, ignore
from .files import canonical_json, sha256_file
from .levels import level as level_row
from .tensorrt_build import TensorrtError, build, find_tensorrt
from .tensorrt_plan import PlanRecord, PlanRefused, keep_record, plan_path, plans_folder, read_plan, this_machine
from .tensorrt_recipe import RECIPE, Recipe


@dataclass(frozen=True)
class Built:
    """One engine. fresh: built now; otherwise it was there. size_bytes: of the plan."""

    network: str
    plan: Path
    size_bytes: int
    compute_capability: str
    library: str
    version: str
    fresh: bool


def build_level(
    bundle: Bundle,
    level: str,
    *,
    folder: Path | None = None,
    compute_capability: str | None = None,
    weight_streaming: bool = False,
    trt: ModuleType | None = None,
    on_event: OnEvent = ignore,
) -> Iterator[Built]:
    """Yield each engine of a level of a verified bundle as it is ready.

    folder: where plans are kept, plans_folder() by default. compute_capability: of another GPU, as for `build`. Raises
    TensorrtError, RecipeError, OnnxFileError or MissingExtra.
    """
    entry = bundle.entry(level)
    if level_row(level).format != "tensorrt":
        raise TensorrtError(f"level {level} is run as it is; only TensorRT levels are built")
    trt = trt or find_tensorrt(compute_capability is not None)
    folder = folder or plans_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    recipe = Recipe.read(bundle.folder / entry.name / RECIPE)
    for network in recipe.networks:
        recipe.check_files(bundle.folder, network)
        record = expected_record(bundle.folder, recipe, network, trt, compute_capability, weight_streaming)
        plan = plan_path(folder, record)
        stage = f"build {level} {network}"
        try:
            read_plan(folder, record)
            fresh = False
        except PlanRefused:
            on_event(Event(stage, 0, 1, "engines"))
            plan.parent.mkdir(exist_ok=True)
            build(
                bundle.folder / recipe.networks[network].onnx,
                recipe.networks[network].profiles,
                plan,
                workspace_bytes=recipe.workspace_bytes,
                compute_capability=compute_capability,
                weight_streaming=weight_streaming,
                trt=trt,
            )
            keep_record(folder, record)
            fresh = True
        on_event(Event(stage, 1, 1, "engines", "" if fresh else "built already"))
        size_bytes = plan.stat().st_size
        yield Built(network, plan, size_bytes, record.compute_capability, record.library, record.version, fresh)


def expected_record(
    bundle_folder: Path,
    recipe: Recipe,
    network: str,
    trt: ModuleType,
    compute_capability: str | None = None,
    weight_streaming: bool = False,
) -> PlanRecord:
    """Return what the plan of a network must be on this machine, or for a GPU by name."""
    machine = this_machine()
    files = recipe.networks[network].files
    return PlanRecord(
        level=recipe.level,
        network=network,
        recipe_sha256=sha256_file(bundle_folder / recipe.level / RECIPE),
        onnx_sha256=files[recipe.networks[network].onnx],
        files_sha256=hashlib.sha256(canonical_json(dict(files))).hexdigest(),
        library=trt.__name__,
        version=str(trt.__version__),
        compute_capability=compute_capability or machine.compute_capability or "",
        driver="" if compute_capability else machine.driver or "",
        weight_streaming="yes" if weight_streaming else "no",
        plan_sha256="",
    )
