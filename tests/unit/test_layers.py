"""Imports go down only, and what is pure stays so: :data:`ORDER` and :data:`PURE` say how."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "libvirt_tuner"

#: Lowest first: a module imports from its own package and from those that stand before it.
ORDER = (
    *("errors", "resources", "cpuset", "topology"),
    *("domainxml", "transforms", "config", "uplink", "planning", "diagnosis", "picture"),
    *("host", "hostside", "libvirtd", "hostcheck", "testbed"),
    *("library", "capture", "daemon", "install", "settle", "measuring", "hook", "cli"),
)
#: Values in, values out: whole packages, and modules of packages that have effects too.
PURE = frozenset(
    {"errors", "resources", "cpuset", "topology", "domainxml", "transforms", "config", "uplink", "planning"}
    | {"diagnosis", "picture"}
    | {"hostcheck.check", "hostcheck.facts", "hostcheck.kernel_line", "testbed.config", "testbed.steps"}
)

#: All that a pure module may import from outside the package.
HARMLESS = frozenset(
    {"__future__", "attrs", "bisect", "collections", "contextlib", "copy", "difflib", "enum", "fnmatch"}
    | {"functools", "heapq", "ipaddress", "itertools", "json", "lxml", "math", "operator", "re"}
    | {"shlex", "statistics", "string", "textwrap", "tomllib", "types", "typing"}
)
#: Who may import what is slow to import or reaches outside.
RESERVED = {
    "libvirt": {"libvirtd.connection"},
    "libvirt_qemu": {"libvirtd.connection"},
    "click": {"cli"},
    "rich": {"cli"},
    "psutil": {"cli", "hostcheck.survey", "hostside.status"},
}
#: resources.py reads the package's own files, which are as fixed as its code.
MAY_OPEN = {"resources"}


def name_of(file: Path) -> str:
    """``transforms/mtu.py`` is ``transforms.mtu``, a package's own ``__init__`` the package."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(tree: ast.AST, inside: str) -> Iterator[str]:
    """Yield each import's dotted name, wherever it stands; ``inside`` is the package of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            own = module == "libvirt_tuner"
            yield from (f"{module}.{alias.name}" if own else module for alias in node.names)


def among(name: str, names: frozenset[str] | set[str]) -> bool:
    """Whether a module, or the package it is in, is one of the names."""
    return name in names or name.partition(".")[0] in names


def complaints(source: str, name: str) -> list[str]:
    """What module ``name`` may not do, of what its source does."""
    tree = ast.parse(source)
    package, _, inner = name.partition(".")
    found = []
    for module in imported(tree, f"libvirt_tuner.{package}" if inner else "libvirt_tuner"):
        top, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        if top == "libvirt_tuner" and target in ORDER and target != package:
            if ORDER.index(target) > ORDER.index(package):
                found.append(f"imports {target}, which is above it")
        elif top != "libvirt_tuner" and among(name, PURE) and top not in HARMLESS:
            found.append(f"is pure and imports {top}")
        if not among(name, RESERVED.get(top, {name})):
            found.append(f"imports {top}, which is for {', '.join(sorted(RESERVED[top]))}")
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    opens = any(isinstance(call, ast.Name) and call.id in ("open", "print", "input") for call in calls)
    if opens and among(name, PURE) and name not in MAY_OPEN:
        found.append("is pure and reads or writes")
    return found


#: Without the links to the top level's schemas and hooks, which hold no modules.
FILES = sorted(file for file in PACKAGE.rglob("*.py") if not file.parent.is_symlink())
MODULES = [pytest.param(file, id=name_of(file)) for file in FILES if name_of(file)]
#: What the hook imports of them costs no more than finding them.
EMPTY = ("domainxml", "config", "host", "uplink", "planning", "hostside")


def test_every_package_has_its_place() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert {name_of(file).partition(".")[0] for file in FILES} - {""} == set(ORDER)
    assert set(ORDER) | {name_of(file) for file in FILES} >= PURE


@pytest.mark.parametrize("package", EMPTY)
def test_a_package_on_the_hooks_path_has_an_empty_init(package: str) -> None:
    assert (PACKAGE / package / "__init__.py").read_text() == ""


@pytest.mark.parametrize("file", MODULES)
def test_a_module_keeps_to_its_layer(file: Path) -> None:
    assert complaints(file.read_text(), name_of(file)) == []


def test_the_package_itself_imports_nothing_until_a_name_is_used() -> None:
    code = (
        "import sys, __future__; before = set(sys.modules); import libvirt_tuner;"
        " print(set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.stdout == "{'libvirt_tuner'}\n"


@pytest.mark.parametrize("module", ["libvirt_tuner.library", "libvirt_tuner.transforms"])
def test_the_public_modules_import_no_libvirt_and_no_terminal(module: str) -> None:
    code = f"import {module}, sys; print({{'libvirt', 'psutil', 'click', 'rich'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("source", "name", "complaint"),
    [
        pytest.param("from attrs import frozen", "planning.plan", [], id="attrs is fine"),
        pytest.param("from libvirt_tuner import cpuset", "config.policy", [], id="down"),
        pytest.param(
            "from libvirt_tuner.transforms.mtu import mtu", "planning.plan", [], id="down, a package"
        ),
        pytest.param("from . import mtu", "transforms.poll_us", [], id="sideways within a package"),
        pytest.param("import os", "host.sysfs", [], id="os where effects are"),
        pytest.param(
            "from libvirt_tuner import planning",
            "config.policy",
            ["imports planning, which is above it"],
            id="up, by name",
        ),
        pytest.param(
            "import libvirt_tuner.planning.plan",
            "config.policy",
            ["imports planning, which is above it"],
            id="up, by module",
        ),
        pytest.param(
            "def f():\n from ..planning.plan import Plan",
            "config.policy",
            ["imports planning, which is above it"],
            id="up, relative",
        ),
        pytest.param(
            "from libvirt_tuner.host.sysfs import Sysfs",
            "planning.planner",
            ["imports host, which is above it"],
            id="effects from the core",
        ),
        pytest.param("import os.path", "cpuset", ["is pure and imports os"], id="os in the core"),
        pytest.param(
            "import os", "hostcheck.check", ["is pure and imports os"], id="os in a pure module of a package"
        ),
        pytest.param(
            "x = open('/proc/stat')",
            "planning.planner",
            ["is pure and reads or writes"],
            id="open in the core",
        ),
        pytest.param(
            "import libvirt",
            "daemon.service",
            ["imports libvirt, which is for libvirtd.connection"],
            id="libvirt elsewhere",
        ),
        pytest.param("import click", "hook", ["imports click, which is for cli"], id="click in the hook"),
    ],
)
def test_what_is_complained_of(source: str, name: str, complaint: list[str]) -> None:
    assert complaints(source, name) == complaint
