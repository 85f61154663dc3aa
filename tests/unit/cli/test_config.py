"""config check: mistakes with their place, and where each domain's settings come from."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from libvirt_tuner.cli import main
from libvirt_tuner.cli.config import check
from libvirt_tuner.cli.session import Session

SEED_XML = str(Path(__file__).parents[3] / "fixtures" / "domains" / "seed-in.xml")
GOOD = "[policy]\nplacement = 'shared'\n[[domain]]\nmatch = 'vlinux*'\npoll_us = 50\nhousekeeping = '0-1'\n"
NONSENSE = "<metadata><policy xmlns='https://libvirt-tuner.org/policy/1' {}/></metadata></domain>"


def config(tmp_path: Path, text: str) -> str:
    file = tmp_path / "tuner.toml"
    file.write_text(text)
    return str(file)


def seed_with(tmp_path: Path, attributes: str) -> str:
    file = tmp_path / "seed.xml"
    file.write_text(Path(SEED_XML).read_text().replace("</domain>", NONSENSE.format(attributes)))
    return str(file)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["config", "check", *arguments])


def test_settings_and_where_they_come_from(tmp_path: Path) -> None:
    file = config(tmp_path, GOOD)
    result = run("--file", file, "--xml", SEED_XML)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{file}: no mistakes",
        "vlinux1: settings",
        '    placement        "shared"       [policy]',
        '    housekeeping     "0-1"          [[domain]] vlinux*',
        "    poll_us          50             [[domain]] vlinux*",
    ]


def test_json_has_the_built_in_settings_too(tmp_path: Path) -> None:
    result = run("--file", config(tmp_path, GOOD), "--xml", SEED_XML, "--json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["problems"]) == (0, [])
    assert data["domains"]["vlinux1"]["poll_us"] == {"value": "50", "from": "[[domain]] vlinux*"}
    assert data["domains"]["vlinux1"]["queues"] == {"value": '"keep"', "from": "built-in"}


def test_a_mistake_in_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, "[policy]\nplacment = 'keep'\n")
    result = run("--file", file, "--xml", SEED_XML)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {file}:2: unknown key: got 'placment'")
    assert result.stderr.endswith("(did you mean placement?); domains are not changed until this is fixed\n")
    assert result.stdout == "vlinux1: built-in settings\n"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "tuner.toml"
    file.write_bytes(b"[policy]\n# \xff\n")
    result = run("--file", str(file))
    assert (result.exit_code, result.stderr) == (1, f"Error: {file}:2: not UTF-8\n")


def test_metadata_that_may_not_set_it(tmp_path: Path) -> None:
    xml = seed_with(tmp_path, "uplink='eth0' select='false'")
    result = run("--file", config(tmp_path, ""), "--xml", xml, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [problem["layer"] for problem in data["problems"]] == ["limits"]
    assert data["domains"]["vlinux1"]["uplink"]["from"] == "built-in"
    assert data["domains"]["vlinux1"]["select"] == {"value": "false", "from": "metadata"}
    assert "this setting is ignored" in result.stderr


def test_a_domain_that_is_left_alone(tmp_path: Path) -> None:
    result = run("--file", config(tmp_path, "[policy]\nselect = false\n"), "--xml", SEED_XML)
    assert "vlinux1: not tuned" in result.stdout.splitlines()


def test_every_domain_of_libvirt_without_a_file(tmp_path: Path) -> None:
    with Session("test:///default", str(tmp_path)) as session:
        result = CliRunner().invoke(check, obj=session)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "/etc/libvirt-tuner.toml: no such file; the defaults are in effect",
        "test: built-in settings",
    ]


def test_the_file_is_checked_where_libvirt_cannot_be_asked(tmp_path: Path) -> None:
    with Session("test:///nowhere.xml", str(tmp_path)) as session:
        result = CliRunner().invoke(check, ["--file", config(tmp_path, "[oops]\n")], obj=session)
    assert result.exit_code == 1
    assert "Warning: " in result.stderr
    assert "unknown key: got 'oops'" in result.stderr
