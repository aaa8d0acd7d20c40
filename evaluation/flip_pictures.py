"""The pictures of a report's flips, small, taken from the dataset that the runs were made on. Knows no page."""

from __future__ import annotations

from .. import InfimedError
from .dataset import Dataset
from .drift_report import DriftReport
from .show import data_uri

_SIDE_PIXELS = 224
_DIRECT_BYTES = 20_000
_MOST_IMAGES = 3


class PicturesError(InfimedError):
    """A dataset that is not the one of the runs."""


def flip_pictures(report: DriftReport, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return the first images of every flip as data URIs, by the question's id.

    Raises PicturesError for another dataset than that of the runs.
    """
    if dataset.sha256 != report.dataset_sha256:
        raise PicturesError(
            f"{dataset.folder} has sha256 {dataset.sha256[:16]}, the runs are of {report.dataset_sha256[:16]} "
            f"({report.dataset}); give that dataset with --data"
        )
    wanted = {flip.example_id for flip in report.flips}
    return {
        example.id: tuple(data_uri(dataset, ref, _SIDE_PIXELS, _DIRECT_BYTES) for ref in example.images[:_MOST_IMAGES])
        for example in dataset.examples
        if example.id in wanted
    }
