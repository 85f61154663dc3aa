"""Layers, merging, and errors that name the place, the value and the allowed values."""

from __future__ import annotations

import shlex
import subprocess
import sys

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from libvirt_tuner.config import policy
from libvirt_tuner.config.policy import Policy
from libvirt_tuner.domainxml.metadata import POLICY_NS
from libvirt_tuner.errors import PolicyError

FILE = "/etc/libvirt-tuner.toml"


# All that metadata may ever set.
LISTED = """\
[policy]
mtu = "jumbo"
[limits]
metadata = ["select", "placement", "emulator_cpus", "numa_memory", "rx_queue_size", "tx_queue_size", "queues",
  "poll_us", "mtu", "uplink", "irq", "rps"]
"""


def element(text: str) -> etree._Element:
    return etree.fromstring(text.replace("<policy", f"<policy xmlns='{POLICY_NS}'", 1))


def from_config(text: str, name: str = "web-1") -> Policy:
    return policy.for_domain(name, policy.load(text))


# --- nothing to do


def test_without_config_and_metadata_it_is_the_built_in_policy() -> None:
    assert policy.resolve("web-1", None, None) == (Policy(), ())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty file"),
        pytest.param("# nothing\n", id="comment only"),
        pytest.param("[policy]\n", id="empty table"),
        pytest.param("domain = []\n", id="no domain tables"),
        pytest.param("[[domain]]\nmatch = 'db-*'\nmtu = 1300\n", id="another domain's table"),
        pytest.param("[[domain]]\nmatch = 'WEB-*'\nmtu = 1300\n", id="another case"),
    ],
)
def test_a_config_without_settings_for_the_domain_changes_nothing(text: str) -> None:
    assert from_config(text) == Policy()


def test_an_empty_element_changes_nothing() -> None:
    assert policy.for_domain("web-1", None, element("<policy> <!-- none --> </policy>")) == Policy()


def test_without_config_and_metadata_no_parser_is_imported() -> None:
    parsers = {"tomllib", "re", "json", "lxml", "fnmatch", "difflib", "libvirt_tuner.config.settings"}
    report = f"print(sorted({parsers} & set(sys.modules)))"
    # attrs brings some of its own, site-packages' .pth files (switched off) might bring more.
    without, with_us = (
        subprocess.run(
            [
                sys.executable,
                "-S",
                "-c",
                f"import sys; sys.path[:0] = {sys.path}; import attrs; {code} {report}",
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for code in ("", "from libvirt_tuner.config import policy; policy.resolve('web-1', None, None);")
    )
    assert with_us == without


# --- values


@pytest.mark.parametrize(
    ("toml", "attribute", "key", "expected"),
    [
        pytest.param("select = false", "select='false'", "select", False, id="select"),
        pytest.param("placement = 'shared'", "placement='shared'", "placement", "shared", id="placement"),
        pytest.param("emulator_cpus = 2", "emulator-cpus='2'", "emulator_cpus", 2, id="two emulator CPUs"),
        pytest.param(
            "emulator_cpus = '2-2'", "emulator-cpus='2-2'", "emulator_cpus", {2}, id="emulator on CPU 2 alone"
        ),
        pytest.param(
            "emulator_cpus = '16,18'", "emulator-cpus='16,18'", "emulator_cpus", {16, 18}, id="emulator CPUs"
        ),
        pytest.param("numa_memory = 'keep'", "numa-memory='keep'", "numa_memory", "keep", id="numa_memory"),
        pytest.param("rx_queue_size = 256", "rx-queue-size='256'", "rx_queue_size", 256, id="ring"),
        pytest.param("rx_queue_size = 'keep'", "rx-queue-size='keep'", "rx_queue_size", None, id="ring kept"),
        pytest.param("tx_queue_size = 512", "tx-queue-size='512'", "tx_queue_size", 512, id="transmit ring"),
        pytest.param("queues = 4", "queues='4'", "queues", 4, id="queues"),
        pytest.param("queues = 'vcpus'", "queues='vcpus'", "queues", "vcpus", id="a queue per vCPU"),
        pytest.param("queues = 'keep'", "queues='keep'", "queues", None, id="queues kept"),
        pytest.param("poll_us = 200", "poll-us='200'", "poll_us", 200, id="poll_us"),
        pytest.param("poll_us = 0", "poll-us='0'", "poll_us", None, id="poll_us 0 is off"),
        pytest.param("mtu = 68", "mtu='68'", "mtu", 68, id="least MTU"),
        pytest.param("mtu = 65535", "mtu='65535'", "mtu", 65535, id="largest MTU"),
        pytest.param("mtu = 'jumbo'", "mtu='jumbo'", "mtu", "jumbo", id="MTU of the path"),
        pytest.param("mtu = 'keep'", "mtu='keep'", "mtu", "keep", id="MTU kept"),
        pytest.param("uplink = 'bond0.100'", "uplink='bond0.100'", "uplink", "bond0.100", id="uplink"),
        pytest.param("irq = 'keep'", "irq='keep'", "irq", "keep", id="irq"),
        pytest.param("rps = 'steer'", "rps='steer'", "rps", "steer", id="rps"),
    ],
)
def test_file_and_metadata_say_the_same(toml: str, attribute: str, key: str, expected: object) -> None:
    wanted = attrs.evolve(Policy(), **{key: expected})  # type: ignore[arg-type]
    assert from_config(f"[policy]\n{toml}\n") == wanted
    assert from_config(f"[[domain]]\nmatch = 'web-*'\n{toml}\n") == wanted
    effective, problems = policy.resolve("web-1", LISTED, element(f"<policy {attribute}/>"))
    assert (getattr(effective, key), problems) == (expected, ())


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        pytest.param("rx_queue_size = false", "rx_queue_size", id="ring false"),
        pytest.param("poll_us = false", "poll_us", id="poll_us false"),
        pytest.param("housekeeping = 'auto'", "housekeeping", id="housekeeping auto"),
        pytest.param("emulator_cpus = 'auto'", "emulator_cpus", id="emulator auto"),
        pytest.param("uplink = 'auto'", "uplink", id="uplink auto"),
    ],
)
def test_a_later_layer_can_take_a_setting_back(toml: str, key: str) -> None:
    text = (
        "[policy]\nrx_queue_size = 512\npoll_us = 9\nhousekeeping = '0'\nemulator_cpus = 2\nuplink = 'eth0'\n"
        f"[[domain]]\nmatch = '*'\n{toml}\n"
    )
    assert getattr(from_config(text), key) is None


def test_a_whole_float_is_the_integer_it_is() -> None:
    mtu = from_config("[policy]\nmtu = 1300.0\n").mtu
    assert (mtu, type(mtu)) == (1300, int)


# --- layers


LAYERS = """\
[policy]
placement = "shared"
mtu = 1400
poll_us = 50

[[domain]]
match = "*-1"
mtu = 1300

[[domain]]
match = "web-*"
mtu = 1200
irq = "keep"
"""


def test_later_tables_win_and_metadata_wins_over_all() -> None:
    config = policy.load(LAYERS)
    assert policy.for_domain("db-2", config) == Policy(placement="shared", mtu=1400, poll_us=50)
    assert policy.for_domain("db-1", config).mtu == 1300
    assert policy.for_domain("web-1", config) == Policy(placement="shared", mtu=1200, poll_us=50, irq="keep")
    effective = policy.for_domain("web-1", config, element("<policy mtu='1100' placement='dedicated'/>"))
    assert effective == Policy(placement="dedicated", mtu=1100, poll_us=50, irq="keep")


def test_resolve_leaves_out_the_table_with_the_mistake_and_keeps_the_others() -> None:
    text = LAYERS.replace('irq = "keep"', 'irq = "kept"')
    effective, errors = policy.resolve("web-1", text, element("<policy poll-us='70'/>"))
    assert effective == Policy(placement="shared", mtu=1300, poll_us=70)
    assert [error.where for error in errors] == [f"{FILE}:13"]


def test_resolve_goes_on_with_the_file_when_the_metadata_is_bad() -> None:
    effective, errors = policy.resolve("web-1", LAYERS, element("<policy poll-us='-1'/>"))
    assert effective == policy.for_domain("web-1", policy.load(LAYERS))
    assert [error.where for error in errors] == ["metadata of web-1, line 1"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[policy\n", id="no TOML"),
        pytest.param("[limits]\nmetadata = ['all']\n", id="bad limits"),
        pytest.param("limits = 3\n", id="no table of limits"),
    ],
)
def test_while_limits_cannot_be_read_metadata_may_only_switch_off(text: str) -> None:
    effective, errors = policy.resolve("web-1", text, element("<policy mtu='1300' select='false'/>"))
    assert effective == Policy(select=False)
    assert [error.layer for error in errors] == ["file", "limits"]
    assert "nothing is allowed until then" in errors[1].advice


def test_resolve_reports_every_mistake() -> None:
    _, errors = policy.resolve("x", "[policy]\nmtu = 1\nirq = 1\n[oops]\n", element("<policy a='b'/>"))
    assert [(e.layer, e.where) for e in errors] == [
        ("file", f"{FILE}:4"),
        ("file", f"{FILE}:2"),
        ("file", f"{FILE}:3"),
        ("metadata", "metadata of x, line 1"),
    ]


# --- mistakes in the file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "[policy]\n\nplacment = 'keep'\n",
            "3: unknown key: got 'placment', expected select, placement, housekeeping, emulator_cpus, "
            "numa_memory, rx_queue_size, tx_queue_size, queues, poll_us, mtu, uplink, irq, rps, isolate, "
            "settle_seconds or strict (did you mean placement?)",
            id="misspelt key",
        ),
        pytest.param(
            "[polcy]\n",
            "1: unknown key: got 'polcy', expected limits, policy or domain (did you mean policy?)",
            id="misspelt table",
        ),
        pytest.param(
            "[policy]\nplacement = 'pinned'\n",
            '2: bad value of policy.placement: got \'pinned\', expected "auto", "dedicated", "shared" or '
            '"keep"',
            id="word not among those allowed",
        ),
        pytest.param(
            "[policy]\nmtu = 67\n",
            '2: bad value of policy.mtu: got 67, expected "auto", "keep", "jumbo" or a number of bytes '
            "from 68 to 65535",
            id="MTU too small",
        ),
        pytest.param(
            "[policy]\nrx_queue_size = 1000\n",
            '2: bad value of policy.rx_queue_size: got 1000, expected 256, 512, 1024, "keep" or false',
            id="not a power of two",
        ),
        pytest.param(
            "[policy]\npoll_us = true\n",
            "2: bad value of policy.poll_us: got True, expected a number of microseconds from 0 to 1000000 "
            "or false",
            id="true is no number",
        ),
        pytest.param(
            "[policy]\npoll_us = 1000001\n",
            "2: bad value of policy.poll_us: got 1000001, expected a number of microseconds from 0 to "
            "1000000 or false",
            id="more than the transform takes",
        ),
        pytest.param(
            "[limits]\nmetadata = ['housekeeping']\n",
            "2: bad value of limits.metadata: got ['housekeeping'], expected a list of \"select\", "
            '"placement", "emulator_cpus", "numa_memory", "rx_queue_size", "tx_queue_size", "queues", '
            '"poll_us", "mtu", "uplink", "irq" or "rps"',
            id="never for metadata",
        ),
        pytest.param(
            "[policy]\nemulator_cpus = '2'\n",
            "2: bad value of policy.emulator_cpus: got '2', expected \"auto\", a number of CPUs from 1 to "
            '1024 or a cpulist such as "0-3" (CPU 2 alone: "2-2", as 2 means two CPUs)',
            id="one CPU or a count",
        ),
        pytest.param(
            "[policy]\nselect = 'yes'\n",
            "2: bad value of policy.select: got 'yes', expected true or false",
            id="string for a boolean",
        ),
        pytest.param(
            "policy = 3\n", "1: bad value of policy: got 3, expected a table", id="a number for a table"
        ),
        pytest.param(
            "\n[domain]\nmatch = 'a'\n",
            "2: bad value of domain: got {'match': 'a'}, expected tables that begin with [[domain]]",
            id="single brackets",
        ),
        pytest.param(
            "[policy]\n[[domain]]\nmatch = 'a'\n[[domain]]\nmtu = 1300\n",
            '4: match is missing, expected match = a shell pattern for domain names, such as "web-*"',
            id="no match",
        ),
        pytest.param(
            "[policy]\nuplink = '../../etc'\n",
            "2: bad value of policy.uplink: got '../../etc', "
            'expected "auto" or the name of a network device',
            id="path for a device",
        ),
        pytest.param(
            "[[domain]]\nmatch = 'a'\n[[domain]]\nmatch = 'b'\nirq = 1979-05-27\n",
            '5: bad value of domain[1].irq: got datetime.date(1979, 5, 27), expected "steer" or "keep"',
            id="a date",
        ),
    ],
)
def test_a_mistake_names_line_value_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy.load(text)
    assert str(caught.value) == f"{FILE}:{message}"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param("[policy]\nmtu = \n", f"{FILE}:2", id="no value"),
        pytest.param("[policy]\nmtu = 1\nmtu = 2\n", f"{FILE}:3", id="twice"),
        pytest.param("[policy]\nmtu = [1,\n2", f"{FILE}:3", id="ends too early"),
        pytest.param("a = " + "[" * 20000, FILE, id="nested too deeply"),
        pytest.param("a = '\x00'", f"{FILE}:1", id="a NUL"),
    ],
)
def test_what_is_not_toml_is_an_error_with_its_line(text: str, where: str) -> None:
    with pytest.raises(PolicyError, match="not valid TOML") as caught:
        policy.load(text)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("line", "value"),
    [
        pytest.param("housekeeping = '3-1'", "3-1", id="range upside down"),
        pytest.param("emulator_cpus = '3-1'", "3-1", id="emulator's range upside down"),
    ],
)
def test_a_cpulist_the_schema_lets_pass_is_still_read_strictly(line: str, value: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy.load(f"[policy]\n\n{line}\n")
    assert (caught.value.where, caught.value.value) == (f"{FILE}:3", value)
    with pytest.raises(PolicyError):
        policy.for_domain("a", None, element(f"<policy {line.replace('_', '-')}/>"))


# --- mistakes in the metadata


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "<policy poll_us='1'/>",
            "unknown attribute of <policy>: got 'poll_us', expected select, placement, "
            "emulator-cpus, numa-memory, rx-queue-size, tx-queue-size, queues, poll-us, mtu, uplink, irq or "
            "rps (did you mean poll-us?)",
            id="underscore for dash",
        ),
        pytest.param(
            "<policy strict='true'/>",
            "strict can only be set in /etc/libvirt-tuner.toml",
            id="the config file's alone",
        ),
        pytest.param(
            "<policy irq='off'/>", "bad value of irq: got 'off', expected steer or keep", id="not among those"
        ),
        pytest.param(
            "<policy mtu='70000'/>",
            "bad value of mtu: got '70000', expected auto, keep, jumbo or a number of bytes from 68 to 65535",
            id="MTU too large",
        ),
        pytest.param(
            "<policy poll-us='4294967296'/>",
            "bad value of poll-us: got '4294967296', expected a number of microseconds from 0 to 1000000",
            id="poll-us too large",
        ),
        pytest.param(
            "<policy poll-us='+5'/>", "bad value of poll-us: got '+5', expected a number", id="a sign"
        ),
        pytest.param(
            "<policy poll-us='٣'/>", "bad value of poll-us: got '٣', expected a number", id="a digit abroad"
        ),
        pytest.param(
            "<policy select='1'/>", "bad value of select: got '1', expected true or false", id="boolean"
        ),
        pytest.param(
            "<policy housekeeping='99999'/>",
            "bad value of housekeeping: got '99999', expected auto or a cpulist such as 0-3,8",
            id="no such CPU anywhere",
        ),
        pytest.param("<policy uplink='..'/>", "bad value of uplink: got '..', expected auto or", id="dots"),
        pytest.param(
            "<policy><irq/></policy>", "<policy> has content, expected attributes only", id="a child"
        ),
        pytest.param("<policy>keep</policy>", "<policy> has content, expected attributes only", id="text"),
    ],
)
def test_bad_metadata_names_source_value_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy.for_domain("web-1", None, element(text))
    assert str(caught.value).startswith(f"metadata of web-1, line 1: {message}")


def test_bad_metadata_names_its_line_in_the_document() -> None:
    document = etree.fromstring(
        f"<domain>\n<metadata>\n<policy xmlns='{POLICY_NS}' mtu='x'/></metadata></domain>"
    )
    with pytest.raises(PolicyError, match="line 3"):
        policy.for_domain("web-1", None, document[0][0])


@pytest.mark.parametrize("key", ["housekeeping", "emulator-cpus", "uplink", "poll-us"])
def test_a_megabyte_in_an_attribute_is_refused_in_one_line(key: str) -> None:
    bad = etree.Element(f"{{{POLICY_NS}}}policy", {key: "1-2," * 250_000})
    with pytest.raises(PolicyError) as caught:
        policy.for_domain("web-1", None, bad)
    assert len(str(caught.value)) < 400


# --- virsh


def test_what_virsh_metadata_writes_is_what_is_read() -> None:
    setting = '<policy placement="shared" poll-us="200"/>'
    metadata = f"metadata test --uri {POLICY_NS} --key tuner --set {shlex.quote(setting)}"
    command = ["virsh", "--quiet", "-c", "test:///default", f"{metadata}; dumpxml test"]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    document = etree.fromstring(dump[dump.index("<domain") :])
    found = document.find(f"metadata/{{{POLICY_NS}}}policy")
    assert found is not None
    assert found.prefix == "tuner"
    assert policy.for_domain("test", None, found) == Policy(placement="shared", poll_us=200)


# --- anything


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=("Cc", "Cs")), max_size=8
)


@given(st.sampled_from([f.name for f in attrs.fields(Policy)]), TEXT | st.from_regex(r"\A[0-9,^-]{1,9}\Z"))
def test_metadata_is_read_or_refused_whatever_stands_there(key: str, text: str) -> None:
    given_element = etree.Element(f"{{{POLICY_NS}}}policy")
    try:
        given_element.set(key.replace("_", "-"), text)
    except ValueError:
        return
    effective, errors = policy.resolve("a", None, given_element)
    assert errors or isinstance(effective, Policy)


@given(st.text(max_size=60))
def test_a_file_is_read_or_refused_whatever_stands_in_it(text: str) -> None:
    _, errors = policy.resolve("a", text, None)
    assert all(error.where.startswith(FILE) for error in errors)
