"""Rows too near to test data: their image, their text where the image is of the same cluster, or their patient.

Looser than the duplicate rule on purpose. Knows examples and fingerprints of both sides; the caller says what is test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..evaluation.example import JSON, Example
from .curate_fingerprints import Fingerprint
from .curate_groups import Member, NearImages, Together
from .curate_ledger import LeftOut
from .curate_near import Near, near_pairs
from .curate_recipe import LeakRules
from .curate_texts import GramIndex, overlap


@dataclass(frozen=True)
class TestSet:
    """Test rows to keep out of training. name: as reports call it. prints: fingerprints by ImageRef.path.

    members: what the rows' groups hold, as members_of says it.
    """

    name: str
    examples: tuple[Example, ...]
    prints: Mapping[str, Fingerprint]
    members: Mapping[str, frozenset[Member]]

    __test__ = False  # not a test class, though its name begins like one


def leaks(
    examples: Sequence[Example],
    prints: Mapping[str, Fingerprint],
    near: NearImages,
    members: Mapping[str, frozenset[Member]],
    test: TestSet,
    rules: LeakRules,
) -> Iterator[LeftOut]:
    """Yield the rows among `examples` that are too near to a row of `test`.

    near: the images of `examples`' set. members: what its groups hold, as members_of says it.
    """
    test_holders: dict[str, list[Example]] = {}
    test_images: dict[str, Fingerprint] = {}
    for example in test.examples:
        for ref in example.images:
            image = test.prints[ref.path]
            test_images[image.pixels] = image
            test_holders.setdefault(image.pixels, []).append(example)
    mine = {prints[ref.path].pixels: prints[ref.path] for example in examples for ref in example.images}
    left, right = list(mine.values()), list(test_images.values())
    nearest: dict[str, tuple[str, Near]] = {}
    clusters = Together()
    for pixels, twin in near.links():
        clusters.join(pixels, twin)
    for pair in near_pairs(left, rules.images, right):
        pixels, twin = left[pair.left].pixels, right[pair.right].pixels
        clusters.join(pixels, twin)
        best = nearest.get(pixels)
        if best is None or (pair.distance, -pair.correlation) < (best[1].distance, -best[1].correlation):
            nearest[pixels] = (twin, pair)
    in_cluster: dict[str, list[Example]] = {}
    for pixels, holders in test_holders.items():
        in_cluster.setdefault(clusters.of(pixels), []).extend(holders)
    tested = {member: row.id for row in reversed(test.examples) for member in test.members[row.group]}
    plain = [example for example in test.examples if not example.images]
    index = GramIndex([_text(example) for example in plain])
    for example in examples:
        if example.images:
            shown = [prints[ref.path].pixels for ref in example.images]
            related = [row for key in shown for row in in_cluster.get(clusters.of(key), ())]
            evidence = _image_leak(shown, nearest, test_holders) or _cluster_leak(example, related, rules.text_overlap)
        else:
            position, share = index.best(_text(example))
            found = share >= rules.text_overlap
            evidence = {"twin": plain[position].id, "text_overlap": round(share, 4)} if found else None
        evidence = evidence or _group_leak(members[example.group], tested)
        if evidence is not None:
            what = "text" if "text_overlap" in evidence else "patient or group" if "group" in evidence else "image"
            reason = f"{what} of test data"
            yield LeftOut(example.id, "leak", reason, {"test": test.name, **evidence})


def _image_leak(
    pixels: Sequence[str], nearest: Mapping[str, tuple[str, Near]], holders: Mapping[str, Sequence[Example]]
) -> dict[str, JSON] | None:
    for one in pixels:
        if one in nearest:
            other, pair = nearest[one]
            return {
                "twin": holders[other][0].id,
                "distance_bits": pair.distance,
                "correlation": pair.correlation,
                "detail": pair.detail,
            }
    return None


def _cluster_leak(example: Example, rows: Sequence[Example], threshold: float) -> dict[str, JSON] | None:
    """Not near to the test image itself, but of its cluster, and asking the same."""
    for row in rows:
        share = overlap(_text(example), _text(row))
        if share >= threshold:
            return {"twin": row.id, "text_overlap": round(share, 4)}
    return None


def _group_leak(held: frozenset[Member], tested: Mapping[Member, str]) -> dict[str, JSON] | None:
    """Another image of a patient in the test set, or of whatever else the source calls one group."""
    shared = sorted(held & tested.keys())
    return {"twin": tested[shared[0]], "group": list(shared[0])} if shared else None


def _text(example: Example) -> str:
    """The texts; with the options where there is no image, for "Which is true?" says nothing alone."""
    return "\n".join([*example.texts, *(() if example.images else sorted(example.options))])
