"""Asks STS who it is, once for each line, as a program with boto3 would: by the default credential chain.

Prints a line of JSON for each: the ARN and the access key, or what boto3 says.
"""

import json
import sys

import boto3

session = boto3.Session()


def ask():
    try:
        # Anew each time: boto3 asks for credentials when a client is made, and keeps those it has in the session.
        arn = session.client("sts").get_caller_identity()["Arn"]
        return {"ok": True, "arn": arn, "key": session.get_credentials().access_key}
    except Exception as error:  # whatever it raises is what its user reads
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    print(json.dumps(ask()), flush=True)
