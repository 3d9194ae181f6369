"""Stacks with the real CLI: the guide's roles, from `1-create-role.sh` to `5-deploy.sh`, and everything that is refused."""

import base64
import json
import subprocess
import time

import walking
from receivers import Webhook
from simulated_device import Device
from walking import ACCOUNT, refused, waits

# The guide's template, from its page "Granting permissions to an application", with its outputs.
ROLE = """AWSTemplateFormatVersion: '2010-09-09'
Description: Resources for an application.
Resources:
  runtimeRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          -
            Effect: Allow
            Principal:
              Service:
                - panorama.amazonaws.com
            Action:
              - sts:AssumeRole
      Policies:
        - PolicyName: cloudwatch-putmetrics
          PolicyDocument:
            Version: 2012-10-17
            Statement:
              - Effect: Allow
                Action: 'cloudwatch:PutMetricData'
                Resource: '*'
      Path: /service-role/
Outputs:
  roleName:
    Description: The application runtime role's name
    Value: !Ref runtimeRole
  roleArn:
    Description: The application runtime role's ARN
    Value: !GetAtt runtimeRole.Arn
"""

# Every function and kind of resource at once.
LARGE = """
Parameters:
  bucket: {Type: String}
  prefix: {Type: String, Default: results, AllowedPattern: '[a-z]+'}
  password: {Type: String, Default: hush-hush, NoEcho: true}
Resources:
  shared:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      ManagedPolicyName: !Sub '${AWS::StackName}-shared'
      PolicyDocument:
        Version: '2012-10-17'
        Statement:
          Effect: Allow
          Action: [s3:PutObject, s3:GetObject]
          Resource: !Sub 'arn:aws:s3:::${bucket}/${prefix}/*'
  role:
    Type: AWS::IAM::Role
    Properties:
      RoleName: large
      Description: !Join [' ', [role, of, !Ref 'AWS::AccountId']]
      ManagedPolicyArns: [!Ref shared]
      AssumeRolePolicyDocument:
        Statement:
          - {Effect: Allow, Principal: {AWS: !Sub 'arn:${AWS::Partition}:iam::${AWS::AccountId}:root'}, Action: 'sts:AssumeRole'}
  listing:
    Type: AWS::IAM::Policy
    Properties:
      PolicyName: listing
      Roles: [!Ref role]
      PolicyDocument:
        Statement: [{Effect: Allow, Action: s3:ListBucket, Resource: !Sub 'arn:aws:s3:::${bucket}'}]
Outputs:
  arn: {Value: !GetAtt role.Arn}
  policy: {Value: !Ref shared}
"""


# Who is told when an appliance is silent: the guide's metric, a topic, an alarm of that topic.
ALARM = """Description: Somebody is told.
Parameters:
  hook: {Type: String, NoEcho: true}
  other: {Type: String, NoEcho: true}
  minutes: {Type: Number, Default: 5}
Resources:
  people:
    Type: AWS::SNS::Topic
    Properties:
      TopicName: !Sub '${AWS::StackName}-people'
      Subscription:
        - {Protocol: http, Endpoint: !Ref hook}
  mail:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref people, Protocol: email, Endpoint: ops@example.org}
  silent:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmDescription: !Sub 'tells ${people.TopicName}'
      Namespace: PanoramaDeviceMetrics
      MetricName: DeviceActive
      Dimensions: [{Name: DeviceId, Value: device-x}]
      Statistic: Average
      Period: '60'
      EvaluationPeriods: !Ref minutes
      Threshold: 0.5
      ComparisonOperator: LessThanThreshold
      TreatMissingData: missing
      AlarmActions: [!Ref people]
Outputs:
  topic: {Value: !Ref people}
  mail: {Value: !Ref mail}
  alarm: {Value: !Ref silent}
  arn: {Value: !GetAtt silent.Arn}
"""


def deploy(w, name, text, *more, **options):
    path = w.folder / f"{name}.yml"
    path.write_text(text)
    # The CLI calls a change set after the second, and a stack takes each name once.
    while int(time.time()) <= getattr(w, "deployed", 0):
        time.sleep(0.05)
    try:
        return w.service.run("aws", "cloudformation", "deploy", "--template-file", path, "--stack-name", f"panorama-{name}", *more, **options)
    finally:
        w.deployed = int(time.time())


def test_what_is_not_there(w):
    error = w.service.aws("cloudformation", "describe-stacks", "--stack-name", "nobody", fails=True)
    assert "Stack with id nobody does not exist" in error, error
    assert w.service.aws("cloudformation", "describe-stacks")["Stacks"] == []
    w.service.aws("cloudformation", "delete-stack", "--stack-name", "nobody")


def test_the_guides_role(w):
    error = deploy(w, "sample", ROLE, fails=True)
    assert "CAPABILITY_IAM" in error, error
    assert w.service.aws("cloudformation", "describe-stacks")["Stacks"] == [], "nothing was made"
    deploy(w, "sample", ROLE, "--capabilities", "CAPABILITY_NAMED_IAM")
    w.arn = w.service.run("aws", "cloudformation", "describe-stacks", "--stack-name", "panorama-sample", "--query",
                          "Stacks[0].Outputs[?OutputKey==`roleArn`].OutputValue", "--output", "text").strip()
    assert w.arn.startswith(f"arn:aws:iam::{ACCOUNT}:role/service-role/panorama-sample-runtimeRole-"), w.arn
    role = w.boto("iam").get_role(RoleName=w.arn.rsplit("/", 1)[1])["Role"]
    assert role["Arn"] == w.arn
    policy = w.boto("iam").get_role_policy(RoleName=role["RoleName"], PolicyName="cloudwatch-putmetrics")["PolicyDocument"]
    assert policy == {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*"}]}
    assert "No changes to deploy" in deploy(w, "sample", ROLE, "--capabilities", "CAPABILITY_NAMED_IAM", "--no-fail-on-empty-changeset")
    stack = w.service.aws("cloudformation", "describe-stacks", "--stack-name", "panorama-sample")["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE" and stack["Capabilities"] == ["CAPABILITY_NAMED_IAM"]
    events = w.boto("cloudformation").describe_stack_events(StackName="panorama-sample")["StackEvents"]
    assert events[0]["ResourceStatus"] == "CREATE_COMPLETE" and {e["LogicalResourceId"] for e in events} == {"panorama-sample", "runtimeRole"}
    assert w.boto("cloudformation").get_template(StackName="panorama-sample")["TemplateBody"].startswith("AWSTemplateFormatVersion")


def test_a_change_keeps_the_role(w):
    deploy(w, "sample", ROLE.replace("'cloudwatch:PutMetricData'", "['cloudwatch:PutMetricData', 's3:PutObject']"), "--capabilities", "CAPABILITY_IAM")
    stack = w.boto("cloudformation").describe_stacks(StackName="panorama-sample")["Stacks"][0]
    assert stack["StackStatus"] == "UPDATE_COMPLETE" and {"roleArn": w.arn}.items() <= {o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]}.items()
    policy = w.boto("iam").get_role_policy(RoleName=w.arn.rsplit("/", 1)[1], PolicyName="cloudwatch-putmetrics")["PolicyDocument"]
    assert policy["Statement"][0]["Action"] == ["cloudwatch:PutMetricData", "s3:PutObject"]


def test_five_deploy(w):
    """The sequence of the guide's 5-deploy.sh, its commands as they are there."""
    archive = w.service.aws("panorama", "provision-device", "--name", "hall", "--output", "text", "--query", "Certificates")
    device = Device(base64.b64decode(archive), w.folder / "device")
    device.provision()
    panorama = w.boto("panorama")
    panorama.create_node_from_template_job(NodeName="CAM", OutputPackageName="CAM", OutputPackageVersion="1.0",
                                           TemplateType="RTSP_CAMERA_STREAM", TemplateParameters={"StreamUrl": "rtsp://10.0.0.5/s"})
    waits("the camera", lambda: any(n["Name"] == "CAM" for n in panorama.list_nodes(Category="MEDIA_SOURCE")["Nodes"]))
    graph = {"nodeGraph": {"envelopeVersion": "2021-01-01", "packages": [{"name": f"{ACCOUNT}::CAM", "version": "1.0"}],
                           "nodes": [{"name": "camera", "interface": f"{ACCOUNT}::CAM.CAM"}], "edges": []}}
    folder = w.folder / "sample"
    folder.mkdir()
    (folder / "graph.json").write_text(json.dumps(graph, indent=4))
    script = r"""
set -eo pipefail
DEVICE_ID=$(aws panorama list-devices --query 'Devices[0].DeviceId' --output text)
MANIFEST="$(GRAPH="$(cat graph.json | tr -d '\n' | tr -d '[:blank:]')" python3 -c 'import json, os; print(json.dumps({"PayloadData": os.environ["GRAPH"]}))')"
ROLE_ARN=$(aws cloudformation describe-stacks --stack-name panorama-${PWD##*/} --query 'Stacks[0].Outputs[?OutputKey==`roleArn`].OutputValue' --output text)
if [[ -z "${ROLE_ARN}" ]]; then exit 9; else ROLE_ARG="--runtime-role-arn=${ROLE_ARN}"; fi
aws panorama create-application-instance --manifest-payload="${MANIFEST}" --default-runtime-context-device=${DEVICE_ID} --name=sample --description="command-line deploy" --tags client=sample ${ROLE_ARG} --output text
"""
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=w.service.environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    instance = done.stdout.strip()
    assert panorama.describe_application_instance(ApplicationInstanceId=instance)["RuntimeRoleArn"] == w.arn
    status, answer = device.credentials(alias=instance)
    assert status == 200 and answer["credentials"]["accessKeyId"].startswith("ASIA"), answer


def test_every_function_and_kind(w):
    bucket = w.boto("s3").list_buckets()["Buckets"][0]["Name"]
    deploy(w, "large", LARGE, "--capabilities", "CAPABILITY_NAMED_IAM", "--parameter-overrides", f"bucket={bucket}", "--tags", "owner=me")
    stack = w.service.aws("cloudformation", "describe-stacks", "--stack-name", "panorama-large")["Stacks"][0]
    outputs = {o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]}
    assert outputs == {"arn": f"arn:aws:iam::{ACCOUNT}:role/large", "policy": f"arn:aws:iam::{ACCOUNT}:policy/panorama-large-shared"}
    assert {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]} == {"bucket": bucket, "prefix": "results", "password": "****"}
    assert stack["Tags"] == [{"Key": "owner", "Value": "me"}]
    iam = w.boto("iam")
    assert iam.get_role(RoleName="large")["Role"]["Description"] == f"role of {ACCOUNT}"
    assert [p["PolicyName"] for p in iam.list_attached_role_policies(RoleName="large")["AttachedPolicies"]] == ["panorama-large-shared"]
    assert iam.list_role_policies(RoleName="large")["PolicyNames"] == ["listing"]
    keys = w.boto("sts").assume_role(RoleArn=outputs["arn"], RoleSessionName="test")["Credentials"]
    environment = {"AWS_ACCESS_KEY_ID": keys["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"], "AWS_SESSION_TOKEN": keys["SessionToken"]}
    w.service.run("aws", "s3api", "put-object", "--bucket", bucket, "--key", "results/x", **environment)
    w.service.run("aws", "s3api", "put-object", "--bucket", bucket, "--key", "other/x", fails=True, **environment)
    # Without the policy that lists, the role is what it was, less that.
    smaller = LARGE.split("  listing:")[0] + "Outputs:" + LARGE.split("Outputs:")[1]
    deploy(w, "large", smaller, "--capabilities", "CAPABILITY_NAMED_IAM")
    assert iam.list_role_policies(RoleName="large")["PolicyNames"] == []
    assert w.service.aws("cloudformation", "get-template-summary", "--stack-name", "panorama-large")["ResourceTypes"] == ["AWS::IAM::ManagedPolicy", "AWS::IAM::Role"]


def test_all_or_nothing(w):
    cloudformation, iam = w.boto("cloudformation"), w.boto("iam")
    before = {r["RoleName"] for r in iam.list_roles()["Roles"]}
    body = lambda text: dict(TemplateBody=text, Capabilities=["CAPABILITY_NAMED_IAM"])
    for change, expected in (
        (("AWS::IAM::Role", "AWS::EC2::VPC"), "AWS::EC2::VPC"),
        (("Path: /service-role/", "Pth: /service-role/"), "Pth"),
        (("!GetAtt runtimeRole.Arn", "!GetAtt nobody.Arn"), "nobody"),
        (("!GetAtt", "!ImportValue"), "ImportValue"),
        (("Resources:", "Transform: AWS::Serverless-2016-10-31\nResources:"), "Transform"),
        (("Effect: Allow\n                Action: 'cloud", "Effect: Allow\n                NotResource: x\n                Action: 'cloud"), "NotResource"),
        (("Resources:", "Resources: ["), "YAML"),
    ):
        text = ROLE.replace(*change)
        assert text != ROLE, change
        error = refused("ValidationError", cloudformation.create_stack, StackName="bad", **body(text))
        assert expected in str(error), (change, error)
    deploy(w, "bad", ROLE.replace("AWS::IAM::Role", "AWS::EC2::VPC"), "--capabilities", "CAPABILITY_NAMED_IAM", fails=True)
    refused("ValidationError", cloudformation.describe_stacks, StackName="bad")
    refused("ValidationError", cloudformation.describe_stacks, StackName="panorama-bad")
    # A name that is taken: the first resource of two was made and goes again.
    iam.create_policy(PolicyName="taken", PolicyDocument=json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}))
    two = ROLE.replace("Outputs:", "  policy:\n    Type: AWS::IAM::ManagedPolicy\n    Properties:\n      ManagedPolicyName: taken\n"
                       "      PolicyDocument: {Statement: [{Effect: Allow, Action: 's3:*', Resource: '*'}]}\nOutputs:")
    error = deploy(w, "two", two, "--capabilities", "CAPABILITY_NAMED_IAM", fails=True)
    assert "Failed to create/update the stack" in error, error
    stack = cloudformation.describe_stacks(StackName="panorama-two")["Stacks"][0]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE" and "taken already exists" in stack["StackStatusReason"], stack
    # A role that does not exist, found only while it is carried out.
    broken = ROLE.replace("Outputs:", "  more:\n    Type: AWS::IAM::Policy\n    DependsOn: runtimeRole\n    Properties:\n      PolicyName: x\n"
                          "      Roles: [nobody]\n      PolicyDocument: {Statement: [{Effect: Allow, Action: 's3:*', Resource: '*'}]}\nOutputs:")
    cloudformation.create_stack(StackName="broken", **body(broken))
    assert cloudformation.describe_stacks(StackName="broken")["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE"
    assert {r["RoleName"] for r in iam.list_roles()["Roles"]} == before, "nothing was left"
    # The same as a change: the stack is what it was.
    cloudformation.update_stack(StackName="panorama-sample", **body(broken))
    assert cloudformation.describe_stacks(StackName="panorama-sample")["Stacks"][0]["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert {r["RoleName"] for r in iam.list_roles()["Roles"]} == before
    policy = iam.get_role_policy(RoleName=w.arn.rsplit("/", 1)[1], PolicyName="cloudwatch-putmetrics")["PolicyDocument"]
    assert policy["Statement"][0]["Action"] == ["cloudwatch:PutMetricData", "s3:PutObject"]
    for name in ("broken", "panorama-two"):
        w.service.aws("cloudformation", "delete-stack", "--stack-name", name)
        refused("ValidationError", cloudformation.describe_stacks, StackName=name)


def endpoints(w, topic):
    return {s["SubscriptionArn"]: s["Endpoint"] for s in w.boto("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]}


def test_alarms_and_whom_they_tell(w):
    w.hook, w.other = Webhook(), Webhook()
    w.service.secrets.append("swordfish-7731")
    given = lambda **more: ["--parameter-overrides", f"hook={w.hook.address}", f"other={w.other.address}", *(f"{k}={v}" for k, v in more.items())]
    deploy(w, "alarm", ALARM, *given())
    stack = w.service.aws("cloudformation", "describe-stacks", "--stack-name", "panorama-alarm")["Stacks"][0]
    w.outputs = {o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]}
    topic, name = w.outputs["topic"], w.outputs["alarm"]
    assert topic == f"arn:aws:sns:us-east-1:{ACCOUNT}:panorama-alarm-people"
    cloudwatch, sns = w.boto("cloudwatch"), w.boto("sns")
    alarm = lambda: cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]
    made = alarm()
    assert made["AlarmArn"] == w.outputs["arn"] and made["AlarmActions"] == [topic] and made["EvaluationPeriods"] == 5, made
    assert (made["Period"], made["Threshold"], made["AlarmDescription"]) == (60, 0.5, "tells panorama-alarm-people"), made
    assert endpoints(w, topic)[w.outputs["mail"]] == "ops@example.org" and len(endpoints(w, topic)) == 2
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    waits("the webhook", lambda: [a["NewStateValue"] for a in w.hook.alarms()] == ["ALARM"])
    # Passwords of addresses are in nobody's listing of the stack.
    assert "swordfish" not in json.dumps(stack)
    # A change: another webhook, fewer minutes; the alarm, the topic and the mail stay what they are.
    changed = ALARM.replace("!Ref hook", "!Ref other")
    deploy(w, "alarm", changed, *given(minutes=3))
    assert alarm()["EvaluationPeriods"] == 3 and alarm()["AlarmArn"] == w.outputs["arn"]
    assert endpoints(w, topic)[w.outputs["mail"]] == "ops@example.org" and len(endpoints(w, topic)) == 2
    before = endpoints(w, topic)
    # What cannot be made undoes what was: the alarm's minutes, the topic's further address, a new topic.
    broken = changed.replace("Outputs:", "  more: {Type: AWS::SNS::Topic}\n  nobody:\n    Type: AWS::SNS::Subscription\n    DependsOn: [silent, more]\n"
                             f"    Properties: {{TopicArn: 'arn:aws:sns:us-east-1:{ACCOUNT}:nobody', Protocol: email, Endpoint: a@example.org}}\nOutputs:")
    broken = broken.replace("Endpoint: !Ref other}", "Endpoint: !Ref other}\n        - {Protocol: email, Endpoint: b@example.org}")
    error = deploy(w, "alarm", broken, *given(minutes=9), fails=True)
    assert "Failed to create/update the stack" in error, error
    stack = w.boto("cloudformation").describe_stacks(StackName="panorama-alarm")["Stacks"][0]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE" and "nobody" in stack["StackStatusReason"], stack
    assert alarm()["EvaluationPeriods"] == 3 and endpoints(w, topic) == before
    assert [t["TopicArn"] for t in sns.list_topics()["Topics"]] == [topic]
    # What is wrong is named before anything is made.
    cloudformation = w.boto("cloudformation")
    parameters = [{"ParameterKey": "hook", "ParameterValue": w.hook.address}, {"ParameterKey": "other", "ParameterValue": w.other.address}]
    for change, expected in (
        (("Period: '60'", "Period: '90'"), "multiple of 60"),
        (("Statistic: Average", "ExtendedStatistic: p99"), "ExtendedStatistic"),
        (("AlarmActions: [!Ref people]", "AlarmActions: ['arn:aws:lambda:us-east-1:1:x']"), "Invalid arn"),
        (("Protocol: email", "Protocol: sms"), "sms"),
        (("TopicName:", "FifoTopic: true\n      TopicName:"), "FifoTopic"),
    ):
        text = ALARM.replace(*change)
        assert text != ALARM, change
        error = refused("ValidationError", cloudformation.create_stack, StackName="wrong", TemplateBody=text, Parameters=parameters)
        assert expected in str(error), (change, error)
    # Names that are somebody's already are not taken over.
    taken = ALARM.replace("!Sub '${AWS::StackName}-people'", "panorama-alarm-people")
    cloudformation.create_stack(StackName="second", TemplateBody=taken, Parameters=parameters)
    assert cloudformation.describe_stacks(StackName="second")["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE"
    assert endpoints(w, topic) == before
    cloudformation.delete_stack(StackName="second")


def test_deleting_takes_alarms_and_topics(w):
    w.service.aws("cloudformation", "delete-stack", "--stack-name", "panorama-alarm")
    assert w.boto("cloudwatch").describe_alarms()["MetricAlarms"] == [] and w.boto("sns").list_topics()["Topics"] == []
    assert w.boto("sns").list_subscriptions()["Subscriptions"] == []
    w.hook.end()
    w.other.end()


def test_a_role_may_not_make_roles_through_stacks(w):
    iam = w.boto("iam")
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName="stacker", AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName="stacker", PolicyName="p", PolicyDocument=json.dumps({"Statement": [
        {"Effect": "Allow", "Action": "cloudformation:*", "Resource": "*"}]}))
    keys = w.boto("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/stacker", RoleSessionName="ci")["Credentials"]
    environment = {"AWS_ACCESS_KEY_ID": keys["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"], "AWS_SESSION_TOKEN": keys["SessionToken"]}
    w.service.aws("cloudformation", "describe-stacks", **environment)
    error = deploy(w, "sneaky", ROLE, "--capabilities", "CAPABILITY_NAMED_IAM", fails=True, **environment)
    assert "iam:CreateRole" in error, error
    error = deploy(w, "sneaky", ALARM, "--parameter-overrides", "hook=http://127.0.0.1:1/", "other=http://127.0.0.1:1/", fails=True, **environment)
    assert "sns:CreateTopic" in error, error
    error = w.service.aws("cloudformation", "delete-stack", "--stack-name", "panorama-sample", fails=True, **environment)
    assert "iam:" in error, error


def test_service_d7_a_policy_is_not_attached_to_roles_of_others_through_stacks(w):
    iam, mine = w.boto("iam"), f"arn:aws:iam::{ACCOUNT}:policy/mine-*"
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
    for name in ("deployer", "victim"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName="deployer", PolicyName="p", PolicyDocument=json.dumps({"Statement": [
        {"Effect": "Allow", "Action": "cloudformation:*", "Resource": "*"}, {"Effect": "Allow", "Action": "iam:*", "Resource": mine}]}))
    keys = w.boto("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/deployer", RoleSessionName="ci")["Credentials"]
    environment = {"AWS_ACCESS_KEY_ID": keys["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"], "AWS_SESSION_TOKEN": keys["SessionToken"]}
    everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    managed = lambda *roles: json.dumps({"Resources": {"p": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {
        "ManagedPolicyName": "mine-all", "PolicyDocument": everything, "Roles": list(roles)}}}})
    inline = json.dumps({"Resources": {"p": {"Type": "AWS::IAM::Policy", "Properties": {
        "PolicyName": "mine-all", "PolicyDocument": everything, "Roles": ["victim"]}}}})
    for text in (managed("victim"), managed("deployer"), inline):
        error = deploy(w, "grab", text, "--capabilities", "CAPABILITY_NAMED_IAM", fails=True, **environment)
        assert "iam:AttachRolePolicy" in error or "iam:PutRolePolicy" in error, error
    for name in ("deployer", "victim"):
        assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
    assert iam.list_role_policies(RoleName="victim")["PolicyNames"] == []
    # Without roles the policy is the deployer's own; changing it so that it is attached asks again.
    deploy(w, "own", managed(), "--capabilities", "CAPABILITY_NAMED_IAM", **environment)
    error = deploy(w, "own", managed("victim"), "--capabilities", "CAPABILITY_NAMED_IAM", fails=True, **environment)
    assert "iam:AttachRolePolicy" in error and "role/victim" in error, error
    assert iam.list_attached_role_policies(RoleName="victim")["AttachedPolicies"] == []
    deploy(w, "own", managed("victim"), "--capabilities", "CAPABILITY_NAMED_IAM")
    error = w.service.aws("cloudformation", "delete-stack", "--stack-name", "panorama-own", fails=True, **environment)
    assert "iam:DetachRolePolicy" in error or "iam:AttachRolePolicy" in error, error
    w.service.aws("cloudformation", "delete-stack", "--stack-name", "panorama-own")
    for name in ("deployer", "victim"):
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        iam.delete_role(RoleName=name)


def test_package_and_large_templates_go_through_the_bucket(w):
    bucket = w.boto("s3").list_buckets()["Buckets"][0]["Name"]
    path = w.folder / "packaged.yml"
    path.write_text(ROLE)
    w.service.run("aws", "cloudformation", "package", "--template-file", path, "--s3-bucket", bucket, "--output-template-file", w.folder / "out.yml")
    text = (w.folder / "out.yml").read_text()
    deploy(w, "packaged", text, "--capabilities", "CAPABILITY_NAMED_IAM", "--s3-bucket", bucket, "--s3-prefix", "templates")
    assert w.boto("cloudformation").describe_stacks(StackName="panorama-packaged")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    assert w.boto("s3").list_objects_v2(Bucket=bucket, Prefix="templates/")["KeyCount"] == 1


def test_deleting_takes_everything(w):
    iam = w.boto("iam")
    for name in ("panorama-sample", "panorama-large", "panorama-packaged"):
        w.service.aws("cloudformation", "delete-stack", "--stack-name", name)
        w.service.run("aws", "cloudformation", "wait", "stack-delete-complete", "--stack-name", name)
    assert {r["RoleName"] for r in iam.list_roles()["Roles"]} == {"stacker"}
    assert [p["PolicyName"] for p in iam.list_policies(Scope="Local")["Policies"]] == ["taken"]
    assert {s["StackStatus"] for s in w.boto("cloudformation").list_stacks()["StackSummaries"]} >= {"DELETE_COMPLETE"}


walking.run(globals())
