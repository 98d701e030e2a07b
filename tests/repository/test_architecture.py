"""Which way imports run, what imports without what, and where code lies."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "actprune_kernels": ROOT / "kernels/actprune_kernels",
    "actprune_common": ROOT / "impl/actprune_common",
    "actprune": ROOT / "impl/actprune",
    "actprune_bench": ROOT / "impl/actprune_bench",
    "actprune_ci": ROOT / "ci/actprune_ci",
}
ON_A_GPU = {"torch", "triton", "cupy", "actprune_kernels", "actprune", "actprune_bench"}
FORBIDDEN = {
    "actprune_kernels": {"actprune", "actprune_bench", "actprune_ci", "actprune_common"},
    "actprune_common": {*ON_A_GPU, "actprune_ci"},
    "actprune": {"actprune_bench", "actprune_ci", "yaml", "pydantic", "rich", "typer", "plotly"},
    "actprune_bench": {"actprune_ci"},
    "actprune_ci": ON_A_GPU,
}
ROOMS = {
    "actprune": (
        *("formats", "layers", "saved", "solver", "graph"),
        *("strategies", "inspect", "budget"),
    ),
    "actprune_bench": (
        *("data", "models", "records", "training", "measure", "gpu_static"),
        *("report", "compare", "advise", "sweep", "cli"),
    ),
    "actprune_ci": (
        *("model", "readers", "store", "judge", "measure", "history", "triage"),
        *("publish", "nightly", "cli"),
    ),
}
"""The folders of a package, from the lowest: a module imports from its own and from lower ones."""
KERNELS_MAY_IMPORT = {"actprune_kernels", "torch", "triton", "cupy", "cupy_backends", "numpy"}
KERNELS_MAY_IMPORT |= {"yaml"}  # where there is a table of tuned plans
NEEDED_LATER = ("yaml", "pydantic", "typer", "rich", "plotly", "jinja2", "PIL", "scipy")


def imported(source: str) -> set[str]:
    """The top-level names that a module imports from elsewhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def rooms_imported(source: str, package: str) -> set[str]:
    """The folders and modules right below `package` that a module imports from."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


def modules(package: str) -> list[Path]:
    found = sorted(PACKAGES[package].rglob("*.py"))
    assert found, f"no modules in {PACKAGES[package]}"
    return found


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def blocking(names: object) -> str:
    """Code after which these cannot be imported; they are absent, not None, for those who look."""
    return f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_imported_reads_every_form() -> None:
    source = """
import a.b, c as d
from e.f import g
from . import h
from .i import j
def later():
    import k
if TYPE_CHECKING:
    from l import m
"""
    assert imported(source) == {"a", "c", "e", "k", "l"}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    forbidden = FORBIDDEN[package] | {"benchmarks", "tests"}
    wrong = {
        str(path.relative_to(ROOT)): sorted(names)
        for path in modules(package)
        if (names := imported(path.read_text("utf-8")) & forbidden)
    }
    assert wrong == {}


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_stand_in_order(package: str) -> None:
    order = {room: place for place, room in enumerate(ROOMS[package])}
    folders = {path.name for path in PACKAGES[package].iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(order)
    wrong = []
    for path in modules(package):
        room = path.relative_to(PACKAGES[package]).parts[0]
        for other in rooms_imported(path.read_text("utf-8"), package):
            if room in order and order.get(other, 0) > order[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {package}.{other}")
    assert wrong == []


def test_kernels_import_little() -> None:
    allowed = KERNELS_MAY_IMPORT | sys.stdlib_module_names
    wrong = {
        str(path.relative_to(ROOT)): sorted(names)
        for path in modules("actprune_kernels")
        if (names := imported(path.read_text("utf-8")) - allowed)
    }
    assert wrong == {}


def test_library_imports_with_torch_and_numpy_alone() -> None:
    done = run_python(blocking(NEEDED_LATER) + "import actprune, actprune_kernels")
    assert (done.returncode, done.stderr) == (0, "")


def test_library_imports_without_torch_s_compiler() -> None:
    """Which takes longer to import than all the rest."""
    code = "import sys, actprune; print([m for m in sys.modules if m.startswith('torch._dynamo')])"
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_harness_imports_without_torch() -> None:
    names = [
        ".".join(path.relative_to(ROOT / "ci").with_suffix("").parts).removesuffix(".__init__")
        for path in modules("actprune_ci")
        if path.stem != "__main__"
    ]
    assert "actprune_ci.readers.actprune" in names
    done = run_python(blocking(sorted(FORBIDDEN["actprune_ci"])) + f"import {', '.join(names)}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", PACKAGES)
def test_source_roots_hold_their_packages_alone(package: str) -> None:
    root = PACKAGES[package].parent
    importable = {p.name for p in root.iterdir() if p.is_dir() or p.suffix == ".py"}
    expected = {name for name, path in PACKAGES.items() if path.parent == root}
    assert importable - {"__pycache__"} == expected  # beside ci/policy.yml, which is no module
    assert (PACKAGES[package] / "py.typed").is_file()


def test_every_kernel_folder_has_its_definition_and_a_fast_form() -> None:
    folders = [
        folder
        for folder in PACKAGES["actprune_kernels"].iterdir()
        if folder.is_dir() and folder.name not in ("__pycache__", "baselines")
    ]
    assert folders
    missing = [
        str(folder.relative_to(ROOT) / name)
        for folder in folders
        for name in ("__init__.py", "naive.py", "cpu.py")
        if not (folder / name).is_file()
    ]
    assert missing == []


def test_every_baseline_has_one_form_for_all_devices() -> None:
    from actprune.formats import BASELINES

    folder = PACKAGES["actprune_kernels"] / "baselines"
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", "dense", "codes", *BASELINES}
