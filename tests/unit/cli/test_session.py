"""What the commands share, on libvirt's test driver and replayed hosts."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import click
import pytest

from libvirt_tuner.cli.session import Session, one_line, read_document
from libvirt_tuner.domainxml.document import LARGEST
from libvirt_tuner.errors import ConnectionFailed, TunerError
from tests import hosts

DOMAIN = """<domain type='test'><name>{}</name><memory>65536</memory><vcpu>1</vcpu>{}
<os><type>hvm</type></os></domain>"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    node = "".join(DOMAIN.format(name, "") for name in ("a", "b"))
    (tmp_path / "node.xml").write_text(f"<node>{node}</node>")
    hosts.make("small-8", tmp_path / "host")
    with Session(f"test://{tmp_path}/node.xml", str(tmp_path / "host")) as made:
        yield made


@pytest.mark.parametrize(
    ("names", "every", "found"),
    [
        pytest.param(("a",), False, ["a"], id="one"),
        pytest.param(("b", "a"), False, ["b", "a"], id="in their order"),
        pytest.param(("a", "a"), False, ["a"], id="twice is once"),
        pytest.param((), True, ["a", "b"], id="all"),
    ],
)
def test_domains(session: Session, names: tuple[str, ...], every: bool, found: list[str]) -> None:
    assert [domain.name for domain in session.domains(names, every=every)] == found


@pytest.mark.parametrize("every", [True, False])
def test_names_or_all_and_not_both(session: Session, every: bool) -> None:
    with pytest.raises(click.UsageError):
        session.domains(("a",) if every else (), every=every)


def test_an_unknown_name(session: Session) -> None:
    with pytest.raises(ConnectionFailed):
        session.domains(("a", "other"), every=False)


def test_an_error_inside_is_said_with_its_subject(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("no such file", "domain web: is gone"):
        with session.going_on("web"):
            raise TunerError(text)
    assert capsys.readouterr().err == "Error: web: no such file\nError: domain web: is gone\n"
    assert session.failed


def test_other_errors_are_not_kept_back(session: Session) -> None:
    with pytest.raises(ZeroDivisionError), session.going_on("web"):
        raise ZeroDivisionError
    assert not session.failed


def test_a_mistake_in_the_policy_is_said_and_the_rest_counts(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(session.root) / "etc").mkdir()
    (Path(session.root) / "etc/libvirt-tuner.toml").write_text("[policy]\nplacement = 'nowhere'\n")
    request = session.request(DOMAIN.format("vm", "<cputune><vcpupin vcpu='0' cpuset='77'/></cputune>"))
    assert request.policy.select
    policy, pin = capsys.readouterr().err.splitlines()
    assert "nowhere" in policy
    assert "'77'" in pin
    assert session.failed


def test_without_a_config_file_there_is_none(session: Session) -> None:
    assert session.config is None


def test_no_more_is_read_than_shows_that_it_is_too_much() -> None:
    assert len(read_document(BytesIO(b"x" * (LARGEST + 100)))) == LARGEST + 1


def test_one_line() -> None:
    assert one_line("two\n lines  ") == "two lines"
