"""The harness's command line as a whole."""

from importlib import metadata

import pytest
from typer.testing import CliRunner

from actprune_ci.cli import app


def test_the_version_is_the_package_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: f"1.2 of {package}")
    done = CliRunner().invoke(app(), ["--version"])
    assert (done.exit_code, done.output) == (0, "actprune-ci 1.2 of actprune\n")


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    done = CliRunner().invoke(app(), ["--version"])
    assert (done.exit_code, done.output) == (
        0,
        "actprune-ci of a checkout that is not installed\n",
    )
