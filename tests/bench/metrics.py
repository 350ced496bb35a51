"""Every metric there is, by name."""

from bench import batch, cancel, commands, gpu, idle, intake, looking, memory, order, pictures, restart
from bench.harness import Metric

METRICS: dict[str, Metric] = {
    "latency": intake.latency,
    "burst": intake.burst,
    "jobs": intake.jobs,
    "pictures": pictures.metric,
    "looking": looking.metric,
    "restart": restart.metric,
    "idle": idle.metric,
    "memory": memory.metric,
    "commands": commands.metric,
    "cancel": cancel.metric,
    "loads": order.loads,
    "urgent": order.urgent,
    "batch": batch.metric,
    "gpu": gpu.metric,
}
