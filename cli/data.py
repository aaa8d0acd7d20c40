"""`infimed data`: datasets are made, brought in, selected and looked at. Knows how to ask and how to tell, no rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .progress import drawn

if TYPE_CHECKING:
    from ..evaluation.dataset import Dataset

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make, import, curate and look at datasets.")

_OUT = typer.Option("--out", help="The dataset's folder; it must not exist.", show_default=False)
_JSON = typer.Option("--json", help="Print the counts as JSON.")


@app.command()
def phantoms(
    out: Annotated[Path, _OUT],
    images: Annotated[
        int, typer.Option("--images", min=1, help="How many pictures or cases, families and modalities in turn.")
    ] = 600,
    family: Annotated[
        list[str] | None,
        typer.Option(
            "--family",
            help="single (default), change (prior and current image), agreement (image and report); again for more.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the series; same seed, same bytes.")] = 0,
    modality: Annotated[
        list[str] | None, typer.Option("--modality", help="Default all six; may be given again.", show_default=False)
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Default all that are asked; may be given again.")
    ] = None,
    per_image: Annotated[
        int | None, typer.Option("--per-image", min=1, help="Most questions on one picture; default all.")
    ] = None,
    test_share: Annotated[
        float, typer.Option("--test-share", min=0, max=1, help="Share of the pictures in role test; the rest train.")
    ] = 0.5,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Make phantoms: CT-, MR-, radiograph-, ultrasound-, fundus- and histology-like pictures whose findings are known.

    Nothing in them comes from a patient. The same options give the same bytes.
    """
    from ..evaluation.phantom_images import KINDS
    from ..evaluation.phantom_questions import TASKS
    from ..evaluation.phantoms import CASES, SINGLE, write_phantoms

    made = write_phantoms(
        out,
        images,
        seed,
        tuple(modality or KINDS),
        families=tuple(family or (SINGLE,)),
        tasks=tuple(task or (*TASKS, *CASES)),
        per_image=per_image,
        roles={"train": 1 - test_share, "test": test_share},
    )
    if as_json:
        typer.echo(json.dumps(_told(made), indent=2))
        return
    _say(made, f"seed {seed}")


@app.command()
def benchmarks(as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False) -> None:
    """List the benchmarks that `import` reads, with fields, splits, licence and where the official files come from.

    Nothing is downloaded: bring the files yourself and mind their licence.
    """
    from ..evaluation.benchmark_list import told, written

    typer.echo(json.dumps(told(), indent=2, ensure_ascii=False) if as_json else written())


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder, or one file of rows.", show_default=False)],
    out: Annotated[Path, _OUT],
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="dataset, datasets, jsonl, parquet, or a name that `data benchmarks` lists; default: recognised.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The dataset's name; default the source's.")] = None,
    split: Annotated[
        str, typer.Option("--split", help="Give roles by a named split: official or image-disjoint; default none.")
    ] = "",
    subset: Annotated[str, typer.Option("--subset", help="Of a benchmark, such as en of slake; default all.")] = "",
    source_id: Annotated[str, typer.Option("--source", help="Source id of rows that state none.")] = "",
    license_id: Annotated[str, typer.Option("--license", help="Licence id of rows that state none.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row; default: list it.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Bring data in: every row keeps its source, licence, patient or group, and split.

    A malformed file stops the import. A bad row (an image that does not decode, an answer that is no option) is
    refused and listed in the manifest with its reason.
    """
    from ..evaluation.import_rows import Defaults
    from ..evaluation.importers import import_dataset

    with drawn() as on_event:
        made = import_dataset(
            source,
            out,
            layout=layout,
            name=name,
            defaults=Defaults(source_id, license_id),
            split=split,
            subset=subset,
            strict=strict,
            on_event=on_event,
        )
    refused = made.manifest.details.get("refused")
    rows = refused if isinstance(refused, list) else []
    details = made.manifest.details
    if as_json:
        more = {name: details[name] for name in ("layout", "subset", "split", "aside") if name in details}
        typer.echo(json.dumps({**_told(made), **more, "refused": rows}, indent=2))
        return
    _say(made, f"layout {details['layout']}, rows refused: {len(rows):,}")
    _say_split(details.get("split"))
    aside = details.get("aside")
    if isinstance(aside, dict):
        typer.echo("".join(f"aside: {number:,} rows, {reason}\n" for reason, number in aside["rows"].items()), nl=False)
        if aside["files"]:
            typer.echo(f"aside: {len(aside['files']):,} files without such rows: {', '.join(aside['files'][:5])}")
    for row in rows[:10]:
        typer.echo(f"refused: {row['file']}:{row['line']}: {row['reason']}", err=True)
    if len(rows) > 10:
        typer.echo(f"refused: and {len(rows) - 10:,} more, all in {out / 'manifest.json'}", err=True)


@app.command()
def curate(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.", show_default=False)],
    out: Annotated[Path, _OUT],
    recipe: Annotated[str, typer.Option("--recipe", help="A TOML recipe, or the name of one we bring.")] = "curate",
    against: Annotated[
        list[Path] | None, typer.Option("--against", help="A test dataset to keep out; may be given again.")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Select a clean, divided training set; every row left out keeps a reason in left_out.jsonl.

    Licences, broken and empty images, bad texts, duplicates, roles by patient or group, leaks into test data, and a
    budget over modality x task, as the recipe says.
    """
    from ..training.curate import curate_dataset
    from ..training.recipe import find_recipe

    with drawn() as on_event:
        made = curate_dataset(dataset, out, find_recipe(recipe), against=tuple(against or ()), on_event=on_event)
    left_out = made.manifest.details["left_out"]
    if as_json:
        typer.echo(json.dumps({**_told(made), "left_out": left_out}, indent=2))
        return
    _say(made, "  ".join(f"{role or 'no role'} {number:,}" for role, number in _counts(made, "role").items()))
    if isinstance(left_out, dict):
        for stage, number in left_out.items():
            typer.echo(f"left out  {stage:<12} {number:>7,}")


@app.command()
def show(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The page to write (HTML).")] = Path("dataset.html"),
    limit: Annotated[int, typer.Option("--limit", min=0, help="Questions shown, spread over cells; 0: all.")] = 120,
    seed: Annotated[int, typer.Option("--seed", help="Which questions are drawn.")] = 0,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Write one page of images with their questions, to look at in a browser; nothing in it comes from elsewhere."""
    from ..evaluation.dataset import Dataset
    from ..evaluation.show import write_page

    opened = Dataset.open(dataset)
    shown = write_page(opened, out, limit=limit, seed=seed)
    if as_json:
        typer.echo(json.dumps({**_told(opened), "page": str(out), "shown": shown}, indent=2))
        return
    typer.echo(f"page: {out}  {shown:,} of {len(opened.examples):,} questions")


def _told(dataset: Dataset) -> dict[str, object]:
    manifest = dataset.manifest
    return {
        "dataset": str(dataset.folder),
        "sha256": dataset.sha256,
        "examples": manifest.examples,
        "counts": manifest.counts,
        "licences": manifest.licences,
    }


def _counts(dataset: Dataset, kind: str) -> dict[str, int]:
    value = dataset.manifest.counts[kind]
    return dict(value) if isinstance(value, dict) else {}


def _say_split(split: object) -> None:
    if isinstance(split, dict):
        counts = "  ".join(f"{role} {number:,}" for role, number in split["questions"].items())
        shared = f"{split['test_images_in_other_roles']:,} of {split['test_images']:,} test images also in other roles"
        typer.echo(f"split: {split['name']}  {counts}  {shared}, rows set aside: {split['set_aside']:,}")


def _say(dataset: Dataset, remark: str) -> None:
    counts = dataset.manifest.counts
    typer.echo(
        f"dataset: {dataset.folder}  {dataset.manifest.examples:,} questions, {counts['images']:,} images, "
        f"{counts['groups']:,} groups; {remark}"
    )
