"""Pictures of one camera, by shared memory: the client of formats/interfaces/src/channel.rs, module `frames`.

How a picture gets here without a copy, may be drawn on, and never shows the drawings of another:

- The decoder's ring is a memfd that only the decoder can write. A slot of it is mapped *privately* (copy-on-write): an
  application reads the decoder's own memory, and a page is copied when the application writes to it, for it alone.
- A frame holds a lease on its slot. When the last array that looks at it is collected (or `Frame.release` is called), the
  lease goes back, and the decoder may write the slot again.
- A page that was written privately stays a copy and would hide the slot's next picture, so such a mapping is thrown away
  with the frame. A mapping that was *not* written to is kept for the slot's next picture, since its page tables are worth
  keeping: reading a 1920x1080 picture through a fresh mapping costs 96 page faults, 0.5 ms of CPU time on a PC and far
  more under emulation, and asking the kernel whether any page was copied (/proc/self/pagemap, 12 kB for such a picture)
  costs 0.03 to 0.1 ms. Where that file cannot be read, every frame gets a fresh mapping.

Python 3.6 or newer: no socket.recv_fds (3.9), no mmap.madvise (3.8).
"""

import array
import collections
import fcntl
import json
import mmap
import os
import select
import socket
import time
import weakref

import numpy

# Far more than an event has, and little to set aside for every picture.
_MAXIMUM_EVENT = 4096
_MAXIMUM_DESCRIPTORS = 4
_F_GET_SEALS = 1034
_F_SEAL_SHRINK = 2
_PAGE = mmap.PAGESIZE


class Disconnected(Exception):
    """The server is gone (the decoder restarts), or broke the protocol: ask node.sock for the port again."""


class NotAdmitted(Disconnected):
    """The server does not serve this connection: there are too many. The text says what to do."""


class Frame(object):
    """One picture, with a lease on its memory."""

    __slots__ = ("image", "timestamp_us", "sequence", "width", "height", "_lease")

    def __init__(self, image, timestamp_us, sequence, lease):
        self.image = image
        """numpy.uint8, height x width x 3, blue green red; may be written to."""
        self.timestamp_us = timestamp_us
        """Microseconds since 1970 at which the picture arrived from the camera."""
        self.sequence = sequence
        """Counts the camera's pictures, those that this stream was not given included."""
        self.height, self.width = image.shape[:2]
        self._lease = lease

    def release(self):
        """Gives the memory back before the image is collected. `image` becomes None; arrays made from it must no longer
        be used: the next picture may show through them."""
        self.image = None
        self._lease()


class _PageMap(object):
    """Whether pages of this process's private mappings were written to."""

    _PRESENT_OR_SWAPPED = numpy.uint64(3 << 62)
    _OF_A_FILE = numpy.uint64(1 << 61)

    def __init__(self):
        self._process = None
        self._file = None

    def written(self, address, length):
        """True also when it cannot be told."""
        try:
            if self._process != os.getpid():
                # The first use, or after a fork: the file belongs to the process that opened it.
                self._process, self._file = os.getpid(), None
                self._file = open("/proc/self/pagemap", "rb", buffering=0)
            if self._file is None:
                return True
            size = length // _PAGE * 8
            entries = os.pread(self._file.fileno(), size, address // _PAGE * 8)
        except (OSError, ValueError):
            return True
        if len(entries) != size:
            return True
        entries = numpy.frombuffer(entries, numpy.uint64)
        # A page of ours that is no longer one of the file's (nor shared) is a private copy.
        copies = ((entries & self._PRESENT_OR_SWAPPED) != 0) & ((entries & self._OF_A_FILE) == 0)
        return bool(copies.any())


_pagemap = _PageMap()


class _Ring(object):
    """The memory of one generation, and the mappings of its slots that are ready to be used again."""

    def __init__(self, event, descriptor):
        self.generation = event["generation"]
        self.slots = event["slots"]
        self.slot_bytes = event["slot_bytes"]
        self.shape = (event["height"], event["width"], 3)
        self.strides = (event["stride"], 3, 1)
        self.picture_bytes = event["stride"] * event["height"]
        self.descriptor = descriptor
        self.mappings = {}
        if event["format"] != "bgr24" or event["stride"] < event["width"] * 3:
            raise ValueError("a format that this version does not know")
        if self.slot_bytes % _PAGE or not 0 < self.picture_bytes <= self.slot_bytes:
            raise ValueError("slots that cannot be mapped")
        # Memory that could shrink would end the process when it does.
        if not fcntl.fcntl(descriptor, _F_GET_SEALS) & _F_SEAL_SHRINK:
            raise ValueError("memory that is not sealed")
        if os.fstat(descriptor).st_size < self.slots * self.slot_bytes:
            raise ValueError("memory that is too small")

    def __del__(self):
        try:
            os.close(self.descriptor)
        except (AttributeError, OSError):
            pass

    def view(self, slot):
        """The mapping of a slot, and an array over it."""
        if not 0 <= slot < self.slots:
            raise ValueError("a slot that the ring does not have")
        mapping = self.mappings.pop(slot, None)
        if mapping is None:
            mapping = mmap.mmap(
                self.descriptor,
                self.slot_bytes,
                flags=mmap.MAP_PRIVATE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
                offset=slot * self.slot_bytes,
            )
        return mapping, numpy.frombuffer(mapping, numpy.uint8, self.picture_bytes)


class _Lease(object):
    """Runs once, when the picture's last array is collected or `Frame.release` is called, on whatever thread."""

    def __init__(self, stream, ring, slot, sequence, mapping, address):
        # No reference to the stream: a picture that is kept must not keep a closed stream open.
        self._socket = stream._socket
        self._returns = stream._returns
        self._ring = ring
        self._slot = slot
        self._sequence = sequence
        self._mapping = mapping
        self._address = address
        self._process = os.getpid()

    def __call__(self):
        mapping, self._mapping = self._mapping, None
        # After a fork the lease is the parent's: a child that drops its copy of the picture gives nothing back.
        if mapping is None or self._process != os.getpid():
            return
        ring = self._ring
        if not _pagemap.written(self._address, ring.slot_bytes):
            ring.mappings[self._slot] = mapping
        # Numbers alone: written by hand in a tenth of the time that json takes.
        packet = b'{"kind":"release","generation":%d,"slot":%d,"sequence":%d}' % (ring.generation, self._slot, self._sequence)
        try:
            self._socket.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._returns.append(packet)
        except (OSError, ValueError):
            pass  # The server is gone and took the leases with it.


class FrameStream(object):
    """Receives the pictures of one camera: always the newest, never a queue."""

    def __init__(self, sock):
        """`sock`: a connected SOCK_SEQPACKET socket on which `subscribe` was sent already; it is closed with the stream."""
        self._socket = sock
        self._socket.setblocking(True)
        self._ring = None
        self._asked = False
        # Releases that found the socket full; sent before the next question.
        self._returns = collections.deque()
        self._last = None
        self.interval = None
        """Seconds from one of the camera's pictures to the next, once that is known."""
        self.playing = False
        """Whether the camera delivers pictures now, as far as is known."""
        self.detail = ""
        """For people: the picture's size, or why there are none."""

    def fileno(self):
        """For select and poll; becomes readable when `get` has something to do."""
        return self._socket.fileno()

    def close(self):
        """Ends the stream. Pictures that are still held stay valid."""
        self._socket.close()
        self._ring = None

    def ask(self):
        """Asks for the next picture without waiting for it, so that several streams can be waited for together."""
        if not self._asked:
            try:
                while self._returns:
                    self._send(self._returns.popleft())
                self._send(b'{"kind":"next"}')
            except BrokenPipeError:
                pass  # What the server said last is still there for `get` to read.
            self._asked = True

    def get(self, timeout=None):
        """The newest picture that was not given yet; waits for it for `timeout` seconds (None: for ever), then returns
        None, and the question stays open. Raises `Disconnected`."""
        self.ask()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            received = self._receive()
            if received is None:
                # Asked for only now: what has come is read without waiting for it first.
                if timeout == 0 or not self._readable(deadline):
                    return None
                continue
            event, descriptors = received
            try:
                frame = self._handle(event, descriptors)
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise Disconnected("the frame server sent something wrong: {}".format(error))
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            if frame is not None:
                return frame

    def _readable(self, deadline):
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
        except (OSError, ValueError):
            raise Disconnected("the stream is closed")
        if deadline is None:
            return bool(poll.poll())
        # Rounded up, so that it does not spin during the last millisecond.
        return bool(poll.poll(max(0, int((deadline - time.monotonic()) * 1000 + 0.999))))

    def _send(self, packet):
        try:
            self._socket.send(packet, socket.MSG_NOSIGNAL)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            raise Disconnected("the frame server is gone: {}".format(error))

    def _receive(self):
        """The next packet and its descriptors; None when there is none yet."""
        space = socket.CMSG_SPACE(_MAXIMUM_DESCRIPTORS * array.array("i").itemsize)
        try:
            how = (_MAXIMUM_EVENT, space, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
            try:
                packet, ancillary, flags, _ = self._socket.recvmsg(*how)
            except ConnectionResetError:
                # It closed without having read everything. That is told once, before what it had sent.
                packet, ancillary, flags, _ = self._socket.recvmsg(*how)
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            raise Disconnected("the frame server is gone: {}".format(error))
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        descriptors = list(descriptors)
        problem = "it closed the connection" if not packet else None
        event = None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            problem = "a packet is too large"
        elif packet:
            try:
                event = json.loads(packet.decode("utf-8"))
            except ValueError:
                problem = "a packet is not JSON"
        if problem:
            for descriptor in descriptors:
                os.close(descriptor)
            raise Disconnected("the frame server is gone: {}".format(problem))
        return event, descriptors

    def _handle(self, event, descriptors):
        kind = event["kind"]
        if kind == "ring":
            self._ring = _Ring(event, descriptors.pop(0)) if descriptors else None
        elif kind == "stream":
            self.playing = event["state"] == "playing"
            self.detail = event["detail"]
        elif kind == "refused":
            raise NotAdmitted(event["message"])
        elif kind == "frame":
            self._asked = False
            ring = self._ring
            if ring is None or event["generation"] != ring.generation:
                raise ValueError("a picture of a ring that was not announced")
            return self._frame(ring, event["slot"], event["sequence"], event["timestamp_us"])
        # Kinds that this version does not know are for later ones.
        return None

    def _frame(self, ring, slot, sequence, timestamp_us):
        if self._last is not None and sequence > self._last[0]:
            took = (timestamp_us - self._last[1]) / 1e6 / (sequence - self._last[0])
            # A clock that is set makes one nonsense.
            if 0 < took < 60:
                self.interval = took if self.interval is None else 0.8 * self.interval + 0.2 * took
        self._last = (sequence, timestamp_us)
        mapping, memory = ring.view(slot)
        lease = _Lease(self, ring, slot, sequence, mapping, memory.ctypes.data)
        # Every array made from `image` refers to `memory` in the end, so that the lease ends with the last of them.
        weakref.finalize(memory, lease).atexit = False
        image = numpy.ndarray(ring.shape, numpy.uint8, memory, strides=ring.strides)
        return Frame(image, timestamp_us, sequence, lease)
