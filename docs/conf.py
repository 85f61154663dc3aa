"""Sphinx's settings: `make docs`. Warnings are errors, and every example is run."""

from __future__ import annotations

import sys
from configparser import ConfigParser
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

_setup = ConfigParser()
_setup.read(HERE.parent / "setup.cfg")

project = "libvirt-tuner"
release = version = _setup["metadata"]["version"]
project_copyright = "libvirt-tuner maintainers"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "transform_diff",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"libvirt-tuner {release}"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
exclude_patterns = ["README.md"]
doctest_global_setup = f"""
from pathlib import Path
fixtures = Path({str(HERE.parent / "fixtures")!r})
"""
