"""Pictures to the monitor: the client of the `display` channel (formats/interfaces, channel.rs).

A picture is copied once, into memory that the display reads; then the application may do with its own what it likes.
"""

import array
import ctypes
import fcntl
import json
import math
import mmap
import os
import platform
import select
import socket
import threading
import time

import numpy

# The same facts as in channel.rs.
MAXIMUM_PACKET = 65536
BUFFERS = 16
MAXIMUM_MARKS = 256
MAXIMUM_LABEL = 256
MAXIMUM_SIDE = 4096

# How long put() waits, for all of its pictures together, for a display that does not take the previous ones, in seconds.
# Then they are dropped, and until it has taken one there is no more waiting: what the monitor does must not hold an
# application up.
PATIENCE = 0.25

_F_ADD_SEALS = 1033
_F_SEAL_SHRINK_GROW = 2 | 4
_MFD_CLOEXEC_ALLOW_SEALING = 1 | 2
_MEMFD_CREATE_NUMBER = {"aarch64": 279, "x86_64": 319, "armv7l": 385}


def _sealed_memory(size):
    """A memfd of `size` bytes that can neither shrink nor grow. Python has os.memfd_create only from 3.8 on."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("panoramasdk-display", _MFD_CLOEXEC_ALLOW_SEALING)
    else:
        system_call = ctypes.CDLL(None, use_errno=True).syscall
        number = ctypes.c_long(_MEMFD_CREATE_NUMBER[platform.machine()])
        name = ctypes.c_char_p(b"panoramasdk-display")
        descriptor = system_call(number, name, ctypes.c_uint(_MFD_CLOEXEC_ALLOW_SEALING))
        if descriptor < 0:
            error = ctypes.get_errno()
            raise OSError(error, "memfd_create: " + os.strerror(error))
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _F_SEAL_SHRINK_GROW)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class NotAdmitted(ConnectionError):
    """The display does not serve this connection: there are too many. The text says what to do."""

    refused = True


class _Stream(object):
    """One stream's buffer and whether the display still reads it."""

    def __init__(self, number):
        self.number = number
        self.size = 0
        self.memory = None
        self.sequence_on_its_way = None


class DisplayOutput(object):
    """A connection to the display, opened by the appliance. Safe to use from several threads."""

    def __init__(self, sock, say=None):
        """`sock`: a connected SOCK_SEQPACKET socket that has been opened for this application; owned from here on. `say`:
        called with a kind and a line for the application's author."""
        self._say = say or (lambda kind, text: None)
        self._socket = sock
        self._socket.setblocking(False)
        self._streams = {}
        self._sequence = 0
        self._lock = threading.Lock()
        self._late = False
        self._mine = True
        # For whoever wants to know: pictures that the display did not take in time.
        self.dropped = 0

    def put(self, pictures):
        """Shows pictures: a list of (stream_id, image, rectangles, labels).

        image: HxWx3 uint8, BGR, any strides. rectangles: (left, top, right, bottom) and labels: (text, x, y), in 0...1.
        Marks beyond the channel's limits are left out. What cannot be shown is left out, with a line on standard error.
        Raises ConnectionError when the display is gone (it restarts; ask for a new connection).
        """
        with self._lock:
            self._read_answers()
            if not self._mine:
                # Taken and thrown away by the display: not worth a copy.
                self._say("monitor", "the monitor shows another application, which started later: put() shows nothing")
                return
            end = time.monotonic() + (0.0 if self._late else PATIENCE)
            for stream_id, image, rectangles, labels in pictures:
                try:
                    self._show(str(stream_id), image, rectangles, labels, end)
                except ValueError as error:
                    self.dropped += 1
                    self._say(("show", str(error)), "a picture of stream %s is not shown: %s" % (stream_id, error))

    def close(self):
        """Ends the connection; the streams disappear from the monitor."""
        with self._lock:
            self._socket.close()
            for stream in self._streams.values():
                if stream.memory is not None:
                    stream.memory.close()
            self._streams = {}

    def _show(self, stream_id, image, rectangles, labels, end):
        image = numpy.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != numpy.uint8:
            raise ValueError("a picture must be an array of HxWx3 uint8, not %s of %s" % (image.shape, image.dtype))
        height, width = image.shape[:2]
        if not (1 <= width <= MAXIMUM_SIDE and 1 <= height <= MAXIMUM_SIDE):
            raise ValueError("a picture must be 1 to %d pixels wide and high, not %dx%d" % (MAXIMUM_SIDE, width, height))
        stream = self._stream(stream_id)
        # One picture of a stream at a time may be on its way; the last one has usually been taken long ago.
        if not self._wait_taken(stream, end):
            self.dropped += 1
            self._late = True
            return
        if stream.size < image.nbytes:
            self._new_buffer(stream, image.nbytes)
        target = numpy.frombuffer(stream.memory, numpy.uint8, image.nbytes).reshape(image.shape)
        target[...] = image
        # The view would keep the mapping from being closed.
        del target
        self._sequence += 1
        self._send_picture(stream_id, stream, width, height, rectangles, labels)
        stream.sequence_on_its_way = self._sequence

    def _stream(self, stream_id):
        stream = self._streams.get(stream_id)
        if stream is None:
            if len(self._streams) >= BUFFERS:
                raise ValueError("at most %d streams can be shown" % BUFFERS)
            stream = self._streams[stream_id] = _Stream(len(self._streams))
        return stream

    def _new_buffer(self, stream, size):
        size = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        descriptor = _sealed_memory(size)
        try:
            memory = mmap.mmap(descriptor, size)
            self._send({"kind": "buffer", "buffer": stream.number, "bytes": size}, descriptor)
        finally:
            os.close(descriptor)
        if stream.memory is not None:
            stream.memory.close()
        stream.memory, stream.size = memory, size

    def _send_picture(self, stream_id, stream, width, height, rectangles, labels):
        message = {
            "kind": "show",
            "stream_id": stream_id,
            "sequence": self._sequence,
            "buffer": stream.number,
            "offset": 0,
            "width": width,
            "height": height,
            "stride": width * 3,
            "format": "bgr24",
            "rectangles": [edges for edges in map(_numbers, rectangles[:MAXIMUM_MARKS]) if edges is not None],
            "labels": [],
        }
        for text, x, y in labels[:MAXIMUM_MARKS]:
            place = _numbers((x, y))
            if place is not None:
                text = str(text).encode("utf-8", "replace")[:MAXIMUM_LABEL].decode("utf-8", "ignore")
                message["labels"].append([text] + place)
        # Few long labels fit; more are cut off rather than the picture lost.
        while len(json.dumps(message)) > MAXIMUM_PACKET and message["labels"]:
            del message["labels"][len(message["labels"]) * 3 // 4 :]
        self._send(message)

    def _send(self, message, descriptor=None):
        data = json.dumps(message).encode("ascii")
        beside = []
        if descriptor is not None:
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())]
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self._socket.sendmsg([data], beside)
                return
            except BlockingIOError:
                left = end - time.monotonic()
                if left <= 0:
                    raise ConnectionError("the display does not read what it is sent")
                poll = select.poll()
                poll.register(self._socket, select.POLLOUT)
                poll.poll(left * 1000)

    def _wait_taken(self, stream, end):
        """Reads answers until the stream's buffer is free; False when it is not at the time `end`."""
        while stream.sequence_on_its_way is not None:
            left = end - time.monotonic()
            if left <= 0:
                return False
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            poll.poll(left * 1000)
            self._read_answers()
        return True

    def _read_answers(self):
        while True:
            try:
                data = self._socket.recv(MAXIMUM_PACKET)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It closed without having read everything. That is told once, before what it had sent.
                continue
            if not data:
                raise ConnectionError("the display closed the connection")
            answer = json.loads(data.decode("utf-8"))
            if answer.get("kind") == "refused":
                raise NotAdmitted(str(answer.get("message", "")))
            if answer.get("kind") == "owner":
                self._mine = bool(answer.get("mine"))
            if answer.get("kind") == "shown":
                self._late = False
                for stream in self._streams.values():
                    if stream.sequence_on_its_way == answer.get("sequence"):
                        stream.sequence_on_its_way = None


def _numbers(values):
    """A mark's numbers as floats in 0...1, or None when one is no number."""
    result = []
    for value in values:
        value = float(value)
        if not math.isfinite(value):
            return None
        result.append(round(min(1.0, max(0.0, value)), 5))
    return result
