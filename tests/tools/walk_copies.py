"""Several copies of the service on one database and one bucket: any of them may be asked, and each may be killed."""

import json
import os
import subprocess
import threading
import time

os.environ["BELVEDERE_TEST_BACKENDS"] = "postgres"

import walking
from raw import Raw
from receivers import Webhook
from service import BIN, Copy
from simulated_device import Device, Link
from walking import waits

PROGRAM = BIN / "belvedere-service"


def at(w, copy, **options):
    """The device's connection to one of the copies."""
    host, port = copy.endpoints["mqtt"].rsplit(":", 1)
    device = options.pop("device", w.device)
    return Link({"host": host, "port": int(port)}, device.ca, device.folder / "device.certificate.pem",
                device.folder / "device.private-key.pem", device.thing, **options)


def edited(copy, **changes):
    """Changes what service.json of a copy says; in force from its next start on."""
    path = copy.data / "service.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return copy


def both(*calls):
    """Does these at once, each in a thread of its own."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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


def publish(w, name, numbers):
    """Every second message at one copy, the others at the other."""
    clients = [w.boto("iot-data"), at_b(w, "iot-data")]
    for n in numbers:
        clients[n % 2].publish(topic=f"panorama/{w.device.thing}/{name}", qos=1, payload=json.dumps(n))


def test_messages_of_both_copies_reach_a_connection_at_one(w):
    for copy in (w.service, w.b):
        w.link.close()
        w.link = at(w, copy)
        topic = f"panorama/{w.device.thing}/news"
        assert w.link.subscribe(topic)
        publish(w, "news", range(20))
        assert sorted(w.link.wait(topic) for _ in range(20)) == list(range(20))


def test_a_session_goes_from_one_copy_to_the_other_with_what_waits(w):
    topic = f"panorama/{w.device.thing}/kept"
    w.link.close()
    link = at(w, w.service, clean_session=False)
    assert link.subscribe(topic)
    publish(w, "kept", range(4))
    assert sorted(link.wait(topic) for _ in range(4)) == list(range(4))
    link.close()
    publish(w, "kept", range(4, 10))
    link = at(w, w.b, clean_session=False)
    assert sorted(link.wait(topic) for _ in range(6)) == list(range(4, 10)), "what came meanwhile"
    publish(w, "kept", range(10, 20))
    assert sorted(link.wait(topic) for _ in range(10)) == list(range(10, 20)), "and what comes now"
    link.close()
    at(w, w.b).close()
    w.link = at(w, w.service)


def test_a_device_moves_while_messages_come_and_misses_none(w):
    """A stale connection takes no message with it: it is told of the newer one, and says what it knows."""
    topic = f"panorama/{w.device.thing}/moving"
    w.link.close()
    link = at(w, w.service, clean_session=False)
    assert link.subscribe(topic)
    links, sent, done = [link], 120, threading.Event()

    def send():
        try:
            publish(w, "moving", range(sent))
        finally:
            done.set()

    sender = threading.Thread(target=send)
    sender.start()
    for n in range(6):
        links.append(at(w, (w.b, w.service)[n % 2], clean_session=False))
        time.sleep(0.3)
    sender.join()
    heard = set()

    def all_heard():
        for link in links:
            while not link.messages.empty():
                name, payload = link.messages.get()
                heard.update([json.loads(payload)] if name == topic else [])
        return heard == set(range(sent))

    waits("every message", all_heard, 60)
    links[-1].close()
    at(w, w.service).close()
    w.link = at(w, w.service)


def test_a_device_revoked_at_one_copy_is_cut_at_the_other(w):
    archive = at_b(w, "panorama").provision_device(Name="window")["Certificates"]
    device = Device(archive, w.folder / "window")
    device.provision()
    link = at(w, w.service, device=device)
    began = time.monotonic()
    w.service.run(PROGRAM, "devices", "--data", w.b.data, "revoke", device.configuration["device_id"])
    link.wait_for_end()
    took = time.monotonic() - began
    print(f"measured: a device revoked at one copy was cut at the other after {took:.1f} s")
    assert took < 15, took
    at_b(w, "panorama").delete_device(DeviceId=device.configuration["device_id"])


def test_an_alarm_rises_once_and_every_message_is_delivered_once(w):
    hook = Webhook()
    topic = w.boto("sns").create_topic(Name="people")["TopicArn"]
    at_b(w, "sns").subscribe(TopicArn=topic, Protocol="http", Endpoint=hook.address)
    numbers = [f"message {n}" for n in range(30)]
    half = lambda client, texts: [client.publish(TopicArn=topic, Message=text) for text in texts]
    both(lambda: half(w.boto("sns"), numbers[::2]), lambda: half(at_b(w, "sns"), numbers[1::2]))
    at_b(w, "cloudwatch").put_metric_data(Namespace="Sample", MetricData=[
        {"MetricName": "Heat", "Timestamp": time.time() - 60 * n, "Value": 9} for n in range(1, 4)])
    w.boto("cloudwatch").put_metric_alarm(
        AlarmName="hot", Namespace="Sample", MetricName="Heat", Statistic="Maximum", Period=60, EvaluationPeriods=3, DatapointsToAlarm=1,
        Threshold=5, ComparisonOperator="GreaterThanThreshold", AlarmActions=[topic])
    texts = lambda: [json.loads(body)["Message"] for _, _, body in list(hook.received)]
    alarms = lambda: [t for t in texts() if t.startswith("{") and json.loads(t)["NewStateValue"] == "ALARM"]
    waits("all messages and the alarm", lambda: set(numbers) <= set(texts()) and alarms(), 120)
    time.sleep(12)  # two more turns of either copy
    assert sorted(t for t in texts() if not t.startswith("{")) == sorted(numbers), "each once"
    assert len(alarms()) == 1, alarms()
    history = at_b(w, "cloudwatch").describe_alarm_history(AlarmName="hot", HistoryItemType="StateUpdate")["AlarmHistoryItems"]
    assert len([h for h in history if "to ALARM" in h["HistorySummary"]]) == 1, history
    w.boto("cloudwatch").delete_alarms(AlarmNames=["hot"])
    hook.end()


def test_quotas_and_rates_hold_for_all_together(w):
    """Two more copies, with limits: four run now, and each admits a quarter of a rate."""
    limits = {**json.loads((w.service.data / "service.json").read_text())["limits"], "devices": 6}
    limited = [edited(Copy(w.service), limits={**limits, "requests_per_second": 8, "burst_seconds": 0}) for _ in range(2)]
    for copy in limited:
        copy.start()
    one, other = (Raw(copy) for copy in limited)
    refused, made = [], []

    def provision(raw, side):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            answer = raw.call("POST", "/devices", json.dumps({"Name": f"{side}-{len(made)}-{raw.sent}"}).encode())
            if answer.status == 429:
                time.sleep(0.1)
            elif answer.status == 200:
                made.append(answer.document["DeviceId"])
            else:
                refused.append(answer)
                return

    both(lambda: provision(one, "one"), lambda: provision(other, "other"))
    there = w.boto("panorama").list_devices()["Devices"]
    assert len(there) == 6 and {r.code for r in refused} == {"ServiceQuotaExceededException"}, (len(there), refused)

    def admitted():
        began, answers = time.monotonic(), []
        while time.monotonic() - began < 3:
            answers.append(one.call("GET", "/devices").status)
            time.sleep(0.02)
        took, count = time.monotonic() - began, answers.count(200)
        print(f"measured: one of four copies admitted {count} of {len(answers)} requests in {took:.1f} s, at a rate of 8 a second")
        assert set(answers) == {200, 429}, set(answers)
        return count <= 8 / 4 * took + 8 / 4 + 1

    # A copy counts the others every few seconds.
    waits("a quarter of the rate", admitted)
    for copy in limited:
        assert copy.stop() == 0
    for device_id in made:
        w.boto("panorama").delete_device(DeviceId=device_id)


def fails(copy):
    """What `serve` says when it refuses to start."""
    command = [PROGRAM, "serve", "--data", copy.data, "--api", "127.0.0.1:0", "--device-https", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_another_service_on_the_same_database_is_refused(w):
    said = fails(edited(Copy(w.service), region="eu-west-1"))
    assert "another service runs on this database: its region is us-east-1, here it is eu-west-1" in said, said
    copy = Copy(w.service)
    (copy.data / "secrets.key").write_text("11" * 32)
    said = fails(copy)
    assert "belongs to another service" in said and "secrets.key" in said, said
    said = w.service.run(PROGRAM, "backup", "--data", copy.data, copy.folder / "backup.tar", fails=True)
    assert "belongs to another service" in said and not (copy.folder / "backup.tar").exists(), said
    new = w.folder / "new"
    said = w.service.run(PROGRAM, "init", "--data", new, "--keys", w.folder / "keys", *w.service.backends.arguments, fails=True)
    assert "needs an empty database" in said and not (new / "service.json").exists(), said
    assert w.boto("panorama").list_devices() and at_b(w, "panorama").list_devices(), "those that run go on"


def test_an_object_of_one_copy_is_read_at_the_other(w):
    bucket = json.loads((w.service.data / "service.json").read_text())["bucket"]
    body = os.urandom(20_000_000)
    w.boto("s3").put_object(Bucket=bucket, Key="large", Body=body)
    assert at_b(w, "s3").get_object(Bucket=bucket, Key="large")["Body"].read() == body
    part = at_b(w, "s3").get_object(Bucket=bucket, Key="large", Range="bytes=9999999-10000001")["Body"].read()
    assert part == body[9999999:10000002]


def test_a_newer_connection_at_the_other_copy_ends_the_older(w):
    began = time.monotonic()
    newer = at(w, w.b)
    w.link.wait_for_end()
    print(f"measured: the older connection ended {time.monotonic() - began:.1f} s after the newer one began")
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


def test_what_the_killed_copy_looked_after_goes_on(w):
    """Its device is gone with it, and the other copy looks at alarms now. Half a minute passes here at once."""
    w.service.start()
    link = at(w, w.service)
    waits("connected", lambda: online(at_b(w, "panorama"), w))
    # The older of the two looks at alarms: it shall be the one that dies.
    first = w.service.ask("SELECT copy_id FROM mqtt_connection")[0][0]
    w.service.ask(f"UPDATE service_copy SET started_ms = 1 WHERE copy_id = '{first}'")
    w.service.process.kill()
    w.service.process.wait()
    link.wait_for_end()
    cloudwatch = at_b(w, "cloudwatch")
    cloudwatch.put_metric_data(Namespace="Sample", MetricData=[
        {"MetricName": "Cold", "Timestamp": time.time() - 60 * n, "Value": 1} for n in range(1, 4)])
    cloudwatch.put_metric_alarm(
        AlarmName="cold", Namespace="Sample", MetricName="Cold", Statistic="Maximum", Period=60, EvaluationPeriods=3, DatapointsToAlarm=1,
        Threshold=5, ComparisonOperator="LessThanThreshold")
    state = lambda: cloudwatch.describe_alarms(AlarmNames=["cold"])["MetricAlarms"][0]["StateValue"]
    assert online(at_b(w, "panorama"), w) and state() == "INSUFFICIENT_DATA", "nobody knows yet"
    w.service.ask("UPDATE service_copy SET seen_ms = seen_ms - 31000")
    waits("the device is gone with its copy", lambda: not online(at_b(w, "panorama"), w))
    waits("the other copy looks at the alarm", lambda: state() == "ALARM")
    assert w.b.stop() == 0


walking.run(globals())
