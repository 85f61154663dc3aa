"""Run the tests of this directory in user-mode Linux, whose kernel has more kinds of tunnels than most.

``python -m tests.netns.kernel [PYTEST ARGUMENT...]``: needs Debian's package
``user-mode-linux`` (``linux.uml`` and its modules). The kernel runs as a process of the caller and sees this
host's files; /run, /tmp and the network are its own. What the tests print comes out here; the exit status is
theirs.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = Path("/usr/lib/uml/modules")
MEMORY = "1G"
SECONDS = 900

INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/net; mknod /dev/net/tun c 10 200 2>/dev/null
mount -t tmpfs run /run; mount -t tmpfs tmp {scratch}
mkdir -p /run/netns /run/modules/lib/modules
ln -s {modules}/$(uname -r) /run/modules/lib/modules/$(uname -r)
printf '#!/bin/sh\\nexec modprobe -d /run/modules "$@"\\n' > /run/modprobe
chmod +x /run/modprobe
echo /run/modprobe > /proc/sys/kernel/modprobe
for name in {names}; do /run/modprobe $name 2>/dev/null; done
ip link set lo up
cd {root}
{python} -m pytest -p no:cacheprovider --basetemp={scratch}/pytest {arguments} > {output} 2>&1
echo $? > {status}
exec halt -f
"""
NAMES = (
    *("veth", "bridge", "tun", "macvlan", "8021q", "vrf", "dummy", "geneve", "vxlan", "ip_gre", "ip6_gre"),
    *("ipip", "sit", "ip6_tunnel", "fou", "fou6", "macsec", "wireguard", "bareudp", "l2tp_eth"),
    *("mpls_iptunnel", "mpls_router", "esp4", "esp6", "xfrm_user", "gcm", "ccm", "ghash_generic", "bonding"),
    *("ah4", "ah6", "hmac", "sha1_generic", "sha256_generic", "cbc", "aes_generic", "crypto_null", "ecb"),
    *("l2tp_core", "l2tp_netlink", "xfrm_interface", "ip_vti", "hsr", "gtp"),
)


def main(arguments: list[str]) -> int:
    """Run pytest with ``arguments`` in user-mode Linux."""
    kernel = shutil.which("linux.uml")
    if kernel is None or not MODULES.is_dir():
        print("linux.uml is missing: apt-get install user-mode-linux", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="kernel-", dir="/var/tmp") as text:
        directory = Path(text)
        scratch = directory / "scratch"
        scratch.mkdir()
        output, status, init = directory / "output", directory / "status", directory / "init"
        script = INIT.format(
            scratch=scratch,
            modules=MODULES,
            names=" ".join(NAMES),
            root=ROOT,
            python=sys.executable,
            arguments=shlex.join(arguments or ["-q", "-rs", "tests/netns/test_kinds.py"]),
            output=output,
            status=status,
        )
        init.write_text(script)
        init.chmod(0o755)
        command = [kernel, f"mem={MEMORY}", "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}"]
        booted = subprocess.run(
            [*command, "con0=null,fd:1", "con=null"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if not status.exists():
            print(booted.stdout[-2000:], booted.stderr[-2000:], sep="\n")
            return 1
        print(output.read_text(), end="")
        return int(status.read_text())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
