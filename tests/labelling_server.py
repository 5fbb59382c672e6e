"""A labelling server as a user starts it, in a process of its own, and an expert who speaks HTTP to it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUBRIC = ROOT / "conf" / "rubrics" / "worth-keeping.yaml"


class Server:
    """`quality-judge label` in a process of its own. links: name of the expert, or everybody, to address."""

    def __init__(self, rows, output, *options, port=0):
        words = [sys.executable, "-m", "quality_judge", "label", rows, "--output", output, "--port", port, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        self.log = Path(output).with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen([str(word) for word in words], env=environment, stdout=log, stderr=log)
        end, links = time.monotonic() + 60, max(1, options.count("--annotator"))
        while len(found := re.findall(r"^(.*): (http://\S+)$", self.log.read_text(), re.M)) < links:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        self.links = dict(found)
        self.link = found[0][1]

    def ask(self, action, link=None, headers=None, **said):
        """(status, what the server answered) of a POST."""
        data = json.dumps(said).encode()
        request = urllib.request.Request((link or self.link) + action, data, {**(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            body = error.read()
            return error.code, json.loads(body) if body[:1] == b"{" else body.decode()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)
