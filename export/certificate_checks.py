"""What is checked of a level before it answers: pixels, tokens, positions, the headers of its files, and its weights.

The first three are held against the record taken at export and, where it is installed, against transformers; the last
against the sketches of the checkpoint. Opens no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from .. import InfimedError, MissingExtra
from ..runtime.manifest import MANIFEST, PROBES, SHARED
from ..runtime.preprocessing import patches
from ..runtime.prompt import Prompt, Prompter
from .certificate import Finding
from .certificate_headers import header_fault
from .certificate_limits import WEIGHT_LIMITS
from .dequantised_level import Level
from .golden import golden, pixel_fault, position_fault, token_fault
from .level_weights import LevelWeight, weight_errors
from .parity import PIXEL_LIMIT, Reference
from .probe_store import read_sketches
from .transformers_prompt import ReferencePrompt, transformers_prompter

STAGES = ("pixels", "tokens", "positions")


def check_prompts_of(level: Level, references: Sequence[Reference]) -> Iterator[Finding]:
    """Yield the findings of pixels, tokens and positions."""
    try:
        prompter = Prompter.open(level.shared)
    except InfimedError as error:
        yield Finding("tokens", "failed", str(error))
        return
    faults: dict[str, str] = {}
    if level.preprocessing is not None and dict(level.preprocessing) != prompter.preprocessing:
        faults["pixels"] = f"{MANIFEST} states other pixel rules than preprocessor_config.json in {SHARED}/"
    images = 0
    recorded = all(reference.golden is not None for reference in references)
    for reference in references:
        identity = reference.probe.id
        try:
            made = golden(prompter, reference.probe.messages)
        except (InfimedError, ValueError) as error:
            faults.setdefault("tokens", f"{identity}: {error}")
            continue
        images += len(made.grids)
        if (stored := reference.golden) is not None:
            for stage, fault in (
                ("pixels", pixel_fault(stored, made, PIXEL_LIMIT)),
                ("tokens", token_fault(stored, made)),
                ("positions", position_fault(stored, made)),
            ):
                if fault:
                    faults.setdefault(stage, f"{identity}: {fault}")
    against, note = (["the record of the export"] if recorded else []), ""
    if not faults:
        try:
            theirs = transformers_prompter(level.shared)
            for reference in references:
                ours = prompter.prompt(reference.probe.messages)
                for stage, fault in _against(prompter, ours, theirs(reference.probe.messages)):
                    faults.setdefault(stage, f"{reference.probe.id}: {fault}, in transformers")
            against.append("transformers")
        except MissingExtra:
            note = "; transformers is not installed"
        except InfimedError as error:
            faults.setdefault("tokens", str(error))
    seeing = prompter.family.image_token is not None
    for stage in STAGES:
        if stage in faults:
            yield Finding(stage, "failed", faults[stage])
        elif stage == "pixels" and not images:
            yield Finding.unseen(stage, seeing)
        elif against:
            yield Finding(stage, "held", f"equal {' and '.join(against)}{note}")
        else:
            yield Finding(stage, "not run", f"the bundle has no record of its prompts{note}")


def _against(prompter: Prompter, ours: Prompt, theirs: ReferencePrompt) -> Iterator[tuple[str, str]]:
    """Yield each stage in which a prompt differs from transformers' own, and how."""
    made = [patches(image.rgb, prompter.rules) for image in ours.images]
    grids = [[grid.t, grid.h, grid.w] for _, grid in made]
    if grids != theirs.grids.tolist():
        yield "pixels", f"grids are {grids} in place of {theirs.grids.tolist()}"
    elif made:
        difference = float(np.abs(np.concatenate([values for values, _ in made]) - theirs.pixels).max())
        if not difference <= PIXEL_LIMIT:
            yield "pixels", f"pixel values differ by {difference:.2g}"
    if ours.token_ids.tolist() != theirs.token_ids.tolist():
        yield "tokens", "the chat template or the tokenizer is read in another way"
    elif not np.array_equal(ours.positions, theirs.positions):
        yield "positions", "rotary positions are others"


def check_headers(level: Level) -> Finding:
    """Return whether the numbers that the level's graphs take from their files are those of shared/."""
    try:
        fault = header_fault(level)
    except MissingExtra as error:
        return Finding("headers", "not run", str(error))
    except InfimedError as error:
        return Finding("headers", "failed", str(error))
    if fault:
        return Finding("headers", "failed", fault)
    return Finding("headers", "held", "as config.json, the tokenizer and the template in shared/ say")


def check_weights(
    level: Level,
    weights: Sequence[LevelWeight],
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
    limits: Mapping[str, float] = WEIGHT_LIMITS,
) -> tuple[Finding, float]:
    """Return whether each tensor lies as near to the checkpoint's as its type brings it, and the largest error."""
    try:
        sketches = read_sketches(level.folder / PROBES)
        if sketches is None:
            return Finding("weights", "not run", "the bundle has no sketches of the checkpoint's weights"), np.nan
        found = weight_errors(weights, sketches, limits, on_tensor)
    except MissingExtra as error:
        return Finding("weights", "not run", str(error)), np.nan
    except InfimedError as error:
        return Finding("weights", "failed", str(error)), np.nan
    largest = max(error.relative for error in found)
    worst = max(found, key=lambda error: error.relative / error.limit if error.limit else np.inf)
    wrong = next((error for error in found if not error.held), None)
    named = wrong or worst
    kind = " and ".join(named.types)
    if wrong:
        said = f"tensor {wrong.name} ({kind}) is not the checkpoint's: {wrong.relative:.2g} of its norm away"
    else:
        said = f"{len(found)} tensors; nearest to its limit {named.name} ({kind})"
    return Finding.of("weights", named.relative, named.limit, "of the norm", said), largest
