"""How much anonymous memory does a command take at its peak, with all the processes it starts?

Anonymous memory (RssAnon of /proc/PID/status) is what a machine must really have: pages of a mapped file can be dropped
and read again. It is sampled, so a peak shorter than the interval can be missed; `--check` holds the meter against
processes whose need is known. The other benchmarks of scale measure through `metered`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MB = 10**6
INTERVAL_S = 0.01
LAST_LINES = 30


@dataclass(frozen=True)
class Metered:
    """One run of a command. code: its exit code. anon_bytes, resident_bytes: peaks of the sums over its processes.

    wall_s, processor_s: from start to end, and on all processors. over_limit: it was ended at the limit of anonymous
    memory. output: what it printed; errors: the end of what it said besides.
    """

    code: int
    wall_s: float
    processor_s: float
    anon_bytes: int
    resident_bytes: int
    over_limit: bool
    output: str
    errors: str

    @property
    def anon_gb(self) -> float:
        """Return the peak of anonymous memory in 10^9 bytes."""
        return self.anon_bytes / 1e9


def metered(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    limit_bytes: int | None = None,
    interval_s: float = INTERVAL_S,
) -> Metered:
    """Run a command to its end and return what it took.

    environment: variables beside those of this process. limit_bytes: of anonymous memory, at which it is ended, so that
    the machine never is.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        anon = resident = 0
        over = False
        try:
            while True:
                found, status, usage = os.wait4(process.pid, os.WNOHANG)
                if found:
                    break
                now = [_sizes(pid) for pid in _family(process.pid)]
                anon, resident = max(anon, sum(a for a, _ in now)), max(resident, sum(r for _, r in now))
                if limit_bytes is not None and anon > limit_bytes and not over:
                    over = True
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(interval_s)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        wall_s = time.perf_counter() - start
        for stream in (output, errors):
            stream.seek(0)
        said = errors.read().decode("utf-8", "replace").splitlines()[-LAST_LINES:]
        return Metered(
            code=process.returncode,
            wall_s=wall_s,
            processor_s=usage.ru_utime + usage.ru_stime,
            anon_bytes=anon,
            resident_bytes=resident,
            over_limit=over,
            output=output.read().decode("utf-8", "replace"),
            errors="\n".join(said),
        )


def end_tidily() -> None:
    """Let a request to end (SIGTERM, SIGHUP) unwind this process: what it wrote is removed, what it runs is ended."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, frame: sys.exit(128 + got))


def available_bytes() -> int:
    """Return what the machine could give a new process now (MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/meminfo has no MemAvailable; this benchmark needs Linux")


def _family(pid: int) -> Iterator[int]:
    """Yield a process and all that it started, as they are now."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:  # ended meanwhile
            continue
        for child in children:
            yield from _family(int(child))


def _sizes(pid: int) -> tuple[int, int]:
    """Return (anonymous, resident) bytes of a process; zeros once it has ended."""
    sizes = {"RssAnon": 0, "VmRSS": 0}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in sizes:
                sizes[key] = int(value.split()[0]) * 1024
    except OSError:
        pass
    return sizes["RssAnon"], sizes["VmRSS"]


# What must be seen: memory of the process, of its child, and not the pages of a mapped file.
_HOLD = "import time; held = bytearray(b'x') * {bytes}; time.sleep(0.3)"
_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
_MAPPED = """
import mmap, tempfile, time
with tempfile.NamedTemporaryFile() as file:
    for _ in range({bytes} // 1000000):
        file.write(bytes(1000000))
    file.flush()
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        total = sum(pages[::4096])
        time.sleep(0.3)
"""


def check() -> None:
    """Measure processes whose need is known; SystemExit where the meter is off by more than 5 % of 200 MB."""
    size = 200 * MB
    bare = metered([sys.executable, "-c", "import time; time.sleep(0.3)"])
    hold = _HOLD.format(bytes=size)
    cases = {
        "its own": (hold, size, 1),
        "a child's": (_CHILD.format(code=hold), size, 2),
        "a mapped file": (_MAPPED.format(bytes=size), 0, 1),
    }
    for name, (code, wanted, processes) in cases.items():
        found = metered([sys.executable, "-c", code])
        if found.code:
            raise SystemExit(f"{name}: the process failed\n{found.errors}")
        anon = found.anon_bytes - processes * bare.anon_bytes
        print(f"{name:14} {wanted / MB:6.0f} MB held, {anon / MB:6.1f} MB of anonymous memory seen")
        if abs(anon - wanted) > 0.05 * size:
            raise SystemExit(f"{name}: {anon / MB:.1f} MB seen, {wanted / MB:.0f} MB were held; the meter is wrong")
    if not metered([sys.executable, "-c", _HOLD.format(bytes=4 * size)], limit_bytes=size).over_limit:
        raise SystemExit("a process that took four times its limit was not ended")
    print("a process beyond its limit was ended")


def main() -> int:
    """Run a command under the meter, or check the meter; return the command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="hold the meter against processes whose need is known")
    parser.add_argument("--json", action="store_true", help="print the measurement as JSON")
    parser.add_argument("command", nargs="*", help="what to run, after --")
    given = parser.parse_args()
    if given.check:
        check()
        return 0
    if not given.command:
        parser.error("name a command after --, or --check")
    found = metered(given.command)
    if given.json:
        print(json.dumps(asdict(found), indent=2))
        return found.code
    print(found.output, end="")
    print(found.errors, file=sys.stderr)
    print(
        f"{shlex.join(given.command)}: exit code {found.code}, {found.wall_s:.1f} s, {found.processor_s:.1f} s of "
        f"processors, {found.anon_bytes / MB:.0f} MB anonymous, {found.resident_bytes / MB:.0f} MB resident at the peak"
    )
    return found.code


if __name__ == "__main__":
    sys.exit(main())
