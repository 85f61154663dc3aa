"""The line of a key in a TOML file."""

from __future__ import annotations

import pytest

from libvirt_tuner.config import toml_lines
from libvirt_tuner.config.toml_lines import Path, line_of

TEXT = '''\
# a comment

top = 1
[policy]
mtu = 1400 # [domain]
a.b = {c = 1, d = [ {e = 2} ]}
"quoted key" . x = 2

[[domain]]
match = """
mtu = 3
[policy]
"""
ring = [
  1, # one
  2,
]
[[domain]]
[domain.sub]
z = 1
[[domain.inner]]
y = 1
[[domain.inner]]
y = 2

[[domain]]
mtu = """line\\
  goes on"""
last = 1'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param((), 1, id="the document"),
        pytest.param(("top",), 3, id="before the tables"),
        pytest.param(("policy",), 4, id="a table's header"),
        pytest.param(("policy", "mtu"), 5, id="a key"),
        pytest.param(("policy", "a", "b"), 6, id="a dotted key"),
        pytest.param(("policy", "a", "b", "c"), 6, id="in an inline table"),
        pytest.param(("policy", "a", "b", "d", 0, "e"), 6, id="in an array in an inline table"),
        pytest.param(("policy", "quoted key", "x"), 7, id="a quoted key"),
        pytest.param(("domain", 0), 9, id="the first of an array of tables"),
        pytest.param(("domain", 0, "match"), 10, id="a string over several lines begins here"),
        pytest.param(("domain", 0, "ring"), 14, id="an array over several lines begins here"),
        pytest.param(("domain", 0, "ring", 1), 14, id="an element of it"),
        pytest.param(("domain", 1), 18, id="the second of an array of tables"),
        pytest.param(("domain", 1, "sub"), 19, id="a table of the second"),
        pytest.param(("domain", 1, "sub", "z"), 20, id="a key in it"),
        pytest.param(("domain", 1, "inner", 0, "y"), 22, id="an array of tables in it"),
        pytest.param(("domain", 1, "inner", 1, "y"), 24, id="the second of that"),
        pytest.param(("domain", 2, "mtu"), 27, id="after a blank line"),
        pytest.param(("domain", 2, "last"), 29, id="the last line, without a newline"),
        pytest.param(("domain", 2, "missing"), 26, id="a key that is missing: its table"),
        pytest.param(("nowhere",), 1, id="a table that is missing: the document"),
    ],
)
def test_line_of(path: Path, line: int) -> None:
    assert line_of(TEXT, path) == line


def test_carriage_returns_do_not_count_twice() -> None:
    assert line_of("[policy]\r\n\r\nmtu = 1\r\n", ("policy", "mtu")) == 3


def test_a_thousand_mistakes_are_found_in_one_pass() -> None:
    text = "".join(f"key{n} = {n}\n" for n in range(1000))
    toml_lines._lines.cache_clear()
    assert [line_of(text, (f"key{n}",)) for n in range(1000)] == list(range(1, 1001))
    assert toml_lines._lines.cache_info().misses == 1


def test_a_statement_without_end_ends_the_search() -> None:
    text = "first = 1\nlong = [\n" + "1,\n" * 2000 + "]\nlast = 1\n"
    assert line_of(text, ("first",)) == 1
    assert line_of(text, ("last",)) == 1
