"""The house keeps its plan: floors, packages, what an import loads, what stays silent, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infimed.cli.app import VERBS, app

HOUSE = Path(__file__).resolve().parent.parent
FLOORS = {"runtime": 1, "devices": 2, "evaluation": 3, "training": 4, "export": 5, "cli": 6}
# Beyond the floors: devices and evaluation know runtime only.
MAY_IMPORT = {
    "": set(),
    "runtime": {""},
    "devices": {"", "runtime"},
    "evaluation": {"", "runtime"},
    "training": {"", "runtime", "evaluation"},
    "export": {"", "runtime", "devices", "evaluation", "training"},
    "cli": {"", "runtime", "devices", "evaluation", "training", "export"},
}
# What `pip install infimed` brings: all that a module may import before it is asked to do something.
LIGHT = {"numpy", "PIL", "tokenizers", "safetensors", "jinja2", "typer", "rich", "tomli"}
EDGE_ROOMS = ("runtime", "devices", "evaluation", "cli")
MAX_LINES = 400


def sources(room: str) -> list[Path]:
    return sorted((HOUSE / room).glob("*.py")) if room else [HOUSE / "__init__.py"]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def rooms_imported(path: Path) -> Iterator[str]:
    """Yield every room that a file imports from, its own included, wherever in the file the import stands."""
    own = path.parent.relative_to(HOUSE).as_posix().strip(".")
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            depth = len(Path(own).parts) if own else 0
            assert node.level <= depth + 1, f"{path}:{node.lineno} reaches above the package"
            above = own if node.level == 1 else ""
            inside = (node.module or "").split(".")[0]
            if above:
                yield own
            elif inside in FLOORS:
                yield inside
            else:
                yield ""
                yield from (alias.name for alias in node.names if alias.name in FLOORS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "infimed":
            raise AssertionError(f"{path}:{node.lineno} imports its own house by its absolute name")
        elif isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "infimed" for alias in node.names), f"{path}:{node.lineno}"


def modules_imported(path: Path) -> set[str]:
    """Return the sibling modules that a file imports when it is imported (not those inside its functions)."""
    room = {file.stem for file in path.parent.glob("*.py")}
    found = set()
    for node in at_import(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found |= {name for name in names if name in room}
    return found - {path.stem}


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported: neither function bodies nor `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.stmt):
            yield node
        waiting.extend(part for part in ast.iter_child_nodes(node) if isinstance(part, (ast.stmt, ast.excepthandler)))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_down_only(room: str) -> None:
    for path in sources(room):
        upward = {name for name in rooms_imported(path) if name != room} - MAY_IMPORT[room]
        assert not upward, f"{path.relative_to(HOUSE)} imports upward or sideways from {sorted(upward)}"


@pytest.mark.parametrize("room", FLOORS)
def test_no_two_modules_of_a_room_import_each_other_in_a_circle(room: str) -> None:
    graph = {path.stem: modules_imported(path) for path in sources(room)}
    while graph:
        free = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert free, f"{room}: a circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in free}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_module_imports_only_light_libraries_before_it_is_called(room: str) -> None:
    for path in sources(room):
        for node in at_import(parsed(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                light = top in LIGHT | sys.stdlib_module_names or (top == "tomllib" and room not in EDGE_ROOMS)
                assert light, f"{path.relative_to(HOUSE)}:{node.lineno} imports {name}; import it inside the function"


def test_the_packages_list_equals_the_folders() -> None:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    listed = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    apart = {"tests", "benchmarks", "docs", "build", "dist"}
    folders = {path.parent for path in HOUSE.glob("*/**/__init__.py")}
    found = {path.relative_to(HOUSE).as_posix() for path in folders}
    rooms = {name for name in found if not name.startswith(".") and name.split("/")[0] not in apart}
    assert sorted(listed) == sorted({"infimed"} | {f"infimed.{name.replace('/', '.')}" for name in rooms})


def python(code: str, home: Path) -> str:
    """Run code in a fresh interpreter outside the house, with a home of its own; return what it printed."""
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_every_module_of_runtime_loads_nothing_heavy(tmp_path: Path) -> None:
    names = [f"infimed.runtime.{path.stem}" for path in sources("runtime") if path.stem != "__init__"]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    loaded = {name.split(".")[0] for name in python(code, tmp_path).split()}
    assert "infimed" in loaded
    heavy = {"torch", "transformers", "peft", "datasets", "onnxruntime", "onnx", "llama_cpp", "scipy", "gguf"}
    assert not loaded & heavy


def test_help_loads_no_library_that_counts(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom infimed.cli.app import run\ncode = run(['--help'])\n"
        "print('\\n'.join(['', str(code), *sys.modules]))"
    )
    lines = python(code, tmp_path).split("\n")
    loaded = {name.split(".")[0] for name in lines}
    assert "0" in lines and "infimed" in loaded and "typer" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "PIL", "tokenizers", "scipy", "onnxruntime", "llama_cpp"}


def test_an_onnxruntime_session_leaves_no_telemetry_behind(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    code = (
        "import infimed, numpy, onnxruntime\n"
        "from onnx import TensorProto, helper\n"
        "io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in 'xy']\n"
        "graph = helper.make_graph([helper.make_node('Neg', ['x'], ['y'])], 'g', io[:1], io[1:])\n"
        "model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)\n"
        "session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])\n"
        "print(session.run(None, {'x': numpy.ones(1, 'float32')})[0][0])"
    )
    assert python(code, tmp_path).strip() == "-1.0"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_benchmark_does_not_import_onnxruntime_before_the_package_that_silences_it() -> None:
    for path in sorted((HOUSE / "benchmarks").glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "onnxruntime"], f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("room", [*MAY_IMPORT, "tests", "benchmarks"])
def test_no_file_is_long_and_every_module_says_its_idea(room: str) -> None:
    paths = sorted((HOUSE / room).rglob("*.py")) if room in ("tests", "benchmarks") else sources(room)
    for path in paths:
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) <= MAX_LINES, f"{path.relative_to(HOUSE)} has {len(lines)} lines; part it by idea"
        says = room == "tests" or ast.get_docstring(parsed(path))
        assert says, f"{path.relative_to(HOUSE)} has no docstring"
        unfinished = [n for n, line in enumerate(lines, 1) if ("TO" + "DO") in line or ("FIX" + "ME") in line]
        assert not unfinished, f"{path.relative_to(HOUSE)}:{unfinished} is unfinished"


@pytest.mark.parametrize("room", EDGE_ROOMS)
def test_the_rooms_of_an_edge_device_are_python_3_10(room: str) -> None:
    for path in sources(room):
        ast.parse(path.read_text("utf-8"), str(path), feature_version=(3, 10))
        newer = {"tomllib": "tomli", "Self": "the class name", "StrEnum": "str", "ExceptionGroup": "a tuple"}
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and not node.level:
                taken = {alias.name for alias in node.names} & newer.keys()
                guarded = (node.module or "") == "tomli"
                assert guarded or not taken, f"{path.relative_to(HOUSE)}:{node.lineno} needs 3.11: {sorted(taken)}"


def test_every_verb_of_the_command_line_has_its_file_and_helps() -> None:
    for verb in VERBS:
        assert (HOUSE / "cli" / f"{verb.module}.py").is_file(), verb
        shown = CliRunner().invoke(app, [verb.name, "--help"])
        assert shown.exit_code == 0 and "Usage" in shown.output, (verb.name, shown.output)


def test_every_benchmark_is_known_to_dev_bench() -> None:
    from infimed.benchmarks.run_all import SMALL

    assert set(SMALL) == {path.stem for path in (HOUSE / "benchmarks").glob("*.py")} - {"run_all"}
