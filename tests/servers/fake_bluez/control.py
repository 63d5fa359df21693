"""The rig's commands, one JSON object a line: `{"do": command, ...}`, answered by `{"ok": ...}` or `{"error": text}`.

    add_adapter {name, address, powered, blocked, max_links, temporary_ms}; remove_adapter {name}
    set_adapter {name, silent: scan|power|daemon, blocked: "Blocked"|"Failed"|"", max_links, temporary_ms}
    add_devices {devices: [{address, kind, name, adapters, services, advertises, records, and Peripheral.SWITCHES}]}
        kind: strap {hz}; cuff, glucose {records: of records.Records, quits}; else `services` as
        [{uuid, characteristics: [{uuid, flags, value, notify_hz, pattern}]}], patterns as values.py has them
    set_device {address, and Peripheral.SWITCHES}; drop_link {address}; remove_peripheral {address}
    fail {method, where: address or adapter, uuid, times, error, message, hang, after_ms, delay_only}; clear_faults {method}
    rotate {adapter, count, per_second, serial}
    vanish; return; restart {away_ms}; set_systemd {away_ms}
    state; calls {method}
"""
from gatt import Attribute
from peripheral import Peripheral
from records import Records, cuff_measurement, glucose_attributes


def battery():
    return "180f", [Attribute({"uuid": "2a19", "flags": ["read", "notify"], "value": "57"})]


def information(model):
    fixed = {"2a29": "Fake Sensors", "2a24": model, "2a25": "SN-0001", "2a26": "1.0"}
    return "180a", [Attribute({"uuid": uuid, "value": text.encode().hex()}) for uuid, text in fixed.items()]


def clock():
    return Attribute({"uuid": "2a2b", "flags": ["read", "write"], "value": "b2070101000000040000"})


def strap(hz=5, **device):
    measurement = {"uuid": "2a37", "flags": ["notify"], "notify_hz": hz, "pattern": "hr"}
    services = [("180d", [Attribute(measurement), Attribute({"uuid": "2a38", "value": "01"})]), battery(),
                information("HR-1")]
    return Peripheral(services=services, **{"advertises": {"uuids": ["180d"]}, **device})


def cuff(records, quits=False, **device):
    records = Records(**records)
    services = [("1810", [cuff_measurement(records, quits), Attribute({"uuid": "2a49", "value": "0000"})]),
                ("1805", [clock()]), battery(), information("BP-1")]
    return Peripheral(services=services, records=records, **{"advertises": {"uuids": ["1810"]}, **device})


def glucose(records, **device):
    records = Records(**records)
    services = [("1808", glucose_attributes(records)), ("1805", [clock()]), information("GL-1")]
    return Peripheral(services=services, records=records, **{"advertises": {"uuids": ["1808"]}, **device})


def built(services, **device):
    return Peripheral(services=[(one["uuid"], [Attribute(each) for each in one["characteristics"]])
                                for one in services], **device)


KINDS = {"strap": strap, "cuff": cuff, "glucose": glucose, None: built}


class Control:
    def __init__(self, bluetoothd, systemd):
        self.bluetoothd, self.systemd = bluetoothd, systemd

    async def obey(self, command):
        done = getattr(self, "do_" + command.pop("do"))(**command)
        return await done if hasattr(done, "__await__") else done

    def do_add_adapter(self, **settings):
        self.bluetoothd.add_adapter(**settings)

    def do_remove_adapter(self, name):
        self.bluetoothd.remove_adapter(name)

    def do_set_adapter(self, name, **switches):
        self.bluetoothd.switch_adapter(name, **switches)

    def do_add_devices(self, devices):
        for device in devices:
            self.bluetoothd.add_peripheral(KINDS[device.pop("kind", None)](**device))

    def do_set_device(self, address, **switches):
        peripheral = self.bluetoothd.room[address]
        peripheral.switch(**switches)
        if switches.get("phantom"):
            adapter = peripheral.link.adapter if peripheral.link else self.bluetoothd.adapters[peripheral.adapters[0]]
            adapter.device_of(peripheral).become_phantom()
        if switches.get("absent"):
            peripheral.drop_link()

    def do_drop_link(self, address):
        self.bluetoothd.room[address].drop_link()

    def do_remove_peripheral(self, address):
        peripheral = self.bluetoothd.room.pop(address)
        peripheral.absent = True
        peripheral.drop_link()
        for adapter in self.bluetoothd.adapters.values():
            adapter.listen_no_longer(address)

    def do_fail(self, method, where="", **fault):
        self.bluetoothd.faults.switch_on(method=method, where=where.replace(":", "_"), **fault)

    def do_clear_faults(self, method=None):
        self.bluetoothd.faults.clear(method)

    def do_rotate(self, adapter, count, per_second=2_000, serial=0):
        one = self.bluetoothd.adapters[adapter]
        one.tree.spawn(one.rotating(count, per_second, serial))

    def do_vanish(self):
        self.bluetoothd.vanish()

    def do_return(self):
        return self.bluetoothd.start()

    def do_restart(self, away_ms=300):
        return self.bluetoothd.restart(away_ms)

    def do_set_systemd(self, away_ms):
        self.systemd.away_ms = away_ms

    def do_state(self):
        bluetoothd = self.bluetoothd
        return {
            "adapters": {name: one.report() for name, one in bluetoothd.adapters.items()},
            "devices": {address: one.report() for address, one in bluetoothd.room.items()},
            "calls": dict(bluetoothd.calls.counts), "starts": bluetoothd.starts, "restarts": self.systemd.restarts,
            "agents": [list(one) for one in bluetoothd.agents.agents.values()],
            "questions": bluetoothd.agents.questions}

    def do_calls(self, method=""):
        return self.bluetoothd.calls.listed(method)
