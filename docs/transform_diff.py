"""A Sphinx directive that shows what a transform does to a document, by doing it.

``{transform-diff} vcpupin({0: {20}})`` runs the expression with the names of :mod:`libvirt_tuner.transforms`
on :data:`DOMAIN`, and shows the difference.
"""

from __future__ import annotations

import difflib

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from libvirt_tuner import transforms

DOMAIN = """\
<domain type='kvm'>
  <name>web-1</name>
  <memory unit='GiB'>8</memory>
  <vcpu>2</vcpu>
  <iothreads>1</iothreads>
  <devices>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
    <interface type='direct'>
      <mac address='52:54:00:00:00:02'/>
      <source dev='geneve0'/>
      <model type='virtio'/>
    </interface>
  </devices>
</domain>
"""


def changed(expression: str) -> str:
    """The difference that a transform, written as Python, makes to :data:`DOMAIN`."""
    names = {name: getattr(transforms, name) for name in transforms.__all__}
    transform = eval(expression, {"__builtins__": {}}, names)
    after = transform(DOMAIN).splitlines()
    lines = difflib.unified_diff(DOMAIN.splitlines(), after, "before", "after", lineterm="", n=1)
    return "\n".join(lines)


class TransformDiff(SphinxDirective):
    """``{transform-diff} EXPRESSION``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The difference as a code block; nothing changed is an error of the page."""
        text = changed(self.arguments[0])
        if not text:
            raise self.error(f"{self.arguments[0]} changes nothing")
        return [nodes.literal_block(text, text, language="diff")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("transform-diff", TransformDiff)
    return {"parallel_read_safe": True}
