"""The page of a dataset: everything escaped, nothing from elsewhere, a fair sample."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infimed.evaluation.dataset import Dataset, image_ref, write_dataset
from infimed.evaluation.example import Example, TextRef
from infimed.evaluation.show import page, sample, write_page

EVIL = '<script>alert("x")</script>&\'"'


def picture(seed: int, side: int = 40) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def example(number: int, image: bytes, **changes: Any) -> Example:
    fields: dict[str, Any] = {
        "id": f"q{number}", "content": (image_ref(image), TextRef("Is there a mass?")), "answer": "no",
        "options": ("yes", "no"), "answer_type": "yesno", "modality": "ct", "task": "finding", "source": "s",
        "license": "MIT", "group": f"g{number}", "role": "train",
    }  # fmt: skip
    return Example(**{**fields, **changes})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    images = [picture(0), picture(1, 900)]
    rows = [
        example(0, images[0]),
        example(1, images[0], content=(image_ref(images[0]), TextRef(EVIL)), group="g0"),
        example(2, images[1], source=EVIL, group=EVIL, license=EVIL, role="test", attributes={EVIL: EVIL}),
        example(
            3, images[0], content=(TextRef(EVIL), TextRef("What?")), answer=EVIL, options=(EVIL, "b"),
            answer_type="choice", modality="text", task="open",
        ),
        example(
            4, images[1], content=(image_ref(images[1]), TextRef("What?")), answer=EVIL, options=(), aliases=(EVIL,),
            answer_type="open", group="g2",
        ),
    ]  # fmt: skip
    return write_dataset(
        tmp_path / "set", rows, {image_ref(data).path: data for data in images}, name=EVIL, official_split=True
    )


class Tags(HTMLParser):
    """Counts tags and collects what they point to; complains where a closing tag has no opening one."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.targets: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.targets += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_text_is_escaped_and_nothing_comes_from_elsewhere(dataset: Dataset) -> None:
    html = page(dataset, dataset.examples)
    assert "<script" not in html and html.count("&lt;script&gt;") >= 8
    tags = Tags()
    tags.feed(html)
    assert not tags.open, "every tag is closed"
    assert tags.tags["script"] == tags.tags["link"] == 0 and tags.tags["img"] == 2
    assert all(target.startswith(("data:image/", "#")) for target in tags.targets)
    assert "default-src 'none'" in html and "@import" not in html and "url(" not in html


def test_questions_about_one_image_share_a_card_and_the_image_is_what_the_file_holds(dataset: Dataset) -> None:
    html = page(dataset, dataset.examples)
    assert html.count("<article") == 3
    uris = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    small, large = (np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris)
    assert np.array_equal(small, np.asarray(Image.open(io.BytesIO(picture(0)))))
    assert large.shape == (448, 448, 3), "a large image is reduced"


def test_the_answer_is_marked_and_the_role_is_shown(dataset: Dataset) -> None:
    html = page(dataset, dataset.examples[:1])
    assert '<li>yes</li><li class="right">no</li>' in html.replace("class=right", 'class="right"')
    assert '<span class="role train">train</span>' in html and "train 80 %" in html and "test 20 %" in html


def test_the_sample_is_seeded_spread_over_cells_and_in_dataset_order() -> None:
    image = picture(0)
    rows = [example(n, image, task="finding" if n < 90 else "count") for n in range(100)]
    first, again, other = (sample(rows, 20, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert Counter(row.task for row in first) == {"finding": 10, "count": 10}
    assert [row.id for row in first] == [row.id for row in rows if row in first]
    assert len(sample(rows, 0, 1)) == 100 and len(sample(rows, 500, 1)) == 100


def test_the_page_is_written_whole_and_the_same_twice(dataset: Dataset, tmp_path: Path) -> None:
    assert write_page(dataset, tmp_path / "a.html", limit=3) == 3
    write_page(dataset, tmp_path / "b.html", limit=3)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html", "set"]
