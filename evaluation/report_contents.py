"""The sections of the drift report in their order, for the page and for Markdown: one row each."""

from __future__ import annotations

from .report_answers import html_answers, markdown_answers
from .report_apart import apart_tables
from .report_cells import html_cells, markdown_cells
from .report_flips import html_flips, markdown_flips
from .report_levels import html_costs, html_levels, markdown_levels
from .report_open import open_tables
from .report_rationales import rationale_tables
from .report_reading import (
    html_knowledge,
    html_provenance,
    html_reading,
    markdown_knowledge,
    markdown_provenance,
    markdown_reading,
)
from .report_robustness import html_robustness, markdown_robustness
from .report_sections import Findings, Section, section_of_tables


def _none(found: Findings) -> tuple[str, ...]:
    """Say nothing: the table of levels has the figures that the page draws."""
    return ()


CONTENTS: tuple[Section, ...] = (
    Section("levels", "Levels", html_levels, markdown_levels),
    Section("cells", "Cells: modality \u00d7 task", html_cells, markdown_cells),
    Section("flips", "Flips to look at", html_flips, markdown_flips),
    section_of_tables("open", "What these data cannot say", open_tables),
    Section("costs", "Size and speed", html_costs, _none),
    Section("answers", "The answers themselves", html_answers, markdown_answers),
    section_of_tables("apart", "Single and cross-modal items", apart_tables),
    section_of_tables("reasoning", "Reasoning before the answer", rationale_tables),
    Section("robustness", "Robustness", html_robustness, markdown_robustness),
    Section("knowledge", "What the reference knows", html_knowledge, markdown_knowledge),
    Section("reading", "How to read it", html_reading, markdown_reading),
    Section("provenance", "Provenance", html_provenance, markdown_provenance),
)
