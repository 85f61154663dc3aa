"""Imports go down only, and what is pure stays so: :data:`PURE` and :data:`EFFECTS` are the order."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "libvirt_tuner"

#: Lowest first: a module imports only what stands before it. Values in, values out.
PURE = (
    "errors",
    "resources",
    "cpuset",
    "topology",
    "xmltext",
    "xmlread",
    "xmledit",
    "xmlrecord",
    "domainxml",
    "transforms",
    "record",
    "schema",
    "tomllines",
    "settings",
    "configfile",
    "policymetadata",
    "policy",
    "uplink",
    "overhead",
    "plan",
    "mtu",
    "planfile",
    "memory",
    "placement",
    "siting",
    "steering",
    "packetsteering",
    "planner",
    "tuning",
    "isolation",
    "hostfacts",
    "hostcheck",
    "testbedconfig",
    "testbedplan",
)
#: They read or change something outside the process.
EFFECTS = (
    "sysfs",
    "commands",
    "openvswitch",
    "ipsec",
    "netprobe",
    "probe",
    "processes",
    "ledger",
    "apply",
    "irqbalance",
    "hostside",
    "testbedkeys",
    "testbedhost",
    "testbedjournal",
    "testbedcommands",
    "testbed",
    "hostprobe",
    "capture",
    "connection",
    "definition",
    "notify",
    "linkevents",
    "upkeep",
    "install",
    "settle",
    "hook",
    "watch",
    "status",
    "render",
    "cli",
)
ORDER = (*PURE, *EFFECTS)
#: Directories; the modules in one may import each other.
SUBPACKAGES = ("transforms", "cli")

#: All that a pure module may import from outside the package.
HARMLESS = frozenset(
    {"__future__", "attrs", "bisect", "collections", "contextlib", "copy", "difflib", "enum", "fnmatch"}
    | {"functools", "heapq", "ipaddress", "itertools", "json", "lxml", "math", "operator", "re"}
    | {"string", "textwrap", "tomllib", "types", "typing"}
)
#: Who may import what is slow to import or reaches outside.
RESERVED = {
    "libvirt": {"connection"},
    "libvirt_qemu": {"connection"},
    "click": {"cli", "render"},
    "rich": {"cli", "render"},
    "psutil": {"cli", "hostprobe", "status"},
}
#: resources.py reads the package's own files, which are as fixed as its code.
MAY_OPEN = {"resources"}


def layer(file: Path) -> str:
    """``transforms/mtu.py`` belongs to ``transforms``, the package's own ``__init__`` to ``""``."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


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


def complaints(
    source: str, name: str, order: tuple[str, ...] = ORDER, pure: tuple[str, ...] = PURE
) -> list[str]:
    """What a module of layer ``name`` may not do, of what its source does."""
    tree = ast.parse(source)
    found = []
    for module in imported(tree, f"libvirt_tuner.{name}" if name in SUBPACKAGES else "libvirt_tuner"):
        top, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        if top == "libvirt_tuner" and target in order and target != name:
            if order.index(target) > order.index(name):
                found.append(f"imports {target}, which is above it")
        elif top != "libvirt_tuner" and name in pure and top not in HARMLESS:
            found.append(f"is pure and imports {top}")
        if name not in RESERVED.get(top, {name}):
            found.append(f"imports {top}, which is for {', '.join(sorted(RESERVED[top]))}")
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    opens = any(isinstance(call, ast.Name) and call.id in ("open", "print", "input") for call in calls)
    if opens and name in pure and name not in MAY_OPEN:
        found.append("is pure and reads or writes")
    return found


FILES = sorted(PACKAGE.glob("*.py")) + sorted(
    file for name in SUBPACKAGES for file in (PACKAGE / name).rglob("*.py")
)


def test_every_module_has_its_place() -> None:
    assert len(ORDER) == len(set(ORDER))
    directories = {found.parent.name for found in PACKAGE.glob("*/__init__.py")}
    assert directories == set(SUBPACKAGES)
    assert {layer(file) for file in FILES} - {""} <= set(ORDER)


@pytest.mark.parametrize(
    "file", [pytest.param(f, id=str(f.relative_to(PACKAGE))) for f in FILES if layer(f) in ORDER]
)
def test_a_module_keeps_to_its_layer(file: Path) -> None:
    assert complaints(file.read_text(), layer(file)) == []


def test_the_package_itself_offers_transforms_and_errors_only() -> None:
    names = imported(ast.parse((PACKAGE / "__init__.py").read_text()), "libvirt_tuner")
    own = {name.split(".")[1] for name in names if name.startswith("libvirt_tuner.")}
    assert own <= {"errors", "transforms"}


@pytest.mark.parametrize(
    ("source", "name", "complaint"),
    [
        pytest.param("from attrs import frozen", "plan", [], id="attrs is fine"),
        pytest.param("from libvirt_tuner import cpuset", "policy", [], id="down"),
        pytest.param("from libvirt_tuner.transforms.mtu import mtu", "plan", [], id="down into a package"),
        pytest.param("from . import mtu", "transforms", [], id="sideways within a package"),
        pytest.param("import os", "sysfs", [], id="os where effects are"),
        pytest.param(
            "from libvirt_tuner import plan", "policy", ["imports plan, which is above it"], id="up, by name"
        ),
        pytest.param(
            "import libvirt_tuner.plan", "policy", ["imports plan, which is above it"], id="up, by module"
        ),
        pytest.param(
            "def f():\n from .plan import Plan",
            "policy",
            ["imports plan, which is above it"],
            id="up, relative",
        ),
        pytest.param(
            "from .. import plan",
            "transforms",
            ["imports plan, which is above it"],
            id="up, out of a package",
        ),
        pytest.param(
            "from libvirt_tuner.sysfs import Sysfs",
            "planner",
            ["imports sysfs, which is above it"],
            id="effects from the core",
        ),
        pytest.param("import os.path", "cpuset", ["is pure and imports os"], id="os in the core"),
        pytest.param(
            "x = open('/proc/stat')", "planner", ["is pure and reads or writes"], id="open in the core"
        ),
        pytest.param(
            "import libvirt", "watch", ["imports libvirt, which is for connection"], id="libvirt elsewhere"
        ),
        pytest.param(
            "import click", "hook", ["imports click, which is for cli, render"], id="click in the hook"
        ),
    ],
)
def test_what_is_complained_of(source: str, name: str, complaint: list[str]) -> None:
    assert complaints(source, name) == complaint


def test_importing_the_transforms_imports_no_libvirt_and_no_terminal() -> None:
    heavy = {"libvirt", "psutil", "click", "rich"}
    code = f"import libvirt_tuner.transforms, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.stdout == "set()\n"
