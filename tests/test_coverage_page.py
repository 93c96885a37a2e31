"""The page of networks that work is that of its records."""

import json
from pathlib import Path

import numpy as np
from zoo.agreement import compared, near
from zoo.table import passed, render

ROOT = Path(__file__).parents[1]
RECORDS = json.loads((ROOT / "tests" / "zoo" / "records.json").read_text())


def test_the_page_is_that_of_the_records():
    assert (ROOT / "docs" / "coverage.md").read_text() == render(RECORDS)


def test_most_networks_pass():
    assert sum(map(passed, RECORDS.values())) >= 0.95 * len(RECORDS)


def test_a_gradient_that_is_wrong_does_not_pass():
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((8, 50))
    single = wide * (1 + 1e-6 * rng.standard_normal(wide.shape))
    assert near(compared(single, single, wide))
    assert not near(compared(1.001 * single, single, wide))
    assert not near(compared(-single, single, wide))
    # Three rows of eight may fall off a kink where the framework's own do not; all of them may not.
    off = single.copy()
    off[:3] *= 1.01
    assert near(compared(off, single, wide))
    off[3:] *= 1.01
    assert not near(compared(off, single, wide))
