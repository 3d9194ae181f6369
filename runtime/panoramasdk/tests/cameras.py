"""Cameras that deliver by the clock, for tests and measurements of `inputs.<port>.get()`: a fake of the decoder that follows
the rules of formats/interfaces/src/channel.rs, in a process of its own.

    runtime/panoramasdk/tests/cameras.py [--sdk DIRECTORY] [--seconds 4]      prints the table of docs/performance.md
"""

import argparse
import array
import fcntl
import json
import mmap
import os
import select
import socket
import statistics
import sys
import time

SLOTS, SLOT, WIDTH, HEIGHT = 8, 4096, 8, 8


class _Stream(object):
    """One connection's side of the decoder: a picture at every tick, kept for nobody."""

    def __init__(self, sock, period, phase, number):
        self.sock, self.period = sock, period
        self.next = time.monotonic() + phase
        self.memory = os.memfd_create("ring", 3)
        os.ftruncate(self.memory, SLOTS * SLOT)
        self.view = mmap.mmap(self.memory, SLOTS * SLOT)
        fcntl.fcntl(self.memory, 1033, 2 | 4)
        self.sequence, self.wants, self.leases, self.playing = 0, False, {}, True
        ring = {"kind": "ring", "generation": 1, "slots": SLOTS, "slot_bytes": SLOT, "width": WIDTH, "height": HEIGHT,
                "stride": WIDTH * 3, "format": "bgr24"}
        descriptors = array.array("i", [self.memory]).tobytes()
        self.send({"kind": "stream", "state": "playing", "detail": ""})
        sock.sendmsg([json.dumps(ring).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])

    def send(self, message):
        self.sock.send(json.dumps(message).encode())

    def read(self):
        message = json.loads(self.sock.recv(65536).decode())
        if message["kind"] == "next":
            self.wants = True
        else:
            self.leases.pop(message["slot"], None)

    def tick(self):
        self.next += self.period
        self.sequence += 1
        if self.wants and len(self.leases) < 2 and self.playing:
            slot = min(set(range(SLOTS)) - set(self.leases))
            self.leases[slot], self.wants = self.sequence, False
            self.view[slot * SLOT : slot * SLOT + 8] = self.sequence.to_bytes(8, "little")
            self.send({"kind": "frame", "generation": 1, "slot": slot, "sequence": self.sequence,
                       "timestamp_us": int(time.time() * 1e6)})


def start(periods, pause=()):
    """Starts a process with a camera for each of `periods` (seconds between pictures). `pause`: (camera, seconds after the
    start) at which that camera goes offline. Gives a link as `panoramasdk._link.Link` is for MediaInput, and a function that
    ends the process."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in periods]
    process = os.fork()
    if process == 0:
        try:
            _serve([near for near, _ in pairs], periods, dict(pause), [far for _, far in pairs])
        finally:
            os._exit(0)
    [near.close() for near, _ in pairs]

    class Link(object):
        asked = 0

        def channel(self, what, port, index):
            Link.asked += 1
            return pairs[index][1]

    def end():
        os.kill(process, 9)
        os.waitpid(process, 0)

    return Link(), end


def _serve(socks, periods, pause, others):
    [other.close() for other in others]
    begin = time.monotonic()
    # Spread over a period, as real cameras are.
    streams = [_Stream(sock, period, period * ((index * 0.618) % 1), index)
               for index, (sock, period) in enumerate(zip(socks, periods))]
    poll = select.poll()
    by_number = {stream.sock.fileno(): stream for stream in streams}
    [poll.register(number, select.POLLIN) for number in by_number]
    while True:
        wait = min(stream.next for stream in streams) - time.monotonic()
        for number, _ in poll.poll(max(0, wait * 1000)):
            try:
                by_number[number].read()
            except (OSError, ValueError):
                return
        now = time.monotonic()
        for index, stream in enumerate(streams):
            if stream.playing and index in pause and now - begin >= pause[index]:
                stream.playing = False
                stream.send({"kind": "stream", "state": "offline", "detail": "paused"})
            while stream.next <= now:
                stream.tick()


def measure(media_input, periods, work, seconds):
    """Calls get() and works, again and again: calls a second, new pictures a second, lists, lists that were wholly new, and
    the median age of new pictures in ms."""
    link, end = start(periods)
    try:
        port = media_input(link, "video_in", ["camera %d" % index for index in range(len(periods))])
        limit = time.monotonic() + 20
        while len(port.get(5)) < len(periods) and time.monotonic() < limit:
            pass
        for _ in range(5):
            port.get(5)
            time.sleep(work)
        lists, whole, new, ages = 0, 0, 0, []
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            pictures = port.get(5)
            now = time.time()
            fresh = [picture for picture in pictures if not picture.is_cached]
            ages.extend(now - picture.time_stamp[0] - picture.time_stamp[1] / 1e6 for picture in fresh)
            lists += 1
            new += len(fresh)
            whole += len(fresh) == len(periods)
            time.sleep(work)
        took = time.monotonic() - begin
        return lists / took, new / took, lists, whole, 1000 * statistics.median(ages)
    finally:
        end()


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdk", default=os.path.dirname(here))
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.sdk)
    from panoramasdk._ports import MediaInput

    print("| cameras, work per list | get()/s | new pictures/s (ideal) | lists wholly new | age of new pictures, median |")
    print("|---|---|---|---|---|")
    for cameras, work in ((1, 0.02), (1, 0.034), (1, 0.045), (1, 0.07), (1, 0.2), (2, 0.02), (2, 0.05), (8, 0.02), (8, 0.1)):
        calls, new, lists, whole, age = measure(MediaInput, [1 / 30] * cameras, work, arguments.seconds)
        ideal = cameras * min(30, 1 / work)
        print("| %d, %.0f ms | %.1f | %.1f (%.0f) | %d of %d | %.0f ms |" % (cameras, work * 1000, calls, new, ideal, whole, lists, age), flush=True)


if __name__ == "__main__":
    main()
