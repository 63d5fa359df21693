"""The guest: qemu without KVM (a machine's KVM need not boot a stock kernel), and a shell on its console."""

import asyncio
import re
import socket
import time


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tied(*command):
    """The command such that it ends when this process does, however that ends."""
    return ["setpriv", "--pdeathsig", "TERM", *map(str, command)]


async def stop(process):
    """Ends a child by its own id."""
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 20)
    except TimeoutError:
        process.kill()
        await process.wait()


class Guest:
    def __init__(self, image, work):
        self.image = image
        self.work = work
        self.hci_socket = work / "hci"
        self.log = work / "console.log"
        self.port = free_port()
        self.bus = f"tcp:host=127.0.0.1,port={self.port}"
        self.process = None

    async def start(self, limit):
        """Boots until bluetoothd runs. The HCI socket must be listened on by then."""
        began = time.monotonic()
        console = self.work / "console"
        kernel = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off tsc=reliable no_timer_check cryptomgr.notests"
        log = open(self.work / "qemu.log", "wb")
        self.process = await asyncio.create_subprocess_exec(
            *tied(
                "nice", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "q35", "-smp", 1, "-m", 256,
                "-nographic", "-nodefaults", "-no-reboot", "-monitor", "none",
                "-kernel", self.image / "vmlinuz", "-initrd", self.image / "initrd.gz", "-append", kernel,
                "-chardev", f"socket,id=console,path={console},server=on,wait=off,logfile={self.log}",
                "-serial", "chardev:console",
                "-chardev", f"socket,id=hci,path={self.hci_socket},server=off", "-serial", "chardev:hci",
                # restrict: nothing of the guest reaches the network, only the bus's port reaches the guest.
                "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:5555",
                "-device", "virtio-net-pci,netdev=net,romfile=",
                "-fsdev", f"local,id=root,path={self.image / 'root'},security_model=none,readonly=on",
                "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        while not console.exists():
            await asyncio.sleep(0.05)
            if self.process.returncode is not None:
                raise RuntimeError("qemu did not start")
        self.reader, self.writer = await asyncio.open_unix_connection(console)
        await self._until(r"bluez-vm ready", limit)
        return time.monotonic() - began

    async def _until(self, pattern, limit):
        """The lines before the one that matches, and the match."""
        lines = []
        async with asyncio.timeout(limit):
            while True:
                raw = await self.reader.readline()
                if not raw:
                    raise RuntimeError(f"the guest ended; its console is in {self.log}")
                line = raw.decode(errors="replace").strip()
                if found := re.search(pattern, line):
                    return lines, found
                lines.append(line)

    async def shell(self, command, limit=60):
        """Runs one line in the guest; its output. Fails as the command does."""
        self.writer.write(command.encode() + b"\n")
        lines, found = await self._until(r"^done (\d+)$", limit)
        if found[1] != "0":
            raise RuntimeError(f"{command!r} in the guest ends with {found[1]}: {lines}")
        return "\n".join(lines)

    def kernel_faults(self):
        """Lines of the console by which a kernel says that it is broken."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if re.search(r"kernel BUG|Oops|BUG: |WARNING: ", line)]

    async def stop(self):
        # Its root is read-only: there is nothing to shut down for.
        await stop(self.process)
