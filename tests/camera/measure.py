#!/usr/bin/python3
"""CPU time that a Python process spends to be handed one 1920x1080 picture; results are in docs/performance.md.

    tests/camera/measure.py [--pictures 150] MEASURE

MEASURE is the program of `scripts/cargo build --release -p belvedere-decoder --example measure`.
"""

import argparse
import importlib.util
import multiprocessing
import os
import pathlib
import socket
import statistics
import subprocess
import tempfile
import time

import numpy

PATH = pathlib.Path(__file__).resolve().parents[2] / "runtime/panoramasdk/panoramasdk/_frames.py"
specification = importlib.util.spec_from_file_location("_frames", str(PATH))
frames = importlib.util.module_from_spec(specification)
specification.loader.exec_module(frames)

SHAPE = (1080, 1920, 3)
BYTES = 1080 * 1920 * 3
PERIOD = 1 / 30


def nothing(image):
    return image


def sample(image):
    return int(image[::16, ::256].sum())


def read(image):
    return int(image.max())


def draw(image):
    image[100:200, 300:400] = 255


def copy(image):
    return image.copy()


def per_picture(pictures, get, use):
    for _ in range(5):
        use(get())
    begin = time.process_time()
    for _ in range(pictures):
        use(get())
    return 1000 * (time.process_time() - begin) / pictures


def ring(program, pictures, use):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "frames.sock")
        server = subprocess.Popen([program, "serve", path])
        try:
            while not os.path.exists(path):
                time.sleep(0.05)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.connect(path)
            connection.send(b'{"kind":"subscribe","stream_id":"measure"}')
            stream = frames.FrameStream(connection)
            return per_picture(pictures, lambda: stream.get(30).image, use)
        finally:
            server.kill()
            server.wait()


def paced():
    begin, number = time.monotonic(), 0
    while True:
        number += 1
        time.sleep(max(0, begin + number * PERIOD - time.monotonic()))
        yield


def pipe(pictures, use):
    reader, writer = os.pipe()
    producer = os.fork()
    if producer == 0:
        os.close(reader)
        data = memoryview(numpy.full(SHAPE, 90, numpy.uint8)).cast("B")
        try:
            for _ in paced():
                sent = 0
                while sent < BYTES:
                    sent += os.write(writer, data[sent:])
        except BrokenPipeError:
            os._exit(0)
    os.close(writer)
    file = os.fdopen(reader, "rb", buffering=0)

    def get():
        image = numpy.empty(SHAPE, numpy.uint8)
        view, got = memoryview(image).cast("B"), 0
        while got < BYTES:
            got += file.readinto(view[got:])
        return image

    try:
        return per_picture(pictures, get, use)
    finally:
        file.close()
        os.kill(producer, 9)
        os.waitpid(producer, 0)


def produce(queue):
    image = numpy.full(SHAPE, 90, numpy.uint8)
    for _ in paced():
        queue.put(image)


def queue(pictures, use):
    pictures_queue = multiprocessing.Queue(2)
    producer = multiprocessing.Process(target=produce, args=(pictures_queue,), daemon=True)
    producer.start()
    try:
        return per_picture(pictures, pictures_queue.get, use)
    finally:
        producer.kill()
        producer.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=150)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("program")
    arguments = parser.parse_args()
    cases = [
        ("ring, picture not looked at", lambda use: ring(arguments.program, arguments.pictures, use), nothing),
        ("ring, one pixel in 4096 read", lambda use: ring(arguments.program, arguments.pictures, use), sample),
        ("ring, every byte read", lambda use: ring(arguments.program, arguments.pictures, use), read),
        ("ring, 100x100 drawn", lambda use: ring(arguments.program, arguments.pictures, use), draw),
        ("ring, copied", lambda use: ring(arguments.program, arguments.pictures, use), copy),
        ("pipe, picture not looked at", lambda use: pipe(arguments.pictures, use), nothing),
        ("pipe, every byte read", lambda use: pipe(arguments.pictures, use), read),
        ("multiprocessing.Queue, not looked at", lambda use: queue(arguments.pictures, use), nothing),
        ("multiprocessing.Queue, every byte read", lambda use: queue(arguments.pictures, use), read),
    ]
    for name, measure, use in cases:
        runs = [measure(use) for _ in range(arguments.runs)]
        print("{:42} {:.3f} ms   ({})".format(name, statistics.median(runs), ", ".join("%.3f" % run for run in runs)), flush=True)


if __name__ == "__main__":
    main()
