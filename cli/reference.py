"""The reference of a run or a report: a store that is written after a run, or one that levels are held against.

Used by evaluate and drift. Knows options and their errors, no format and no figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import InfimedError

if TYPE_CHECKING:
    from ..evaluation.answer_tokens import AnswerRule
    from ..evaluation.dataset import Dataset
    from ..evaluation.reference_store import StoreManifest
    from ..training.targets import Target

_REFERENCE_BITS = 16.0


def answer_rule(
    write: Path | None,
    held_against: Path | None,
    targets: Sequence[Target],
    dataset: Dataset,
    role: str,
    settings: Mapping[str, str | int | bool],
    out: Path,
) -> AnswerRule | None:
    """Return what is done with the reference's answers, None where neither option is given.

    Refuses what cannot be a reference or cannot be held against one before anything is asked, then lays the store's
    runs into `out`.
    """
    from ..evaluation.answer_tokens import KeepAnswers
    from ..evaluation.reference_store import SUFFIX, ReferenceStore

    if write and held_against:
        raise InfimedError("--reference-store writes a reference and --reference takes one; give one of the two")
    if write:
        if write.suffix != SUFFIX:
            raise InfimedError(f"{write} is no name for a reference store; it must end in {SUFFIX}")
        if len(targets) != 1:
            raise InfimedError(f"--reference-store is of one model, not of {len(targets)}; name one with --level")
        if targets[0].weight_bits < _REFERENCE_BITS:
            raise InfimedError(
                f"{targets[0].run} has {targets[0].weight_bits:g} bits per weight and is no reference; take the "
                f"checkpoint, or a level of at least {_REFERENCE_BITS:g} bits"
            )
        if write.exists():
            ReferenceStore.open(write)  # only a store is written over
        return KeepAnswers()
    if held_against is None:
        return None
    store = ReferenceStore.open(held_against)
    for target in targets:
        if target.run == store.manifest.reference:
            raise InfimedError(
                f"{held_against} is of the run {target.run!r} itself; name the levels to hold against it with --level"
            )
        store.check(
            dataset_sha256=dataset.sha256, role=role, settings=settings, made_from=target.made_from,
            token_path_sha256=target.token_path(), level=target.run,
        )  # fmt: skip
    store.lay(out)
    return store.rule()


def keep_store(write: Path, target: Target, runs: Path) -> StoreManifest:
    """Write the store of a reference that was run into a folder."""
    from ..evaluation.reference_store import write_store

    return write_store(
        runs, target.run, write, made_from=target.made_from, token_path_sha256=target.token_path()
    )  # fmt: skip


def reference_run(reference: str, runs: Path | None) -> str:
    """Return the name of the reference's run; of a store's file after its runs were laid beside the levels'.

    runs: their folder; None before any run.
    """
    from ..evaluation.reference_store import SUFFIX, ReferenceStore

    if not reference.endswith(SUFFIX):
        return reference
    store = ReferenceStore.open(Path(reference))
    if runs is not None:
        if not runs.is_dir():
            raise InfimedError(f"{runs} is no folder of runs; make it with infimed evaluate --reference {reference}")
        store.check_runs(runs)
        store.lay(runs)
    return store.manifest.reference
