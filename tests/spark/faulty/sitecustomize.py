"""Faults for any Python process whose PYTHONPATH holds this folder. For tests only; the package knows nothing of it.

A text that holds `FAULT[kind]` does it to the process that scores it, every time; `FAULT[kind:once]` the first time
only, by a file in the folder FAULTS_ONCE. FAULTS_KILL=`module:function:before|after:n` kills the process with SIGKILL
at the n-th call of that function.
"""

import ctypes
import importlib.abc
import importlib.util
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

FAULT = re.compile(rb"FAULT\[(\w+)(:once)?\]")
CALLS = {}
LOCK = threading.Lock()


def raises(error):
    def raise_it():
        raise error

    return raise_it


def refused():
    from quality_judge.errors import CorpusError

    raise CorpusError("leave the prompts out")


KINDS = {
    "refused": refused,
    "exception": raises(ValueError("a message that quotes the row: canary-078-05-1120")),
    "recursion": raises(RecursionError("canary-078-05-1120")),
    "memory": raises(MemoryError()),
    "allocator": raises(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")),
    "exit": lambda: os._exit(3),
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigterm": lambda: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(1),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "hang": lambda: time.sleep(3600),
    "hang_with_the_interpreter_held": lambda: ctypes.PyDLL(None).sleep(3600),
    "noise": lambda: os.write(1, b"canary-078-05-1120 noise on stdout\n"),
    "system_exit": raises(SystemExit(4)),
}


def faulty_score(scorer_module):
    score = scorer_module.Scorer.score

    def scored(self, completions, prompts=None):
        for text in completions.to_pylist() if hasattr(completions, "to_pylist") else completions:
            content = text.encode() if isinstance(text, str) else text or b""
            for kind, once in FAULT.findall(content):
                if not once or first_time(kind.decode()):
                    KINDS[kind.decode()]()
        return score(self, completions, prompts)

    scorer_module.Scorer.score = scored


def first_time(kind):
    try:
        os.close(os.open(Path(os.environ["FAULTS_ONCE"]) / kind, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def deadly(module, name, when, number):
    *owners, last = name.split(".")
    owner = module
    for part in owners:
        owner = getattr(owner, part)
    called = getattr(owner, last)

    def call(*given, **named):
        with LOCK:
            CALLS[name] = CALLS.get(name, 0) + 1
            mine = CALLS[name]
        if when == "before" and mine == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = called(*given, **named)
        with LOCK:
            CALLS[f"{name} done"] = done = CALLS.get(f"{name} done", 0) + 1
        if when == "after" and done == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, last, call)


class Loader(importlib.abc.Loader):
    def __init__(self, inner, patch):
        self.inner, self.patch = inner, patch

    def create_module(self, spec):
        return self.inner.create_module(spec)

    def exec_module(self, module):
        self.inner.exec_module(module)
        self.patch(module)


class Finder(importlib.abc.MetaPathFinder):
    def __init__(self, patches):
        self.patches = patches

    def find_spec(self, name, path=None, target=None):
        if name not in self.patches:
            return None
        patch = self.patches.pop(name)
        spec = importlib.util.find_spec(name)
        spec.loader = Loader(spec.loader, patch)
        return spec


patches = {"quality_judge.engine.scorer": faulty_score}
if os.environ.get("FAULTS_KILL"):
    where, function, moment, at = os.environ["FAULTS_KILL"].split(":")
    patches[where] = lambda module: deadly(module, function, moment, int(at))
sys.meta_path.insert(0, Finder(patches))
