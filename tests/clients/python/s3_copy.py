"""Uploads 20 MiB to S3 in parts, slowly, and reads them back, as a program with boto3 would.

    s3_copy.py BUCKET SECONDS_BETWEEN_PARTS

Prints a line of JSON: whether what came back is what was sent, and the access keys that signed.
"""

import hashlib
import json
import sys
import time

import boto3
from botocore.config import Config

bucket, pause = sys.argv[1], float(sys.argv[2])
session = boto3.Session()
client = session.client("s3", config=Config(s3={"addressing_style": "path"}))
keys = []
client.meta.events.register("before-send.s3", lambda request, **_: keys.append(
    request.headers["Authorization"].decode().split("Credential=")[1].split("/")[0]))

parts, sent, name = [], hashlib.sha256(), {"Bucket": bucket, "Key": "large"}
upload = client.create_multipart_upload(**name)["UploadId"]
for number in range(1, 5):
    body = bytes([number]) * (5 << 20)
    sent.update(body)
    part = client.upload_part(**name, UploadId=upload, PartNumber=number, Body=body)
    parts.append({"PartNumber": number, "ETag": part["ETag"]})
    time.sleep(pause)
client.complete_multipart_upload(**name, UploadId=upload, MultipartUpload={"Parts": parts})

received = hashlib.sha256()
for chunk in client.get_object(**name)["Body"].iter_chunks(1 << 20):
    received.update(chunk)
print(json.dumps({"same": sent.digest() == received.digest(), "keys": sorted(set(keys))}))
