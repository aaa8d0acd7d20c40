"""One self-contained page of a dataset, for a person to look at: images, questions, answers, roles and counts.

No script, nothing from elsewhere (a content policy in the page says so), every text escaped. Knows datasets only.
"""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from ..runtime.files import write_bytes
from .dataset import Dataset
from .example import MODALITIES, ROLES, TASKS, Example, ImageRef
from .show_style import STYLE

_DIRECT = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
_DIRECT_BYTES = 150_000
_SIDE_PIXELS = 448


def write_page(dataset: Dataset, out: Path, *, limit: int = 120, seed: int = 0) -> int:
    """Write the page to `out` and return the number of questions on it.

    limit: questions shown, spread evenly over the cells by `seed`; 0 shows all.
    """
    shown = sample(dataset.examples, limit, seed)
    write_bytes(out, page(dataset, shown).encode())
    return len(shown)


def sample(examples: Sequence[Example], limit: int, seed: int) -> tuple[Example, ...]:
    """Return up to `limit` examples, one cell after the other in turn, each cell in a seeded order; 0 returns all."""
    if limit <= 0 or limit >= len(examples):
        return tuple(examples)
    draw = random.Random(seed)
    cells: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        cells.setdefault(example.cell, []).append(example)
    for cell in sorted(cells):
        draw.shuffle(cells[cell])
    order = sorted(cells)
    draw.shuffle(order)
    chosen: set[str] = set()
    while len(chosen) < limit:
        for cell in order:
            if cells[cell] and len(chosen) < limit:
                chosen.add(cells[cell].pop().id)
    return tuple(example for example in examples if example.id in chosen)


def page(dataset: Dataset, shown: Sequence[Example]) -> str:
    """Return the whole page as HTML."""
    name = escape(dataset.label)
    groups = _by_content(shown)
    sections = "".join(
        f'<section id="{modality}"><h2>{_title(modality)} <small>{_number(sum(len(rows) for rows in cards))} of '
        f"{_number(sum(1 for row in dataset.examples if row.modality == modality))} questions shown</small></h2>"
        f'<div class="cards">{"".join(_card(dataset, rows) for rows in cards)}</div></section>'
        for modality, cards in groups.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        "'unsafe-inline'\">"
        f"<title>{name}</title><style>{STYLE}</style></head><body>\n"
        f"<header><h1>{name}</h1>{_facts(dataset, len(shown))}</header>\n"
        f"<main>{_matrix(dataset.examples)}{_origins(dataset)}{sections}</main>\n"
        f"<footer>Made by infimed data show. Dataset <code>{dataset.sha256[:16]}</code>. "
        "Not for clinical use.</footer></body></html>\n"
    )


def _by_content(shown: Sequence[Example]) -> dict[str, list[list[Example]]]:
    """Questions about the same content share a card; modalities stand in the order of the vocabulary."""
    cards: dict[tuple[object, ...], list[Example]] = {}
    for example in shown:
        key = (example.modality, *example.content[:-1]) if len(example.content) > 1 else (example.modality, example.id)
        cards.setdefault(key, []).append(example)
    result: dict[str, list[list[Example]]] = {}
    for modality in MODALITIES:
        found = [rows for key, rows in cards.items() if key[0] == modality]
        if found:
            result[modality] = found
    return result


def _facts(dataset: Dataset, shown: int) -> str:
    examples = dataset.examples
    facts = [
        (_number(len(examples)), "questions"),
        (_number(len({ref.path for row in examples for ref in row.images})), "images"),
        (_number(len({row.group for row in examples})), "groups"),
        (_number(len({row.source for row in examples})), "sources"),
        (_number(shown), "shown here"),
    ]
    cells = "".join(f"<div><b>{value}</b><span>{label}</span></div>" for value, label in facts)
    return f'<div class="facts">{cells}</div>{_roles(examples)}'


def _roles(examples: Sequence[Example]) -> str:
    parts = []
    for role in (*ROLES, ""):
        number = sum(1 for row in examples if row.role == role)
        if number:
            share = 100 * number / len(examples)
            parts.append(
                f'<span class="share {role or "none"}" style="flex-grow:{number}" '
                f'title="{_number(number)} questions">{role or "not divided"} {share:.0f} %</span>'
            )
    return f'<div class="shares">{"".join(parts)}</div>'


def _matrix(examples: Sequence[Example]) -> str:
    counts: dict[tuple[str, str], int] = {}
    for example in examples:
        counts[example.cell] = counts.get(example.cell, 0) + 1
    modalities = [name for name in MODALITIES if any(cell[0] == name for cell in counts)]
    tasks = [name for name in TASKS if any(cell[1] == name for cell in counts)]
    most = max(counts.values(), default=1)
    rows = "".join(
        f'<tr><th><a href="#{modality}">{_title(modality)}</a></th>'
        + "".join(_cell(counts.get((modality, task), 0), most) for task in tasks)
        + f"<td class=sum>{_number(sum(counts.get((modality, task), 0) for task in tasks))}</td></tr>"
        for modality in modalities
    )
    sums = "".join(
        f"<td class=sum>{_number(sum(counts.get((modality, task), 0) for modality in modalities))}</td>"
        for task in tasks
    )
    heads = "".join(f"<th>{task}</th>" for task in tasks)
    return (
        "<h2>Questions by modality and task</h2>"
        f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{heads}<th>all</th></tr></thead>'
        f"<tbody>{rows}</tbody><tfoot><tr><th>all</th>{sums}<td class=sum>{_number(len(examples))}</td></tr></tfoot>"
        "</table></div>"
    )


def _cell(count: int, most: int) -> str:
    if not count:
        return '<td class="empty">·</td>'
    return f'<td style="--heat:{8 + 62 * (count / most) ** 0.5:.0f}%">{_number(count)}</td>'


def _origins(dataset: Dataset) -> str:
    rows = "".join(
        f"<tr><td>{escape(source)}</td><td class=n>{_number(_field(facts, 'examples'))}</td>"
        f"<td class=n>{_number(_field(facts, 'images'))}</td><td class=n>{_number(_field(facts, 'groups'))}</td>"
        f"<td>{escape(', '.join(_licences(facts)))}</td></tr>"
        for source, facts in dataset.manifest.sources.items()
    )
    return (
        "<details><summary>Sources and licences</summary><div class=scroll>"
        "<table class=plain><thead><tr><th>source</th>"
        "<th class=n>questions</th><th class=n>images</th><th class=n>groups</th><th>licence</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _field(facts: object, name: str) -> int:
    value = facts.get(name) if isinstance(facts, Mapping) else None
    return value if isinstance(value, int) else 0


def _licences(facts: object) -> list[str]:
    value = facts.get("licences") if isinstance(facts, Mapping) else None
    return [str(item) for item in value] if isinstance(value, list) else []


def _card(dataset: Dataset, rows: Sequence[Example]) -> str:
    first = rows[0]
    content = "".join(
        _figure(dataset, part) if isinstance(part, ImageRef) else f"<p class=context>{escape(part.text)}</p>"
        for part in first.content[:-1]
    )
    roles = "".join(f'<span class="role {role}">{role}</span>' for role in _unique(row.role for row in rows) if role)
    origin = f'<span>{escape(first.source)}</span><span title="group">{escape(first.group)}</span>'
    questions = "".join(_question(row) for row in rows)
    wide = "" if first.images else " wide"
    return f'<article class="card{wide}">{content}<div class="meta">{roles}{origin}</div>{questions}</article>'


def _question(example: Example) -> str:
    if example.options:
        listed = "".join(
            f"<li{' class=right' if option == example.answer else ''}>{escape(option)}</li>"
            for option in example.options
        )
        answer = f"<ul>{listed}</ul>"
    else:
        also = f" <small>also {escape(', '.join(example.aliases))}</small>" if example.aliases else ""
        answer = f"<ul><li class=right>{escape(example.answer)}</li></ul>{also}"
    more = json.dumps(dict(example.attributes), ensure_ascii=False, sort_keys=True)
    long = " class=long" if len(example.question) > 200 else ""
    about = f"{example.id} · {example.answer_type} · {example.license}"
    return (
        f'<div class="question"><span class="task">{example.task}</span><p{long}>{escape(example.question)}</p>{answer}'
        f"<details><summary>{escape(about)}</summary><code>{escape(more)}</code></details></div>"
    )


def _figure(dataset: Dataset, ref: ImageRef) -> str:
    height, width = dataset.image(ref).shape[:2]
    small = " class=small" if max(height, width) < 160 else ""
    about = f'alt="{escape(ref.path)}" title="{width} x {height} pixels"'
    return f'<figure><img{small} {about} src="{data_uri(dataset, ref)}"></figure>'


def data_uri(
    dataset: Dataset, ref: ImageRef, side_pixels: int = _SIDE_PIXELS, direct_bytes: int = _DIRECT_BYTES
) -> str:
    """Return an image as a data URI: a file of up to `direct_bytes` as it is, others as a PNG that is not larger.

    side_pixels: the longest side of that PNG.
    """
    data = dataset.image_bytes(ref)
    kind = _DIRECT.get(Path(ref.path).suffix, "")
    if not kind or len(data) > direct_bytes:
        from PIL import Image

        picture = Image.fromarray(dataset.image(ref))
        picture.thumbnail((side_pixels, side_pixels))
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        data, kind = stream.getvalue(), "image/png"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _title(modality: str) -> str:
    names = {"xray": "X-ray", "ct": "CT", "mri": "MRI", "oct": "OCT"}
    return names.get(modality, modality.capitalize())


def _number(value: int) -> str:
    return f"{value:,}"


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
