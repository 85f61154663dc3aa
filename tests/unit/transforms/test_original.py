"""What a transform took out comes back as it was spelled, and a note that says anything else does nothing."""

from __future__ import annotations

import pytest
from lxml import etree

from libvirt_tuner import recorded, revert
from libvirt_tuner.domainxml import document, metadata
from libvirt_tuner.transforms import compose, emulatorpin, mtu, vcpupin

ODD = """<domain><name>a</name><memory>1</memory><vcpu>4</vcpu><cputune>
  <emulatorpin   cpuset = "1"  />
  <!-- its CPUs --><vcpupin  cpuset="0-3"   vcpu='1' ></vcpupin>
</cputune>
</domain>
"""
PLAIN = (
    "<domain><name>a</name><memory>1</memory><vcpu>4</vcpu>"
    "<cputune><emulatorpin cpuset='1'/></cputune></domain>"
)
NIC = (
    "<domain><name>a</name><memory>1</memory><devices><interface type='bridge'><mtu size='9000'/>"
    "<source bridge='br0'/></interface></devices></domain>"
)


def note(xml: str) -> str | None:
    element = metadata.record_element(document.parse(xml))
    assert element is not None
    return element.get("spelled")


def with_note(xml: str, spelled: str) -> str:
    root = document.parse(xml)
    element = metadata.record_element(root)
    assert element is not None
    element.set("spelled", spelled)
    return document.serialize(root).decode()


def test_what_the_record_gives_back_needs_no_note() -> None:
    tuned = recorded(PLAIN, emulatorpin(None))
    assert note(tuned) is None
    assert revert(tuned) == PLAIN


@pytest.mark.parametrize("xml", [ODD, ODD.replace("\n", "\r\n")], ids=["LF", "CRLF"])
def test_odd_spelling_comes_back(xml: str) -> None:
    out = compose(vcpupin(None), emulatorpin(None))
    tuned = recorded(xml, out)
    assert etree.fromstring(tuned).findall("cputune/*[@cpuset]") == []
    assert revert(tuned) == xml
    assert recorded(tuned, out) == tuned
    assert revert(tuned.encode()) == xml.encode()


def test_an_odd_place_comes_back() -> None:
    assert revert(recorded(NIC, mtu(None))) == NIC


def test_it_comes_back_after_a_second_run_with_other_transforms() -> None:
    again = recorded(recorded(ODD, vcpupin(None)), emulatorpin({3}))
    assert revert(again) == ODD


def test_after_an_edit_by_hand_what_was_edited_stays() -> None:
    tuned = recorded(ODD, vcpupin(None)).replace("<memory>1<", "<memory>20<")
    assert "<memory>20<" in revert(tuned)
    assert "cpuset='0-3'" in revert(tuned)


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param("21 0 <on_crash>destroy</on_crash>", id="another element"),
        pytest.param("14 1 b", id="another name"),
        pytest.param("21 45 ", id="an element less"),
        pytest.param("0 0 <!DOCTYPE domain>", id="a DTD"),
        pytest.param("0 7 <network", id="another document"),
        pytest.param("9 9", id="no text"),
        pytest.param("-1 0 x", id="no number"),
        pytest.param("99999999999 0 x", id="a long number"),
        pytest.param("x", id="nothing of it"),
    ],
)
def test_a_note_that_changes_what_the_document_says_does_nothing(spelled: str) -> None:
    tuned = with_note(recorded(PLAIN, emulatorpin({3})), spelled)
    assert revert(tuned) == PLAIN


def test_a_note_may_add_what_says_nothing() -> None:
    tuned = with_note(recorded(PLAIN, emulatorpin({3})), "8 0 \n<!-- x -->")
    assert revert(tuned) == PLAIN.replace("<domain>", "<domain>\n<!-- x -->", 1)


def test_elements_of_one_name_keep_their_order() -> None:
    two = PLAIN.replace("<cputune>", "<devices><disk a='1'/><disk a='2'/></devices><cputune>")
    at = two.index("<disk")
    length = two.index("</devices>") - at
    swapped = f"{at} {length} <disk a='2'/><disk a='1'/>"
    assert revert(with_note(recorded(two, emulatorpin({3})), swapped)) == two


def test_more_than_64_ki_characters_are_not_noted() -> None:
    big = ODD.replace("<vcpupin ", f"<!--{'x' * 70000}--><vcpupin ")
    tuned = recorded(big, vcpupin(None), emulatorpin(None))
    assert note(tuned) is None
