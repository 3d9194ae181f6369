"""kill -9 at random moments during mixed operations: nothing that was acknowledged is missing afterwards, nothing is half
there, and doctor finds nothing.

    tests/tools/run tests/tools/walk_kill.py                       500 operations, seed 1
    BELVEDERE_KILL="5000 7" tests/tools/run tests/tools/walk_kill.py    5000 operations, seed 7

Four workers each keep a book of what they asked for. An entry is what the service may hold: after an acknowledgement that
one value; when the service died before it could answer, the value before or the one asked for.
"""

import base64
import hashlib
import json
import os
import pathlib
import queue
import random
import subprocess
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import walking
from simulated_device import Device, Refused
from walking import Walk, waits

PROGRAM = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"
OPERATIONS, SEED = map(int, os.environ.get("BELVEDERE_KILL", "500 1").split())
WORKERS, KILLS = 4, max(5, min(40, int(OPERATIONS ** 0.5) // 3))
ABSENT = "absent"


class Died(Exception):
    """The service did not answer: it may or may not have done what was asked."""


def call(function, **arguments):
    try:
        answer = function(**arguments)
        # botocore keeps the status of an answer that came instead of `100 Continue`, and gives it to the next request on
        # that connection, even if the connection ends without any answer. The service's answers have a number.
        if not answer["ResponseMetadata"]["HTTPHeaders"].get("x-amzn-requestid"):
            raise Died("no answer")
        return answer
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise AssertionError(f"{function.__name__} {arguments}: {error}") from error
        raise
    except (BotoCoreError, ConnectionError) as error:
        raise Died(str(error)) from error


class Worker:
    """One client with a book of its own."""

    def __init__(self, walk, number):
        self.number, self.random = number, random.Random(SEED * 1000 + number)
        key = walk.service.key
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30)
        client = lambda name: boto3.session.Session().client(
            name, region_name="us-east-1", endpoint_url="http://" + walk.service.endpoints["api"], config=config,
            aws_access_key_id=key["AWS_ACCESS_KEY_ID"], aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"])
        self.panorama, self.s3, self.logs = client("panorama"), client("s3"), client("logs")
        self.bucket = walk.bucket
        self.book = {}  # (kind, name) -> the set of values that the service may hold
        self.touched = set()
        self.history = []  # of what was asked for, for whoever has to find out why
        self.lines = []  # of the log: acknowledged
        self.maybe_lines = []
        self.done, self.serial = 0, 0

    def name(self, kind):
        self.serial += 1
        return f"{kind}{self.number}x{self.serial}"

    def known(self, kind):
        return sorted(name for (k, name), values in self.book.items() if k == kind and values != {ABSENT})

    def change(self, kind, name, value, function, **arguments):
        """Asks for a change of an entry and writes it into the book."""
        before = self.book.get((kind, name), {ABSENT})
        self.book[kind, name] = before | {value}
        self.touched.add((kind, name))
        self.history.append((kind, name, value))
        answer = call(function, **arguments)
        self.book[kind, name] = {value}
        self.history.append((kind, name, value, "acknowledged"))
        return answer

    def step(self):
        often = [self.put, self.put, self.delete, self.line, self.line, self.device, self.forget, self.package, self.package,
                 self.deregister]
        self.random.choice(often * 3 + [self.upload])()

    def put(self):
        name = self.name("o") if self.random.random() < 0.7 else self.random.choice(self.known("object") or [self.name("o")])
        body = self.random.randbytes(self.random.choice([0, 10, 3000, 200_000]))
        self.change("object", name, hashlib.sha256(body).hexdigest(), self.s3.put_object, Bucket=self.bucket, Key=name, Body=body)

    def delete(self):
        for name in self.known("object")[:1]:
            self.change("object", name, ABSENT, self.s3.delete_object, Bucket=self.bucket, Key=name)

    def upload(self):
        """In two parts."""
        name, parts = self.name("u"), [self.random.randbytes(5 << 20), self.random.randbytes(1000)]
        upload = call(self.s3.create_multipart_upload, Bucket=self.bucket, Key=name)["UploadId"]
        place = dict(Bucket=self.bucket, Key=name, UploadId=upload)
        tags = [call(self.s3.upload_part, **place, PartNumber=n, Body=p)["ETag"] for n, p in enumerate(parts, 1)]
        made = {"Parts": [{"ETag": t, "PartNumber": n} for n, t in enumerate(tags, 1)]}
        digest = hashlib.sha256(b"".join(parts)).hexdigest()
        self.change("object", name, digest, self.s3.complete_multipart_upload, **place, MultipartUpload=made)

    def line(self):
        text = self.name("line")
        self.maybe_lines.append(text)
        call(self.logs.put_log_events, logGroupName="kill", logStreamName=f"worker{self.number}",
             logEvents=[{"timestamp": int(time.time() * 1000), "message": text}])
        self.lines.append(self.maybe_lines.pop())

    def device(self):
        if len(self.known("device")) < 8:
            name = self.name("d")
            self.change("device", name, "there", self.panorama.provision_device, Name=name)

    def forget(self):
        for name in self.known("device")[:1]:
            listed = {d["Name"]: d["DeviceId"] for d in call(self.panorama.list_devices, NameFilter=name)["Devices"]}
            if name in listed:
                self.change("device", name, ABSENT, self.panorama.delete_device, DeviceId=listed[name])

    def package(self):
        """A package with an asset, registered."""
        name = self.name("P")
        asset = self.random.randbytes(5000)
        file = hashlib.sha256(asset).hexdigest() + ".tar.gz"
        descriptor = json.dumps({"mlModelDescriptor": {
            "envelopeVersion": "2021-01-01", "framework": "PYTORCH", "frameworkVersion": "1.8", "precisionMode": "FP32",
            "inputs": [{"name": "data", "shape": [1, 3, 16, 16]}]}}).encode()
        about = hashlib.sha256(descriptor).hexdigest() + ".json"
        document = {"nodePackage": {
            "envelopeVersion": "2021-01-01", "name": name, "version": "1.0",
            "assets": [{"name": "a", "implementations": [{"type": "model", "assetUri": file, "descriptorUri": about}]}],
            "interfaces": [{"name": "model", "category": "ml_model", "asset": "a",
                            "inputs": [{"name": "video_in", "type": "media"}], "outputs": [{"name": "video_out", "type": "media"}]}]}}
        text = json.dumps(document).encode()
        patch = hashlib.sha256(text).hexdigest()
        place = self.change("package", name, "there", self.panorama.create_package, PackageName=name)["StorageLocation"]
        put = lambda key, body: call(self.s3.put_object, Bucket=place["Bucket"], Key=key, Body=body)
        put(f"{place['BinaryPrefixLocation']}/{file}", asset)
        put(f"{place['BinaryPrefixLocation']}/{about}", descriptor)
        put(f"{place['ManifestPrefixLocation']}/1.0/{patch}.json", text)
        self.change("version", f"{name} {patch}", "registered", self.panorama.register_package_version,
                    PackageId=self.package_id(name), PackageVersion="1.0", PatchVersion=patch)

    def package_id(self, name):
        return call(self.panorama.describe_package, PackageId=f"packageName/{name}")["PackageId"]

    def deregister(self):
        for entry in self.known("version")[:1]:
            name, patch = entry.split()
            self.change("version", entry, ABSENT, self.panorama.deregister_package_version,
                        PackageId=self.package_id(name), PackageVersion="1.0", PatchVersion=patch)

    def run(self, steps, alive):
        while alive.is_set() and self.done < steps:
            try:
                self.step()
            except Died:
                return
            except ClientError as error:
                # What it stands on may have been lost with an unacknowledged step of its own.
                if error.response["Error"]["Code"] not in ("ResourceNotFoundException", "ConflictException", "NoSuchUpload", "ValidationException"):
                    raise
            self.done += 1

    # What is there, in the words of the book.

    def found(self, kind, name):
        try:
            if kind == "object":
                return hashlib.sha256(call(self.s3.get_object, Bucket=self.bucket, Key=name)["Body"].read()).hexdigest()
            if kind == "device":
                listed = call(self.panorama.list_devices, NameFilter=name)["Devices"]
                return "there" if name in [d["Name"] for d in listed] else ABSENT
            if kind == "package":
                return "there" if call(self.panorama.describe_package, PackageId=f"packageName/{name}") else ABSENT
            package, patch = name.split()
            version = call(self.panorama.describe_package_version, PackageId=f"packageName/{package}", PackageVersion="1.0", PatchVersion=patch)
            if version["Status"] != "REGISTER_COMPLETED":
                return f"half registered: {version['Status']} {version.get('StatusDescription')}"
            node = call(self.panorama.describe_package, PackageId=f"packageName/{package}")
            assert node["PackageName"] == package
            nodes = [n for n in self.nodes if n["PackageName"] == package]
            return "registered" if [n["Name"] for n in nodes] == ["model"] else f"half registered: nodes {nodes}"
        except ClientError as error:
            if error.response["Error"]["Code"] in ("ResourceNotFoundException", "NoSuchKey"):
                return ABSENT
            raise

    def check(self, everything):
        """Everything, or what was asked for since the last look and a few others."""
        self.nodes = []
        token = {}
        while True:
            answer = call(self.panorama.list_nodes, **token)
            self.nodes += answer["Nodes"]
            if "NextToken" not in answer:
                break
            token = {"NextToken": answer["NextToken"]}
        wrong = []
        names = sorted(self.book)
        some = self.touched | set(self.random.sample(names, min(10, len(names))))
        for kind, name in names if everything else sorted(some):
            found, may = self.found(kind, name), self.book[kind, name]
            if found not in may:
                wrong.append((kind, name, "may be", may, "is", found, [h for h in self.history if h[:2] == (kind, name)]))
            self.history.append((kind, name, found, "found"))
            self.book[kind, name] = {found}
        self.touched.clear()
        lines, token = set(), None
        while True:
            answer = call(self.logs.get_log_events, logGroupName="kill", logStreamName=f"worker{self.number}", startFromHead=True,
                          **({"nextToken": token} if token else {}))
            lines |= {e["message"] for e in answer["events"]}
            if answer["nextForwardToken"] == token:
                break
            token = answer["nextForwardToken"]
        wrong += [("line", line, "is missing") for line in self.lines if line not in lines]
        assert not wrong, wrong[:5]


class Reporter:
    """A device that reports, and reboots when asked: shadows and jobs."""

    def __init__(self, walk):
        self.walk, self.count, self.may, self.job = walk, 0, {0}, None
        archive = walk.boto("panorama").provision_device(Name="reporter")["Certificates"]
        self.device = Device(archive, walk.folder / "reporter")
        self.device.provision()
        self.done = 0

    def run(self, alive):
        try:
            link = self.device.link()
            link.subscribe(self.device.shadow("device", "#"))
        except (Refused, OSError):
            return
        try:
            while alive.is_set():
                self.count += 1
                self.may.add(self.count)
                reported = {"software_version": "1", "board": "simulated", "count": self.count}
                link.client.publish(self.device.shadow("device", "update"), json.dumps({"state": {"reported": reported}}), 1)
                if not self.accepted(link, alive):
                    return  # the connection is gone, and what was asked may have been done
                self.may = {self.count}
                self.done += 1
                time.sleep(0.05)
        finally:
            link.client.loop_stop()

    def accepted(self, link, alive):
        while True:
            try:
                topic, _ = link.messages.get(timeout=0.1)
            except queue.Empty:
                # A broker of its own stays when the service is killed.
                if not link.ended.empty() or not alive.is_set():
                    return False
                continue
            if topic == self.device.shadow("device", "update/accepted"):
                return True

    def check(self, _everything):
        link = self.device.link()
        link.subscribe(self.device.shadow("device", "#"))
        link.publish(self.device.shadow("device", "get"), "")
        try:
            topics = {self.device.shadow("device", "get/" + w) for w in ("accepted", "rejected")}
            while True:
                topic, payload = link.messages.get(timeout=60)
                if topic in topics:
                    break
            count = json.loads(payload).get("state", {}).get("reported", {}).get("count", 0)
            assert count in self.may, (count, self.may)
            self.may = {count}
        finally:
            link.close()


def test_nothing_acknowledged_is_lost(w):
    w.bucket = w.boto("s3").list_buckets()["Buckets"][0]["Name"]
    logs = w.boto("logs")
    logs.create_log_group(logGroupName="kill")
    for number in range(WORKERS):
        logs.create_log_stream(logGroupName="kill", logStreamName=f"worker{number}")
    workers, reporter = [Worker(w, n) for n in range(WORKERS)], Reporter(w)
    moments, kills, steps = random.Random(SEED), 0, OPERATIONS // WORKERS
    while min(worker.done for worker in workers) < steps:
        alive, failed = threading.Event(), []
        alive.set()

        def guarded(function, *arguments):
            try:
                function(*arguments)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=guarded, args=(worker.run, steps, alive)) for worker in workers]
        threads.append(threading.Thread(target=guarded, args=(reporter.run, alive)))
        [thread.start() for thread in threads]
        # By work done, so that a slow machine does not mean more rounds; and then anywhere within the next request.
        until = sum(worker.done for worker in workers) + moments.randint(1, 2 * OPERATIONS // KILLS)
        waits("work", lambda: failed or not any(t.is_alive() for t in threads[:-1]) or sum(x.done for x in workers) >= until, 120)
        time.sleep(moments.uniform(0, 0.05))
        w.service.process.kill()
        w.service.process.wait()
        kills += 1
        alive.clear()
        [thread.join() for thread in threads]
        assert not failed, failed
        w.service.start()
        for checked in (*workers, reporter):
            checked.check(min(worker.done for worker in workers) >= steps)
        done = subprocess.run([PROGRAM, "doctor", "--data", w.service.data, "--bytes", "--json"], capture_output=True, text=True)
        findings = [f for f in json.loads(done.stdout) if f["level"] != "good" and f["about"] != "disk space"]
        assert done.returncode == 0 and not findings, findings
    total = sum(worker.done for worker in workers)
    lines = sum(len(worker.lines) for worker in workers)
    kept = sum(values != {ABSENT} for worker in workers for values in worker.book.values())
    print(f"measured: {total} operations, {reporter.done} shadow updates, {kills} kills, {lines} log lines, {kept} things there; seed {SEED}")
    assert kills >= 3 and reporter.done > 0


if __name__ == "__main__":
    walking.run(globals())
