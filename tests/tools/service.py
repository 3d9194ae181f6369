"""A service of one's own: new keys, new data, free ports, ended with the test."""

import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import backends

# What the service says when it is connected to an external broker and hears it.
LISTENS = "listening to the broker"
BIN = pathlib.Path(os.environ["BELVEDERE_BIN"])


def free_port():
    """A port that stays free while nobody listens on it: none that an outgoing connection is given by chance."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, lowest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class Service:
    """`limits`: a section of service.json; without one there are neither quotas nor rates."""

    # The external broker that belongs to it.
    broker = None

    def __init__(self, limits=None, broker=False):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="belvedere-tools-"))
        self.data = self.folder / "data"
        self.backends = backends.chosen(self.folder, free_port, broker)
        self.broker = getattr(self.backends, "broker", None)
        subprocess.run([BIN / "belvedere-keys", "init", self.folder / "keys"], check=True, stdout=subprocess.DEVNULL)
        printed = subprocess.run(
            [BIN / "belvedere-service", "init", "--data", self.data, "--keys", self.folder / "keys", "--unlimited",
             *self.backends.arguments],
            check=True, capture_output=True, text=True,
        ).stdout
        self.key = dict(line.split("=", 1) for line in printed.splitlines())
        if limits:
            self.limit(**limits)
        if self.broker:
            self.broker.prepare(BIN / "belvedere-service", self.data)
            self.broker.start()
        self.process = None
        self.copies = []
        # Kept for all its starts, so that devices find it again.
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("device_https", "mqtt", "api")}
        # What must be nowhere in clear when everything has been used; walks add what they make up.
        self.secrets = [self.key["AWS_SECRET_ACCESS_KEY"], *self.backends.secrets]

    def no_secret_in_clear(self):
        """Looks for every known secret in what is stored and logged. The search must find what may be in clear."""
        look = lambda words: backends.found(words, self.backends, self.data, self.log())
        identifier = self.key["AWS_ACCESS_KEY_ID"]
        assert look([identifier]), "the search finds nothing at all"
        clear = look(self.secrets)
        assert not clear, f"secrets in clear: {sorted(clear)}"

    def ask(self, sql):
        """A statement for the service's database, behind its back; rows of texts."""
        return self.backends.ask(self.data, sql)

    def limit(self, **limits):
        """Changes limits; in force from the next start on."""
        path = self.data / "service.json"
        configuration = json.loads(path.read_text())
        configuration["limits"].update(limits)
        path.write_text(json.dumps(configuration))

    def start(self, extra=(), advertise_host="127.0.0.1", **addresses):
        addresses = {**self.addresses, **addresses}
        (self.data / "endpoints.json").unlink(missing_ok=True)
        heard = self.log().count(LISTENS)
        log = open(self.folder / "service.log", "ab")
        self.process = subprocess.Popen(
            [BIN / "belvedere-service", "serve", "--data", self.data, "--advertise-host", advertise_host,
             *(word for name, address in addresses.items() for word in (f"--{name.replace('_', '-')}", address)), *extra],
            stdout=subprocess.DEVNULL, stderr=log,
        )
        end = time.monotonic() + 60
        while not (self.data / "endpoints.json").exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the service does not start:\n" + self.log()[-2000:])
            time.sleep(0.05)
        self.endpoints = json.loads((self.data / "endpoints.json").read_text())
        # When the service begins to listen to an external broker, it makes all devices come again: not in the middle of a test.
        while self.broker and self.broker.process and self.log().count(LISTENS) == heard:
            if time.monotonic() > end:
                raise RuntimeError("the service does not find its broker:\n" + self.log()[-2000:])
            time.sleep(0.05)

    def stop(self):
        """SIGTERM; it must end by itself, well."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def environment(self, **changes):
        return {
            **os.environ, **self.key,
            "AWS_ENDPOINT_URL": "http://" + self.endpoints["api"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": "127.0.0.1", "AWS_PAGER": "",
            **changes,
        }

    def run(self, *command, fails=False, cwd=None, **changes):
        """A real tool; its output. `fails`: it must fail, and its error is given."""
        done = subprocess.run([str(c) for c in command], env=self.environment(**changes), cwd=cwd, capture_output=True, text=True, timeout=300)
        if (done.returncode != 0) != fails:
            raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stderr if fails else done.stdout

    def aws(self, *arguments, **options):
        output = self.run("aws", *arguments, **options)
        return json.loads(output) if output.strip().startswith(("{", "[")) else output

    def log(self):
        path = self.folder / "service.log"
        return path.read_text() if path.exists() else ""

    def end(self):
        for copy in self.copies:
            copy.end()
        if self.process:
            self.process.kill()
            self.process.wait()
        if self.broker:
            self.broker.end()
        shutil.rmtree(self.folder, ignore_errors=True)


class Copy(Service):
    """A second copy of a service, on the same database and bucket, with a data directory of its own."""

    def __init__(self, of):
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in of.addresses}
        self.folder = of.folder / f"copy-{len(of.copies)}"
        self.data = self.folder / "data"
        shutil.copytree(of.data, self.data)
        self.backends, self.key, self.secrets, self.process, self.copies = of.backends, of.key, of.secrets, None, []
        of.copies.append(self)


class Moved(Service):
    """A service in a data directory that somebody else made."""

    def __init__(self, of, data):
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in of.addresses}
        self.folder, self.data = data.parent, data
        self.backends, self.key, self.secrets, self.process, self.copies = of.backends, of.key, of.secrets, None, []
        of.copies.append(self)

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait()
