"""What sensors say: bytes that are fixed, rise with a counter, or are those of a heart-rate strap.

The contract: `Pattern(spec).next()` gives the n-th value, n from 1, and each differs from the one before, so that a
test can tell every delivered one apart. Specs: `"hex"` (fixed), `"hr"`, or
`{"prefix": hex, "width": bytes, "start": k, "suffix": hex}` for prefix + little-endian (start + n) + suffix.
"""
BASE_UUID = "-0000-1000-8000-00805f9b34fb"


def full_uuid(short):
    """`2a37` as BlueZ writes it; a whole UUID stays as it is."""
    return short.lower() if "-" in short else f"{int(short, 16):08x}{BASE_UUID}"


def short_uuid(uuid):
    return uuid[4:8] if uuid.endswith(BASE_UUID) else uuid


def sfloat(number):
    """A whole number from -2048 to 2047 as IEEE 11073 SFLOAT, little-endian."""
    return (number & 0x0FFF).to_bytes(2, "little")


def date_time(moment):
    """The seven bytes of a GATT Date Time."""
    return moment.year.to_bytes(2, "little") + bytes(
        [moment.month, moment.day, moment.hour, moment.minute, moment.second])


class Pattern:
    def __init__(self, spec):
        self.count = 0
        self.spec = spec
        self.is_fixed = isinstance(spec, str) and spec != "hr"
        if self.is_fixed:
            self.fixed = bytes.fromhex(spec)
        elif spec != "hr":
            self.prefix = bytes.fromhex(spec.get("prefix", ""))
            self.suffix = bytes.fromhex(spec.get("suffix", ""))
            self.width, self.start = spec.get("width", 2), spec.get("start", 0)

    def next(self):
        self.count += 1
        return self.value(self.count)

    def value(self, n):
        if self.is_fixed:
            return self.fixed
        if self.spec == "hr":
            # Flags: one RR interval follows the 8-bit heart rate.
            return bytes([0x10, 60 + n % 40]) + (n % 65_536).to_bytes(2, "little")
        number = (self.start + n) % (1 << 8 * self.width)
        return self.prefix + number.to_bytes(self.width, "little") + self.suffix
