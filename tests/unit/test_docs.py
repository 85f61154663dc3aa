"""What README and docs tell users to type exists, and answers as they show it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from libvirt_tuner.cli import main
from libvirt_tuner.diagnosis.finding import Kind

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")))
HISTORY = {"decisions.md", "results.md", "reliability.md"}
"""Pages that tell what was, in the words of then."""


_CALL = r"(?:^|[#$;|&] |ssh \S+ )(?:\S*/)?libvirt-tuner ([^#|;&>]+)"
"""At the start of a command: after a prompt, a separator, or ssh."""


def blocks(text: str) -> Iterator[str]:
    """Lines of code blocks that are for a shell: those without a language."""
    for language, block in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.M | re.S):
        yield from block.splitlines() if not language else ()


def calls(page: Path) -> Iterator[str]:
    """Each call of the program in a page, with its arguments."""
    for line in blocks(page.read_text().replace("\\\n", " ")):
        for found in re.findall(_CALL, line.split("  #")[0]):
            yield found.strip()


CALLS = sorted({(page.name, call) for page in PAGES if page.name not in HISTORY for call in calls(page)})


@pytest.mark.parametrize(("page", "call"), [pytest.param(*each, id=": ".join(each)) for each in CALLS])
def test_a_call_in_the_text_is_one_that_the_program_takes(page: str, call: str) -> None:
    command: click.Command = main
    context = click.Context(main, info_name="libvirt-tuner")
    words = shlex.split(call)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"no command {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    known = {
        name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)
    }
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_finding_has_its_place_in_troubleshooting(kind: str) -> None:
    page = (ROOT / "docs/guide/troubleshooting.md").read_text()
    _, _, section = page.partition(f"\n### `{kind}`: ")
    body = section.partition("\n#")[0]
    assert "*Cause.*" in body
    assert re.search(r"\*Command\.\*[^`]*`", body)


def test_calls_are_found() -> None:
    assert len(CALLS) > 15


PROGRAMS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_in_readme_runs(number: int) -> None:
    names = {"xml": (ROOT / "fixtures/domains/seed-in.xml").read_text()}
    exec(compile(PROGRAMS[number], f"README.md, program {number + 1}", "exec"), names)
    assert names["tuned"] != names["xml"]


def test_readme_has_programs() -> None:
    assert PROGRAMS


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        pytest.param(
            "plan.txt",
            ["plan", "--xml", "fixtures/domains/seed-in.xml", "--host", "fixtures/hosts/seed"],
            id="plan",
        ),
        pytest.param("host-check.txt", ["host", "check", "--host", "fixtures/hosts/seed"], id="host check"),
    ],
)
def test_an_answer_shown_is_the_answer_given(
    file: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """``--rewrite-golden`` writes it anew."""
    monkeypatch.chdir(ROOT)
    answer = CliRunner().invoke(main, arguments).stdout
    shown = ROOT / "docs/examples" / file
    if request.config.getoption("--rewrite-golden"):
        shown.write_text(answer)
    assert shown.read_text() == answer


WIDTH = 120
"""Of a line of an answer in README; longer ones are cut."""


def excerpt(answer: str, starts: tuple[str, ...]) -> str:
    """The lines that start so, and the remedies that follow them, each cut to the width."""
    found: list[str] = []
    kept = False
    for line in answer.splitlines():
        kept = line.strip().startswith(starts) or (kept and line.startswith("    "))
        found += [line if len(line) <= WIDTH else f"{line[: WIDTH - 4].rstrip()} ..."] if kept else []
    return "\n".join(found)


@pytest.mark.parametrize(
    ("command", "file", "starts"),
    [
        pytest.param(
            "plan vlinux1",
            "plan.txt",
            ("vlinux1:", "vcpus ", "emulator and vhost", "memory", "mtu of vNIC 0", "irq enp23s0f0np0"),
            id="plan",
        ),
        pytest.param(
            "host check", "host-check.txt", ("warning: enp23s0f0np0", "warning: geneve0"), id="host check"
        ),
    ],
)
def test_an_answer_in_readme_is_part_of_the_answer_given(
    command: str, file: str, starts: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """``--rewrite-golden`` writes it anew, from the file that the test before this one writes."""
    readme = ROOT / "README.md"
    before, prompt, rest = readme.read_text().partition(f"$ libvirt-tuner {command}\n")
    shown, fence, after = rest.partition("\n```")
    wanted = excerpt((ROOT / "docs/examples" / file).read_text(), starts)
    if request.config.getoption("--rewrite-golden"):
        readme.write_text(before + prompt + wanted + fence + after)
        return
    assert len(wanted.splitlines()) >= len(starts)
    assert shown == wanted
