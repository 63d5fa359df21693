"""Sensors with a memory: a cuff that resends what it has stored, and the Record Access Control Point (RACP).

The contract: a store's records are numbered from 1 and stay until they are deleted. The cuff begins with the first on
every new session; after `drop_after` records the link drops (for the next `drops` times), after the last it is quiet.
RACP answers report (1), delete (2), abort (3) and count (4) as the Glucose Service asks for, by sequence number.
"""
import asyncio
import datetime
import time

from bus_objects import Refused
from gatt import Attribute
from values import date_time, sfloat

# RACP operators, and what comes back.
ALL, UP_TO, FROM, WITHIN, FIRST, LAST = 1, 2, 3, 4, 5, 6
SUCCESS, OP_NOT_SUPPORTED, INVALID_OPERATOR, OPERATOR_NOT_SUPPORTED, INVALID_OPERAND, NOTHING_FOUND = 1, 2, 3, 4, 5, 6
OPERAND_NOT_SUPPORTED = 9


class Records:
    """K stored records from `start` on, one every `every_s` seconds; `sent` holds their numbers as they went out."""

    def __init__(self, count, hz=10, start="2026-11-24T08:00:00", every_s=60, drop_after=None, drops=1,
                 first_sequence=0):
        self.first_sequence = first_sequence
        self.hz, self.drop_after, self.drops = hz, drop_after, drops
        self.start, self.every_s = datetime.datetime.fromisoformat(start), every_s
        self.stored = list(range(1, count + 1))
        self.sent = []
        self.deleted = []
        self.requests = []

    def moment(self, number):
        return self.start + datetime.timedelta(seconds=self.every_s * (number - 1))

    async def send(self, characteristic, numbers, shape):
        """Sends these; does not return when the link drops in the middle."""
        for count, number in enumerate(numbers, 1):
            characteristic.notify(shape(number))
            self.sent.append(number)
            if count == self.drop_after and self.drops > 0:
                self.drops -= 1
                # From a task of its own, since a lost link cancels this one.
                asyncio.get_running_loop().call_soon(characteristic.device.peripheral.drop_link)
                await asyncio.sleep(3600)
            await asyncio.sleep(1 / self.hz)

    def report(self):
        return {"stored": self.stored, "sent": self.sent, "deleted": self.deleted, "requests": self.requests}


def cuff_measurement(records, quits):
    """2a35, indicated: systolic, diastolic, mean, time and pulse of each record."""

    def shape(number):
        pressures = (100 + number % 60, 60 + number % 40, 75 + number % 40)
        return (b"\x06" + b"".join(map(sfloat, pressures)) + date_time(records.moment(number))
                + sfloat(50 + number % 50))

    async def feed(characteristic):
        await records.send(characteristic, list(records.stored), shape)
        if quits:
            await asyncio.sleep(0.2)
            asyncio.get_running_loop().call_soon(characteristic.device.peripheral.drop_link)

    return Attribute({"uuid": "2a35", "flags": ["indicate"]}, feed)


def glucose_attributes(records):
    """2a18, 2a51 and 2a52 over one store."""
    measurement = Attribute({"uuid": "2a18", "flags": ["notify"]})
    feature = Attribute({"uuid": "2a51", "flags": ["read"], "value": "0000"})
    control = Attribute({"uuid": "2a52", "flags": ["indicate", "write"]})
    point = AccessPoint(records, measurement)
    control.written = point.written
    return [measurement, feature, control]


class AccessPoint:
    """One RACP: a request at a time, its answer by indication."""

    def __init__(self, records, measurement):
        self.records, self.measurement = records, measurement
        self.running = None

    def shape(self, number):
        # Flags: concentration in kg/L with type and place; no time offset.
        return (b"\x02" + self.sequence(number).to_bytes(2, "little") + date_time(self.records.moment(number))
                + (0xB000 | (50 + number % 200)).to_bytes(2, "little") + b"\x11")

    def sequence(self, number):
        return (self.records.first_sequence + number - 1) % 65_536

    def written(self, control, value):
        listener = next((one for one in control.device.characteristics if one.attribute is self.measurement), None)
        if not control.sessions or listener is None or not listener.sessions:
            raise Refused("Failed", "Operation failed with ATT error: 0xfd")
        aborts = value[:1] == b"\x03"
        if self.running and not self.running.done() and not aborts:
            raise Refused("Failed", "Operation failed with ATT error: 0xfe")
        self.records.requests.append({"at": time.time(), "value": value.hex()})
        if aborts and self.running:
            self.running.cancel()
        self.running = control.tree.spawn(self.answer(control, listener, value))
        control.device.procedures.append(self.running)

    async def answer(self, control, listener, value):
        # The answer to the write goes out before any indication.
        await asyncio.sleep(0)
        op = value[0] if value else 0

        def respond(code):
            control.notify(bytes([6, 0, op, code]))

        if op == 3:
            respond(SUCCESS)
        elif op not in (1, 2, 4):
            respond(OP_NOT_SUPPORTED)
        else:
            chosen, wrong = self.chosen(value)
            if wrong:
                respond(wrong)
            elif op == 4:
                control.notify(bytes([5, 0]) + len(chosen).to_bytes(2, "little"))
            elif not chosen:
                respond(NOTHING_FOUND)
            elif op == 1:
                await self.records.send(listener, chosen, self.shape)
                respond(SUCCESS)
            else:
                self.records.stored = [one for one in self.records.stored if one not in set(chosen)]
                self.records.deleted += [{"at": time.time(), "number": one} for one in chosen]
                respond(SUCCESS)

    def chosen(self, value):
        """The stored records that a request names, or the response code that refuses it."""
        stored, operator = self.records.stored, value[1] if len(value) > 1 else 0
        if operator == ALL:
            return stored[:], (INVALID_OPERAND if len(value) > 2 else None)
        if operator in (FIRST, LAST):
            return (stored[:1] if operator == FIRST else stored[-1:]), None
        if operator not in (UP_TO, FROM, WITHIN):
            return [], INVALID_OPERATOR if operator == 0 else OPERATOR_NOT_SUPPORTED
        if value[2:3] != b"\x01":
            return [], OPERAND_NOT_SUPPORTED
        if len(value) != (7 if operator == WITHIN else 5):
            return [], INVALID_OPERAND
        low = 0 if operator == UP_TO else int.from_bytes(value[3:5], "little")
        high = 65_535 if operator == FROM else int.from_bytes(value[-2:], "little")
        return [one for one in stored if low <= self.sequence(one) <= high], None
