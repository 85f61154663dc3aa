"""Below a prefix: what is written, what is refused, and what the installed hook does when Python does not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from libvirt_tuner import install
from libvirt_tuner.cli import main
from libvirt_tuner.errors import DeniedError, HostError

ALL = (install.HOOK, install.COMPLETION, install.MANUAL, install.UNIT)
SOMEBODYS = '#!/bin/sh\nexec /opt/somebody/hook "$@"\n# beside it: see\n#\n#\n# libvirt-tuner install\n'


def run(command: str, prefix: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [command, "--prefix", str(prefix), *arguments])


def files(prefix: Path) -> set[str]:
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}


def put(path: Path, text: str = SOMEBODYS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class TestInstall:
    def test_fresh(self, tmp_path: Path) -> None:
        result = run("install", tmp_path)
        assert (result.exit_code, result.stderr) == (0, "")
        assert files(tmp_path) == set(ALL)
        assert os.access(tmp_path / install.HOOK, os.X_OK)
        assert "reload libvirtd" in result.stdout

    def test_again_changes_nothing(self, tmp_path: Path) -> None:
        run("install", tmp_path)
        before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
        result = run("install", tmp_path)
        assert result.exit_code == 0
        assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
        assert "reload libvirtd" not in result.stdout

    def test_over_an_older_one_of_ours(self, tmp_path: Path) -> None:
        put(tmp_path / install.HOOK, f"#!/bin/sh\n# {install.MARK}: an older one\n")
        assert run("install", tmp_path).exit_code == 0
        assert "an older one" not in (tmp_path / install.HOOK).read_text()

    def test_replaces_the_unit_of_older_versions(self, tmp_path: Path) -> None:
        put(tmp_path / install.OLD_UNIT, f"# {install.MARK}\n")
        result = run("install", tmp_path)
        assert files(tmp_path) == set(ALL)
        assert f"removed {tmp_path / install.OLD_UNIT}" in result.stdout

    def test_leaves_a_unit_of_the_old_name_that_is_somebodys(self, tmp_path: Path) -> None:
        put(tmp_path / install.OLD_UNIT)
        run("install", tmp_path)
        assert files(tmp_path) == {*ALL, install.OLD_UNIT}

    def test_without_the_service(self, tmp_path: Path) -> None:
        run("install", tmp_path, "--no-service")
        assert files(tmp_path) == set(ALL) - {install.UNIT}

    def test_beside_somebodys_hook(self, tmp_path: Path) -> None:
        hook = put(tmp_path / install.HOOK)
        assert run("install", tmp_path).exit_code == 0
        assert hook.read_text() == SOMEBODYS
        assert install.MARK in (tmp_path / install.HOOK_BESIDE).read_text()

    def test_one_hook_once_somebodys_has_gone(self, tmp_path: Path) -> None:
        hook = put(tmp_path / install.HOOK)
        run("install", tmp_path)
        hook.unlink()
        run("install", tmp_path)
        assert files(tmp_path) == set(ALL)

    @pytest.mark.parametrize(
        "names",
        [
            pytest.param((install.HOOK, install.HOOK_BESIDE), id="both hooks"),
            pytest.param((install.UNIT,), id="unit"),
            pytest.param((install.COMPLETION,), id="completion"),
            pytest.param((install.MANUAL,), id="manual page"),
        ],
    )
    def test_writes_nothing_where_a_file_is_somebodys(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            put(tmp_path / name)
        result = run("install", tmp_path)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert "not ours" in result.stderr
        assert files(tmp_path) == set(names)

    def test_directory_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / install.HOOK).mkdir(parents=True)
        result = run("install", tmp_path)
        assert result.exit_code == 1
        assert "Is a directory" in result.stderr
        assert "needs root" not in result.stderr

    def test_not_permitted(self) -> None:
        with pytest.raises(DeniedError, match="needs root"):
            install.write_marked(Path("/sys/kernel/libvirt-tuner"), install.MARK)

    def test_dangling_link_is_somebodys(self, tmp_path: Path) -> None:
        hook = tmp_path / install.HOOK
        hook.parent.mkdir(parents=True)
        hook.symlink_to(tmp_path / "nowhere")
        run("install", tmp_path)
        assert hook.is_symlink()


class TestUninstall:
    def test_leaves_nothing(self, tmp_path: Path) -> None:
        run("install", tmp_path)
        result = run("uninstall", tmp_path)
        assert (result.exit_code, files(tmp_path)) == (0, set())
        assert result.stdout.count("removed ") == len(ALL)

    def test_removes_only_ours(self, tmp_path: Path) -> None:
        put(tmp_path / install.HOOK)
        run("install", tmp_path)
        put(tmp_path / install.COMPLETION)
        run("uninstall", tmp_path)
        assert files(tmp_path) == {install.HOOK, install.COMPLETION}

    def test_removes_the_unit_of_older_versions(self, tmp_path: Path) -> None:
        put(tmp_path / install.OLD_UNIT, f"# {install.MARK}\n")
        run("uninstall", tmp_path)
        assert files(tmp_path) == set()

    def test_of_nothing(self, tmp_path: Path) -> None:
        assert run("uninstall", tmp_path).exit_code == 0


class TestUnit:
    @pytest.mark.parametrize(
        ("program", "line"),
        [
            pytest.param("/usr/bin/libvirt-tuner", 'ExecStart="/usr/bin/libvirt-tuner" daemon', id="plain"),
            pytest.param("/opt/my tools/lt", 'ExecStart="/opt/my tools/lt" daemon', id="space"),
            pytest.param('/opt/"%n"/$x\\', 'ExecStart="/opt/\\"%%n\\"/$$x\\\\" daemon', id="systemd's own"),
        ],
    )
    def test_program_is_quoted(self, program: str, line: str) -> None:
        assert line in install.unit(program).splitlines()


def fake_python(path: Path, body: str) -> str:
    put(path, f"#!/bin/sh\n{body}\n").chmod(0o755)
    return str(path)


def call(hook: Path, operation: str = "started") -> subprocess.CompletedProcess[bytes]:
    command = [str(hook), "web", operation, "begin", "-"]
    return subprocess.run(command, input=b"<domain/>", capture_output=True, check=False, cwd="/")


class TestHookScript:
    def hook(self, tmp_path: Path, body: str, directory: str = "bin") -> Path:
        python = fake_python(tmp_path / directory / "python", body)
        hook = put(tmp_path / "qemu", install.hook_script(python=python, paths=["/a b", "/c'd"]))
        hook.chmod(0o755)
        return hook

    @pytest.mark.parametrize(
        "directory",
        [
            pytest.param("bin", id="plain"),
            pytest.param("my bin", id="space"),
            pytest.param('it\'s $(false) "q" `x`', id="what sh would take apart"),
        ],
    )
    def test_runs_its_python_with_its_path(self, tmp_path: Path, directory: str) -> None:
        hook = self.hook(tmp_path, 'shift 2; printf "%s|" "$@" >"${0%/*}/said"', directory)
        done = call(hook)
        said = (tmp_path / directory / "said").read_text()
        assert (done.returncode, done.stdout) == (0, b"")
        assert "|/a b:/c'd|/|web|started|begin|-|" in said

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            pytest.param("exit 0", 0, id="fine"),
            pytest.param("exit 1", 0, id="crashed at import"),
            pytest.param("exit 2", 0, id="wrong call"),
            pytest.param("exit 3", 1, id="strict: refused"),
            pytest.param("kill -9 $$", 0, id="killed"),
        ],
    )
    def test_status(self, tmp_path: Path, body: str, status: int) -> None:
        done = call(self.hook(tmp_path, body), "migrate")
        assert (done.returncode, done.stdout) == (status, b"")

    def test_python_has_gone(self, tmp_path: Path) -> None:
        hook = self.hook(tmp_path, "exit 3")
        (tmp_path / "bin" / "python").unlink()
        done = call(hook)
        assert (done.returncode, done.stdout) == (0, b"")

    def test_a_domain_named_like_an_option_is_logged_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_python(tmp_path / "path" / "logger", f'printf "%s|" "$@" >"{tmp_path}/said"')
        monkeypatch.setenv("PATH", f"{tmp_path}/path:{os.environ['PATH']}")
        hook = self.hook(tmp_path, "exit 3")
        (tmp_path / "bin" / "python").unlink()
        subprocess.run([hook, "--file=x", "started", "begin", "-"], check=True)
        assert "|--|--file=x: started: " in (tmp_path / "said").read_text()

    @pytest.mark.parametrize("operation", ["prepare", "start", "attach", "nonsense"])
    def test_nothing_to_do_costs_no_python(self, tmp_path: Path, operation: str) -> None:
        assert call(self.hook(tmp_path, "exit 3"), operation).returncode == 0

    def test_package_that_cannot_be_imported(self, tmp_path: Path) -> None:
        hook = put(tmp_path / "qemu", install.hook_script(paths=[str(tmp_path)]))
        hook.chmod(0o755)
        done = call(hook)
        assert (done.returncode, done.stdout) == (0, b"")

    @pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
    def test_shellcheck(self, tmp_path: Path) -> None:
        done = subprocess.run(
            ["shellcheck", "-s", "sh", self.hook(tmp_path, "exit 0", "a b")], capture_output=True, check=False
        )
        assert done.stdout.decode() == ""


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
def test_manual_page_has_no_warnings(tmp_path: Path) -> None:
    run("install", tmp_path)
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(tmp_path / install.MANUAL)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    text = (tmp_path / install.MANUAL).read_text()
    assert '\n.SS "libvirt\\-tuner transform [OPTIONS]' in text
    assert "\n\\-\\-poll\\-us NUMBER|none\n" in text


def test_completion_is_bash(tmp_path: Path) -> None:
    run("install", tmp_path)
    script = tmp_path / install.COMPLETION
    subprocess.run(["bash", "-n", script], check=True)
    listed = subprocess.run(
        ["bash", "-c", '. "$0"; complete -p libvirt-tuner', script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "libvirt-tuner" in listed.stdout


def test_both_places_somebodys(tmp_path: Path) -> None:
    put(tmp_path / install.HOOK)
    put(tmp_path / install.HOOK_BESIDE)
    with pytest.raises(HostError, match="not ours"):
        install.install_hook(tmp_path)


@pytest.mark.parametrize(
    ("profile", "python", "told"),
    [
        pytest.param(None, "/opt/python/bin/python3", False, id="no AppArmor profile"),
        pytest.param("usr.sbin.libvirtd", "/usr/bin/env", False, id="a program of the system"),
        pytest.param("usr.sbin.libvirtd", "/opt/python/bin/python3", True, id="a Python of one's own"),
        pytest.param(
            "usr.sbin.virtqemud", "/opt/python/bin/python3", True, id="the modular daemon's profile"
        ),
    ],
)
def test_a_python_that_apparmor_forbids_is_said(
    tmp_path: Path, profile: str | None, python: str, told: bool
) -> None:
    (tmp_path / "sys/module/apparmor").mkdir(parents=True)
    (tmp_path / "etc/apparmor.d").mkdir(parents=True)
    if profile:
        (tmp_path / "etc/apparmor.d" / profile).write_text("")
    found = install.confinement(tmp_path, python=python)
    assert bool(found) is told
    if found:
        assert f"'{python} PUx,'" in found.advice
        assert f"local/{profile}" in found.advice
