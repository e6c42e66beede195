"""Asks STS who it is, as any program with boto3 would: by the default credential chain.

Prints the reply's ARN, then the access key it signed with. Fails as boto3 fails.
"""

import boto3

session = boto3.Session()
reply = session.client("sts").get_caller_identity()
credentials = session.get_credentials()
print(reply["Arn"])
print(credentials.access_key)
print(credentials.method)
