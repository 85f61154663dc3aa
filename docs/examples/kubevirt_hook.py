"""KubeVirt's ``onDefineDomain`` hook. The sidecar runs it before it defines a domain.

The sidecar calls ``onDefineDomain --vmi JSON --domain XML`` and reads the document from standard output. The
ring size comes from the VM's annotation ``tuner.example/rx-queue-size``. Without it nothing changes.
"""

from __future__ import annotations

import argparse
import json
import sys

from libvirt_tuner import TunerError
from libvirt_tuner.transforms import rx_queue_size

ANNOTATION = "tuner.example/rx-queue-size"


def main() -> int:
    """Return the exit status. A failing hook would stop the VM, so a bad annotation is only reported."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vmi", required=True)
    parser.add_argument("--domain", required=True)
    given = parser.parse_args()
    annotations = json.loads(given.vmi).get("metadata", {}).get("annotations", {})
    document = given.domain
    try:
        if ANNOTATION in annotations:
            document = rx_queue_size(int(annotations[ANNOTATION]))(document)
    except ValueError as error:  # every TunerError about a value or a document is one
        print(f"{ANNOTATION}: {error}", file=sys.stderr)
    except TunerError as error:
        print(error, file=sys.stderr)
    sys.stdout.write(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
