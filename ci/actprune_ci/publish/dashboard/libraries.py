"""The scripts that asv's pages load from content delivery networks, from npm's packages instead.

Each package is pinned by its version and the SHA-512 that the registry states for it; what does not
have it is refused. A fetched package stays in a cache folder.
"""

import base64
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
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


_FLOT = "https://cdnjs.cloudflare.com/ajax/libs/flot/0.8.3/jquery.flot"
_BOOTSTRAP = "https://cdn.jsdelivr.net/npm/bootstrap@3.1.1/dist"
LIBRARIES = (
    Library(
        "jquery",
        "3.3.1",
        "Ubldcmxp5np52/ENotGxlLe6aGMvmF4R8S6tZjsP6Knsaxd/xp3Zrh50cG93lR6nPXyUFwzN3ZSOQI0wRJNdGg==",
        {"dist/jquery.min.js": "https://code.jquery.com/jquery-3.3.1.min.js"},
    ),
    Library(
        "flot",
        "0.8.3",
        "xg2otcTJDvS+ERK+my4wxG/ASq90QURXtoM4LhacCq0jQW2jbyjdttbRNqU2cPykrpMvJ6b2uSp6SAgYAzj9tQ==",
        {
            "jquery.flot.js": f"{_FLOT}.min.js",
            "jquery.flot.time.js": f"{_FLOT}.time.min.js",
            "jquery.flot.selection.js": f"{_FLOT}.selection.min.js",
            "jquery.flot.categories.js": f"{_FLOT}.categories.min.js",
        },
    ),
    Library(
        "flot-orderbars",
        "1.0.0",
        "Jv51fvzevUjNXEeozpwEKfPjhiZhfiJddv0WHjduUTCmSF+7T5K7C9c9Y1wIVmUhDBv5fLMjgbwKecT0GIKPZA==",
        {
            "js/jquery.flot.orderBars.js": (
                "https://cdn.jsdelivr.net/npm/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js"
            )
        },
    ),
    Library(
        "stupid-table-plugin",
        "1.1.3",
        "2Vk7XouQPxUQPRe9w0Fu7ZZ8kHLK7rDoLMsCgtKxRNJ7f4dSOGvW9CkHsq5wD6QsaEnWoyLBYH3xOEsrK3yWBg==",
        {
            "stupidtable.min.js": (
                "https://cdnjs.cloudflare.com/ajax/libs/stupidtable/1.0.1/stupidtable.min.js"
            )
        },
    ),
    Library(
        "blueimp-md5",
        "2.19.0",
        "DRQrD6gJyy8FbiE4s+bDoXS9hiW3Vbx5uCdwvcCf3zLHL+Iv7LtGHLpr+GZV8rHG8tK766FGYBwRbu8pELTt+w==",
        {
            "js/md5.min.js": (
                "https://cdnjs.cloudflare.com/ajax/libs/blueimp-md5/2.19.0/js/md5.min.js"
            )
        },
    ),
    Library(
        "bootstrap",
        "3.1.1",
        "TAzqS8E/ISpVHP29gYhy+1NSV+FJwApDVQhDfgLYsIuUDJiqJzH2DfORN5tiu+Ie2iBLrzEG34t4Rf465cigqg==",
        {
            "dist/js/bootstrap.min.js": f"{_BOOTSTRAP}/js/bootstrap.min.js",
            "dist/css/bootstrap.min.css": f"{_BOOTSTRAP}/css/bootstrap.min.css",
        },
    ),
)


def files(library: Library, cache: Path) -> dict[str, bytes]:
    """Its files by name. Raises InputError where it cannot be had, or is not what it was."""
    archive = cache / f"{library.name}-{library.version}.tgz"
    packed = archive.read_bytes() if archive.exists() else b""
    if not right(library, packed):
        packed = fetched(library)
        if not right(library, packed):
            raise InputError(
                f"{library.name} {library.version}: refused: its SHA-512 is not the pinned one"
            )
        cache.mkdir(parents=True, exist_ok=True)
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
            packed: bytes = answer.read()
    except (OSError, ValueError, urllib.error.URLError) as problem:
        raise InputError(
            f"{library.name} {library.version}: cannot be fetched: {problem}"
        ) from None
    return packed


def cache_folder() -> Path:
    """Where packages are kept: ACTPRUNE_CI_CACHE, else below the user's cache folder."""
    named = os.environ.get("ACTPRUNE_CI_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "actprune-ci"
