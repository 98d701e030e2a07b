"""The scripts that asv's pages load from content delivery networks, from npm's packages instead.

libraries.json pins each package by its version and the SHA-512 that the registry states for it;
what does not have it is refused. A fetched package stays in a cache folder.
"""

import base64
import hashlib
import io
import json
import os
import tarfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from actprune_common.errors import InputError
from actprune_common.files import write_whole

REGISTRY = "https://registry.npmjs.org"
"""Replaced by the environment's NPM_CONFIG_REGISTRY."""
SECONDS = 60


@dataclass(frozen=True)
class Library:
    """A package of npm's registry, and the files taken from it."""

    name: str
    version: str
    sha512: str
    """Base64, as the registry writes it."""
    files: Mapping[str, str]
    """A file of the package, and where asv's index.html loads the same from."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


_PINNED = resources.files("actprune_ci.publish.dashboard").joinpath("libraries.json")
LIBRARIES = tuple(Library(**each) for each in json.loads(_PINNED.read_text("utf-8")))


def files(library: Library, cache: Path) -> dict[str, bytes]:
    """Its files by name. Raises InputError where it cannot be had, or is not what it was."""
    archive = cache / f"{library.name}-{library.version}.tgz"
    packed = archive.read_bytes() if archive.exists() else b""
    if not right(library, packed):
        packed = fetched(library)
        if not right(library, packed):
            raise InputError(f"{library}: refused: its SHA-512 is not the pinned one")
        write_whole(archive, packed)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        # some packages are packed in another folder than `package`
        members = {member.name.partition("/")[2]: member for member in tar if member.isfile()}
        found = {name: tar.extractfile(members[name]) for name in library.files}
        return {name: file.read() for name, file in found.items() if file is not None}


def right(library: Library, packed: bytes) -> bool:
    """Whether it is the pinned package."""
    return base64.b64encode(hashlib.sha512(packed).digest()).decode() == library.sha512


def fetched(library: Library) -> bytes:
    """The package from the registry. Raises InputError."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    url = f"{registry}/{library.name}/-/{library.name}-{library.version}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return bytes(answer.read())
    except (OSError, ValueError) as problem:
        raise InputError(f"{library}: cannot be fetched: {problem}") from None


def cache_folder() -> Path:
    """Where packages are kept: ACTPRUNE_CI_CACHE, else below the user's cache folder."""
    named = os.environ.get("ACTPRUNE_CI_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "actprune-ci"
