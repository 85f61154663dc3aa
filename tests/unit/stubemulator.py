"""Stands in for QEMU: monitor and agent as far as a boot that is saved, and gone on from, asks for them.

``$STUB_STARTS`` is a file that gets a line for each start; ``$STUB_PLAN`` has a word for each: ``ends`` at
once, ``mute`` (not a word from inside), ``stuck`` (its kernel says so), ``broken`` (an agent that can do
nothing), ``good``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Do what the plan has for this start."""
    if "--version" in sys.argv:
        print("QEMU emulator version 10.0.0")
        return
    starts = Path(os.environ["STUB_STARTS"])
    done = starts.read_text().splitlines() if starts.exists() else []
    how = os.environ["STUB_PLAN"].split()[len(done)]
    starts.write_text("\n".join([*done, how]))
    if how == "ends":
        sys.exit("stub: no such machine")
    (disk,) = (found[1] for word in sys.argv if (found := re.search(r",file=([^,]*)", word)))
    with open(disk, "a") as file:
        file.write("booted\n")
    if how == "stuck":
        (console,) = (found[1] for word in sys.argv if (found := re.search(r",logfile=([^,]*)", word)))
        Path(console).write_text("rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies!\n")
    listening = {name: listen(name) for name in ("qmp", "agent")}
    threading.Thread(target=agent, args=(listening["agent"], how), daemon=True).start()
    monitor(listening["qmp"])


def listen(name: str) -> socket.socket:
    """Open the socket that the command line has for a character device."""
    (path,) = (found[1] for word in sys.argv if (found := re.match(rf"socket,id={name},path=([^,]*)", word)))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    return listening


def agent(listening: socket.socket, how: str) -> None:
    """Answer each request with success."""
    stream = listening.accept()[0].makefile("rwb")
    while how in ("mute", "stuck"):
        time.sleep(1)
    while header := stream.read(4):
        request = json.loads(stream.read(struct.unpack("!I", header)[0]))
        answer = {"id": request["id"], "boot": "1", "status": 0}
        answer |= dict.fromkeys(("stdout", "stderr"), base64.b64encode(b"eth0\n").decode())
        if how == "broken" and request["op"] != "ping":
            answer = {"id": request["id"], "error": "no such file"}
        body = json.dumps(answer).encode()
        stream.write(struct.pack("!I", len(body)) + body)
        stream.flush()


def monitor(listening: socket.socket) -> None:
    """Obey until ``quit``; what is saved is a word."""
    connection = listening.accept()[0]
    say(connection, {"QMP": {}})
    while said := connection.recv(65536):
        command = json.loads(said)
        if command["execute"] == "migrate":
            writing = command["arguments"]["uri"].removeprefix("exec:")
            subprocess.run(writing, shell=True, check=True, input=b"memory")
        say(connection, {"return": {"status": "completed"}})
        if command["execute"] == "quit":
            return


def say(connection: socket.socket, what: dict[str, Any]) -> None:
    """Send one line of JSON."""
    connection.sendall(json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
