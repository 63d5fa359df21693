"""What arrived in the file destination, against what the straps sent."""

import json
import time


class Arrived:
    """The lines of the destination's folder, read again and again while they come."""

    def __init__(self, folder):
        self.folder = folder
        # device -> number -> when it was first seen here, by the monotonic clock
        self.seen = {}
        self.twice = []
        self.ids = {}
        self.other = 0

    def read(self):
        """Reads the folder anew. Returns itself."""
        now = time.monotonic()
        ids, numbers, other = {}, {}, 0
        for path in sorted(self.folder.glob("events-*.ndjson*")):
            try:
                text = path.read_text()
            except FileNotFoundError:
                continue  # renamed between the two calls: the next reading finds it
            for line in text.splitlines(keepends=True):
                if not line.endswith("\n"):
                    continue
                event = json.loads(line)
                ids[event["event_id"]] = ids.get(event["event_id"], 0) + 1
                if event["event_type"] != "heart_rate":
                    other += 1
                    continue
                number = round(event["metadata"]["rr_intervals"][0] * 1024)
                key = (event["device_id"], number)
                numbers[key] = numbers.get(key, 0) + 1
                self.seen.setdefault(event["device_id"], {}).setdefault(number, now)
        self.ids, self.other = ids, other
        self.twice = [f"event_id {id}" for id, times in ids.items() if times > 1]
        self.twice += [f"{device} number {number}" for (device, number), times in numbers.items() if times > 1]
        return self

    def of(self, device):
        return self.seen.get(device, {})

    def first_sent_after(self, strap, moment):
        """The oldest arrived number that the strap sent after the moment, or nothing."""
        return min((number for number in self.of(strap.name) if strap.sent[number] > moment), default=None)


class Outage:
    """A time without bluetoothd."""

    # What is on its way when bluetoothd ends is in a socket of its, and ends with it.
    ON_THE_WAY = 0.5

    def __init__(self, what, began, gone):
        self.what = what
        # When bluetoothd was told to end, and when it had ended: until then values may still arrive.
        self.began = began
        self.gone = gone
        # strap -> (when its first event after it was sent, when that was seen)
        self.over = {}

    def look(self, straps, arrived):
        """Whether all straps are back."""
        for strap in straps:
            number = arrived.first_sent_after(strap, self.gone)
            if number is not None:
                # A range may bring several numbers at once; the oldest of them ends the outage.
                self.over.setdefault(strap, (strap.sent[number], arrived.of(strap.name)[number]))
        return len(self.over) == len(straps)

    def covers(self, strap, sent):
        return strap in self.over and self.began - self.ON_THE_WAY <= sent < self.over[strap][0]


def account(strap, arrived, outages):
    """One line about a strap, and how many notifications are missing without an outage that explains it."""
    seen = arrived.of(strap.name)
    missing = {number: sent for number, sent in strap.sent.items() if number not in seen}
    bonded = " (bonded, encrypted)" if strap.bonded else ""
    parts = [f"{strap.name}{bonded}: {len(strap.sent)} sent while subscribed, {len(seen)} arrived"]
    explained = set()
    for outage in outages:
        lost = [number for number, sent in missing.items() if outage.covers(strap, sent)]
        explained.update(lost)
        parts.append(f"{len(lost)} lost while {outage.what}")
    # StartNotify answers before the client has taken up the values of that first moment.
    first = min(seen, default=0)
    before = [number for number in missing if number < first and number not in explained]
    if before:
        parts.append(f"{len(before)} before the first that arrived")
    rest = sorted(set(missing) - explained - set(before))
    if rest:
        parts.append(f"MISSING {rest[:20]}")
    return "; ".join(parts), len(rest) + (len(before) > 5)
