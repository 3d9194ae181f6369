"""Provisioning and agent against the real service, on a host, as ordinary processes.

    with-the-service.py <directory of the programs> [--broker] [--no-tpm]
                                                       (needs boto3, as in the virtual environment of the AWS CLI)

--broker: the service's devices are at mosquitto (tests/tools/mosquitto).
--no-tpm: there is no TPM (swtpm), and the device's key is in a file.

Real: belvedere-keys, belvedere-service, belvedere-provisioning, belvedere-agent, TLS, MQTT, boto3. Played here: the Varlink
sockets of network, front-panel, init and applications. Prints one line per step; exits 0 when all was seen.
"""
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import boto3

PROGRAMS = pathlib.Path(sys.argv[1])
BROKER = "--broker" in sys.argv[2:]
TPM = "--no-tpm" not in sys.argv[2:]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests/tools"))
import backends  # noqa: E402

WORK = pathlib.Path(tempfile.mkdtemp(prefix="belvedere-agent-test-"))
STARTED = time.monotonic()
processes = []


def say(text):
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def start(name, *arguments):
    log = open(WORK / f"{name}.log", "ab")
    process = subprocess.Popen([PROGRAMS / name, *map(str, arguments)], stdout=log, stderr=log)
    processes.append(process)
    return process


def wait(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = condition()
        except Exception as error:  # the service may be starting
            value = None
            last = error
        if value:
            say(what)
            return value
        time.sleep(0.5)
    raise SystemExit(f"not seen within {seconds} s: {what}; logs are in {WORK}")


class Played:
    """A Varlink server that answers what `answers` says (hangs up where that is None) and remembers the calls."""

    def __init__(self, name, answers):
        self.path = WORK / f"{name}.sock"
        self.answers, self.calls = answers, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(16)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        buffer = b""
        while True:
            part = connection.recv(1 << 16)
            if not part:
                return
            buffer += part
            while b"\0" in buffer:
                message, buffer = buffer.split(b"\0", 1)
                call = json.loads(message)
                method = call["method"].rsplit(".", 1)[1]
                self.calls.append((method, call.get("parameters", {})))
                reply = self.answers[method](call.get("parameters", {}))
                if reply is None:
                    connection.close()
                    return
                connection.sendall(json.dumps({"parameters": reply}).encode() + b"\0")

    def called(self, method):
        return [parameters for name, parameters in list(self.calls) if name == method]


def start_tpm():
    """A software TPM; its socket, or a name that nothing has."""
    node, state = WORK / "tpm.sock", WORK / "tpm"
    if TPM:
        state.mkdir()
        log = open(WORK / "swtpm.log", "ab")
        processes.append(subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate", f"dir={state}", "--server",
             f"type=unixio,path={node}", "--ctrl", f"type=unixio,path={state}/control"], stdout=log, stderr=log))
        wait("the TPM is there", node.exists)
        make_parent(node)
    return node


def make_parent(node):
    """The parent of the device's key, which an appliance's start makes: CreatePrimary of the owner's storage key, EvictControl."""
    def ask(code, handles, parameters):
        body = b"".join(struct.pack(">I", handle) for handle in handles)
        body += struct.pack(">IIHBH", 9, 0x40000009, 0, 1, 0) + parameters
        tpm.sendall(struct.pack(">HII", 0x8002, 10 + len(body), code) + body)
        answer = tpm.recv(4096)
        assert answer[6:10] == bytes(4), f"the TPM refuses {code:#x}: {answer.hex()}"
        return answer
    owner, parent = 0x40000001, 0x8100be00
    template = bytes.fromhex("0023000b00030472000000060080004300100003001000000000")
    parameters = struct.pack(">HHHH", 4, 0, 0, len(template)) + template + bytes(6)
    with socket.socket(socket.AF_UNIX) as tpm:
        tpm.settimeout(60)
        tpm.connect(str(node))
        made, = struct.unpack(">I", ask(0x131, [owner], parameters)[10:14])
        ask(0x120, [owner, made], struct.pack(">I", parent))
        tpm.sendall(struct.pack(">HIII", 0x8001, 14, 0x165, made))
        assert tpm.recv(4096)[6:10] == bytes(4), "the TPM unloads it"


def holds_a_private_key(directory):
    return [path for path in directory.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    data, keys = WORK / "service", WORK / "keys"
    subprocess.run([PROGRAMS / "belvedere-keys", "init", keys], check=True, stdout=subprocess.DEVNULL)
    broker = backends.Broker(free_port()) if BROKER else None
    initial = subprocess.run(
        [PROGRAMS / "belvedere-service", "init", "--data", data, "--keys", keys, *(broker.arguments if broker else [])],
        check=True, capture_output=True, text=True).stdout
    if broker:
        broker.prepare(PROGRAMS / "belvedere-service", data)
        broker.start()
    api, https, mqtt = free_port(), free_port(), free_port()
    serve = ["serve", "--data", data, "--api", f"127.0.0.1:{api}", "--device-https", f"127.0.0.1:{https}",
             "--mqtt", f"127.0.0.1:{mqtt}", "--advertise-host", "127.0.0.1"]
    service = start("belvedere-service", *serve)
    made = dict(line.split("=", 1) for line in initial.splitlines() if "=" in line)
    access, secret = made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"]
    session = boto3.Session(access, secret, region_name="us-east-1")
    client = lambda name: session.client(name, endpoint_url=f"http://127.0.0.1:{api}")
    panorama, logs = client("panorama"), client("logs")
    wait("the service answers", lambda: panorama.list_devices() is not None)

    status = {"Ethernet0Status": {"ConnectionStatus": "CONNECTED", "IpAddress": "10.0.2.15/24", "HwAddress": "52:54:00:12:34:56"}}
    network = Played("network", {"Try": lambda p: status, "Keep": lambda p: {}, "Revert": lambda p: {}, "GetStatus": lambda p: status})
    panel = Played("front-panel", {"SetCondition": lambda p: {}, "SetNetwork": lambda p: {}})
    lines = {"init": [], "applications": []}

    def read_logs(name):
        return lambda p: {"entries": [e for e in lines[name] if e["sequence"] > p["after"]][: p["limit"]], "dropped": 0}

    init = Played("init", {"ReadLogs": read_logs("init"), "Restart": lambda p: {}})
    reports = []
    applications = Played("applications", {
        "ReadLogs": read_logs("applications"), "GetReports": lambda p: {"applications": list(reports)},
        "SetDesired": lambda p: {}, "SetObjectAccess": lambda p: {}})

    made = panorama.provision_device(Name="agent-test", NetworkingConfiguration={"Ethernet0": {"ConnectionType": "DHCP"}})
    device, stick = made["DeviceId"], WORK / "stick"
    stick.mkdir()
    (stick / "certificates-omni_agent-test.zip").write_bytes(made["Certificates"])
    release = WORK / "release"
    release.mkdir()
    (release / "version").write_text("0.1.0\n")
    (release / "board").write_text("qemu-aarch64\n")
    (WORK / "identity").mkdir()
    (WORK / "agent").mkdir()
    provisioning = ["--socket", WORK / "provisioning.sock", "--state", WORK / "identity", "--network", network.path,
                    "--front-panel", panel.path, "--init", init.path, "--release", release, "--mount-point", WORK / "mount",
                    "--tpm", start_tpm()]
    lines["init"].append({"sequence": 1, "application_instance_id": None, "stream": "occ_log",
                          "timestamp_ms": int(time.time() * 1000), "message": "a line of init"})
    code = start("belvedere-provisioning", *provisioning, "--directory", stick).wait(timeout=120)
    result = (stick / "panorama/provisioning-result.txt").read_text()
    say(result.splitlines()[0])
    assert code == 0 and result.startswith("SUCCEEDED"), result
    assert not list(stick.glob("certificates-omni_*")), "the archive is wiped"
    assert "a line of init" in (stick / "panorama/occ.log").read_text()
    assert network.called("Keep") and not network.called("Revert")
    assert panorama.describe_device(DeviceId=device)["ProvisioningStatus"] == "SUCCEEDED"
    identity = json.loads((WORK / "identity/identity.json").read_text())["identity"]
    assert identity["endpoints"]["mqtt"]["port"] == (broker.port if broker else mqtt), identity["endpoints"]
    assert ("mqtt_password" in identity) == BROKER
    # Where there is a TPM, no private key is on the disk; where there is none, the stick says so.
    assert bool(holds_a_private_key(WORK / "identity")) != TPM and ("private_key_pem" in identity) != TPM, identity.keys()
    assert ("there is no TPM" in result) != TPM, result

    # The same archive again, after it was used: the service says no, the stick says it, nothing changes.
    again = WORK / "again"
    again.mkdir()
    (again / "certificates-omni_agent-test.zip").write_bytes(made["Certificates"])
    (WORK / "other").mkdir()
    other = [a if a != WORK / "identity" else WORK / "other" for a in provisioning]
    start("belvedere-provisioning", *other, "--directory", again).wait(timeout=180)
    result = (again / "panorama/provisioning-result.txt").read_text()
    say(result.splitlines()[0])
    assert result.startswith("FAILED (service_refused)"), result
    assert not list((WORK / "other").iterdir()) and network.called("Revert")

    start("belvedere-provisioning", *provisioning)
    boot_id = WORK / "boot_id"
    boot_id.write_text("first-boot\n")
    agent_options = ("--provisioning", WORK / "provisioning.sock", "--applications", applications.path, "--network",
          network.path, "--init", init.path, "--front-panel", panel.path, "--state", WORK / "agent", "--release", release, "--boot-id", boot_id)
    agent = start("belvedere-agent", *agent_options)
    wait("the device is online", lambda: panorama.describe_device(DeviceId=device)["DeviceAggregatedStatus"] == "ONLINE")
    # Online is the connection; what the appliance says of itself follows a moment later.
    wait("the device says how it is", lambda: "CurrentNetworkingStatus" in panorama.describe_device(DeviceId=device))
    described = panorama.describe_device(DeviceId=device)
    assert described["CurrentSoftware"] == "0.1.0", described
    assert described["CurrentNetworkingStatus"]["Ethernet0Status"]["IpAddress"] == "10.0.2.15/24", described
    assert {"source": "agent", "condition": "communicating"} in panel.called("SetNetwork")
    wait("a line of init is a log event", lambda: [e for e in logs.get_log_events(
        logGroupName=f"/aws/panorama/devices/{device}", logStreamName="occ_log")["events"] if e["message"] == "a line of init"])

    account = client("sts").get_caller_identity()["Account"]
    job = panorama.create_node_from_template_job(
        TemplateType="RTSP_CAMERA_STREAM", OutputPackageName="door", OutputPackageVersion="1.0", NodeName="door",
        TemplateParameters={"StreamUrl": "rtsp://127.0.0.1:1/x", "Username": "u", "Password": "p"})["JobId"]
    wait("the camera is a node", lambda: panorama.describe_node_from_template_job(JobId=job)["Status"] == "SUCCEEDED")
    graph = {"nodeGraph": {"envelopeVersion": "2021-01-01", "packages": [
        {"name": f"{account}::door", "version": "1.0"}, {"name": "panorama::hdmi_data_sink", "version": "1.0"}],
        "nodes": [{"name": "door", "interface": f"{account}::door.door", "overridable": False, "launch": "onAppStart"},
                  {"name": "screen", "interface": "panorama::hdmi_data_sink.hdmi0", "overridable": False, "launch": "onAppStart"}],
        "edges": [{"producer": "door.video_out", "consumer": "screen.video_in"}]}}
    instance = panorama.create_application_instance(
        Name="doors", DefaultRuntimeContextDevice=device, ManifestPayload={"PayloadData": json.dumps(graph)})["ApplicationInstanceId"]
    desired = wait("applications was given the deployment", lambda: [
        d for call in applications.called("SetDesired") for d in call["deployments"]
        if d["deployment"]["application_instance_id"] == instance], 90)[0]
    assert applications.called("SetObjectAccess")[-1]["secret_access_key"]
    assert desired["deployment"]["cameras"][0]["password"] == "p"

    def report(status, health="RUNNING"):
        reports[:] = [{"application_instance_id": instance, "sha256": desired["sha256"], "status": status, "status_description": "",
                       "health": health, "device_reported_status": "RUNNING",
                       "nodes": [{"node": "door", "status": "RUNNING", "detail": ""}, {"node": "screen", "status": "RUNNING", "detail": ""}]}]

    describe = lambda: panorama.describe_application_instance(ApplicationInstanceId=instance)
    report("DEPLOYMENT_IN_PROGRESS")
    wait("the deployment is in progress", lambda: describe()["Status"] == "DEPLOYMENT_IN_PROGRESS")
    report("DEPLOYMENT_SUCCEEDED")
    wait("the deployment succeeded", lambda: describe()["Status"] == "DEPLOYMENT_SUCCEEDED" and describe()["HealthStatus"] == "RUNNING")
    nodes = panorama.list_application_instance_node_instances(ApplicationInstanceId=instance)["NodeInstances"]
    assert {n["CurrentStatus"] for n in nodes} == {"RUNNING"}, nodes
    lines["applications"].append({"sequence": 1, "application_instance_id": instance, "stream": "code_node",
                                  "timestamp_ms": int(time.time() * 1000), "message": "hello from the application"})
    wait("a line of the application is a log event", lambda: logs.get_log_events(
        logGroupName=f"/aws/panorama/devices/{device}/applications/{instance}", logStreamName="code_node")["events"])

    # The service goes away and comes back: what happened meanwhile arrives.
    service.terminate()
    service.wait(timeout=30)
    say("the service is gone")
    if broker:
        broker.stop()
    wait("the front panel knows", lambda: panel.called("SetNetwork")[-1]["condition"] is None)
    if broker:
        broker.start()
    lines["applications"].append({"sequence": 2, "application_instance_id": instance, "stream": "code_node",
                                  "timestamp_ms": int(time.time() * 1000), "message": "said while offline"})
    report("DEPLOYMENT_SUCCEEDED", "ERROR")
    time.sleep(5)
    start("belvedere-service", *serve)
    wait("the device is online again", lambda: panorama.describe_device(DeviceId=device)["DeviceAggregatedStatus"] == "ONLINE", 120)
    wait("what changed offline was reported", lambda: describe()["HealthStatus"] == "ERROR")
    wait("what was said offline was sent", lambda: [e for e in logs.get_log_events(
        logGroupName=f"/aws/panorama/devices/{device}/applications/{instance}", logStreamName="code_node")["events"]
        if e["message"] == "said while offline"], 120)

    panorama.remove_application_instance(ApplicationInstanceId=instance)
    wait("applications was told to remove it", lambda: applications.called("SetDesired")[-1]["deployments"] == [])
    reports.clear()
    wait("the removal succeeded", lambda: describe()["Status"] == "REMOVAL_SUCCEEDED")

    # A restart: init is asked once, and the agent of the next boot says that it happened.
    job = panorama.create_job_for_devices(DeviceIds=[device], JobType="REBOOT")["Jobs"][0]["JobId"]
    job_status = lambda: panorama.describe_device_job(JobId=job)["Status"]
    wait("init was asked for the restart", lambda: init.called("Restart"))
    assert init.called("Restart") == [{"why": f"job {job} of the service"}], init.called("Restart")
    assert job_status() == "REBOOTING", job_status()
    agent.terminate()
    agent.wait(timeout=10)
    boot_id.write_text("second-boot\n")
    agent = start("belvedere-agent", *agent_options)
    wait("the restart is reported", lambda: job_status() == "COMPLETED")
    time.sleep(3)
    assert len(init.called("Restart")) == 1, "one job, one restart"

    # The agent ends after the note, and init has not done it: the agent that comes back in the same boot asks again.
    init.answers["Restart"] = lambda p: None
    job = panorama.create_job_for_devices(DeviceIds=[device], JobType="REBOOT")["Jobs"][0]["JobId"]
    wait("init was asked and did not answer", lambda: len(init.called("Restart")) == 2)
    agent.terminate()
    agent.wait(timeout=10)
    init.answers["Restart"] = lambda p: {}
    agent = start("belvedere-agent", *agent_options)
    wait("a new agent in the same boot asks again", lambda: len(init.called("Restart")) == 3)
    assert job_status() == "REBOOTING", job_status()
    agent.terminate()
    agent.wait(timeout=10)
    boot_id.write_text("third-boot\n")
    start("belvedere-agent", *agent_options)
    wait("this restart is reported too", lambda: job_status() == "COMPLETED")
    assert len(init.called("Restart")) == 3

    # Another service with keys of its own: its stick is refused until the owner deletes the device.
    strangers_keys, strangers_data = WORK / "strangers-keys", WORK / "strangers-service"
    subprocess.run([PROGRAMS / "belvedere-keys", "init", strangers_keys], check=True, stdout=subprocess.DEVNULL)
    initial = subprocess.run(
        [PROGRAMS / "belvedere-service", "init", "--data", strangers_data, "--keys", strangers_keys],
        check=True, capture_output=True, text=True).stdout
    made = dict(line.split("=", 1) for line in initial.splitlines() if "=" in line)
    strangers_api = free_port()
    start("belvedere-service", "serve", "--data", strangers_data, "--api", f"127.0.0.1:{strangers_api}",
          "--device-https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--advertise-host", "127.0.0.1")
    stranger = boto3.Session(made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1").client(
        "panorama", endpoint_url=f"http://127.0.0.1:{strangers_api}")
    wait("the other service answers", lambda: stranger.list_devices() is not None)
    aside = [a if a != WORK / "provisioning.sock" else WORK / "aside.sock" for a in provisioning]

    def strangers_stick(name):
        folder = WORK / f"stick-{name}"
        folder.mkdir()
        (folder / "certificates-omni_x.zip").write_bytes(stranger.provision_device(
            Name=name, NetworkingConfiguration={"Ethernet0": {"ConnectionType": "DHCP"}})["Certificates"])
        start("belvedere-provisioning", *aside, "--directory", folder).wait(timeout=180)
        result = (folder / "panorama/provisioning-result.txt").read_text()
        say(result.splitlines()[0])
        return folder, result

    before, tried = (WORK / "identity/identity.json").read_bytes(), len(network.called("Try"))
    folder, result = strangers_stick("taken-over")
    assert result.startswith("FAILED (already_provisioned)") and device in result, result
    assert (folder / "certificates-omni_x.zip").exists() and len(network.called("Try")) == tried
    assert (WORK / "identity/identity.json").read_bytes() == before

    report("REMOVAL_IN_PROGRESS")
    panorama.delete_device(DeviceId=device)
    wait("the appliance has given its identity up", lambda: b"released_thing" in (WORK / "identity/identity.json").read_bytes())
    wait("applications was told to remove everything", lambda: applications.called("SetDesired")[-1]["deployments"] == [])
    folder, result = strangers_stick("too-early")
    assert result.startswith("FAILED (release_unfinished)"), result
    assert len(init.called("Restart")) == 3, "not before the earlier owner's applications are gone"
    reports.clear()
    wait("the machine restarts", lambda: len(init.called("Restart")) == 4)
    assert not (WORK / "agent/log-positions.json").exists()
    folder, result = strangers_stick("second-owner")
    assert result.startswith("SUCCEEDED"), result
    stored = json.loads((WORK / "identity/identity.json").read_text())["identity"]
    assert stored["generation"] == 2 and stored["service_ca_pem"] != identity["service_ca_pem"], stored["generation"]
    if TPM:
        assert stored["public_key"] != identity["public_key"]
        assert not holds_a_private_key(WORK / "identity") and not holds_a_private_key(WORK / "agent")

    # A TPM that is there and does not answer: the stick says so, and nothing is made in its place.
    broken = WORK / "broken-tpm"
    broken.mkdir()
    other = [{WORK / "identity": WORK / "no-identity", WORK / "tpm.sock": broken, WORK / "provisioning.sock": WORK / "third.sock"}.get(a, a)
             for a in provisioning]
    (WORK / "no-identity").mkdir()
    folder = WORK / "stick-broken-tpm"
    folder.mkdir()
    (folder / "certificates-omni_x.zip").write_bytes(stranger.provision_device(
        Name="broken-tpm", NetworkingConfiguration={"Ethernet0": {"ConnectionType": "DHCP"}})["Certificates"])
    start("belvedere-provisioning", *other, "--directory", folder).wait(timeout=180)
    result = (folder / "panorama/provisioning-result.txt").read_text()
    say(result.splitlines()[0])
    assert result.startswith("FAILED (key)") and not list((WORK / "no-identity").iterdir()), result
    assert list(folder.glob("certificates-omni_*")), "the archive is still good"


try:
    main()
    say("all was seen")
finally:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
