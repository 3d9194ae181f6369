"""Running the service: keys that end, backup and restore, doctor, health, numbers, logs, certificates, stopping."""

import datetime
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import walking
from walking import waits

PROGRAM = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"
PASSWORD = "swordfish-4711"


def program(w, *arguments, **options):
    return w.service.run(PROGRAM, *arguments, **options)


def certificate(folder, name):
    """A certificate of its own, and its key, as an administrator may bring one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=5))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "own.key").write_bytes(pem)
    (folder / "own.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made.public_bytes(serialization.Encoding.DER)


def shown(address):
    """The certificate that a port shows."""
    context = ssl._create_unverified_context()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as raw, context.wrap_socket(raw, server_hostname="localhost") as stream:
        return stream.getpeercert(binary_form=True)


def text(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def test_a_key_for_a_day(w):
    made = program(w, "keys", "--data", w.service.data, "create", "--description", "guest", "--expires-in-days", "1")
    key = dict(line.split("=", 1) for line in made.splitlines())
    w.service.aws("sts", "get-caller-identity", **key)
    assert "guest  (until 20" in program(w, "keys", "--data", w.service.data, "list")
    error = program(w, "keys", "--data", w.service.data, "revoke", "AKIANOBODY", fails=True)
    assert "keys list" in error, error
    assert "required arguments" in program(w, "serve", "--data", "d", "--https", ":1", fails=True)


def test_everything_is_as_it_must_be(w):
    panorama, s3, logs = w.boto("panorama"), w.boto("s3"), w.boto("logs")
    w.device_id = panorama.provision_device(Name="door")["DeviceId"]
    w.bucket = s3.list_buckets()["Buckets"][0]["Name"]
    s3.put_object(Bucket=w.bucket, Key="notes/a.txt", Body=b"first")
    panorama.create_node_from_template_job(
        NodeName="CAMERA", OutputPackageName="CAMERA", OutputPackageVersion="1.0", TemplateType="RTSP_CAMERA_STREAM",
        TemplateParameters={"StreamUrl": "rtsp://10.0.0.1/s", "Username": "u", "Password": PASSWORD})
    logs.create_log_group(logGroupName="/aws/g")
    said = program(w, "doctor", "--data", w.service.data, "--bytes")
    assert "healthy" in said and "0 errors" in said and "every byte checked" in said, said
    findings = json.loads(program(w, "doctor", "--data", w.service.data, "--json"))
    assert {f["about"] for f in findings} >= {"permissions", "authority", "schema", "secrets", "objects", "clock", "TLS"}, findings


def test_one_process_serves_a_directory(w):
    again = ("serve", "--data", w.service.data, "--api", "127.0.0.1:0", "--device-https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")
    error = program(w, *again, fails=True)
    assert f"process {w.service.process.pid}" in error and "stop that one first" in error, error
    assert w.boto("panorama").list_devices()["Devices"], "the first one goes on"


def test_backup_while_it_runs_and_restore(w):
    file = w.folder / "backup.tar"
    stop = threading.Event()
    failed = []

    def write():
        s3 = w.boto("s3")
        for number in range(100_000):
            if stop.is_set():
                return
            try:
                s3.put_object(Bucket=w.bucket, Key=f"busy/{number % 7}", Body=os.urandom(2000))
            except Exception as error:
                failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        said = program(w, "backup", "--data", w.service.data, file)
    finally:
        stop.set()
        writer.join()
    assert not failed, failed[:3]
    assert "secrets.key is not in it" in said, said
    archive = file.read_bytes()
    assert PASSWORD.encode() not in archive and (w.service.data / "secrets.key").read_bytes() not in archive
    assert "never overwritten" in program(w, "backup", "--data", w.service.data, file, fails=True)
    new = w.folder / "restored"
    assert "--secrets-key" in program(w, "restore", file, "--data", new, fails=True)
    changed = bytearray(archive)
    changed[archive.index(b"objects/") + 512] ^= 1  # the first byte of an object, behind its header
    (w.folder / "changed.tar").write_bytes(changed)
    key = w.service.data / "secrets.key"
    assert "refused" in program(w, "restore", w.folder / "changed.tar", "--data", new, "--secrets-key", key, fails=True)
    assert not new.exists()
    program(w, "restore", file, "--data", new, "--secrets-key", key, *(w.service.broker.arguments if w.service.broker else []))
    assert "0 errors, 0 warnings" in program(w, "doctor", "--data", new, "--bytes").replace("1 warnings", "0 warnings")
    # The restored service is the same service, and takes the other one's place.
    assert w.service.stop() == 0
    original, w.service.data = w.service.data, new
    w.service.start()
    try:
        assert w.boto("s3").get_object(Bucket=w.bucket, Key="notes/a.txt")["Body"].read() == b"first"
        assert w.boto("panorama").describe_device(DeviceId=w.device_id)["Name"] == "door"
        assert "CAMERA" in [n["Name"] for n in w.boto("panorama").list_nodes()["Nodes"]]
    finally:
        assert w.service.stop() == 0
        w.service.data = original
        w.service.start()
    assert "not empty" in program(w, "restore", file, "--data", new, "--secrets-key", key, fails=True)


def test_commands_say_what_comes_next(w):
    missing = w.folder / "missing"
    said = program(w, "backup", "--data", w.service.data, missing / "b.tar", fails=True)
    assert f"there is no directory {missing}; make it first" in said and ".tmp" not in said, said
    link = lambda: subprocess.run([PROGRAM, "page", "--data", w.service.data], capture_output=True, text=True, check=True)
    assert link().stderr == ""
    w.service.stop()
    assert "the service does not run here" in link().stderr
    w.service.start()


def test_health_numbers_and_json_log(w):
    assert w.service.stop() == 0
    made = certificate(w.folder, "first.example")
    w.service.start(extra=[
        "--log-format", "json", "--metrics", "127.0.0.1:0",
        "--https", "127.0.0.1:0", "--certificate", w.folder / "own.pem", "--key", w.folder / "own.key"])
    api, numbers = w.service.endpoints["api"], w.service.endpoints["metrics"]
    assert text(f"http://{api}/healthz") == "ok\n"
    w.boto("panorama").list_devices()
    walking.refused("ResourceNotFoundException", w.boto("panorama").describe_device, DeviceId="device-none")
    page = text(f"http://{numbers}/metrics")
    for line in (
        'belvedere_requests_total{service="panorama",operation="ListDevices",status="200"} 1',
        "belvedere_devices 1", "belvedere_devices_connected 0", "# EOF",
    ):
        assert line in page, (line, page)
    assert "process_resident_memory_bytes" in page and 'belvedere_store_bytes{part="objects"}' in page, page
    try:
        text(f"http://{api}/metrics")
        raise AssertionError("numbers are on the API's port")
    except urllib.error.HTTPError as error:
        assert error.code == 403
    lines = [json.loads(line) for line in w.service.log().splitlines() if line.startswith("{")]
    assert any(l.get("message") == "request" and l["status"] == 200 for l in lines), lines[-5:]
    assert shown(w.service.endpoints["https"]) == made


def test_a_device_is_locked_out_by_its_name_as_well(w):
    devices = (PROGRAM, "devices", "--data", w.service.data)
    made = w.boto("panorama").provision_device(Name="stolen")["DeviceId"]
    # Whoever types a name that is none is told so, and believes no device locked out.
    assert "there is no device stolne; `devices list` shows all" in w.service.run(*devices, "revoke", "stolne", fails=True)
    assert f"{made} is locked out" in w.service.run(*devices, "revoke", "stolen")
    assert "locked out already" in w.service.run(*devices, "revoke", made, fails=True)
    w.service.run(*devices, "release", "stolen")
    assert made not in w.service.run(*devices, "list")


def test_another_user_is_told_whose_turn_it_is(w):
    # As another user where this runs as root, or else without the right to read the file.
    root = os.geteuid() == 0
    shown, data = pathlib.Path("/tmp" if root else w.folder) / f"belvedere-other-{os.getpid()}", w.service.data
    shutil.copy(PROGRAM, shown)
    shown.chmod(0o755)
    if not root:
        (data / "service.json").chmod(0)
    try:
        for command in (("keys", "--data", data, "list"), ("page", "--data", data), ("doctor", "--data", data), ("serve", "--data", data)):
            done = subprocess.run([shown, *command], capture_output=True, text=True, cwd="/", **({"user": 65534, "group": 65534} if root else {}))
            said = done.stdout + done.stderr
            assert done.returncode and "the user that the service runs as" in said, said
            assert "damaged" not in said and "backup" not in said, said
    finally:
        (data / "service.json").chmod(0o600)
        shown.unlink()


def test_a_certificate_is_read_again(w):
    https = w.service.endpoints["https"]
    first = shown(https)
    (w.folder / "own.pem").write_text("half written")
    w.service.process.send_signal(signal.SIGHUP)
    waits("the refusal in the log", lambda: "the certificate in use stays" in w.service.log())
    assert shown(https) == first
    second = certificate(w.folder, "second.example")
    w.service.process.send_signal(signal.SIGHUP)
    waits("the new certificate", lambda: shown(https) == second)
    context = ssl.create_default_context(cafile=str(w.folder / "own.pem"))
    connection = http.client.HTTPSConnection("localhost", int(https.rsplit(":", 1)[1]), context=context, timeout=30)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"ok\n"
    # Devices' ports go on showing the certificate of the service's own authority.
    assert shown(w.service.endpoints["device_https"]) not in (first, second)


def test_a_request_under_way_is_answered_before_the_stop(w):
    s3 = w.boto("s3", config=Config(signature_version="s3v4"))
    url = s3.generate_presigned_url("put_object", Params={"Bucket": w.bucket, "Key": "slow"})
    host = w.service.endpoints["api"]
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.putrequest("PUT", url.split(host, 1)[1])
    connection.putheader("Content-Length", "10")
    connection.endheaders()
    connection.send(b"12345")
    time.sleep(0.3)
    w.service.process.send_signal(signal.SIGTERM)
    waits("the stop", lambda: "requests under way get their answers" in w.service.log())
    time.sleep(0.5)
    connection.send(b"67890")
    answer = connection.getresponse()
    assert answer.status == 200, (answer.status, answer.read())
    assert w.service.process.wait(timeout=30) == 0
    w.service.start()
    assert w.boto("s3").get_object(Bucket=w.bucket, Key="slow")["Body"].read() == b"1234567890"


def test_doctor_says_what_to_do(w):
    assert w.service.stop() == 0
    name = w.service.ask("SELECT file FROM object WHERE key = 'notes/a.txt'")[0][0]
    file = next(path for path in w.service.backends.files(w.service.data) if path.name == name)
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    done = subprocess.run([PROGRAM, "doctor", "--data", w.service.data, "--bytes"], capture_output=True, text=True)
    assert done.returncode == 1 and "not those that were put there" in done.stdout and "next: " in done.stdout, done.stdout
    file.write_bytes(kept)
    assert subprocess.run([PROGRAM, "doctor", "--data", w.service.data, "--bytes"], capture_output=True).returncode == 0
    w.service.start()


if __name__ == "__main__":
    walking.run(globals())
