"""How long does `infimed --help` take, against an interpreter that does nothing and one that only imports typer?

The aim is under 0.3 s; an absolute time is no pass mark on a loaded machine, so the ratio to a bare interpreter stands
beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import infimed

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "infimed --help": [str(Path(sys.executable).with_name("infimed")), "--help"],
    "infimed devices list": [str(Path(sys.executable).with_name("infimed")), "devices", "list"],
}


def once(command: list[str]) -> tuple[float, float]:
    """Return the wall time and the processor time of one call, in seconds."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent


def main() -> None:
    """Measure the commands in turn, so that load falls on all of them alike, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 calls of each instead of 30")
    calls = 5 if parser.parse_args().quick else 30
    for command in COMMANDS.values():
        once(command)
    wall: dict[str, list[float]] = {name: [] for name in COMMANDS}
    spent: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(calls):
        for name, command in COMMANDS.items():
            seconds = once(command)
            wall[name].append(seconds[0])
            spent[name].append(seconds[1])
    print(
        f"infimed {infimed.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {calls} calls each"
    )
    print(f"{'command':26} {'median s':>9} {'min':>6} {'max':>6} {'processor s':>12} {'x bare':>7}")
    bare = statistics.median(wall["python -c pass"])
    for name, times in wall.items():
        median = statistics.median(times)
        processor = statistics.median(spent[name])
        print(f"{name:26} {median:9.3f} {min(times):6.3f} {max(times):6.3f} {processor:12.3f} {median / bare:7.1f}")


if __name__ == "__main__":
    main()
