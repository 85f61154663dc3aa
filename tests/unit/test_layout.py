"""Each module has its test file, and no test file is too long to be read."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "libvirt_tuner"
LONGEST = 500
"""Lines."""

#: Modules without a file of their own, by the beginning of their name, and where their tests are.
ELSEWHERE = {
    "__init__": "test_layers: what it exports",
    "cli/completion": "cli/test_manual, libvirtd/test_service: completions are written, and used by a shell",
    "cli/installation": "cli/test_service, libvirtd/test_readme: install and uninstall as commands",
    "config/file": "config/test_policy: file and metadata are read by the same cases",
    "config/metadata": "config/test_policy: file and metadata are read by the same cases",
    "diagnosis/": "diagnosis/: each finding by its own samples",
    "hostside/scene": "cli/test_seeing: who runs where, on written hosts",
    "domainxml/": "domainxml/test_spec, transforms/test_golden: whole documents, read and edited",
    "errors": "the tests of what raises them",
    "install/verify": "install/test_install, libvirtd/tuner: the hook is called as libvirt calls it",
    "picture/style": "picture/test_svg, picture/test_html: boxes have ids and classes of their own",
    "planning/": "planning/test_planner: what a plan is made of",
    "transforms": "transforms/test_golden, transforms/test_each: every transform by the same cases",
}
#: Files that may be longer, and why.
LONGER = {"unit/planning/test_planner.py": "cases of one function; split together with planning/"}


def modules() -> list[str]:
    """``host/cpus`` for each file of the package; without the links to schemas and hooks."""
    files = (file for file in PACKAGE.rglob("*.py") if not file.parent.is_symlink())
    names = (str(file.relative_to(PACKAGE).with_suffix("")) for file in files if file.read_text())
    return sorted(name.removesuffix("/__init__") for name in names)


@pytest.mark.parametrize("name", modules())
def test_a_module_has_its_test_file(name: str) -> None:
    place = Path(name)
    # A package's own __init__ is tested by the file of the package's name.
    directory = place if (PACKAGE / place).is_dir() else place.parent
    file = TESTS / "unit" / directory / f"test_{place.name}.py"
    assert file.is_file() or any(name.startswith(start) for start in ELSEWHERE), f"no {file}"


@pytest.mark.parametrize("file", sorted(map(str, (path.relative_to(TESTS) for path in TESTS.rglob("*.py")))))
def test_a_file_is_short(file: str) -> None:
    lines = len((TESTS / file).read_text().splitlines())
    assert lines <= LONGEST or file in LONGER
