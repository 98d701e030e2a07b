"""Commits as installed wheels: worktrees in a temporary folder, built and laid beside one another.

Only the package itself is installed, into a folder of its own; all that it needs, torch above all,
is what the measuring interpreter has.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from actprune_common.errors import InputError, last_line
from actprune_common.git import git

BACKEND = re.compile(r"^build-backend\s*=\s*[\"']([\w.]+)", re.MULTILINE)


class BuildError(InputError):
    """A commit that cannot be built or installed; one line with the last that pip said."""


@dataclass(frozen=True)
class Side:
    """A commit, installed."""

    commit: str
    site: Path
    """Where its package lies: first on the path of what measures it."""
    tree: Path
    """Its worktree."""
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Checkouts:
    """The commits of a repository that were asked for, in a temporary folder."""

    repo: Path
    python: str
    folder: Path
    _sides: dict[str, Side] = field(default_factory=dict)

    def side(self, commit: str) -> Side:
        """A commit (full hash), checked out, built and installed once. Raises BuildError."""
        if commit not in self._sides:
            tree = self.checkout(commit)
            site = self.folder / f"site-{commit[:12]}"
            self._sides[commit] = Side(commit, site, tree, install(tree, site, self.python))
        return self._sides[commit]

    def checkout(self, commit: str) -> Path:
        """The worktree of a commit."""
        tree = self.folder / f"tree-{commit[:12]}"
        if not tree.exists():
            git(self.repo, "worktree", "add", "--detach", "--quiet", str(tree), commit)
        return tree

    def drop(self, commit: str) -> None:
        """Remove what was made of a commit."""
        self._sides.pop(commit, None)
        for kind in ("tree", "site"):
            shutil.rmtree(self.folder / f"{kind}-{commit[:12]}", ignore_errors=True)
        prune(self.repo)

    def suite(self, commit: str, path: str) -> Path:
        """A copy of a suite's folder, without the code beside it. InputError if there is none."""
        source = self.checkout(commit) / path
        copy = self.folder / f"suite-{commit[:12]}" / source.name
        if not source.is_dir():
            raise InputError(f"--suite: {commit[:12]} has no folder {path}")
        if not copy.exists():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        return copy


@contextmanager
def checked_out(repo: Path, python: str = sys.executable) -> Iterator[Checkouts]:
    """Checkouts that leave no worktree and no file behind, however the block ends."""
    try:
        with tempfile.TemporaryDirectory(prefix="actprune-ab-", ignore_cleanup_errors=True) as name:
            yield Checkouts(repo, python, Path(name))
    finally:
        prune(repo)


def prune(repo: Path) -> None:
    """Let git forget the worktrees whose folders are gone; quietly."""
    with suppress(InputError):
        git(repo, "worktree", "prune")


def resolve(repo: Path, name: str) -> str:
    """The full hash of a commit. Raises InputError for what is none."""
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    try:
        return git(repo, *words)
    except InputError as problem:  # quiet: of a name that it does not know it says nothing
        unknown = str(problem).endswith(": code 1")
        raise InputError(f"{repo}: {f'has no commit {name}' if unknown else problem}") from None


def install(tree: Path, site: Path, python: str) -> dict[str, str]:
    """Build a checkout's wheel and install it into the folder `site`; its name and version.

    With the interpreter's own build backend, where it has it. Raises BuildError.
    """
    try:
        backend = BACKEND.search((tree / "pyproject.toml").read_text("utf-8"))
    except OSError:
        backend = None
    module = backend[1].partition(".")[0] if backend else "setuptools"
    probe = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    what = f"{tree.name.removeprefix('tree-')}: does not build"
    command = (python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    try:
        has = subprocess.run((python, "-c", probe), capture_output=True, check=False)
        isolation = () if has.returncode else ("--no-build-isolation",)
        words = (*command, "--no-deps", *isolation, "--target", str(site), str(tree))
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as problem:
        raise BuildError(f"{what}: {python}: {problem.strerror}") from None
    if done.returncode:
        raise BuildError(f"{what}: {last_line(done.stderr, f'pip ended with {done.returncode}')}")
    (info,) = site.glob("*.dist-info")
    name, version = info.name.removesuffix(".dist-info").split("-")[:2]
    return {name: version}
