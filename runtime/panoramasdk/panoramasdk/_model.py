"""Calls of model nodes: the client of formats/interfaces/src/channel.rs, module `inference`."""

import mmap
import os
import select
import socket
import threading
import time

import numpy

from ._errors import ModelError, TimeoutException
from ._link import WORDS, Refused, receive, send
from ._media import media
from ._memory import sealed_memory

_ALIGN = 64
# Connections to one model, so that several threads can prepare calls while one is made.
_MOST = 4
# So often a call is made again when its connection breaks.
_REPEATED = 1
# The same fact as in channel.rs.
_MAXIMUM_RESULTS = 256 << 20
# Between two attempts to reach a model process that restarts, in seconds.
_AGAIN = 0.5


class _Connection(object):
    """One connection to one model; one call at a time."""

    def __init__(self, sock, deadline):
        self._socket = sock
        self._descriptor = None
        self._memory = None
        self._size = 0
        self._id = 0
        self.called = False
        event = self._receive(deadline)[0]
        if event.get("kind") == "failed":
            self.close()
            raise ModelError(str(event.get("message", "the model cannot be loaded")))
        if event.get("kind") != "ready":
            self.close()
            raise ConnectionError("the model process sent something unexpected")
        self.inputs = event["inputs"]

    def close(self):
        self._socket.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _wait(self, deadline):
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        left = deadline.left()
        if not poll.poll(None if left is None else int(left * 1000 + 0.999)):
            raise TimeoutException("the model did not answer in time")

    def _receive(self, deadline):
        if deadline.end is not None:
            self._wait(deadline)
        return receive(self._socket)

    def _room(self, size):
        if size > self._size:
            size = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
            descriptor = sealed_memory(size)
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor, self._size = descriptor, size
            self._memory = mmap.mmap(descriptor, size)

    def call(self, tensors, deadline):
        """Runs the model on a list of (name or "", array); a tuple of arrays."""
        arrays = []
        for position, (name, value) in enumerate(tensors):
            arrays.append((name, _converted(value, self._input(name, position))))
        views, offset = [], 0
        for name, value in arrays:
            views.append({"name": name, "dtype": value.dtype.name, "shape": list(value.shape), "offset": offset})
            offset += (value.nbytes + _ALIGN - 1) // _ALIGN * _ALIGN
        try:
            self._room(max(offset, 1))
        except OSError as error:
            # Not the connection's fault: to try again would be in vain.
            raise ModelError("no memory for the call's tensors (%d bytes): %s" % (offset, error))
        for view, (_, value) in zip(views, arrays):
            if value.size:
                # Copied once, straight from wherever the application has it, whatever its strides.
                target = numpy.frombuffer(self._memory, value.dtype, value.size, view["offset"]).reshape(value.shape)
                target[...] = value
                del target
        self._id += 1
        send(self._socket, {"kind": "call", "id": self._id, "inputs": views}, [self._descriptor])
        # From here on the end of the connection may be what the call did to the model process.
        self.called = True
        while True:
            event, descriptors = self._receive(deadline)
            for descriptor in descriptors:
                os.close(descriptor)
            if event.get("id") != self._id:
                continue
            if event.get("kind") == "error":
                raise ModelError(str(event.get("message", "the model refused the call")))
            if event.get("kind") == "result":
                return _arrays(event["outputs"], self._bytes(event["bytes"], deadline))

    def _bytes(self, size, deadline):
        """The results that follow their description, into memory of ours."""
        if not 0 <= size <= _MAXIMUM_RESULTS:
            raise ConnectionError("the model process sent something unexpected")
        memory = numpy.empty(size, numpy.uint8)
        view, position = memoryview(memory), 0
        while position < size:
            try:
                count = self._socket.recv_into(view[position:], 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(deadline)
                continue
            if not count:
                raise ConnectionError("the model process closed the connection")
            position += count
        return memory

    def _input(self, name, position):
        for tensor in self.inputs:
            if tensor["name"] == name:
                return tensor
        return self.inputs[position] if not name and position < len(self.inputs) else None


def _converted(value, tensor):
    """The array as the model wants it; a model that takes float32 gets it, whatever the application computed with."""
    value = numpy.asarray(value)
    if tensor is not None and value.dtype.name != tensor["dtype"]:
        value = value.astype(tensor["dtype"])
    return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))


def _arrays(views, memory):
    """The results, as arrays over the memory that they came into; they may be written to."""
    result = []
    for view in views:
        count = 1
        for dimension in view["shape"]:
            count *= dimension
        if count:
            value = numpy.frombuffer(memory, numpy.dtype(view["dtype"]), count, view["offset"])
        else:
            value = numpy.empty(0, numpy.dtype(view["dtype"]))
        result.append(value.reshape(view["shape"]))
    return tuple(result)


class Model(object):
    """One model node. Safe to use from several threads, and after a fork."""

    def __init__(self, link, name):
        self._link = link
        self._name = name
        self._forget()

    def _forget(self):
        # Also after a fork: connections are the parent's, and its lock may be held by a thread that is not here.
        self._process = os.getpid()
        self._idle = []
        self._count = 0
        self._most = _MOST
        self._changed = threading.Condition()

    def call(self, value, deadline):
        """Calls, waiting for a model process that restarts. A call whose connection breaks is made once more: models have
        no memory, so that does no harm, and it may have been another's call that ended the process. A second time it was
        probably this one, and ModelError says so."""
        broken = 0
        while True:
            connection = self._take(deadline)
            try:
                result = connection.call(self._tensors(connection, value), deadline)
            except TimeoutException:
                self._drop(connection)
                raise
            except OSError as error:
                broken += connection.called
                self._drop(connection)
                if broken > _REPEATED:
                    raise ModelError(
                        "the model process ended %d times during this call of model %s: the call, or the model, makes it "
                        "crash (%s)" % (broken, self._name, error)
                    )
                deadline.check("model %s is not there: %s" % (self._name, error))
            except ModelError:
                # The connection is in order; the call, or the model, is not.
                self._give(connection)
                raise
            except BaseException:
                self._drop(connection)
                raise
            else:
                self._give(connection)
                return result

    def _take(self, deadline):
        """A connection, when there is one to be had: no more than a few at a time, since a model runs one call at a time."""
        begin = time.monotonic()
        while True:
            if self._process != os.getpid():
                self._forget()
            with self._changed:
                if self._idle:
                    connection = self._idle.pop()
                    connection.called = False
                    return connection
                if self._count >= self._most:
                    if not self._changed.wait(deadline.left(_AGAIN)):
                        deadline.check("all connections to model %s are busy" % self._name)
                    continue
                self._count += 1
            try:
                connection = _Connection(self._link.channel(what="model", name=self._name), deadline)
                WORDS.over(("model", self._name))
                return connection
            except BaseException as error:
                with self._changed:
                    self._count -= 1
                    others = self._count
                    if isinstance(error, ModelError) and others:
                        # There are connections that work: so this is one too many, and one of those will be free.
                        self._most = others
                        continue
                # TimeoutException is an OSError too, and not a reason to try again.
                if isinstance(error, TimeoutException) or not isinstance(error, (OSError, Refused)):
                    raise
                deadline.check("model %s is not there: %s" % (self._name, error))
                if time.monotonic() - begin > 10:
                    WORDS.say(("model", self._name), "waiting for model %s: %s" % (self._name, error))
                time.sleep(deadline.left(_AGAIN))

    def _give(self, connection):
        with self._changed:
            if self._process == os.getpid():
                self._idle.append(connection)
                self._changed.notify()

    def _drop(self, connection):
        connection.close()
        with self._changed:
            # What ended this connection has probably ended those that wait as well.
            stale, self._idle = self._idle, []
            self._count -= 1 + len(stale)
            self._changed.notify_all()
        for other in stale:
            other.close()

    @staticmethod
    def _tensors(connection, value):
        if isinstance(value, media):
            return [("", value.image)]
        if not isinstance(value, dict):
            return [("", value)]
        known = set(tensor["name"] for tensor in connection.inputs)
        items = [(str(name), item.image if isinstance(item, media) else item) for name, item in value.items()]
        # Applications use the names of the package's descriptor, which need not be the model's: then the order counts.
        if len(items) == len(known) and not any(name in known for name, _ in items):
            if len(known) > 1:
                WORDS.say(
                    ("names", tuple(sorted(known))),
                    "the model's inputs are %s; the call names %s, none of which is one: they are taken in this order"
                    % (", ".join(tensor["name"] for tensor in connection.inputs), ", ".join(name for name, _ in items)),
                )
            items = [("", item) for _, item in items]
        return items
