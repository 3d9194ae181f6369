#!/usr/bin/python3
"""A client in Python, as an application has it: panoramasdk's FrameStream on the decoder's socket.

    tests/camera/consumer.py SOCKET STREAM COUNT

Checks what must hold for every picture, and prints the numbers that the pictures carry, one a line.
"""

import gc
import importlib.util
import pathlib
import socket
import sys

import numpy

path = pathlib.Path(__file__).resolve().parents[2] / "runtime/panoramasdk/panoramasdk/_frames.py"
specification = importlib.util.spec_from_file_location("_frames", str(path))
frames = importlib.util.module_from_spec(specification)
specification.loader.exec_module(frames)


def number(image):
    """What the eight squares at the top say (see server.py)."""
    squares = image[20, 20:320:40, 1] > 128
    return int("".join("1" if square else "0" for square in squares), 2)


def subscribe(path, stream_id):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    connection.send('{{"kind":"subscribe","stream_id":"{}"}}'.format(stream_id).encode())
    return frames.FrameStream(connection)


def main():
    stream = subscribe(sys.argv[1], sys.argv[2])
    watcher = subscribe(sys.argv[1], sys.argv[2])
    last = 0
    for index in range(int(sys.argv[3])):
        frame = stream.get(timeout=60)
        if frame is None:
            sys.exit("no picture within 60 s: {}".format(stream.detail))
        assert frame.image.shape == (240, 320, 3) and frame.image.dtype == numpy.uint8
        assert (frame.width, frame.height) == (320, 240)
        assert frame.sequence > last, "a picture that was given before"
        last = frame.sequence
        # Nothing of what an earlier turn drew shows through.
        assert abs(int(frame.image[200, 80, 2]) - 252) < 12, frame.image[200, 80]
        assert abs(int(frame.image[200, 240, 0]) - 252) < 12, frame.image[200, 240]
        print(number(frame.image), flush=True)
        part = frame.image[100:200, 10:20]
        if index % 3 == 0:
            # Drawing is allowed, is seen here, and by nobody else, neither now nor in the next picture there.
            other = watcher.get(timeout=60)
            frame.image[60:, :] = (1, 2, 3)
            assert (frame.image[150, 5] == (1, 2, 3)).all() and (part == (1, 2, 3)).all()
            assert (other.image[150, 5] != (1, 2, 3)).any()
            del other
        if index % 5 == 0:
            frame.release()
            frame.release()
            part = None
        # The lease lives as long as the last array that looks at the picture.
        del frame
        gc.collect()
        assert part is None or part.shape == (100, 10, 3)
    part = None
    # Both leases taken: there is no third picture before one comes back.
    kept = [stream.get(timeout=60), stream.get(timeout=60)]
    assert stream.get(timeout=0.5) is None
    assert kept[0].sequence < kept[1].sequence
    del kept[0]
    assert stream.get(timeout=60) is not None


main()
