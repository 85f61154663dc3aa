"""Below a prefix: what is written, what is refused, and what the installed hook does when Python does not."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from libvirt_tuner import install
from libvirt_tuner.cli import main
from libvirt_tuner.cli.manual import pages
from libvirt_tuner.errors import DeniedError, HostError

MANUAL = install.manual("libvirt-tuner.8")
COMPLETION = install.COMPLETIONS["bash"]
PAGES = [install.manual(name) for name in pages(click.Context(main, info_name="libvirt-tuner"))]
ALL = (install.HOOK, install.UNIT, *install.COMPLETIONS.values(), *PAGES)
SOMEBODYS = '#!/bin/sh\nexec /opt/somebody/hook "$@"\n# beside it: see\n#\n#\n# libvirt-tuner install\n'


def run(command: str, prefix: Path, *arguments: str) -> Result:
    """The checkout may be a user's: what that means has tests of its own."""
    allow = ("--allow-writable",) if command == "install" else ()
    return CliRunner().invoke(main, [command, "--prefix", str(prefix), *allow, *arguments])


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
            pytest.param((COMPLETION,), id="completion"),
            pytest.param((MANUAL,), id="manual page"),
        ],
    )
    def test_writes_nothing_where_a_file_is_somebodys(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            put(tmp_path / name)
        result = run("install", tmp_path)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert "not a file of libvirt-tuner" in result.stderr
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

    def test_below_a_package_of_the_distribution_there_is_the_hook_only(self, tmp_path: Path) -> None:
        run("install", tmp_path)
        put(tmp_path / install.PACKAGED_UNIT)
        result = run("install", tmp_path)
        assert files(tmp_path) == {install.HOOK, install.PACKAGED_UNIT}
        assert f"removed {tmp_path / install.UNIT}" in result.stdout

    def test_dry_run_writes_nothing(self, tmp_path: Path) -> None:
        put(tmp_path / install.OLD_UNIT, f"# {install.MARK}\n")
        result = run("install", tmp_path, "--dry-run")
        assert files(tmp_path) == {install.OLD_UNIT}
        assert f"would write {tmp_path / install.HOOK}\n" in result.stdout
        assert f"would remove {tmp_path / install.OLD_UNIT}\n" in result.stdout


class TestUninstall:
    def test_dry_run_removes_nothing(self, tmp_path: Path) -> None:
        run("install", tmp_path)
        before = files(tmp_path)
        result = run("uninstall", tmp_path, "--dry-run")
        assert files(tmp_path) == before
        assert f"would remove {tmp_path / install.UNIT}\n" in result.stdout

    def test_leaves_nothing(self, tmp_path: Path) -> None:
        run("install", tmp_path)
        result = run("uninstall", tmp_path)
        assert (result.exit_code, files(tmp_path)) == (0, set())
        assert result.stdout.count("removed ") == len(ALL)

    def test_removes_only_ours(self, tmp_path: Path) -> None:
        put(tmp_path / install.HOOK)
        run("install", tmp_path)
        put(tmp_path / COMPLETION)
        run("uninstall", tmp_path)
        assert files(tmp_path) == {install.HOOK, COMPLETION}

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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("verify",), id="valid"),
        pytest.param(
            ("security", "--offline=true", "--threshold=26", "--no-pager"), id="exposure at most 2.6"
        ),
    ],
)
def test_systemd_has_nothing_to_say_of_the_unit(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    unit = put(tmp_path / "libvirt-tuner.service", install.unit("/usr/bin/env"))
    done = subprocess.run(["systemd-analyze", *arguments, unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


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
        assert "|/a b:/c'd|/||web|started|begin|-|" in said

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

    @pytest.mark.parametrize(
        ("change", "refused"),
        [
            pytest.param(lambda place: None, False, id="root's"),
            pytest.param(lambda place: os.chown(place, 1000, 0), True, id="somebody's directory"),
            pytest.param(lambda place: place.chmod(0o777), True, id="everybody's directory"),
            pytest.param(lambda place: os.chown(place.parent, 1000, 0), True, id="somebody's parent"),
        ],
    )
    @pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
    def test_imports_nothing_that_others_can_change(
        self, tmp_path: Path, change: Callable[[Path], None], refused: bool
    ) -> None:
        place = tmp_path / "lib" / "python"
        package = put(
            place / "libvirt_tuner" / "hook.py", f"def main(*_, **__):\n open({str(tmp_path / 'ran')!r}, 'w')"
        )
        put(package.with_name("__init__.py"), "")
        text = install.hook_script(python="/usr/bin/python3", paths=[str(place)], guard=True)
        hook = put(tmp_path / "qemu", text)
        hook.chmod(0o755)
        change(place)
        assert call(hook).returncode == 0
        assert (tmp_path / "ran").exists() is not refused

    @pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
    def test_runs_no_interpreter_of_somebody_else(self, tmp_path: Path) -> None:
        python = fake_python(tmp_path / "bin" / "python", f"touch {tmp_path}/ran")
        hook = put(tmp_path / "qemu", install.hook_script(python=python, paths=["/"], guard=True))
        hook.chmod(0o755)
        os.chown(python, 1000, 1000)
        assert call(hook).returncode == 0
        assert not (tmp_path / "ran").exists()

    @pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
    def test_shellcheck(self, tmp_path: Path) -> None:
        done = subprocess.run(
            ["shellcheck", "-s", "sh", self.hook(tmp_path, "exit 0", "a b")], capture_output=True, check=False
        )
        assert done.stdout.decode() == ""


def test_both_places_somebodys(tmp_path: Path) -> None:
    put(tmp_path / install.HOOK)
    put(tmp_path / install.HOOK_BESIDE)
    with pytest.raises(HostError, match="not a file of libvirt-tuner"):
        install.install_hook(tmp_path)
