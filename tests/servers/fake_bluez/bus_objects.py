"""D-Bus objects kept in a plain tree, with the standard interfaces in front of them.

The contract: an `ObjectTree` holds paths, each path holds `BusInterface`s. The tree answers Introspect (with child
nodes), Properties.Get/GetAll/Set and ObjectManager.GetManagedObjects, and signals InterfacesAdded, InterfacesRemoved
and PropertiesChanged. Every call is written down in `calls`, then meets the switched faults, then its method, which
gets the caller's unique name first and may be a coroutine. A tree without a bus is silent: it can be changed, and
nobody hears of it.
"""
import asyncio
import inspect
import time
from collections import Counter

from dbus_fast import Message, MessageType, Variant
from dbus_fast.signature import get_signature_tree

PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
MOST_CALLS_KEPT = 50_000
CHANGED = get_signature_tree("sa{sv}as")
ADDED = get_signature_tree("oa{sa{sv}}")
REMOVED = get_signature_tree("oas")


class Refused(Exception):
    """What a caller gets as a D-Bus error; a name without a dot is one of org.bluez.Error."""

    def __init__(self, name, message):
        super().__init__(message)
        self.name = name if "." in name else f"org.bluez.Error.{name}"


class BusInterface:
    """One interface of one object: `properties` are Variants, `methods` are name -> (in, out, function)."""

    name = ""
    writable = ()
    # Methods that ask for their faults themselves, because these come later than at once.
    own_faults = ()

    def __init__(self, tree, path):
        self.tree = tree
        self.path = path
        self.properties = {}
        self.methods = {}

    def change(self, **values):
        """Sets properties to Variants and says so."""
        self.properties.update(values)
        self.tree.signal(self.path, PROPERTIES, "PropertiesChanged", CHANGED, [self.name, values, []])

    def invalidate(self, name):
        if self.properties.pop(name, None) is not None:
            self.tree.signal(self.path, PROPERTIES, "PropertiesChanged", CHANGED, [self.name, {}, [name]])

    def set(self, sender, name, value):
        """A caller sets a property that is writable."""
        self.change(**{name: value})

    def before(self, member, sender):
        """A method was called; it has not met its faults yet."""

    def xml(self):
        lines = [f'<interface name="{self.name}">']
        for name, (takes, gives, _) in self.methods.items():
            args = [f'<arg type="{one.signature}" direction="in"/>' for one in get_signature_tree(takes).types]
            args += [f'<arg type="{one.signature}" direction="out"/>' for one in get_signature_tree(gives).types]
            lines.append(f'<method name="{name}">{"".join(args)}</method>')
        for name, value in self.properties.items():
            access = "readwrite" if name in self.writable else "read"
            lines.append(f'<property name="{name}" type="{value.signature}" access="{access}"/>')
        return "".join(lines) + "</interface>"


class ObjectTree:
    def __init__(self, faults, calls):
        self.bus = None
        self.faults = faults
        self.calls = calls
        self.nodes = {}
        self.children = {}
        self.tasks = set()

    # What is there

    def add(self, path, *interfaces):
        self.nodes[path] = {one.name: one for one in interfaces}
        while path != "/":
            parent, _, name = path.rpartition("/")
            parent = parent or "/"
            names = self.children.setdefault(parent, {})
            known, names[name] = name in names, None
            if known:
                break
            path = parent
        first = interfaces[0].path
        self.signal("/", OBJECT_MANAGER, "InterfacesAdded", ADDED, [first, self.described(first)])

    def remove(self, path):
        interfaces = self.nodes.pop(path, None)
        if interfaces is None:
            return
        self.signal("/", OBJECT_MANAGER, "InterfacesRemoved", REMOVED, [path, [PROPERTIES, INTROSPECTABLE, *interfaces]])
        while path != "/" and path not in self.nodes and not self.children.get(path):
            self.children.pop(path, None)
            parent, _, name = path.rpartition("/")
            path = parent or "/"
            self.children.get(path, {}).pop(name, None)

    def below(self, path):
        """The paths of all objects under this one, children before their parents."""
        found = []
        for name in self.children.get(path, {}):
            child = f"{path.rstrip('/')}/{name}"
            found += self.below(child)
            if child in self.nodes:
                found.append(child)
        return found

    def described(self, path):
        described = {INTROSPECTABLE: {}, PROPERTIES: {}}
        for name, interface in self.nodes[path].items():
            described[name] = interface.properties
        return described

    # What is said

    def signal(self, path, interface, member, signature, body):
        if self.bus is not None and self.bus.connected:
            self.bus.send(Message(path=path, interface=interface, member=member, message_type=MessageType.SIGNAL,
                                  signature=signature, body=body, validate=False))

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # What is asked

    def handle(self, message):
        if message.message_type is not MessageType.METHOD_CALL or not self.speaks_for(message):
            return None
        bus, short = self.bus, f"{(message.interface or '').rpartition('.')[2]}.{message.member}"
        self.calls.note(message.sender, message.path, short, message.body)

        def answer(signature="", body=()):
            if bus.connected:
                bus.send(Message.new_method_return(message, signature, list(body)))

        def refuse(name, text):
            if bus.connected:
                bus.send(Message.new_error(message, name, text))

        try:
            if message.interface in (PROPERTIES, INTROSPECTABLE, OBJECT_MANAGER):
                result = self.standard(message)
            else:
                result = self.own(message, short)
            if not inspect.isawaitable(result):
                answer(*result)
                return True
        except Refused as why:
            refuse(why.name, str(why))
            return True

        async def later():
            try:
                answer(*await result)
            except Refused as why:
                refuse(why.name, str(why))

        self.spawn(later())
        return True

    def speaks_for(self, message):
        return message.path == "/" or message.path in self.nodes or message.path in self.children or (
            message.interface or "").startswith("org.bluez.")

    def own(self, message, short):
        interface = self.nodes.get(message.path, {}).get(message.interface)
        if interface is None or message.member not in interface.methods:
            raise Refused("org.freedesktop.DBus.Error.UnknownObject" if interface is None else
                          "org.freedesktop.DBus.Error.UnknownMethod", f"no {short} at {message.path}")
        takes, gives, function = interface.methods[message.member]
        if message.signature != takes:
            raise Refused("org.freedesktop.DBus.Error.InvalidArgs", f"{short} takes {takes}, not {message.signature}")
        interface.before(message.member, message.sender)
        fault = None if message.member in interface.own_faults else self.faults.take(interface, short)

        def shaped(value):
            return gives, [] if value is None else [value]

        if fault is None:
            value = function(message.sender, *message.body)
            if not inspect.isawaitable(value):
                return shaped(value)
        else:
            value = None

        async def later():
            if fault is not None:
                await fault.play()
            done = function(message.sender, *message.body) if value is None else value
            return shaped(await done if inspect.isawaitable(done) else done)

        return later()

    def standard(self, message):
        interfaces = self.nodes.get(message.path, {})
        if message.member == "Introspect":
            return "s", [self.introspection(message.path, interfaces)]
        if message.member == "GetManagedObjects" and message.path == "/":
            return "a{oa{sa{sv}}}", [{path: self.described(path) for path in self.nodes}]
        if message.interface != PROPERTIES:
            raise Refused("org.freedesktop.DBus.Error.UnknownMethod", f"no {message.member} at {message.path}")
        interface = interfaces.get(message.body[0])
        if interface is None:
            raise Refused("org.freedesktop.DBus.Error.InvalidArgs", f"no interface {message.body[0]}")
        if message.member == "GetAll":
            return "a{sv}", [interface.properties]
        name = message.body[1]
        if message.member == "Get":
            if name not in interface.properties:
                raise Refused("org.freedesktop.DBus.Error.InvalidArgs", f"no property {name}")
            return "v", [interface.properties[name]]
        if message.member == "Set":
            return self.set_property(interface, name, message)
        raise Refused("org.freedesktop.DBus.Error.UnknownMethod", message.member)

    def set_property(self, interface, name, message):
        if name not in interface.writable:
            raise Refused("org.freedesktop.DBus.Error.PropertyReadOnly", f"{name} is not writable")
        short = f"{interface.name.rpartition('.')[2]}.{name}"
        self.calls.note(message.sender, message.path, short, [message.body[2].value])
        fault = self.faults.take(interface, short)
        if fault is None:
            interface.set(message.sender, name, message.body[2])
            return "", []

        async def later():
            await fault.play()
            interface.set(message.sender, name, message.body[2])
            return "", []

        return later()

    def introspection(self, path, interfaces):
        names = "".join(f'<node name="{name}"/>' for name in self.children.get(path, {}))
        return f'<node><interface name="{INTROSPECTABLE}"/><interface name="{PROPERTIES}"/>' + "".join(
            one.xml() for one in interfaces.values()) + names + "</node>"


class Calls:
    """Who called what, when: the first ones in full, all of them counted."""

    def __init__(self):
        self.counts = Counter()
        self.kept = []

    def note(self, sender, path, member, body):
        self.counts[member] += 1
        if len(self.kept) < MOST_CALLS_KEPT:
            self.kept.append((time.time(), sender, path, member, body))

    def listed(self, member):
        return [{"at": at, "sender": sender, "path": path, "member": name}
                for at, sender, path, name, _ in self.kept if member in ("", name)]


def text(value):
    return Variant("s", value)


def flag(value):
    return Variant("b", bool(value))
