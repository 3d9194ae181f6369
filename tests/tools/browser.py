"""Chromium, Debian's, driven over its DevTools pipe (no further library)."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser")


class Browser:
    def __init__(self, folder):
        program = next((p for p in map(shutil.which, NAMES) if p), None)
        assert program, "this test needs Debian's package chromium-headless-shell"
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        self.process = subprocess.Popen(
            # Not sh: dash reads one digit of a descriptor's number, and there may be more.
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", program, "--headless", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._number, self.events, self._session = b"", 0, [], None
        page = next(t for t in self._send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(domain + ".enable")

    def _receive(self, patience):
        end = time.monotonic() + patience
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            if not ready:
                return None
            read = os.read(self._in, 1 << 20)
            if not read:
                raise AssertionError("the browser ended")
            self._buffer += read
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _send(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(60)
            assert answer is not None, f"the browser does not answer {method}"
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _loaded(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if any(e.get("method") == "Page.loadEventFired" for e in self.events):
                return
            event = self._receive(1)
            if event:
                self.events.append(event)
        raise AssertionError("the page does not load")

    def open(self, url):
        self.events = []
        self._send("Page.navigate", url=url)
        self._loaded()

    def does(self, expression):
        """Runs what leads to another page."""
        self.events = []
        self._send("Runtime.evaluate", expression=expression, userGesture=True)
        self._loaded()

    def value(self, expression):
        result = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def look(self, width, height, scheme="light"):
        """How wide the window is, and which colours the person prefers."""
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self._send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        path.write_bytes(base64.b64decode(self._send("Page.captureScreenshot", format="png")["data"]))

    def complaints(self):
        """What the browser says is wrong with the page, such as something that its policy forbids."""
        entries = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return [e["text"] for e in entries if e["level"] in ("warning", "error")]

    def requests(self):
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def end(self):
        self.process.kill()
        self.process.wait()
        os.close(self._in)
        os.close(self._out)
