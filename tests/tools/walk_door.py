"""Attacks on the one door of the service, with real clients: a role that has little tries to get more by what it signs
and by what it sends beside what an operation takes, and nobody fills the memory without a key."""

import http.client
import json
import resource
import socket
import time

import boto3
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

import walking
from raw import Raw
from walking import ACCOUNT, refused, waits

TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}


def arn(service, name, region="us-east-1"):
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{name}"


def assumed(w, name, *statements):
    """Keys of a new role with these statements."""
    iam = w.boto("iam")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    document = {"Statement": [{"Effect": effect, "Action": action, "Resource": resource} for effect, action, resource in statements]}
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(document))
    keys = w.boto("sts").assume_role(RoleArn=role, RoleSessionName="attacker")["Credentials"]
    w.service.secrets += [keys["SecretAccessKey"], keys["SessionToken"]]
    return keys


def client(w, keys, name, region="us-east-1"):
    return boto3.client(
        name, region_name=region, endpoint_url="http://" + w.service.endpoints["api"], config=Config(retries={"max_attempts": 0}),
        aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"], aws_session_token=keys["SessionToken"])


def raw_logs(w, keys, region, operation, document):
    """A call of CloudWatch Logs that is signed rightly, for any region at all."""
    credentials = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    headers = {"X-Amz-Target": f"Logs_20140328.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    return w.raw.call("POST", "/", json.dumps(document).encode(), service="logs", headers=headers, key=credentials, region=region)


def groups(w):
    return {g["logGroupName"] for g in w.boto("logs").describe_log_groups()["logGroups"]}


def test_service_d1_the_region_of_a_signature_is_part_of_no_name(w):
    w.raw, logs = Raw(w.service), w.boto("logs")
    logs.create_log_group(logGroupName="mine")
    logs.create_log_group(logGroupName="theirs")
    keys = w.keys = assumed(
        w, "narrow", ("Allow", "logs:*", arn("logs", "log-group:mine:*")), ("Allow", "panorama:*", arn("panorama", "device*")),
        ("Allow", "panorama:*", arn("panorama", "device/*", "eu-west-1")), ("Allow", "cloudwatch:*", arn("cloudwatch", "alarm:mine*")),
        ("Deny", "logs:DeleteLogGroup", arn("logs", "*")), ("Deny", "sns:*", arn("sns", "*")), ("Allow", "sns:*", "arn:aws:sns:*:*:*"))
    for region in (f"us-east-1:{ACCOUNT}:log-group:mine", f"us-east-1:{ACCOUNT}:log-group:mine:", "us-east-1:", "*", "eu-west-1", "US-EAST-1"):
        for operation in ("DeleteLogGroup", "DescribeLogStreams", "PutRetentionPolicy"):
            answer = raw_logs(w, keys, region, operation, {"logGroupName": "theirs", "retentionInDays": 1})
            assert answer.status == 403, (region, operation, answer)
    # What the role may do, it may; and what it may not, it may not in another region either.
    assert client(w, keys, "logs").describe_log_streams(logGroupName="mine")["logStreams"] == []
    refused("AccessDeniedException", client(w, keys, "logs").delete_log_group, logGroupName="mine")
    error = refused("SignatureDoesNotMatch", client(w, keys, "logs", "eu-west-1").delete_log_group, logGroupName="mine")
    assert "this service's region is us-east-1" in str(error), error
    environment = {"AWS_ACCESS_KEY_ID": keys["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"], "AWS_SESSION_TOKEN": keys["SessionToken"]}
    error = w.service.aws("logs", "delete-log-group", "--log-group-name", "mine", fails=True, AWS_DEFAULT_REGION="eu-west-1", **environment)
    assert "this service's region is us-east-1" in error, error
    assert groups(w) == {"mine", "theirs"}
    # A name in a request that says another region names nothing here, so no Deny is walked around by it.
    topic = w.boto("sns").create_topic(Name="people")["TopicArn"]
    sns = client(w, keys, "sns")
    for other in (topic, topic.replace("us-east-1", "eu-west-1")):
        refused("AuthorizationError", sns.publish, TopicArn=other, Message="x")
    refused("InvalidParameter", w.boto("sns").publish, TopicArn=topic.replace("us-east-1", "eu-west-1"), Message="x")
    # Devices: the policy that names another region gives nothing in this one.
    archive = w.boto("panorama").provision_device(Name="porch")
    refused("SignatureDoesNotMatch", client(w, keys, "panorama", "eu-west-1").delete_device, DeviceId=archive["DeviceId"])
    assert [d["DeviceId"] for d in w.boto("panorama").list_devices()["Devices"]] == [archive["DeviceId"]]
    # S3's tools say us-east-1 when nobody told them a region; any other is refused in S3's words.
    assert client(w, keys | {"SessionToken": None} | w.administrator, "s3").list_buckets()["Buckets"]
    credentials = Credentials(w.administrator["AccessKeyId"], w.administrator["SecretAccessKey"])
    answer = w.raw.call("GET", "/", service="s3", key=credentials, region="eu-west-1")
    assert (answer.status, answer.code, answer.headers["x-amz-bucket-region"]) == (400, "AuthorizationHeaderMalformed", "us-east-1"), answer


def test_service_d1_new_regions_and_new_keys_are_no_new_rates(w):
    w.service.stop()
    w.service.limit(requests_per_second=1, burst_seconds=10)
    w.service.start()
    w.raw = Raw(w.service)
    statuses = [w.raw.call("GET", "/devices", region=f"r-{n}").status for n in range(40)]
    assert statuses == [403] * 40, statuses
    role = w.boto("iam").create_role(RoleName="busy", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    w.boto("iam").put_role_policy(RoleName="busy", PolicyName="p", PolicyDocument=json.dumps(
        {"Statement": [{"Effect": "Allow", "Action": "panorama:*", "Resource": "*"}]}))
    admitted = 0
    for n in range(30):
        keys = w.boto("sts").assume_role(RoleArn=role, RoleSessionName=f"session-{n}")["Credentials"]
        try:
            client(w, keys, "panorama").list_devices()
            admitted += 1
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ThrottlingException", error
    assert admitted < 25, "every session had a bucket of its own"
    w.service.stop()
    w.service.limit(requests_per_second="unlimited", burst_seconds=40)
    w.service.start()
    w.raw = Raw(w.service)


def with_surplus(made, **members):
    """The client, which sends these members beside those of its calls, as its own checks would not let it."""

    def add(params, **_):
        if isinstance(params["body"], dict):
            params["body"].update(members)
        else:
            params["body"] = json.dumps({**json.loads(params["body"]), **members}).encode()

    made.meta.events.register("before-call", add)
    return made


def test_service_d2_surplus_members_decide_about_nothing(w):
    admin_sns, admin_iam, logs = w.boto("sns"), w.boto("iam"), w.boto("logs")
    logs.create_log_group(logGroupName="shared")
    for stream in ("mine", "theirs"):
        logs.create_log_stream(logGroupName="shared", logStreamName=stream)
    mine, theirs = (admin_sns.create_topic(Name=name)["TopicArn"] for name in ("mine", "theirs"))
    hook = admin_sns.subscribe(TopicArn=theirs, Protocol="https", Endpoint="https://example.org/?token=1", ReturnSubscriptionArn=True)["SubscriptionArn"]
    everything = json.dumps({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    policy = admin_iam.create_policy(PolicyName="theirs", PolicyDocument=everything)["Policy"]["Arn"]
    alarm = dict(MetricName="m", Namespace="n", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold")
    w.boto("cloudwatch").put_metric_alarm(AlarmName="theirs", **alarm)
    keys = assumed(
        w, "little", ("Allow", "logs:*", arn("logs", "log-group:shared:log-stream:mine")), ("Allow", "sns:*", mine + "*"),
        ("Allow", "iam:*", f"arn:aws:iam::{ACCOUNT}:role/mine"), ("Allow", "cloudwatch:*", arn("cloudwatch", "alarm:mine")),
        ("Allow", "cloudformation:*", arn("cloudformation", "stack/mine/*")))
    made = with_surplus(client(w, keys, "logs"), logStreamName="mine")
    for call, given in ((made.delete_log_group, {"logGroupName": "shared"}), (made.filter_log_events, {"logGroupName": "shared"}),
                        (made.put_retention_policy, {"logGroupName": "shared", "retentionInDays": 1})):
        refused("AccessDeniedException", call, **given)
    made = with_surplus(client(w, keys, "logs"), logStreamName="mine", logGroupName="shared")
    for call, given in ((made.describe_log_groups, {}), (made.describe_export_tasks, {}), (made.cancel_export_task, {"taskId": "x"})):
        refused("AccessDeniedException", call, **given)
    assert client(w, keys, "logs").get_log_events(logGroupName="shared", logStreamName="mine")["events"] == []
    made = with_surplus(client(w, keys, "sns"), TopicArn=mine)
    for call, given in ((made.list_subscriptions, {}), (made.list_topics, {}), (made.create_topic, {"Name": "another"}),
                        (made.unsubscribe, {"SubscriptionArn": hook})):
        refused("AuthorizationError", call, **given)
    # A subscription is its topic's: under the name of another topic there is none.
    refused("NotFound", client(w, keys, "sns").unsubscribe, SubscriptionArn=f"{mine}:{hook.rsplit(':')[-1]}")
    made = with_surplus(client(w, keys, "iam"), RoleName="mine")
    for call, given in ((made.delete_policy, {"PolicyArn": policy}), (made.get_policy, {"PolicyArn": policy}), (made.list_roles, {}), (made.list_policies, {})):
        refused("AccessDenied", call, **given)
    made = with_surplus(client(w, keys, "cloudformation"), StackName="mine")
    for call, given in ((made.list_stacks, {}), (made.validate_template, {"TemplateBody": "{}"})):
        refused("AccessDenied", call, **given)
    made = with_surplus(client(w, keys, "cloudwatch"), AlarmName="mine")
    metric = {"Namespace": "n", "MetricData": [{"MetricName": "m", "Value": 1}]}
    for call, given in ((made.put_metric_data, metric), (made.describe_alarms, {}), (made.list_metrics, {}), (made.delete_alarms, {"AlarmNames": ["theirs"]})):
        refused("AccessDenied", call, **given)
    credentials = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    for operation, document in (("PutMetricData", metric), ("DescribeAlarms", {}), ("ListMetrics", {}), ("DeleteAlarms", {"AlarmNames": ["theirs"]})):
        headers = {"X-Amz-Target": f"GraniteServiceVersion20100801.{operation}", "Content-Type": "application/x-amz-json-1.0"}
        body = json.dumps({**document, "AlarmName": "mine"}).encode()
        answer = w.raw.call("POST", "/", body, service="monitoring", headers=headers, key=credentials)
        assert answer.status == 403, (operation, answer)
    # Everything is there still.
    assert {"mine", "theirs"} <= {s["logStreamName"] for s in logs.describe_log_streams(logGroupName="shared")["logStreams"]}
    assert "retentionInDays" not in logs.describe_log_groups(logGroupNamePrefix="shared")["logGroups"][0]
    assert admin_sns.list_subscriptions()["Subscriptions"][0]["SubscriptionArn"] == hook
    assert admin_iam.get_policy(PolicyArn=policy) and w.boto("cloudwatch").describe_alarms(AlarmNames=["theirs"])["MetricAlarms"]


def test_service_d1_a_stack_is_denied_by_whichever_name_it_is_called(w):
    template = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "of-a-stack"}}}})
    stack = w.boto("cloudformation").create_stack(StackName="production", TemplateBody=template)["StackId"]
    keys = assumed(w, "deployer", ("Allow", "*", "*"), ("Deny", "cloudformation:*", stack))
    made = client(w, keys, "cloudformation")
    for name in (stack, "production"):
        for call, given in ((made.delete_stack, {}), (made.get_template, {}), (made.update_stack, {"TemplateBody": template})):
            refused("AccessDenied", call, StackName=name, **given)
    assert w.boto("cloudformation").describe_stacks(StackName="production")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    # A policy that names this one stack is about it, too.
    keys = assumed(w, "of-one-stack", ("Allow", "cloudformation:*", stack))
    assert client(w, keys, "cloudformation").describe_stacks(StackName="production")["Stacks"]
    refused("AccessDenied", client(w, keys, "cloudformation").describe_stacks, StackName="another")


def test_service_exports_leave_nothing_that_nobody_can_delete(w):
    logs, s3 = w.boto("logs"), w.boto("s3")
    bucket = s3.list_buckets()["Buckets"][0]["Name"]
    now = int(time.time() * 1000)
    logs.create_log_group(logGroupName="exported")
    for stream in ("..", "a\\..\\b", "plain"):
        logs.create_log_stream(logGroupName="exported", logStreamName=stream)
        logs.put_log_events(logGroupName="exported", logStreamName=stream, logEvents=[{"timestamp": now, "message": "m"}])
    where = {"logGroupName": "exported", "fromTime": 0, "to": now + 1000, "destination": bucket}
    for prefix in ("../../up", "mine/../theirs", "./x"):
        refused("InvalidParameterException", logs.create_export_task, destinationPrefix=prefix, **where)
    task = logs.create_export_task(destinationPrefix="fine..", **where)["taskId"]
    waits("the export", lambda: logs.describe_export_tasks(taskId=task)["exportTasks"][0]["status"]["code"] == "COMPLETED")
    keys = [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert len(keys) == 4, keys
    for key in keys:
        s3.delete_object(Bucket=bucket, Key=key)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_service_d19_a_form_that_does_not_come_is_given_up(w):
    host, port = w.service.endpoints["api"].split(":")
    with socket.create_connection((host, int(port)), timeout=25) as slow:
        slow.sendall(f"POST /sign-in HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\na".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 400")


def test_service_d19_one_address_does_not_keep_others_out(w):
    host, port = w.service.endpoints["api"].split(":")
    silent = []
    for _ in range(1100):
        try:
            silent.append(socket.create_connection((host, int(port)), timeout=5))
        except OSError:
            break
    time.sleep(1)
    other = http.client.HTTPConnection(host, int(port), timeout=20, source_address=("127.0.0.2", 0))
    other.request("GET", "/healthz")
    assert other.getresponse().status == 200
    for one in silent:
        one.close()
    w.raw = Raw(w.service)
    waits("this address is served again", lambda: w.boto("sts").get_caller_identity()["Account"] == ACCOUNT)


def resident(w):
    """Megabytes of the service's memory."""
    lines = open(f"/proc/{w.service.process.pid}/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


def test_service_d19_nothing_is_collected_for_whoever_has_not_signed(w):
    host, port = w.service.endpoints["api"].split(":")
    size = 2 * 1024 * 1024
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())

    def flood(extra):
        """80 connections that know an access key's name and send all of a large body but its end."""
        scope = f"{w.service.key['AWS_ACCESS_KEY_ID']}/{now[:8]}/us-east-1/logs/aws4_request"
        head = (f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\nX-Amz-Date: {now}\r\nX-Amz-Target: Logs_20140328.PutLogEvents\r\n{extra[0]}"
                f"Authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;{extra[1]}x-amz-date;x-amz-target, Signature={'0' * 64}\r\n"
                f"Content-Length: {size}\r\n\r\n").encode()
        sockets = []
        for _ in range(80):
            connection = socket.create_connection((host, int(port)), timeout=5)
            sockets.append(connection)
            try:
                connection.sendall(head + b" " * (size - 1))
            except OSError:
                pass  # refused in the middle: so it should be
        return sockets

    before = resident(w)
    sockets = flood(("", ""))
    grown = resident(w) - before
    # Who comes from elsewhere is served meanwhile.
    path, headers = w.raw.signed("POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15", service="sts")
    connection = http.client.HTTPConnection(host, int(port), timeout=20, source_address=("127.0.0.2", 0))
    connection.request("POST", path, b"Action=GetCallerIdentity&Version=2011-06-15", headers)
    assert connection.getresponse().status == 200
    for one in sockets:
        one.close()
    print(f"        80 bodies of 2 MB without a signature: {grown:.0f} MB more")
    assert grown < 70, grown
    # With the hash in a header the signature is known to be wrong before anything is taken.
    time.sleep(1)
    before = resident(w)
    sockets = flood((f"X-Amz-Content-Sha256: {'0' * 64}\r\n", "x-amz-content-sha256;"))
    grown = resident(w) - before
    for one in sockets:
        one.close()
    print(f"        and with a hash of it: {grown:.0f} MB more")
    assert grown < 20, grown
    waits("it is served again", lambda: w.boto("sts").get_caller_identity()["Account"] == ACCOUNT)


class Door(walking.Walk):
    @property
    def administrator(self):
        key = self.service.key
        return {"AccessKeyId": key["AWS_ACCESS_KEY_ID"], "SecretAccessKey": key["AWS_SECRET_ACCESS_KEY"]}


if __name__ == "__main__":
    # Both sides of a thousand connections.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    walking.run(globals(), Door())
