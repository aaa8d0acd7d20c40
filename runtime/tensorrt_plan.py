"""Keeps the plans that were built here, each with a record of what it is, and gives one out only if all of it agrees.

A plan is executable code. So it lies outside the bundle, in a folder of the user's own; its record is sealed with a key
that never leaves that folder; and everything is compared before TensorRT sees a byte. docs/tensorrt.md states the
record. Knows no graph.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import os
import secrets
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from .. import CheckFailed
from .files import canonical_json, locked, sha256_file, strict_json, write_bytes

SCHEMA = "infimed.tensorrt-plan/1"
KEY = "seal.key"
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor and Minor, the same numbers in the driver's API


class PlanRefused(CheckFailed):
    """A plan is not the one that was built here for this graph, library and GPU; it is not loaded."""


@dataclass(frozen=True)
class Machine:
    """The GPU that engines run on here. None: there is none, or its driver does not answer.

    compute_capability: such as "8.7". driver: the newest CUDA that it knows, such as "12.6", and the kernel module's
    version where there is one.
    """

    compute_capability: str | None
    driver: str | None


@dataclass(frozen=True)
class PlanRecord:
    """What a plan is. network: "decoder" or "vision". files_sha256: of the recipe's list of its graph and data files.

    library, version: TensorRT's module and version. compute_capability, driver: of the GPU it is for, "" where it was
    built without one and for none by name. weight_streaming: "yes" or "no". seal: HMAC-SHA256 of all the rest, by this
    user's key.
    """

    level: str
    network: str
    recipe_sha256: str
    onnx_sha256: str
    files_sha256: str
    library: str
    version: str
    compute_capability: str
    driver: str
    weight_streaming: str
    plan_sha256: str
    seal: str = ""

    def sealed(self, key: bytes) -> PlanRecord:
        """Return the record with its seal."""
        body = canonical_json({"schema": SCHEMA, **asdict(replace(self, seal=""))})
        return replace(self, seal=hmac.new(key, body, hashlib.sha256).hexdigest())


def this_machine() -> Machine:
    """Ask the NVIDIA driver for the first GPU that this process may use."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Machine(None, None)
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    answers = [
        cuda.cuInit(0),
        cuda.cuDriverGetVersion(ctypes.byref(version)),
        cuda.cuDeviceGet(ctypes.byref(device), 0),
    ]
    for number, place in ((_MAJOR, major), (_MINOR, minor)):
        answers.append(cuda.cuDeviceGetAttribute(ctypes.byref(place), number, device))
    if any(answers):
        return Machine(None, None)
    module = Path("/sys/module/nvidia/version")
    kernel = f" ({module.read_text('ascii').strip()})" if module.is_file() else ""
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}{kernel}"
    return Machine(f"{major.value}.{minor.value}", driver)


def plans_folder() -> Path:
    """Return where plans lie by default: infimed/tensorrt under XDG_CACHE_HOME, else under ~/.cache."""
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = stated if stated.is_absolute() else Path(os.path.expanduser("~")) / ".cache"
    return base / "infimed" / "tensorrt"


def plan_path(folder: Path, record: PlanRecord) -> Path:
    """Return where a plan lies in `folder`: a place of its own for each graph, library version and GPU."""
    target = f"sm{record.compute_capability.replace('.', '') or '-any'}"
    name = f"{record.network}-{target}-{record.library}-{record.version}.plan"
    return folder / f"{record.level}-{record.recipe_sha256[:16]}" / name


def keep_record(folder: Path, record: PlanRecord) -> None:
    """Seal the record of a plan that lies at its place in `folder`, and write it beside it."""
    plan = plan_path(folder, record)
    sealed = replace(record, plan_sha256=sha256_file(plan)).sealed(_key(folder))
    write_bytes(_record_path(plan), canonical_json({"schema": SCHEMA, **asdict(sealed)}))


def read_plan(folder: Path, expected: PlanRecord) -> bytes:
    """Return a plan's bytes for TensorRT to load. expected: what it must be; its plan_sha256 and seal do not count.

    Raises PlanRefused for a plan that is missing, changed, of another graph, library version, GPU or driver, or that
    was not built by this user on this machine.
    """
    plan = plan_path(folder, expected)
    try:
        value = strict_json(_record_path(plan).read_bytes())
        schema = value.pop("schema")
        record = PlanRecord(**value)
        data = plan.read_bytes()
    except FileNotFoundError:
        raise PlanRefused(f"{plan} is not built; run infimed build") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PlanRefused(f"{_record_path(plan)} is no record ({error}); build the plan again") from None
    if schema != SCHEMA or not all(isinstance(getattr(record, field.name), str) for field in fields(record)):
        raise PlanRefused(f"{_record_path(plan)} is of another form than {SCHEMA}; build the plan again")
    if not hmac.compare_digest(record.sealed(_key(folder)).seal, record.seal):
        raise PlanRefused(f"{plan} was not built by this user on this machine; build it again: a plan is a program")
    for field in fields(record):
        found, wanted = getattr(record, field.name), getattr(expected, field.name)
        if field.name not in ("plan_sha256", "seal") and found != wanted:
            raise PlanRefused(f"{plan} has {field.name} {found!r} where {wanted!r} is needed; build it again")
    if hashlib.sha256(data).hexdigest() != record.plan_sha256:
        raise PlanRefused(f"{plan} was changed after it was built; build it again")
    return data


def _record_path(plan: Path) -> Path:
    return plan.with_suffix(".json")


def _key(folder: Path) -> bytes:
    """Return this folder's key, made at the first call; only its user may read it."""
    path = folder / KEY
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder):
        if not path.is_file():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(32))
        status = path.lstat()
        if path.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077 or status.st_size != 32:
            raise PlanRefused(f"{path} is not this user's alone; remove {folder} and build again")
        return path.read_bytes()
