"""A sensor in the room, and BlueZ's Device1 object for it on each adapter that heard it.

The contract: a `Peripheral` holds one link at most, to one adapter, and does not advertise meanwhile. Its attributes
and its tallies outlive links, adapters and bluetoothd. A `Device` is temporary until somebody connects; BlueZ forgets
temporary devices some time after they were heard last, and all of a device upon RemoveDevice.
"""
import asyncio
import time

from dbus_fast import Variant

from bus_objects import BusInterface, Refused, flag, text
from gatt import exported
from pairing import pair
from values import Pattern, full_uuid

ABORTED = "le-connection-abort-by-local"


class Peripheral:
    # What a command may switch, and its initial value.
    SWITCHES = {
        "absent": False, "never_resolves": False, "phantom": False, "muted": False, "garbage": False, "flood_hz": 0,
        "notify_hz": 0, "every_ms": 500, "connect_ms": 50, "connect_timeout_ms": 2_000, "resolve_ms": 30,
        "objects_late_ms": 0, "forgets_services": False, "resumes_notify": False, "secured": False, "pairing": "none",
        "passkey": 123_456, "rssi": -60}

    def __init__(self, address, services, name="", adapters=("hci0",), address_type="random", advertises=None,
                 records=None, **switches):
        self.address, self.name, self.adapters, self.address_type = address, name, list(adapters), address_type
        self.services, self.records = services, records
        for switch, initial in self.SWITCHES.items():
            setattr(self, switch, switches.pop(switch, initial))
        if switches:
            raise ValueError(f"no such settings of a device: {', '.join(switches)}")
        advertises = advertises or {}
        self.every_ms = advertises.get("every_ms", self.every_ms)
        self.uuids = [full_uuid(one) for one in advertises.get("uuids", [uuid for uuid, _ in services])]
        self.service_data = {full_uuid(key): Pattern(spec) for key, spec in advertises.get("service_data", {}).items()}
        self.manufacturer_data = {int(key): Pattern(spec)
                                  for key, spec in advertises.get("manufacturer_data", {}).items()}
        self.adverts = 0
        self.link = None
        self.linked_since = 0.0
        self.link_seconds = 0.0
        self.connect_calls = self.connects = self.connects_while_discovering = 0

    def switch(self, **what):
        for name, value in what.items():
            if name not in self.SWITCHES:
                raise ValueError(f"no such switch of a device: {name}")
            setattr(self, name, value)

    def strength(self, adapter):
        return self.rssi.get(adapter, -80) if isinstance(self.rssi, dict) else self.rssi

    def advert(self):
        """The properties of the next advertisement, as every adapter hears it."""
        self.adverts += 1
        said = {}
        if self.service_data:
            said["ServiceData"] = Variant(
                "a{sv}", {uuid: Variant("ay", pattern.next()) for uuid, pattern in self.service_data.items()})
        if self.manufacturer_data:
            said["ManufacturerData"] = Variant(
                "a{qv}", {key: Variant("ay", pattern.next()) for key, pattern in self.manufacturer_data.items()})
        return said

    def drop_link(self):
        """The sensor ends the link, or leaves the range of it."""
        if self.link:
            self.link.link_ended()

    def report(self):
        held = self.link_seconds + (time.monotonic() - self.linked_since if self.link else 0)
        return {
            "connect_calls": self.connect_calls, "connects": self.connects, "link_seconds": held,
            "connects_while_discovering": self.connects_while_discovering, "linked": self.link is not None,
            "adapter": self.link.adapter.short if self.link else None, "adverts": self.adverts,
            "attributes": [one.report() for _, attributes in self.services for one in attributes],
            "records": self.records.report() if self.records else None}


class Device(BusInterface):
    name = "org.bluez.Device1"
    writable = ("Trusted", "Blocked", "Alias")
    own_faults = ("Connect", "Pair")

    def __init__(self, adapter, peripheral):
        super().__init__(adapter.tree, f"{adapter.path}/dev_{peripheral.address.replace(':', '_')}")
        self.adapter, self.peripheral = adapter, peripheral
        self.temporary, self.last_heard = True, time.monotonic()
        self.characteristics, self.objects, self.procedures = [], [], []
        self.connecting = self.resolving = self.pairing = None
        name = text(peripheral.name or peripheral.address.replace(":", "-"))
        self.properties = {
            "Address": text(peripheral.address), "AddressType": text(peripheral.address_type), "Alias": name,
            "Adapter": Variant("o", adapter.path), "UUIDs": Variant("as", peripheral.uuids)}
        for no in ("Paired", "Bonded", "Connected", "ServicesResolved", "Trusted", "Blocked", "LegacyPairing"):
            self.properties[no] = flag(False)
        if peripheral.name:
            self.properties["Name"] = name
        self.methods = {
            "Connect": ("", "", self.connect), "Disconnect": ("", "", self.disconnect),
            "Pair": ("", "", lambda sender: pair(self, sender)), "CancelPairing": ("", "", self.cancel_pairing)}

    def connected(self):
        return self.properties["Connected"].value

    def before(self, member, sender):
        if member == "Connect":
            self.peripheral.connect_calls += 1
            self.peripheral.connects_while_discovering += bool(self.adapter.discoverers)

    def must_work(self, phantom_too=False):
        """Refuses what needs a link that carries something."""
        if not self.connected():
            raise Refused("Failed", "Not connected")
        if self.peripheral.phantom and not phantom_too:
            raise Refused("Failed", "Operation failed with ATT error: 0x0e")
        if self.peripheral.secured and not self.properties["Paired"].value:
            raise Refused("NotPermitted", "Not paired")

    def carries(self):
        return self.peripheral.link is self and not self.peripheral.phantom

    async def connect(self, sender):
        if not self.adapter.powered():
            raise Refused("NotReady", "Resource Not Ready")
        if self.connecting:
            raise Refused("InProgress", "Operation already in progress")
        if self.connected():
            return
        self.temporary = False
        self.connecting = asyncio.get_running_loop().create_future()
        attempt = self.tree.spawn(self.attempt())
        try:
            await asyncio.wait([attempt, self.connecting], return_when=asyncio.FIRST_COMPLETED)
            if not attempt.done():
                attempt.cancel()
                raise Refused("Failed", ABORTED)
            attempt.result()
        finally:
            self.connecting = None

    async def attempt(self):
        peripheral, adapter = self.peripheral, self.adapter
        fault = self.tree.faults.take(self, "Device1.Connect")
        await asyncio.sleep(peripheral.connect_ms / 1000)
        if fault:
            await fault.play()
        if peripheral.absent or (peripheral.link not in (None, self)):
            await asyncio.sleep(peripheral.connect_timeout_ms / 1000)
        refused = peripheral.absent or peripheral.link not in (None, self)
        if refused or (adapter.max_links and len(adapter.links) >= adapter.max_links):
            raise Refused("Failed", ABORTED)
        self.link_began()

    def link_began(self):
        peripheral = self.peripheral
        peripheral.connects += 1
        peripheral.link, peripheral.linked_since = self, time.monotonic()
        self.adapter.link_began(self)
        self.temporary = False
        self.change(Connected=flag(True))
        self.resolving = self.tree.spawn(self.resolve())

    async def resolve(self):
        peripheral = self.peripheral
        await asyncio.sleep(peripheral.resolve_ms / 1000)
        if peripheral.never_resolves:
            return
        if not peripheral.objects_late_ms:
            self.export_services()
        self.change(UUIDs=Variant("as", [full_uuid(uuid) for uuid, _ in peripheral.services]))
        self.change(ServicesResolved=flag(True))
        if peripheral.objects_late_ms:
            await asyncio.sleep(peripheral.objects_late_ms / 1000)
            self.export_services()
        for one in self.characteristics:
            one.feed()

    def export_services(self):
        if not self.objects:
            self.objects, self.characteristics = exported(self.tree, self, self.peripheral.services)
            for one in self.objects:
                self.tree.add(one.path, one)

    def unexport_services(self):
        for one in reversed(self.objects):
            self.tree.remove(one.path)
        self.objects, self.characteristics = [], []

    def link_ended(self):
        """For whatever reason; BlueZ says so."""
        peripheral = self.peripheral
        if peripheral.link is self:
            peripheral.link = None
            peripheral.link_seconds += time.monotonic() - peripheral.linked_since
            self.adapter.link_ended(self)
        for task in [self.resolving, *self.procedures]:
            if task:
                task.cancel()
        self.resolving, self.procedures = None, []
        for one in self.characteristics:
            one.link_ended()
        self.last_heard = time.monotonic()
        if self.connected():
            self.change(ServicesResolved=flag(False), Connected=flag(False))
        if peripheral.forgets_services:
            self.unexport_services()

    def become_phantom(self):
        """BlueZ believes in a link that is none: connected and resolved, and nothing comes."""
        self.temporary = False
        if not self.connected():
            self.export_services()
            self.change(Connected=flag(True), ServicesResolved=flag(True))
        for one in self.characteristics:
            one.rest()

    def abort_connecting(self):
        if self.connecting and not self.connecting.done():
            self.connecting.set_result(None)

    def disconnect(self, sender):
        if not self.connected() and not self.connecting:
            raise Refused("NotConnected", "Not Connected")
        self.abort_connecting()
        self.link_ended()

    def cancel_pairing(self, sender):
        if not self.pairing:
            raise Refused("DoesNotExist", "Does Not Exist")
        self.pairing.cancel()

    def heard(self, said):
        self.last_heard = time.monotonic()
        self.properties.update(said)

    def client_left(self, sender):
        for one in self.characteristics:
            one.client_left(sender)
