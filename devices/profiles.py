"""The devices that can be planned for: one row each, with the marks of figures that were not re-checked.

Knows no model and no level; docs/devices.md shows the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .. import InfimedError

Kind = Literal["jetson", "cpu"]

GB = 10**9
# The worst share of its peak that a processor's memory was seen to read at: a Raspberry Pi 5, 11.6 of 17.1 GB/s.
READ_SHARE_OF_PEAK = 0.67


class UnknownDevice(InfimedError):
    """No device of that name is in the table."""


@dataclass(frozen=True)
class DeviceProfile:
    """One device.

    memory_bytes: as printed, in units of 10^9, which is about what Linux reports on a device sold with that many GiB.
    system_reserve_bytes: left for the system. bandwidth_bytes_per_s: peak; read_bandwidth_bytes_per_s: measured, None
    where it was not. gpu_sm: compute capability, None without a GPU. unverified: fields widely quoted, not re-checked.
    """

    name: str
    title: str
    kind: Kind
    memory_bytes: int
    system_reserve_bytes: int
    bandwidth_bytes_per_s: float
    read_bandwidth_bytes_per_s: float | None = None
    gpu_sm: str | None = None
    int8_dense_tops: float | None = None
    power_modes: tuple[str, ...] = ()
    jetpack: str = ""
    unverified: frozenset[str] = frozenset()
    remark: str = ""

    @property
    def available_bytes(self) -> int:
        """Memory that a program may use; on a Jetson processor and GPU share it."""
        return self.memory_bytes - self.system_reserve_bytes

    @property
    def backend(self) -> Literal["cpu", "cuda"]:
        """What an engine with a GPU build computes on here."""
        return "cuda" if self.gpu_sm else "cpu"

    def read_bytes_per_s(self) -> float:
        """Return what the processor reads from memory: measured, else a cautious share of the peak."""
        return self.read_bandwidth_bytes_per_s or READ_SHARE_OF_PEAK * self.bandwidth_bytes_per_s


def _jetson(
    name: str,
    title: str,
    memory_gb: int,
    bandwidth_gb_s: float,
    sm: str,
    dense_tops: float | None,
    modes: str,
    jetpack: str,
    unverified: str = "",
    remark: str = "",
) -> DeviceProfile:
    reserve = int(1.5 * GB) if memory_gb <= 4 else int(2.5 * GB)
    return DeviceProfile(
        name,
        title,
        "jetson",
        memory_gb * GB,
        reserve,
        bandwidth_gb_s * GB,
        gpu_sm=sm,
        int8_dense_tops=dense_tops,
        power_modes=tuple(modes.split()),
        jetpack=jetpack,
        unverified=frozenset(unverified.split()),
        remark=remark,
    )


def _computer(
    name: str, title: str, memory_gb: int, bandwidth_gb_s: float, read_gb_s: float | None, modes: str, unverified: str
) -> DeviceProfile:
    return DeviceProfile(
        name,
        title,
        "cpu",
        memory_gb * GB,
        int((1.0 if memory_gb <= 4 else 1.5 if memory_gb <= 8 else 2.5) * GB),
        bandwidth_gb_s * GB,
        read_bandwidth_bytes_per_s=read_gb_s * GB if read_gb_s else None,
        power_modes=tuple(modes.split()),
        unverified=frozenset(unverified.split()),
    )


_FP4 = "its printed figures are FP4 TFLOPS (sparse): T4000 1200, T5000 2070"
_OLD_PYTHON = "JetPack 5 brings Python 3.8; infimed needs 3.10 or later installed beside it"

# INT8 TOPS are printed sparse; the table holds the dense half, which is what a plain model reaches.
PROFILES: tuple[DeviceProfile, ...] = (
    _jetson("orin-nano-4gb", "Jetson Orin Nano 4GB", 4, 34, "8.7", 10, "7W 10W", "5.1 - 7.2"),
    _jetson(
        "orin-nano-4gb-super",
        "Jetson Orin Nano 4GB Super",
        4,
        51,
        "8.7",
        17,
        "10W 25W MAXN_SUPER",
        "6.1+",
        "bandwidth_bytes_per_s int8_dense_tops power_modes",
    ),
    _jetson("orin-nano-8gb", "Jetson Orin Nano 8GB", 8, 68, "8.7", 20, "7W 15W", "5.1 - 7.2"),
    _jetson("orin-nano-8gb-super", "Jetson Orin Nano 8GB Super", 8, 102, "8.7", 33.5, "15W 25W MAXN_SUPER", "6.1+"),
    _jetson(
        "orin-nx-8gb",
        "Jetson Orin NX 8GB",
        8,
        102,
        "8.7",
        35,
        "10W 15W 20W MAXN",
        "5.1 - 7.2",
        remark="in Super mode 58.5 TOPS dense (widely quoted, not re-checked); the bandwidth is the same",
    ),
    _jetson(
        "orin-nx-16gb",
        "Jetson Orin NX 16GB",
        16,
        102,
        "8.7",
        50,
        "10W 15W 25W MAXN",
        "5.1 - 7.2",
        remark="in Super mode 78.5 TOPS dense; the bandwidth is the same",
    ),
    _jetson("agx-orin-32gb", "Jetson AGX Orin 32GB", 32, 204.8, "8.7", 100, "15W 30W 40W MAXN", "5.1 - 7.2"),
    _jetson("agx-orin-64gb", "Jetson AGX Orin 64GB", 64, 204.8, "8.7", 137.5, "15W 30W 50W MAXN", "5.1 - 7.2"),
    *(
        _jetson(
            f"xavier-nx-{gb}gb",
            f"Jetson Xavier NX {gb}GB",
            gb,
            59.7,
            "7.2",
            21,
            "10W 15W 20W",
            "<= 5.1",
            remark=_OLD_PYTHON,
        )
        for gb in (8, 16)
    ),
    *(
        _jetson(
            f"agx-xavier-{gb}gb",
            f"Jetson AGX Xavier {gb}GB",
            gb,
            137,
            "7.2",
            32,
            "10W 15W 30W",
            "<= 5.1",
            "power_modes",
            _OLD_PYTHON,
        )
        for gb in (32, 64)
    ),
    _jetson("thor-t4000", "Jetson Thor T4000", 64, 273, "11.0", None, "40-70W", "7.1+", remark=_FP4),
    _jetson("thor-t5000", "Jetson Thor T5000 and AGX Thor kit", 128, 273, "11.0", None, "40-130W", "7.0+", remark=_FP4),
    *(
        _computer(f"raspberry-pi-5-{gb}gb", f"Raspberry Pi 5 {gb}GB", gb, 17.1, 11.6, "6-12W", "bandwidth_bytes_per_s")
        for gb in (4, 8, 16)
    ),
    *(
        _computer(
            f"cpu-workstation-ddr4-{gb}gb",
            f"x86-64 workstation, two channels of DDR4-3200, {gb}GB",
            gb,
            51.2,
            None,
            "65-170W",
            "bandwidth_bytes_per_s",
        )
        for gb in (16, 32, 64)
    ),
    *(
        _computer(
            f"cpu-workstation-ddr5-{gb}gb",
            f"x86-64 workstation, two channels of DDR5-5600, {gb}GB",
            gb,
            89.6,
            None,
            "65-170W",
            "bandwidth_bytes_per_s",
        )
        for gb in (32, 64, 128)
    ),
)


def device(name: str) -> DeviceProfile:
    """Return the device of that name. Raises UnknownDevice with the nearest names and the command that lists all."""
    for row in PROFILES:
        if row.name == name:
            return row
    near = list(_near(name))
    said = f"; near it: {', '.join(near)}" if near else ""
    raise UnknownDevice(f"device {name!r} is not in the table{said}; `infimed devices list` shows all")


def _near(name: str) -> Iterator[str]:
    from difflib import get_close_matches

    yield from get_close_matches(name.casefold().replace("_", "-"), [row.name for row in PROFILES], 3, 0.5)
