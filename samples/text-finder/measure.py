"""The work of ./measure; see there."""

import argparse
import importlib.util
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import numpy
import onnxruntime

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]


def load(path):
    """A Python file as a module, without what stands around it."""
    specification = importlib.util.spec_from_file_location(path.stem.strip("_"), path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def frames(directory, truth, every):
    """(number, picture) of every N-th frame, as the appliance's decoder would hand them over."""
    size = truth["width"] * truth["height"] * 3
    decoder = subprocess.Popen(
        ["ffmpeg", "-loglevel", "error", "-i", directory / "clip.h264", "-f", "rawvideo", "-pix_fmt", "bgr24", "-"],
        stdout=subprocess.PIPE,
    )
    for number in range(len(truth["frames"])):
        data = decoder.stdout.read(size)
        if number % every == 0:
            yield number, numpy.frombuffer(data, numpy.uint8).reshape(truth["height"], truth["width"], 3)
    decoder.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", type=pathlib.Path, required=True)
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--model", default="int8")
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()

    directory = pathlib.Path(subprocess.check_output(["/usr/bin/python3", TOP / "samples/camera/clip.py"], text=True).strip())
    truth = json.loads((directory / "truth.json").read_text())
    words = load(next((HERE / "packages").glob("*-TEXT_FINDER_CODE-1.0")) / "src" / "words.py")
    display = load(TOP / "runtime/panoramasdk/panoramasdk/_display.py")
    sys.dont_write_bytecode = True

    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        subprocess.check_call([HERE / "build", "--model", arguments.model, "--output", work / "project"], stdout=subprocess.DEVNULL)
        model = next(
            content
            for file in (work / "project" / "assets").glob("*.tar.gz")
            for content in [read_model(file)]
            if content is not None
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options)

        monitor = work / "monitor.png"
        program = subprocess.Popen(
            [arguments.target / "belvedere-display", "--socket", work / "display.sock", "--output", f"png:{monitor}"]
        )
        try:
            wait_for(lambda: (work / "display.sock").exists() and monitor.exists(), "the display's first picture")
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.connect(str(work / "display.sock"))
            before = monitor.stat().st_ino
            connection.send(json.dumps({"kind": "open", "application_instance_id": "measure", "started_us": 1}).encode())
            wait_for(lambda: monitor.stat().st_ino != before, "the waiting picture")
            output = display.DisplayOutput(connection)
            pictures, spent = [], []
            for number, picture in frames(directory, truth, arguments.every):
                begin = time.process_time()
                answer = session.run(None, {"x": words.detector_input(picture)})
                found = words.boxes(answer[0])
                spent.append(time.process_time() - begin)
                before = monitor.stat().st_ino
                labels = [("text %d %%" % round(score * 100), box[0], max(0.0, box[1] - 0.01)) for box, score in found]
                output.put([("camera", picture, [box for box, _ in found], labels)])
                wait_for(lambda: monitor.stat().st_ino != before, "a new picture on the monitor")
                kept = (arguments.keep or work) / f"monitor-{number:04}.png"
                kept.parent.mkdir(parents=True, exist_ok=True)
                # The display replaces the file, so this one keeps what is in it.
                os.link(monitor, work / "taken")
                kept.write_bytes((work / "taken").read_bytes())
                os.unlink(work / "taken")
                pictures.append(kept)
            judged = subprocess.run(
                [arguments.target / "belvedere-picture", "check", "--truth", directory / "truth.json"]
                + [part for picture in pictures for part in ("--picture", picture)],
                capture_output=True, text=True,
            )
        finally:
            program.terminate()
            program.wait()
    lines = judged.stdout.splitlines()
    bad = [line for line in lines if line.startswith("  ") or line.startswith("all:")]
    print("\n".join(bad) or judged.stderr)
    print(f"measured: {len(pictures)} pictures, {1000 * sum(spent) / len(spent):.1f} ms of CPU a picture for detection on this host")
    sys.exit(judged.returncode)


def read_model(file):
    """The .onnx in an archive, or None."""
    with tarfile.open(fileobj=io.BytesIO(file.read_bytes())) as archive:
        for entry in archive:
            if entry.name.endswith(".onnx"):
                return archive.extractfile(entry).read()
    return None


def wait_for(condition, what):
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"measure: {what} did not come within 30 s")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
