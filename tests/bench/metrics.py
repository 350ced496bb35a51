"""Every metric there is, by name."""

from bench import commands
from bench.harness import Metric

METRICS: dict[str, Metric] = {
    "commands": commands.metric,
}
