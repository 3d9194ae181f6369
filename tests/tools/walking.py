"""What every walk stands on: a service of its own, clients of it, and a runner whose tests follow one another."""

import sys
import time
import traceback

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from service import Service

ACCOUNT = "123456789012"


class Walk:
    """What the tests of one walk leave for each other."""

    def __init__(self, **options):
        self.service = Service(**options)
        self.service.start()
        self.folder = self.service.folder

    def boto(self, name, **options):
        key = self.service.key
        options.setdefault("endpoint_url", "http://" + self.service.endpoints["api"])
        return boto3.client(
            name, region_name="us-east-1", aws_access_key_id=key["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"], **options,
        )

    def device_client(self, name):
        """A client with the device's short-lived keys, over TLS."""
        status, answer = self.device.credentials()
        assert status == 200, answer
        keys = answer["credentials"]
        self.service.secrets += [keys["secretAccessKey"], keys["sessionToken"]]
        https = self.device.endpoints["https"]
        return boto3.client(
            name, region_name="us-east-1", endpoint_url=f"https://{https['host']}:{https['port']}", verify=str(self.device.ca),
            aws_access_key_id=keys["accessKeyId"], aws_secret_access_key=keys["secretAccessKey"],
            aws_session_token=keys["sessionToken"], config=Config(retries={"max_attempts": 1}),
        )


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error
    raise AssertionError(f"{call} was not refused with {code}")


def waits(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def own_broker(why):
    """For a test of what the service's own broker does. Skipped with an external one; `why` says what that does instead."""

    def mark(test):
        test.own_broker = why
        return test

    return mark


def run(tests, walk=None):
    """Runs the functions named test_* in a module's globals, in order, on one walk; each stands on the ones before it.

    `-k WORD` on the command line leaves out those whose name does not contain WORD. Ends the process."""
    word = sys.argv[2] if sys.argv[1:2] == ["-k"] and len(sys.argv) > 2 else ""
    chosen = [(n, f) for n, f in tests.items() if n.startswith("test_") and word in n]
    if not chosen:
        sys.exit(0)
    began = time.monotonic()
    walk = walk or Walk()
    failed = skipped = 0
    try:
        for name, test in chosen:
            start = time.monotonic()
            if walk.service.broker and hasattr(test, "own_broker"):
                skipped += 1
                print(f"skipped          {name[5:]}: {test.own_broker}", flush=True)
                continue
            try:
                test(walk)
                print(f"ok      {time.monotonic() - start:6.1f} s  {name[5:]}", flush=True)
            except Exception as error:  # the tests that follow stand on this one: stop here
                failed += 1
                print(f"FAILED  {time.monotonic() - start:6.1f} s  {name[5:]}: {error!r}", flush=True)
                traceback.print_exc()
                print("--- the service's log\n" + "\n".join(walk.service.log().splitlines()[-30:]))
                break
        if not failed and not word:
            try:
                walk.service.no_secret_in_clear()
                print(f"ok               none of {len(walk.service.secrets)} secrets is stored or logged in clear", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED  {error!r}", flush=True)
                traceback.print_exc()
        print(f"measured: {tests['__file__'].rsplit('/', 1)[-1]}: {len(chosen) - skipped} tests, {failed} failed,{f' {skipped} skipped,' if skipped else ''} {time.monotonic() - began:.0f} s")
    finally:
        walk.service.end()
    sys.exit(1 if failed else 0)
