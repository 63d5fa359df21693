"""Faults that are switched on for calls: refuse, hang or delay a method of an object, for the next n calls or for good.

The contract: a fault names a method as `Adapter1.StartDiscovery` (a settable property likewise: `Adapter1.Powered`)
and where: a piece of the object's path, and for attributes a UUID. The first that fits and is not used up is played.
"""
import asyncio

from bus_objects import Refused

# A hung call is answered at last by nobody; the caller's own timeout is 25 s or more.
FOR_GOOD = 3600


class Fault:
    def __init__(self, method, where="", uuid=None, times=None, error="Failed", message="", hang=False, after_ms=0,
                 delay_only=False):
        self.method, self.where, self.uuid, self.times = method, where, uuid, times
        self.error, self.message, self.hang, self.after_ms = error, message, hang, after_ms
        self.delay_only = delay_only

    def fits(self, interface, method):
        if self.times == 0 or method != self.method or self.where not in interface.path:
            return False
        return self.uuid is None or getattr(interface, "uuid", None) == self.uuid

    async def play(self):
        await asyncio.sleep(FOR_GOOD if self.hang else self.after_ms / 1000)
        if not self.delay_only:
            raise Refused(self.error, self.message or self.error)


class Faults:
    def __init__(self):
        self.switched = []

    def switch_on(self, **what):
        self.switched.append(Fault(**what))

    def clear(self, method=None):
        self.switched = [fault for fault in self.switched if method not in (None, fault.method)]

    def take(self, interface, method):
        for fault in self.switched:
            if fault.fits(interface, method):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None
