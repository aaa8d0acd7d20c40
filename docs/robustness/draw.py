"""Draws the pictures of docs/robustness.md from phantoms, with the very functions that probe.

python docs/robustness/draw.py writes probes.png, corruptions-ct.jpg and corruptions-fundus.jpg beside itself.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from infimed.evaluation.corruptions import CHANGES, SEVERITIES, changed
from infimed.evaluation.dataset import image_ref
from infimed.evaluation.example import Example
from infimed.evaluation.phantom_images import KINDS, phantom
from infimed.evaluation.phantoms import TASKS, asked_of, example_of, phantoms, png_bytes
from infimed.evaluation.probe import LeftOut, Probed, Setting, all_shown
from infimed.evaluation.probes import PROBES

HERE = Path(__file__).resolve().parent
SIDE, GAP, LINE, WIDTH = 112, 6, 15, 560
INK, FAINT, PAPER, KEY = (20, 20, 20), (110, 110, 110), (255, 255, 255), (0, 95, 60)
FONT = ImageFont.load_default(12)
# What each card shows: the task whose example is taken.
CARDS = {
    "shuffle": "location", "paraphrase": "finding", "sycophancy": "laterality", "attribute-pair": "modality",
    "none-of-the-above": "anatomy", "false-premise": "finding", "grey": "count", "swap": "count",
    "mirror": "laterality",
}  # fmt: skip


def corruption_sheet(modality: str) -> Image.Image:
    """Return every corruption of one phantom, a row each, the severities from left to right."""
    rgb = phantom(KINDS[modality], 2024, 3).rgb
    names = [name for name, row in CHANGES.items() if row.graded]
    left = 78
    sheet = Image.new("RGB", (left + (SIDE + GAP) * 6, 20 + (SIDE + GAP) * len(names)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(("clean", *(f"severity {step}" for step in SEVERITIES))):
        pen.text((left + column * (SIDE + GAP), 3), title, INK, FONT)
    for row, name in enumerate(names):
        top = 20 + row * (SIDE + GAP)
        pen.text((4, top + SIDE // 2 - 8), name, INK, FONT)
        for column, picture in enumerate((rgb, *(changed(rgb, name, step, 7) for step in SEVERITIES))):
            sheet.paste(Image.fromarray(picture), (left + column * (SIDE + GAP), top))
    return sheet


class Cards:
    """Examples of phantoms with their pixels, and a card for each probe."""

    def __init__(self) -> None:
        kinds = list(KINDS.values())
        self.pixels: dict[str, np.ndarray] = {}
        self.examples: list[Example] = []
        for one in phantoms(kinds, 30, 11):
            ref = image_ref(png_bytes(one.rgb))
            self.pixels[ref.path] = one.rgb
            self.examples += [
                example_of(one, asked, number, ref, "test")
                for number, asked in enumerate(asked_of(one, kinds, TASKS, None))
            ]
        self.setting = Setting(shown=all_shown(self.examples))

    def taken(self, name: str) -> tuple[Example, tuple[Probed, ...]]:
        """Return the first example of the card's task that the probe covers, with what it makes of it."""
        for example in self.examples:
            found = PROBES[name].ask(example, self.setting)
            if example.task == CARDS[name] and not isinstance(found, LeftOut) and example.answer not in ("0",):
                return example, found
        raise SystemExit(f"no phantom is covered by {name}")

    def card(self, name: str) -> Image.Image:
        """Return the example above and the probe's rows below it, each with the picture it shows."""
        example, rows = self.taken(name)
        strips = [self.strip(f"{name}: the question as it is", example, None)]
        strips += [self.strip(f"key {row.key}, variant {row.variant}", row.example, row) for row in rows]
        height = sum(strip.height for strip in strips) + GAP * (len(strips) + 1)
        sheet = Image.new("RGB", (WIDTH, height), PAPER)
        ImageDraw.Draw(sheet).line((0, 0, WIDTH, 0), FAINT)
        top = GAP
        for strip in strips:
            sheet.paste(strip, (0, top))
            top += strip.height + GAP
        return sheet

    def strip(self, title: str, example: Example, row: Probed | None) -> Image.Image:
        """Return one row: a title, the picture where it differs from the one above, the words and the key."""
        pixels = self.pixels[example.images[0].path]
        picture = row.picture if row else None
        if picture:
            pixels = changed(pixels, picture.change, picture.severity, picture.seed)
        shown = row is None or picture is not None or row.key == "abstain"
        lines = [(title, FAINT), *((line, INK) for line in textwrap.wrap(example.question, 70))]
        if example.answer_type == "choice":
            lines.append((f"Options: {'; '.join(example.options)}", INK))
        lines.append((f"key: {example.answer}", KEY))
        strip = Image.new("RGB", (WIDTH, max(SIDE if shown else 0, LINE * len(lines) + 2)), PAPER)
        if shown:
            strip.paste(Image.fromarray(pixels), (4, 0))
        pen = ImageDraw.Draw(strip)
        for number, (text, colour) in enumerate(lines):
            pen.text((SIDE + 16, number * LINE), text, colour, FONT)
        return strip


def main() -> None:
    """Write the three pictures."""
    cards = [Cards().card(name) for name in CARDS]
    sheet = Image.new("RGB", (WIDTH, sum(card.height for card in cards)), PAPER)
    top = 0
    for card in cards:
        sheet.paste(card, (0, top))
        top += card.height
    sheet.quantize(48).save(HERE / "probes.png", optimize=True)
    for modality in ("ct", "fundus"):
        corruption_sheet(modality).save(HERE / f"corruptions-{modality}.jpg", quality=58, optimize=True)
    for path in sorted(HERE.glob("*.[pj]*g")):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
