"""20,000 mutated files: no parser crashes, hangs, or takes what it must not. `make fuzz` tries a million."""

import pytest
from fuzz import SECONDS, fuzz

EXECUTIONS = 20_000


@pytest.mark.slow
def test_no_parser_crashes_hangs_or_takes_what_it_must_not(tmp_path):
    tried = fuzz(EXECUTIONS, seed=20, folder=tmp_path)
    assert sum(each for each, _, _ in tried.values()) >= EXECUTIONS
    assert max(slowest for _, _, slowest in tried.values()) < SECONDS
