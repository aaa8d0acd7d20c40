"""Records survive their JSON form, and nothing else gets in."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infimed import InfimedError
from infimed.evaluation.jsonform import FormError, from_json, parse, to_json
from infimed.evaluation.prediction import Identity, PredictionError, read_rows

from .planted import answered, items


@dataclass(frozen=True)
class Inner:
    name: str
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    kind: Literal["a", "b"]
    inner: Inner
    rows: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (0, "")
    either: Inner | int = 0
    named: Mapping[str, str | int | bool] = field(default_factory=dict)


def test_nested_records_come_back_equal() -> None:
    value = Outer("b", Inner("x", 1.0), (Inner("y"), Inner("z", 0.5)), (3, "p"), Inner("w"), {"n": 1, "on": True})
    assert from_json(Outer, json.loads(json.dumps(to_json(value)))) == value
    assert from_json(Outer, {"kind": "a", "inner": {"name": "x", "share": 1}}).inner.share == 1.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "c"}, r"value\.kind is 'c'; it must be one of 'a', 'b'"),
        ({"inner": []}, r"value\.inner is \[\]; it must be an object"),
        ({"inner": {"name": 1}}, r"value\.inner\.name is 1; it must be str"),
        ({"inner": {"name": "x", "share": "1"}}, r"value\.inner\.share is '1'; it must be a finite number"),
        ({"inner": {"name": "x", "share": True}}, r"share is True; it must be a finite number"),
        ({"rows": [{"name": "x"}, {}]}, r"value\.rows\[1\] has no field 'name'"),
        ({"pair": [1]}, r"value\.pair has 1 values; it must have 2"),
        ({"pair": [True, "x"]}, r"value\.pair\[0\] is True; it must be int"),
        ({"named": {"n": None}}, r"value\.named\.n is None"),
        ({"extra": 1}, r"value has the unknown field 'extra'; known are kind, inner"),
    ],
)
def test_a_value_that_is_not_what_its_type_says_is_named(change: dict[str, object], told: str) -> None:
    with pytest.raises(FormError, match=told):
        from_json(Outer, {"kind": "a", "inner": {"name": "x"}, **change})


def test_text_that_is_no_json_is_refused_however_deep() -> None:
    for data in (b"{", b"\xff", b"[" * 100_000, b'{"share": NaN}', b"-Infinity"):
        with pytest.raises(FormError, match="is not JSON"):
            parse(data)
    with pytest.raises(FormError, match="must be a finite number"):
        from_json(Inner, parse(b'{"name": "x", "share": 1e999}'))


def test_numbers_without_a_json_form_are_refused() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(FormError, match="has no JSON form"):
            to_json(Inner("x", value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(["correct", "options", "score", "answer", "option_tokens", "images", "choice"]))
def test_whatever_stands_in_a_row_either_reads_or_is_refused_in_one_line(value: object, name: str) -> None:
    row = to_json(answered(items({("ct", "finding"): 1})[0], True))
    path = Path(tempfile.gettempdir()) / f"infimed-jsonform-{os.getpid()}.jsonl"
    try:
        path.write_text(json.dumps({**row, name: value}) + "\n")
        read_rows(path)
    except PredictionError as error:
        assert "\n" not in str(error) and ":1: " in str(error)
    finally:
        path.unlink(missing_ok=True)
    try:
        from_json(Identity, value)
    except InfimedError as error:
        assert "\n" not in str(error)
