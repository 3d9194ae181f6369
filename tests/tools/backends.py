"""Where the service under test keeps its rows and objects, and where its devices connect.

BELVEDERE_TEST_BACKENDS: nothing or `directory`: SQLite and files; `postgres`: PostgreSQL and an S3 server, each started
here and ended with the program (tests/tools/postgres and tests/tools/s3 live as long as their input is open);
`broker`: mosquitto instead of the service's own MQTT broker; several with commas."""

import atexit
import base64
import csv
import io
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent


def started(script):
    """The first line of a server that ends with this program."""
    process = subprocess.Popen([HERE / script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end():
        process.stdin.close()
        process.wait(timeout=60)

    atexit.register(end)
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"tests/tools/{script} does not start; it says why above")
    return line


def program(name):
    """Of PostgreSQL's newest version here."""
    return sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))[-1]


class Directory:
    """SQLite and files in the data directory."""

    arguments = []
    secrets = []

    def ask(self, data, sql):
        """What a statement answers: rows of texts. For what no tool can ask or do: a look at all rows, time that passes."""
        database = sqlite3.connect(data / "service.sqlite", timeout=30)
        try:
            with database:
                return [tuple("NULL" if value is None else str(value) for value in row) for row in database.execute(sql)]
        finally:
            database.close()

    def tables(self, data):
        return [name for (name,) in self.ask(data, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")]

    def rows(self, data, tables):
        """The sorted rows of each of these tables."""
        return {table: sorted(self.ask(data, f"SELECT * FROM {table}")) for table in tables}

    def objects(self):
        """Files of objects outside the data directory."""
        return []

    def files(self, data):
        """Every file of objects."""
        return [path for path in (data / "objects").rglob("*") if path.is_file()]

    def stored(self, data):
        """Every value that is stored, as bytes, with the name of its place; files of `data` are looked at in any case."""
        database = sqlite3.connect(f"file:{data / 'service.sqlite'}?mode=ro", uri=True)
        database.text_factory = bytes
        try:
            tables = [name.decode() for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            for table in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    for value in row:
                        yield f"table {table}", value if isinstance(value, bytes) else str(value).encode()
        finally:
            database.close()


class Servers:
    """PostgreSQL and an S3 server."""

    def __init__(self, folder):
        self.url = started("postgres")
        bucket = json.loads(started("s3"))
        self.bucket = pathlib.Path(bucket["directory"])
        self.folder, self.objects_url = folder, bucket["url"]
        parts = urllib.parse.urlsplit(self.url)
        self.secrets = [parts.password, bucket["secret"]]
        database, self.credentials = folder / "database-url", folder / "objects-credentials"
        database.write_text(self.url + "\n")
        self.credentials.write_text(f"[default]\naws_access_key_id = {bucket['key']}\naws_secret_access_key = {bucket['secret']}\n")
        database.chmod(0o600)
        self.credentials.chmod(0o600)
        self.arguments = ["--database-file", database, "--objects", bucket["url"], "--objects-credentials", self.credentials]

    def new_database(self, name, options=""):
        """The arguments that lead to another, empty database on the same server."""
        self.psql(f'CREATE DATABASE "{name}" {options}')
        file = self.folder / f"database-{name}"
        file.write_text(self.url.replace("/service?", f"/{name}?"))
        file.chmod(0o600)
        return ["--database-file", file]

    def new_prefix(self, name):
        """The arguments that lead to another, empty part of the same bucket."""
        return ["--objects", self.objects_url.replace("/belvedere?", f"/{name}?"), "--objects-credentials", self.credentials]

    def named(self, name):
        """The tables of such a database, and the names of objects in such a part."""
        tables = self.psql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", url=self.url.replace("/service?", f"/{name}?"))
        return tables, [path.name for path in (self.bucket / name).rglob("*") if path.is_file()]

    def psql(self, *statements, url=None):
        commands = [word for sql in statements for word in ("-c", sql)]
        answer = subprocess.run([program("psql"), "-X", "-q", "--csv", "-t", "-P", "null=NULL", "-v", "ON_ERROR_STOP=1", *commands, url or self.url],
                                check=True, capture_output=True, text=True).stdout
        return [tuple(row) for row in csv.reader(io.StringIO(answer, newline=""))]

    def ask(self, data, sql):
        return self.psql(sql)

    def rows(self, data, tables):
        # One connection for all: each row begins with its table's name.
        rows = {table: [] for table in tables}
        for name, *values in self.psql(*(f"SELECT '{table}', {table}.* FROM {table}" for table in tables)):
            rows[name].append(tuple(values))
        return {table: sorted(found) for table, found in rows.items()}

    def tables(self, data):
        return [name for (name,) in self.ask(data, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]

    def objects(self):
        return [path for path in self.bucket.rglob("*") if path.is_file()]

    def files(self, data):
        return self.objects()

    def stored(self, data):
        dump = subprocess.run(
            [program("pg_dump"), "--data-only", "--inserts", self.url],
            check=True, capture_output=True,
        ).stdout
        for line in dump.splitlines():
            yield "PostgreSQL", line
        for path in self.objects():
            try:
                yield f"bucket {path.name}", path.read_bytes()
            except FileNotFoundError:
                pass  # replaced a minute ago, and gone between two looks


class Broker:
    """mosquitto, with the files that the service made for it. Its queue survives a restart."""

    def __init__(self, port):
        # Beside the service's folder, which another user may not enter.
        self.folder, self.port = pathlib.Path(tempfile.mkdtemp(prefix="belvedere-mosquitto-")), port
        self.arguments = ["--broker", f"mqtts://127.0.0.1:{self.port}"]
        self.process = None
        atexit.register(self.end)

    def prepare(self, program, data):
        subprocess.run([program, "broker-configuration", "--data", data, "--configuration", self.folder, "--state", self.folder, self.folder],
                       check=True, stdout=subprocess.DEVNULL)

    def start(self):
        self.process = subprocess.Popen([HERE / "mosquitto", self.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError("tests/tools/mosquitto does not start; it says why above")
        self.pid = int(line)

    def stop(self):
        """SIGTERM."""
        if self.process:
            self.process.stdin.close()
            self.process.wait(timeout=60)
            self.process = None

    def kill(self):
        """As a power cut."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def end(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self):
        return (self.folder / "mosquitto.log").read_text()


class With:
    """Backends with an external broker."""

    def __init__(self, backends, broker):
        self.backends, self.broker = backends, broker
        self.arguments = [*backends.arguments, *broker.arguments]

    def __getattr__(self, name):
        return getattr(self.backends, name)


def chosen(folder, free_port, broker=False):
    """`broker`: the walk is about the external broker."""
    names = (os.environ.get("BELVEDERE_TEST_BACKENDS") or "directory").split(",")
    unknown = set(names) - {"directory", "postgres", "broker"}
    if unknown:
        raise ValueError(f"there are no backends {unknown}: directory, postgres, broker")
    backends = Servers(folder) if "postgres" in names else Directory()
    return With(backends, Broker(free_port())) if broker or "broker" in names else backends


def forms(secret):
    """How a secret may be written down."""
    plain = secret.encode()
    return {plain, base64.b64encode(plain), plain.hex().encode(), urllib.parse.quote(secret, safe="").encode(),
            json.dumps(secret)[1:-1].encode()}


def found(words, backends, data, logs):
    """Where any of these words is stored in clear: in the database, the objects, the files of the data directory (but not
    in the two that only the service may read and that hold its own keys), or the logs."""
    wanted = {form: word for word in words for form in forms(word)}
    places = set()

    def look(place, content):
        places.update((place, word) for form, word in wanted.items() if form in content)

    for place, content in backends.stored(data):
        look(place, content)
    for path in data.rglob("*"):
        if path.is_file() and path.name not in ("secrets.key", "service.json"):
            try:
                look(str(path.relative_to(data)), path.read_bytes())
            except FileNotFoundError:
                pass  # the service is at work: a journal that was written back, an upload that has its name now
    look("log", logs.encode())
    return places
