"""An external broker: mosquitto with its dynamic-security plug-in, administered by the service. What a device is told and
what it asks are the same as with the service's own broker (walk_broker, walk_jobs and walk_whole_road with `--backends
broker`); here is what is different: who may come, and that nothing is lost when either side is away."""

import base64
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import time

import backends
import walking
from service import LISTENS, Copy
from simulated_device import Device, Link, Refused, mqtt
from walk_broker import Client
from walking import waits

PROGRAM = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"


def provision(w, name):
    archive = w.service.aws("panorama", "provision-device", "--name", name, "--output", "text", "--query", "Certificates")
    device = Device(base64.b64decode(archive), w.folder / name)
    device.device_id = device.configuration["device_id"]
    return device


def no(make, *arguments, **options):
    try:
        made = make(*arguments, **options)
    except Refused as refusal:
        return str(refusal)
    made.close()
    raise AssertionError("was not refused")


def status(w, device):
    return w.boto("panorama").describe_device(DeviceId=device.device_id)["DeviceAggregatedStatus"]


def kill(w):
    w.service.process.send_signal(signal.SIGKILL)
    w.service.process.wait()


def restart_broker(w, kill=False):
    """Returns when the service listens to it again."""
    said = w.service.log().count(LISTENS)
    if kill:
        w.service.broker.kill()
        (w.service.broker.folder / "mosquitto.db").unlink(missing_ok=True)
    else:
        w.service.broker.stop()
    w.service.broker.start()
    waits("the service hears the broker again", lambda: w.service.log().count(LISTENS) > said)


def test_a_device_is_told_its_broker(w):
    w.a, w.b = provision(w, "garden"), provision(w, "gate")
    assert w.a.mqtt == w.a.endpoints["mqtt"] and w.a.mqtt["port"] != w.service.broker.port
    for device in (w.a, w.b):
        device.provision()
        assert device.mqtt == {"host": "127.0.0.1", "port": w.service.broker.port} and len(device.password) == 64
    assert w.a.password != w.b.password
    w.service.secrets += [w.a.password, w.b.password]


def test_who_may_come(w):
    broker, own = {"host": "127.0.0.1", "port": w.service.broker.port}, w.a.endpoints["mqtt"]
    new = provision(w, "new")
    files = lambda device, kind: (device.ca, device.folder / f"{kind}.certificate.pem", device.folder / f"{kind}.private-key.pem")
    claim = new.configuration["claim_client_id"]
    # A claim has no password, and with somebody's it has no name.
    no(Link, broker, *files(new, "claim"), claim)
    no(Link, broker, *files(new, "claim"), claim, password=w.a.password)
    # The password of one is nothing in the hands of another, nor is a certificate without one.
    no(Link, broker, *files(w.a, "device"), w.a.thing)
    no(Link, broker, *files(w.a, "device"), w.a.thing, password=w.b.password)
    no(Link, broker, *files(w.a, "device"), w.b.thing, password=w.a.password)
    no(Link, broker, *files(w.a, "device"), "belvedere-service", password=w.a.password)
    # A certificate that was never registered.
    link = new.claim_link()
    new.request_certificate(link)
    no(Link, broker, *files(new, "device"), new.thing)
    link.close()
    # A device has no business at the service's own broker any more, and a claim none with other topics.
    no(Link, own, *files(w.a, "device"), w.a.thing)
    reason = Client(type("", (), {**w.a.__dict__, "mqtt": own, "password": None})()).reason
    assert "another server" in str(reason).lower(), reason
    # Without a certificate nobody gets as far as a name.
    done = w.service.run("mosquitto_pub", "-h", "127.0.0.1", "-p", broker["port"], "-i", w.a.thing, "-u", w.a.thing, "-P", w.a.password,
                         "--cafile", w.a.ca, "-q", "1", "-t", f"panorama/{w.a.thing}", "-m", "x", fails=True)
    assert done, "mosquitto_pub says why"


def test_nothing_of_another_device_is_in_reach(w):
    w.b.link_now = w.b.link()
    for space in (f"panorama/{w.b.thing}/#", f"$aws/things/{w.b.thing}/shadow/#", f"$aws/things/{w.b.thing}/jobs/#", f"belvedere/things/{w.b.thing}/#"):
        assert w.b.link_now.subscribe(space), space
    for version in (mqtt.MQTTv311, mqtt.MQTTv5):
        link = w.a.link(version=version)
        for foreign in ("#", "+/#", "$aws/#", "$aws/things/+/shadow/#", f"$aws/things/{w.b.thing}/jobs/#", f"panorama/{w.b.thing}", "panorama/+",
                        f"$share/g/panorama/{w.b.thing}/x", f"$share/g/panorama/{w.a.thing}/x", "$SYS/#", "$SYS/broker/log/N", "$CONTROL/#",
                        "$CONTROL/dynamic-security/v1/response", "$aws/certificates/create-from-csr/json/accepted"):
            assert not link.subscribe(foreign), foreign
        for foreign in (f"panorama/{w.b.thing}/x", f"$aws/things/{w.b.thing}/shadow/name/device/update", f"$aws/things/{w.b.thing}/jobs/get",
                        f"$aws/things/{w.b.thing}/shadow/name/device/update/delta", "$CONTROL/dynamic-security/v1", "$SYS/broker/log/N", "anywhere"):
            link.publish(foreign, {"state": {"reported": {"forged": True}}, "commands": [{"command": "deleteClient", "username": w.b.thing}]})
        link.close()
    # Answers are the service's to give, also for a device's own topics.
    link = w.a.link()
    assert link.subscribe(f"$aws/things/{w.a.thing}/shadow/#")
    link.publish(w.a.shadow("device", "update/delta"), {"state": {"forged": True}})
    try:
        link.ask(w.a.shadow("mine", "get"), {})
        raise AssertionError("there is no such shadow")
    except Refused as refusal:
        assert json.loads(str(refusal))["code"] == 404
    link.close()
    try:
        raise AssertionError(f"b hears {w.b.link_now.messages.get(timeout=1)}")
    except queue.Empty:
        pass
    w.b.link_now.close()


def test_presence(w):
    waits("offline", lambda: status(w, w.a) == "OFFLINE")
    link = w.a.link()
    waits("online", lambda: status(w, w.a) == "ONLINE", 5)
    again = w.a.link()
    link.wait_for_end()
    time.sleep(0.5)
    assert status(w, w.a) == "ONLINE", "the newer connection stands"
    again.cut()
    waits("offline", lambda: status(w, w.a) == "OFFLINE")


def keys(link, device):
    return set(link.ask(device.shadow("mine", "get"), "")["state"]["reported"])


def test_what_a_device_says_while_the_service_is_away_is_carried_out_later(w):
    stays, goes = w.a.link(), w.b.link()
    waits("online", lambda: status(w, w.a) == status(w, w.b) == "ONLINE", 5)
    kill(w)
    for n in range(30):
        stays.publish(w.a.shadow("mine", "update"), {"state": {"reported": {f"away{n}": n}}})
    goes.close()
    w.service.start()
    # It cannot know who is there: everybody comes again.
    stays.wait_for_end()
    assert status(w, w.b) == "OFFLINE"
    link = w.a.link()
    waits("online", lambda: status(w, w.a) == "ONLINE", 5)
    assert link.subscribe(f"$aws/things/{w.a.thing}/shadow/#")
    assert keys(link, w.a) == {f"away{n}" for n in range(30)}
    link.close()


def test_what_the_service_says_while_the_broker_is_away_arrives_later(w):
    w.client = Client(w.a, clean=False, expiry=3600)
    w.client.subscribe(w.a.jobs("notify-next"))
    w.client.subscribe(f"panorama/{w.a.thing}/#")
    waits("online", lambda: status(w, w.a) == "ONLINE", 5)
    w.service.broker.stop()
    w.client.ended.get(timeout=60)
    waits("offline", lambda: status(w, w.a) == "OFFLINE")
    job = w.service.aws("panorama", "create-job-for-devices", "--device-ids", w.a.device_id, "--job-type", "REBOOT")["Jobs"][0]["JobId"]
    data = w.boto("iot-data")
    for n in range(5):
        data.publish(topic=f"panorama/{w.a.thing}/news", qos=1, payload=f"{n}".encode())
    data.publish(topic=f"panorama/{w.a.thing}/kept", qos=1, retain=True, payload=b"kept")
    kill(w)  # What waits is in the store.
    w.service.broker.start()
    w.service.start()
    w.client = Client(w.a, clean=False, expiry=3600)
    assert w.client.present
    came = [w.client.next() for _ in range(7)]
    assert json.loads(came[0].payload)["execution"]["jobId"] == job
    assert [m.payload for m in came[1:]] == [b"0", b"1", b"2", b"3", b"4", b"kept"], [m.payload for m in came]
    w.client.close()
    fresh = Client(w.a, clean=True, expiry=0)
    fresh.subscribe(f"panorama/{w.a.thing}/kept")
    kept = fresh.next()
    assert (kept.payload, kept.retain) == (b"kept", True)
    fresh.close()


def test_nothing_acknowledged_is_lost_when_both_restart(w):
    """A device goes on and on, while the service is killed and the broker is restarted in turn."""
    acknowledged = set()

    def say(count, link):
        for _ in range(count):
            n = len(acknowledged)
            link.publish(w.b.shadow("mine", "update"), {"state": {"reported": {f"k{n}": n}}})
            acknowledged.add(f"k{n}")

    say(20, w.b.link())
    kill(w)
    link = w.b.link()
    say(20, link)
    link.close()
    w.service.broker.stop()
    w.service.broker.start()
    link = w.b.link()
    say(20, link)
    link.close()
    w.service.start()
    link = w.b.link()
    say(20, link)
    link.close()
    restart_broker(w)
    link = w.b.link()
    assert link.subscribe(f"$aws/things/{w.b.thing}/shadow/#")
    waits("all is carried out", lambda: acknowledged <= keys(link, w.b))
    waits("online", lambda: status(w, w.b) == "ONLINE", 5)
    link.close()


def test_a_broker_that_was_killed_is_told_everything_again(w):
    restart_broker(w, kill=True)
    link = w.b.link()
    assert link.subscribe(f"$aws/things/{w.b.thing}/shadow/#") and keys(link, w.b)
    link.close()


def test_of_several_copies_the_newest_listens_and_another_one_when_it_is_killed(w):
    if not isinstance(w.service.backends.backends, backends.Servers):
        print("                 (a copy that is alone: nothing to see without --backends postgres)")
        return
    copy = Copy(w.service)
    copy.start()
    waits("the newest copy listens", lambda: LISTENS in copy.log())
    waits("the other one speaks", lambda: "speaking to the broker" in w.service.log())
    device = provision(w, "copies")  # at the copy that speaks
    device.provision()
    link = device.link()
    assert link.subscribe(device.jobs("#")) and link.subscribe(f"$aws/things/{device.thing}/shadow/#")
    waits("online", lambda: status(w, device) == "ONLINE", 5)
    link.ask(device.shadow("mine", "update"), {"state": {"reported": {"a": 1}}})
    job = w.service.aws("panorama", "create-job-for-devices", "--device-ids", device.device_id, "--job-type", "REBOOT")["Jobs"][0]["JobId"]
    assert link.wait(device.jobs("notify-next"))["execution"]["jobId"] == job
    copy.process.kill()
    copy.process.wait()
    said = w.service.log().count(LISTENS)
    link.publish(device.shadow("mine", "update"), {"state": {"reported": {"b": 2}}})
    began = time.monotonic()
    waits("the one that is left listens", lambda: w.service.log().count(LISTENS) > said, 60)
    print(f"measured: {time.monotonic() - began:.0f} s after the listening copy was killed another one listened")
    link.wait_for_end()
    link = device.link()
    assert link.subscribe(f"$aws/things/{device.thing}/shadow/#")
    waits("what was said meanwhile is carried out", lambda: keys(link, device) == {"a", "b"})
    waits("online", lambda: status(w, device) == "ONLINE", 5)
    link.close()


def test_revocation_cuts_and_keeps_out(w):
    client = Client(w.b)
    began = time.monotonic()
    w.service.run(PROGRAM, "devices", "--data", w.service.data, "revoke", w.b.device_id)
    assert client.ended.get(timeout=60) == "Administrative action"
    seconds = time.monotonic() - began
    assert seconds < 5, seconds
    print(f"measured: a device locked out by another process was cut at mosquitto after {seconds:.1f} s")
    no(w.b.link)
    client = Client(w.a)
    began = time.monotonic()
    w.service.aws("panorama", "delete-device", "--device-id", w.a.device_id)
    assert client.ended.get(timeout=60) == "Administrative action"
    assert time.monotonic() - began < 5
    no(w.a.link)
    # Neither comes back with a restart of the other side.
    restart_broker(w)
    no(w.b.link)
    no(w.a.link)


def test_doctor_looks_at_the_broker_too(w):
    doctor = lambda: subprocess.run([PROGRAM, "doctor", "--data", w.service.data], capture_output=True, text=True)
    device = provision(w, "patient")
    device.provision()
    w.service.secrets.append(device.password)
    done = doctor()
    assert done.returncode == 0 and re.search(r"ok +broker .* answers, and knows [1-9]\d* devices\n", done.stdout), done.stdout
    link = device.link()
    waits("online", lambda: status(w, device) == "ONLINE", 5)
    done = doctor()
    assert "0 errors" in done.stdout and status(w, device) == "ONLINE", "looking disturbs nobody"
    link.close()
    said = w.service.log().count(LISTENS)
    w.service.broker.stop()
    done = doctor()
    assert done.returncode == 1 and re.search(r"ERROR +broker .*\n +next: .*mosquitto", done.stdout), done.stdout
    w.service.broker.start()
    waits("the service hears the broker again", lambda: w.service.log().count(LISTENS) > said)


def test_passwords_are_nowhere_in_clear(w):
    for path in w.service.broker.folder.iterdir():
        for secret in w.service.secrets:
            assert secret.encode() not in path.read_bytes(), path.name


if __name__ == "__main__":
    walking.run(globals(), walking.Walk(broker=True))
