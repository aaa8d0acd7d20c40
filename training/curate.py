"""Curation: a dataset becomes a clean, divided and bounded one, with a reason for every row left out.

The order of the stages stands here; each rule has a file of its own (curate_*.py). Same input, recipe and seed give the
same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..evaluation.dataset import EXAMPLES, Dataset, RowFault, check_target, write_dataset
from ..evaluation.example import JSON, ROLES, DatasetError, Example, ImageRef
from ..runtime.events import Event, OnEvent, ignore
from ..runtime.files import sha256_file
from ..runtime.images import ImageError
from .curate_budget import rank
from .curate_duplicates import (
    contradictions,
    exact_duplicates,
    near_duplicates,
    near_text_duplicates,
    near_text_rows,
    rows_of,
)
from .curate_fingerprints import Fingerprint, fingerprint
from .curate_gates import image_gate, licence_gate, text_gate
from .curate_groups import Member, NearImages, members_of, merge_groups
from .curate_leaks import TestSet, leaks
from .curate_ledger import LEFT_OUT, Ledger, LeftOut
from .curate_recipe import CurateRecipe
from .curate_roles import divide, stated_role
from .recipe import RecipeError, read_recipe

Prints = Mapping[str, "Fingerprint | str"]


@dataclass(frozen=True)
class Curated:
    """What curation makes of a dataset, before it is written.

    examples: with role and merged group, in the order in which a budget takes them, role after role. ledger: the rows
    left out. merged: merged group -> the groups it was made of, where they were several.
    """

    examples: tuple[Example, ...]
    ledger: Ledger
    merged: Mapping[str, tuple[str, ...]]


def curate_dataset(
    dataset: Path, out: Path, recipe: Path, *, against: Sequence[Path] = (), on_event: OnEvent = ignore
) -> Dataset:
    """Curate the dataset folder `dataset` by a recipe file and write the result to `out`.

    against: test datasets to keep out (their test role where they have roles, else all rows). left_out.jsonl beside the
    rows says why each other row is not there; attributions are carried along. Raises InfimedError if nothing is left.
    """
    check_target(out)
    for folder in (dataset, *against):
        if out.resolve().is_relative_to(folder.resolve()):
            raise DatasetError(f"{out} lies inside {folder}, which is to stay as it is; choose a folder beside it")
    rules = read_recipe(recipe, CurateRecipe)
    faults: list[RowFault] = []
    opened = Dataset.open(dataset, faults.append)
    tests = [Dataset.open(path) for path in against]
    made = curate(opened, rules, tests=tests, faults=faults, on_event=on_event)
    if not made.examples:
        counts = ", ".join(f"{stage} {number:,}" for stage, number in made.ledger.counts().items())
        raise RecipeError(f"{recipe}: no row of {dataset} is left ({counts}); loosen the recipe")
    notices = {
        name: (opened.folder / name).read_bytes() for name in opened.manifest.files if name not in (EXAMPLES, LEFT_OUT)
    }
    details: dict[str, JSON] = {
        "recipe": asdict(rules),
        "left_out": made.ledger.counts(),
        "merged_groups": _merged_in_all(_merged_before(opened), made.merged),
    }
    if (split := _split_kept(opened, rules)) is not None:
        details["split"] = split
    inputs = {"dataset": opened.sha256, "recipe": sha256_file(recipe)}
    inputs.update({f"against/{label}": test.sha256 for label, test in _labelled(tests)})
    return write_dataset(
        out,
        made.examples,
        opened.all_image_bytes(),
        name=opened.manifest.name,
        inputs=inputs,
        details=details,
        notices={**notices, LEFT_OUT: made.ledger.to_bytes()},
        official_split=rules.roles.divide != "group",
    )


def curate(
    dataset: Dataset,
    recipe: CurateRecipe,
    *,
    tests: Sequence[Dataset] = (),
    faults: Iterable[RowFault] = (),
    on_event: OnEvent = ignore,
) -> Curated:
    """Return the curated rows of an opened dataset. faults: rows that were no examples, entered as left out."""
    ledger = Ledger()
    for fault in faults:
        ledger.add(LeftOut(fault.id or f"line {fault.line}", "schema", fault.reason, {"line": fault.line}))
    # Test rows of an official split are what others report on: they pass the gates of taste, not those of law and fact.
    protected = {row.id for row in dataset.examples if stated_role(row, recipe.roles) == "test"}
    rows = _leave_out(dataset.examples, licence_gate(dataset.examples, recipe.licences), ledger)
    prints = _prints(dataset, rows, "fingerprints", on_event)
    rows = _leave_out(rows, image_gate(rows, prints, recipe.images), ledger, protected, broken_too=True)
    rows = _leave_out(rows, text_gate(rows, recipe.texts), ledger, protected)
    sound = {
        ref.path: image for row in rows for ref in row.images if isinstance(image := prints[ref.path], Fingerprint)
    }
    on_event(Event("duplicates", 0, len(rows), "rows"))
    near = NearImages(sound.values(), recipe.duplicates.images)
    rows, merged = _without_duplicates(rows, sound, near, recipe, ledger, protected)
    on_event(Event("duplicates", len(rows), len(rows), "rows"))
    rows = divide(rows, recipe.roles, recipe.seed)
    members = members_of(dataset.examples, _merged_before(dataset), merged)
    rows = _without_leaks(rows, sound, near, members, tests, recipe, ledger, on_event)
    return Curated(_within_budget(rows, recipe, ledger), ledger, merged)


def _leave_out(
    rows: Sequence[Example],
    found: Iterable[LeftOut],
    ledger: Ledger,
    protected: frozenset[str] | set[str] = frozenset(),
    broken_too: bool = False,
) -> tuple[Example, ...]:
    """Enter what a stage found, but for protected rows, and return the rows that stay."""
    for row in found:
        spared = row.id in protected and not (broken_too and "error" in row.evidence)
        if row.id not in ledger.ids and not spared:
            ledger.add(row)
    return tuple(row for row in rows if row.id not in ledger.ids)


def _prints(dataset: Dataset, rows: Sequence[Example], stage: str, on_event: OnEvent) -> dict[str, Fingerprint | str]:
    """Return the fingerprint of every image by its path, or why it cannot be opened."""
    refs: dict[str, ImageRef] = {ref.path: ref for row in rows for ref in row.images}
    found: dict[str, Fingerprint | str] = {}
    for number, (path, ref) in enumerate(refs.items(), 1):
        try:
            found[path] = fingerprint(dataset.image(ref))
        except ImageError as error:
            found[path] = str(error)
        on_event(Event(stage, number, len(refs), "images"))
    return found


def _without_duplicates(
    rows: tuple[Example, ...],
    sound: Mapping[str, Fingerprint],
    near: NearImages,
    recipe: CurateRecipe,
    ledger: Ledger,
    protected: set[str],
) -> tuple[tuple[Example, ...], dict[str, tuple[str, ...]]]:
    """Leave out duplicates, and return the rows in their merged groups with what was merged."""
    pixels_of = {path: image.pixels for path, image in sound.items()}
    before = rows
    first = sorted(rows, key=lambda row: row.id not in protected)
    rows = _leave_out(rows, contradictions(rows_of(first, pixels_of)), ledger, protected)
    group_of = {row.id: row.group for row in before}
    exact = list(exact_duplicates([row for row in rows_of(first, pixels_of) if row.example.id not in ledger.ids]))
    rows = _leave_out(rows, exact, ledger, protected)
    kept = [row for row in rows_of(first, pixels_of) if row.example.id not in ledger.ids]
    texts = near_text_rows(kept, recipe.duplicates.text_jaccard)
    rows = _leave_out(rows, near_duplicates(kept, near, recipe.duplicates.text_jaccard), ledger, protected)
    rows = _leave_out(rows, near_text_duplicates(texts), ledger, protected)
    twins = [(pair.kept.group, pair.later.group) for pair in texts]
    twins += [(group_of[row.id], group_of[str(row.evidence["twin"])]) for row in exact]
    merged = merge_groups(before, pixels_of, near, twins)
    parts: dict[str, set[str]] = {}
    for group, name in merged.items():
        parts.setdefault(name, set()).add(group)
    several = {name: tuple(sorted(found)) for name, found in parts.items() if len(found) > 1}
    return tuple(replace(row, group=merged[row.group]) for row in rows), several


def _without_leaks(
    rows: tuple[Example, ...],
    sound: Mapping[str, Fingerprint],
    near: NearImages,
    members: Mapping[str, frozenset[Member]],
    tests: Sequence[Dataset],
    recipe: CurateRecipe,
    ledger: Ledger,
    on_event: OnEvent,
) -> tuple[Example, ...]:
    """Leave out rows for training, calibration and search that are too near to test rows, ours or given ones."""
    sets = [_test_set(label, test, on_event) for label, test in _labelled(tests)]
    if recipe.leaks.own_test:
        sets.insert(0, TestSet("own test role", tuple(row for row in rows if row.role == "test"), sound, members))
    for number, test in enumerate(sets, 1):
        used = [row for row in rows if row.role != "test"]
        rows = _leave_out(rows, leaks(used, sound, near, members, test, recipe.leaks), ledger)
        on_event(Event("leaks", number, len(sets), "test sets"))
    return rows


def _split_kept(dataset: Dataset, rules: CurateRecipe) -> JSON:
    """Return what names the split in every result: the official one, a kept one of the source, or none."""
    if rules.roles.divide == "official":
        apart = rules.leaks.own_test and any(row.images for row in dataset.examples)
        return {"name": "image-disjoint" if apart else "official"}
    return dataset.manifest.details.get("split") if rules.roles.divide == "keep" else None


def _labelled(tests: Sequence[Dataset]) -> list[tuple[str, Dataset]]:
    """Return each test set once with the name that tells it from the others: its own, or with its hash behind."""
    sets = {test.sha256: test for test in tests}
    names = Counter(test.manifest.name for test in sets.values())
    return [
        (name if names[name := test.manifest.name] == 1 else f"{name}@{test.sha256[:16]}", test)
        for test in sets.values()
    ]


def _merged_before(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return what the dataset's groups were made of when it was curated itself."""
    told = dataset.manifest.details.get("merged_groups")
    parts = told.items() if isinstance(told, Mapping) else ()
    return {name: tuple(map(str, held)) for name, held in parts if isinstance(held, (list, tuple))}


def _merged_in_all(before: Mapping[str, tuple[str, ...]], now: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Return what every group is made of after a second curation, down to the groups that the sources state."""
    joined = {part for parts in now.values() for part in parts}
    groups = {**{group: (group,) for group in before if group not in joined}, **now}
    return {
        group: sorted({stated for part in parts for stated in before.get(part, (part,))})
        for group, parts in sorted(groups.items())
    }


def _test_set(label: str, dataset: Dataset, on_event: OnEvent) -> TestSet:
    examples = dataset.in_role("test") or dataset.examples
    found = _prints(dataset, examples, f"fingerprints of {label}", on_event)
    for path, image in found.items():
        if isinstance(image, str):
            raise ImageError(f"{dataset.folder / path} cannot be compared ({image}); repair the test dataset")
    prints = {path: image for path, image in found.items() if isinstance(image, Fingerprint)}
    return TestSet(label, examples, prints, members_of(examples, _merged_before(dataset)))


def _within_budget(rows: Sequence[Example], recipe: CurateRecipe, ledger: Ledger) -> tuple[Example, ...]:
    """Return the rows role after role, each in the order of its budget and cut off at it."""
    result: list[Example] = []
    for role in ROLES:
        ranked = rank([row for row in rows if row.role == role], recipe.seed, role in recipe.budget.balance_yes_no)
        for row in ranked.left_out:
            ledger.add(row)
        budget = recipe.budget.of(role) or len(ranked.order)
        result.extend(ranked.order[:budget])
        for place, example in enumerate(ranked.order[budget:], budget + 1):
            evidence: dict[str, JSON] = {"role": role, "place": place, "budget": budget}
            ledger.add(LeftOut(example.id, "budget", f"beyond the {role} budget", evidence))
    return tuple(result)
