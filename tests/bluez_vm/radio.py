"""Heart-rate straps and the guest's Bluetooth controller, all in this process: bumble's software controllers share one
link, and the guest's controller speaks HCI over a socket that is the guest's second serial port."""

import asyncio
import struct
import time

from bumble import core, hci
from bumble.controller import Controller
from bumble.core import AdvertisingData
from bumble.device import Device
from bumble.gatt import Characteristic, Service
from bumble.host import Host
from bumble.link import LocalLink
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport import open_transport
from bumble.transport.common import AsyncPipeSink

CONTACT_AND_RR = 0x16


class Link(LocalLink):
    """bumble 0.0.236 labels every LE packet with the sender's random address. Linux scans under a private address of its
    own but connects from the public one, so a strap would drop what its central sends."""

    def send_acl_data(self, sender_controller, destination_address, transport, data):
        if transport != core.PhysicalTransport.LE:
            return super().send_acl_data(sender_controller, destination_address, transport, data)
        destination = self.find_le_controller(destination_address)
        connection = sender_controller.le_connections.get(destination_address)
        source = connection.self_address if connection else sender_controller.random_address
        if destination is not None:
            asyncio.get_running_loop().call_soon(lambda: destination.on_link_acl_data(source, transport, data))


class GuestController(Controller):
    """What Linux asks of a controller and bumble 0.0.236 does not do."""

    def send_hci_packet(self, packet):
        """bumble says that it knows private addresses. Of such a controller Linux awaits the enhanced event, and does
        nothing else until 4 s are over."""
        if isinstance(packet, hci.HCI_LE_Connection_Complete_Event):
            packet = hci.HCI_LE_Enhanced_Connection_Complete_Event(
                status=packet.status,
                connection_handle=packet.connection_handle,
                role=packet.role,
                peer_address_type=packet.peer_address_type,
                peer_address=packet.peer_address,
                local_resolvable_private_address=hci.Address.ANY,
                peer_resolvable_private_address=hci.Address.ANY,
                connection_interval=packet.connection_interval,
                peripheral_latency=packet.peripheral_latency,
                supervision_timeout=packet.supervision_timeout,
                central_clock_accuracy=packet.central_clock_accuracy,
            )
        super().send_hci_packet(packet)

    def on_hci_le_create_connection_cancel_command(self, _command):
        """bumble answers, remembers the attempt all the same, and would refuse the next one."""
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        cancelled = hci.HCI_LE_Connection_Complete_Event(
            status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
            connection_handle=0,
            role=hci.Role.CENTRAL,
            peer_address_type=pending.peer_address_type,
            peer_address=pending.peer_address,
            connection_interval=0,
            peripheral_latency=0,
            supervision_timeout=0,
            central_clock_accuracy=0,
        )
        asyncio.get_running_loop().call_soon(lambda: self.send_hci_packet(cancelled))
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)


class Strap:
    """Notifies while somebody is subscribed, and numbers what it sends in the RR interval, in units of 1/1024 s."""

    def __init__(self, link, index, rate, bonded):
        self.name = f"strap-{index}"
        self.address = f"C4:F1:F2:F3:F4:{index:02X}"
        self.rate = rate
        self.resting = False
        # Whether it speaks over an encrypted link only, and so to whom it is bonded.
        self.bonded = bonded
        # number -> when it was sent, by the monotonic clock
        self.sent = {}
        controller = Controller(self.name, link=link, public_address=f"F0:F0:F0:F0:F1:{index:02X}")
        self.device = Device(name=self.name, address=self.address, host=Host(controller, AsyncPipeSink(controller)))
        if bonded:
            # Without a display and keys on it, which is called "just works".
            pairing = PairingConfig(sc=True, mitm=False, bonding=True, delegate=PairingDelegate())
            self.device.pairing_config_factory = lambda _connection: pairing
        notify, read = Characteristic.Properties.NOTIFY, Characteristic.Properties.READ
        readable = Characteristic.READABLE
        self.measurement = Characteristic("2A37", notify, readable, bytes([0, 60]))
        location = Characteristic("2A38", read, readable, bytes([1]))
        battery = Characteristic("2A19", read | notify, readable, bytes([87]))
        self.device.add_services([Service("180D", [self.measurement, location]), Service("180F", [battery])])
        self.device.advertising_data = bytes(
            AdvertisingData([
                (AdvertisingData.FLAGS, bytes([6])),
                (AdvertisingData.COMPLETE_LOCAL_NAME, self.name.encode()),
                (AdvertisingData.INCOMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, struct.pack("<H", 0x180D)),
            ])
        )

    def subscribed(self):
        handle = self.measurement.handle
        return any(
            cccds.get(handle, b"\0")[0] & 1 and (connection.is_encrypted or not self.bonded)
            for connection, cccds in self.device.gatt_server.subscribers.items()
        )

    async def run(self):
        await self.device.power_on()
        await self.device.start_advertising(auto_restart=True)
        while True:
            await asyncio.sleep(1 / self.rate)
            if self.resting or not self.subscribed():
                continue
            number = len(self.sent) + 1
            self.sent[number] = time.monotonic()
            value = struct.pack("<BBH", CONTACT_AND_RR, 60 + number % 40, number)
            await self.device.notify_subscribers(self.measurement, value)


class Radio:
    def __init__(self, straps, rate, bonded):
        """So many straps, of which the last asks for a bond where that is wanted."""
        self.link = Link()
        self.straps = [Strap(self.link, index, rate, bonded and index == straps) for index in range(1, straps + 1)]
        self.tasks = []

    async def start(self, hci_socket):
        """Listens on the socket, for the guest's serial port to connect to."""
        self.transport = await open_transport(f"unix-server:{hci_socket}")
        self.controller = GuestController(
            "guest",
            host_source=self.transport.source,
            host_sink=self.transport.sink,
            link=self.link,
            public_address="F0:F0:F0:F0:F0:01",
        )
        self.tasks = [asyncio.create_task(strap.run()) for strap in self.straps]

    def rest(self):
        for strap in self.straps:
            strap.resting = True

    def fault(self):
        """What ended a strap, if anything did."""
        for task in self.tasks:
            if task.done():
                return task.exception()
        return None
