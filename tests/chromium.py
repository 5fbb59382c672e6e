"""A real headless Chromium, driven over its debugging pipe: no driver, no port, no package."""

import base64
import json
import os
import shutil
import subprocess
import time
from itertools import count

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--lang=en",
    "--remote-debugging-pipe",
)  # fmt: skip
CODES = {"Enter": "Enter", "Backspace": "Backspace", "Escape": "Escape", "?": "Slash"}


class Chromium:
    """One browser with one tab. `errors` are what its console complained of."""

    def __init__(self, folder, *, dark=False, width=1280, height=800):
        send, self._send = os.pipe()
        self._receive, receive = os.pipe()
        profile = [f"--user-data-dir={folder}", f"--window-size={width},{height}"]
        # Chromium reads its orders from descriptor 3 and answers on 4. High numbers first, or one may shut the other.
        script = 'exec 8<&"$0" 9>&"$1"; shift; exec "$@" 3<&8 4>&9 8<&- 9>&- 2>/dev/null'
        self.process = subprocess.Popen(
            ["bash", "-c", script, str(send), str(receive), BROWSER, *FLAGS, *profile], pass_fds=(send, receive),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(send)
        os.close(receive)
        self._ids, self._rest, self._session, self.errors = count(1), b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height, dark=dark)

    def size(self, width, height, *, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[wish])

    def call(self, method, **params):
        number = next(self._ids)
        order = {"id": number, "method": method, "params": params}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._send, json.dumps(order).encode() + b"\0")
        while (said := self._next()).get("id") != number:
            if said.get("method") == "Runtime.exceptionThrown":
                self.errors.append(said["params"]["exceptionDetails"]["text"])
            if said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.errors.append(said["params"]["entry"]["text"])
        assert "error" not in said, said
        return said["result"]

    def _next(self):
        while b"\0" not in self._rest:
            got = os.read(self._receive, 1 << 20)
            assert got, "the browser has ended"
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def ask(self, script):
        """What the expression gives in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script, seconds=10):
        """Until the expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.ask(script):
            assert time.monotonic() < end, f"never came true: {script}"
            time.sleep(0.005)

    def press(self, *keys):
        """Real key presses, one after another, as the keyboard sends them."""
        for key in keys:
            code = CODES.get(key) or (f"Digit{key}" if key.isdigit() else f"Key{key.upper()}")
            text = {"Enter": "\r", "Backspace": "", "Escape": ""}.get(key, key)
            number = {"Enter": 13, "Backspace": 8, "Escape": 27}.get(key) or ord(key.upper())
            common = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text):
        """Text as an input method commits it."""
        self.call("Input.insertText", text=text)

    def mouse(self, kind, x, y):
        held = {"mousePressed": 1, "mouseMoved": 1, "mouseReleased": 0}[kind]
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=held, clickCount=1)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        os.close(self._send)
        os.close(self._receive)
