"""Gets credentials once for each line, as a program with the AWS Common Runtime would: by its default chain.

Prints a line of JSON for each: the access key, or what the runtime says.
"""

import json
import sys

from awscrt import auth, io

bootstrap = io.ClientBootstrap(io.EventLoopGroup(1), io.DefaultHostResolver(io.EventLoopGroup(1)))
provider = auth.AwsCredentialsProvider.new_default_chain(bootstrap)


def ask():
    try:
        return {"ok": True, "key": provider.get_credentials().result().access_key_id}
    except Exception as error:  # whatever it raises is what its user reads
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


print(json.dumps({"ready": True}), flush=True)
for _ in sys.stdin:
    print(json.dumps(ask()), flush=True)
