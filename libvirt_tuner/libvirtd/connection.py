"""The parts of libvirt that this package needs. Only this module imports libvirt-python.

Every :class:`libvirt.libvirtError` becomes a :class:`~libvirt_tuner.errors.ConnectionFailed` with libvirt's
own message, and with the ``kind`` that tells a caller whether to try again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import libvirt
import libvirt_qemu
from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.topology import Cpus

if TYPE_CHECKING:
    from libvirt_tuner.errors import ConnectionProblem

SYSTEM = "qemu:///system"
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5, 3

# By default libvirt prints every error to stderr. Here errors are raised.
libvirt.registerErrorHandler(lambda _context, _error: None, None)

_KINDS: dict[int, ConnectionProblem] = {
    libvirt.VIR_ERR_NO_DOMAIN: "missing",
    libvirt.VIR_ERR_OPERATION_TIMEOUT: "busy",
    libvirt.VIR_ERR_RESOURCE_BUSY: "busy",
    libvirt.VIR_ERR_NO_SUPPORT: "unsupported",
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: "unsupported",
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: "unsupported",
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: "unsupported",
    libvirt.VIR_ERR_INVALID_CONN: "lost",
    libvirt.VIR_ERR_HOOK_SCRIPT_FAILED: "hook",
}
_TRANSPORT = (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE)


@frozen
class Domain:
    """A domain at the moment it was looked up.

    Attributes:
        name, uuid: libvirt's.
        id: Of the running domain, else None.
        persistent: Whether it has a persistent definition.
    """

    name: str
    uuid: str
    id: int | None = None
    persistent: bool = True

    @property
    def active(self) -> bool:
        """Whether it runs."""
        return self.id is not None


@frozen
class Event:
    """An event of a domain.

    Attributes:
        kind: ``defined``, ``undefined``, ``metadata`` or ``device`` (it has come or gone, live).
        uuid, name: The domain's.
    """

    kind: Literal["defined", "undefined", "metadata", "device"]
    uuid: str
    name: str


class Connection:
    """A connection to a libvirt daemon; a context manager.

    Args:
        uri: As for ``virsh -c``.
        readonly: Open a read-only connection, which cannot read passwords.

    Raises:
        ConnectionFailed: libvirt cannot be reached. Every method raises it if libvirt refuses.
    """

    def __init__(self, uri: str = SYSTEM, *, readonly: bool = False) -> None:
        self.uri = uri
        self._readonly = readonly
        self._callbacks: list[int] = []
        self._noticing = False
        with _raising("cannot connect", uri):
            self._conn = libvirt.openReadOnly(uri) if readonly else libvirt.open(uri)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Errors of a lost connection are ignored.

        Remove callbacks first: each has a reference, for which libvirt would keep the connection.
        """
        for callback in self._callbacks:
            with suppress(libvirt.libvirtError):
                self._conn.domainEventDeregisterAny(callback)
        self._callbacks.clear()
        with suppress(libvirt.libvirtError):
            if self._noticing:
                self._conn.unregisterCloseCallback()
        with suppress(libvirt.libvirtError):
            self._conn.close()

    @property
    def alive(self) -> bool:
        """Whether the connection is alive, as far as the client knows."""
        try:
            return bool(self._conn.isAlive())
        except libvirt.libvirtError:
            return False

    def versions(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Versions of the daemon's libvirt and of its QEMU, ``(9, 0, 0)``."""
        with _raising("cannot ask for the versions", self.uri):
            return _version(self._conn.getLibVersion()), _version(self._conn.getVersion())

    def network_xml(self, name: str) -> str:
        """Return the live XML of a network if it is active, else its definition.

        Raises:
            ConnectionFailed: There is none of that name, or libvirt cannot be asked.
        """
        with _raising("cannot read the network", name):
            return str(self._conn.networkLookupByName(name).XMLDesc(0))

    # Domains

    def domains(self, *, active: bool | None = None, persistent: bool | None = None) -> tuple[Domain, ...]:
        """Domains by name.

        Args:
            active: Only those that run, or only those that do not; None for both.
            persistent: Only those with a definition, or only those without; None for both.
        """
        flags = {
            None: 0,
            True: libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE,
            False: libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE,
        }[active]
        flags |= {
            None: 0,
            True: libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT,
            False: libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT,
        }[persistent]
        with _raising("cannot list domains", self.uri):
            found = self._conn.listAllDomains(flags)
        domains = (_described(handle) for handle in found)
        return tuple(sorted((one for one in domains if one), key=lambda one: one.name))

    def lookup(self, which: str) -> Domain:
        """The domain that a DOMAIN argument means: id, UUID or name, as virsh has it.

        Raises:
            ConnectionFailed: There is none (``missing``), or it is the id of one domain and the name of
                another. virsh would silently take the id.
        """
        found: dict[str, Domain] = {}
        for handle in self._candidates(which):
            if domain := _described(handle):
                found[domain.uuid] = domain
        if not found:
            raise ConnectionFailed(
                "no such domain", value=which, expected="a domain's name, id or UUID", kind="missing"
            )
        if len(found) > 1:
            names = " and ".join(sorted(domain.name for domain in found.values()))
            raise ConnectionFailed("more than one domain", value=which, advice=f"{names}; use the UUID")
        return next(iter(found.values()))

    def _candidates(self, which: str) -> Iterator[libvirt.virDomain]:
        ways: list[tuple[Callable[..., libvirt.virDomain], object]] = [(self._conn.lookupByName, which)]
        if which.isascii() and which.isdigit() and len(which) < 10:
            ways.append((self._conn.lookupByID, int(which)))
        if uuid := _uuid(which):
            ways.append((self._conn.lookupByUUIDString, uuid))
        for look_up, argument in ways:
            try:
                with _raising("cannot look up the domain", f"domain {which}"):
                    yield look_up(argument)
            except ConnectionFailed as error:
                if error.kind != "missing":
                    raise

    @contextmanager
    def _domain(self, domain: Domain, problem: str) -> Iterator[libvirt.virDomain]:
        """Look up libvirt's handle again, because a handle of a lost connection is useless."""
        with _raising(problem, f"domain {domain.name}"):
            yield self._conn.lookupByUUIDString(domain.uuid)

    def xml(self, domain: Domain, *, inactive: bool = False) -> str:
        """The domain's document without passwords: for reading and showing, never for :meth:`redefine`.

        Args:
            domain: Which.
            inactive: As it will be at the next start, instead of as it runs.
        """
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE if inactive else 0
        with self._domain(domain, "cannot read the XML") as handle:
            return str(handle.XMLDesc(flags))

    def definition(self, domain: Domain) -> str | None:
        """Return the complete persistent definition with passwords; None for a transient domain.

        Without VIR_DOMAIN_XML_SECURE, defining it again would lose the VNC password.
        """
        with self._domain(domain, "cannot read the definition") as handle:
            return _definition(handle, secure=not self._readonly)

    def redefine(self, domain: Domain, *, before: str, after: str | bytes) -> bool:
        """Replace the persistent definition if it is still ``before``.

        libvirt has no compare-and-swap: a change between the last read and the define call is overwritten.
        The read comes immediately before, so only a fraction of a millisecond is left instead of the planning
        time. The read also prevents that a domain that was undefined meanwhile is defined again.

        VIR_DOMAIN_DEFINE_VALIDATE is not used: libvirt accepted the user's document without schema
        validation, so it must not be refused now. State outside the document (autostart, managed save,
        snapshots, NVRAM) does not change.

        Args:
            domain: Which.
            before: What :meth:`definition` said.
            after: The new document.

        Returns:
            Whether it was replaced.
        """
        text = after.decode() if isinstance(after, bytes) else after
        try:
            with self._domain(domain, "cannot define") as handle:
                if _definition(handle) != before:
                    return False
                self._conn.defineXML(text)
        except ConnectionFailed as error:
            if error.kind == "missing":
                return False
            raise
        return True

    def start_and_destroy(self, xml: str) -> None:
        """Start a transient domain, paused, and destroy it. libvirt does so too if this process ends."""
        with _raising("cannot start the probe", self.uri):
            flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
            self._conn.createXML(xml, flags).destroy()

    # A running domain

    def pin_vcpu(self, domain: Domain, vcpu: int, cpus: Cpus) -> None:
        """Pin one vCPU of the running domain, as ``virsh vcpupin --live`` does."""
        with self._domain(domain, f"cannot pin vCPU {vcpu} to {cpuset.format(cpus)}") as handle:
            handle.pinVcpuFlags(vcpu, _cpumap(cpus), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def pin_emulator(self, domain: Domain, cpus: Cpus) -> None:
        """Pin the emulator threads of the running domain, as ``virsh emulatorpin --live`` does."""
        with self._domain(domain, f"cannot pin the emulator to {cpuset.format(cpus)}") as handle:
            handle.pinEmulator(_cpumap(cpus), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def pin_iothread(self, domain: Domain, iothread: int, cpus: Cpus) -> None:
        """Pin one iothread of the running domain, as ``virsh iothreadpin --live`` does."""
        with self._domain(domain, f"cannot pin iothread {iothread} to {cpuset.format(cpus)}") as handle:
            handle.pinIOThread(iothread, _cpumap(cpus), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def set_nodeset(self, domain: Domain, nodeset: frozenset[int]) -> None:
        """Bind the running domain's memory, as ``virsh numatune --nodeset --live`` does.

        libvirt only allows it in mode ``strict`` or ``restrictive`` and with the cpuset controller. It cannot
        change the mode of a running domain.
        """
        text = cpuset.format(nodeset)
        with self._domain(domain, f"cannot move the memory to node {text}") as handle:
            handle.setNumaParameters({libvirt.VIR_DOMAIN_NUMA_NODESET: text}, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def ask_agent(self, domain: Domain, command: str, seconds: int) -> str:
        """Send the guest agent one command and return its answer, both as JSON (virsh qemu-agent-command).

        Args:
            domain: One that runs.
            command: The JSON.
            seconds: How long it may take to answer.
        """
        with self._domain(domain, "the guest agent") as handle:
            return str(libvirt_qemu.qemuAgentCommand(handle, command, seconds, 0))

    # Events

    def subscribe(self, on_event: Callable[[Event], None], on_close: Callable[[], None]) -> None:
        """Register both callbacks. The event loop's thread calls them, so they must not block.

        Call :func:`start_event_loop` before the connection is opened.

        Args:
            on_event: A domain was defined (also: changed), undefined, its metadata was set, or a device of it
                came or went while it runs.
            on_close: Called when the connection was lost; never for a driver in this process
                (``test:///default``).
        """

        def lifecycle(
            _conn: object, handle: libvirt.virDomain, event: int, _detail: int, _opaque: object
        ) -> None:
            if event == libvirt.VIR_DOMAIN_EVENT_DEFINED:
                on_event(Event("defined", handle.UUIDString(), handle.name()))
            elif event == libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
                on_event(Event("undefined", handle.UUIDString(), handle.name()))

        def metadata(
            _conn: object, handle: libvirt.virDomain, _type: int, _uri: str, _opaque: object
        ) -> None:
            on_event(Event("metadata", handle.UUIDString(), handle.name()))

        def device(_conn: object, handle: libvirt.virDomain, _alias: str, _opaque: object) -> None:
            on_event(Event("device", handle.UUIDString(), handle.name()))

        with _raising("cannot receive events", self.uri):
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, metadata),
                (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
                (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
            ):
                self._callbacks.append(self._conn.domainEventRegisterAny(None, event, callback, None))
        self._notice_loss(on_close)

    def _notice_loss(self, on_close: Callable[[], None]) -> None:
        try:
            with _raising("cannot notice a lost connection", self.uri):
                self._conn.registerCloseCallback(lambda _conn, _reason, _opaque: on_close(), None)
                self._noticing = True
                self._conn.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        except ConnectionFailed as error:
            if error.kind != "unsupported":
                raise


def start_event_loop() -> None:
    """Start libvirt's event loop in a thread of this process, once. Without it no event arrives.

    It is a daemon thread, because libvirt cannot end its loop.
    """
    with _LOOP:
        if any(thread.name == _LOOP_NAME for thread in threading.enumerate()):
            return
        with _raising("cannot start the event loop", "libvirt"):
            libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name=_LOOP_NAME, daemon=True).start()


_LOOP = threading.Lock()
_LOOP_NAME = "libvirt-events"


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            # poll(2) failed once (EINTR, ENOMEM). The connections' callbacks report lost connections.
            continue


def _described(handle: libvirt.virDomain) -> Domain | None:
    """Read the data of a handle; None if the domain no longer exists."""
    try:
        with _raising("cannot read", "domain"):
            running = handle.ID()
            return Domain(
                name=handle.name(),
                uuid=handle.UUIDString(),
                id=running if running >= 0 else None,
                persistent=bool(handle.isPersistent()),
            )
    except ConnectionFailed as error:
        if error.kind == "missing":
            return None
        raise


def _definition(handle: libvirt.virDomain, *, secure: bool = True) -> str | None:
    if not handle.isPersistent():
        return None
    passwords = libvirt.VIR_DOMAIN_XML_SECURE if secure else 0
    return str(handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | passwords))


def _uuid(text: str) -> str:
    """Return the UUID in libvirt's spelling, or "" if it is not a UUID."""
    try:
        return str(UUID(text))
    except ValueError:
        return ""


def _version(number: int) -> tuple[int, ...]:
    """libvirt's ``major * 1,000,000 + minor * 1,000 + release``."""
    return number // 1_000_000, number // 1_000 % 1_000, number % 1_000


def _cpumap(cpus: Cpus) -> tuple[bool, ...]:
    return tuple(cpu in cpus for cpu in range(max(cpus, default=-1) + 1))


@contextmanager
def _raising(problem: str, where: str) -> Iterator[None]:
    """Convert libvirt's errors to ours."""
    try:
        yield
    except libvirt.libvirtError as error:
        message = error.get_error_message() or str(error)
        raise ConnectionFailed(f"{problem}: {message}", where=where, kind=_kind(error)) from None


def _kind(error: libvirt.libvirtError) -> ConnectionProblem:
    kind = _KINDS.get(error.get_error_code(), "refused")
    return "lost" if kind == "refused" and error.get_error_domain() in _TRANSPORT else kind
