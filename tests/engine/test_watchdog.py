"""A process whose scoring stands still ends, even when the interpreter is held; one that moves on lives."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STANDS_STILL = "import ctypes; ctypes.PyDLL(None).sleep(60)"
MOVES_ON = "import time; [(time.sleep(.1), progressed()) for _ in range(20)]"
DONE = "pass"
LIMIT = 1


@pytest.mark.parametrize(("inside", "after", "alive"), [
    (STANDS_STILL, DONE, False), (MOVES_ON, DONE, True), (DONE, "import time; time.sleep(2)", True),
])  # fmt: skip
def test_only_a_process_that_stands_still_ends(inside, after, alive):
    code = "import time\nfrom quality_judge.engine.watchdog import progressed, watched\n"
    code += f"print(time.monotonic(), flush=True)\nwith watched({LIMIT}):\n    {inside}\n{after}\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    took = time.monotonic() - float(done.stdout)
    assert (done.returncode == 0) is alive
    assert alive or LIMIT <= took <= LIMIT + 10
    assert ("Timeout" in done.stderr) is not alive
