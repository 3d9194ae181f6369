"""The worst neighbour that we could think of: run in a container beside the sample (tests/worst_neighbour.rs)."""
import os
import threading
import time

import panoramasdk

STORAGE = "/opt/aws/panorama/storage"


def deep(top, levels):
    os.chdir(top)
    for _ in range(levels):
        try:
            os.mkdir("d")
        except OSError:
            pass
        try:
            os.chdir("d")
        except OSError:
            break
    os.chdir("/")


def channels(link, **target):
    kept = []
    for _ in range(400):
        try:
            kept.append(link.channel(**target))
        except Exception as problem:
            last = problem
            break
    else:
        last = "none was refused"
    print("channels", target, len(kept), last, flush=True)
    return kept


def fill():
    number, size = 0, 1 << 30
    while size >= 4096:
        try:
            with open("%s/filled-%d" % (STORAGE, number), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            number += 1
        except OSError:
            size //= 2
    print("the disk is full", flush=True)


def eat():
    """What a process does that never gives anything back: it is ended at the limit of the container's memory."""
    kept = []
    while True:
        kept.append(bytearray(b"x" * (16 << 20)))


class Worst(panoramasdk.node):
    pass


again = os.path.exists(STORAGE + "/filled-0")
worst = Worst()
deep("/", 20000)
deep(STORAGE, 20000)
print("the trees are deep", flush=True)
kept = [
    channels(worst._link, what="frames", port="video_in", index=0),
    channels(worst._link, what="model", name="text_detector"),
]
fill()
if again:
    eat()
while True:
    try:
        with open(STORAGE + "/more", "ab") as file:
            file.write(b"x" * 65536)
    except OSError:
        pass
    try:
        worst.call({"x": __import__("numpy").zeros((1, 3, 1 << 12, 1 << 12), "float32")}, "text_detector", time_out=5)
    except Exception as problem:
        print("the model:", str(problem)[:200], flush=True)
    time.sleep(10)
