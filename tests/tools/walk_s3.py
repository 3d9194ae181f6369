"""Objects with the real tools: large files both ways, parts, copies, lists, conditions, checksums, presigned requests."""

import base64
import hashlib
import http.client
import subprocess
import time

from botocore.config import Config
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import walking
from walking import refused

SIZE = 300 * 1024 * 1024


def test_a_large_file_over_http_and_https(w):
    w.bucket = w.boto("s3").list_buckets()["Buckets"][0]["Name"]
    path = w.folder / "large"
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        # Every block another one, so that a part in the wrong place is noticed.
        for n in range(SIZE // (1 << 20)):
            block = hashlib.sha256(n.to_bytes(4, "big")).digest() * ((1 << 20) // 32)
            file.write(block)
            digest.update(block)
    https = f"https://{w.service.endpoints['device_https']}"
    for name, changes in (("http", {}), ("https", {"AWS_ENDPOINT_URL": https, "AWS_CA_BUNDLE": str(w.service.data / "ca.pem")})):
        began = time.monotonic()
        w.service.run("aws", "s3", "cp", "--no-progress", path, f"s3://{w.bucket}/large-{name}", **changes)
        up = time.monotonic() - began
        began = time.monotonic()
        w.service.run("aws", "s3", "cp", "--no-progress", f"s3://{w.bucket}/large-{name}", w.folder / "back", **changes)
        down = time.monotonic() - began
        with open(w.folder / "back", "rb") as back:
            assert hashlib.file_digest(back, "sha256").digest() == digest.digest(), name
        print(f"measured: 300 MiB over {name}: up {SIZE / up / 1e6:.0f} MB/s, down {SIZE / down / 1e6:.0f} MB/s")
        w.boto("s3").delete_object(Bucket=w.bucket, Key=f"large-{name}")
    path.unlink()
    (w.folder / "back").unlink()


def test_an_empty_object_and_another_on_the_same_connection(w):
    s3, began = w.boto("s3"), time.monotonic()
    for key, body in (("first", b""), ("second", b"something"), ("third", b""), ("fourth", b"more")):
        s3.put_object(Bucket=w.bucket, Key=f"small/{key}", Body=body)
        assert s3.get_object(Bucket=w.bucket, Key=f"small/{key}")["Body"].read() == body
    assert time.monotonic() - began < 30, "boto3 waited for the rest of an answer that was there"


def test_one_piece_over_both(w):
    body = bytes(range(256)) * 8192
    secure = w.boto("s3", endpoint_url=f"https://{w.service.endpoints['device_https']}", verify=str(w.service.data / "ca.pem"))
    for name, client in (("http", w.boto("s3")), ("https", secure)):
        for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
            if algorithm in ("CRC32C", "CRC64NVME"):
                continue  # boto3 wants awscrt for these; see the raw requests below
            put = client.put_object(Bucket=w.bucket, Key=f"one/{name}-{algorithm}", Body=body, ChecksumAlgorithm=algorithm)
            assert put[f"Checksum{algorithm}"], put
        got = client.get_object(Bucket=w.bucket, Key=f"one/{name}-CRC32", ChecksumMode="ENABLED")
        assert got["Body"].read() == body and got["ChecksumCRC32"]
    refused("BadDigest", w.boto("s3").put_object, Bucket=w.bucket, Key="one/bad", Body=b"x", ContentMD5=base64.b64encode(b"0" * 16).decode())
    refused("NoSuchKey", w.boto("s3").get_object, Bucket=w.bucket, Key="one/bad")


class Auth(S3SigV4Auth):
    """Signs with the word for the body's hash that it is told."""

    def __init__(self, w, word=None, secret=None):
        key = w.service.key
        super().__init__(Credentials(key["AWS_ACCESS_KEY_ID"], secret or key["AWS_SECRET_ACCESS_KEY"]), "s3", "us-east-1")
        self.word = word

    def payload(self, request):
        return self.word or super().payload(request)


def raw(w, method, path, body=b"", headers=None, word=None):
    """A signed request with just these headers; its status and body."""
    url = f"http://{w.service.endpoints['api']}/{path}"
    request = AWSRequest(method, url, data=body, headers=headers or {})
    Auth(w, word).add_auth(request)
    connection = http.client.HTTPConnection(w.service.endpoints["api"], timeout=60)
    connection.request(method, "/" + path, body, dict(request.headers.items()))
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_checksums_that_no_client_here_makes(w):
    digits, key = b"123456789", f"{w.bucket}/one/raw"
    for name, value in (("crc32c", 0xE3069283.to_bytes(4, "big")), ("crc64nvme", 0xAE8B14860A799888.to_bytes(8, "big"))):
        header = f"x-amz-checksum-{name}"
        assert raw(w, "PUT", key, digits, {header: base64.b64encode(value).decode()})[0] == 200, name
        status, text = raw(w, "PUT", key, b"other", {header: base64.b64encode(value).decode()})
        assert status == 400 and "BadDigest" in text, text
        chunked = b"9\r\n123456789\r\n0\r\n" + header.encode() + b":" + base64.b64encode(value) + b"\r\n\r\n"
        headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "9", "x-amz-trailer": header}
        word = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        assert raw(w, "PUT", key, chunked, headers, word)[0] == 200, name
        status, text = raw(w, "PUT", key, chunked.replace(b"345", b"543"), headers, word)
        assert status == 400 and "BadDigest" in text, text
    assert w.boto("s3").get_object(Bucket=w.bucket, Key="one/raw")["Body"].read() == digits
    assert raw(w, "PUT", key, digits, {"x-amz-checksum-xxhash64": "AAAA"})[0] == 400


def test_parts(w):
    s3, key = w.boto("s3"), "parts/object"
    upload = s3.create_multipart_upload(Bucket=w.bucket, Key=key, ContentType="text/x-parts")["UploadId"]
    other = s3.create_multipart_upload(Bucket=w.bucket, Key="parts/other")["UploadId"]
    pieces = [bytes([n]) * 5_242_880 for n in (1, 2)] + [b"end"]
    # The last first: order is what the client says at the end.
    etags = {n: s3.upload_part(Bucket=w.bucket, Key=key, UploadId=upload, PartNumber=n, Body=pieces[n - 1])["ETag"] for n in (3, 2, 1)}
    listed = s3.list_parts(Bucket=w.bucket, Key=key, UploadId=upload, MaxParts=2)
    assert [(p["PartNumber"], p["Size"]) for p in listed["Parts"]] == [(1, 5_242_880), (2, 5_242_880)] and listed["IsTruncated"]
    rest = s3.list_parts(Bucket=w.bucket, Key=key, UploadId=upload, PartNumberMarker=listed["NextPartNumberMarker"])
    assert [p["PartNumber"] for p in rest["Parts"]] == [3] and not rest["IsTruncated"]
    uploads = s3.list_multipart_uploads(Bucket=w.bucket, Prefix="parts/")["Uploads"]
    assert [(u["Key"], u["UploadId"]) for u in uploads] == [(key, upload), ("parts/other", other)]
    page = s3.list_multipart_uploads(Bucket=w.bucket, MaxUploads=1)
    assert page["IsTruncated"] and len(page["Uploads"]) == 1
    next_page = s3.list_multipart_uploads(Bucket=w.bucket, KeyMarker=page["NextKeyMarker"], UploadIdMarker=page["NextUploadIdMarker"])
    assert [u["Key"] for u in next_page["Uploads"]] == ["parts/other"]
    parts = lambda numbers: {"Parts": [{"PartNumber": n, "ETag": etags[n]} for n in numbers]}
    complete = lambda numbers: s3.complete_multipart_upload(Bucket=w.bucket, Key=key, UploadId=upload, MultipartUpload=parts(numbers))
    refused("InvalidPartOrder", complete, numbers=(2, 1))
    refused("NoSuchKey", s3.get_object, Bucket=w.bucket, Key=key)
    assert complete((1, 2, 3))["ETag"].endswith('-3"')
    got = s3.get_object(Bucket=w.bucket, Key=key)
    assert got["Body"].read() == b"".join(pieces) and got["ContentType"] == "text/x-parts"
    # Asked again, as clients do whose first request took too long: the same answer.
    assert complete((1, 2, 3))["ETag"].endswith('-3"')
    s3.abort_multipart_upload(Bucket=w.bucket, Key="parts/other", UploadId=other)
    refused("NoSuchUpload", s3.list_parts, Bucket=w.bucket, Key="parts/other", UploadId=other)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=w.bucket)
    # A part that is a copy.
    upload = s3.create_multipart_upload(Bucket=w.bucket, Key="parts/copy")["UploadId"]
    copied = s3.upload_part_copy(Bucket=w.bucket, Key="parts/copy", UploadId=upload, PartNumber=1,
                                 CopySource={"Bucket": w.bucket, "Key": key}, CopySourceRange="bytes=5242879-5242880")["CopyPartResult"]
    s3.complete_multipart_upload(Bucket=w.bucket, Key="parts/copy", UploadId=upload,
                                 MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": copied["ETag"]}]})
    assert s3.get_object(Bucket=w.bucket, Key="parts/copy")["Body"].read() == b"\x01\x02"


def test_copies_and_conditions(w):
    s3 = w.boto("s3")
    etag = s3.put_object(Bucket=w.bucket, Key="a b/ä+1", Body=b"0123456789", ContentType="text/plain")["ETag"]
    assert s3.copy_object(Bucket=w.bucket, Key="copy", CopySource={"Bucket": w.bucket, "Key": "a b/ä+1"})["CopyObjectResult"]["ETag"] == etag
    got = s3.head_object(Bucket=w.bucket, Key="copy")
    assert (got["ContentLength"], got["ContentType"], got["ETag"]) == (10, "text/plain", etag)
    refused("NoSuchKey", s3.copy_object, Bucket=w.bucket, Key="copy", CopySource={"Bucket": w.bucket, "Key": "nothing"})
    w.service.run("aws", "s3", "mv", f"s3://{w.bucket}/copy", f"s3://{w.bucket}/moved")
    refused("404", s3.head_object, Bucket=w.bucket, Key="copy")
    get = lambda **more: s3.get_object(Bucket=w.bucket, Key="moved", **more)
    assert get(Range="bytes=2-4")["Body"].read() == b"234" and get(Range="bytes=-3")["ContentRange"] == "bytes 7-9/10"
    refused("InvalidRange", get, Range="bytes=10-")
    assert get(IfMatch=etag)["Body"].read() == b"0123456789"
    refused("PreconditionFailed", get, IfMatch='"other"')
    refused("304", get, IfNoneMatch=etag)
    put = lambda **more: s3.put_object(Bucket=w.bucket, Key="moved", Body=b"new", **more)
    refused("PreconditionFailed", put, IfNoneMatch="*")
    refused("PreconditionFailed", put, IfMatch='"other"')
    assert get()["Body"].read() == b"0123456789"
    put(IfMatch=etag)
    assert get()["Body"].read() == b"new"


def test_lists(w):
    s3 = w.boto("s3")
    keys = sorted([f"list/{n:02}" for n in range(12)] + ["list/dir/a", "list/dir/b", "list/x&y <z>"])
    for key in keys:
        s3.put_object(Bucket=w.bucket, Key=key, Body=b"")
    for operation, size in (("list_objects_v2", "MaxKeys"), ("list_objects", "MaxKeys")):
        pages = s3.get_paginator(operation).paginate(Bucket=w.bucket, Prefix="list/", **{size: 5})
        assert [o["Key"] for page in pages for o in page.get("Contents", [])] == keys, operation
        pages = list(s3.get_paginator(operation).paginate(Bucket=w.bucket, Prefix="list/", Delimiter="/", **{size: 4}))
        assert [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])] == ["list/dir/"], operation
        assert [o["Key"] for page in pages for o in page.get("Contents", [])] == [k for k in keys if "dir" not in k]
    url = s3.list_objects_v2(Bucket=w.bucket, Prefix="list/x", EncodingType="url")
    assert url["Contents"][0]["Key"] == "list/x%26y%20%3Cz%3E", url
    assert s3.get_bucket_location(Bucket=w.bucket)["LocationConstraint"] is None
    s3.head_bucket(Bucket=w.bucket)
    refused("404", s3.head_bucket, Bucket="nobody")
    deleted = s3.delete_objects(Bucket=w.bucket, Delete={"Objects": [{"Key": k} for k in keys] + [{"Key": "list/never"}]})
    assert {d["Key"] for d in deleted["Deleted"]} == {*keys, "list/never"} and "Errors" not in deleted
    assert s3.list_objects_v2(Bucket=w.bucket, Prefix="list/")["KeyCount"] == 0
    refused("NotImplemented", s3.get_bucket_versioning, Bucket=w.bucket)


def curl(*arguments):
    return subprocess.run(["curl", "--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}", *arguments], capture_output=True, text=True).stdout.rsplit("\n", 1)


def test_presigned_requests(w):
    s3 = w.boto("s3", config=Config(signature_version="s3v4"))
    s3.put_object(Bucket=w.bucket, Key="signed/a b", Body=b"for you")
    # In us-east-1 these tools presign with version 2, which this service does not take, unless they are told.
    config = w.folder / "config"
    config.write_text("[default]\ns3 =\n  signature_version = s3v4\n")
    presign = lambda seconds: w.service.run("aws", "s3", "presign", f"s3://{w.bucket}/signed/a b", "--expires-in", seconds, AWS_CONFIG_FILE=str(config)).strip()
    url = presign(60)
    assert curl(url) == ["for you", "200"]
    assert curl(url.replace("a%20b", "other"))[1] == "403"
    assert curl("--request", "DELETE", url)[1] == "403"
    assert curl(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))[1] == "403"
    short = presign(1)
    time.sleep(2.1)
    text, status = curl(short)
    assert status == "403" and "expired" in text, text
    put = s3.generate_presigned_url("put_object", Params={"Bucket": w.bucket, "Key": "signed/up"}, ExpiresIn=60)
    assert curl("--upload-file", "/etc/hostname", put)[1] == "200"
    assert s3.head_object(Bucket=w.bucket, Key="signed/up")["ContentLength"] > 0


def test_continue_before_the_body(w):
    """A refused upload is refused before its body travels."""
    import socket
    host, port = w.service.endpoints["api"].split(":")
    url = f"http://{host}:{port}/{w.bucket}/expect"

    def first_line(secret):
        request = AWSRequest("PUT", url, data=b"")
        Auth(w, "UNSIGNED-PAYLOAD", secret).add_auth(request)
        headers = "".join(f"{n}: {v}\r\n" for n, v in request.headers.items() if n.lower() not in ("content-length", "expect"))
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"PUT /{w.bucket}/expect HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n{headers}\r\n".encode())
            answer = connection.recv(4096).decode()
            if "100" in answer.split("\r\n")[0]:
                connection.sendall(b"hello")
                answer += connection.recv(4096).decode()
            return answer

    good = first_line(w.service.key["AWS_SECRET_ACCESS_KEY"])
    assert good.startswith("HTTP/1.1 100") and "HTTP/1.1 200" in good, good
    bad = first_line("wrong")
    assert bad.startswith("HTTP/1.1 403"), bad
    assert w.boto("s3").get_object(Bucket=w.bucket, Key="expect")["Body"].read() == b"hello"


walking.run(globals())
