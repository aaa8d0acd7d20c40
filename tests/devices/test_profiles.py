"""The table of devices: plain names, sane figures, and help for a misspelt name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from infimed.devices.profiles import GB, PROFILES, DeviceProfile, UnknownDevice, device


def test_names_are_unique_and_plain() -> None:
    names = [row.name for row in PROFILES]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and " " not in name and "_" not in name for name in names)


def test_every_device_leaves_room_for_the_system_and_marks_only_real_fields() -> None:
    known = {field.name for field in fields(DeviceProfile)}
    for row in PROFILES:
        assert 0 < row.available_bytes < row.memory_bytes
        assert row.unverified <= known
        if row.kind == "jetson":
            assert 1.5 * GB <= row.system_reserve_bytes <= 2.5 * GB and row.gpu_sm
        else:
            assert row.backend == "cpu"


@pytest.mark.parametrize("row", PROFILES, ids=lambda row: row.name)
def test_a_device_is_found_by_its_name_and_reads_no_faster_than_its_peak(row: DeviceProfile) -> None:
    assert device(row.name) is row
    assert row.read_bytes_per_s() < row.bandwidth_bytes_per_s


def test_an_unknown_device_is_refused_with_what_is_near_and_where_the_list_is() -> None:
    with pytest.raises(UnknownDevice, match=r"'Orin_Nano_8G' .* orin-nano-8gb.*infimed devices list"):
        device("Orin_Nano_8G")
    with pytest.raises(UnknownDevice, match=r"'cray-1' is not in the table; `infimed devices list`"):
        device("cray-1")
