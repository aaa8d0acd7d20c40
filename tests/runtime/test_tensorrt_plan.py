"""A plan is given out only if it was built here for exactly this: anything else is refused before it is loaded."""

from __future__ import annotations

import ctypes
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from infimed.runtime import tensorrt_plan
from infimed.runtime.tensorrt_plan import (
    Machine,
    PlanRecord,
    PlanRefused,
    keep_record,
    plan_path,
    plans_folder,
    read_plan,
    this_machine,
)

RECORD = PlanRecord(
    level="tensorrt-fp16",
    network="decoder",
    recipe_sha256="a" * 64,
    onnx_sha256="b" * 64,
    files_sha256="c" * 64,
    library="tensorrt",
    version="10.3.0",
    compute_capability="8.7",
    driver="12.6",
    weight_streaming="no",
    plan_sha256="",
)


def built(folder: Path, record: PlanRecord = RECORD, data: bytes = b"a plan") -> Path:
    plan = plan_path(folder, record)
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(data)
    keep_record(folder, record)
    return plan


def test_a_plan_that_was_built_here_is_given_out_again(tmp_path: Path) -> None:
    plan = built(tmp_path / "plans")
    assert read_plan(tmp_path / "plans", RECORD) == b"a plan"
    assert plan.name == "decoder-sm87-tensorrt-10.3.0.plan"
    assert (tmp_path / "plans/seal.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "name", [field.name for field in fields(PlanRecord) if field.name not in ("plan_sha256", "seal")]
)
def test_a_plan_of_anything_else_is_refused(name: str, tmp_path: Path) -> None:
    """Also where the other's place is the same: its record is put there."""
    expected = replace(RECORD, **{name: "8.9" if name == "compute_capability" else f"x{getattr(RECORD, name)}"[:64]})
    other = built(tmp_path)
    with pytest.raises(PlanRefused):
        read_plan(tmp_path, expected)
    place = plan_path(tmp_path, expected)
    if place != other:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(other, place)
        shutil.copyfile(other.with_suffix(".json"), place.with_suffix(".json"))
    with pytest.raises(PlanRefused, match=f"has {name} .* is needed; build it again"):
        read_plan(tmp_path, expected)


def test_a_changed_plan_or_record_is_refused(tmp_path: Path) -> None:
    plan = built(tmp_path)
    plan.write_bytes(b"another plan")
    with pytest.raises(PlanRefused, match="was changed after it was built"):
        read_plan(tmp_path, RECORD)
    record = plan.with_suffix(".json")
    value = json.loads(record.read_text())
    value["plan_sha256"] = tensorrt_plan.sha256_file(plan)
    record.write_text(json.dumps(value))
    with pytest.raises(PlanRefused, match="was not built by this user on this machine"):
        read_plan(tmp_path, RECORD)
    for broken in ("{", "[]", "{}", json.dumps({**value, "more": "1"}), json.dumps({**value, "level": 3})):
        record.write_text(broken)
        with pytest.raises(PlanRefused, match="build the plan again"):
            read_plan(tmp_path, RECORD)
    record.unlink()
    with pytest.raises(PlanRefused, match="is not built; run infimed build"):
        read_plan(tmp_path, RECORD)


def test_a_plan_from_another_machine_is_refused_with_its_record_whole(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    plan = built(there)
    built(here, replace(RECORD, network="vision"))
    place = plan_path(here, RECORD)
    shutil.copyfile(plan, place)
    shutil.copyfile(plan.with_suffix(".json"), place.with_suffix(".json"))
    assert read_plan(there, RECORD) == b"a plan"
    with pytest.raises(PlanRefused, match="was not built by this user on this machine"):
        read_plan(here, RECORD)


def test_a_key_that_others_may_read_is_no_key(tmp_path: Path) -> None:
    built(tmp_path)
    (tmp_path / "seal.key").chmod(0o644)
    with pytest.raises(PlanRefused, match="is not this user's alone"):
        read_plan(tmp_path, RECORD)


def test_plans_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plans_folder() == tmp_path / "infimed/tensorrt"


class FakeDriver:
    """Answers as libcuda does (cuda.h), for an Orin; `broken` calls return an error."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            values = {"cuDriverGetVersion": 12060, "cuDeviceGet": 0, "cuDeviceGetAttribute": None}
            if name in values:
                number = {75: 8, 76: 7}[arguments[1]] if name == "cuDeviceGetAttribute" else values[name]
                arguments[0]._obj.value = number
            return 100 if name == self.broken else 0

        return call


def test_the_driver_is_asked_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver())
    machine = this_machine()
    assert machine.compute_capability == "8.7" and machine.driver is not None and machine.driver.startswith("12.6")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver("cuDeviceGet"))
    assert this_machine() == Machine(None, None)

    def absent(name: str) -> Any:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert this_machine() == Machine(None, None)
