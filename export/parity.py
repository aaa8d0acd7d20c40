"""The parity gate: a full-precision level must see, place and answer what the torch reference does.

Stage by stage, so that a refusal names the first one that differs: pixels, tokens, positions, vision, and the logits of
the reply, from the prompt's last row on. Sees engines only through their protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import CheckFailed
from ..runtime.distance import compare_rows, summarise
from ..runtime.engine import Engine, Sampling
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.messages import Message
from ..runtime.preprocessing import patches
from ..runtime.prompt import Prompter
from .golden import Golden
from .probes import Probe
from .transformers_prompt import ReferencePrompt

PIXEL_LIMIT = 1e-5
VISION_LIMIT = 1e-3
"""Largest difference of an image embedding, relative to the largest value of the reference's."""
KL_LIMIT_NATS = 1e-6
GAP_LOGITS = 0.01
"""Top-1 must agree where the reference's two largest logits differ by more than this."""
REPLY_TOKENS = 7


class ParityError(CheckFailed):
    """A full-precision level differs from the reference; nothing was published."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the torch reference makes of one probe.

    continuation: its greedy reply's first tokens. rows: (1 + len(continuation), vocab), the logits that predict them
    and the token after. embeddings: one (image tokens, hidden) per image. golden: the prompt's record, of stored ones.
    """

    probe: Probe
    continuation: tuple[int, ...]
    rows: NDArray[np.float32]
    embeddings: tuple[NDArray[np.float32], ...]
    golden: Golden | None = None


@dataclass(frozen=True)
class Parity:
    """How far an engine lies from the reference over a set of probes.

    vision: largest relative difference of an image embedding. kl_*: KL(reference || engine) in nats over all reply
    rows, in float64. decided: rows whose top-1 counts.
    """

    level: str
    probes: int
    rows: int
    vision: float
    kl_mean_nats: float
    kl_max_nats: float
    top1: float
    decided: int
    top1_decided: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        return asdict(self)


def check_prompts(
    prompter: Prompter, reference: Callable[[Sequence[Message]], ReferencePrompt], probes: Sequence[Probe]
) -> float:
    """Hold our pixels, token ids and positions against transformers' own; return the largest pixel difference.

    Raises ParityError naming the stage and the probe.
    """
    worst = 0.0
    for probe in probes:
        ours, theirs = prompter.prompt(probe.messages), reference(probe.messages)
        made = [patches(image.rgb, prompter.rules) for image in ours.images]  # no image: no rules are asked for
        grids = [[grid.t, grid.h, grid.w] for _, grid in made]
        if grids != theirs.grids.tolist():
            raise ParityError(f"pixels differ: {probe.id} has grids {grids}, transformers has {theirs.grids.tolist()}")
        if made:
            difference = float(np.abs(np.concatenate([values for values, _ in made]) - theirs.pixels).max())
            worst = max(worst, difference)
            if not difference <= PIXEL_LIMIT:
                raise ParityError(
                    f"pixels differ by {difference:.2g} in {probe.id}; at most {PIXEL_LIMIT:g} is allowed"
                )
        if ours.token_ids.tolist() != theirs.token_ids.tolist():
            raise ParityError(f"tokens differ in {probe.id}: the chat template or the tokenizer is read in another way")
        if not np.array_equal(ours.positions, theirs.positions):
            raise ParityError(f"positions differ in {probe.id}: rotary positions are not those of transformers")
    return worst


def take_references(engine: Engine, probes: Sequence[Probe], on_event: OnEvent = ignore) -> tuple[Reference, ...]:
    """Run the torch reference over the probes: its greedy replies, their logits, its image embeddings."""
    taken = []
    for done, probe in enumerate(probes):
        reply = engine.generate(probe.messages, Sampling(max_tokens=REPLY_TOKENS)).token_ids
        rows = engine.logits(probe.messages, reply)
        taken.append(Reference(probe, reply, rows, engine.image_embeddings(probe.messages)))
        on_event(Event("reference", done + 1, len(probes), "prompts"))
    return tuple(taken)


def measure(engine: Engine, references: Sequence[Reference], on_event: OnEvent = ignore) -> Parity:
    """Run an engine over the probes and return its distance to the reference."""
    if not references:
        raise ParityError(f"{engine.level}: there is no prompt to measure parity on; nothing was published")
    apart, compared = [], []
    for done, reference in enumerate(references):
        messages = reference.probe.messages
        for ours, theirs in zip(engine.image_embeddings(messages), reference.embeddings, strict=True):
            apart.append(float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
        rows = engine.logits(messages, reference.continuation)[:, : reference.rows.shape[1]]
        compared.append(compare_rows(reference.rows, rows, GAP_LOGITS))
        on_event(Event(f"parity {engine.level}", done + 1, len(references), "prompts"))
    return Parity(
        level=engine.level,
        probes=len(references),
        vision=float(np.max(apart, initial=0.0)),  # numpy's maximum keeps NaN, which Python's may lose
        **asdict(summarise(compared)),
    )


def require(parity: Parity) -> None:
    """Raise ParityError naming the stage if a full-precision level is not the reference. NaN is never equal."""
    if not parity.vision <= VISION_LIMIT:
        raise ParityError(
            f"{parity.level}: vision differs by {parity.vision:.2g} of the largest embedding; at most {VISION_LIMIT:g} "
            "is allowed; nothing was published"
        )
    if not parity.kl_mean_nats <= KL_LIMIT_NATS or parity.top1_decided < 1.0:
        raise ParityError(
            f"{parity.level}: reply logits differ by a mean KL of {parity.kl_mean_nats:.2g} nats (at most "
            f"{KL_LIMIT_NATS:g}), top-1 equal in {parity.top1_decided:.1%} of {parity.decided} decided rows; "
            "nothing was published"
        )
