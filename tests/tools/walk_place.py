"""The database and the objects' place: an older, a cut, an empty and a missing database lose nothing; what nothing names goes a week
later; commands that read leave a schema as it is; and what a newcomer is told when something is not as it should be."""

import os
import pathlib
import shutil
import subprocess
import time

import walking
from walking import waits

PROGRAM = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"
HERE = pathlib.Path(__file__).parent
WEEK_MS = 7 * 24 * 3600 * 1000


def program(w, *arguments, **options):
    return w.service.run(PROGRAM, *arguments, **options)


def sweep(w, *arguments, **options):
    return program(w, "sweep", "--data", w.service.data, *arguments, **options)


def put(w, *keys):
    s3 = w.boto("s3")
    w.bucket = s3.list_buckets()["Buckets"][0]["Name"]
    for key in keys:
        s3.put_object(Bucket=w.bucket, Key=key, Body=key.encode())


def all_there(w, *keys):
    for key in keys:
        assert w.boto("s3").get_object(Bucket=w.bucket, Key=key)["Body"].read() == key.encode(), key


def files(w):
    """Of a data directory, all of them ten days old from now on."""
    found = [p for p in (w.service.data / "objects").rglob("*") if p.is_file() and len(p.name) == 32]
    for path in found:
        os.utime(path, (time.time() - 10 * 86400,) * 2)
    return sorted(found)


def database(w):
    return w.service.data / "service.sqlite"


def of_the_directory(test):
    """Objects and rows in the data directory: elsewhere there is no file to put back."""
    def run(w):
        if not database(w).exists():
            return print("        the rows are on a server: the store's tests do this there")
        test(w)
    run.__name__ = test.__name__
    return run


@of_the_directory
def test_an_older_database_loses_nothing(w):
    """Service D3: two of three objects were deleted at the start."""
    put(w, "one")
    assert w.service.stop() == 0
    shutil.copy(database(w), w.folder / "older")
    w.service.start()
    put(w, "two", "three")
    assert w.service.stop() == 0
    shutil.copy(database(w), w.folder / "right")
    before = files(w)
    assert len(before) == 3
    shutil.copy(w.folder / "older", database(w))
    for _ in range(2):
        w.service.start()
        waits("a word of it", lambda: "older copy" in w.service.log())
        said = sweep(w)
        assert "nothing is swept here" in said and "no row names 2 files" in said, said
        assert "older copy" in sweep(w, "--yes", fails=True)
        assert "older copy" in program(w, "doctor", "--data", w.service.data)
        time.sleep(1)
        assert w.service.stop() == 0
        assert files(w) == before
    shutil.copy(w.folder / "right", database(w))
    w.service.start()
    all_there(w, "one", "two", "three")
    assert "no row names 0 files" in sweep(w)


@of_the_directory
def test_a_database_without_its_journal_loses_nothing(w):
    put(w, "four", "five")
    before = files(w)
    w.service.process.kill()
    w.service.process.wait()
    kept = w.folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(w.service.data, kept)
    for path in w.service.data.glob("service.sqlite-*"):
        path.unlink()
    w.service.start()
    time.sleep(2)
    assert w.service.stop() == 0
    assert files(w) == before
    for path in w.service.data.glob("service.sqlite*"):
        path.unlink()
    for path in kept.glob("service.sqlite*"):
        shutil.copy(path, w.service.data)
    w.service.start()
    all_there(w, "one", "two", "three", "four", "five")


@of_the_directory
def test_an_empty_database_and_a_missing_one_are_refused(w):
    assert w.service.stop() == 0
    before = files(w)
    server = subprocess.Popen([HERE / "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        addresses = [word for name in ("api", "device-https", "mqtt") for word in (f"--{name}", "127.0.0.1:0")]
        serve = lambda **changes: program(w, "serve", "--data", w.service.data, *addresses, fails=True, **changes)
        for _ in range(2):
            error = serve(BELVEDERE_DATABASE=url)
            assert "holds no service" in error and "restore" in error and "Nothing was changed" in error, error
            assert url.split("@")[0].split(":")[-1] not in error, "the password is nobody's business"
        for command in ("audit", "sweep", "page"):
            assert "holds no service" in program(w, command, "--data", w.service.data, fails=True, BELVEDERE_DATABASE=url)
        database(w).rename(w.folder / "away")
        error = serve()
        assert str(database(w).resolve()) in error and "restore" in error, error
        (w.folder / "away").rename(database(w))
    finally:
        server.stdin.close()
        server.wait()
    assert files(w) == before
    w.service.start()
    all_there(w, "one", "five")


@of_the_directory
def test_a_file_that_nothing_names_goes_a_week_later(w):
    name = "ab" + "0" * 30
    path = w.service.data / "objects" / "ab" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"left by a power cut")
    files(w)
    assert f"{name}  19 bytes  not seen by a sweep yet" in sweep(w)
    assert w.service.stop() == 0
    w.service.start()
    waits("a note", lambda: "goes after" in sweep(w))
    assert w.service.stop() == 0
    assert path.exists()
    w.service.ask(f"UPDATE unnamed_file SET noted_ms = noted_ms - {WEEK_MS}")
    w.service.start()
    waits("the sweep", lambda: not path.exists())
    all_there(w, "one", "two", "three", "four", "five")
    path.write_bytes(b"left again")
    files(w)
    assert "1 files deleted" in sweep(w, "--yes") and not path.exists()


def copy_database(source, target):
    """With its journal, and in the place of another one's: SQLite would take that for its own."""
    for suffix in ("", "-wal", "-shm"):
        there, here = (path.with_name(path.name + suffix) for path in (source, target))
        here.unlink(missing_ok=True)
        if there.exists():
            shutil.copy(there, here)


def test_a_restored_service_is_another_one(w):
    """The original's objects are not swept with the database of the restored one, and the other way round."""
    file, new = w.folder / "backup.tar", w.folder / "restored"
    program(w, "backup", "--data", w.service.data, file)
    program(w, "restore", file, "--data", new, "--secrets-key", w.service.data / "secrets.key",
            *(w.service.broker.arguments if w.service.broker else []))
    assert "no row names 0 files" in program(w, "sweep", "--data", new)
    assert "0 errors" in program(w, "doctor", "--data", new, "--bytes")
    if not database(w).exists():
        return
    assert w.service.stop() == 0
    copy_database(database(w), w.folder / "original")
    copy_database(new / "service.sqlite", database(w))
    error = program(w, "serve", "--data", w.service.data, "--api", "127.0.0.1:0", "--device-https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", fails=True)
    assert "belong to service" in error and "Nothing was changed" in error, error
    copy_database(w.folder / "original", database(w))
    w.service.start()


@of_the_directory
def test_commands_that_read_leave_the_schema_as_it_is(w):
    """Service D12: after the program was replaced, and before the restart, `keys list` took the schema from the running service."""
    ask = lambda sql: w.service.ask(sql)
    assert w.service.stop() == 0  # a running one sees that its schema is another, and says so
    newest = int(ask("SELECT max(version) FROM schema_version")[0][0])
    applied = ask(f"SELECT applied_ms FROM schema_version WHERE version = {newest}")[0][0]
    ask(f"DELETE FROM schema_version WHERE version = {newest}")
    version = lambda: int(ask("SELECT max(version) FROM schema_version")[0][0])
    data = ("--data", w.service.data)
    for command in (("audit",), ("keys", "list"), ("devices", "list"), ("page",), ("doctor",), ("backup", w.folder / "of-earlier.tar")):
        program(w, *command, *data)
        assert version() == newest - 1, command
    for command in (("keys", "create"), ("keys", "revoke", "AKIANOBODY"), ("devices", "revoke", "device-x"), ("sweep",)):
        error = program(w, *command, *data, fails=True)
        assert "restart the service with this program first" in error and version() == newest - 1, error
    ask(f"INSERT INTO schema_version (version, applied_ms) VALUES ({newest}, {applied})")
    program(w, "keys", "list", *data)
    w.service.start()


def test_what_a_newcomer_is_told(w):
    folder = w.folder / "newcomer"
    folder.mkdir()
    keys = w.folder / "keys"
    init = lambda data, *more, **options: program(w, "init", "--data", data, "--keys", keys, *more, **options)
    error = init(folder / "a", "--name", "bad name!", fails=True)
    assert "bad name!" in error and "a name like service.example" in error and not (folder / "a").exists(), error
    for host in ("not a host", "https://service.example", "service.example:8443"):
        error = program(w, "serve", "--data", w.service.data, "--advertise-host", host, fails=True)
        assert host in error and "without a port" in error, error
    # No directory, an empty one, and a broken configuration: each leads on, and none in a circle.
    for data in (folder / "none", folder):
        error = program(w, "serve", "--data", data, fails=True)
        assert "holds no service" in error and "belvedere-service init" in error, error
        said = subprocess.run([PROGRAM, "doctor", "--data", data], capture_output=True, text=True)
        assert said.returncode == 1 and "no service's directory" in said.stdout and "1 errors" in said.stdout, said.stdout
    broken = folder / "broken"
    broken.mkdir()
    (broken / "service.json").write_text('{"account": "1')
    for command in ("serve", "audit"):
        error = program(w, command, "--data", broken, fails=True)
        assert "service.json is damaged" in error and "init" not in error and "restore" in error, error
    error = init(broken, fails=True)
    assert "service.json is damaged" in error, error
    # What is no backup.
    for name, content in (("text", b"panorama-1 2026 " * 100), ("empty", b""), ("zip", b"PK\3\4" + bytes(2000))):
        (folder / name).write_bytes(content)
        error = program(w, "restore", folder / name, "--data", folder / "restored", "--secrets-key", w.service.data / "secrets.key", fails=True)
        assert "not a file that `belvedere-service backup` made" in error, error
    # Told to devices, and not listened to: at the start, and by doctor.
    assert w.service.stop() == 0
    w.service.start(advertise_host="service.example")
    waits("a warning", lambda: "devices are told service.example, and --device-https" in w.service.log())
    said = program(w, "doctor", "--data", w.service.data)
    assert "0.0.0.0" in said and "warning" in said, said
    # RFC 6761: a name that nobody has.
    assert "no address of that name" in said and "name service that devices ask" in said, said
    assert w.service.stop() == 0
    w.service.start()
    assert "service.example" not in program(w, "doctor", "--data", w.service.data)


if __name__ == "__main__":
    walking.run(globals())
