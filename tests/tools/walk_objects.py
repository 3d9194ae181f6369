"""Objects as people's programs meet them: the S3 table of the field cases with the boto3 of both environments, and objects that
are replaced while others read them."""

import hashlib
import http.client
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.parse

from botocore.config import Config
from botocore.exceptions import ClientError

import walking

HERE = pathlib.Path(__file__).parent
LONG = os.environ.get("BELVEDERE_LONG") == "1"


def test_the_field_cases_with_both_versions_of_boto3(w):
    w.bucket = w.boto("s3").list_buckets()["Buckets"][0]["Name"]
    newest = subprocess.run([HERE / "environment", "requirements-newest.txt"], check=True, capture_output=True, text=True).stdout.strip()
    port = w.service.endpoints["api"].rsplit(":", 1)[1]
    for python in (sys.executable, f"{newest}/bin/python"):
        said = w.service.run(python, HERE / "field_cases_s3.py", BUCKET=w.bucket, VIRTUAL_ENDPOINT=f"http://localhost:{port}", AWS_DEFAULT_REGION="us-east-1")
        print("        " + said.strip().replace("\n", "\n        "))


def test_an_object_that_is_replaced_reads_as_old_or_new(w):
    """Service x04: 3 to 8 of 1,000 reads were answered 500."""
    config = Config(signature_version="s3v4", retries={"total_max_attempts": 1}, max_pool_connections=20)
    s3 = w.boto("s3", config=config)
    bodies = {hashlib.sha256(body).hexdigest(): body for body in (bytes([n]) * (1 + 40_000 * (n % 4)) for n in range(8))}
    sizes = {len(body) for body in bodies.values()}
    key = "replaced/k"
    s3.put_object(Bucket=w.bucket, Key=key, Body=next(iter(bodies.values())))
    url = urllib.parse.urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": w.bucket, "Key": key}))
    head = urllib.parse.urlsplit(s3.generate_presigned_url("head_object", Params={"Bucket": w.bucket, "Key": key}))
    stop, failed, counts = threading.Event(), [], {"GET": 0, "range": 0, "HEAD": 0, "copy": 0, "writes": 0, "gone": 0}

    def guarded(function):
        def run():
            try:
                while not stop.is_set():
                    function()
            except BaseException as error:
                failed.append(error)
                stop.set()
        return run

    def write():
        for body in bodies.values():
            s3.put_object(Bucket=w.bucket, Key=key, Body=body)
            counts["writes"] += 1
        upload = s3.create_multipart_upload(Bucket=w.bucket, Key=key)["UploadId"]
        place = dict(Bucket=w.bucket, Key=key, UploadId=upload)
        tag = s3.upload_part(**place, PartNumber=1, Body=body)["ETag"]
        s3.complete_multipart_upload(**place, MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": 1}]})
        s3.delete_object(Bucket=w.bucket, Key=key)

    def reader():
        connection = http.client.HTTPConnection(w.service.endpoints["api"], timeout=60)

        def ask(kind, method, target, expected, **headers):
            connection.request(method, f"{target.path}?{target.query}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 404:
                counts["gone"] += 1
                return None
            assert answer.status == expected, (kind, answer.status, body)
            counts[kind] += 1
            return answer, body

        def read():
            if got := ask("GET", "GET", url, 200):
                assert hashlib.sha256(got[1]).hexdigest() in bodies, len(got[1])
            if got := ask("range", "GET", url, 206, Range="bytes=0-"):
                assert hashlib.sha256(got[1]).hexdigest() in bodies, len(got[1])
            if got := ask("HEAD", "HEAD", head, 200):
                assert int(got[0].headers["Content-Length"]) in sizes
        return read

    def copy():
        try:
            s3.copy_object(Bucket=w.bucket, Key="replaced/copy", CopySource={"Bucket": w.bucket, "Key": key})
        except ClientError as error:
            assert error.response["Error"]["Code"] == "NoSuchKey", error
            return
        assert hashlib.sha256(s3.get_object(Bucket=w.bucket, Key="replaced/copy")["Body"].read()).hexdigest() in bodies
        counts["copy"] += 1

    threads = [threading.Thread(target=guarded(f)) for f in (write, write, reader(), reader(), reader(), copy)]
    [thread.start() for thread in threads]
    stop.wait(120 if LONG else 6)
    stop.set()
    [thread.join() for thread in threads]
    assert not failed, failed[:3]
    assert all(count for kind, count in counts.items() if kind != "gone"), counts
    print(f"measured: an object replaced {counts.pop('writes')} times while it was read: {counts}, each old or new, whole")


def test_an_upload_that_ends_while_it_is_completed(w):
    """Many complete it at once, as SDKs do that wait no longer: the object is made, and all are told so."""
    s3 = w.boto("s3", config=Config(retries={"total_max_attempts": 1}, max_pool_connections=20))
    for _ in range(20 if LONG else 5):
        upload = s3.create_multipart_upload(Bucket=w.bucket, Key="ended")["UploadId"]
        place = dict(Bucket=w.bucket, Key="ended", UploadId=upload)
        parts = [{"ETag": s3.upload_part(**place, PartNumber=n, Body=b"x" * 100_000)["ETag"], "PartNumber": n} for n in range(1, 20)]
        outcomes = []

        def complete():
            try:
                s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
                outcomes.append("made")
            except ClientError as error:
                outcomes.append(error.response["Error"]["Code"])

        threads = [threading.Thread(target=complete) for _ in range(4)]
        threads.append(threading.Thread(target=lambda: (time.sleep(0.01), s3.delete_object(Bucket=w.bucket, Key="nobody"))))
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert outcomes == ["made"] * 4, outcomes
        assert s3.get_object(Bucket=w.bucket, Key="ended")["Body"].read() == b"x" * 1_900_000
        s3.put_object(Bucket=w.bucket, Key="ended", Body=b"another")
        complete()
        assert outcomes[4:] == ["NoSuchUpload"], outcomes


if __name__ == "__main__":
    walking.run(globals())
