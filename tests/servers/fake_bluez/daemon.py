"""The life of bluetoothd on the bus, and systemd, which restarts it.

The contract: bluetoothd has a connection of its own. When it vanishes, so do its name, its unique name, every session,
every link and everything that was only heard; nobody is told more than a crash tells. When it returns it has a new
unique name, then the adapters, then the devices that somebody had connected to. RestartUnit("bluetooth.service") counts
and does both.
"""
import asyncio

from dbus_fast import Message, RequestNameReply
from dbus_fast.aio import MessageBus
from dbus_fast.constants import MessageType

from adapter import HEALS, Adapter
from bus_objects import BusInterface, Calls, ObjectTree, Refused
from faults import Faults
from pairing import AgentManager

LEAVING = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'"


class PatientSocket:
    """dbus-fast 5.2.0 gives a connection up when the bus does not take the next bytes at once; a burst does that."""

    def __init__(self, socket):
        self.socket = socket

    def send(self, data):
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0


async def connection(address, handler, name):
    bus = await MessageBus(bus_address=address).connect()
    bus._writer.sock = PatientSocket(bus._sock)
    bus.add_message_handler(handler)
    await bus.call(Message(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus", member="AddMatch",
                           interface="org.freedesktop.DBus", signature="s", body=[LEAVING]))
    if await bus.request_name(name) is not RequestNameReply.PRIMARY_OWNER:
        raise RuntimeError(f"{name} is taken")
    return bus


class Bluetoothd:
    def __init__(self, address):
        self.address = address
        self.calls, self.faults = Calls(), Faults()
        self.tree = ObjectTree(self.faults, self.calls)
        self.agents = AgentManager(self.tree, "/org/bluez")
        self.adapters, self.room = {}, {}
        self.starts = 0

    async def start(self):
        self.tree.bus = await connection(self.address, self.heard, "org.bluez")
        self.starts += 1
        self.tree.add("/org/bluez", self.agents)
        for adapter in self.adapters.values():
            self.tree.add(adapter.path, adapter)
            for device in adapter.devices.values():
                self.tree.add(device.path, device)
                if device.peripheral.phantom:
                    device.become_phantom()

    def heard(self, message):
        if message.message_type is MessageType.SIGNAL and message.member == "NameOwnerChanged":
            name, _, owner = message.body
            if name.startswith(":") and not owner:
                self.agents.client_left(name)
                for adapter in self.adapters.values():
                    adapter.client_left(name)
            return None
        return self.tree.handle(message)

    def vanish(self):
        if self.tree.bus is None:
            return
        bus, self.tree.bus = self.tree.bus, None
        bus.disconnect()
        self.agents.agents, self.agents.default = {}, None
        for adapter in self.adapters.values():
            adapter.heal("daemon")
            adapter.end_discovery()
            adapter.filters = {}
            for device in list(adapter.devices.values()):
                device.abort_connecting()
                if device.temporary:
                    adapter.forget(device)
                else:
                    device.link_ended()
                    device.unexport_services()
        for path in list(self.tree.nodes):
            self.tree.remove(path)

    async def restart(self, away_ms):
        self.vanish()
        await asyncio.sleep(away_ms / 1000)
        await self.start()

    def add_adapter(self, name="hci0", address="00:11:22:33:44:55", **settings):
        if name in self.adapters:
            raise ValueError(f"{name} is there already")
        adapter = Adapter(self.tree, self.agents, self.room, name, address, **settings)
        self.adapters[name] = adapter
        self.tree.add(adapter.path, adapter)

    def remove_adapter(self, name):
        adapter = self.adapters.pop(name)
        adapter.end_discovery()
        for device in list(adapter.devices.values()):
            device.abort_connecting()
            adapter.forget(device)
        self.tree.remove(adapter.path)

    def add_peripheral(self, peripheral):
        if peripheral.address in self.room:
            raise ValueError(f"{peripheral.address} is there already")
        self.room[peripheral.address] = peripheral
        for adapter in self.adapters.values():
            adapter.listen_to(peripheral)

    def switch_adapter(self, name, silent=None, blocked=None, max_links=None, temporary_ms=None):
        adapter = self.adapters[name]
        if silent is not None:
            if silent not in HEALS:
                raise ValueError(f"silent until one of {', '.join(HEALS)}")
            adapter.silent = silent
        if max_links is not None:
            adapter.max_links = max_links
        if temporary_ms is not None:
            adapter.temporary_ms = temporary_ms
        if blocked is not None:
            adapter.blocked = blocked or None
            if adapter.blocked and adapter.powered():
                adapter.power(False)


class Systemd(BusInterface):
    """org.freedesktop.systemd1, as far as a restart of bluetoothd needs it."""

    name = "org.freedesktop.systemd1.Manager"
    path = "/org/freedesktop/systemd1"

    def __init__(self, bluetoothd):
        super().__init__(ObjectTree(bluetoothd.faults, bluetoothd.calls), self.path)
        self.bluetoothd, self.restarts, self.away_ms = bluetoothd, 0, 300
        self.methods = {"RestartUnit": ("ss", "o", self.restart_unit)}
        self.tree.add(self.path, self)

    async def start(self):
        self.tree.bus = await connection(self.bluetoothd.address, self.tree.handle, "org.freedesktop.systemd1")

    def restart_unit(self, sender, unit, mode):
        if unit != "bluetooth.service":
            raise Refused("org.freedesktop.systemd1.NoSuchUnit", f"Unit {unit} not found.")
        self.restarts += 1
        self.tree.spawn(self.bluetoothd.restart(self.away_ms))
        return f"{self.path}/job/{self.restarts}"
