"""Hypothesis: domain documents as people and programs write them, and transforms of every kind."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from libvirt_tuner import transforms as to

OUTSIDE = ("", " ", "\n  ", "\r\n\t", "\n", "<!-- a > b <c/> -->", "<?pi x<y?>", "\n<!---->\n    ")
BLANK = st.sampled_from([*OUTSIDE, "<![CDATA[ a='b' <c></c>\n]]>", "<![CDATA[x]]>&amp;<![CDATA[&]]>"])
GAP = st.sampled_from([" ", "  ", "\n   ", "\t"])
MAC = "52:54:00:00:00:{:02x}"


@st.composite
def attributes(draw: DrawFn, /, **values: str) -> str:
    """Attributes in odd quotes and spacing."""
    parts = []
    for name, value in values.items():
        quote, equals = draw(st.sampled_from("\"'")), draw(st.sampled_from(["=", " = ", "= "]))
        parts.append(f"{draw(GAP)}{name}{equals}{quote}{value}{quote}")
    return "".join(parts) + draw(st.sampled_from(["", " "]))


@st.composite
def empty(draw: DrawFn, /, tag: str, **values: str) -> str:
    """An element without content, in either spelling."""
    inside = draw(attributes(**values))
    return draw(
        st.sampled_from([f"<{tag}{inside}/>", f"<{tag}{inside}></{tag}>", f"<{tag}{inside}></{tag} >"])
    )


@st.composite
def interfaces(draw: DrawFn) -> str:
    """Interfaces of several types, with and without a driver."""
    text = ""
    for index in range(draw(st.integers(0, 3))):
        inside = []
        if draw(st.booleans()):
            inside.append(draw(empty("mac", address=MAC.format(index))))
        inside.append(draw(empty("source", bridge="br0")))
        inside.append(draw(empty("model", type=draw(st.sampled_from(["virtio", "e1000e"])))))
        if draw(st.booleans()):
            inside.append(draw(empty("driver")))
        elif draw(st.booleans()):
            inside.append(draw(empty("driver", name="vhost", queues="4")))
        kind = draw(st.sampled_from(["bridge", "direct", "network", "hostdev"]))
        body = "".join(piece + draw(BLANK) for piece in inside)
        text += f"<interface{draw(attributes(type=kind))}>{draw(BLANK)}{body}</interface>{draw(BLANK)}"
    return text


@st.composite
def documents(draw: DrawFn) -> bytes:
    """A whole domain."""
    cputune = draw(st.sampled_from(["", "<cputune/>", "<cputune></cputune>", "<cputune> \n </cputune>"]))
    if not cputune and draw(st.booleans()):
        pin = draw(empty("vcpupin", vcpu="1", cpuset="3-5"))
        cputune = f"<cputune>{draw(BLANK)}{pin}{draw(BLANK)}</cputune>"
    metadata = draw(
        st.sampled_from(["", "<metadata/>", "<metadata></metadata>", "<metadata>\r\n</metadata>"])
    )
    parts = [
        "<name>a<!-- b --></name>",
        metadata,
        "<description><![CDATA[a='b' <model type='virtio'></model>]]> x &amp; y&#10;</description>",
        "<memory unit='KiB'>1024</memory>",
        "<vcpu><!-- was 8 -->4</vcpu>",
        cputune,
        f"<devices>{draw(BLANK)}{draw(interfaces())}</devices>",
        '<x:y xmlns:x="urn:x"  x:z = "&quot;&#9;"/>',
    ]
    body = "".join(part + draw(BLANK) for part in parts)
    head = draw(st.sampled_from(["", "<?xml version='1.0' encoding='ASCII'?>\r\n", "<!-- <domain> -->\n"]))
    text = f"{head}<domain{draw(attributes(type='kvm'))}>{draw(BLANK)}{body}</domain>"
    text += draw(st.sampled_from(OUTSIDE))
    return (text.replace("\r\n", "\n").replace("\n", "\r\n") if draw(st.booleans()) else text).encode()


IOMMU = to.nic_setting("iommu", "driver", "iommu", "on")
SHARED = to.domain_setting("shared_memory", "memoryBacking/access", "mode", "shared")
NO_NAME = to.nic_setting("driver_name", "driver", "name", None)
OWN = (IOMMU, SHARED, NO_NAME)
"""Transforms that are not this package's."""
CPUS = st.frozensets(st.integers(0, 63), min_size=1)
TRANSFORMS = st.one_of(
    st.dictionaries(st.integers(0, 3), CPUS, max_size=3).map(to.vcpupin),
    CPUS.map(to.emulatorpin),
    st.frozensets(st.integers(0, 3), min_size=1).map(to.numatune),
    st.sampled_from([256, 512, 1024]).map(to.rx_queue_size),
    st.just(256).map(to.tx_queue_size),
    st.sampled_from([1, 2, 200]).map(to.queues),
    st.just("vcpus").map(to.queues),
    st.integers(68, 9000).map(to.mtu),
    st.integers(68, 9000).map(to.host_mtu),
    st.integers(1, 1000).map(to.poll_us),
    st.sampled_from([IOMMU, SHARED]),
)
OUT = st.sampled_from(
    [
        to.vcpupin(None),
        to.vcpupin({1: None}),
        to.emulatorpin(None),
        to.iothreadpin(None),
        to.numatune(None),
        to.rx_queue_size(None),
        to.tx_queue_size(None),
        to.queues(None),
        to.mtu(None),
        to.host_mtu(None),
        to.poll_us(None),
        to.nic_setting("iommu", "driver", "iommu", None),
        NO_NAME,
        to.domain_setting("shared_memory", "memoryBacking/access", "mode", None),
    ]
)
"""Those that take settings out."""
