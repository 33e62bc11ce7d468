"""What enabling says where a host package is missing, too old or too new."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import rocforge_ops as rf
from rocforge_ops.integrations import versions

PLUGS = {
    "torch": rf.integrations.torch_sdpa,
    "transformers": rf.integrations.transformers,
    "diffusers": rf.integrations.diffusers,
}
CASES = [
    (None, ModuleNotFoundError, "needs {package} >= {oldest}, < {beyond}, and it is not installed"),
    ("0.1.2", RuntimeError, "needs {package} >= {oldest}, < {beyond}: 0.1.2 is too old"),
    ("{beyond}.0.dev20261124+rocm7", RuntimeError, "< {beyond}: {beyond}.0.dev20261124.rocm7 is newer than"),
    ("nightly", RuntimeError, "not a version: 'nightly'"),
]


@pytest.mark.parametrize(("installed", "error", "message"), CASES)
@pytest.mark.parametrize("package", PLUGS)
def test_one_clear_sentence(package, installed, error, message, monkeypatch):
    oldest, beyond = versions.TESTED[package]

    def version(name):
        assert name == package
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed.format(beyond=beyond)

    monkeypatch.setattr(metadata, "version", version)
    for _ in range(2):  # a refusal leaves nothing behind
        with pytest.raises(error, match=message.format(package=package, oldest=oldest, beyond=beyond)):
            PLUGS[package].enable()
    if package == "torch":
        assert rf.integrations.torch_sdpa.active() is None


@pytest.mark.parametrize("package", PLUGS)
@pytest.mark.parametrize("suffix", ["", ".0", ".7.post1", ".0rc1", ".0+cu130"])
def test_tested_versions(package, suffix, monkeypatch):
    oldest, _ = versions.TESTED[package]
    monkeypatch.setattr(metadata, "version", lambda name: oldest + suffix)
    versions.require(package)


@pytest.mark.parametrize("package", ["transformers", "diffusers"])
def test_tests_install_what_enabling_takes(package):
    oldest, beyond = versions.TESTED[package]
    pyproject = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'"{package}>={oldest},<{beyond}"' in pyproject
