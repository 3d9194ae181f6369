"""One picture of one camera, with the marks that the application makes on it."""

import math


class media(object):
    """What `inputs.<port>.get()` gives, one for each camera."""

    def __init__(self, image, stream_id="", time_stamp=(0, 0), is_cached=False):
        self._image = image
        self._stream_id = stream_id
        self._time_stamp = time_stamp
        self._is_cached = is_cached
        self._rectangles = []
        self._labels = []

    @property
    def image(self):
        """numpy.uint8, height x width x 3, blue green red: the same array at every read; may be drawn on."""
        return self._image

    @image.setter
    def image(self, image):
        self._image = image

    @property
    def is_cached(self):
        """True when this camera brought no new picture since the last get()."""
        return self._is_cached

    @property
    def stream_id(self):
        """The camera node's name."""
        return self._stream_id

    @property
    def stream_uri(self):
        """Names the stream; the camera's address stays with the appliance, since it may hold a password."""
        return self._stream_id

    @property
    def time_stamp(self):
        """Seconds and microseconds since 1970 at which the picture arrived."""
        return self._time_stamp

    def add_rect(self, left, top, right, bottom):
        """Marks a rectangle; coordinates from 0 to 1, what is beyond is moved to the border."""
        self._rectangles.append((_fraction(left), _fraction(top), _fraction(right), _fraction(bottom)))

    def add_label(self, text, x, y):
        """Marks a text at a place; coordinates as in add_rect."""
        self._labels.append((str(text), _fraction(x), _fraction(y)))

    def __repr__(self):
        return "<media of %s at %d.%06d>" % ((self._stream_id,) + tuple(self._time_stamp))


def _fraction(value):
    value = float(value)
    if math.isnan(value):
        raise ValueError("a coordinate is not a number")
    return min(1.0, max(0.0, value))
