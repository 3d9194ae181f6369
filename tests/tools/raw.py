"""Requests as nobody's library would send them: any body, any path, signed with botocore's signer, over one connection."""

import datetime
import http.client
import json
import urllib.parse

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def code(self):
        if named := self.headers.get("x-amzn-errortype"):
            return named
        return self.body.split(b"<Code>")[1].split(b"<")[0].decode() if b"<Code>" in self.body else ""

    @property
    def document(self):
        return json.loads(self.body)

    @property
    def fields(self):
        return [f["Name"] for f in self.document.get("Fields", [])]

    def __repr__(self):
        return f"{self.status} {self.code} {self.body[:400]!r}"


def _signer(kind, when, payload):
    """One of botocore's signers, with a clock of ours, and a word of ours about the body where there is one."""

    class Signer(kind):
        def payload(self, request):
            return payload or super().payload(request)

        def add_auth(self, request):
            request.context["timestamp"] = when.strftime("%Y%m%dT%H%M%SZ")
            self._modify_request_before_signing(request)
            canonical = self.canonical_request(request)
            signature = self.signature(self.string_to_sign(request, canonical), request)
            self._inject_signature_to_request(request, signature)

    return Signer


class Raw:
    """A client with one connection that is kept while the service keeps it."""

    def __init__(self, service):
        self.host = service.endpoints["api"]
        self.key = Credentials(service.key["AWS_ACCESS_KEY_ID"], service.key["AWS_SECRET_ACCESS_KEY"])
        self.connection = None
        self.sent = self.opened = 0

    def signed(self, method, path, body=b"", service="panorama", headers=(), minutes=0, key=None, region="us-east-1", expires=None):
        """Path (with its query, encoded as it is to be sent) and headers of a signed request. `minutes`: how wrong the
        signer's clock is. `expires`: presigned, for so many seconds."""
        request = AWSRequest(method, f"http://{self.host}{path}", headers=dict(headers), data=body)
        when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
        kinds = {(True, False): S3SigV4Auth, (True, True): S3SigV4QueryAuth, (False, False): SigV4Auth, (False, True): SigV4QueryAuth}
        arguments = [key or self.key, service, region] + ([expires] if expires else [])
        request.context["payload_signing_enabled"] = True
        payload = {k.lower(): v for k, v in dict(headers).items()}.get("x-amz-content-sha256")
        _signer(kinds[(service == "s3", expires is not None)], when, payload)(*arguments).add_auth(request)
        prepared = request.prepare()
        parts = urllib.parse.urlsplit(prepared.url)
        return parts.path + ("?" + parts.query if parts.query else ""), {k: v for k, v in prepared.headers.items() if k != "Content-Length"}

    def send(self, method, path, body=b"", headers=()):
        """Sends a request as it is; its answer."""
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.host, timeout=60)
                self.opened += 1
            try:
                self.connection.putrequest(method, path, skip_accept_encoding=True, skip_host="Host" in dict(headers))
                for name, value in dict(headers).items():
                    self.connection.putheader(name, value)
                if "Content-Length" not in dict(headers) and "Transfer-Encoding" not in dict(headers):
                    self.connection.putheader("Content-Length", str(len(body)))
                self.connection.endheaders(body or None)
                response = self.connection.getresponse()
                answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
                self.sent += 1
                if response.will_close:
                    self.close()
                return answer
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A kept connection may have been closed meanwhile; a new one may not drop a request.
                fresh = self.connection is not None and getattr(self.connection, "used", 0) == 0
                self.close()
                if fresh or attempt == 2:
                    raise
            finally:
                if self.connection is not None:
                    self.connection.used = getattr(self.connection, "used", 0) + 1

    def call(self, method, path, body=b"", **options):
        path, headers = self.signed(method, path, body, **options)
        return self.send(method, path, body, headers)

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def request_of(model, name, values):
    """Method, path and body of an operation with any values at all, put where the model says, checked by nobody."""
    operation = model["operations"][name]
    path, query, body = operation["http"]["requestUri"], [], {}
    members = model["shapes"][operation["input"]["shape"]]["members"]
    for member, value in values.items():
        place = members.get(member, {})
        text = lambda v: v if isinstance(v, str) else json.dumps(v)
        if place.get("location") == "uri":
            path = path.replace("{" + place["locationName"] + "}", urllib.parse.quote(text(value), safe="-_.~"))
        elif place.get("location") == "querystring":
            for one in value if isinstance(value, list) else [value]:
                query.append(f"{urllib.parse.quote(place['locationName'], safe='')}={urllib.parse.quote(text(one), safe='')}")
        else:
            body[member] = value
    path += "?" + "&".join(query) if query else ""
    has_body = any("location" not in m for m in members.values())
    return operation["http"]["method"], path, json.dumps(body).encode() if has_body else b""
