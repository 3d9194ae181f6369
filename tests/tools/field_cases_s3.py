"""S3 as boto3 does it, with no setting but endpoint and region: what people meet first. Run by walk_objects.py with the boto3 of
both environments; ends with 1 and says which case is not right."""

import datetime
import io
import os
import socket
import sys
import traceback
import urllib.error
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, BUCKET, VIRTUAL = os.environ["AWS_ENDPOINT_URL"], os.environ["BUCKET"], os.environ["VIRTUAL_ENDPOINT"]
# Every name below localhost leads to this machine, whatever resolver it has.
by_name = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **options: by_name("127.0.0.1" if str(host).endswith("localhost") else host, *more, **options)

client = lambda **options: boto3.client("s3", region_name="us-east-1", **options)
s3 = client()
v4 = client(config=Config(signature_version="s3v4"))


def fetch(url, method="GET", data=None, **headers):
    """Status, headers, body: as a browser or curl asks."""
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def refused(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"], str(error)
    raise AssertionError("was not refused")


def case_presigned_with_version_2():
    s3.put_object(Bucket=BUCKET, Key="cases/plain", Body=b"plain")
    url = client(config=Config(signature_version="s3")).generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "cases/plain"})
    assert "AWSAccessKeyId=" in url, url
    status, _, body = fetch(url)
    assert status == 403 and b"AWS4-HMAC-SHA256" in body and b"s3v4" in body and body.startswith(b"<?xml"), body
    # What these tools do by themselves, whichever it is.
    by_itself = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "cases/plain"})
    status, _, body = fetch(by_itself)
    assert status == 200 and body == b"plain" or b"AWS4-HMAC-SHA256" in body, body


def case_presigned_with_other_headers():
    s3.put_object(Bucket=BUCKET, Key="cases/report", Body=b"a;b", ContentType="text/csv", CacheControl="no-cache")
    wanted = {
        "ResponseContentType": ("Content-Type", "application/x-report"),
        "ResponseContentDisposition": ("Content-Disposition", "attachment; filename=\"a b.csv\"; filename*=UTF-8''%C3%A4.csv"),
        "ResponseContentEncoding": ("Content-Encoding", "identity"),
        "ResponseContentLanguage": ("Content-Language", "de"),
        "ResponseCacheControl": ("Cache-Control", "max-age=7"),
        "ResponseExpires": ("Expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
    }
    for operation, method in (("get_object", "GET"), ("head_object", "HEAD")):
        parameters = {name: value for name, (_, value) in wanted.items()}
        url = v4.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": "cases/report", **parameters})
        status, headers, body = fetch(url, method)
        assert status == 200 and body == (b"a;b" if method == "GET" else b""), (status, body)
        for header, value in wanted.values():
            assert headers.get_all(header) == [value], (method, header, headers.get_all(header))
        # Signed: nobody else changes it.
        assert fetch(url.replace("max-age%3D7", "max-age%3D8"), method)[0] == 403
    one = v4.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "cases/report", "ResponseContentType": "a/b"})
    headers = fetch(one)[1]
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("a/b", "no-cache"), headers
    # A line of its own cannot be put in.
    split = v4.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "cases/report", "ResponseContentType": "a/b\r\nSet-Cookie: x=y"})
    status, headers, _ = fetch(split)
    assert status == 400 and "Set-Cookie" not in headers, (status, headers)


GIVEN = dict(
    Metadata={"camera": "front door", "Mixed-Case": "1"}, CacheControl="max-age=60", ContentDisposition="attachment; filename=x.bin",
    ContentEncoding="gzip", ContentLanguage="de-AT", ContentType="application/x-thing",
)


def same(key, given=GIVEN):
    for answer in (s3.head_object(Bucket=BUCKET, Key=key), s3.get_object(Bucket=BUCKET, Key=key), s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=0-0")):
        metadata = {name.lower(): value for name, value in given["Metadata"].items()}
        assert answer["Metadata"] == metadata, answer["Metadata"]
        for name in given.keys() - {"Metadata"}:
            assert answer[name] == given[name], (name, answer.get(name))


def case_metadata_comes_back():
    s3.put_object(Bucket=BUCKET, Key="cases/put", Body=b"body", Expires="Thu, 01 Dec 2033 16:00:00 GMT", **GIVEN)
    same("cases/put")
    head = s3.head_object(Bucket=BUCKET, Key="cases/put")
    assert "2033" in str(head.get("ExpiresString") or head["Expires"]), head
    # As SDKs do it: uploads in parts and in one piece.
    for size in (10, 6 << 20):
        config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
        s3.upload_fileobj(io.BytesIO(b"x" * size), BUCKET, "cases/upload", ExtraArgs=dict(GIVEN), Config=config)
        same("cases/upload")
    source = {"Bucket": BUCKET, "Key": "cases/upload"}
    s3.copy_object(Bucket=BUCKET, Key="cases/copy", CopySource=source)
    same("cases/copy")
    other = {**GIVEN, "Metadata": {"other": "1"}, "CacheControl": "no-store"}
    s3.copy_object(Bucket=BUCKET, Key="cases/copy", CopySource=source, MetadataDirective="REPLACE", **other)
    same("cases/copy", other)
    # Into itself, as metadata is changed.
    s3.copy_object(Bucket=BUCKET, Key="cases/put", CopySource={"Bucket": BUCKET, "Key": "cases/put"}, MetadataDirective="REPLACE", **other)
    same("cases/put", other)
    # Nothing of it stays with what replaces the object.
    s3.put_object(Bucket=BUCKET, Key="cases/put", Body=b"new")
    assert s3.head_object(Bucket=BUCKET, Key="cases/put")["Metadata"] == {}


def case_metadata_that_is_not_ascii():
    """As SDKs that do not look send it, signed as UTF-8: said to be that, and not that the signature is wrong."""
    request = AWSRequest(method="PUT", url=f"{ENDPOINT}/{BUCKET}/cases/not-ascii", headers={"x-amz-meta-name": "Küche"}, data=b"")
    S3SigV4Auth(boto3.Session().get_credentials().get_frozen_credentials(), "s3", "us-east-1").add_auth(request)
    headers = {name: value.encode() for name, value in request.headers.items()}
    status, _, body = fetch(request.url, "PUT", b"", **headers)
    assert status == 400 and b"RFC 2047" in body, (status, body)


def case_what_is_not_kept_is_not_taken():
    put = lambda **more: refused(s3.put_object, Bucket=BUCKET, Key="cases/no", Body=b"", **more)[0]
    assert put(Tagging="a=b") == "NotImplemented"
    assert put(StorageClass="GLACIER") == "NotImplemented"
    assert put(ACL="public-read") == "NotImplemented"
    assert put(ServerSideEncryption="aws:kms") == "NotImplemented"
    assert put(Metadata={"long": "x" * 2048}) == "MetadataTooLarge"
    assert refused(s3.head_object, Bucket=BUCKET, Key="cases/no")[0] == "404"
    # The AWS CLI asks for AES256 with each template that it uploads.
    s3.put_object(Bucket=BUCKET, Key="cases/yes", Body=b"", ACL="private", StorageClass="STANDARD", ServerSideEncryption="AES256")


def case_part_numbers():
    body = os.urandom(100)
    s3.put_object(Bucket=BUCKET, Key="cases/whole", Body=body)
    got = s3.get_object(Bucket=BUCKET, Key="cases/whole", PartNumber=1)
    assert got["Body"].read() == body and got["ResponseMetadata"]["HTTPStatusCode"] == 206, got
    assert (got["ContentRange"], got["PartsCount"]) == ("bytes 0-99/100", 1), got
    assert s3.head_object(Bucket=BUCKET, Key="cases/whole", PartNumber=1)["PartsCount"] == 1
    assert refused(s3.get_object, Bucket=BUCKET, Key="cases/whole", PartNumber=2)[0] == "InvalidPartNumber"
    parts = [os.urandom(5 << 20), os.urandom(5 << 20), os.urandom(17)]
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="cases/parts")["UploadId"]
    place = dict(Bucket=BUCKET, Key="cases/parts", UploadId=upload)
    tags = [s3.upload_part(**place, PartNumber=n, Body=part)["ETag"] for n, part in enumerate(parts, 1)]
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": [{"ETag": t, "PartNumber": n} for n, t in enumerate(tags, 1)]})
    for number, part in enumerate(parts, 1):
        got = s3.get_object(Bucket=BUCKET, Key="cases/parts", PartNumber=number)
        assert got["Body"].read() == part and got["PartsCount"] == 3, (number, got["ContentRange"])
        head = s3.head_object(Bucket=BUCKET, Key="cases/parts", PartNumber=number)
        assert head["ContentLength"] == len(part) and head["PartsCount"] == 3, head
    assert refused(s3.get_object, Bucket=BUCKET, Key="cases/parts", PartNumber=4)[0] == "InvalidPartNumber"
    assert refused(s3.get_object, Bucket=BUCKET, Key="cases/parts", PartNumber=1, Range="bytes=0-1")[0] == "InvalidRequest"


def case_the_bucket_in_the_hosts_name():
    s3.put_object(Bucket=BUCKET, Key=f"cases/{BUCKET}/key", Body=b"by its host")
    virtual = client(endpoint_url=VIRTUAL, config=Config(s3={"addressing_style": "virtual"}))
    assert virtual.get_object(Bucket=BUCKET, Key=f"cases/{BUCKET}/key")["Body"].read() == b"by its host"
    virtual.put_object(Bucket=BUCKET, Key="cases/virtual/ä b", Body=b"there")
    assert s3.get_object(Bucket=BUCKET, Key="cases/virtual/ä b")["Body"].read() == b"there"
    keys = [o["Key"] for o in virtual.list_objects_v2(Bucket=BUCKET, Prefix="cases/virtual/")["Contents"]]
    assert keys == ["cases/virtual/ä b"], keys
    # Another bucket, and a key that begins with this one's name.
    code, text = refused(virtual.get_object, Bucket="another-bucket", Key=f"{BUCKET}/cases/virtual/ä b")
    assert code == "NoSuchBucket" and "path" in text, text
    code, text = refused(virtual.put_object, Bucket="another-bucket", Key=f"{BUCKET}/cases/wrong", Body=b"")
    assert code == "NoSuchBucket" and refused(s3.head_object, Bucket=BUCKET, Key="cases/wrong")[0] == "404"


def known(operation, name):
    """Whether this boto3 knows the parameter: conditions of writes came one after the other."""
    return name in s3.meta.service_model.operation_model(operation).input_shape.members


def case_conditions_of_reads():
    key = dict(Bucket=BUCKET, Key="cases/conditions")
    s3.put_object(**key, Body=b"0123456789")
    tag, at = (s3.head_object(**key)[name] for name in ("ETag", "LastModified"))
    before, after = at - datetime.timedelta(hours=1), at + datetime.timedelta(hours=1)
    for read in (s3.get_object, s3.head_object):
        for given in (
            dict(IfMatch=tag), dict(IfNoneMatch='"other"'), dict(IfModifiedSince=before), dict(IfUnmodifiedSince=at), dict(IfUnmodifiedSince=after),
            # The entity tag is asked for, and not the time.
            dict(IfMatch=tag, IfUnmodifiedSince=before), dict(IfNoneMatch='"other"', IfModifiedSince=after),
        ):
            assert read(**key, **given)["ContentLength"] == 10, given
        for code, given in (
            ("412", dict(IfMatch='"other"')), ("412", dict(IfUnmodifiedSince=before)), ("304", dict(IfNoneMatch=tag)), ("304", dict(IfNoneMatch="W/" + tag)),
            ("304", dict(IfModifiedSince=at)), ("304", dict(IfNoneMatch=tag, IfModifiedSince=before)),
        ):
            said = refused(read, **key, **given)[0]
            assert said in (code, {"412": "PreconditionFailed"}.get(code)), (given, said)
    # What browsers and curl do when they go on with a download: the rest of this object, or all of another one.
    url = v4.generate_presigned_url("get_object", Params=key)
    day = at.strftime("%a, %d %b %Y %H:%M:%S GMT")
    for given, right in ((tag, b"789"), (day, b"789"), ('"other"', b"0123456789"), ("W/" + tag, b"0123456789"), ("Thu, 01 Jan 1970 00:00:00 GMT", b"0123456789")):
        status, _, body = fetch(url, **{"Range": "bytes=7-", "If-Range": given})
        assert (status, body) == (206 if len(right) == 3 else 200, right), (given, status, body)
    copy = lambda **given: s3.copy_object(Bucket=BUCKET, Key="cases/conditions-copy", CopySource=key, **given)
    copy(CopySourceIfUnmodifiedSince=after, CopySourceIfModifiedSince=before)
    for given in (dict(CopySourceIfUnmodifiedSince=before), dict(CopySourceIfModifiedSince=after), dict(CopySourceIfMatch='"other"'), dict(CopySourceIfNoneMatch=tag)):
        assert refused(copy, **given)[0] == "PreconditionFailed", given


def case_conditions_of_writes():
    """Kept, or refused as not implemented; never as if they were not there."""
    key = dict(Bucket=BUCKET, Key="cases/conditional")
    tag = s3.put_object(**key, Body=b"first")["ETag"]
    no = ("PreconditionFailed", "NotImplemented")
    assert refused(s3.put_object, **key, Body=b"second", IfNoneMatch="*")[0] == "PreconditionFailed"
    if known("DeleteObject", "IfMatch"):
        assert refused(s3.delete_object, **key, IfMatch='"other"')[0] in no
    if known("DeleteObjects", "Delete"):
        wrong = {"Objects": [{"Key": key["Key"], "ETag": '"other"'}]}
        if "ETag" in s3.meta.service_model.shape_for("ObjectIdentifier").members:
            try:
                assert s3.delete_objects(Bucket=BUCKET, Delete=wrong)["Errors"][0]["Code"] in no
            except ClientError as error:
                assert error.response["Error"]["Code"] in no, error
    if known("CopyObject", "IfNoneMatch"):
        copy = dict(CopySource={"Bucket": BUCKET, "Key": "cases/plain"})
        s3.put_object(Bucket=BUCKET, Key="cases/plain", Body=b"plain")
        assert refused(s3.copy_object, **key, **copy, IfNoneMatch="*")[0] in no
        assert refused(s3.copy_object, **key, **copy, IfMatch='"other"')[0] in no
    if known("CompleteMultipartUpload", "IfNoneMatch"):
        upload = s3.create_multipart_upload(**key)["UploadId"]
        part = s3.upload_part(**key, UploadId=upload, PartNumber=1, Body=b"third")["ETag"]
        complete = lambda **given: s3.complete_multipart_upload(**key, UploadId=upload, MultipartUpload={"Parts": [{"ETag": part, "PartNumber": 1}]}, **given)
        assert refused(complete, IfNoneMatch="*")[0] in no
        assert refused(complete, IfMatch='"other"')[0] in no
    assert s3.get_object(**key)["Body"].read() == b"first"
    if known("DeleteObject", "IfMatch"):
        s3.delete_object(**key, IfMatch=tag)
        assert refused(s3.head_object, **key)[0] == "404"


def case_presigned_calls_of_other_services():
    sts = boto3.client("sts", region_name="us-east-1")
    url = sts.generate_presigned_url("get_caller_identity", HttpMethod="GET")
    status, _, body = fetch(url)
    assert status == 200 and b"GetCallerIdentityResult" in body, body
    # Its holder adds nothing: no body, no other word for it.
    status, _, body = fetch(url, data=b"Action=GetSessionToken&Version=2011-06-15")
    assert status == 403, body
    status, _, body = fetch(url, **{"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    assert status == 403, body


if __name__ == "__main__":
    print(f"boto3 {boto3.__version__}")
    failed = 0
    for name, case in [(n, f) for n, f in globals().items() if n.startswith("case_")]:
        try:
            case()
            print(f"ok      {name[5:]}")
        except Exception:
            failed += 1
            print(f"FAILED  {name[5:]}")
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)
