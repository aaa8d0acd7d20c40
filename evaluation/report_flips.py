"""The flips' part of the drift report: each question with its image, the right answer, and what every run said.

Computes nothing; flips.py chooses. Pictures are there only where the dataset was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .drift_views import Flip, Said
from .flips import HARMFUL_PER_LEVEL, HEALING_PER_LEVEL
from .report_sections import Findings, folded, markdown_rows
from .report_text import percent

_OPEN = 6  # shown before a reader asks for more


def html_flips(found: Findings) -> Iterator[str]:
    """Yield a card for each flip, the later ones folded."""
    flips = found.report.flips
    if not flips:
        return
    yield f'<p class="lead">{escape(_says(found))}</p>'
    cards = [_card(flip, found) for flip in flips]
    yield f'<div class="flips">{"".join(cards[:_OPEN])}</div>'
    if cards[_OPEN:]:
        yield from folded(f"{len(cards) - _OPEN} more", [f'<div class="flips">{"".join(cards[_OPEN:])}</div>'])


def markdown_flips(found: Findings) -> Iterator[str]:
    """Yield a table of the flips."""
    flips = found.report.flips
    if not flips:
        return
    yield from (_says(found), "")
    runs = [said.run for said in flips[0].levels]
    yield from markdown_rows(
        ("question", "cell", "right answer", flips[0].reference.run, *runs),
        (
            (
                f"{flip.question} ({flip.example_id})",
                f"{flip.modality} \u00d7 {flip.task}",
                flip.key,
                *(f"{_mark(said)} {_words(said)}" for said in (flip.reference, *flip.levels)),
            )
            for flip in flips
        ),
    )
    yield ""


def _says(found: Findings) -> str:
    pictures = "" if found.report.pictured else " Give infimed drift the dataset with --data to see their images."
    harmful = sum(row.overall.harmful for row in found.report.levels)
    healing = sum(row.overall.healing for row in found.report.levels)
    return (
        f"{harmful:,} answers turned wrong and {healing:,} right, over all levels. Here are each level's surest: up to "
        f"{HARMFUL_PER_LEVEL} that turned wrong and {HEALING_PER_LEVEL} that turned right, one of a patient or group, "
        f"chosen by that rule alone.{pictures}"
    )


def _card(flip: Flip, found: Findings) -> str:
    pictures = "".join(
        f'<img src="{uri}" alt="image {place} of {flip.images} of question {escape(flip.example_id)}">'
        for place, uri in enumerate(found.pictures.get(flip.example_id, ()), 1)
    )
    said = "".join(_line(one, flip) for one in (flip.reference, *flip.levels))
    return (
        f'<article class="flip">{f"<div class=shown>{pictures}</div>" if pictures else ""}<div class="told">'
        f"<small>{escape(flip.modality)} \u00d7 {escape(flip.task)}</small>"
        f'<p class="asked">{escape(flip.question)}</p><p>Right answer: <b>{escape(flip.key)}</b></p>'
        f"<ul>{said}</ul><small>{escape(flip.example_id)}</small></div></article>"
    )


def _line(said: Said, flip: Flip) -> str:
    kind = "harm" if said.run in flip.harmed else "heal" if said.run in flip.healed else ""
    sure = f"<span>{percent(said.confidence)}</span>" if said.confidence is not None else "<span></span>"
    return (
        f'<li class="{kind}"><i aria-hidden="true">{_mark(said)}</i><span>{escape(said.run)}'
        f'<span class="unseen"> {"right" if said.correct else "wrong"}: </span></span>'
        f"<b>{escape(said.answer if said.answer is not None else 'INVALID')}</b>{sure}</li>"
    )


def _mark(said: Said) -> str:
    return "\u2713" if said.correct else "\u2715"


def _words(said: Said) -> str:
    answer = "INVALID" if said.answer is None else said.answer
    return answer if said.confidence is None else f"{answer} ({percent(said.confidence)})"
