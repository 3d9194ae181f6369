"""The connection to the appliance: `node.sock`. It tells what the node is, hands over channels, and hears that the
application lives."""

import array
import json
import os
import socket
import sys
import threading
import time
import weakref

from ._errors import TimeoutException

SOCKET = os.environ.get("BELVEDERE_NODE_SOCKET", "/run/belvedere/node.sock")
SDK_VERSION = "1.2.0"
# The appliance wants to hear something every 10 seconds.
HEARTBEAT = 4.0
# How long the appliance may take to open a channel.
PATIENCE = 20.0
_MAXIMUM_PACKET = 65536


class Refused(Exception):
    """The appliance does not open that channel (now); the text says why."""


class _Words(object):
    """Lines for the application's author, on standard error (the log stream console_output): the first of a kind at once,
    then one a minute, so that what goes on for hours is neither silent nor a flood."""

    EVERY = 60.0

    def __init__(self):
        self._said = {}

    def say(self, kind, text):
        now = time.monotonic()
        if now - self._said.get(kind, -self.EVERY) >= self.EVERY:
            self._said[kind] = now
            print("panoramasdk: " + text, file=sys.stderr)
            sys.stderr.flush()

    def over(self, kind):
        """It works (again)."""
        self._said.pop(kind, None)


WORDS = _Words()


def send(sock, message, descriptors=()):
    """Sends one packet."""
    data = json.dumps(message).encode("ascii")
    beside = []
    if descriptors:
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
    sock.sendmsg([data], beside, socket.MSG_NOSIGNAL)


def receive(sock):
    """Receives one packet: the message and its descriptors. Raises ConnectionError at the end."""
    space = socket.CMSG_SPACE(4 * array.array("i").itemsize)
    try:
        data, ancillary, flags, _ = sock.recvmsg(_MAXIMUM_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # It closed without having read everything. That is told once, before what it had sent.
        data, ancillary, flags, _ = sock.recvmsg(_MAXIMUM_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    try:
        if not data:
            raise ConnectionError("the appliance closed the connection")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ConnectionError("a packet is too large")
        try:
            return json.loads(data.decode("utf-8")), list(descriptors)
        except ValueError:
            raise ConnectionError("a packet is not JSON")
    except ConnectionError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


class Link(object):
    """Safe to use from several threads. Connects again whenever the connection breaks."""

    def __init__(self):
        self._lock = threading.RLock()
        self._locked_by = os.getpid()
        self._socket = None
        self._process = None
        self.configuration = None
        with self._lock:
            self._connect_for_ever()
        thread = threading.Thread(target=_beat, args=(weakref.ref(self),), name="panoramasdk-heartbeat")
        thread.daemon = True
        thread.start()

    def _connect(self):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.settimeout(PATIENCE)
            sock.connect(SOCKET)
            send(sock, {"kind": "announce", "sdk_version": SDK_VERSION, "process_id": os.getpid()})
            event, descriptors = receive(sock)
            for descriptor in descriptors:
                os.close(descriptor)
            if event.get("kind") != "configuration":
                raise ConnectionError("the appliance sent no configuration")
        except Exception:
            sock.close()
            raise
        self._socket, self._process, self.configuration = sock, os.getpid(), event

    def _connect_for_ever(self):
        begin = time.monotonic()
        while True:
            try:
                return self._connect()
            except OSError as error:
                if time.monotonic() - begin > 10:
                    WORDS.say("appliance", "waiting for the appliance at %s: %s" % (SOCKET, error))
                time.sleep(0.5)

    def _mine(self):
        """The lock of this process: after a fork the parent's may be held for ever, by a thread that is not here."""
        if self._locked_by != os.getpid():
            self._locked_by, self._lock = os.getpid(), threading.RLock()
        return self._lock

    def _drop(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ensure(self):
        # After a fork the connection is the parent's.
        if self._process != os.getpid():
            self._drop()
        if self._socket is None:
            self._connect()

    def beat(self):
        """Says that the application lives, over a new connection if need be."""
        with self._mine():
            try:
                self._ensure()
                send(self._socket, {"kind": "heartbeat"})
            except OSError:
                self._drop()

    def channel(self, **target):
        """Asks for a channel: the connected socket. Raises Refused, also when the appliance is away just now."""
        with self._mine():
            try:
                self._ensure()
                send(self._socket, dict(target, kind="connect"))
                while True:
                    event, descriptors = receive(self._socket)
                    mine = all(event.get(key) == value for key, value in target.items())
                    if mine and event.get("kind") == "connected" and len(descriptors) == 1:
                        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=descriptors[0])
                    for descriptor in descriptors:
                        os.close(descriptor)
                    if mine and event.get("kind") == "refused":
                        raise Refused(str(event.get("message", "")))
            except OSError as error:
                self._drop()
                raise Refused("the appliance is away: %s" % error)


def _beat(reference):
    """Until nobody uses the link any more: its connection closes with it."""
    while True:
        time.sleep(HEARTBEAT)
        link = reference()
        if link is None:
            return
        link.beat()
        del link


class Deadline(object):
    """A time that an application gives; None is for ever."""

    def __init__(self, timeout):
        self.end = None if timeout is None else time.monotonic() + max(0.0, float(timeout))

    def left(self, most=None):
        """Seconds that are left, at most `most`; None when there is no end at all."""
        left = None if self.end is None else max(0.0, self.end - time.monotonic())
        if most is not None:
            left = most if left is None else min(left, most)
        return left

    def check(self, what):
        """Raises TimeoutException when the time is over."""
        if self.end is not None and time.monotonic() >= self.end:
            raise TimeoutException(what)
