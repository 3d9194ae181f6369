"""Who may do what, with the real tools: roles, their sessions, applications on appliances, secrets, the audit log."""

import base64
import datetime
import http.client
import json
import os
import pathlib

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

import walking
from simulated_device import Device
from walking import ACCOUNT, refused, waits

SECRET = "correct-horse-battery-staple-5519"
TRUST_ACCOUNT = {"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}
TRUST_PANORAMA = {"Version": "2012-10-17", "Statement": [{
    "Effect": "Allow", "Principal": {"Service": ["panorama.amazonaws.com"]}, "Action": ["sts:AssumeRole"]}]}


def session(w, credentials, name, **options):
    """A client with the keys of an assumed role."""
    options.setdefault("config", Config(retries={"max_attempts": 1}))
    return boto3.client(
        name, region_name="us-east-1", endpoint_url="http://" + w.service.endpoints["api"],
        aws_access_key_id=credentials["AccessKeyId"], aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"], **options,
    )


def test_a_role_with_a_policy(w):
    iam, w.bucket = w.boto("iam"), w.boto("s3").list_buckets()["Buckets"][0]["Name"]
    made = iam.create_role(RoleName="writer", Path="/applications/", AssumeRolePolicyDocument=json.dumps(TRUST_ACCOUNT),
                           Description="writes results", MaxSessionDuration=7200, Tags=[{"Key": "a", "Value": "b"}])["Role"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/applications/writer" and made["RoleId"].startswith("AROA")
    assert made["AssumeRolePolicyDocument"] == TRUST_ACCOUNT
    refused("EntityAlreadyExists", iam.create_role, RoleName="writer", AssumeRolePolicyDocument=json.dumps(TRUST_ACCOUNT))
    w.policy = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject"], "Resource": f"arn:aws:s3:::{w.bucket}/results/*"},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{w.bucket}",
         "Condition": {"StringLike": {"s3:prefix": "results/*"}}},
        {"Effect": "Deny", "Action": "*", "Resource": f"arn:aws:s3:::{w.bucket}/results/closed/*"},
        {"Effect": "Allow", "Action": "logs:*", "Resource": "arn:aws:logs:*:*:log-group:/mine/*"},
    ]}
    iam.put_role_policy(RoleName="writer", PolicyName="results", PolicyDocument=json.dumps(w.policy))
    assert iam.get_role_policy(RoleName="writer", PolicyName="results")["PolicyDocument"] == w.policy
    assert iam.list_role_policies(RoleName="writer")["PolicyNames"] == ["results"]
    assert [r["RoleName"] for r in iam.list_roles()["Roles"]] == ["writer"]
    refused("DeleteConflict", iam.delete_role, RoleName="writer")
    refused("NoSuchEntity", iam.get_role, RoleName="nobody")
    assert w.service.aws("iam", "get-role", "--role-name", "writer")["Role"]["MaxSessionDuration"] == 7200
    for change in ({"NotAction": "s3:*"}, {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, {"Resource": "${aws:username}"}):
        wrong = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", **change}]}
        error = refused("MalformedPolicyDocument", iam.put_role_policy, RoleName="writer", PolicyName="x", PolicyDocument=json.dumps(wrong))
        assert "Statement[0]" in str(error), error


def test_a_session_of_the_role(w):
    sts = w.boto("sts", config=Config(parameter_validation=False))
    w.arn = f"arn:aws:iam::{ACCOUNT}:role/applications/writer"
    assumed = sts.assume_role(RoleArn=w.arn, RoleSessionName="night-shift", DurationSeconds=900)
    w.keys = assumed["Credentials"]
    left = (w.keys["Expiration"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert 800 < left <= 900, left
    identity = session(w, w.keys, "sts").get_caller_identity()
    assert identity["Arn"] == assumed["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/writer/night-shift"
    assert identity["UserId"] == assumed["AssumedRoleUser"]["AssumedRoleId"] and identity["Account"] == ACCOUNT
    for changes in ({"DurationSeconds": 899}, {"DurationSeconds": 7201}, {"RoleSessionName": "a b"}, {"Policy": "{}"}):
        refused("ValidationError", sts.assume_role, **{"RoleArn": w.arn, "RoleSessionName": "x1", **changes})
    refused("AccessDenied", sts.assume_role, RoleArn=w.arn.replace("/applications", ""), RoleSessionName="x1")
    refused("AccessDenied", sts.assume_role, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/nobody", RoleSessionName="x1")
    # Without the token, or with another's, the keys are nothing.
    refused("UnrecognizedClientException", session(w, {**w.keys, "SessionToken": None}, "sts").get_caller_identity)
    other = sts.assume_role(RoleArn=w.arn, RoleSessionName="day-shift")["Credentials"]
    refused("ExpiredTokenException", session(w, {**w.keys, "SessionToken": other["SessionToken"]}, "sts").get_caller_identity)


def test_a_session_may_do_what_its_role_allows_and_no_more(w):
    s3, admin = session(w, w.keys, "s3"), w.boto("s3")
    s3.put_object(Bucket=w.bucket, Key="results/a.json", Body=b"{}")
    assert s3.get_object(Bucket=w.bucket, Key="results/a.json")["Body"].read() == b"{}"
    admin.put_object(Bucket=w.bucket, Key="other/b", Body=b"not yours")
    refused("AccessDenied", s3.put_object, Bucket=w.bucket, Key="resultsx", Body=b"")
    refused("AccessDenied", s3.get_object, Bucket=w.bucket, Key="other/b")
    refused("AccessDenied", s3.get_object, Bucket=w.bucket, Key="results/../other/b")
    refused("AccessDenied", s3.put_object, Bucket=w.bucket, Key="results/closed/x", Body=b"")
    refused("AccessDenied", s3.delete_object, Bucket=w.bucket, Key="results/a.json")
    refused("AccessDenied", s3.copy_object, Bucket=w.bucket, Key="results/stolen", CopySource={"Bucket": w.bucket, "Key": "other/b"})
    refused("AccessDenied", s3.list_objects_v2, Bucket=w.bucket)
    refused("AccessDenied", s3.list_objects_v2, Bucket=w.bucket, Prefix="other/")
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=w.bucket, Prefix="results/")["Contents"]] == ["results/a.json"]
    refused("AccessDenied", s3.list_buckets)
    both = s3.delete_objects(Bucket=w.bucket, Delete={"Objects": [{"Key": "results/a.json"}, {"Key": "other/b"}]})
    assert [(e["Key"], e["Code"]) for e in both["Errors"]] == [("results/a.json", "AccessDenied"), ("other/b", "AccessDenied")]
    logs = session(w, w.keys, "logs")
    logs.create_log_group(logGroupName="/mine/a")
    refused("AccessDeniedException", logs.create_log_group, logGroupName="/yours/a")
    refused("AccessDeniedException", logs.describe_log_groups)
    error = refused("AccessDeniedException", session(w, w.keys, "panorama").list_devices)
    assert "night-shift" in str(error) and "panorama:ListDevices" in str(error), error
    refused("AccessDenied", session(w, w.keys, "iam").list_roles)
    refused("AccessDenied", session(w, w.keys, "sts").assume_role, RoleArn=w.arn, RoleSessionName="chained")


def test_what_a_role_loses_its_sessions_lose_at_once(w):
    iam, s3 = w.boto("iam"), session(w, w.keys, "s3")
    managed = iam.create_policy(PolicyName="more", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{w.bucket}/other/*"}]}))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="writer", PolicyArn=managed)
    assert s3.get_object(Bucket=w.bucket, Key="other/b")["Body"].read() == b"not yours"
    refused("DeleteConflict", iam.delete_policy, PolicyArn=managed)
    iam.detach_role_policy(RoleName="writer", PolicyArn=managed)
    refused("AccessDenied", s3.get_object, Bucket=w.bucket, Key="other/b")
    iam.delete_policy(PolicyArn=managed)
    iam.delete_role_policy(RoleName="writer", PolicyName="results")
    refused("AccessDenied", s3.get_object, Bucket=w.bucket, Key="results/a.json")
    iam.delete_role(RoleName="writer")
    refused("ExpiredToken", s3.get_object, Bucket=w.bucket, Key="results/a.json")
    # A role of the same name is another role.
    iam.create_role(RoleName="writer", Path="/applications/", AssumeRolePolicyDocument=json.dumps(TRUST_ACCOUNT))
    iam.put_role_policy(RoleName="writer", PolicyName="results", PolicyDocument=json.dumps(w.policy))
    refused("ExpiredToken", s3.get_object, Bucket=w.bucket, Key="results/a.json")


def test_an_application_on_an_appliance_gets_its_role(w):
    archive = w.service.aws("panorama", "provision-device", "--name", "porch", "--output", "text", "--query", "Certificates")
    w.device = Device(base64.b64decode(archive), w.folder / "device")
    w.device.provision()
    w.device_id = w.device.configuration["device_id"]
    panorama = w.boto("panorama")
    panorama.create_node_from_template_job(
        NodeName="CAM", OutputPackageName="CAM", OutputPackageVersion="1.0", TemplateType="RTSP_CAMERA_STREAM",
        TemplateParameters={"StreamUrl": "rtsp://10.0.0.5/s", "Username": "u", "Password": SECRET})
    waits("the camera", lambda: any(n["Name"] == "CAM" for n in panorama.list_nodes(Category="MEDIA_SOURCE")["Nodes"]))
    graph = {"nodeGraph": {"envelopeVersion": "2021-01-01", "packages": [{"name": f"{ACCOUNT}::CAM", "version": "1.0"}],
                           "nodes": [{"name": "camera", "interface": f"{ACCOUNT}::CAM.CAM"}], "edges": []}}
    deploy = lambda **more: panorama.create_application_instance(
        DefaultRuntimeContextDevice=w.device_id, ManifestPayload={"PayloadData": json.dumps(graph)}, **more)["ApplicationInstanceId"]
    iam = w.boto("iam")
    device_arn = f"arn:aws:panorama:us-east-1:{ACCOUNT}:device/{w.device_id}"
    trust = json.loads(json.dumps(TRUST_PANORAMA))
    trust["Statement"][0]["Condition"] = {"ArnLike": {"aws:SourceArn": device_arn}, "StringEquals": {"aws:SourceAccount": ACCOUNT}}
    role = iam.create_role(RoleName="application", Path="/service-role/", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="application", PolicyName="own", PolicyDocument=json.dumps(w.policy))
    with_role, without = deploy(RuntimeRoleArn=role), deploy()
    w.instance = with_role
    status, answer = w.device.credentials(alias=with_role)
    assert status == 200, answer
    keys = {k[0].upper() + k[1:]: v for k, v in answer["credentials"].items()}
    assert session(w, keys, "sts").get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/application/{with_role}"
    session(w, keys, "s3").put_object(Bucket=w.bucket, Key="results/from-the-porch", Body=b"1")
    refused("AccessDenied", session(w, keys, "s3").get_object, Bucket=w.bucket, Key="other/b")
    refused("AccessDeniedException", session(w, keys, "panorama").list_devices)
    # No role, no such instance, no certificate of the device's own: nothing.
    for alias in (without, "applicationInstance-aaaaaaaaaaaaaaaaaaaaaaaaaa"):
        assert w.device.credentials(alias=alias)[0] == 403, alias
    assert w.device.credentials(alias=with_role, certificate=None)[0] == 403
    # People may not assume it: it trusts Panorama alone.
    refused("AccessDenied", w.boto("sts").assume_role, RoleArn=role, RoleSessionName="me")
    # The trust of another device is not this one's.
    trust["Statement"][0]["Condition"]["ArnLike"]["aws:SourceArn"] = device_arn + "x"
    iam.update_assume_role_policy(RoleName="application", PolicyDocument=json.dumps(trust))
    assert w.device.credentials(alias=with_role)[0] == 403
    # Whoever may create application instances may not thereby hand out roles.
    iam.create_role(RoleName="deployer", AssumeRolePolicyDocument=json.dumps(TRUST_ACCOUNT))
    iam.put_role_policy(RoleName="deployer", PolicyName="p", PolicyDocument=json.dumps({"Statement": [
        {"Effect": "Allow", "Action": "panorama:*", "Resource": "*"}]}))
    deployer = w.boto("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/deployer", RoleSessionName="ci")["Credentials"]
    error = refused("AccessDeniedException", session(w, deployer, "panorama").create_application_instance,
                    DefaultRuntimeContextDevice=w.device_id, ManifestPayload={"PayloadData": json.dumps(graph)}, RuntimeRoleArn=role)
    assert "iam:PassRole" in str(error), error
    # When the instance is to go, its keys are gone.
    panorama.remove_application_instance(ApplicationInstanceId=with_role)
    refused("ExpiredToken", session(w, keys, "s3").put_object, Bucket=w.bucket, Key="results/from-the-porch", Body=b"2")


def test_external_id_and_an_ended_key(w):
    trust = json.loads(json.dumps(TRUST_ACCOUNT))
    trust["Statement"][0]["Condition"] = {"StringEquals": {"sts:ExternalId": "the-other-company"}}
    w.boto("iam").create_role(RoleName="guest", AssumeRolePolicyDocument=json.dumps(trust))
    arn = f"arn:aws:iam::{ACCOUNT}:role/guest"
    refused("AccessDenied", w.boto("sts").assume_role, RoleArn=arn, RoleSessionName="x1")
    refused("AccessDenied", w.boto("sts").assume_role, RoleArn=arn, RoleSessionName="x1", ExternalId="wrong")
    w.boto("sts").assume_role(RoleArn=arn, RoleSessionName="x1", ExternalId="the-other-company")
    # Sessions end with the access key that they came from.
    program = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"
    made = w.service.run(program, "keys", "--data", w.service.data, "create", "--description", "short")
    key = dict(line.split("=", 1) for line in made.splitlines())
    assumed = w.service.aws("sts", "assume-role", "--role-arn", arn, "--role-session-name", "cli", "--external-id", "the-other-company", **key)
    assert session(w, assumed["Credentials"], "sts").get_caller_identity()["Arn"].endswith("/guest/cli")
    w.service.run(program, "keys", "--data", w.service.data, "revoke", key["AWS_ACCESS_KEY_ID"])
    refused("ExpiredTokenException", session(w, assumed["Credentials"], "sts").get_caller_identity)


def test_secrets(w):
    secrets = w.boto("secretsmanager", config=Config(parameter_validation=False))
    made = w.service.aws("secretsmanager", "create-secret", "--name", "panorama/camera-1", "--secret-string", SECRET, "--description", "front door")
    w.secret = made["ARN"]
    assert w.secret.startswith(f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:panorama/camera-1-")
    for name in ("panorama/camera-1", w.secret, w.secret[:-7]):
        assert secrets.get_secret_value(SecretId=name)["SecretString"] == SECRET
    refused("ResourceExistsException", secrets.create_secret, Name="panorama/camera-1", SecretString="x")
    refused("ResourceNotFoundException", secrets.get_secret_value, SecretId="nothing")
    refused("InvalidParameterException", secrets.create_secret, Name="bad name", SecretString="x")
    refused("InvalidParameterException", secrets.create_secret, Name="large", SecretString="x" * 65537)
    second = secrets.put_secret_value(SecretId=w.secret, SecretBinary=b"\x00\xff" + SECRET.encode())
    assert secrets.get_secret_value(SecretId=w.secret)["SecretBinary"] == b"\x00\xff" + SECRET.encode()
    assert secrets.get_secret_value(SecretId=w.secret, VersionStage="AWSPREVIOUS")["SecretString"] == SECRET
    stages = secrets.describe_secret(SecretId=w.secret)["VersionIdsToStages"]
    assert stages == {second["VersionId"]: ["AWSCURRENT"], made["VersionId"]: ["AWSPREVIOUS"]}, stages
    assert [s["Name"] for s in secrets.list_secrets()["SecretList"]] == ["panorama/camera-1"]
    # A role sees the secrets that its policy names.
    w.boto("iam").put_role_policy(RoleName="writer", PolicyName="secret", PolicyDocument=json.dumps({"Statement": [
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": f"arn:aws:secretsmanager:*:*:secret:panorama/*"}]}))
    secrets.create_secret(Name="other", SecretString="o")
    keys = w.boto("sts").assume_role(RoleArn=w.arn, RoleSessionName="reader")["Credentials"]
    mine = session(w, keys, "secretsmanager")
    assert "SecretBinary" in mine.get_secret_value(SecretId="panorama/camera-1")
    refused("AccessDeniedException", mine.get_secret_value, SecretId="other")
    refused("AccessDeniedException", mine.list_secrets)
    # Deleting has a way back, unless it is forced.
    secrets.delete_secret(SecretId="other", RecoveryWindowInDays=7)
    refused("InvalidRequestException", secrets.get_secret_value, SecretId="other")
    refused("InvalidRequestException", secrets.create_secret, Name="other", SecretString="p")
    secrets.restore_secret(SecretId="other")
    assert secrets.get_secret_value(SecretId="other")["SecretString"] == "o"
    secrets.delete_secret(SecretId="other", ForceDeleteWithoutRecovery=True)
    refused("ResourceNotFoundException", secrets.describe_secret, SecretId="other")


def signed(w, service, body, **headers):
    """A signed request as headers and body."""
    url = "http://" + w.service.endpoints["api"] + "/"
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/x-www-form-urlencoded", **headers})
    SigV4Auth(Credentials(w.service.key["AWS_ACCESS_KEY_ID"], w.service.key["AWS_SECRET_ACCESS_KEY"]), service, "us-east-1").add_auth(request)
    return dict(request.headers.items())


def post(w, headers, body):
    connection = http.client.HTTPConnection(w.service.endpoints["api"], timeout=60)
    connection.request("POST", "/", body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_replay_with_another_body_is_refused(w):
    body = "Action=GetRole&Version=2010-05-08&RoleName=guest"
    headers = signed(w, "iam", body)
    assert post(w, headers, body)[0] == 200
    for changed in (body.replace("guest", "writer"), "Action=DeleteRole&Version=2010-05-08&RoleName=guest", ""):
        status, text = post(w, headers, changed)
        assert status == 403 and "SignatureDoesNotMatch" in text, (changed, text)
    # The signature is for one service.
    assert post(w, {k: v.replace("/iam/", "/sts/") if k == "Authorization" else v for k, v in headers.items()}, body)[0] == 403
    w.boto("iam").get_role(RoleName="guest")


def test_the_audit_log_tells_all_and_no_secret(w):
    program = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"
    w.service.aws("sts", "get-caller-identity", fails=True, AWS_SECRET_ACCESS_KEY="wrong")
    response = w.boto("iam").create_role(RoleName="last", AssumeRolePolicyDocument=json.dumps(TRUST_ACCOUNT))
    read = lambda: [json.loads(l) for l in w.service.run(program, "audit", "--data", w.service.data, "--json", "--limit", 100000).splitlines()]
    entries = read()
    # What changes something is there when its answer is.
    last = entries[-1]
    assert (last["action"], last["resource"], last["status"]) == ("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/last", 200), last
    assert last["caller"] == f"arn:aws:iam::{ACCOUNT}:user/administrator" and last["accessKeyId"] == w.service.key["AWS_ACCESS_KEY_ID"]
    assert last["source"].startswith("127.0.0.1:") and last["requestId"] == response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    waits("reads are entered within a second", lambda: any(e["action"] == "iam:GetRole" for e in read()), 10)
    entries = read()
    find = lambda **wanted: [e for e in entries if all(e[k] == v for k, v in wanted.items())]
    assert find(action="s3:GetObject", resource=f"arn:aws:s3:::{w.bucket}/other/b", status=403, caller=f"arn:aws:sts::{ACCOUNT}:assumed-role/writer/night-shift")
    assert find(action="sts:AssumeRole", resource=w.arn, status=200) and find(action="sts:AssumeRole", status=403)
    assert find(action="secretsmanager:GetSecretValue", resource=w.secret, caller=f"arn:aws:sts::{ACCOUNT}:assumed-role/writer/reader")
    assert find(action="iot:AssumeRoleWithCertificate", resource=f"arn:aws:iot:us-east-1:{ACCOUNT}:rolealias/{w.instance}", status=200)
    assert find(caller="unverified", action="sts:unverified", status=403)
    assert find(action="panorama:CreateApplicationInstance", status=200)
    # As many entries as the program's log has requests of this kind.
    answered = sum(1 for line in w.service.log().splitlines() if " request " in line or " request:" in line or "request method" in line)
    verified = [e for e in entries if not e["action"].startswith("iot:AssumeRoleWithCertificate")]
    assert len(verified) >= answered * 0.99 and answered > 80, (len(verified), answered)
    assert w.service.run(program, "audit", "--data", w.service.data).count("\n") >= min(len(entries), 1000) - 5
    # Nothing of it, nor anything else on the disk, holds a secret in clear.
    w.service.stop()
    secret = [SECRET.encode(), w.keys["SecretAccessKey"].encode(), w.service.key["AWS_SECRET_ACCESS_KEY"].encode(), w.keys["SessionToken"].encode()]
    files = [p for p in w.folder.rglob("*") if p.is_file() and "device" not in p.parts[len(w.folder.parts)]]
    assert len(files) > 5, files
    for path in files:
        content = path.read_bytes()
        for value in secret:
            assert value not in content, path
    w.service.start()
    assert len(read()) >= len(entries), "the log survives a restart"


walking.run(globals())
