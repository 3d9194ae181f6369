"""The ports of a node: `node.inputs.<name>` and `node.outputs.<name>`."""

import os
import select
import threading
import time

from ._frames import Disconnected, FrameStream, NotAdmitted
from ._link import WORDS, Deadline, Refused
from ._media import media

# Leases that the appliance gives a connection at a time.
_LEASES = 2
# Between two attempts to reach a service that restarts, in seconds.
_AGAIN = 0.5
# And to one that said that there are too many connections.
_AGAIN_REFUSED = 5.0
# Seconds between pictures of a camera as long as that is not known.
_INTERVAL = 0.1
# The longest that get() waits for the other cameras when one has brought a picture.
_LONGEST_WAIT = 0.25
# How old a picture that was kept for the application may be, in intervals of its camera.
_TOO_OLD = 2.0
# How long a camera's last picture is given again, in seconds.
_CACHED = 10.0


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
        self.forget()
        self.last = None

    def forget(self):
        """After a fork: the streams are the parent's."""
        self.stream = None
        self.spare = None
        self.last = None
        # Whether the open question was asked before get() was called, and since when it is open.
        self.ahead = False
        self._asked_at = None
        self._taken_at = None
        self._leases = []
        self._next_attempt = 0.0
        self._next_spare = 0.0
        self._next_ahead = 0.0
        self._lost_at = None

    def connect(self):
        """Makes sure that there is a stream, if that is possible now."""
        if self.stream is None and time.monotonic() >= self._next_attempt:
            try:
                self.stream = FrameStream(self._link.channel(**self._target))
            except Refused as error:
                self._wait(error)
        return self.stream is not None

    def _wait(self, error):
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        self._next_attempt = now + (_AGAIN_REFUSED if isinstance(error, NotAdmitted) else _AGAIN)
        # A decoder that restarts is back within seconds.
        if isinstance(error, NotAdmitted) or now - self._lost_at > 10:
            WORDS.say(("camera", self.name), "no pictures of camera %s: %s; trying again" % (self.name, error))

    def lost(self, stream, error):
        """A stream broke; the other one goes on."""
        stream.close()
        if stream is self.spare:
            self.spare = None
            self._next_spare = time.monotonic() + _AGAIN_REFUSED
            if isinstance(error, NotAdmitted):
                WORDS.say(
                    ("spare", self.name),
                    "the application keeps more than %d pictures of camera %s, and is given no connection for more; "
                    "get() waits until it keeps fewer: %s" % (_LEASES, self.name, error),
                )
            return
        if self.spare is not None:
            self.spare.close()
        self.stream = self.spare = None
        self.ahead, self._asked_at, self._leases = False, None, []
        self._wait(error)

    def _full(self):
        # Of the pictures given so far, those that somebody still holds.
        self._leases = [lease for lease in self._leases if lease._mapping is not None]
        return len(self._leases) >= _LEASES

    def question(self):
        """The stream to ask now, if there is one. An application that keeps more pictures than the appliance lends gets
        copies, by a connection of their own; it must not wait for itself."""
        if not self._full():
            return self.stream
        if self.spare is None and time.monotonic() >= self._next_spare:
            try:
                self.spare = FrameStream(self._link.channel(**self._target))
            except Refused as error:
                self._next_spare = time.monotonic() + _AGAIN
                WORDS.say(("spare", self.name), "no second connection to camera %s: %s" % (self.name, error))
        return self.spare

    def ask(self, stream):
        stream.ask()
        if self._asked_at is None:
            self._asked_at = time.monotonic()

    def ask_ahead(self, worked):
        """Asks before the application does: the next picture is then kept for it while it works. Not if it works so long
        that the picture would be too old (it would have been converted in vain)."""
        interval = self.stream.interval if self.stream is not None else None
        if interval is not None and time.monotonic() >= self._next_ahead and worked < _TOO_OLD * interval and self.stream.playing:
            self.ask(self.stream)
            self.ahead = True

    def too_old(self, frame):
        """Whether a picture that was kept for the application is one that it should no longer be given."""
        ahead, self.ahead = self.ahead, False
        if not ahead or 0 <= time.time() - frame.timestamp_us / 1e6 <= _TOO_OLD * (self.stream.interval or 0):
            return False
        # Pictures take long to come here, or the clock was set: not the way to save time for a while.
        self._next_ahead = time.monotonic() + 1.0
        return True

    def due(self, within):
        """Whether the camera, which is asked, will bring a picture within so many seconds, as far as one can tell."""
        stream = self.stream
        if stream is None or not stream.playing or self._asked_at is None:
            return False
        interval = stream.interval or _INTERVAL
        if time.monotonic() - self._asked_at > max(3 * interval, 0.3):
            return False  # It stalls.
        if stream.interval is None or self._taken_at is None or interval <= within:
            return True
        return (time.monotonic() - self._taken_at) % interval + within >= interval

    def take(self, frame, stream):
        """The picture as media."""
        image = frame.image
        if stream is self.spare:
            image = image.copy()
            frame.release()
        else:
            self._leases.append(frame._lease)
        self._asked_at = None
        self._taken_at = time.monotonic()
        if self._lost_at is not None:
            self._lost_at = None
            WORDS.over(("camera", self.name))
        stamp = (frame.timestamp_us // 1000000, frame.timestamp_us % 1000000)
        self.last = media(image, self.name, stamp)
        return self.last

    def cached(self):
        """The last picture once more; None if the camera delivers nothing (it is paused or offline, or stalls)."""
        if self.last is None or self.stream is None or not self.stream.playing:
            return None
        if time.monotonic() - self._taken_at > _CACHED:
            return None
        return media(self.last._image, self.name, self.last._time_stamp, True)


class MediaInput(object):
    """Pictures of the bound cameras."""

    def __init__(self, link, name, bound):
        self.name = name
        self._cameras = [_Camera(link, name, index, camera) for index, camera in enumerate(bound)]
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._left_at = None

    def get(self, timeout=None):
        """A list with the newest picture of each camera. Waits until at least one camera has a new one, and then for those
        of the others that are about to have one. A camera that has none brings its last one again (`is_cached`); one that
        delivers nothing (never did, is paused, offline) is left out.

        Raises TimeoutException after `timeout` seconds; without one it waits as long as it takes.
        """
        deadline = Deadline(timeout)
        with self._mine():
            worked = None if self._left_at is None else time.monotonic() - self._left_at
            new = {}
            while True:
                self._gather(new, deadline.left(_AGAIN))
                if new:
                    break
                deadline.check("no new picture on port %s within %s seconds" % (self.name, timeout))
            if len(new) < len(self._cameras):
                self._complete(new, deadline)
            result = []
            for camera in self._cameras:
                picture = new.get(camera) or camera.cached()
                if picture is not None:
                    result.append(picture)
            if worked is not None:
                self._ask_ahead(new, worked)
            self._left_at = time.monotonic()
            return result

    def _mine(self):
        if self._process != os.getpid():
            # After a fork: the parent's lock may be held by a thread that is not here.
            self._process, self._lock, self._left_at = os.getpid(), threading.Lock(), None
            for camera in self._cameras:
                camera.forget()
        return self._lock

    def _complete(self, new, deadline):
        """Waits for the other cameras that play, for about one picture's time: an application that looks at all of its
        cameras together would otherwise never see all of them new."""
        intervals = [camera.stream.interval for camera in new if camera.stream is not None and camera.stream.interval]
        window = min(_LONGEST_WAIT, 1.25 * min(intervals or [_INTERVAL]))
        end = time.monotonic() + window
        while True:
            left = end - time.monotonic()
            if left <= 0 or not any(camera not in new and camera.due(left) for camera in self._cameras):
                return
            self._gather(new, deadline.left(left))
            if deadline.left(1.0) == 0.0:
                return

    def _gather(self, new, wait):
        """Asks all cameras that brought nothing yet, and takes what comes; waits for the first for up to `wait` seconds."""
        asked = {}
        poll = select.poll()
        for camera in self._cameras:
            if camera in new or not camera.connect():
                continue
            stream = camera.question()
            if stream is None:
                continue
            try:
                camera.ask(stream)
            except (Disconnected, OSError, ValueError) as error:
                camera.lost(stream, error)
                continue
            descriptor = stream.fileno()
            asked[descriptor] = (camera, stream)
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(int(wait * 1000 + 0.999)):
            camera, stream = asked[descriptor]
            self._read(camera, stream, new)

    def _read(self, camera, stream, new):
        """Takes what has come on a stream; whether there was a picture."""
        try:
            frame = stream.get(0)
            if frame is not None and stream is camera.stream and camera.too_old(frame):
                frame.release()
                frame = stream.get(0)
        except (Disconnected, OSError, ValueError) as error:
            camera.lost(stream, error)
            return False
        if frame is None:
            return False
        new[camera] = camera.take(frame, stream)
        return True

    def _ask_ahead(self, new, worked):
        for camera in new:
            if camera.stream is not None:
                try:
                    camera.ask_ahead(worked)
                except (Disconnected, OSError, ValueError) as error:
                    camera.lost(camera.stream, error)


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
        self._process = os.getpid()
        self._next_attempt = 0.0
        self._lost_at = None

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
        if self._process != os.getpid():
            # After a fork: the connection is the parent's, and its lock may be held by a thread that is not here.
            self._process, self._lock, self._output = os.getpid(), threading.Lock(), None
        with self._lock:
            self._put([(p.stream_id, p.image, p._rectangles, p._labels) for p in fresh])

    def _put(self, pictures):
        if self._output is None:
            if time.monotonic() < self._next_attempt:
                return
            from ._display import DisplayOutput

            try:
                self._output = DisplayOutput(self._link.channel(what="display", port=self.name), WORDS.say)
                self._lost_at = None
            except Refused as error:
                self._lost(error)
                return
        try:
            self._output.put(pictures)
        except OSError as error:
            # The display restarts.
            output, self._output = self._output, None
            output.close()
            self._lost(error)

    def _lost(self, error):
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        refused = getattr(error, "refused", False)
        self._next_attempt = now + (_AGAIN_REFUSED if refused else _AGAIN)
        if refused or now - self._lost_at > 10:
            WORDS.say(("display", self.name), "pictures on port %s are not shown: %s; trying again" % (self.name, error))


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
