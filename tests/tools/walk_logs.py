"""CloudWatch Logs with the real tools: groups, both directions, patterns, retention, exports as `export_logs` reads them."""

import gzip
import json
import re
import time

from walking import Walk, refused, run, waits

GROUP = "/aws/panorama/devices/device-x/applications/applicationInstance-y"
NOW = int(time.time() * 1000)


def test_groups_and_streams(w):
    logs = w.boto("logs")
    w.service.aws("logs", "create-log-group", "--log-group-name", GROUP, "--tags", "team=garden")
    refused("ResourceAlreadyExistsException", logs.create_log_group, logGroupName=GROUP)
    refused("ResourceNotFoundException", logs.create_log_stream, logGroupName=GROUP + "x", logStreamName="s")
    for name in ("code_node", "console_output", "empty"):
        logs.create_log_stream(logGroupName=GROUP, logStreamName=name)
    refused("ResourceAlreadyExistsException", logs.create_log_stream, logGroupName=GROUP, logStreamName="empty")
    arn = logs.describe_log_groups(logGroupNamePrefix="/aws/panorama")["logGroups"][0]["logGroupArn"]
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "garden"}
    logs.tag_resource(resourceArn=arn, tags={"place": "gate"})
    logs.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"place": "gate"}


def test_events_are_read_from_both_ends_to_the_end(w):
    logs = w.boto("logs")
    events = [{"timestamp": NOW - 10_000 + n, "message": f"line {n:03}"} for n in range(100)]
    logs.put_log_events(logGroupName=GROUP, logStreamName="code_node", logEvents=events)
    read = lambda **more: logs.get_log_events(logGroupName=GROUP, logStreamName="code_node", limit=30, **more)
    for first, direction in (({"startFromHead": True}, "nextForwardToken"), ({}, "nextBackwardToken")):
        pages, answer = [], read(**first)
        while True:
            pages.append([e["message"] for e in answer["events"]])
            token = answer[direction]
            answer = read(nextToken=token)
            if answer[direction] == token:
                break
        assert answer["events"] == []
        if direction == "nextBackwardToken":
            pages.reverse()
        assert [m for page in pages for m in page] == [e["message"] for e in events], direction
    # The end is not for ever: the same token goes on when there is more.
    token = read(startFromHead=True)["nextForwardToken"]
    while read(nextToken=token)["nextForwardToken"] != token:
        token = read(nextToken=token)["nextForwardToken"]
    logs.put_log_events(logGroupName=GROUP, logStreamName="code_node", logEvents=[{"timestamp": NOW, "message": "one more"}])
    assert [e["message"] for e in read(nextToken=token)["events"]] == ["one more"]
    # As the guide's view-logs script asks: the newest, oldest first.
    answer = w.service.aws("logs", "get-log-events", "--log-group-name", GROUP, "--log-stream-name", "code_node", "--limit", "2")
    assert [e["message"] for e in answer["events"]] == ["line 099", "one more"]
    refused("InvalidParameterException", logs.get_log_events, logGroupName=GROUP, logStreamName="code_node", nextToken="x")
    refused("ResourceNotFoundException", logs.get_log_events, logGroupName=GROUP, logStreamName="none")


def test_streams_by_their_last_event(w):
    logs = w.boto("logs")
    logs.put_log_events(logGroupName=GROUP, logStreamName="console_output", logEvents=[{"timestamp": NOW + 5, "message": "started"}])
    listed = w.service.aws("logs", "describe-log-streams", "--log-group-name", GROUP, "--order-by", "LastEventTime", "--descending")
    assert [s["logStreamName"] for s in listed["logStreams"]] == ["console_output", "code_node", "empty"]
    pages = logs.get_paginator("describe_log_streams").paginate(
        logGroupName=GROUP, orderBy="LastEventTime", descending=True, PaginationConfig={"PageSize": 2})
    assert [s["logStreamName"] for p in pages for s in p["logStreams"]] == ["console_output", "code_node", "empty"]
    listed = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix="co")["logStreams"]
    assert [s["logStreamName"] for s in listed] == ["code_node", "console_output"]
    assert listed[1]["lastEventTimestamp"] == NOW + 5 and listed[1]["storedBytes"] == len("started") + 26
    refused("InvalidParameterException", logs.describe_log_streams, logGroupName=GROUP, logStreamNamePrefix="co", orderBy="LastEventTime")


def filtered(w, **arguments):
    pages = w.boto("logs").get_paginator("filter_log_events").paginate(logGroupName=GROUP, **arguments)
    return [e["message"] for p in pages for e in p["events"]]


def test_patterns(w):
    logs = w.boto("logs")
    lines = ["[ERROR] camera lost", "[WARN] slow camera", "[ERROR] disk full", "ok"]
    logs.put_log_events(logGroupName=GROUP, logStreamName="console_output", logEvents=[{"timestamp": NOW + 10 + n, "message": m} for n, m in enumerate(lines)])
    for pattern, expected in [
        ("ERROR", [0, 2]), ("ERROR camera", [0]), ("?WARN ?disk", [1, 2]), ("ERROR -disk", [0]), ('"slow camera"', [1]), ("error", []),
    ]:
        assert filtered(w, filterPattern=pattern) == [lines[n] for n in expected], pattern
    refused("InvalidParameterException", logs.filter_log_events, logGroupName=GROUP, filterPattern="{ $.level = 1 }")
    everything = filtered(w, PaginationConfig={"PageSize": 7})
    assert everything == [f"line {n:03}" for n in range(100)] + ["one more", "started"] + lines, "in the order of time over all streams"
    assert filtered(w, logStreamNames=["console_output"], startTime=NOW + 10, endTime=NOW + 11) == lines[:2]
    assert filtered(w, logStreamNamePrefix="code", startTime=NOW) == ["one more"]
    refused("ResourceNotFoundException", logs.filter_log_events, logGroupName=GROUP, logStreamNames=["none"])
    events = logs.filter_log_events(logGroupIdentifier=GROUP, filterPattern="ERROR")["events"]
    assert len({e["eventId"] for e in events}) == 2 and events[0]["logStreamName"] == "console_output"


def test_exports_are_as_export_logs_reads_them(w):
    logs, s3 = w.boto("logs"), w.boto("s3")
    bucket = json.loads((w.service.data / "service.json").read_text())["bucket"]
    ask = {"logGroupName": GROUP, "fromTime": NOW - 60_000, "to": NOW + 60_000, "destination": bucket, "destinationPrefix": "out/logs"}
    task = logs.create_export_task(**ask, taskName="mine")["taskId"]
    status = lambda: logs.describe_export_tasks(taskId=task)["exportTasks"][0]["status"]["code"]
    waits("the export", lambda: status() == "COMPLETED", 30)
    prefix = f"out/logs/{task}"
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    assert [o["Key"] for o in listed] == [f"{prefix}/code_node/000000.gz", f"{prefix}/console_output/000000.gz"]
    text = gzip.decompress(s3.get_object(Bucket=bucket, Key=listed[0]["Key"])["Body"].read()).decode()
    first, *_, last = text.splitlines()
    assert re.match(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z line 000$", first) and last.endswith("Z one more"), (first, last)
    assert s3.get_object(Bucket=bucket, Key="out/logs/aws-logs-write-test")["Body"].read()
    assert "mine" in json.dumps(w.service.aws("logs", "describe-export-tasks", "--status-code", "COMPLETED"))
    refused("InvalidParameterException", logs.create_export_task, **{**ask, "destination": "other-bucket"})
    refused("ResourceNotFoundException", logs.create_export_task, **{**ask, "logGroupName": "/none"})
    refused("InvalidOperationException", logs.cancel_export_task, taskId=task)


def test_retention_is_carried_out(w):
    logs = w.boto("logs")
    refused("InvalidParameterException", logs.put_retention_policy, logGroupName=GROUP, retentionInDays=2)
    day = 24 * 3600 * 1000
    logs.create_log_stream(logGroupName=GROUP, logStreamName="old")
    logs.put_log_events(logGroupName=GROUP, logStreamName="old", logEvents=[
        {"timestamp": NOW - 9 * day, "message": "old"}, {"timestamp": NOW - 2 * day, "message": "young"}])
    w.service.aws("logs", "put-retention-policy", "--log-group-name", GROUP, "--retention-in-days", "7")
    assert logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 7
    # It is looked after when the service starts, and every hour.
    assert w.service.stop() == 0
    w.service.start()
    waits("the old event to go", lambda: filtered(w, logStreamNames=["old"]) == ["young"], 30)
    logs = w.boto("logs")
    logs.delete_retention_policy(logGroupName=GROUP)
    assert "retentionInDays" not in logs.describe_log_groups()["logGroups"][0]


def test_deleting(w):
    logs = w.boto("logs")
    logs.delete_log_stream(logGroupName=GROUP, logStreamName="empty")
    refused("ResourceNotFoundException", logs.delete_log_stream, logGroupName=GROUP, logStreamName="empty")
    w.service.aws("logs", "delete-log-group", "--log-group-name", GROUP)
    assert logs.describe_log_groups()["logGroups"] == []
    refused("ResourceNotFoundException", logs.filter_log_events, logGroupName=GROUP)


run(globals())
