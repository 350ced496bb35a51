"""Every metric there is, by name."""

from bench import commands, looking, pictures
from bench.harness import Metric

METRICS: dict[str, Metric] = {
    "pictures": pictures.metric,
    "commands": commands.metric,
    "looking": looking.metric,
}
