"""Adds to a number in a file, one at a time among any number of processes: `count.py ADDRESS FILE TIMES`."""

import sys
from pathlib import Path

import grpc

from leasehold_lock import Lock

address, file, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

with grpc.insecure_channel(address) as channel:
    for _ in range(times):
        with Lock(channel, "counter", ttl=5.0, wait=60.0, owner="count.py") as lock:
            count = int(file.read_text())
            file.write_text(str(count + 1))
            print(lock.token, flush=True)
