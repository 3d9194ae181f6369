"""The ports of a node: `node.inputs.<name>` and `node.outputs.<name>`."""

import select
import threading
import time

from ._frames import Disconnected, FrameStream
from ._link import Deadline, Refused
from ._media import media

# Leases that the appliance gives a connection at a time.
_LEASES = 2
# Between two attempts to reach a service that restarts, in seconds.
_AGAIN = 0.5


class Ports(object):
    """Ports by name, as attributes."""

    def __init__(self, direction, ports):
        self.__dict__.update(ports)
        self.__dict__["_direction"] = direction
        self.__dict__["_ports"] = ports

    def __getattr__(self, name):
        known = ", ".join(sorted(self.__dict__.get("_ports", {}))) or "none"
        raise AttributeError("the node has no %s port %s (it has: %s)" % (self.__dict__.get("_direction", ""), name, known))

    def __iter__(self):
        return iter(self._ports.values())


class ParameterInput(object):
    """A value."""

    def __init__(self, name, value):
        self.name = name
        self._value = value

    def get(self, timeout=None):
        """The value: str, int, float or bool. Any number of times."""
        return self._value


class _Camera(object):
    """One bound camera: its stream, and the last picture."""

    def __init__(self, link, port, index, name):
        self._link = link
        self._target = {"what": "frames", "port": port, "index": index}
        self.name = name
        self.stream = None
        self.spare = None
        self.last = None
        self._leases = []
        self._next_attempt = 0.0

    def connect(self):
        """Makes sure that there is a stream, if that is possible now."""
        if self.stream is None and time.monotonic() >= self._next_attempt:
            try:
                self.stream = FrameStream(self._link.channel(**self._target))
            except Refused:
                self._next_attempt = time.monotonic() + _AGAIN
        return self.stream is not None

    def drop(self):
        for stream in (self.stream, self.spare):
            if stream is not None:
                stream.close()
        self.stream = self.spare = None
        self._leases = []
        self._next_attempt = time.monotonic() + _AGAIN

    def _full(self):
        # Of the pictures given so far, those that somebody still holds.
        self._leases = [lease for lease in self._leases if lease._mapping is not None]
        return len(self._leases) >= _LEASES

    def question(self):
        """The stream to ask now. An application that keeps more pictures than the appliance lends gets copies, by a
        connection of their own; it must not wait for itself."""
        if not self._full():
            return self.stream
        if self.spare is None:
            self.spare = FrameStream(self._link.channel(**self._target))
        return self.spare

    def take(self, frame, stream):
        """The picture as media."""
        image = frame.image
        if stream is self.spare:
            image = image.copy()
            frame.release()
        else:
            self._leases.append(frame._lease)
        stamp = (frame.timestamp_us // 1000000, frame.timestamp_us % 1000000)
        self.last = media(image, self.name, stamp)
        return self.last


class MediaInput(object):
    """Pictures of the bound cameras."""

    def __init__(self, link, name, bound):
        self.name = name
        self._cameras = [_Camera(link, name, index, camera) for index, camera in enumerate(bound)]
        self._lock = threading.Lock()

    def get(self, timeout=None):
        """A list with the newest picture of each camera. Waits until at least one camera has a new one; the others'
        are their last (`is_cached`), and a camera that never brought one is left out.

        Raises TimeoutException after `timeout` seconds; without one it waits as long as it takes.
        """
        deadline = Deadline(timeout)
        with self._lock:
            while True:
                new = self._poll(deadline.left(_AGAIN))
                if new:
                    return self._list(new)
                deadline.check("no new picture on port %s within %s seconds" % (self.name, timeout))

    def _poll(self, wait):
        poll = select.poll()
        asked = {}
        for camera in self._cameras:
            try:
                if camera.connect():
                    stream = camera.question()
                    stream.ask()
                    poll.register(stream.fileno(), select.POLLIN)
                    asked[stream.fileno()] = (camera, stream)
            except (Disconnected, Refused, OSError, ValueError):
                camera.drop()
        ready = poll.poll(int(wait * 1000 + 0.999))
        new = {}
        for descriptor, _ in ready:
            camera, stream = asked[descriptor]
            try:
                frame = stream.get(0)
            except (Disconnected, OSError, ValueError):
                camera.drop()
                continue
            if frame is not None:
                new[camera] = camera.take(frame, stream)
        return new

    def _list(self, new):
        result = []
        for camera in self._cameras:
            if camera in new:
                result.append(new[camera])
            elif camera.last is not None:
                last = camera.last
                result.append(media(last._image, camera.name, last._time_stamp, True))
        return result


class NullOutput(object):
    """An output that leads nowhere."""

    def __init__(self, name):
        self.name = name

    def put(self, value):
        """Does nothing."""


class MediaOutput(object):
    """Pictures to the monitor."""

    def __init__(self, link, name, bound):
        self.name = name
        self._link = link
        self._bound = bound
        self._lock = threading.Lock()
        self._output = None
        self._next_attempt = 0.0

    def put(self, value):
        """Shows media: one, or a list or tuple of them. Never waits for the monitor for long; a picture that cannot be
        shown is dropped."""
        pictures = [value] if isinstance(value, media) else list(value)
        if not pictures:
            raise ValueError("there is nothing to put: the list of media is empty")
        for picture in pictures:
            if not isinstance(picture, media):
                raise TypeError("port %s takes media, not %s" % (self.name, type(picture).__name__))
        # What is on the monitor already stays there.
        fresh = [p for p in pictures if not p.is_cached or p._rectangles or p._labels]
        if not self._bound or not fresh:
            return
        with self._lock:
            self._put([(p.stream_id, p.image, p._rectangles, p._labels) for p in fresh])

    def _put(self, pictures):
        if self._output is None:
            if time.monotonic() < self._next_attempt:
                return
            from ._display import DisplayOutput

            try:
                self._output = DisplayOutput(self._link.channel(what="display", port=self.name))
            except Refused:
                self._next_attempt = time.monotonic() + _AGAIN
                return
        try:
            self._output.put(pictures)
        except OSError:
            # The display restarts.
            output, self._output = self._output, None
            self._next_attempt = time.monotonic() + _AGAIN
            output.close()


def make_inputs(link):
    """Input ports as the appliance states them."""
    ports = {}
    for port in link.configuration["inputs"]:
        name = port["name"]
        if port["type"] == "media":
            ports[name] = MediaInput(link, name, port["bound"])
        else:
            ports[name] = ParameterInput(name, _native(port["type"], port["value"]))
    return Ports("input", ports)


def make_outputs(link):
    """Output ports as the appliance states them."""
    ports = {}
    for port in link.configuration["outputs"]:
        name = port["name"]
        ports[name] = MediaOutput(link, name, port["bound"]) if port["type"] == "media" else NullOutput(name)
    return Ports("output", ports)


def _native(kind, value):
    # JSON does not tell 20 from 20.0.
    convert = {"float32": float, "int32": int, "boolean": bool, "string": str}.get(kind)
    return convert(value) if convert is not None and value is not None else value
