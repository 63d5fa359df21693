"""check.py --image DIR (--gateway BINARY | --probe)   The gateway against the real bluetoothd; see docs/testing.md.
Exits with 0 when every notification arrived once, except those that were sent while bluetoothd was down."""

import argparse
import asyncio
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arrived import Arrived, Outage, account
from guest import Guest, stop, tied
from radio import Radio

HERE = Path(__file__).parent
OUTAGES = {"TERM": "bluetoothd was restarted", "KILL": "bluetoothd was killed"}


class Failed(Exception):
    pass


def config(work, straps):
    devices = "".join(
        f'[[device]]\nname = "{strap.name}"\nprofile = "bluetooth-heart-rate"\nble = "{strap.address}"\n\n'
        for strap in straps
    )
    return f"""[gateway]
id = "bluez-vm"
data_dir = "{work}/data"

[clock]
trust = "always"

[store]
commit_interval = "200 ms"

{devices}[[destination]]
name = "archive"
kind = "file"
dir = "{work}/events"
"""


class Check:
    def __init__(self, arguments, work):
        self.arguments = arguments
        self.work = work
        self.radio = Radio(arguments.straps, arguments.rate, bonded=not arguments.probe)
        self.guest = Guest(arguments.image, work)
        self.arrived = Arrived(work / "events")
        self.client = None
        self.client_log = work / "client.log"
        self.began = time.monotonic()

    def say(self, text):
        print(f"[{time.monotonic() - self.began:6.1f}] {text}", flush=True)

    async def start_client(self):
        straps = self.radio.straps
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.guest.bus}
        if self.arguments.probe:
            command = [sys.executable, HERE / "probe.py", self.work / "events"]
            command += [f"{strap.name}={strap.address}" for strap in straps]
        else:
            file = self.work / "biogate.toml"
            file.write_text(config(self.work, straps))
            gateway = [self.arguments.gateway, "--config", file]
            for strap in straps:
                if strap.bonded:
                    await self.pair([*gateway, "pair", strap.name], environment)
            command = [*gateway, "run"]
        with open(self.client_log, "wb") as log:
            self.client = await asyncio.create_subprocess_exec(
                *tied(*command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    async def pair(self, command, environment):
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *tied(*command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        try:
            async with asyncio.timeout(self.arguments.limit):
                said, _ = await process.communicate()
        finally:
            await stop(process)
        if process.returncode != 0:
            raise Failed(f"biogate pair ends with {process.returncode}: {said.decode(errors='replace')}")
        self.say(f"paired with {command[-1]} in {time.monotonic() - began:.1f} s")

    async def until(self, what, holds):
        """Waits until it holds, with the destination read anew each time."""
        end = time.monotonic() + self.arguments.limit
        while not holds(self.arrived.read()):
            if self.client.returncode is not None:
                raise Failed(f"the client ended with {self.client.returncode} while waiting for: {what}")
            if self.guest.process.returncode is not None:
                raise Failed(f"qemu ended with {self.guest.process.returncode} while waiting for: {what}")
            if fault := self.radio.fault():
                raise Failed(f"a strap ended: {fault!r}")
            if time.monotonic() > end:
                counts = {strap.name: (len(strap.sent), len(self.arrived.of(strap.name))) for strap in self.radio.straps}
                raise Failed(f"not within {self.arguments.limit} s: {what}; sent and arrived: {counts}")
            await asyncio.sleep(0.1)

    async def flow(self, count):
        """Until so many more have arrived of each strap."""
        goals = {strap.name: len(self.arrived.of(strap.name)) + count for strap in self.radio.straps}
        await self.until(
            f"{count} more events of each strap",
            lambda arrived: all(len(arrived.of(name)) >= goal for name, goal in goals.items()),
        )

    async def outage(self, what, signal_name):
        began = time.monotonic()
        await self.guest.shell(f"stop_bluetoothd {signal_name}")
        outage = Outage(what, began, time.monotonic())
        await self.guest.shell("start_bluetoothd")
        await self.until(f"events of all straps again ({what})", lambda arrived: outage.look(self.radio.straps, arrived))
        for strap, (_, seen) in outage.over.items():
            self.say(f"{what}: {strap.name} again after {seen - outage.began:.1f} s")
        return outage

    async def run(self):
        (self.work / "events").mkdir()
        straps = self.radio.straps
        await self.radio.start(self.guest.hci_socket)
        booted = await self.guest.start(self.arguments.limit)
        daemon = await self.guest.shell("/usr/libexec/bluetooth/bluetoothd --version")
        kernel = await self.guest.shell("uname -r")
        qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
        self.versions = (
            f"bluetoothd {daemon}, kernel {kernel}, bumble {importlib.metadata.version('bumble')}, "
            f"qemu {qemu.stdout.split()[3]}"
        )
        self.say(f"guest booted in {booted:.1f} s: {self.versions}")

        await self.start_client()
        started = time.monotonic()
        await self.until("the first event of each strap", lambda arrived: all(arrived.of(strap.name) for strap in straps))
        for strap in straps:
            self.say(f"first event of {strap.name} after {min(self.arrived.of(strap.name).values()) - started:.1f} s")
        await self.flow(20)
        outages = []
        for signal_name in self.arguments.outages:
            outages.append(await self.outage(OUTAGES[signal_name], signal_name))
            await self.flow(20)

        # What was sent shall have the time to arrive.
        self.radio.rest()
        await asyncio.sleep(3)
        await stop(self.client)
        self.arrived.read()
        return self.judge(outages)

    def judge(self, outages):
        bad = 0
        for strap in self.radio.straps:
            line, unexplained = account(strap, self.arrived, outages)
            self.say(line)
            bad += unexplained
        if faults := self.guest.kernel_faults():
            self.say(f"the guest's kernel failed, so that the above says little: {faults}")
            bad += 1
        twice = self.arrived.twice
        self.say(f"{len(self.arrived.ids)} events, {len(twice)} doubled" + (f": {twice[:10]}" if twice else ""))
        if not self.arguments.probe and self.client.returncode != 0:
            self.say(f"the gateway ended with {self.client.returncode}")
            bad += 1
        return bad == 0 and not twice

    async def stop(self):
        await stop(self.client)
        await self.guest.stop()


async def main(arguments, work):
    me = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    check = Check(arguments, work)
    try:
        return await check.run()
    except (Failed, RuntimeError, TimeoutError) as why:
        check.say(f"{why or type(why).__name__}")
        for log in [check.client_log, check.guest.log]:
            if log.exists():
                print(f"--- the end of {log.name}", *log.read_text(errors="replace").splitlines()[-25:], sep="\n")
        return False
    finally:
        await check.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--image", type=Path, required=True)
    client = parser.add_mutually_exclusive_group(required=True)
    client.add_argument("--gateway", type=Path)
    client.add_argument("--probe", action="store_true", help="a small client of ours in the gateway's place")
    parser.add_argument("--straps", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5, help="notifications a second of each strap")
    parser.add_argument(
        "--outages", type=lambda text: text.split(","), default=["TERM", "KILL"], help="how bluetoothd ends, each time: TERM,KILL"
    )
    parser.add_argument("--limit", type=float, default=120, help="seconds to wait for anything")
    parser.add_argument("--keep", action="store_true", help="keep logs and events also after a success")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bluez-vm-"))
    try:
        passed = asyncio.run(main(arguments, work))
    except (asyncio.CancelledError, KeyboardInterrupt):
        shutil.rmtree(work)
        sys.exit(130)
    if passed and not arguments.keep:
        shutil.rmtree(work)
    else:
        print(f"logs and events are in {work}")
    print("passed" if passed else "FAILED")
    sys.exit(0 if passed else 1)
