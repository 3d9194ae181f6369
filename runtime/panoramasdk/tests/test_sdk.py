"""panoramasdk against a fake appliance that speaks the channels of formats/interfaces. Run: python3 -m unittest"""

import array
import contextlib
import fcntl
import io
import json
import mmap
import os
import socket
import sys
import tempfile
import threading
import time
import unittest

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.dirname(HERE))
DIRECTORY = tempfile.mkdtemp()
os.environ["BELVEDERE_NODE_SOCKET"] = os.path.join(DIRECTORY, "node.sock")

import cameras  # noqa: E402
import panoramasdk  # noqa: E402
from panoramasdk import _link, _model, _ports  # noqa: E402

_link.HEARTBEAT = 0.2
PORTS = {
    "inputs": [
        {"name": "video_in", "type": "media", "value": None, "bound": ["front", "back"]},
        {"name": "nothing_in", "type": "media", "value": None, "bound": []},
        {"name": "threshold", "type": "float32", "value": 20, "bound": []},
        {"name": "batch_size", "type": "int32", "value": 4, "bound": []},
        {"name": "verbose", "type": "boolean", "value": True, "bound": []},
        {"name": "region", "type": "string", "value": "eu-central-1", "bound": []},
    ],
    "outputs": [{"name": "video_out", "type": "media", "value": None, "bound": ["output_node"]}],
    "models": ["model_node", "broken_node"],
}
HEIGHT, WIDTH, SLOTS = 4, 6, 6
SLOT = 4096


def send(sock, message, descriptors=()):
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())] if descriptors else []
    sock.sendmsg([json.dumps(message).encode()], beside)


def receive(sock):
    data, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(16))
    descriptors = array.array("i")
    for _, _, content in ancillary:
        descriptors.frombytes(content)
    return (json.loads(data.decode()) if data else None), list(descriptors)


def sealed(content):
    descriptor = os.memfd_create("test", 3)
    os.write(descriptor, content)
    fcntl.fcntl(descriptor, 1033, 2 | 4)
    return descriptor


class Camera(object):
    """A frame server for one connection: pictures are made when they are asked for, as long as `playing` is set."""

    def __init__(self):
        self.connections = []
        self.admits = 100
        self.releases = 0
        self.playing = threading.Event()
        self.sequence = 0
        self.most_leases = 0

    def serve(self, sock):
        self.connections.append(sock)
        if len(self.connections) > self.admits:
            send(sock, {"kind": "refused", "message": "there are too many: use fewer processes"})
            sock.close()
            return
        memory = os.memfd_create("ring", 3)
        os.ftruncate(memory, SLOTS * SLOT)
        view = mmap.mmap(memory, SLOTS * SLOT)
        fcntl.fcntl(memory, 1033, 2 | 4)
        ring = {"kind": "ring", "generation": 1, "slots": SLOTS, "slot_bytes": SLOT, "width": WIDTH, "height": HEIGHT,
                "stride": WIDTH * 3, "format": "bgr24"}
        try:
            send(sock, ring, [memory])
            send(sock, {"kind": "stream", "state": "playing", "detail": ""})
            leases = set()
            waiting = False
            sock.settimeout(0.05)
            while True:
                try:
                    message, _ = receive(sock)
                    if message is None:
                        return
                    if message["kind"] == "release":
                        leases.discard(message["slot"])
                        self.releases += 1
                    else:
                        waiting = True
                except socket.timeout:
                    pass
                if waiting and self.playing.is_set() and len(leases) < 2:
                    waiting = False
                    slot = min(set(range(SLOTS)) - leases)
                    leases.add(slot)
                    self.most_leases = max(self.most_leases, len(leases))
                    self.sequence += 1
                    view[slot * SLOT : slot * SLOT + WIDTH * HEIGHT * 3] = bytes([self.sequence % 250]) * (WIDTH * HEIGHT * 3)
                    send(sock, {"kind": "frame", "generation": 1, "slot": slot, "sequence": self.sequence,
                                "timestamp_us": 1600000000123456 + self.sequence})
        except OSError:
            pass
        finally:
            sock.close()


class Appliance(object):
    """node.sock, and what is behind it."""

    def __init__(self):
        self.cameras = {0: Camera(), 1: Camera()}
        self.refuse = set()
        self.announced = 0
        self.heartbeats = 0
        self.calls = []
        self.models = 0
        self.models_at_once = 100
        self.answers_shown = True
        self.monitor = True
        self.break_calls = 0
        self.shown = []
        self.displays = []
        self.nodes = []
        self.start()

    def start(self):
        path = os.environ["BELVEDERE_NODE_SOCKET"]
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.nodes:
            sock.close() if sock.fileno() < 0 else sock.shutdown(socket.SHUT_RDWR)
        self.nodes = []

    def accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.nodes.append(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        while True:
            try:
                message, _ = receive(sock)
            except OSError:
                return
            if message is None:
                return
            kind = message.pop("kind")
            if kind == "announce":
                self.announced += 1
                send(sock, dict(PORTS, kind="configuration", node="code_node", application_instance_id="a"))
            elif kind == "heartbeat":
                self.heartbeats += 1
            elif message["what"] in self.refuse:
                send(sock, dict(message, kind="refused", message="it restarts"))
            else:
                near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                target = {"frames": lambda: self.cameras[message["index"]].serve, "model": lambda: self.model,
                          "display": lambda: self.display}[message["what"]]()
                argument = (near, message["name"]) if message["what"] == "model" else (near,)
                threading.Thread(target=target, args=argument, daemon=True).start()
                send(sock, dict(message, kind="connected"), [far.fileno()])
                far.close()

    def model(self, sock, name):
        if name == "broken_node":
            send(sock, {"kind": "failed", "message": "it is no ONNX"})
            return
        self.models += 1
        if self.models > self.models_at_once:
            send(sock, {"kind": "failed", "message": "too many connections: call from fewer threads"})
            sock.close()
            return
        tensor = {"name": "x", "dtype": "float32", "shape": [-1, 2]}
        send(sock, {"kind": "ready", "inputs": [tensor], "outputs": [tensor]})
        while True:
            try:
                message, descriptors = receive(sock)
            except OSError:
                return
            if message is None:
                return
            self.calls.append(message)
            if self.break_calls:
                self.break_calls -= 1
                [os.close(descriptor) for descriptor in descriptors]
                sock.close()
                return
            view = message["inputs"][0]
            if view["shape"] == [7, 7]:
                send(sock, {"kind": "error", "id": message["id"], "message": "wrong shape"})
                continue
            if view["shape"] == [9, 9]:
                continue
            values = numpy.frombuffer(os.pread(descriptors[0], 1 << 16, view["offset"]), view["dtype"])
            values = values[: int(numpy.prod(view["shape"]))].reshape(view["shape"]) * 2
            outputs = [dict(view, name="y", offset=0), {"name": "z", "dtype": "int64", "shape": [0, 3], "offset": 64}]
            results = values.tobytes()
            results += bytes(-len(results) % 64)
            for descriptor in descriptors:
                os.close(descriptor)
            try:
                send(sock, {"kind": "result", "id": message["id"], "outputs": outputs, "bytes": len(results)})
                for position in range(0, len(results), 65536):
                    sock.send(results[position : position + 65536])
            except OSError:
                return

    def display(self, sock):
        self.displays.append(sock)
        send(sock, {"kind": "owner", "mine": self.monitor})
        while True:
            try:
                message, _ = receive(sock)
            except OSError:
                return
            if message is None:
                return
            if message["kind"] == "show":
                self.shown.append(message)
                if self.answers_shown:
                    send(sock, {"kind": "shown", "sequence": message["sequence"]})


def wait(condition, what):
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("in vain: " + what)
        time.sleep(0.02)


class Lazy(panoramasdk.node):
    """As most applications are: never calls super().__init__()."""

    def __init__(self, argument):
        self.threshold = self.inputs.threshold.get() + argument


class SdkTest(unittest.TestCase):
    def setUp(self):
        self.appliance = Appliance()
        self.addCleanup(self.appliance.stop)
        self.node = panoramasdk.node()

    def play(self, *cameras):
        for camera in cameras:
            self.appliance.cameras[camera].playing.set()

    def test_ports_are_there_without_super_init(self):
        self.assertEqual(Lazy(1).threshold, 21.0)

    def test_parameters_are_native_values(self):
        inputs = self.node.inputs
        for _ in range(2):
            self.assertIs(type(inputs.threshold.get()), float)
            self.assertEqual((inputs.threshold.get(), inputs.batch_size.get(), inputs.verbose.get()), (20.0, 4, True))
            self.assertEqual(inputs.region.get(), "eu-central-1")
        with self.assertRaisesRegex(AttributeError, "treshold.*batch_size"):
            inputs.treshold

    def test_get_gives_a_list_of_media(self):
        self.play(0, 1)
        wait(lambda: len(self.node.inputs.video_in.get(timeout=5)) == 2, "both cameras")
        streams = self.node.inputs.video_in.get(timeout=5)
        self.assertEqual([stream.stream_id for stream in streams], ["front", "back"])
        first = next(stream for stream in streams if not stream.is_cached)
        self.assertEqual((first.image.shape, first.image.dtype), ((HEIGHT, WIDTH, 3), numpy.uint8))
        self.assertIs(first.image, first.image)
        self.assertEqual(first.time_stamp[0], 1600000000)
        first.image[0, 0] = (1, 2, 3)
        self.assertEqual(tuple(first.image[0, 0]), (1, 2, 3))
        replacement = numpy.zeros((2, 2, 3), numpy.uint8)
        first.image = replacement
        self.assertIs(first.image, replacement)

    def test_a_camera_without_news_is_cached_and_one_without_pictures_left_out(self):
        self.play(0)
        streams = self.node.inputs.video_in.get(timeout=5)
        self.assertEqual([(s.stream_id, s.is_cached) for s in streams], [("front", False)])
        self.play(1)
        wait(lambda: len(self.node.inputs.video_in.get(timeout=5)) == 2, "the other camera")
        self.appliance.cameras[0].playing.clear()
        time.sleep(0.3)
        self.node.inputs.video_in.get(timeout=5)
        streams = self.node.inputs.video_in.get(timeout=5)
        self.assertEqual([s.is_cached for s in streams], [True, False])

    def test_timeouts(self):
        for port in (self.node.inputs.video_in, self.node.inputs.nothing_in):
            begin = time.monotonic()
            with self.assertRaises(TimeoutError) as caught:
                port.get(timeout=0.3)
            self.assertIsInstance(caught.exception, panoramasdk.TimeoutException)
            self.assertLess(time.monotonic() - begin, 5)

    def test_an_application_may_keep_pictures(self):
        self.play(0)
        kept = [self.node.inputs.video_in.get(timeout=5)[0].image for _ in range(10)]
        values = [int(image[0, 0, 0]) for image in kept]
        self.assertEqual(values, sorted(set(values)), "each its own picture, unchanged by later ones")
        self.assertLessEqual(self.appliance.cameras[0].most_leases, 2)
        del kept
        for _ in range(5):
            self.node.inputs.video_in.get(timeout=5)

    def test_the_decoder_may_restart(self):
        self.play(0)
        kept = self.node.inputs.video_in.get(timeout=5)
        self.appliance.refuse.add("frames")
        for sock in self.appliance.cameras[0].connections:
            sock.shutdown(socket.SHUT_RDWR)
        threading.Timer(1.0, self.appliance.refuse.clear).start()
        streams = self.node.inputs.video_in.get(timeout=20)
        self.assertFalse(streams[0].is_cached)
        self.assertEqual(kept[0].image.shape, (HEIGHT, WIDTH, 3))

    def test_calls_in_both_orders(self):
        data = numpy.array([[1, 2], [3, 4]])
        for result in (
            self.node.call({"x": data}, "model_node"),
            self.node.call("model_node", {"x": data}),
            self.node.call("model_node", data, 5),
            self.node.call(name="model_node", input={"data": data}, time_out=5),
            self.node.call({"x": data[::-1][::-1]}, "model_node", time_out=5),
        ):
            self.assertIsInstance(result, tuple)
            numpy.testing.assert_array_equal(result[0], data * 2)
            self.assertEqual((result[0].dtype, result[1].shape), (numpy.float32, (0, 3)))
            result[0][0, 0] = 9
        self.assertEqual(self.appliance.calls[0]["inputs"][0]["dtype"], "float32", "converted to what the model takes")
        self.assertEqual(self.appliance.calls[3]["inputs"][0]["name"], "", "by position when the name is another")

    def test_media_can_be_called_with(self):
        picture = panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8))
        self.assertEqual(self.node.call("model_node", picture)[0].shape, (2, 2, 3))

    def test_bad_calls(self):
        with self.assertRaises(KeyError):
            self.node.call({"x": 1}, "no_such_node")
        with self.assertRaisesRegex(panoramasdk.ModelError, "no ONNX"):
            self.node.call({"x": 1}, "broken_node")
        with self.assertRaisesRegex(panoramasdk.ModelError, "wrong shape"):
            self.node.call(numpy.zeros((7, 7)), "model_node")
        with self.assertRaises(panoramasdk.TimeoutException):
            self.node.call(numpy.zeros((9, 9)), "model_node", 0.2)
        with self.assertRaises(TypeError):
            self.node.call("model_node")
        self.assertEqual(self.node.call(numpy.ones((1, 2)), "model_node")[0].shape, (1, 2), "and goes on")

    def test_a_call_survives_a_restart_of_the_model_process(self):
        self.appliance.break_calls = 1
        self.assertEqual(self.node.call(numpy.ones((1, 2)), "model_node", 20)[0].tolist(), [[2, 2]])

    def test_runtime_d5_a_call_that_makes_the_model_process_crash_is_repeated_once(self):
        self.appliance.break_calls = 10
        with self.assertRaisesRegex(panoramasdk.ModelError, "ended 2 times during this call"):
            self.node.call(numpy.ones((1, 2)), "model_node")
        self.assertEqual(self.appliance.break_calls, 8)
        self.appliance.break_calls = 0
        self.assertEqual(self.node.call(numpy.ones((1, 2)), "model_node")[0].tolist(), [[2, 2]])

    def test_runtime_d5_connections_that_died_meanwhile_are_not_held_against_a_call(self):
        barrier = threading.Barrier(3)

        def run():
            barrier.wait(10)
            self.node.call(numpy.ones((1, 2)), "model_node")

        threads = [threading.Thread(target=run) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        for connection in self.node._models["model_node"]._idle:
            connection._socket.shutdown(socket.SHUT_RDWR)
        self.assertEqual(self.node.call(numpy.ones((1, 2)), "model_node")[0].tolist(), [[2, 2]])

    def test_runtime_d3_a_process_has_few_connections_to_a_model_however_many_threads_call(self):
        threads = [threading.Thread(target=lambda: [self.node.call(numpy.ones((1, 2)), "model_node") for _ in range(5)])
                   for _ in range(20)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(len(self.appliance.calls), 100)
        self.assertLessEqual(self.appliance.models, _model._MOST)

    def test_runtime_d3_who_is_refused_a_connection_uses_those_it_has_or_is_told(self):
        self.appliance.models_at_once = 1
        threads = [threading.Thread(target=lambda: [self.node.call(numpy.ones((1, 2)), "model_node") for _ in range(5)])
                   for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(len(self.appliance.calls), 20)
        with self.assertRaisesRegex(panoramasdk.ModelError, "fewer threads"):
            panoramasdk.node().call(numpy.ones((1, 2)), "model_node")

    def test_runtime_d3_a_camera_that_is_refused_is_said_to_be_on_standard_error(self):
        self.appliance.cameras[0].admits = 0
        self.play(0)
        _link.WORDS.over(("camera", "front"))
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(panoramasdk.TimeoutException):
            self.node.inputs.video_in.get(timeout=1)
        self.assertIn("no pictures of camera front: there are too many: use fewer processes", said.getvalue())
        self.assertEqual(said.getvalue().count("no pictures"), 1)
        self.assertLessEqual(len(self.appliance.cameras[0].connections), 2, "it does not insist")

    def test_runtime_d28_a_refused_second_connection_leaves_the_first_alone(self):
        self.play(0)
        self.appliance.cameras[0].admits = 1
        kept = [self.node.inputs.video_in.get(timeout=5) for _ in range(2)]
        for _ in range(3):
            with self.assertRaises(panoramasdk.TimeoutException):
                self.node.inputs.video_in.get(timeout=0.3)
        self.assertLessEqual(len(self.appliance.cameras[0].connections), 2)
        del kept
        for _ in range(3):
            self.assertFalse(self.node.inputs.video_in.get(timeout=5)[0].is_cached)
        self.assertLessEqual(len(self.appliance.cameras[0].connections), 2, "the first connection goes on")

    def test_runtime_d13_a_child_process_gives_back_no_lease_of_its_parent(self):
        self.play(0)
        kept = self.node.inputs.video_in.get(timeout=5)
        self.appliance.cameras[0].playing.clear()
        time.sleep(0.2)
        before = self.appliance.cameras[0].releases
        child = os.fork()
        if child == 0:
            kept[0]._image = None
            del kept
            self.node = None
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.3)
        self.assertEqual(self.appliance.cameras[0].releases, before)
        self.assertEqual(kept[0].image.shape, (HEIGHT, WIDTH, 3))

    def test_runtime_d13_a_child_process_has_connections_of_its_own(self):
        self.play(0)
        self.node.inputs.video_in.get(timeout=5)
        self.node.call(numpy.ones((1, 2)), "model_node")
        self.node.outputs.video_out.put(panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8), "front"))
        counts = lambda: (len(self.appliance.cameras[0].connections), self.appliance.models, len(self.appliance.displays))
        wait(lambda: counts() == (1, 1, 1), "the parent's connections")
        # Held by threads that the child does not have.
        held = [self.node._link._lock, self.node.inputs.video_in._lock, self.node.outputs.video_out._lock,
                self.node._models["model_node"]._changed]
        [lock.acquire() for lock in held]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.node.inputs.video_in.get(timeout=5)
                self.node.call(numpy.ones((1, 2)), "model_node", 5)
                self.node.outputs.video_out.put(panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8), "front"))
                status = 0
            finally:
                os._exit(status)
        [lock.release() for lock in held]
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(counts(), (2, 2, 2))
        self.node.inputs.video_in.get(timeout=5)
        self.node.call(numpy.ones((1, 2)), "model_node", 5)
        self.assertEqual(counts(), (2, 2, 2), "the parent goes on with its own")

    def test_runtime_d30_a_node_that_is_not_used_any_more_ends_its_thread_and_connection(self):
        beating = lambda: sum(thread.name == "panoramasdk-heartbeat" for thread in threading.enumerate())
        before = beating()
        for _ in range(40):
            panoramasdk.node()
        wait(lambda: beating() <= before, "the threads to end")

    def test_runtime_d27_put_is_not_held_up_for_long_by_a_display_that_takes_nothing(self):
        self.appliance.answers_shown = False
        pictures = [panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8), str(number)) for number in range(8)]
        self.node.outputs.video_out.put(pictures)
        wait(lambda: len(self.appliance.shown) == 8, "the first of each")
        begin = time.monotonic()
        for _ in range(10):
            self.node.outputs.video_out.put(pictures)
        self.assertLess(time.monotonic() - begin, 2)
        self.appliance.answers_shown = True

    def test_runtime_d27_what_cannot_be_shown_is_said_and_the_application_goes_on(self):
        good = panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8), "good")
        bad = panoramasdk.media(numpy.ones((2, 2, 3), numpy.float32), "bad")
        many = [panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8), str(number)) for number in range(20)]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.node.outputs.video_out.put([bad, good])
            self.node.outputs.video_out.put(many)
        wait(lambda: len(self.appliance.shown) == 16, "those that can be shown")
        self.assertEqual(self.appliance.shown[0]["stream_id"], "good")
        self.assertIn("stream bad is not shown: a picture must be an array of HxWx3 uint8", said.getvalue())
        self.assertIn("at most 16 streams", said.getvalue())

    def test_applications_tried_the_application_that_is_not_on_the_monitor_is_told(self):
        self.appliance.monitor = False
        picture = panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8), "front")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            for _ in range(5):
                self.node.outputs.video_out.put(picture)
                time.sleep(0.05)
        self.assertEqual(said.getvalue().count("the monitor shows another application"), 1, said.getvalue())
        send(self.appliance.displays[0], {"kind": "owner", "mine": True})
        count = len(self.appliance.shown)
        self.node.outputs.video_out.put(picture)
        wait(lambda: len(self.appliance.shown) > count, "the picture, once it has the monitor")

    def test_applications_tried_a_wrong_model_node_is_told_the_right_ones(self):
        with self.assertRaisesRegex(KeyError, "modell_node.*broken_node, model_node"):
            self.node.call(numpy.ones((1, 2)), "modell_node")

    def measured(self, periods, work, seconds, good):
        """Fails if it is not good in five attempts: another process may have the processor just then, and what these tests
        are about never is good by chance."""
        results = []
        for _ in range(5):
            results.append(cameras.measure(_ports.MediaInput, periods, work, seconds))
            if good(*results[-1]):
                return
        self.fail("get()/s, new pictures/s, lists, wholly new, age in ms: %s" % results)

    def test_runtime_d7_lists_of_several_cameras_are_wholly_new(self):
        for count, work in ((2, 0.02), (2, 0.05), (4, 0.02)):
            self.measured([1 / 30] * count, work, 1.5, lambda calls, new, lists, whole, age: whole > 0.7 * lists)

    def test_runtime_d7_a_slow_camera_does_not_hold_a_fast_one_up(self):
        # Pictures a second, of 33.
        self.measured([1 / 30, 1 / 3], 0.005, 2, lambda calls, new, lists, whole, age: new > 18)

    def test_runtime_d7_a_camera_that_delivers_nothing_any_more_is_left_out(self):
        link, end = cameras.start([1 / 30] * 2, [(1, 1.0)])
        self.addCleanup(end)
        port = _ports.MediaInput(link, "video_in", ["front", "back"])
        begin = time.monotonic()
        seen = set()
        while time.monotonic() - begin < 2.5:
            names = tuple(picture.stream_id for picture in port.get(5))
            seen.add(names)
        self.assertIn(("front", "back"), seen)
        self.assertEqual(names, ("front",))
        # Nor does it hold the other one up.
        begin = time.monotonic()
        for _ in range(10):
            port.get(5)
        self.assertLess(time.monotonic() - begin, 1.0)

    def test_runtime_d8_work_slightly_longer_than_a_picture_does_not_halve_the_pictures(self):
        # Pictures a second, of 27.
        self.measured([1 / 30], 0.037, 2, lambda calls, new, lists, whole, age: new > 20)
        # Long work: asked when it is over, so that the picture is new; ms.
        self.measured([1 / 30], 0.2, 2, lambda calls, new, lists, whole, age: age < 60)

    def test_threads_call_at_once(self):
        results = []

        def run(value):
            for _ in range(10):
                results.append((value, float(self.node.call(numpy.full((1, 2), value), "model_node")[0][0, 0])))

        threads = [threading.Thread(target=run, args=(value,)) for value in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(len(results), 60)
        self.assertTrue(all(out == value * 2 for value, out in results))

    def test_put_shows_pictures_with_marks(self):
        self.play(0)
        streams = self.node.inputs.video_in.get(timeout=5)
        streams[0].add_rect(-0.5, numpy.float64(0.25), 1, 2)
        streams[0].add_label("word", 0.5, 1)
        self.node.outputs.video_out.put(streams)
        self.node.outputs.video_out.put(streams[0])
        self.node.outputs.video_out.put((streams[0],))
        wait(lambda: len(self.appliance.shown) == 3, "three pictures")
        shown = self.appliance.shown[0]
        self.assertEqual(shown["rectangles"], [[0, 0.25, 1, 1]])
        self.assertEqual(shown["labels"], [["word", 0.5, 1]])
        self.assertEqual((shown["stream_id"], shown["width"], shown["height"]), ("front", WIDTH, HEIGHT))
        with self.assertRaises(ValueError):
            self.node.outputs.video_out.put([])
        with self.assertRaises(TypeError):
            self.node.outputs.video_out.put([numpy.zeros((2, 2, 3))])

    def test_the_display_may_restart(self):
        picture = panoramasdk.media(numpy.ones((2, 2, 3), numpy.uint8), "front")
        self.node.outputs.video_out.put(picture)
        wait(lambda: self.appliance.shown, "a picture")
        self.appliance.refuse.add("display")
        self.appliance.displays[0].shutdown(socket.SHUT_RDWR)
        for _ in range(5):
            self.node.outputs.video_out.put(picture)
            time.sleep(0.05)
        self.appliance.refuse.clear()
        count = len(self.appliance.shown)

        def again():
            self.node.outputs.video_out.put(picture)
            return len(self.appliance.shown) > count

        wait(again, "pictures after the restart")

    def test_heartbeats_and_a_new_announcement_when_the_appliance_restarts(self):
        wait(lambda: self.appliance.heartbeats > 2, "heartbeats")
        self.appliance.stop()
        before = self.appliance.announced
        time.sleep(0.5)
        self.appliance.start()
        wait(lambda: self.appliance.announced > before, "an announcement")
        beats = self.appliance.heartbeats
        wait(lambda: self.appliance.heartbeats > beats, "heartbeats again")
        self.play(0)
        self.assertEqual(len(self.node.inputs.video_in.get(timeout=5)), 1)


if __name__ == "__main__":
    unittest.main()
