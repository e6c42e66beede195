"""The series that the agent has, and what asks for them: the alerts."""

import re
import subprocess

from rendering import CHART, HERE

TELEMETRY = HERE.parent.parent / "agent" / "src" / "telemetry"


def check_alerts():
    """promtool reads and tests them; and each series that they name is one that the agent has."""
    for arguments in (["check", "rules", CHART / "alerts.yaml"], ["test", "rules", HERE / "alerts_test.yaml"]):
        told = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
        if told.returncode != 0:
            yield f"promtool: {told.stdout}{told.stderr}"
    sources = "".join(source.read_text() for source in TELEMETRY.rglob("*.rs"))
    for series in sorted(set(re.findall(r"pod_identity_agent_(\w+)", (CHART / "alerts.yaml").read_text()))):
        name = series.removesuffix("_total")
        if f'"{name}"' not in sources and f'"pod_identity_agent_{name}"' not in sources:
            yield f"alerts.yaml: the agent has no series pod_identity_agent_{series}"
