"""A fake org.bluez with fault switches, for one test: `python fake_bluez ADDRESS`, driven by JSON lines (control.py).

It connects to the bus at ADDRESS, takes org.bluez and org.freedesktop.systemd1, prints `ready` as its first line, then
answers each line of its standard input by one line of its standard output, in order. It ends when its input ends.
"""
import asyncio
import json
import sys
import traceback

from control import Control
from daemon import Bluetoothd, Systemd

# A line with the state of thousands of devices is long.
LONGEST_LINE = 64 * 1024 * 1024


async def main(address):
    bluetoothd = Bluetoothd(address)
    systemd = Systemd(bluetoothd)
    await bluetoothd.start()
    await systemd.start()
    control = Control(bluetoothd, systemd)
    commands = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("ready", flush=True)
    while line := await commands.readline():
        try:
            answer = {"ok": await control.obey(json.loads(line))}
        except Exception as why:
            traceback.print_exc()
            answer = {"error": f"{type(why).__name__}: {why}"}
        print(json.dumps(answer), flush=True)


asyncio.run(main(sys.argv[1]))
