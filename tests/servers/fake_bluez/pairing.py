"""Pairing and the agents that are asked for it.

The contract: `AgentManager1` remembers who registered which agent. Pair connects where needed, then asks the caller's
agent, else the default one, as the device's mode says: `none` asks nobody, `confirm` and `authorize` want a yes,
`passkey` wants the device's own number, `fail` refuses always. Without an agent every mode but `none` fails.
"""
import asyncio

from dbus_fast import Message, MessageType

from bus_objects import BusInterface, Refused, flag

# (method, signature, what is asked beside the device's path)
QUESTIONS = {"confirm": ("RequestConfirmation", "ou", True), "authorize": ("RequestAuthorization", "o", False),
             "passkey": ("RequestPasskey", "o", False)}
AGENT_PATIENCE_S = 10


class AgentManager(BusInterface):
    name = "org.bluez.AgentManager1"

    def __init__(self, tree, path):
        super().__init__(tree, path)
        self.agents = {}
        self.default = None
        self.questions = []
        self.methods = {
            "RegisterAgent": ("os", "", self.register), "UnregisterAgent": ("o", "", self.unregister),
            "RequestDefaultAgent": ("o", "", self.request_default)}

    def register(self, sender, path, capability):
        if sender in self.agents:
            raise Refused("AlreadyExists", "Already Exists")
        self.agents[sender] = (path, capability)

    def unregister(self, sender, path):
        self.known(sender, path)
        self.client_left(sender)

    def request_default(self, sender, path):
        self.known(sender, path)
        self.default = sender

    def known(self, sender, path):
        if self.agents.get(sender, (None,))[0] != path:
            raise Refused("DoesNotExist", "Does Not Exist")

    def client_left(self, sender):
        self.agents.pop(sender, None)
        if self.default == sender:
            self.default = None

    async def ask(self, caller, device, method, signature, *more):
        owner = caller if caller in self.agents else self.default
        if owner is None:
            raise Refused("AuthenticationFailed", "Authentication Failed")
        self.questions.append(method)
        call = Message(destination=owner, path=self.agents[owner][0], interface="org.bluez.Agent1", member=method,
                       signature=signature, body=[device.path, *more])
        try:
            reply = await asyncio.wait_for(self.tree.bus.call(call), AGENT_PATIENCE_S)
        except asyncio.TimeoutError:
            raise Refused("AuthenticationTimeout", "Authentication Timeout") from None
        if reply.message_type is MessageType.ERROR:
            raise Refused("AuthenticationRejected", "Authentication Rejected")
        return reply.body


async def pair(device, sender):
    if device.properties["Paired"].value:
        raise Refused("AlreadyExists", "Already Exists")
    if device.pairing:
        raise Refused("InProgress", "In Progress")
    device.pairing = device.tree.spawn(paired(device, sender))
    try:
        await asyncio.wait([device.pairing])
        if device.pairing.cancelled():
            raise Refused("AuthenticationCanceled", "Authentication Canceled")
        device.pairing.result()
    finally:
        device.pairing = None


async def paired(device, sender):
    peripheral, agents = device.peripheral, device.adapter.agents
    fault = device.tree.faults.take(device, "Device1.Pair")
    if fault:
        await fault.play()
    if not device.connected():
        await device.connect(sender)
    if peripheral.pairing in QUESTIONS:
        method, signature, shows_number = QUESTIONS[peripheral.pairing]
        answer = await agents.ask(sender, device, method, signature, *([peripheral.passkey] if shows_number else []))
        if peripheral.pairing == "passkey" and answer != [peripheral.passkey]:
            raise Refused("AuthenticationFailed", "Authentication Failed")
    elif peripheral.pairing != "none":
        raise Refused("AuthenticationFailed", "Authentication Failed")
    await asyncio.sleep(0.05)
    device.change(Paired=flag(True), Bonded=flag(True))
