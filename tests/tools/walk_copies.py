"""Two copies of the service on one database and one bucket: any of them may be asked, and each may be killed."""

import json
import os

os.environ["BELVEDERE_TEST_BACKENDS"] = "postgres"

import walking
from service import Copy
from simulated_device import Device, Link
from walking import waits


def at(w, copy):
    """The device's connection to one of the copies."""
    host, port = copy.endpoints["mqtt"].rsplit(":", 1)
    device = w.device
    return Link({"host": host, "port": int(port)}, device.ca, device.folder / "device.certificate.pem",
                device.folder / "device.private-key.pem", device.thing)


def at_b(w, name):
    return w.boto(name, endpoint_url="http://" + w.b.endpoints["api"])


def online(panorama, w):
    return panorama.describe_device(DeviceId=w.device_id)["DeviceConnectionStatus"] == "ONLINE"


def test_a_second_copy_knows_the_keys_of_the_first(w):
    w.b = Copy(w.service)
    w.b.start()
    assert at_b(w, "panorama").list_devices()["Devices"] == []


def test_a_device_of_one_copy_is_shown_by_the_other(w):
    archive = w.boto("panorama").provision_device(Name="door")["Certificates"]
    w.device = Device(archive, w.folder / "device")
    w.device_id = w.device.configuration["device_id"]
    w.device.provision()
    w.link = at(w, w.service)
    waits("connected, says the other copy", lambda: online(at_b(w, "panorama"), w))


def test_a_job_made_at_one_copy_reaches_the_device_at_the_other(w):
    topic = w.device.jobs("notify-next")
    assert w.link.subscribe(topic)
    w.job = at_b(w, "panorama").create_job_for_devices(DeviceIds=[w.device_id], JobType="REBOOT")["Jobs"][0]["JobId"]
    assert w.link.wait(topic, 20)["execution"]["jobId"] == w.job


def test_an_object_of_one_copy_is_read_at_the_other(w):
    bucket = json.loads((w.service.data / "service.json").read_text())["bucket"]
    body = os.urandom(20_000_000)
    w.boto("s3").put_object(Bucket=bucket, Key="large", Body=body)
    assert at_b(w, "s3").get_object(Bucket=bucket, Key="large")["Body"].read() == body
    part = at_b(w, "s3").get_object(Bucket=bucket, Key="large", Range="bytes=9999999-10000001")["Body"].read()
    assert part == body[9999999:10000002]


def test_a_newer_connection_at_the_other_copy_ends_the_older(w):
    newer = at(w, w.b)
    w.link.wait_for_end()
    assert online(w.boto("panorama"), w), "the older connection's end is not the device's"
    newer.close()
    waits("not connected", lambda: not online(w.boto("panorama"), w))


def test_a_killed_copy_loses_nothing(w):
    link = at(w, w.service)
    waits("connected", lambda: online(at_b(w, "panorama"), w))
    w.service.process.kill()
    w.service.process.wait()
    link.wait_for_end()
    link = at(w, w.b)
    assert link.subscribe(w.device.jobs("$next/get/accepted"))
    link.publish(w.device.jobs("$next/get"), {})
    assert link.wait(w.device.jobs("$next/get/accepted"))["execution"]["jobId"] == w.job
    assert online(at_b(w, "panorama"), w)
    link.close()
    assert w.b.stop() == 0


walking.run(globals())
