"""Asks the agent for credentials as an SDK does, over and over, and says what came: load.py RATE [SECONDS]

Ends on SIGTERM, and after three minutes or those seconds in any case. One line of JSON per failed try, and one at the end of it all. A try is one connection and no second try, so that what SDKs
would smooth over is seen. Only access key ids are printed.
"""

import http.client
import json
import os
import signal
import sys
import time
import urllib.parse

LONGEST = 180  # seconds


def ask(url, token):
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=2)
    try:
        connection.request("GET", url.path, headers={"Authorization": token})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"status {answer.status}: {body[:200]!r}")
        return json.loads(body)["AccessKeyId"]
    finally:
        connection.close()


def main(rate, longest=LONGEST):
    url = urllib.parse.urlsplit(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
    token_file = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    end, keys, good, failed = time.monotonic() + longest, set(), 0, []
    while not ended and time.monotonic() < end:
        started = time.monotonic()
        try:
            with open(token_file, encoding="utf-8") as file:
                token = file.read()
            keys.add(ask(url, token))
            good += 1
        except (OSError, http.client.HTTPException) as error:
            failed.append(time.time())
            print(json.dumps({"at": time.time(), "failed": repr(error)}), flush=True)
        time.sleep(max(0.0, 1 / rate - (time.monotonic() - started)))
    # Between the first and the last failure, however many there were and whatever went well meanwhile.
    window = failed[-1] - failed[0] if failed else 0
    print(json.dumps({"good": good, "failed": len(failed), "window": window, "keys": sorted(keys)}), flush=True)


main(*map(float, sys.argv[1:]))
