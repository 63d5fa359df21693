"""BlueZ's Adapter1, and what is in the air around it.

The contract: discovery sessions belong to clients; an adapter discovers until the last of them stops or leaves the bus.
While it does, peripherals in its range are heard at their interval, and what was heard once and never connected to is
forgotten `temporary_ms` after it was heard last. A `silent` adapter says that it discovers and hears nothing until it
is healed: by the next `scan`, the next `power` cycle or the next start of the `daemon`.
"""
import asyncio
import random
import time

from dbus_fast import Variant

from bus_objects import BusInterface, Refused, flag, text
from peripheral import Device, Peripheral

HEALS = {"scan": 1, "power": 2, "daemon": 3}
SWEEP_S = 0.25
# Rotating addresses come in portions, so that a burst does not hold up the straps.
PORTION_S = 0.02


class Adapter(BusInterface):
    name = "org.bluez.Adapter1"
    writable = ("Powered", "Alias", "Discoverable", "Pairable")

    def __init__(self, tree, agents, room, short, address, powered=True, blocked=None, max_links=0,
                 temporary_ms=3_000):
        super().__init__(tree, f"/org/bluez/{short}")
        self.agents, self.room, self.short = agents, room, short
        self.blocked, self.max_links, self.temporary_ms = blocked, max_links, temporary_ms
        self.silent = None
        self.discoverers, self.filters, self.devices, self.links = set(), {}, {}, set()
        self.most_links = self.power_cycles = self.discoveries = self.heard = 0
        self.listening = {}
        self.properties = {
            "Address": text(address), "AddressType": text("public"), "Name": text("fake"), "Alias": text("fake"),
            "Modalias": text("usb:v1D6Bp0246d0542"), "Class": Variant("u", 0), "Powered": flag(powered and not blocked),
            "Discovering": flag(False), "Discoverable": flag(False), "Pairable": flag(True),
            "UUIDs": Variant("as", [])}
        self.methods = {
            "SetDiscoveryFilter": ("a{sv}", "", self.set_filter), "StartDiscovery": ("", "", self.start_discovery),
            "StopDiscovery": ("", "", self.stop_discovery), "RemoveDevice": ("o", "", self.remove_device),
            "GetDiscoveryFilters": ("", "as", lambda sender: ["UUIDs", "RSSI", "Transport", "DuplicateData"])}

    def powered(self):
        return self.properties["Powered"].value

    # What clients ask

    def set(self, sender, name, value):
        if name == "Powered" and value.value and self.blocked:
            raise Refused(self.blocked, "Blocked through rfkill" if self.blocked == "Blocked" else "Failed")
        if name == "Powered" and value.value != self.powered():
            self.power(value.value)
        elif name != "Powered":
            self.change(**{name: value})

    def power(self, on):
        if on:
            self.power_cycles += 1
        else:
            self.heal("power")
            self.end_discovery()
            for device in list(self.devices.values()):
                device.abort_connecting()
                device.link_ended()
        self.change(Powered=flag(on))

    def set_filter(self, sender, wanted):
        self.filters[sender] = {key: value.value for key, value in wanted.items()}

    def start_discovery(self, sender):
        if not self.powered():
            raise Refused("NotReady", "Resource Not Ready")
        if sender in self.discoverers:
            raise Refused("InProgress", "Operation already in progress")
        self.discoverers.add(sender)
        if len(self.discoverers) == 1:
            self.discoveries += 1
            self.change(Discovering=flag(True))
            for peripheral in self.room.values():
                self.listen_to(peripheral)
            self.listening["sweep"] = self.tree.spawn(self.sweep())

    def stop_discovery(self, sender):
        if sender not in self.discoverers:
            raise Refused("Failed", "No discovery started")
        self.discoverers.discard(sender)
        if not self.discoverers:
            self.heal("scan")
            self.end_discovery()

    def remove_device(self, sender, path):
        device = self.devices.get(path)
        if device is None:
            raise Refused("DoesNotExist", "Does Not Exist")
        device.peripheral.phantom = False
        device.abort_connecting()
        self.forget(device)

    def client_left(self, sender):
        self.filters.pop(sender, None)
        if sender in self.discoverers:
            self.stop_discovery(sender)
        for device in self.devices.values():
            device.client_left(sender)

    # The air

    def heal(self, by):
        if self.silent and HEALS[by] >= HEALS[self.silent]:
            self.silent = None

    def end_discovery(self):
        self.discoverers.clear()
        for task in self.listening.values():
            task.cancel()
        self.listening = {}
        if self.properties["Discovering"].value:
            self.change(Discovering=flag(False))
            for device in self.devices.values():
                device.invalidate("RSSI")

    def listen_to(self, peripheral):
        if self.discoverers and self.short in peripheral.adapters and peripheral.address not in self.listening:
            self.listening[peripheral.address] = self.tree.spawn(self.listened(peripheral))

    def listen_no_longer(self, address):
        task = self.listening.pop(address, None)
        if task:
            task.cancel()

    async def listened(self, peripheral):
        await asyncio.sleep(random.uniform(0.01, min(0.1, peripheral.every_ms / 1000)))
        while True:
            if not (peripheral.absent or peripheral.link or peripheral.phantom):
                self.hear(peripheral)
            await asyncio.sleep(peripheral.every_ms / 1000)

    def hear(self, peripheral):
        """One advertisement reaches this adapter, if it hears anything."""
        if self.silent or not self.wanted(peripheral):
            return
        self.heard += 1
        said = peripheral.advert()
        said["RSSI"] = Variant("n", peripheral.strength(self.short) + random.randint(-3, 3))
        device = Device(self, peripheral)
        known = self.devices.get(device.path)
        if known is None:
            device.heard(said)
            self.know(device)
        else:
            known.heard(said)
            known.change(**said)

    def wanted(self, peripheral):
        asked = [self.filters.get(sender, {}).get("UUIDs") for sender in self.discoverers]
        return not all(asked) or any(one.lower() in peripheral.uuids for some in asked for one in some)

    async def rotating(self, count, per_second, serial=0):
        """`count` random addresses that are heard once each."""
        sent = 0
        while sent < count and self.discoverers:
            for _ in range(min(count - sent, max(1, round(per_second * PORTION_S)))):
                number = serial + sent
                octets = [0x40 | number >> 40 & 0x3F, *(number >> shift & 0xFF for shift in (32, 24, 16, 8, 0))]
                address = ":".join(f"{one:02X}" for one in octets)
                self.hear(Peripheral(address, [], adapters=[self.short], rssi=-85))
                sent += 1
            await asyncio.sleep(PORTION_S)

    async def sweep(self):
        while True:
            await asyncio.sleep(SWEEP_S)
            old = time.monotonic() - self.temporary_ms / 1000
            gone = [device for device in self.devices.values() if device.temporary and device.last_heard < old]
            for nth, device in enumerate(gone):
                self.forget(device)
                if nth % 200 == 199:
                    await asyncio.sleep(0)

    # Devices and links

    def know(self, device):
        self.devices[device.path] = device
        self.tree.add(device.path, device)

    def device_of(self, peripheral):
        """BlueZ's object for this peripheral, made when it is not there."""
        device = Device(self, peripheral)
        if device.path not in self.devices:
            self.know(device)
        return self.devices[device.path]

    def forget(self, device):
        device.link_ended()
        device.unexport_services()
        self.devices.pop(device.path, None)
        self.tree.remove(device.path)

    def link_began(self, device):
        self.links.add(device)
        self.most_links = max(self.most_links, len(self.links))

    def link_ended(self, device):
        self.links.discard(device)

    def report(self):
        return {"powered": self.powered(), "discovering": bool(self.discoverers), "discoveries": self.discoveries,
                "most_links": self.most_links, "links": len(self.links), "power_cycles": self.power_cycles,
                "devices": len(self.devices), "heard": self.heard, "silent": self.silent}
