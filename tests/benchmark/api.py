"""What tests/benchmark/api runs."""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import tempfile
import time

import boto3
from botocore.config import Config

from service import Service

CLIENT = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "examples/signed-requests"
# What there is of everything when lists are measured.
THERE = 20
KIB = "x" * 1024
MEASURED = ("rate", "p50_ms", "p99_ms", "cpu_ms", "server_cpu", "client_cpu")


class Server:
    """Somebody who answers: where, which process, with which keys and which bucket."""

    def __init__(self, name, address, process, key, bucket):
        self.name, self.address, self.process, self.key, self.bucket = name, address, process, key, bucket

    def client(self, service):
        return boto3.client(service, endpoint_url=f"http://{self.address}", region_name="us-east-1", aws_access_key_id=self.key[0],
                            aws_secret_access_key=self.key[1], config=Config(s3={"addressing_style": "path"}))

    def fill(self):
        panorama, s3, secrets = map(self.client, ("panorama", "s3", "secretsmanager"))
        if self.name == "moto":
            s3.create_bucket(Bucket=self.bucket)
        for number in range(THERE):
            self.device = panorama.provision_device(Name=f"there-{number}")["DeviceId"]
            s3.put_object(Bucket=self.bucket, Key=f"there/{number}", Body=KIB.encode())
            secrets.create_secret(Name=f"there-{number}", SecretString="a word")

    def operations(self):
        """(name, kind, what the client is told)"""
        secrets = lambda name: ["content-type:application/x-amz-json-1.1", f"x-amz-target:secretsmanager.{name}"]
        json_body = ["content-type:application/json"]
        return [
            ("DescribeDevice", "panorama", "GET", f"/devices/{self.device}", "", []),
            ("HeadObject", "s3", "HEAD", f"/{self.bucket}/there/0", "", []),
            ("GetObject, 1 KiB", "s3", "GET", f"/{self.bucket}/there/0", "", []),
            ("DescribeSecret", "secretsmanager", "POST", "/", '{"SecretId":"there-0"}', secrets("DescribeSecret")),
            ("ListDevices, 20", "panorama", "GET", "/devices", "", []),
            ("ListObjectsV2, 20", "s3", "GET", f"/{self.bucket}?list-type=2&prefix=there%2F", "", []),
            ("ListSecrets, 20", "secretsmanager", "POST", "/", "{}", secrets("ListSecrets")),
            # Last, since they make the lists longer.
            ("ProvisionDevice", "panorama", "POST", "/devices", '{"Name":"new-{n}"}', json_body),
            ("PutObject, 1 KiB", "s3", "PUT", f"/{self.bucket}/new/{{n}}", KIB, []),
            ("CreateSecret", "secretsmanager", "POST", "/", '{"Name":"new-{n}","ClientRequestToken":"00000000-0000-0000-0000-{n}","SecretString":"a word"}',
             secrets("CreateSecret")),
        ]

    def measure(self, operation, connections, seconds):
        _, service, method, target, body, headers = operation
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": self.key[0], "AWS_SECRET_ACCESS_KEY": self.key[1]}
        done = subprocess.run([CLIENT, self.address, str(self.process.pid), str(connections), str(seconds), service, method, target, body, *headers],
                              env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name}: {operation[0]}: {done.stderr}")
        found = json.loads(done.stdout)
        found["cpu_ms"] = found["server_cpu"] / found["rate"] * 1000
        return found


def sync_ms(folder):
    """How long the disk takes for 4 KiB, written and synced."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(100):
            file.write(os.urandom(4096))
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def moto(log):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([os.environ["MOTO"], "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    end = time.monotonic() + 60
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return Server("moto", f"127.0.0.1:{port}", process, ("AKIAIOSFODNN7EXAMPLE", "secret"), "benchmark")
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit("moto does not start")
        time.sleep(0.2)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--connections", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", default="", help="operations whose names hold this")
    arguments.add_argument("--alone", action="store_true", help="without moto")
    options = arguments.parse_args()
    service, servers = Service(), []
    try:
        service.start()
        bucket = json.loads((service.data / "service.json").read_text())["bucket"]
        key = (service.key["AWS_ACCESS_KEY_ID"], service.key["AWS_SECRET_ACCESS_KEY"])
        servers.append(Server("service", service.endpoints["api"], service.process, key, bucket))
        if not options.alone:
            with open(os.devnull, "w") as log:
                servers.append(moto(log))
        for server in servers:
            server.fill()
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, {options.connections} connections, {options.seconds:g} s each, "
              f"medians of {options.rounds} rounds; a sync of 4 KiB takes {sync_ms(service.folder):.2f} ms\n")
        print(f"| {'operation':18} | {'server':7} | a second | lowest, highest | p50 ms | p99 ms | CPU ms each | CPUs of server, client |")
        print("|---|---|---|---|---|---|---|---|")
        for index, (name, *_) in enumerate(servers[0].operations()):
            if options.only not in name:
                continue
            rounds = {server.name: [] for server in servers}
            for _ in range(options.rounds):
                for server in servers:
                    rounds[server.name].append(server.measure(server.operations()[index], options.connections, options.seconds))
            middle = {}
            for who, found in rounds.items():
                m = middle[who] = {field: statistics.median(f[field] for f in found) for field in MEASURED}
                rates = [f["rate"] for f in found]
                print(f"| {name:18} | {who:7} | {m['rate']:8.0f} | {min(rates):.0f}, {max(rates):.0f} | {m['p50_ms']:6.2f} | {m['p99_ms']:6.2f} | "
                      f"{m['cpu_ms']:.3f} | {m['server_cpu']:.2f}, {m['client_cpu']:.2f} |", flush=True)
            if len(middle) == 2:
                ours, theirs = middle["service"], middle["moto"]
                print(f"| {name:18} | ratio   | {ours['rate'] / theirs['rate']:8.1f} | | {ours['p50_ms'] / theirs['p50_ms']:6.3f} | "
                      f"{ours['p99_ms'] / theirs['p99_ms']:6.3f} | {ours['cpu_ms'] / theirs['cpu_ms']:.3f} | |", flush=True)
    finally:
        for server in servers:
            if server.name == "moto":
                server.process.kill()
                server.process.wait()
        service.end()


main()
