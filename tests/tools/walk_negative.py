"""What must be refused is refused, in the model's words, and nothing is written.

One wrong input for every constraint of the published model, from the model; and requests that are no such thing at all."""

import json
import socket
import time
import urllib.parse

import published_model
import values
import walking
from botocore.credentials import Credentials
from raw import Raw, request_of
from walking import waits

# A device that is there, so that a wrong input that were taken would change something.
KNOWN = {}


def written(w):
    """All that a request could have changed: rows, and objects' files."""
    # Who called what is recorded for refusals too; a copy's sign of life is nobody's request.
    tables = [t for t in w.service.backends.tables(w.service.data)
              if not any(word in t for word in ("audit", "rate", "service_copy"))]
    rows = w.service.backends.rows(w.service.data, tables)
    files = sorted(map(str, w.service.backends.objects()))
    files += sorted(str(p.relative_to(w.service.data)) for p in w.service.data.rglob("*")
                   if p.is_file() and not p.name.endswith(("-wal", "-shm", "-journal")) and "audit" not in str(p) and ".log" not in p.name)
    return rows, files


def changed(before, after):
    tables = [t for t in before[0].keys() | after[0].keys() if before[0].get(t) != after[0].get(t)]
    # What was replaced goes from a bucket an hour later; files outside the data directory have whole paths.
    gone = [f for f in set(before[1]) - set(after[1]) if not f.startswith("/")]
    return tables + sorted(gone) + sorted(set(after[1]) - set(before[1]))


def test_there_is_something_that_could_be_changed(w):
    w.model = published_model.published()
    w.raw = Raw(w.service)
    panorama = w.boto("panorama")
    device = panorama.provision_device(Name="hall", Tags={"a": "1"})
    package = panorama.create_package(PackageName="CODE")
    w.place = package["StorageLocation"]
    KNOWN.update({"DeviceId": device["DeviceId"], "ResourceArn": device["Arn"], "NodePackageId": package["PackageId"]})
    before = written(w)
    panorama.create_package(PackageName="OTHER")
    assert changed(before, written(w)), "a change is not seen"


def test_every_constraint_of_the_model_is_enforced(w):
    before, count, kinds, wrong, absent = written(w), 0, {}, [], set()
    for name, operation in w.model["operations"].items():
        shape = operation["input"]["shape"]
        whole = values.right(w.model, shape, KNOWN)
        for what, changed_input, at in values.wrong_members(w.model, shape, whole):
            answer = w.raw.call(*request_of(w.model, name, changed_input))
            count += 1
            kinds[what.split(" ")[0]] = kinds.get(what.split(" ")[0], 0) + 1
            expected = at.removeprefix(".")
            if answer.status == 400 and answer.document.get("Reason") == "UNKNOWN_OPERATION":
                absent.add(name)
                continue
            if (answer.status, answer.code) != (400, "ValidationException") or answer.fields != [expected]:
                wrong.append(f"{name} {expected} ({what}): {answer}")
    assert not wrong, f"{len(wrong)} of {count}\n" + "\n".join(wrong[:20])
    assert count > 2000, count
    assert not absent, f"these are not answered at all: {sorted(absent)}"
    print(f"        {count} wrong inputs over {w.raw.opened} connection(s): {kinds}")
    assert w.raw.opened <= 3, w.raw.opened
    assert not changed(before, written(w)), changed(before, written(w))


def with_bodies(model):
    for name, operation in model["operations"].items():
        if any("location" not in m for m in model["shapes"][operation["input"]["shape"]]["members"].values()):
            method, path, body = request_of(model, name, values.right(model, operation["input"]["shape"], KNOWN))
            yield name, method, path, json.loads(body)


def test_bodies_that_are_no_documents(w):
    before, count = written(w), 0
    nested = b'{"Name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    objects = b'{"Tags":' * 100_000 + b"1" + b"}" * 100_000
    for name, method, path, good in with_bodies(w.model):
        text = json.dumps(good).encode()
        for body in (b"{", b"[]", b'"a"', b"nul", b"1", text + b"x", text[:-1], text[:-1] + b",}", b"\xef\xbb\xbf" + text, text[:-1] + b',"a":\xff}',
                     text[:-1] + b',"a":"\\ud800"}', text[:-1] + b',"a":NaN}', text[:-1] + b',"a":1e999}', text[:-1] + b",'a':1}",
                     b"\x00", b"{}\x00", nested, objects, b"<a/>", b"a=b"):
            answer = w.raw.call(method, path, body)
            count += 1
            assert (answer.status, answer.code) == (400, "ValidationException"), (name, body[:80], answer)
        # Nesting that a parser may follow, where a member wants something else.
        member = next(iter(good))
        deep = json.dumps({**good, member: json.loads("[" * 100 + "]" * 100)}).encode()
        answer = w.raw.call(method, path, deep)
        assert answer.status == 400 and (not answer.fields or answer.fields[0].startswith(member)), (name, answer)
    print(f"        {count} bodies")
    assert not changed(before, written(w)), changed(before, written(w))


def test_paths_that_are_no_operations(w):
    before = written(w)
    for method, path in (("GET", "/"), ("GET", "/devices/"), ("GET", "//devices"), ("GET", "/devices//"), ("PATCH", "/devices"),
                         ("POST", "/devices/a"), ("GET", "/devices/a/b/c"), ("GET", "/DEVICES"), ("GET", "/devices/%ff"), ("PUT", "/tags"),
                         ("GET", "/" + "a/" * 3000), ("OPTIONS", "/devices"), ("TRACE", "/devices"), ("BREW", "/devices")):
        answer = w.raw.call(method, path)
        assert (answer.status, answer.code) == (400, "ValidationException"), (path, answer)
        assert answer.document["Reason"] == "UNKNOWN_OPERATION", (path, answer)
    assert not changed(before, written(w)), changed(before, written(w))


def test_signatures_that_are_not_right(w):
    before = written(w)
    body = json.dumps({"Name": "forged"}).encode()
    refused = lambda what, answer: (_ for _ in ()).throw(AssertionError((what, answer))) if answer.status != 403 else None
    wrong_secret = Credentials(w.raw.key.access_key, "wrong")
    refused("secret", w.raw.call("POST", "/devices", body, key=wrong_secret))
    refused("key", w.raw.call("POST", "/devices", body, key=Credentials("AKIA" + "A" * 16, w.raw.key.secret_key)))
    refused("empty secret", w.raw.call("POST", "/devices", body, key=Credentials(w.raw.key.access_key, "")))
    refused("token", w.raw.call("POST", "/devices", body, key=Credentials(w.raw.key.access_key, w.raw.key.secret_key, "token")))
    path, good = w.raw.signed("POST", "/devices", body)
    without = lambda *names: {k: v for k, v in good.items() if k not in names}
    for what, arguments in {
        "nothing": ("POST", path, body, {}),
        "another body": ("POST", path, body.replace(b"forged", b"forced"), good),
        "no body": ("POST", path, b"", good),
        "another path": ("POST", "/packages", body, good),
        "another method": ("PUT", path, body, good),
        "a query": ("POST", path + "?a=b", body, good),
        "an unsigned header": ("POST", path, body, {**good, "X-Amz-Target": "a"}),
        "no date": ("POST", path, body, without("X-Amz-Date")),
        "another date": ("POST", path, body, {**good, "X-Amz-Date": "20200101T000000Z"}),
        "another host": ("POST", path, body, {**good, "Host": "example.com"}),
        "a forged hash": ("POST", path, body, {**good, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}),
    }.items():
        refused(what, w.raw.send(*arguments))
    authorization = good["Authorization"]
    for text in ("", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 ", "Bearer abc", authorization[:-1], authorization + "0", authorization.upper(),
                 authorization.replace("us-east-1", "us-west-2"), authorization.replace("/panorama/", "/s3/"),
                 authorization.replace("/panorama/", "/sts/"), authorization.replace("aws4_request", "aws4"), authorization + ", Signature=0",
                 authorization.replace("SHA256 ", "SHA256  Credential=a,"), authorization.replace("host", ""), "AWS4-HMAC-SHA256 " + "a=b," * 5000,
                 authorization.replace("Credential=", "Credential=/"), authorization.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")):
        refused(text[:200], w.raw.send("POST", path, body, {**good, "Authorization": text}))
    assert w.raw.call("POST", "/devices", body, service="nonesuch").status == 404
    for minutes in (-16, 16, -60 * 24, 60 * 24 * 365):
        refused(f"{minutes} minutes", w.raw.call("POST", "/devices", body, minutes=minutes))
    # Presigned.
    for what, options in {"expired": dict(minutes=-3, expires=60), "too long": dict(expires=8 * 24 * 3600), "not yet": dict(minutes=16, expires=60),
                          "secret": dict(key=wrong_secret, expires=60)}.items():
        path, headers = w.raw.signed("GET", f"/{w.place['Bucket']}/a", service="s3", **options)
        refused(what, w.raw.send("GET", path, headers=headers))
    path, headers = w.raw.signed("GET", f"/{w.place['Bucket']}/a", service="s3", expires=60)
    assert w.raw.send("GET", path, headers=headers).status == 404
    for text in (path.replace("/a?", "/b?"), path + "&a=b", path.replace("Expires=60", "Expires=6000"), path + "&X-Amz-Expires=60",
                 path.replace("Expires=60", "Expires=-1"), path.replace("Expires=60", "Expires=x"), path.replace("SignedHeaders=host", "SignedHeaders="),
                 path[: path.index("&X-Amz-Signature")]):
        refused(text, w.raw.send("GET", text, headers=headers))
    refused("another method", w.raw.send("DELETE", path, headers=headers))
    assert not changed(before, written(w)), changed(before, written(w))


def test_what_was_overheard_of_the_tools_is_refused(w):
    """They sign every attempt anew: what comes again a quarter of a minute later is somebody else's."""
    overheard = []

    def listening(name, **options):
        client = w.boto(name, **options)
        client.meta.events.register("before-send", lambda request, **_: overheard.append((request.method, request.url, request.headers, request.body)))
        return client

    panorama, s3, logs = listening("panorama"), listening("s3"), listening("logs")
    panorama.create_package(PackageName="OVERHEARD")
    place = dict(Bucket=w.place["Bucket"], Key=f"{w.place['BinaryPrefixLocation']}/overheard")
    s3.put_object(**place, Body=b"first")
    s3.put_object(**place, Body=b"second")
    logs.create_log_group(logGroupName="overheard")
    panorama.delete_package(PackageId="packageName/OVERHEARD")
    logs.delete_log_group(logGroupName="overheard")
    assert len(overheard) == 6, overheard
    before = written(w)
    time.sleep(17)
    for method, url, headers, body in overheard:
        if hasattr(body, "read"):
            body.seek(0)
            body = body.read()
        kept = {k: v.decode() if isinstance(v, bytes) else v for k, v in headers.items() if k not in ("Content-Length", "Expect")}
        answer = w.raw.send(method, url.split(w.raw.host, 1)[1], body or b"", kept)
        assert answer.status == 403 and b"taken already" in answer.body, (method, url, answer)
    assert not changed(before, written(w)), changed(before, written(w))
    assert s3.get_object(**place)["Body"].read() == b"second"
    s3.delete_object(**place)


def test_a_request_is_old_after_a_quarter_of_an_hour(w):
    """Within the next seconds the same may be asked again: whoever asks twice in one second signs twice the same."""
    body = json.dumps({"PackageName": "REPLAYED"}).encode()
    path, headers = w.raw.signed("POST", "/packages", body, minutes=-14)
    assert w.raw.send("POST", path, body, headers).status == 200
    before = written(w)
    assert w.raw.send("POST", path, body, headers).code == "ConflictException"  # creating is done once
    path, headers = w.raw.signed("POST", "/packages", body.replace(b"REPLAYED", b"LATER"), minutes=-15.1)
    assert w.raw.send("POST", path, body.replace(b"REPLAYED", b"LATER"), headers).code == "SignatureDoesNotMatch"
    assert not changed(before, written(w)), changed(before, written(w))


def over(w, head, body=b"", pieces=1):
    """Bytes as they are, over a connection of their own; the status, or None where the service hangs up."""
    host, port = w.raw.host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        try:
            connection.sendall(head)
            for _ in range(pieces):
                connection.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered already, and reads no more
        try:
            answer = connection.recv(65536)
        except ConnectionResetError:
            return None
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.") else None


def test_too_much_of_anything(w):
    before = written(w)
    megabyte = b" " * (1 << 20)
    large = b'{"Name":"large"' + megabyte * 2 + b"}"
    path, headers = w.raw.signed("POST", "/devices", large)
    head = lambda **more: (f"POST {path} HTTP/1.1\r\nHost: {w.raw.host}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in {**headers, **more}.items()) + "\r\n").encode()
    assert over(w, head(**{"Content-Length": len(large)}), large) in (413, None)
    assert over(w, head(**{"Content-Length": 10**12}), megabyte, 4) in (413, None)
    assert over(w, head(**{"Transfer-Encoding": "chunked"}), b"100000\r\n" + megabyte + b"\r\n", 4) in (413, None)
    assert over(w, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n") in (400, None)
    assert over(w, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab") in (400, None)
    assert over(w, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n") in (400, 403, None)
    assert over(w, b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n") in (400, 414, 431, None)
    assert over(w, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: " + b"b" * 1_000_000 + b"\r\n\r\n") in (400, 431, None)
    assert over(w, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"A%d: b\r\n" % i for i in range(5000)) + b"\r\n") in (400, 431, None)
    assert over(w, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)) in (400, None)
    assert over(w, b"GET / HTTP/9.9\r\n\r\n") in (400, 505, None)
    assert not changed(before, written(w)), changed(before, written(w))
    assert w.raw.call("GET", "/devices").status == 200


def test_keys_with_tricks(w):
    before, bucket = written(w), w.place["Bucket"]
    for key in ("../a", "../../../../etc/passwd", "a/../../b", "a/..", "..", ".", "./a", "a/./b", "%2e%2e/a", "..%2fa", "a%2f..%2f..%2fb", "%2e%2e%2fa",
                "..\\a", "..%5ca", "a%00b", "a%0ab", "%0d%0aX:%20y", "%7f", "%c2%85", "a" * 1025, "%ff", "%c0%ae%c0%ae/a"):
        for method in ("PUT", "GET", "DELETE", "HEAD", "POST"):
            # Signed as the service reads it, sent as it is written here.
            _, headers = w.raw.signed(method, f"/{bucket}/{urllib.parse.quote(urllib.parse.unquote_to_bytes(key), safe='/-_.~')}",
                                      b"x" if method == "PUT" else b"", service="s3")
            answer = w.raw.send(method, f"/{bucket}/{key}", b"x" if method == "PUT" else b"", headers)
            assert answer.status == 400, (method, key, answer)
    for other in ("nonesuch", "..", "%2e%2e", ".", "a%2fb", "%00"):
        assert w.raw.call("PUT", f"/{other}/a", b"x", service="s3").status in (400, 403, 404), other
    assert not changed(before, written(w)), changed(before, written(w))
    # Odd but harmless names are names.
    keys = ("a..b", "...", "a//b", "~a", "a b", "ä/ö", "a+b", "a%b", "-rf", "$(id)", "con", "a;b", "'", '"', "*?[]", "....")
    for key in keys:
        path = f"/{bucket}/odd/" + urllib.parse.quote(key)
        assert w.raw.call("PUT", path, key.encode(), service="s3").status == 200, key
        assert w.raw.call("GET", path, service="s3").body == key.encode(), key
        assert w.raw.call("DELETE", path, service="s3").status == 204, key
    left = changed(before, written(w))
    # Of a bucket the bytes go an hour later (service x04: somebody may still be reading them); no row names them.
    in_a_bucket = [name for name in left if name.startswith("/")]
    assert left == in_a_bucket and len(left) in (0, len(keys)), left


def test_objects_that_are_not_what_was_signed(w):
    before, path = written(w), f"/{w.place['Bucket']}/broken"
    signed = lambda body, **headers: w.raw.signed("PUT", path, body, service="s3", headers={k.replace("_", "-"): v for k, v in headers.items()})
    target, headers = signed(b"what was signed")
    assert w.raw.send("PUT", target, b"something else!", headers).status in (400, 403)
    for name, value in (("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="), ("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-sha256", "AAAA"),
                        ("x-amz-decoded-content-length", "3"), ("x-amz-content-sha256", "STREAMING-NONESUCH"), ("x-amz-content-sha256", "abc"),
                        ("x-amz-copy-source", "/a/b")):
        target, headers = signed(b"content", **{name: value})
        answer = w.raw.send("PUT", target, b"content", headers)
        assert 400 <= answer.status < 502 and answer.status != 500, (name, answer)
    forged = b"7;chunk-signature=" + b"0" * 64 + b"\r\ncontent\r\n0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n"
    for what in ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"):
        for body in (b"", b"7\r\ncontent\r\n", forged if "HMAC" in what else b"0;", b"7\r\ncontent\r\n0\r\n\r\nmore", b"-7\r\ncontent\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"7\r\ncontentX\r\n0\r\n\r\n",
                     b"7;" + b"a" * 2000 + b"\r\n", b"7\ncontent\n0\n\n", b"zz\r\n", b"0\r\n" + b"a:b\r\n" * 9 + b"\r\n", b"\xff\r\n",
                     b"7;chunk-signature=" + b"0" * 64 + b"\r\ncontent\r\n0;chunk-signature=" + b"0" * 64 + b"\r\nodd\r\n",
                     b"7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"):
            target, headers = signed(body, **{"x-amz-content-sha256": what, "content-encoding": "aws-chunked"})
            answer = w.raw.send("PUT", target, body, headers)
            assert answer.status in (400, 403), (what, body[:60], answer)
    assert w.raw.call("GET", path, service="s3").status == 404
    waits("nothing is left", lambda: not changed(before, written(w)))


def test_the_service_still_answers_and_logged_no_fault_of_its_own(w):
    assert [d["Name"] for d in w.boto("panorama").list_devices()["Devices"]] == ["hall"]
    assert "panicked" not in w.service.log() and " ERROR " not in w.service.log(), w.service.log()[-2000:]
    print(f"        {w.raw.sent} requests over {w.raw.opened} connections")


walking.run(globals())
