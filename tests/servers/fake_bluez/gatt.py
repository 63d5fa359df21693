"""GATT over D-Bus: services, characteristics and descriptors of a connected device.

The contract: an `Attribute` is the sensor's side and outlives links, adapters and bluetoothd: its value, what it
emitted, what was written to it. A `Characteristic` is BlueZ's object for it on one adapter. A notify session belongs to
one client of the bus and ends when the client stops it, leaves the bus, or the link ends. While there is a session and
a link that works, the attribute's `feed` runs.
"""
import asyncio
import random
import time

from dbus_fast import Variant

from bus_objects import BusInterface, Refused, flag, text
from values import Pattern, full_uuid, short_uuid


class Attribute:
    """A characteristic as the sensor has it."""

    def __init__(self, spec, feed=None):
        self.uuid = full_uuid(spec["uuid"])
        self.flags = spec.get("flags", ["read"])
        self.value = bytes.fromhex(spec.get("value", ""))
        self.hz = spec.get("notify_hz", 0)
        self.pattern = Pattern(spec["pattern"]) if "pattern" in spec else None
        self.feed = feed or (self.steadily if self.pattern else None)
        # What a write does beyond being stored: `written(characteristic, bytes)`, called once it is accepted.
        self.written = None
        self.emitted = 0
        self.garbage = 0
        self.writes = []
        self.reads = 0
        self.sessions = 0

    async def steadily(self, characteristic):
        """A value every 1/hz seconds, counted from the first session on."""
        device = characteristic.device.peripheral
        due = time.monotonic()
        while True:
            hz = device.flood_hz or device.notify_hz or self.hz
            if not device.muted and hz:
                if device.garbage:
                    self.garbage += 1
                    characteristic.notify(random.randbytes(random.randrange(0, 24)), counted=False)
                else:
                    characteristic.notify(self.pattern.next())
            due = max(due + (1 / hz if hz else 0.05), time.monotonic() - 0.5)
            await asyncio.sleep(max(0, due - time.monotonic()))

    def report(self):
        return {"uuid": short_uuid(self.uuid), "emitted": self.emitted, "garbage": self.garbage, "reads": self.reads,
                "sessions": self.sessions, "writes": self.writes, "value": self.value.hex()}


class Service(BusInterface):
    name = "org.bluez.GattService1"

    def __init__(self, tree, path, device, uuid):
        super().__init__(tree, path)
        self.properties = {"UUID": text(full_uuid(uuid)), "Device": Variant("o", device.path), "Primary": flag(True),
                           "Includes": Variant("ao", [])}


class Characteristic(BusInterface):
    name = "org.bluez.GattCharacteristic1"

    def __init__(self, tree, path, device, service, attribute):
        super().__init__(tree, path)
        self.device, self.attribute, self.uuid = device, attribute, short_uuid(attribute.uuid)
        self.sessions = set()
        self.feeding = None
        self.properties = {
            "UUID": text(attribute.uuid), "Service": Variant("o", service), "Value": Variant("ay", attribute.value),
            "Flags": Variant("as", attribute.flags), "MTU": Variant("q", 247)}
        if self.can_notify():
            self.properties["Notifying"] = flag(False)
        self.methods = {
            "ReadValue": ("a{sv}", "ay", self.read), "WriteValue": ("aya{sv}", "", self.write),
            "StartNotify": ("", "", self.start_notify), "StopNotify": ("", "", self.stop_notify)}

    def can_notify(self):
        return "notify" in self.attribute.flags or "indicate" in self.attribute.flags

    def read(self, sender, options):
        if "read" not in self.attribute.flags:
            raise Refused("NotPermitted", "Read not permitted")
        self.device.must_work()
        self.attribute.reads += 1
        value = random.randbytes(3) if self.device.peripheral.garbage else self.attribute.value
        self.change(Value=Variant("ay", value))
        return value

    def write(self, sender, value, options):
        if not {"write", "write-without-response"} & set(self.attribute.flags):
            raise Refused("NotPermitted", "Write not permitted")
        self.device.must_work()
        value = bytes(value)
        if self.attribute.written:
            self.attribute.written(self, value)
        else:
            self.attribute.value = value
        self.attribute.writes.append({"at": time.time(), "value": value.hex()})

    def start_notify(self, sender):
        if not self.can_notify():
            raise Refused("NotSupported", "Operation is not supported")
        self.device.must_work(phantom_too=True)
        if sender in self.sessions:
            raise Refused("InProgress", "In Progress")
        self.sessions.add(sender)
        self.attribute.sessions += 1
        if len(self.sessions) == 1:
            self.change(Notifying=flag(True))
        self.feed()

    def stop_notify(self, sender):
        if sender not in self.sessions:
            raise Refused("Failed", "No notify session started")
        self.client_left(sender)

    def client_left(self, sender):
        if sender in self.sessions:
            self.sessions.discard(sender)
            if not self.sessions:
                self.rest()
                self.change(Notifying=flag(False))

    def feed(self):
        """Starts what the sensor sends, when somebody listens and the link works."""
        if self.sessions and self.feeding is None and self.attribute.feed and self.device.carries():
            self.feeding = self.tree.spawn(self.attribute.feed(self))

    def rest(self):
        if self.feeding:
            self.feeding.cancel()
            self.feeding = None

    def link_ended(self):
        self.rest()
        if self.sessions and not self.device.peripheral.resumes_notify:
            self.sessions.clear()
            self.change(Notifying=flag(False))

    def notify(self, value, counted=True):
        """Emits a value and, unless it is garbage, counts it as one that a listener could have."""
        if counted:
            self.attribute.emitted += 1
        self.change(Value=Variant("ay", value))


class Descriptor(BusInterface):
    name = "org.bluez.GattDescriptor1"

    def __init__(self, tree, path, characteristic):
        super().__init__(tree, path)
        self.uuid = "2902"
        self.properties = {"UUID": text(full_uuid("2902")), "Characteristic": Variant("o", characteristic.path),
                           "Value": Variant("ay", b"")}
        self.methods = {
            "ReadValue": ("a{sv}", "ay", lambda sender, options: bytes([len(characteristic.sessions) > 0, 0])),
            "WriteValue": ("aya{sv}", "", self.write)}

    def write(self, sender, value, options):
        raise Refused("NotPermitted", "Write not permitted")


def exported(tree, device, services):
    """The objects of these services below the device: (path, interface) in the order of their handles."""
    objects, characteristics, handle = [], [], 0x10
    for uuid, attributes in services:
        service = f"{device.path}/service{handle:04x}"
        objects.append(Service(tree, service, device, uuid))
        handle += 1
        for attribute in attributes:
            one = Characteristic(tree, f"{service}/char{handle:04x}", device, service, attribute)
            objects.append(one)
            characteristics.append(one)
            handle += 2
            if one.can_notify():
                objects.append(Descriptor(tree, f"{one.path}/desc{handle:04x}", one))
            handle += 1
    return objects, characteristics
