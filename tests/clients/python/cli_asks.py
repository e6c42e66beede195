"""Has the AWS CLI ask STS who it is, once for each line: a process of its own each time, as in a script.

Prints a line of JSON for each: the ARN, or what the CLI says on stderr.
"""

import json
import os
import subprocess
import sys

AWS = os.path.join(os.path.dirname(sys.executable), "aws")
QUERY = [AWS, "sts", "get-caller-identity", "--query", "Arn", "--output", "text"]

print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    done = subprocess.run(QUERY, capture_output=True, text=True)
    if done.returncode == 0:
        said = {"ok": True, "arn": done.stdout.strip(), "key": None}
    else:
        said = {"ok": False, "error": " ".join(done.stderr.split())}
    print(json.dumps(said), flush=True)
