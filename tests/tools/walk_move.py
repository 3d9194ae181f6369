"""A service moves through backups, from any database and object store to any other, and stays the same service."""

import gzip
import json
import os
import tarfile
import time

import walking
from backends import Servers
from service import BIN, Moved

PROGRAM = BIN / "belvedere-service"
PASSWORD = "swordfish-4712"


def program(w, *arguments, **options):
    return w.service.run(PROGRAM, *arguments, **options)


def rows(archive):
    """The rows of a backup, by table; without what belongs to the moment alone."""
    found, table = {}, None
    with tarfile.open(archive) as entries:
        text = gzip.decompress(entries.extractfile("rows.jsonl.gz").read()).decode()
    for line in text.splitlines():
        value = json.loads(line)
        if isinstance(value, dict):
            table, names = value["table"], [name for name, _ in value["columns"]]
            found[table] = []
        else:
            row = dict(zip(names, value))
            if table == "service_owner":
                # A restored service has an identity of its own, or it would take the original's objects for its own.
                row = {name: row[name] for name in row if name not in ("identity", "mark")}
            found[table].append(json.dumps(row, sort_keys=True))
    momentary = ("service_copy", "mqtt_connection", "copy_note")
    return {table: sorted(lines) for table, lines in found.items() if table not in momentary}


def test_a_service_with_something_of_everything(w):
    plain = getattr(w.service.backends, "backends", w.service.backends)  # those without a broker
    w.servers = plain if isinstance(plain, Servers) else Servers(w.folder)
    w.service.secrets += [PASSWORD, *w.servers.secrets]
    panorama, s3, logs = w.boto("panorama"), w.boto("s3"), w.boto("logs")
    w.device_id = panorama.provision_device(Name="door", Description="the door \U0001F6AA")["DeviceId"]
    panorama.create_node_from_template_job(
        NodeName="CAMERA", OutputPackageName="CAMERA", OutputPackageVersion="1.0", TemplateType="RTSP_CAMERA_STREAM",
        TemplateParameters={"StreamUrl": "rtsp://10.0.0.1/s", "Username": "u", "Password": PASSWORD})
    w.bucket = s3.list_buckets()["Buckets"][0]["Name"]
    w.objects = {"empty": b"", "small": b"first", "large": os.urandom(17_000_000)}
    for key, body in w.objects.items():
        s3.put_object(Bucket=w.bucket, Key=key, Body=body)
    w.upload = s3.create_multipart_upload(Bucket=w.bucket, Key="parts")["UploadId"]
    w.part = s3.upload_part(Bucket=w.bucket, Key="parts", UploadId=w.upload, PartNumber=1, Body=b"the only part")["ETag"]
    logs.create_log_group(logGroupName="/aws/g")
    logs.create_log_stream(logGroupName="/aws/g", logStreamName="s")
    logs.put_log_events(logGroupName="/aws/g", logStreamName="s", logEvents=[{"timestamp": int(time.time() * 1000), "message": "\u2603 {}".format(n)} for n in range(50)])
    w.boto("cloudwatch").put_metric_data(Namespace="Sample", MetricData=[{"MetricName": "Heat", "Value": 0.1}])
    w.boto("secretsmanager").create_secret(Name="pin", SecretString=PASSWORD)
    w.archive = w.folder / "first.tar"
    said = program(w, "backup", "--data", w.service.data, w.archive)
    assert "secrets.key is not in it" in said and PASSWORD.encode() not in w.archive.read_bytes(), said
    w.secrets_key = w.service.data / "secrets.key"
    assert w.service.stop() == 0


def moves(w, name, arguments):
    """Restores the last backup there, looks at everything, adds an object, and makes the next backup."""
    new = w.folder / f"moved-{name}"
    said = program(w, "restore", w.archive, "--data", new, "--secrets-key", w.secrets_key, *arguments)
    assert "as it was on" in said and ("rows in postgres://" in said) == ("--database-file" in arguments), said
    said = program(w, "doctor", "--data", new, "--bytes")
    assert "0 errors" in said and "every byte checked" in said, said
    again = w.folder / f"{name}-untouched.tar"
    program(w, "backup", "--data", new, again)
    before, after = rows(w.archive), rows(again)
    assert before.keys() == after.keys()
    for table in before:
        assert before[table] == after[table], (table, set(before[table]) ^ set(after[table]))
    moved = Moved(w.service, new)
    moved.start()
    at = lambda service: w.boto(service, endpoint_url="http://" + moved.endpoints["api"])
    device = at("panorama").describe_device(DeviceId=w.device_id)
    assert (device["Name"], device["Description"]) == ("door", "the door \U0001F6AA"), device
    assert "CAMERA" in [n["Name"] for n in at("panorama").list_nodes()["Nodes"]]
    s3 = at("s3")
    for key, body in w.objects.items():
        assert s3.get_object(Bucket=w.bucket, Key=key)["Body"].read() == body, key
    events = at("logs").get_log_events(logGroupName="/aws/g", logStreamName="s", startFromHead=True)["events"]
    assert [e["message"] for e in events] == [f"\u2603 {n}" for n in range(50)]
    assert at("secretsmanager").get_secret_value(SecretId="pin")["SecretString"] == PASSWORD
    assert len(at("cloudwatch").list_metrics(Namespace="Sample")["Metrics"]) == 1
    if w.upload:
        # An upload that was under way goes on.
        s3.complete_multipart_upload(Bucket=w.bucket, Key="parts", UploadId=w.upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": w.part}]})
        w.objects["parts"], w.upload = b"the only part", None
    w.objects[name] = name.encode() * 1000
    s3.put_object(Bucket=w.bucket, Key=name, Body=w.objects[name])
    w.archive = w.folder / f"{name}.tar"
    program(w, "backup", "--data", new, w.archive)
    assert moved.stop() == 0
    return new


def test_into_postgresql_and_a_bucket(w):
    w.arguments = w.servers.new_database("both") + w.servers.new_prefix("both")
    moves(w, "both", w.arguments)


def test_out_of_them_into_files(w):
    moves(w, "files", [])


def test_into_postgresql_and_files(w):
    moves(w, "rows", w.servers.new_database("rows"))


def test_into_sqlite_and_a_bucket(w):
    moves(w, "objects", w.servers.new_prefix("objects"))


def test_where_a_service_is_none_is_restored(w):
    before = w.servers.named("both")
    restore = lambda *arguments: program(w, "restore", w.archive, "--data", w.folder / "refused", "--secrets-key", w.secrets_key, *arguments, fails=True)
    said = restore(*w.arguments)
    assert "needs an empty database, and an empty bucket or a prefix of its own" in said, said
    said = restore(*w.arguments[:2])
    assert "there is a service in this database" in said, said
    said = restore(*w.servers.new_prefix("both"))
    assert "there is something in s3://objects/both/" in said, said
    assert w.servers.named("both") == before and not (w.folder / "refused").exists()


def test_a_restore_that_fails_takes_everything_back(w):
    """A database that cannot hold the rows, found out when the objects are there already."""
    database = w.servers.new_database("narrow", "ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    arguments = database + w.servers.new_prefix("narrow")
    said = program(w, "restore", w.archive, "--data", w.folder / "narrow", "--secrets-key", w.secrets_key, *arguments, fails=True)
    assert "LATIN1" in said, said
    assert w.servers.named("narrow") == ([], []), w.servers.named("narrow")
    assert not list(w.folder.glob("narrow*")), list(w.folder.glob("narrow*"))
    # The same place serves for the next attempt.
    w.servers.psql("DROP DATABASE narrow")
    moves(w, "narrow", w.servers.new_database("narrow") + arguments[2:])


if __name__ == "__main__":
    walking.run(globals())
