"""A wheel, built from the tree or from a source archive, finds its schemas and its hook script."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESOURCES = sorted(
    str(path.relative_to(ROOT))
    for kind in ("schemas", "hooks")
    for path in (ROOT / kind).iterdir()
    if path.is_file()
)
FIND = "import sys; from libvirt_tuner import resources; print(resources.path(sys.argv[1]))"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments, cwd=cwd)


def wheel(source: Path, into: Path) -> Path:
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", into, source, cwd=into)
    (found,) = into.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git has or will have of the tree, so that no build leaves anything behind in it."""
    copy = tmp_path_factory.mktemp("tree") / "libvirt-tuner"
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("libvirt_tuner", "schemas", "hooks"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def source_archive(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(into)!r})"
    run(sys.executable, "-c", code, cwd=tree)
    (found,) = into.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module", params=["tree", "source archive"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("wheel")
    if request.param == "tree":
        return wheel(request.getfixturevalue("tree"), into)
    unpacked = tmp_path_factory.mktemp("unpacked")
    run("tar", "-xzf", request.getfixturevalue("source_archive"), cwd=unpacked)
    (source,) = unpacked.iterdir()
    return wheel(source, into)


def test_there_are_schemas_to_look_for() -> None:
    assert {"schemas/policy.rng", "schemas/config.schema.json"} <= set(RESOURCES)


def test_a_wheel_holds_them_as_files_of_their_own(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for name in RESOURCES:
        assert content[f"libvirt_tuner/{name}"] == (ROOT / name).read_bytes()
    assert "libvirt_tuner/py.typed" in content
    assert not [name for name in content if name.startswith(("schemas/", "hooks/", "tests/"))]


def test_a_wheel_holds_every_module(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        held = {name for name in archive.namelist() if name.endswith(".py") and "/hooks/" not in name}
    package = ROOT / "libvirt_tuner"
    assert held == {
        str(path.relative_to(ROOT)) for path in package.rglob("*.py") if "hooks" not in path.parts
    }


@pytest.fixture(scope="module")
def home(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel, and what it needs from this interpreter's packages."""
    made = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(made, with_pip=False)
    pip("--python", made / "bin/python", "install", "--no-deps", "--no-index", built, cwd=made)
    (packages,) = made.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return made


def test_an_installed_wheel_finds_them(home: Path, tmp_path: Path) -> None:
    python = home / "bin" / "python"
    for name in RESOURCES:
        found = Path(run(python, "-I", "-c", FIND, name, cwd=tmp_path).strip())
        assert found.is_relative_to(home)
        assert found.read_bytes() == (ROOT / name).read_bytes()
        assert os.access(found, os.X_OK) == os.access(ROOT / name, os.X_OK)


def test_an_installed_wheel_works(home: Path, tmp_path: Path) -> None:
    program = home / "bin/libvirt-tuner"
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["metadata"]["version"] in run(program, "--version", cwd=tmp_path)
    assert "install" in run(program, "--help", cwd=tmp_path)
    said = run(
        program, "-c", "test:///default", "install", "--dry-run", "--allow-writable", "--json", cwd=tmp_path
    )
    assert "/etc/libvirt/hooks/qemu" in json.loads(said)["write"][0]
    hook = run(program, "install", "--prefix", tmp_path / "root", "--allow-writable", cwd=tmp_path)
    assert "installed" in hook
    assert str(home) in (tmp_path / "root/etc/libvirt/hooks/qemu").read_text()


def test_a_source_archive_holds_the_licence(source_archive: Path) -> None:
    with tarfile.open(source_archive) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.cfg"} <= names


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        pytest.param("packaging/libvirt-tuner.spec", r"^Version: +(\S+)$", id="RPM"),
        pytest.param("CHANGELOG.md", r"^## (\d\S+)$", id="changelog"),
        pytest.param("docs/guide/fleets.md", r"libvirt-tuner_(.+?)_all\.deb", id="package in the docs"),
    ],
)
def test_the_version_is_the_same_everywhere(file: str, pattern: str) -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    found = re.search(pattern, (ROOT / file).read_text(), re.M)
    assert found is not None
    assert found[1] == settings["metadata"]["version"]


@pytest.mark.parametrize("name", RESOURCES)
def test_the_tree_finds_them_too(name: str) -> None:
    found = Path(run(sys.executable, "-c", FIND, name, cwd=ROOT).strip())
    assert found.resolve() == ROOT / name
