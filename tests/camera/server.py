#!/usr/bin/python3
"""A real RTSP server (GStreamer's) with a clip whose content is known, for tests of cameras.

    tests/camera/server.py [--port 0] [--codec h264|jpeg] [--user U --password P] [--rate 15]

Prints `ready rtsp://127.0.0.1:PORT/stream` when it answers, and ends with its standard input (a test that dies takes it
along) or by a signal: SIGKILL is a camera that loses power, SIGSTOP one that hangs.

Every picture of the clip carries its number: eight squares of 40x40 at the top, the highest bit first, white for 1; below
it the left half is red and the right half blue. Pre-coded pictures are fed with fresh time stamps (looping a file in
GStreamer loses them).
"""

import argparse
import subprocess
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

WIDTH, HEIGHT, PICTURES, SQUARE, BITS = 320, 240, 60, 40, 8
KEY_EVERY = 15
DELIMITER = b"\0\0\0\1\x09"


def picture(number):
    white, black, red, blue = b"\xff\xff\xff", b"\0\0\0", b"\0\0\xff", b"\xff\0\0"
    code = b"".join((white if number >> bit & 1 else black) * SQUARE for bit in reversed(range(BITS)))
    field = red * (WIDTH // 2) + blue * (WIDTH // 2)
    return code * SQUARE + field * (HEIGHT - SQUARE)


def clip():
    """The clip's access units."""
    raw = b"".join(picture(number) for number in range(PICTURES))
    command = (
        "ffmpeg -v error -f rawvideo -pix_fmt bgr24 -s {}x{} -r 15 -i - -pix_fmt yuv420p -c:v libx264 -preset veryfast "
        "-tune zerolatency -crf 20 -x264-params keyint={}:scenecut=0:aud=1 -f h264 -"
    ).format(WIDTH, HEIGHT, KEY_EVERY)
    stream = subprocess.run(command.split(), input=raw, stdout=subprocess.PIPE, check=True).stdout
    starts = []
    at = stream.find(DELIMITER)
    while at >= 0:
        starts.append(at)
        at = stream.find(DELIMITER, at + 1)
    units = [stream[start:end] for start, end in zip(starts, starts[1:] + [len(stream)])]
    assert len(units) == PICTURES, len(units)
    return units


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--codec", choices=("h264", "jpeg"), default="h264")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--rate", type=int, default=15)
    arguments = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(arguments.port))
    factory = GstRtspServer.RTSPMediaFactory()
    if arguments.codec == "h264":
        units = clip()
        factory.set_launch(
            "( appsrc name=source is-live=true format=time max-buffers=30 leaky-type=downstream "
            "caps=video/x-h264,stream-format=byte-stream,alignment=au,width={},height={},framerate={}/1 "
            "! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 config-interval=-1 )".format(
                WIDTH, HEIGHT, arguments.rate
            )
        )
    else:
        factory.set_launch(
            "( videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240 ! jpegenc "
            "! rtpjpegpay name=pay0 pt=26 )"
        )

    def configure(_factory, media):
        source = media.get_element().get_by_name("source")
        if source is None:
            return
        period = Gst.SECOND // arguments.rate
        state = {"next": 0, "begin": time.monotonic()}

        def push():
            due = int((time.monotonic() - state["begin"]) * arguments.rate)
            while state["next"] <= due:
                number = state["next"]
                buffer = Gst.Buffer.new_wrapped(units[number % PICTURES])
                buffer.pts = buffer.dts = number * period
                buffer.duration = period
                if source.emit("push-buffer", buffer) not in (Gst.FlowReturn.OK, Gst.FlowReturn.FLUSHING):
                    return GLib.SOURCE_REMOVE
                state["next"] += 1
            return GLib.SOURCE_CONTINUE

        timer = GLib.timeout_add(10, push)
        media.connect("unprepared", lambda _media: GLib.source_remove(timer))

    factory.connect("media-configure", configure)
    if arguments.user:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_digest(arguments.user, arguments.password, token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/stream", factory)
    if not server.attach(None):
        sys.exit("server: cannot listen on port {}".format(arguments.port))
    loop = GLib.MainLoop()

    def wait_for_the_end():
        sys.stdin.buffer.read()
        loop.quit()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print("ready rtsp://127.0.0.1:{}/stream".format(server.get_bound_port()), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
