"""Calls of model nodes: the client of formats/interfaces/src/channel.rs, module `inference`."""

import mmap
import os
import select
import threading
import time

import numpy

from ._errors import ModelError, TimeoutException
from ._link import Refused, receive, send
from ._media import media
from ._memory import sealed_memory

_ALIGN = 64
# Connections kept for later calls, so that several threads can call one model.
_KEPT = 4
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

    def _receive(self, deadline):
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        left = deadline.left()
        if not poll.poll(None if left is None else int(left * 1000 + 0.999)):
            raise TimeoutException("the model did not answer in time")
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
        self._room(max(offset, 1))
        for view, (_, value) in zip(views, arrays):
            if value.size:
                # Copied once, straight from wherever the application has it, whatever its strides.
                target = numpy.frombuffer(self._memory, value.dtype, value.size, view["offset"]).reshape(value.shape)
                target[...] = value
                del target
        self._id += 1
        send(self._socket, {"kind": "call", "id": self._id, "inputs": views}, [self._descriptor])
        while True:
            event, descriptors = self._receive(deadline)
            try:
                if event.get("id") != self._id:
                    continue
                if event.get("kind") == "error":
                    raise ModelError(str(event.get("message", "the model refused the call")))
                if event.get("kind") == "result" and descriptors:
                    return _arrays(event["outputs"], descriptors[0])
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

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


def _arrays(views, descriptor):
    """The results, as arrays over the memory that came with them; private, so that they may be written to."""
    size = os.fstat(descriptor).st_size
    memory = mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
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
    """One model node. Safe to use from several threads."""

    def __init__(self, link, name):
        self._link = link
        self._name = name
        self._idle = []
        self._lock = threading.Lock()

    def call(self, value, deadline):
        """Calls, waiting for a model process that restarts. A call is made again when its connection breaks: models
        have no memory, so that does no harm."""
        while True:
            connection = None
            try:
                connection = self._take(deadline)
                result = connection.call(self._tensors(connection, value), deadline)
            except (OSError, Refused) as error:
                # TimeoutException is an OSError too, and not a reason to try again.
                if connection is not None:
                    connection.close()
                if isinstance(error, TimeoutException):
                    raise
                deadline.check("model %s is not there: %s" % (self._name, error))
                time.sleep(deadline.left(_AGAIN))
                continue
            except ModelError:
                # The connection is in order; the call, or the model, is not.
                if connection is not None:
                    self._give(connection)
                raise
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            self._give(connection)
            return result

    def _take(self, deadline):
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Connection(self._link.channel(what="model", name=self._name), deadline)

    def _give(self, connection):
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()

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
            items = [("", item) for _, item in items]
        return items
