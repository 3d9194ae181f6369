#!/usr/bin/python3
"""panoramasdk's FrameStream against a server that the test plays: what a real one never does, and what it rarely does."""

import ast
import fcntl
import gc
import importlib.util
import json
import mmap
import os
import pathlib
import socket
import threading
import time
import unittest

import numpy

PATH = pathlib.Path(__file__).resolve().parents[2] / "runtime/panoramasdk/panoramasdk/_frames.py"
specification = importlib.util.spec_from_file_location("_frames", str(PATH))
frames = importlib.util.module_from_spec(specification)
specification.loader.exec_module(frames)

F_ADD_SEALS, SHRINK, GROW, FUTURE_WRITE = 1033, 2, 4, 16
WIDTH, HEIGHT, SLOTS = 64, 48, 4
STRIDE = WIDTH * 3
SLOT_BYTES = 12288


class Server(object):
    """The producer's side."""

    def __init__(self):
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.stream = frames.FrameStream(far)
        self.sequence = 0

    def send(self, message, descriptor=None):
        ancillary = []
        if descriptor is not None:
            data = numpy.array([descriptor], numpy.int32).tobytes()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, data)]
        self.socket.sendmsg([json.dumps(message).encode()], ancillary)

    def receive(self):
        return json.loads(self.socket.recv(65536).decode())

    def ring(self, generation=1, seals=SHRINK | GROW | FUTURE_WRITE, size=SLOTS * SLOT_BYTES, **changes):
        descriptor = os.memfd_create("test", os.MFD_CLOEXEC | 2)
        os.ftruncate(descriptor, size)
        self.memory = mmap.mmap(descriptor, size) if size else None
        fcntl.fcntl(descriptor, F_ADD_SEALS, seals)
        message = {"kind": "ring", "generation": generation, "slots": SLOTS, "slot_bytes": SLOT_BYTES, "width": WIDTH,
                   "height": HEIGHT, "stride": STRIDE, "format": "bgr24"}
        message.update(changes)
        self.send(message, descriptor)
        os.close(descriptor)

    def frame(self, slot, value, generation=1):
        self.memory[slot * SLOT_BYTES : slot * SLOT_BYTES + STRIDE * HEIGHT] = bytes([value]) * (STRIDE * HEIGHT)
        self.sequence += 1
        self.send({"kind": "frame", "generation": generation, "slot": slot, "sequence": self.sequence, "timestamp_us": 5})


def descriptors():
    return len(os.listdir("/proc/self/fd"))


class FrameStreamTest(unittest.TestCase):
    def test_drawing_never_shows_in_the_slots_next_picture(self):
        server = Server()
        server.ring()
        for value in range(1, 41):
            server.frame(0, value)
            frame = server.stream.get(5)
            self.assertTrue((frame.image == value).all(), "what was drawn before shows through")
            if value % 2:
                frame.image[10:20, 5:50] = 255
                self.assertEqual(frame.image[15, 30, 0], 255)
            self.assertEqual(server.receive(), {"kind": "next"})
            del frame
            self.assertEqual(server.receive(), {"kind": "release", "generation": 1, "slot": 0, "sequence": value})

    def test_a_mapping_that_was_not_written_to_is_used_again_and_another_is_not(self):
        server = Server()
        server.ring()
        server.frame(2, 1)
        frame = server.stream.get(5)
        first = frame.image.ctypes.data
        self.assertEqual(frame.image.sum(), STRIDE * HEIGHT)
        del frame
        self.assertEqual(list(server.stream._ring.mappings), [2])
        server.frame(2, 2)
        frame = server.stream.get(5)
        self.assertEqual(frame.image.ctypes.data, first)
        frame.image[0, 0] = 7
        del frame
        self.assertEqual(list(server.stream._ring.mappings), [])

    def test_without_a_page_map_every_picture_gets_a_fresh_mapping(self):
        class Blind(object):
            def written(self, address, length):
                return True

        kept, frames._pagemap = frames._pagemap, Blind()
        try:
            self.test_drawing_never_shows_in_the_slots_next_picture()
        finally:
            frames._pagemap = kept

    def test_the_lease_ends_with_the_last_array_that_looks_at_the_picture(self):
        server = Server()
        server.ring()
        server.frame(1, 9)
        frame = server.stream.get(5)
        server.receive()
        part = frame.image[:10].reshape(-1)[3:9]
        del frame
        gc.collect()
        server.socket.settimeout(0.2)
        self.assertRaises(socket.timeout, server.socket.recv, 100)
        del part
        self.assertEqual(server.receive()["kind"], "release")

    def test_release_gives_back_once(self):
        server = Server()
        server.ring()
        server.frame(1, 9)
        frame = server.stream.get(5)
        server.receive()
        frame.release()
        frame.release()
        self.assertIsNone(frame.image)
        del frame
        self.assertEqual(server.receive()["kind"], "release")
        server.socket.settimeout(0.2)
        self.assertRaises(socket.timeout, server.socket.recv, 100)

    def test_time_out_keeps_the_question_open(self):
        server = Server()
        begin = time.monotonic()
        self.assertIsNone(server.stream.get(0.2))
        self.assertGreaterEqual(time.monotonic() - begin, 0.2)
        self.assertIsNone(server.stream.get(0))
        self.assertEqual(server.receive(), {"kind": "next"})
        server.ring()
        server.frame(0, 1)
        self.assertEqual(server.stream.get(5).sequence, 1)
        server.socket.settimeout(0.2)
        self.assertEqual(server.receive()["kind"], "release")
        self.assertRaises(socket.timeout, server.socket.recv, 100)

    def test_another_ring_and_the_state_of_the_stream(self):
        server = Server()
        server.ring()
        server.frame(0, 1)
        old = server.stream.get(5)
        server.send({"kind": "stream", "state": "offline", "detail": "no power"})
        self.assertIsNone(server.stream.get(0.1))
        self.assertEqual((server.stream.playing, server.stream.detail), (False, "no power"))
        server.send({"kind": "stream", "state": "playing", "detail": "8x8"})
        server.ring(generation=2, width=8, height=8, stride=24)
        server.frame(3, 4, generation=2)
        new = server.stream.get(5)
        self.assertEqual((new.image.shape, new.width, server.stream.playing), ((8, 8, 3), 8, True))
        self.assertTrue((old.image == 1).all())

    def test_what_a_broken_server_sends_is_a_disconnection_and_leaks_nothing(self):
        def announced(**changes):
            return lambda server: server.ring(**changes)

        def framed(**changes):
            message = {"kind": "frame", "generation": 1, "slot": 0, "sequence": 1, "timestamp_us": 0}
            message.update(changes)

            def play(server):
                server.ring()
                server.send(message)

            return play

        gc.collect()
        before = descriptors()
        for play in [
            announced(seals=0),
            announced(size=SLOTS * SLOT_BYTES - 4096),
            announced(stride=1),
            announced(height=4096),
            announced(slot_bytes=12289),
            announced(format="nv12"),
            announced(slots="many"),
            framed(slot=SLOTS),
            framed(slot=-1),
            framed(generation=2),
            framed(slot=None),
            lambda server: server.send({"no": "kind"}),
            lambda server: server.send([1]),
            lambda server: server.socket.send(b"\xff"),
            lambda server: server.socket.send(b"x" * 70000),
            lambda server: server.socket.close(),
        ]:
            server = Server()
            play(server)
            with self.assertRaises(frames.Disconnected):
                server.stream.get(5)
            server.stream.close()
            server.socket.close()
            server.memory = None
        del server
        gc.collect()
        self.assertEqual(descriptors(), before)

    def test_a_picture_outlives_its_stream(self):
        server = Server()
        server.ring()
        server.frame(0, 3)
        frame = server.stream.get(5)
        server.stream.close()
        server.socket.close()
        self.assertTrue((frame.image == 3).all())
        self.assertRaises(frames.Disconnected, server.stream.get, 1)
        del frame

    def test_waiting_lets_other_threads_run(self):
        server = Server()
        server.ring()
        threading.Timer(0.2, server.frame, (0, 1)).start()
        self.assertEqual(server.stream.get().sequence, 1)

    def test_the_source_is_python_3_6(self):
        ast.parse(PATH.read_text(), feature_version=(3, 6))


if __name__ == "__main__":
    unittest.main()
