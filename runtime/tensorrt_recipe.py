"""The build recipe of a TensorRT level: which graphs, with which sizes, by which settings; read and checked here.

docs/tensorrt.md states the format. Knows JSON and hashes, no TensorRT and no graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import InfimedError
from .files import canonical_json, sha256_file, strict_json

SCHEMA = "infimed.tensorrt-recipe/1"
RECIPE = "recipe.json"
NETWORKS = ("decoder", "vision")
"""The graphs of a level; a model that takes no images has no second one."""
WORKSPACE_BYTES = 1 << 30
LEAST_VERSION, KNOWN_VERSION = (10, 3), (11, 4)
"""TensorRT that recipes are written for: JetPack 6.2 brings 10.3, JetPack 7.2.2 11.4."""

Sides = tuple[int, ...]
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RecipeError(InfimedError):
    """A recipe is malformed, or is not the one of the files beside it."""


def tower_of(type: str) -> str:
    """Return the type in the name of a tower's files: rounded ones are not those of ONNX levels, the others are."""
    return f"tensorrt-{type}" if type.startswith("int") else type


@dataclass(frozen=True)
class Profile:
    """Sizes that an engine is built for. shapes: input -> least, usual and largest shape; for every input."""

    name: str
    shapes: Mapping[str, tuple[Sides, Sides, Sides]]


@dataclass(frozen=True)
class Network:
    """One graph of the level. onnx: its path in the bundle. files: it and its data files by path, with their sha256."""

    onnx: str
    files: Mapping[str, str]
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class Recipe:
    """How the engines of a level are built. workspace_bytes: working memory that the builder may plan with."""

    level: str
    networks: Mapping[str, Network]
    workspace_bytes: int = WORKSPACE_BYTES

    def to_bytes(self) -> bytes:
        """Return the file's exact bytes."""
        return canonical_json(
            {
                "schema": SCHEMA,
                "level": self.level,
                "strongly_typed": True,
                "tf32": False,
                "workspace_bytes": self.workspace_bytes,
                "tensorrt": {"from": _dotted(LEAST_VERSION), "to": _dotted(KNOWN_VERSION)},
                "networks": {
                    name: {
                        "onnx": network.onnx,
                        "files": dict(network.files),
                        "profiles": [
                            {"name": profile.name, "shapes": _ends(profile.shapes)} for profile in network.profiles
                        ],
                    }
                    for name, network in self.networks.items()
                },
            }
        )

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe. Raises RecipeError for anything that is not exactly the format."""
        try:
            value = strict_json(path.read_bytes())
            recipe = cls(
                level=_of(str, value["level"]),
                workspace_bytes=_of(int, value["workspace_bytes"]),
                networks={name: _network(value["networks"][name]) for name in NETWORKS if name in value["networks"]},
            )
            if "decoder" not in recipe.networks:
                raise ValueError("it names no decoder")
            same = recipe.to_bytes() == path.read_bytes()
        except FileNotFoundError:
            raise RecipeError(f"{path} is missing; export the level again") from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise RecipeError(
                f"{path} is no recipe ({type(error).__name__}: {error}); export the level again"
            ) from None
        if not same:
            raise RecipeError(f"{path} says more or other than {SCHEMA} does; this infimed reads no other")
        return recipe

    def check_files(self, bundle: Path, network: str) -> None:
        """Hash a network's graph and data files. Raises RecipeError unless they are the recipe's."""
        for name, sha256 in self.networks[network].files.items():
            file = bundle / name
            if not file.is_file() or file.is_symlink() or sha256_file(file) != sha256:
                raise RecipeError(f"{file} is not the file that the recipe of {self.level} was written for")


_ENDS = ("min", "opt", "max")


def _ends(shapes: Mapping[str, tuple[Sides, Sides, Sides]]) -> dict[str, dict[str, Sides]]:
    return {name: dict(zip(_ENDS, three, strict=True)) for name, three in shapes.items()}


def _network(value: Any) -> Network:
    files = {_of(str, name): _of(str, sha256) for name, sha256 in value["files"].items()}
    network = Network(_of(str, value["onnx"]), files, tuple(_profile(one) for one in value["profiles"]))
    if network.onnx not in files or not network.profiles:
        raise ValueError("a network needs its graph among its files, and a profile")
    for name, sha256 in files.items():
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no sha256")
        if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name or "\0" in name:
            raise ValueError(f"{name!r} is no path inside the bundle")
    return network


def _profile(value: Any) -> Profile:
    shapes = {}
    for name, three in value["shapes"].items():
        least, usual, largest = (tuple(_of(int, side) for side in three[end]) for end in _ENDS)
        if not len(least) == len(usual) == len(largest):
            raise ValueError(f"{name} has shapes of different ranks")
        if any(not 0 <= low <= opt <= high for low, opt, high in zip(least, usual, largest, strict=True)):
            raise ValueError(f"{name} has sizes out of order: {least}, {usual}, {largest}")
        shapes[_of(str, name)] = (least, usual, largest)
    return Profile(_of(str, value["name"]), shapes)


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} in place of a {kind.__name__}")
    return value


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
