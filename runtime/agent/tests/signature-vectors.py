"""Makes signature-s3.txt and signature-logs.txt with botocore, an implementation that is not ours.

    pip install botocore && python3 signature-vectors.py
"""
import datetime
import pathlib
from unittest import mock

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2026, 11, 22, 12, 0, 0)
CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "token/with+signs==")
HERE = pathlib.Path(__file__).parent
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def sign(auth, request, name):
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda *a, **k: NOW):
        auth.add_auth(request)
    (HERE / name).write_text(request.headers["Authorization"].rsplit("Signature=", 1)[1] + "\n")


key = "acct/devices/device-a/deployments/application%20Instance%2Bx.json"
get = AWSRequest("GET", f"https://belvedere.example:8443/bucket/{key}")
sign(botocore.auth.S3SigV4Auth(CREDENTIALS, "s3", "us-east-1"), get, "signature-s3.txt")
post = AWSRequest("POST", "https://belvedere.example:8443/", data=b"{}", headers={
    "Content-Type": "application/x-amz-json-1.1",
    "X-Amz-Target": "Logs_20140328.PutLogEvents",
    # Optional outside S3; our agent always signs it.
    "X-Amz-Content-SHA256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
})
sign(botocore.auth.SigV4Auth(CREDENTIALS, "logs", "us-east-1"), post, "signature-logs.txt")
