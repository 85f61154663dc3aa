"""plan on replayed hosts; diff, apply and revert on libvirt's test driver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from libvirt_tuner.cli import main, placement
from libvirt_tuner.cli.session import Session
from libvirt_tuner.hostside.ledger import Claim, Ledger
from libvirt_tuner.planning import stored
from libvirt_tuner.planning.plan import Placement
from tests.unit.builders import cpus
from tests.unit.trees import put

FIXTURES = Path(__file__).parents[3] / "fixtures"
SEED_XML = str(FIXTURES / "domains" / "seed-in.xml")
SEED = str(FIXTURES / "hosts" / "seed")
SPARSE = str(FIXTURES / "hosts" / "sparse-4node")
VCPUS = {"0": "20", "1": "22", "2": "24", "3": "26", "4": "28", "5": "30"}


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), input=stdin)


def seed_with(old: str, new: str) -> str:
    text = Path(SEED_XML).read_text()
    assert old in text
    return text.replace(old, new, 1)


class TestPlanOfTheSeed:
    def test_table(self) -> None:
        result = run("plan", "--xml", SEED_XML, "--host", SEED)
        lines = {line[:24].strip(): line[24:].strip() for line in result.stdout.splitlines()[1:]}
        assert result.exit_code == 0
        assert result.stdout.startswith("vlinux1: dedicated\n")
        assert lines["vcpus"].startswith("20,22,24,26,28,30 on node 0 - ")
        assert lines["emulator and vhost"].startswith("16,18 - ")
        assert lines["memory"].startswith("preferred on node 0 - ")
        assert lines["IRQs of enp23s0f0np0"].startswith("CPU 0: 214,222; CPU 2: 215,223")

    def test_json(self) -> None:
        result = run("plan", "--xml", SEED_XML, "--host", SEED, "--json")
        data = json.loads(result.stdout)
        assert result.exit_code == 0
        assert (data["vcpupin"], data["emulatorpin"], data["nodes"]) == (VCPUS, "16,18", [0])
        assert {int(move["cpus"]) for move in data["irqs"]} == set(range(0, 16, 2))
        assert all(reason["decision"] and reason["why"] for reason in data["reasons"])

    def test_several_documents(self) -> None:
        arguments = ["plan", "--xml", SEED_XML, "--xml", SEED_XML, "--host", SEED]
        data = json.loads(run(*arguments, "--json").stdout)
        assert [plan["domain"] for plan in data] == ["vlinux1", "vlinux1"]
        assert data[0]["vcpupin"] == VCPUS
        assert not set(data[1]["vcpupin"].values()) & set(VCPUS.values())
        assert run(*arguments).stdout.count("vlinux1: dedicated\n") == 2

    def test_document_from_standard_input(self) -> None:
        result = run("plan", "--xml", "-", "--host", SEED, "--json", stdin=Path(SEED_XML).read_bytes())
        assert json.loads(result.stdout)["vcpupin"] == VCPUS

    def test_same_input_same_plan(self) -> None:
        once, again = (run("plan", "--xml", SEED_XML, "--host", SEED).stdout for _ in range(2))
        assert once == again


class TestWrongCalls:
    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param(["plan"], id="nothing to plan"),
            pytest.param(["plan", "web", "--xml", SEED_XML], id="both"),
            pytest.param(["plan", "--xml", "/no/such/file"], id="no such document"),
            pytest.param(["plan", "--xml", SEED_XML, "--host", "/no/such/host"], id="no such host"),
            pytest.param(["plan", "--xml", SEED_XML, "--host", SEED_XML], id="host is a file"),
            pytest.param(["diff"], id="diff of nothing"),
            pytest.param(["apply"], id="apply to nothing"),
            pytest.param(["apply", "--all", "web"], id="apply to all and one"),
            pytest.param(["apply", "--live", "--dry-run", "web"], id="live and dry"),
            pytest.param(["revert"], id="revert of nothing"),
            pytest.param(["nonsense"], id="no such command"),
            pytest.param(["--nonsense"], id="no such option"),
        ],
    )
    def test_one_line_and_2(self, arguments: list[str]) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert "--help" in result.stderr


class TestBadDocuments:
    @pytest.mark.parametrize(
        ("document", "said"),
        [
            pytest.param("", "not well-formed", id="empty"),
            pytest.param("<domain", "not well-formed", id="malformed"),
            pytest.param(
                '<!DOCTYPE d [<!ENTITY a "b">]><domain><name>&a;</name></domain>', "DOCTYPE", id="entities"
            ),
            pytest.param("<network/>", "expected <domain>", id="not a domain"),
            pytest.param(b"\xff\xfe\x00", "UTF-8", id="binary"),
            pytest.param("<domain><!--" + "x" * 50_000_000 + "--></domain>", "too large", id="50 MB"),
            pytest.param(seed_with(">6</vcpu>", ">0</vcpu>"), "/domain/vcpu", id="no vCPUs"),
            pytest.param(seed_with(">6</vcpu>", ">six</vcpu>"), "/domain/vcpu", id="vCPUs in words"),
            pytest.param(
                "<domain type='kvm'><name>x</name><vcpu>1</vcpu></domain>", "/domain/memory", id="no memory"
            ),
        ],
    )
    def test_one_line_and_1(self, document: str | bytes, said: str) -> None:
        result = run("plan", "--xml", "-", "--host", SEED, stdin=document)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert said in result.stderr

    def test_domain_without_vnics_is_planned(self) -> None:
        result = run("plan", "--xml", str(FIXTURES / "domains" / "no-nic-in.xml"), "--host", SEED)
        assert (result.exit_code, result.stderr) == (0, "")


class TestFindings:
    """What is wrong is said, the plan that comes of it is shown, and the status is 1."""

    @pytest.mark.parametrize(
        ("pin", "host", "said"),
        [
            pytest.param(
                "<vcpupin vcpu='0' cpuset='999'/>", SEED, "got '999', expected CPUs of 0-31", id="none"
            ),
            pytest.param("<vcpupin vcpu='0' cpuset='7'/>", SPARSE, "got '7'", id="offline"),
            pytest.param("<emulatorpin cpuset='0,64'/>", SEED, "emulatorpin/@cpuset", id="one of two"),
        ],
    )
    def test_pin_that_leads_nowhere(self, pin: str, host: str, said: str) -> None:
        document = seed_with("</vcpu>", f"</vcpu><cputune>{pin}</cputune>")
        result = run("plan", "--xml", "-", "--host", host, stdin=document)
        assert result.exit_code == 1
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout.startswith("vlinux1: ")

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            pytest.param("[policy]\nmtuu = 1\n", "/etc/libvirt-tuner.toml:2: unknown key", id="unknown key"),
            pytest.param("[policy]\nplacement = 3\n", "libvirt-tuner.toml:2: bad value", id="wrong type"),
            pytest.param("\x00[", "not valid TOML", id="not TOML"),
        ],
    )
    def test_config(self, tmp_path: Path, config: str, said: str) -> None:
        host = tmp_path / "host"
        shutil.copytree(SEED, host, symlinks=True)
        (host / "etc").mkdir(exist_ok=True)
        (host / "etc" / "libvirt-tuner.toml").write_text(config)
        result = run("plan", "--xml", SEED_XML, "--host", str(host), "--json")
        assert result.exit_code == 1
        assert said in result.stderr
        assert json.loads(result.stdout)["vcpupin"] == VCPUS

    def test_metadata(self) -> None:
        policy = "<policy xmlns='https://libvirt-tuner.org/policy/1' nonsense='1'/>"
        document = seed_with("</uuid>", f"</uuid><metadata>{policy}</metadata>")
        result = run("plan", "--xml", "-", "--host", SEED, stdin=document)
        assert result.exit_code == 1
        assert "unknown attribute of <policy>: got 'nonsense'" in result.stderr

    def test_host_that_lacks_files(self, tmp_path: Path) -> None:
        result = run("plan", "--xml", SEED_XML, "--host", str(tmp_path))
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("Error: /")


DOMAIN = """\
<domain type='test'>
  <name>{name}</name>
  <memory>1048576</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <interface type='bridge'><source bridge='virbr0'/><model type='virtio'/></interface>
    <graphics type='vnc' passwd='secret'/>
  </devices>
</domain>
"""


ENDED, FLOATS = "5b1d0a52-0000-4000-8000-000000000002", "5b1d0a52-0000-4000-8000-000000000003"


def claimed(given: Placement, pid: int) -> Claim:
    """A claim of the ledger whose process started at tick 1."""
    pins = frozenset().union(*given.vcpupin.values()) if given.placement == "dedicated" else frozenset()
    return Claim(
        given.uuid, given.domain, pid, 1, pins, given.emulatorpin or frozenset(), plan=stored.to_dict(given)
    )


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """On libvirt's test driver, with the domains a and b, on a replayed host."""
    (tmp_path / "node.xml").write_text(f"<node>{DOMAIN.format(name='a')}{DOMAIN.format(name='b')}</node>")
    host = tmp_path / "host"
    shutil.copytree(FIXTURES / "hosts" / "smt-2x32", host, symlinks=True)
    (host / "run").mkdir(exist_ok=True)
    with Session(f"test://{tmp_path}/node.xml", str(host)) as made:
        yield made


def definition(session: Session, name: str) -> str:
    return session.connection.definition(session.connection.lookup(name)) or ""


class TestDefinitions:
    def test_diff_then_apply_then_revert(self, session: Session) -> None:
        runner = CliRunner()
        before = definition(session, "a")
        shown = runner.invoke(placement.diff, ["a"], obj=session)
        assert (shown.exit_code, definition(session, "a")) == (1, before)
        assert "+    <vcpupin vcpu='0'" in shown.stdout
        applied = runner.invoke(placement.apply, ["a"], obj=session)
        assert (applied.exit_code, applied.stdout) == (
            0,
            "a: definition changed, takes effect at its next start\n",
        )
        assert "rx_queue_size='1024'" in definition(session, "a")
        assert runner.invoke(placement.diff, ["a"], obj=session).exit_code == 0
        assert runner.invoke(placement.apply, ["a"], obj=session).stdout == "a: nothing to change\n"
        assert runner.invoke(placement.revert, ["a"], obj=session).exit_code == 0
        assert definition(session, "a") == before

    def test_revert_says_what_in_the_record_does_not_fit(self, session: Session) -> None:
        runner = CliRunner()
        before = definition(session, "a")
        assert runner.invoke(placement.apply, ["a"], obj=session).exit_code == 0
        tuned = definition(session, "a")
        forged = tuned.replace('key="0" value="', 'key="77" value="', 1)
        assert forged != tuned
        domain = session.connection.lookup("a")
        assert session.connection.redefine(domain, before=tuned, after=forged.encode())
        result = runner.invoke(placement.revert, ["a"], obj=session)
        assert result.exit_code == 1
        assert "a: record: vcpupin of 77: not a setting of this domain" in result.output
        assert "record" not in definition(session, "a")
        assert definition(session, "a") != before

    def test_json_says_what_became_of_each(self, session: Session) -> None:
        def told(command: click.Command, *arguments: str) -> object:
            result = CliRunner().invoke(command, [*arguments, "--json"], obj=session)
            return json.loads(result.stdout)

        change = told(placement.diff, "a")
        assert isinstance(change, dict)
        assert "+    <vcpupin vcpu='0'" in change.pop("diff")
        assert change == {"domain": "a", "outcome": "proposed"}
        assert told(placement.apply, "a") == [
            {"domain": "a", "outcome": "changed", "live": False, "at_next_start": []}
        ]
        assert told(placement.apply, "a", "--dry-run") == [{"domain": "a", "outcome": "complete", "diff": ""}]
        assert told(placement.revert, "a", "b") == [
            {"domain": "a", "outcome": "reverted", "live": False},
            {"domain": "b", "outcome": "untouched", "live": False},
        ]

    def test_all_get_cpus_of_their_own(self, session: Session) -> None:
        assert CliRunner().invoke(placement.apply, ["--all"], obj=session).exit_code == 0
        plans = [
            json.loads(CliRunner().invoke(placement.plan, [name, "--json"], obj=session).stdout)
            for name in "ab"
        ]
        one, other = (set(plan["vcpupin"].values()) for plan in plans)
        assert one
        assert not one & other

    def test_dry_run_changes_nothing(self, session: Session) -> None:
        before = definition(session, "a"), definition(session, "b")
        result = CliRunner().invoke(placement.apply, ["--all", "--dry-run"], obj=session)
        assert result.stdout.count("--- ") == 2
        assert (definition(session, "a"), definition(session, "b")) == before

    def test_a_document_and_its_running_domain_have_one_plan(self, session: Session) -> None:
        """With the claim of a domain that has ended in the ledger, and one that floats on the same node."""
        uuid = session.connection.lookup("a").uuid
        own = Placement("a", uuid, "dedicated", (0,), {0: cpus(8), 1: cpus(9)}, cpus(6))
        ended = Placement("ended", ENDED, "dedicated", (0,), {0: cpus(10)}, cpus(7))
        floats = Placement("floats", FLOATS, "shared", (0,), {0: cpus(4, 5)})
        claims = [claimed(own, 4001), claimed(ended, 4002), claimed(floats, 4003)]
        for pid in (4001, 4003):
            put(Path(session.root), f"/proc/{pid}/stat", f"{pid} (qemu) S {' '.join(['1'] * 50)}")
        with Ledger(session.sysfs).locked() as book:
            for claim in claims:
                book.claim(claim)
            book.save()
        file = Path(session.root) / "a.xml"
        file.write_text(session.connection.xml(session.connection.lookup("a")))
        by_name = CliRunner().invoke(placement.plan, ["a", "--json"], obj=session)
        by_file = CliRunner().invoke(placement.plan, ["--xml", str(file), "--json"], obj=session)
        assert json.loads(by_name.stdout)["vcpupin"] == {"0": "8", "1": "9"}
        assert by_name.stdout == by_file.stdout

    def test_passwords_are_not_shown_and_stay(self, session: Session) -> None:
        result = CliRunner().invoke(placement.diff, ["a"], obj=session)
        assert "secret" not in result.output
        CliRunner().invoke(placement.apply, ["a"], obj=session)
        assert "passwd='secret'" in definition(session, "a")

    def test_wrong_name_before_anything_is_changed(self, session: Session) -> None:
        before = definition(session, "a")
        result = CliRunner().invoke(placement.apply, ["a", "nosuch"], obj=session)
        assert result.exit_code == 1
        assert definition(session, "a") == before

    def test_nothing_is_changed_while_the_policy_has_a_mistake(self, session: Session) -> None:
        (Path(session.root) / "etc").mkdir()
        (Path(session.root) / "etc" / "libvirt-tuner.toml").write_text("[policy]\nnonsense = 1\n")
        result = CliRunner().invoke(placement.apply, ["--all"], obj=session)
        assert result.exit_code == 1
        assert "nonsense" in result.stderr
        assert "rx_queue_size='1024'" not in definition(session, "b"), "nobody knows what was meant"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["plan", "nosuch"], id="plan"),
        pytest.param(["diff", "nosuch"], id="diff"),
        pytest.param(["apply", "nosuch"], id="apply"),
        pytest.param(["revert", "nosuch"], id="revert"),
        pytest.param(["status", "nosuch"], id="status"),
    ],
)
def test_no_such_domain(arguments: list[str]) -> None:
    result = run("-c", "test:///default", *arguments)
    assert result.exit_code == 1
    assert result.stderr == "Error: no such domain: got 'nosuch', expected a domain's name, id or UUID\n"


def test_no_daemon(tmp_path: Path) -> None:
    result = run("-c", f"qemu+unix:///system?socket={tmp_path}/none", "plan", "web")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "cannot connect" in result.stderr
