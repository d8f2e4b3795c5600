"""The benchmark of the cache: what it returns, and that reading beats decoding by far."""

import importlib.util
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks" / "cache_read.py"


def test_the_cache_is_at_least_twenty_times_faster_than_decoding():
    spec = importlib.util.spec_from_file_location("cache_read", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measured = module.cache_read(batches=10)
    assert measured["rows"] == module.MADE and measured["prepare_seconds"] > 0
    # About 2,000 when the machine is idle; 20 is what the project promises.
    assert measured["ratio"] == measured["decode_us_per_image"] / measured["cache_us_per_image"] > 20
