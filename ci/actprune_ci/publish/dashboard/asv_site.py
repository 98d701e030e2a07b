"""asv's site of a store, made to work without a network and from a file share.

asv's pages load libraries from content delivery networks and their figures by requests, which a
browser refuses to a page that is opened from a file. So the libraries are laid beside the pages,
and each JSON file gets a script beside it that hands over the same.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from actprune_ci.publish.dashboard.libraries import LIBRARIES, Library, files
from actprune_ci.store import export
from actprune_common.errors import InputError, last_line
from actprune_common.files import write_whole

_LIKE = str.maketrans({"<": "‹", ">": "›", "&": "＆", '"': "”", "`": "‘"})
_TAG = r"(src|href)=\"{}\"(?:\s+(?:integrity|crossorigin|referrerpolicy)=\"[^\"]*\")*"
_INLINE = re.compile(r"<script[^>]*>[^<]*js_load_failure[^<]*</script>|\sonerror=\"[^\"]*\"")
"""Only what asv does where a network does not answer; the policy would refuse it."""
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file: 'unsafe-inline';"
    " img-src 'self' file: data:; font-src 'self' file:; base-uri 'none'; form-action 'none'"
)
"""What asv's pages may load: what lies beside them. A name that holds a script runs nothing."""
_ELSEWHERE = re.compile(r"<(?:script|link)[^>]*(?:src|href)=\"(https?:[^\"]*)\"")


def write(store: str, out: Path, repo: Path, branch: str, cache: Path) -> None:
    """Write asv's site of a store into the folder `out`, which must not be there yet.

    Raises InputError where asv, a library or figures are missing; then there is no `out`.
    """
    libraries = [(library, files(library, cache)) for library in LIBRARIES]
    with tempfile.TemporaryDirectory() as temporary:
        site = published(store, Path(temporary), repo, branch)
        made_local(site, libraries)
        shutil.copytree(site, out)


def published(store: str, folder: Path, repo: Path, branch: str) -> Path:
    """What `asv publish` draws of a store. Raises InputError with asv's last line."""
    export.asv(store, folder / "results")
    for path in (folder / "results").rglob("*.json"):
        path.write_text(json.dumps(harmless(json.loads(path.read_text("utf-8")))), "utf-8")
    site = folder / "html"
    config = {
        "version": 1,
        "project": "actprune",
        "project_url": ".",
        "repo": str(repo.resolve()),
        "branches": [branch],
    }
    write_whole(folder / "asv.conf.json", json.dumps(config))
    words = (sys.executable, "-m", "asv", "publish", "--config", str(folder / "asv.conf.json"))
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not (site / "index.html").exists():
        said = last_line(done.stdout + done.stderr, f"code {done.returncode}")
        raise InputError(f"asv publish: {said}")
    return site


def harmless(value: Any) -> Any:
    """The same document, its texts without what HTML would take for markup.

    asv's pages put some names into the page as text and some as HTML, twice over in tooltips: so
    what was escaped would be wrong in one place and alive in another.
    """
    if isinstance(value, str):
        return value.translate(_LIKE)
    if isinstance(value, dict):
        return {harmless(key): harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value


def made_local(site: Path, libraries: Sequence[tuple[Library, Mapping[str, bytes]]]) -> None:
    """Lay the libraries beside the pages and a script beside each JSON file.

    Raises InputError where index.html loads something that none of the libraries has.
    """
    index = site / "index.html"
    text = index.read_text("utf-8")
    for library, found in libraries:
        for name, content in found.items():
            place = f"libraries/{library.name}-{library.version}/{Path(name).name}"
            write_whole(site / place, content)
            text = re.sub(_TAG.format(re.escape(library.files[name])), rf'\1="{place}"', text)
    if left := _ELSEWHERE.findall(text):
        raise InputError(f"asv's index.html loads {left[0]}, which no pinned library has")
    own = resources.files("actprune_ci.publish.dashboard")
    write_whole(site / "offline.js", own.joinpath("offline.js").read_text("utf-8"))
    text = text.replace("<script", '<link rel="icon" href="data:,">\n    <script', 1)
    first = 'src="jquery.flot.axislabels.js"></script>'  # after jQuery, before asv's own
    if first not in text:
        raise InputError(
            "asv's index.html is none that is known: expected jquery.flot.axislabels.js"
        )
    text = _INLINE.sub("", text)
    write_whole(index, text.replace(first, first + '\n    <script src="offline.js"></script>'))
    policy = f'<head>\n    <meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    for page in site.glob("*.html"):
        write_whole(page, page.read_text("utf-8").replace("<head>", policy, 1))
    for path in site.rglob("*.json"):
        name = path.relative_to(site).as_posix()
        figures = json.dumps(json.loads(path.read_text("utf-8")), separators=(",", ":"))
        handed = f"window.OFFLINE[{json.dumps(name)}] = {figures};\n"
        write_whole(path.with_name(path.name + ".js"), handed)
