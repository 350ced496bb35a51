"""Benchmarks: each compares two things in one run, in turns, and prints ratios, never a bare time as a verdict.

    PYTHONPATH=tests python -m bench [METRIC ...] [--quick] [--out FILE.jsonl] [--disk FOLDER]
    PYTHONPATH=tests python -m bench --list

To add a metric: a function that takes a `Bench` and yields `Finding`s, and one line in `bench.metrics`.
"""
