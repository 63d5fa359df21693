"""probe.py DIR NAME=ADDRESS...   Stands in for the gateway (make test-bluez-vm ARGS=--probe): a small client of bluetoothd's
D-Bus interface that writes lines as the file destination does. Where it passes and the gateway does not, the VM is fine."""

import asyncio
import json
import os
import struct
import sys
import uuid
from pathlib import Path

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.auth import AuthAnonymous

MEASUREMENT = "00002a37-0000-1000-8000-00805f9b34fb"
ADAPTER = "/org/bluez/hci0"


class Probe:
    def __init__(self, bus, out, straps):
        self.bus = bus
        self.out = out
        # device path -> name
        self.straps = {f"{ADAPTER}/dev_{address.replace(':', '_')}": name for name, address in straps.items()}
        # characteristic path -> name, of the straps that notify now
        self.notifying = {}

    async def call(self, path, interface, member, signature="", *body, to="org.bluez"):
        message = Message(
            destination=to, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        reply = await self.bus.call(message)
        if reply.message_type == MessageType.ERROR:
            raise ConnectionError(f"{member}: {reply.error_name} {reply.body}")
        return reply.body[0] if reply.body else None

    def on_message(self, message):
        if message.message_type != MessageType.SIGNAL:
            return
        if message.member == "NameOwnerChanged" and message.body[0] == "org.bluez":
            self.notifying.clear()
        elif message.member == "PropertiesChanged":
            changed = message.body[1]
            if message.path in self.notifying and "Value" in changed:
                self.write(self.notifying[message.path], changed["Value"].value)
            if message.path in self.straps and "Connected" in changed and not changed["Connected"].value:
                for path in [path for path in self.notifying if path.startswith(message.path)]:
                    del self.notifying[path]

    def write(self, name, value):
        _flags, rate, number = struct.unpack("<BBH", value)
        event = {
            "event_id": str(uuid.uuid4()),
            "event_type": "heart_rate",
            "value": rate,
            "device_id": name,
            "metadata": {"rr_intervals": [number / 1024]},
        }
        self.out.write(json.dumps(event) + "\n")
        self.out.flush()

    async def objects(self):
        return await self.call("/", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")

    async def connect(self, device, name):
        print(f"connects {name}", flush=True)
        await self.call(device, "org.bluez.Device1", "Connect")
        for _ in range(100):
            objects = await self.objects()
            if objects[device]["org.bluez.Device1"]["ServicesResolved"].value:
                break
            await asyncio.sleep(0.1)
        for path, interfaces in objects.items():
            characteristic = interfaces.get("org.bluez.GattCharacteristic1")
            if path.startswith(device) and characteristic and characteristic["UUID"].value == MEASUREMENT:
                # Before the call: the first value may come before its answer.
                self.notifying[path] = name
                await self.call(path, "org.bluez.GattCharacteristic1", "StartNotify")
                print(f"subscribed to {name}", flush=True)
                return
        raise ConnectionError(f"{name} has no 2a37")

    async def step(self):
        """Connects the first strap that is there and does not notify."""
        missing = [path for path, name in self.straps.items() if name not in self.notifying.values()]
        if not missing:
            return
        objects = await self.objects()
        adapter = objects.get(ADAPTER, {}).get("org.bluez.Adapter1")
        if adapter is None:
            return
        if not adapter["Powered"].value:
            powered = ("org.bluez.Adapter1", "Powered", Variant("b", True))
            await self.call(ADAPTER, "org.freedesktop.DBus.Properties", "Set", "ssv", *powered)
        for path in missing:
            if path in objects:
                await self.call(ADAPTER, "org.bluez.Adapter1", "StopDiscovery") if adapter["Discovering"].value else None
                await self.connect(path, self.straps[path])
                return
        if not adapter["Discovering"].value:
            await self.call(ADAPTER, "org.bluez.Adapter1", "StartDiscovery")

    async def run(self):
        self.bus.add_message_handler(self.on_message)
        for rule in [
            "type='signal',sender='org.bluez',member='PropertiesChanged'",
            "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.bluez'",
        ]:
            await self.call(
                "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", rule, to="org.freedesktop.DBus"
            )
        while True:
            try:
                await self.step()
            except (ConnectionError, KeyError) as why:
                print(why, flush=True)
            await asyncio.sleep(0.3)


async def main():
    straps = dict(argument.split("=") for argument in sys.argv[2:])
    bus = await MessageBus(bus_address=os.environ["DBUS_SYSTEM_BUS_ADDRESS"], auth=AuthAnonymous()).connect()
    with open(Path(sys.argv[1]) / "events-probe.ndjson.part", "w") as out:
        await Probe(bus, out, straps).run()


asyncio.run(main())
