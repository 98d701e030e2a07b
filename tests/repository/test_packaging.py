"""One wheel, small at the core: what its extras bring, and which versions it claims."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.repository.test_architecture import PACKAGES, ROOT, blocking, imported, modules

if sys.version_info >= (3, 11):
    import tomllib
else:  # a dependency of pytest's there
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow"}
PARTS = {"markupsafe", "pydantic_core"}  # of jinja2 and pydantic
ELSEWHERE = {
    "actprune_bench": {"triton", "cupy", "ray"},  # in extras of their own
    "actprune_ci": {"asv_runner"},  # where it measures
}
COMMANDS = {"actprune": ("actprune", "bench"), "actprune-ci": ("actprune_ci", "ci")}
"""Each command's package and extra."""


def name_of(requirement: str) -> str:
    """Of a distribution, as PyPI writes it."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def brought(extra: str) -> set[str]:
    core, more = PROJECT["dependencies"], PROJECT["optional-dependencies"][extra]
    return set(map(name_of, (*core, *more)))


def constrained(path: str) -> dict[str, str]:
    lines = (ROOT / path).read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_core_is_torch_numpy_and_scipy() -> None:
    assert PROJECT["dependencies"] == ["torch>=2.9", "numpy>=1.26", "scipy>=1.11"]


@pytest.mark.parametrize(("package", "extra"), [("actprune_bench", "bench"), ("actprune_ci", "ci")])
def test_an_extra_brings_what_its_packages_import(package: str, extra: str) -> None:
    files = modules(package) + modules("actprune_common")
    names = set().union(*(imported(path.read_text("utf-8")) for path in files))
    names -= {*sys.stdlib_module_names, *PACKAGES, *PARTS, *ELSEWHERE[package]}
    assert {DISTRIBUTIONS.get(name, name) for name in names} <= brought(extra)


@pytest.mark.parametrize("program", COMMANDS)
def test_a_command_whose_extra_is_missing_names_it(program: str) -> None:
    package, extra = COMMANDS[program]
    entry = PROJECT["scripts"][program]
    assert entry == f"{package}.__main__:main"
    code = f"{blocking(('typer',))}\nfrom {package}.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = (
        f"{program}: error: the package typer is missing; the command line needs "
        f"pip install 'actprune[{extra}]'\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_module_of_our_own_that_is_missing_is_no_missing_extra() -> None:
    code = "from actprune_common.entry import start; start('actprune', 'actprune_bench.nope', 'x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'actprune_bench.nope'\n")


def test_torch_is_pinned_where_development_installs() -> None:
    assert constrained("constraints.txt")["torch"] == "2.13.0"


def test_the_oldest_versions_that_are_tested_are_those_that_are_claimed() -> None:
    oldest = constrained("constraints/oldest.txt")
    claimed = (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cuda"])
    lowest = {
        name: version
        for name, version in (re.split(">=", each.partition(";")[0]) for each in claimed)
        if name in oldest
    }
    assert set(lowest) == set(oldest) == {"torch", "triton", "numpy", "scipy"}
    for name, version in lowest.items():
        assert re.fullmatch(rf"{re.escape(version)}\.[0*]", oldest[name]), name
    workflow = (ROOT / ".github/workflows/versions.yml").read_text("utf-8")
    python = PROJECT["requires-python"].removeprefix(">=")
    assert f'- versions: oldest\n            python: "{python}"\n' in workflow


def test_the_harness_is_installed_with_all_that_it_needs_and_with_hashes() -> None:
    text = (ROOT / ".github/harness-requirements.txt").read_text("utf-8")
    pinned = re.findall(
        r"^([\w.-]+)==[^\\\n]+\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    listed = re.findall(r"^[a-zA-Z].*", text, re.MULTILINE)
    assert len(pinned) == len(listed)
    assert (brought("ci") - {"torch"}) | {"hatchling"} <= set(map(name_of, pinned))
    assert "torch" not in pinned
    install = (ROOT / ".github/install-harness.sh").read_text("utf-8")
    commands = [line for line in install.splitlines() if " pip " in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in commands)
    for name in ("install-harness.sh", "renew-harness-requirements.sh"):
        assert (ROOT / ".github" / name).stat().st_mode & 0o111


def closure(*names: str) -> set[str]:
    """The distributions that these require here, with themselves, extras aside."""
    found, todo = set[str](), list(names)
    while todo:
        name = name_of(todo.pop())
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform or Python
            continue
        found.add(name)
        todo += [each for each in requires if "extra ==" not in each]
    return found


@pytest.mark.slow
def test_the_wheel_alone_is_a_library_and_says_what_its_commands_lack(tmp_path: Path) -> None:
    """In an environment that has torch and numpy, by links to this one's, and nothing else."""
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("actprune-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = ["--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    (place,) = (tmp_path / "venv/lib").glob("python3*/site-packages")
    for name in closure("torch", "numpy"):
        for file in metadata.distribution(name).files or ():
            top = Path(file.parts[0])
            if not (place / top).exists() and top.name not in ("..", "__pycache__"):
                (place / top).symlink_to(str(metadata.distribution(name).locate_file(top)))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    code = """
import torch
from actprune import convert, saved_bytes
layer = convert(torch.nn.Linear(64, 32), "bsr:block=1x32,sparsity=0.5")
layer(torch.randn(8, 64)).sum().backward()
print(layer.weight.grad.shape)
"""
    done = run(python, "-W", "ignore", "-c", code)
    assert (done.returncode, done.stdout) == (0, "torch.Size([32, 64])\n"), done.stderr
    for program, (_, extra) in COMMANDS.items():
        assert shutil.which(python.with_name(program)) is not None
        done = run(python.with_name(program), "--help")
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(
            rf"{program}: error: the package \w+ is missing; the command line needs "
            rf"pip install 'actprune\[{extra}\]'\n",
            done.stderr,
        )
