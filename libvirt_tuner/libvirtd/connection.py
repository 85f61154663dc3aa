"""libvirt, as far as this package needs it. The only module that imports libvirt-python.

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
from attrs import frozen

from libvirt_tuner import cpuset
from libvirt_tuner.errors import ConnectionFailed
from libvirt_tuner.topology import Cpus

if TYPE_CHECKING:
    from libvirt_tuner.errors import ConnectionProblem

SYSTEM = "qemu:///system"
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5, 3

# libvirt prints every error to stderr unless told otherwise; here they are raised.
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
        persistent: Whether it has a definition that outlives its running.
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
    """Something happened to a domain.

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
        readonly: Ask for no more than reading; passwords are not to be had then.

    Raises:
        ConnectionFailed: libvirt cannot be reached. So does every method, when libvirt refuses.
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
        """Close it; a connection that is lost already is closed in silence.

        Callbacks go first: each holds a reference, and libvirt would keep the connection for it.
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
        """Whether the connection still stands, as far as this side knows."""
        try:
            return bool(self._conn.isAlive())
        except libvirt.libvirtError:
            return False

    def versions(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Versions of the daemon's libvirt and of its QEMU, ``(9, 0, 0)``."""
        with _raising("cannot ask for the versions", self.uri):
            return _version(self._conn.getLibVersion()), _version(self._conn.getVersion())

    def network_xml(self, name: str) -> str:
        """The XML of a network, as it is while active, else its definition.

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
                another, where virsh would take the id without a word.
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
        """libvirt's handle, looked up anew: one of a connection that was lost would be of no use."""
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
        """The persistent definition, whole, with its passwords; None where there is none (transient).

        A document read without VIR_DOMAIN_XML_SECURE and defined again would lose the VNC password.
        """
        with self._domain(domain, "cannot read the definition") as handle:
            return _definition(handle, secure=not self._readonly)

    def redefine(self, domain: Domain, *, before: str, after: str | bytes) -> bool:
        """Replace the persistent definition, unless it is no longer ``before``.

        libvirt has no compare-and-swap: whoever defines between the last look and the call that follows it
        is overwritten. The look comes immediately before, which leaves a fraction of a millisecond; without
        it, it would be as long as the planning takes. It also keeps a domain that was undefined meanwhile
        from coming back.

        Not VIR_DOMAIN_DEFINE_VALIDATE: a document that libvirt took from its user without checking it against
        the schema must not be refused because of us. State that is not in the document (autostart, managed
        save, snapshots, NVRAM) stays as it is.

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
        """Start a transient domain, paused, and destroy it; libvirt does so too when this process ends."""
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

        libvirt takes it only where the domain runs in mode ``strict`` or ``restrictive``, and only with the
        cpuset controller; it can never change the mode of a running domain.
        """
        text = cpuset.format(nodeset)
        with self._domain(domain, f"cannot move the memory to node {text}") as handle:
            handle.setNumaParameters({libvirt.VIR_DOMAIN_NUMA_NODESET: text}, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    # Events

    def subscribe(self, on_event: Callable[[Event], None], on_close: Callable[[], None]) -> None:
        """Have both called by the event loop's thread; they must not block it.

        :func:`start_event_loop` comes first, before the connection is opened.

        Args:
            on_event: A domain was defined (also: changed), undefined, its metadata was set, or a device of it
                came or went while it runs.
            on_close: The connection was lost. A driver in this process (``test:///default``) never calls it.
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
    """Run libvirt's own event loop in a thread of this process, once; without it no event arrives.

    A daemon thread: libvirt offers no way to end its loop, and it need not outlive the main thread.
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
            # poll(2) failed once (EINTR, ENOMEM); the connections' own callbacks tell of what matters.
            continue


def _described(handle: libvirt.virDomain) -> Domain | None:
    """What is behind a handle; None where the domain has gone since."""
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
    """The UUID in libvirt's spelling, or "" where it is none."""
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
    """libvirt's errors as ours."""
    try:
        yield
    except libvirt.libvirtError as error:
        message = error.get_error_message() or str(error)
        raise ConnectionFailed(f"{problem}: {message}", where=where, kind=_kind(error)) from None


def _kind(error: libvirt.libvirtError) -> ConnectionProblem:
    kind = _KINDS.get(error.get_error_code(), "refused")
    return "lost" if kind == "refused" and error.get_error_domain() in _TRANSPORT else kind
