"""The worst neighbour: leaves deep trees, odd files and a crash behind, at every start."""
import ctypes
import os
import socket

STORAGE = "/opt/aws/panorama/storage"
LOGS = "/opt/aws/panorama/logs"

with open(STORAGE + "/starts", "a") as file:
    file.write("x")
for top, levels in (("/", 20000), (STORAGE, 2000), (LOGS, 200)):
    os.chdir(top)
    for _ in range(levels):
        try:
            os.mkdir("d")
        except FileExistsError:
            pass
        os.chdir("d")
os.chdir(LOGS)
for name in (b"\xff\xfe.log", b"n" * 255, b"new\nline.log"):
    with open(name, "ab") as file:
        file.write(b"a line\n")
for path in ("pipe", "pipe.log"):
    if not os.path.exists(path):
        os.mkfifo(path)
if not os.path.exists("socket.log"):
    socket.socket(socket.AF_UNIX).bind("socket.log")
with open("sparse.log", "w") as file:
    file.truncate(1 << 42)
for name in ("circle.log", "away.log"):
    if not os.path.islink(name):
        os.symlink({"circle.log": "circle.log", "away.log": "/etc/passwd"}[name], name)
print("made it all", flush=True)
ctypes.string_at(0)
