"""Metrics, alarms and who is told of them, with the real tools: a web server and a mail server receive what alarms say."""

import datetime
import json
import time

import boto3

from newest_tools import newest
from receivers import Mailbox, Webhook
from service import free_port
from simulated_device import Device
from walking import ACCOUNT, Walk, refused, run, waits

NAMESPACE = "PanoramaDeviceMetrics"
TOPIC = f"arn:aws:sns:us-east-1:{ACCOUNT}:people"


class Alarmed(Walk):
    """A service that knows a mail server, which is not there yet."""

    def __init__(self):
        super().__init__()
        self.mail_port = free_port()
        assert self.service.stop() == 0
        path = self.service.data / "service.json"
        configuration = json.loads(path.read_text())
        mail = {"host": "127.0.0.1", "port": self.mail_port, "protection": "none", "from": "Belvedere <belvedere@example.org>"}
        configuration["notifications"] = {"mail": mail}
        path.write_text(json.dumps(configuration))
        self.service.start()


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def minute(ago):
    return now().replace(second=0, microsecond=0) - datetime.timedelta(minutes=ago)


def test_samples_in_every_form(w):
    cloudwatch = w.boto("cloudwatch")
    dimensions = [{"Name": "Device ID", "Value": "device-x"}, {"Name": "Application Name", "Value": "sample"}]
    cloudwatch.put_metric_data(Namespace="Sample", MetricData=[
        {"MetricName": "Time", "Dimensions": dimensions, "Timestamp": minute(5), "Value": 2.5, "Unit": "Milliseconds"},
        {"MetricName": "Time", "Dimensions": dimensions[::-1], "Timestamp": minute(5), "Values": [1, 4], "Counts": [2, 1], "Unit": "Milliseconds"},
        {"MetricName": "Time", "Dimensions": dimensions, "Timestamp": minute(4), "Unit": "Milliseconds",
         "StatisticValues": {"SampleCount": 10, "Sum": 30, "Minimum": 1, "Maximum": 9}},
    ])
    # As the guide's sample application does it.
    boto3.resource("cloudwatch", region_name="us-east-1", endpoint_url=cloudwatch.meta.endpoint_url,
                   aws_access_key_id=w.service.key["AWS_ACCESS_KEY_ID"], aws_secret_access_key=w.service.key["AWS_SECRET_ACCESS_KEY"],
                   ).Metric("Sample", "Other").put_data(Namespace="Sample", MetricData=[{"MetricName": "Other", "Value": 1.0}])
    answer = w.service.aws(
        "cloudwatch", "get-metric-statistics", "--namespace", "Sample", "--metric-name", "Time", "--period", "60",
        "--start-time", minute(10).isoformat(), "--end-time", now().isoformat(), "--statistics", "Sum", "Average", "SampleCount", "Minimum", "Maximum",
        "--dimensions", "Name=Device ID,Value=device-x", "Name=Application Name,Value=sample",
    )
    assert answer["Label"] == "Time"
    first, second = answer["Datapoints"]
    assert (first["SampleCount"], first["Sum"], first["Minimum"], first["Maximum"], first["Average"]) == (4, 8.5, 1, 4, 2.125), first
    assert first["Unit"] == "Milliseconds" and second["SampleCount"] == 10
    listed = w.service.aws("cloudwatch", "list-metrics", "--namespace", "Sample", "--dimensions", "Name=Device ID")
    assert [m["MetricName"] for m in listed["Metrics"]] == ["Time"]
    assert len(w.service.aws("cloudwatch", "list-metrics", "--namespace", "Sample")["Metrics"]) == 2


def test_many_samples_come_packed(w):
    cloudwatch = w.boto("cloudwatch")
    bodies = []
    cloudwatch.meta.events.register("before-send.cloudwatch.PutMetricData", lambda request, **_: bodies.append(request.headers.get("content-encoding")))
    cloudwatch.put_metric_data(Namespace="Packed", MetricData=[
        {"MetricName": "m", "Dimensions": [{"Name": "n", "Value": str(i % 10)}], "Value": i, "Unit": "Count"} for i in range(1000)])
    assert bodies == [b"gzip"], bodies
    listed = list(cloudwatch.get_paginator("list_metrics").paginate(Namespace="Packed"))
    assert sum(len(p["Metrics"]) for p in listed) == 10
    query = {"Id": "q", "MetricStat": {"Metric": {"Namespace": "Packed", "MetricName": "m", "Dimensions": [{"Name": "n", "Value": "3"}]},
                                      "Period": 300, "Stat": "Sum"}}
    data = cloudwatch.get_metric_data(MetricDataQueries=[query], StartTime=minute(30), EndTime=now() + datetime.timedelta(minutes=1))
    assert sum(data["MetricDataResults"][0]["Values"]) == sum(range(3, 1000, 10)), data
    assert data["MetricDataResults"][0]["StatusCode"] == "Complete"


def test_values_come_in_pages(w):
    cloudwatch = w.boto("cloudwatch")
    cloudwatch.put_metric_data(Namespace="Paged", MetricData=[{"MetricName": "m", "Timestamp": minute(n), "Value": n} for n in range(1, 8)])
    query = {"Id": "q", "MetricStat": {"Metric": {"Namespace": "Paged", "MetricName": "m"}, "Period": 60, "Stat": "Maximum"}}
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=[query], StartTime=minute(20), EndTime=now(), PaginationConfig={"PageSize": 3})
    values = [value for page in pages for result in page["MetricDataResults"] for value in result["Values"]]
    assert values == [1, 2, 3, 4, 5, 6, 7], values


def test_wrong_samples_and_questions_are_refused(w):
    cloudwatch = w.boto("cloudwatch")
    datum = {"MetricName": "m", "Value": 1}
    put = lambda **change: {"Namespace": "Wrong", "MetricData": [{**datum, **change}]}
    old = now() - datetime.timedelta(days=15)
    for code, arguments in [
        ("InvalidParameterValue", put(Timestamp=old)), ("InvalidParameterValue", put(Timestamp=now() + datetime.timedelta(hours=3))),
        ("InvalidParameterValue", put(Value=float("nan"))), ("InvalidParameterValue", put(Value=float("inf"))),
        ("InvalidParameterCombination", put(Values=[1])), ("InvalidParameterValue", put(Unit="Furlong")),
        ("InvalidParameterValue", put(Dimensions=[{"Name": "a", "Value": "1"}, {"Name": "a", "Value": "2"}])),
        ("InvalidParameterValue", put(Dimensions=[{"Name": str(n), "Value": "1"} for n in range(31)])),
        ("InvalidParameterValue", {"Namespace": "AWS/X", "MetricData": [datum]}), ("MissingParameter", {"Namespace": "Wrong", "MetricData": []}),
        ("InvalidParameterValue", {"Namespace": "Wrong", "MetricData": [datum] * 1001}),
    ]:
        refused(code, cloudwatch.put_metric_data, **arguments)
    assert cloudwatch.list_metrics(Namespace="Wrong")["Metrics"] == []
    ask = {"Namespace": "Sample", "MetricName": "Time", "StartTime": minute(9), "EndTime": now(), "Period": 60}
    refused("MissingParameter", cloudwatch.get_metric_statistics, **ask)
    refused("ValidationError", cloudwatch.get_metric_statistics, **ask, ExtendedStatistics=["p99"])
    refused("InvalidParameterValue", cloudwatch.get_metric_statistics, **{**ask, "Period": 61}, Statistics=["Sum"])
    refused("InvalidParameterCombination", cloudwatch.get_metric_statistics, **{**ask, "StartTime": minute(1500)}, Statistics=["Sum"])
    expression = {"Id": "e", "Expression": "SUM(METRICS())"}
    refused("ValidationError", cloudwatch.get_metric_data, MetricDataQueries=[expression], StartTime=minute(9), EndTime=now())


def test_the_newest_boto3_in_its_own_form(w):
    """It no longer speaks the query form."""
    program = """
import datetime, json, sys, boto3
cloudwatch, sent = boto3.client("cloudwatch", region_name="us-east-1"), []
cloudwatch.meta.events.register("before-send.cloudwatch", lambda request, **_: sent.append(str(request.headers.get("content-type"))))
now = datetime.datetime.now(datetime.timezone.utc)
cloudwatch.put_metric_data(Namespace="Newest", MetricData=[
    {"MetricName": "m", "Dimensions": [{"Name": "n", "Value": "1"}], "Timestamp": now, "Values": [1.5, 2], "Counts": [2, 1], "Unit": "Count"}])
points = cloudwatch.get_metric_statistics(Namespace="Newest", MetricName="m", Dimensions=[{"Name": "n", "Value": "1"}], Period=3600,
    StartTime=now - datetime.timedelta(hours=2), EndTime=now + datetime.timedelta(hours=1), Statistics=["Sum", "Maximum"])["Datapoints"]
cloudwatch.put_metric_alarm(AlarmName="newest", Namespace="Newest", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1,
    Threshold=1.0, ComparisonOperator="GreaterThanThreshold")
alarm = cloudwatch.describe_alarms(AlarmNames=["newest"])["MetricAlarms"][0]
cloudwatch.delete_alarms(AlarmNames=["newest"])
try:
    cloudwatch.put_metric_alarm(AlarmName="x", EvaluationPeriods=1, ComparisonOperator="LessThanThreshold")
except Exception as error:
    refusal = type(error).__name__ + ": " + str(error)
print(json.dumps({"sent": sorted(set(sent)), "sum": sum(p["Sum"] for p in points), "unit": points[0]["Unit"],
    "metrics": [m["MetricName"] for m in cloudwatch.list_metrics(Namespace="Newest")["Metrics"]],
    "threshold": alarm["Threshold"], "left": cloudwatch.describe_alarms(AlarmNames=["newest"])["MetricAlarms"], "refusal": refusal}))
"""
    path = w.folder / "newest.py"
    path.write_text(program)
    said = json.loads(newest(w, "python3", path))
    assert all("json" in form or "cbor" in form for form in said["sent"]), said
    assert (said["sum"], said["unit"], said["metrics"], said["threshold"], said["left"]) == (5.0, "Count", ["m"], 1.0, []), said
    assert "MissingParameter" in said["refusal"] or "MissingRequiredParameter" in said["refusal"], said


def test_topics_and_subscriptions(w):
    w.webhook = Webhook(statuses=[500, 302], headers=[("location", "http://127.0.0.1:1/inside")])
    assert w.service.aws("sns", "create-topic", "--name", "people")["TopicArn"] == TOPIC
    assert w.service.aws("sns", "create-topic", "--name", "people")["TopicArn"] == TOPIC, "again: the same"
    made = w.service.aws("sns", "subscribe", "--topic-arn", TOPIC, "--protocol", "http", "--notification-endpoint", w.webhook.address)
    assert made["SubscriptionArn"].startswith(TOPIC + ":"), "it counts at once"
    w.service.aws("sns", "subscribe", "--topic-arn", TOPIC, "--protocol", "email", "--notification-endpoint", "ops@example.org")
    listed = w.service.aws("sns", "list-subscriptions-by-topic", "--topic-arn", TOPIC)["Subscriptions"]
    assert sorted(s["Protocol"] for s in listed) == ["email", "http"]
    assert "swordfish" not in json.dumps(listed) and "ops@example.org" in json.dumps(listed)
    sns = w.boto("sns")
    assert [t["TopicArn"] for t in sns.list_topics()["Topics"]] == [TOPIC]
    assert sns.get_topic_attributes(TopicArn=TOPIC)["Attributes"]["SubscriptionsConfirmed"] == "2"
    refused("NotFound", sns.subscribe, TopicArn=TOPIC + "x", Protocol="email", Endpoint="a@example.org")
    for protocol, endpoint in [("http", "file:///etc/passwd"), ("https", "http://h/"), ("email", "nobody"), ("sms", "1"), ("lambda", "arn:x")]:
        refused("InvalidParameter", sns.subscribe, TopicArn=TOPIC, Protocol=protocol, Endpoint=endpoint)
    extra = sns.subscribe(TopicArn=TOPIC, Protocol="http", Endpoint="http://127.0.0.1:1/")["SubscriptionArn"]
    w.service.aws("sns", "unsubscribe", "--subscription-arn", extra)
    refused("NotFound", sns.unsubscribe, SubscriptionArn=extra)


def state(w, name):
    return w.boto("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]


def test_an_alarm_rises_from_own_samples_and_is_told_when_the_receivers_are_there(w):
    """The webhook fails twice, the mail server comes up only after the service was killed: nothing is lost."""
    cloudwatch = w.boto("cloudwatch")
    cloudwatch.put_metric_data(Namespace="Sample", MetricData=[
        {"MetricName": "Heat", "Timestamp": minute(n), "Value": value} for n, value in [(4, 1), (3, 9), (2, 9), (1, 9)]])
    w.service.aws(
        "cloudwatch", "put-metric-alarm", "--alarm-name", "hot", "--alarm-description", "too hot", "--namespace", "Sample", "--metric-name", "Heat",
        "--statistic", "Maximum", "--period", "60", "--evaluation-periods", "3", "--datapoints-to-alarm", "2", "--threshold", "5",
        "--comparison-operator", "GreaterThanThreshold", "--alarm-actions", TOPIC)
    waits("the alarm", lambda: state(w, "hot")["StateValue"] == "ALARM", 20)
    assert "greater than the threshold (5.0)" in state(w, "hot")["StateReason"], state(w, "hot")
    waits("a first attempt", lambda: w.webhook.received, 20)
    w.service.process.kill()
    w.service.process.wait()
    mailbox = Mailbox(w.mail_port)
    w.service.start()
    alarm = waits("the webhook's message", w.webhook.alarms, 60)[0]
    assert (alarm["AlarmName"], alarm["OldStateValue"], alarm["NewStateValue"]) == ("hot", "INSUFFICIENT_DATA", "ALARM")
    assert alarm["AlarmArn"] == f"arn:aws:cloudwatch:us-east-1:{ACCOUNT}:alarm:hot" and alarm["Trigger"]["Statistic"] == "MAXIMUM"
    headers = w.webhook.received[-1][1]
    assert headers["x-amz-sns-message-type"] == "Notification" and headers["x-amz-sns-topic-arn"] == TOPIC
    identifiers = {json.loads(body)["MessageId"] for _, _, body in w.webhook.received}
    assert len(identifiers) == 1 and len(w.webhook.received) == 3, "one message, tried again under one identifier, no redirect followed"
    sender, receivers, text = waits("the mail", lambda: mailbox.received, 60)[0]
    assert sender == "belvedere@example.org" and receivers == ["ops@example.org"], (sender, receivers)
    assert 'Subject: ALARM: "hot" in us-east-1' in text and "Description: too hot" in text, text
    history = w.service.aws("cloudwatch", "describe-alarm-history", "--alarm-name", "hot")["AlarmHistoryItems"]
    assert {h["HistoryItemType"] for h in history} == {"ConfigurationUpdate", "StateUpdate", "Action"}
    w.mailbox = mailbox


def test_alarms_are_set_changed_listed_and_deleted(w):
    cloudwatch = w.boto("cloudwatch")
    cloudwatch.set_alarm_state(AlarmName="hot", StateValue="INSUFFICIENT_DATA", StateReason="trying")
    assert state(w, "hot")["StateReason"] == "trying" or state(w, "hot")["StateValue"] == "ALARM", "until it is looked at next"
    cloudwatch.disable_alarm_actions(AlarmNames=["hot"])
    assert state(w, "hot")["ActionsEnabled"] is False
    plain = {"Namespace": "Sample", "MetricName": "Cold", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1,
             "Threshold": 1, "ComparisonOperator": "LessThanThreshold"}
    for number in range(3):
        cloudwatch.put_metric_alarm(AlarmName=f"cold-{number}", **plain)
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix="cold", PaginationConfig={"PageSize": 2})
    assert [a["AlarmName"] for p in pages for a in p["MetricAlarms"]] == ["cold-0", "cold-1", "cold-2"]
    assert len(cloudwatch.describe_alarms_for_metric(Namespace="Sample", MetricName="Cold")["MetricAlarms"]) == 3
    refused("ValidationError", cloudwatch.put_metric_alarm, AlarmName="x", **{**plain, "Period": 10})
    refused("ValidationError", cloudwatch.put_metric_alarm, AlarmName="x", **plain, AlarmActions=["arn:aws:automate:us-east-1:ec2:stop"])
    refused("MissingParameter", cloudwatch.put_metric_alarm, AlarmName="x", EvaluationPeriods=1, ComparisonOperator="LessThanThreshold")
    refused("InvalidParameterValue", cloudwatch.put_metric_alarm, AlarmName="x" * 256, **plain)
    refused("ResourceNotFound", cloudwatch.delete_alarms, AlarmNames=["cold-0", "none"])
    w.service.aws("cloudwatch", "delete-alarms", "--alarm-names", "cold-0", "cold-1", "cold-2")
    assert [a["AlarmName"] for a in cloudwatch.describe_alarms()["MetricAlarms"]] == ["hot"]
    refused("ResourceNotFound", cloudwatch.set_alarm_state, AlarmName="x", StateValue="OK", StateReason="")


def test_a_silent_device_is_in_alarm_until_it_connects(w):
    """The guide's alarm: the device has not been heard, then it connects, and subscribers are told both."""
    panorama = w.boto("panorama")
    made = panorama.provision_device(Name="garden")
    w.device = Device(made["Certificates"], w.folder / "device")
    w.device_id = made["DeviceId"]
    w.boto("cloudwatch").put_metric_alarm(
        AlarmName="silent", Namespace=NAMESPACE, MetricName="DeviceActive", Statistic="Average", Period=60, EvaluationPeriods=5,
        DatapointsToAlarm=1, Threshold=1, ComparisonOperator="LessThanThreshold", TreatMissingData="breaching", AlarmActions=[TOPIC],
        Dimensions=[{"Name": "DeviceId", "Value": w.device_id}, {"Name": "DeviceName", "Value": "garden"}])
    told = lambda name, value: [a for a in w.webhook.alarms() if (a["AlarmName"], a["NewStateValue"]) == (name, value)]
    waits("the alarm of a silent device", lambda: told("silent", "ALARM"), 30)
    assert "no datapoints were received" in told("silent", "ALARM")[0]["NewStateReason"]
    w.device.provision()
    w.link = w.device.link()
    w.boto("cloudwatch").put_metric_alarm(
        AlarmName="silent", Namespace=NAMESPACE, MetricName="DeviceActive", Statistic="Average", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="LessThanThreshold", TreatMissingData="breaching", AlarmActions=[TOPIC], OKActions=[TOPIC],
        Dimensions=[{"Name": "DeviceId", "Value": w.device_id}, {"Name": "DeviceName", "Value": "garden"}])
    waits("the end of the alarm", lambda: told("silent", "OK"), 100)
    waits("the mail", lambda: any("OK: " in text and "silent" in text for _, _, text in w.mailbox.received), 30)


def test_a_device_puts_samples_about_itself_only(w):
    cloudwatch = w.device_client("cloudwatch")
    own = [{"Name": "DeviceId", "Value": w.device_id}]
    cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=[{"MetricName": "DiskFree", "Value": 7, "Dimensions": own}])
    for namespace, dimensions in [("Sample", own), (NAMESPACE, []), (NAMESPACE, [{"Name": "DeviceId", "Value": "device-other"}]),
                                  (NAMESPACE, own + [{"Name": "ApplicationInstanceId", "Value": "x"}])]:
        refused("AccessDenied", cloudwatch.put_metric_data, Namespace=namespace, MetricData=[{"MetricName": "m", "Value": 1, "Dimensions": dimensions}])
    refused("AccessDenied", cloudwatch.list_metrics)
    refused("AuthorizationError", w.device_client("sns").list_topics)
    metrics = w.boto("cloudwatch").list_metrics(Namespace=NAMESPACE)["Metrics"]
    assert sorted(m["MetricName"] for m in metrics) == ["DeviceActive", "DiskFree"]


def test_secrets_of_webhooks_are_nowhere(w):
    assert w.service.stop() == 0
    assert "swordfish-7731" not in w.service.log()
    for path in w.service.data.rglob("*"):
        if path.is_file():
            assert b"swordfish-7731" not in path.read_bytes(), path
    w.webhook.end()
    w.mailbox.end()


run(globals(), Alarmed())
