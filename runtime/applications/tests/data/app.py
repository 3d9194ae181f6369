"""What the container test runs: asks for pictures, calls a model, shows the result, and tells how it is confined."""
import ctypes
import logging
import os
import socket
import sys

import numpy
import panoramasdk

logging.basicConfig(filename="/opt/aws/panorama/logs/app.log", level=logging.INFO, format="%(message)s")
os.mkfifo("/opt/aws/panorama/logs/post_metrics_ipc") if not os.path.exists("/opt/aws/panorama/logs/post_metrics_ipc") else None


def confinement():
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    print("confined", *(key + "=" + status[key].strip() for key in ("NoNewPrivs", "Seccomp", "CapEff")))
    print("users", open("/proc/self/uid_map").read().split())
    libc = ctypes.CDLL(None, use_errno=True)
    print("mount", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), "unshare", libc.unshare(0x10000000))
    print("interfaces", sorted(name for _, name in socket.if_nameindex()))
    for path in ("/usr/lib/belvedere/python/x", "/run/belvedere/x", "/etc/hosts"):
        try:
            open(path, "a").close()
            print("WRITABLE", path)
        except OSError:
            pass
    open("/panorama/written", "w").close()
    print("processes", len([p for p in os.listdir("/proc") if p.isdigit()]))


class Application(panoramasdk.node):
    def __init__(self):
        self.starts = "/opt/aws/panorama/storage/starts"
        with open(self.starts, "a") as file:
            file.write("x")

    def process(self):
        streams = self.inputs.video_in.get()
        for stream in streams:
            value = float(stream.image[0, 0, 0])
            result = self.call({"x": numpy.array([[value, 1]])}, "model_node")[0]
            stream.add_rect(0, 0, result[0, 0] / 1000, self.inputs.threshold.get() / 100)
            stream.add_label("value %d" % value, 0.5, 0.5)
        self.outputs.video_out.put(streams)
        if os.path.exists("/opt/aws/panorama/storage/die"):
            os.unlink("/opt/aws/panorama/storage/die")
            sys.exit(3)


print("environment", os.environ["AppGraph_Uid"], os.environ["Node_Uid"], os.environ["AWS_REGION"], os.getcwd(), sys.argv[1:], flush=True)
print("written before:", os.path.exists("/panorama/written"))
confinement()
sys.stdout.flush()
application = Application()
logging.info("ready, started %d times", os.path.getsize(application.starts))
while True:
    application.process()
