"""An appliance as far as the service can tell: MQTT with the claim, then with its own certificate.

Independent of the product's own code: paho-mqtt, cryptography and the standard library only.
"""

import http.client
import io
import json
import pathlib
import queue
import ssl
import time
import zipfile

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE = 60


class Refused(Exception):
    """The service closed the door, or said no."""


class Link:
    """An MQTT connection and everything that came over it."""

    def __init__(self, endpoint, ca, certificate, key, client_id, version=mqtt.MQTTv311, will=None, password=None, **session):
        self.messages = queue.Queue()
        self.ended = queue.Queue()
        connected = queue.Queue()
        subscribed = queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, reconnect_on_failure=False, **session)
        context = ssl.create_default_context(cafile=str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(str(certificate), str(key))
        self.client.tls_set_context(context)
        if will:
            self.client.will_set(*will)
        if password:
            self.client.username_pw_set(client_id, password)
        self.client.on_connect = lambda c, u, f, reason, p: connected.put(reason)
        self.client.on_message = lambda c, u, m: self.messages.put((m.topic, m.payload))
        self.client.on_subscribe = lambda c, u, mid, codes, p: subscribed.put(codes)
        self.client.on_disconnect = lambda c, u, f, reason, p: (connected.put(reason), self.ended.put(reason))
        self._subscribed = subscribed
        try:
            self.client.connect(endpoint["host"], endpoint["port"], keepalive=60)
        except (OSError, ssl.SSLError) as error:
            raise Refused(str(error)) from error
        self.client.loop_start()
        reason = connected.get(timeout=PATIENCE)
        if reason.is_failure:
            self.client.loop_stop()
            raise Refused(str(reason))

    def subscribe(self, topic, qos=1):
        """Whether the subscription was granted."""
        self.client.subscribe(topic, qos)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return not self._subscribed.get(timeout=0.2)[0].is_failure
            except queue.Empty:
                if not self.client.is_connected():
                    raise Refused("the connection was cut") from None
                if time.monotonic() > end:
                    raise

    def publish(self, topic, document, qos=1):
        payload = document if isinstance(document, (str, bytes)) else json.dumps(document)
        published = self.client.publish(topic, payload, qos)
        end = time.monotonic() + PATIENCE
        while published.rc != mqtt.MQTT_ERR_SUCCESS or not published.is_published():
            if not self.client.is_connected():
                raise Refused("the connection was cut")
            if time.monotonic() > end:
                raise TimeoutError(f"{topic} was not acknowledged")
            time.sleep(0.002)

    def _heard(self, end):
        """The next message until then. A connection that was cut says no more: its end is not waited for."""
        while True:
            over = not self.client.is_connected()  # asked first: what came before the end is heard
            try:
                return self.messages.get(timeout=min(0.2, max(0.01, end - time.monotonic())))
            except queue.Empty:
                if over:
                    raise Refused("the connection was cut") from None
                if time.monotonic() > end:
                    raise

    def wait(self, topic, patience=PATIENCE):
        """The next message at a topic; others are passed over."""
        end = time.monotonic() + patience
        while True:
            name, payload = self._heard(end)
            if name == topic:
                return json.loads(payload)

    def ask(self, topic, document):
        """Publishes, and waits for `accepted` or `rejected`."""
        self.publish(topic, document)
        end = time.monotonic() + PATIENCE
        while True:
            name, payload = self._heard(end)
            if name == topic + "/accepted":
                return json.loads(payload)
            if name == topic + "/rejected":
                raise Refused(payload.decode())

    def wait_for_end(self):
        return self.ended.get(timeout=PATIENCE)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def cut(self):
        """Ends the connection without a word, as a power cut does."""
        self.client.loop_stop()
        self.client.socket().close()


class Device:
    """A simulated appliance with a folder for its identity."""

    def __init__(self, archive, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO(archive)) as entries:
            assert sorted(entries.namelist()) == sorted(
                ["configuration.json", "claim.certificate.pem", "claim.private-key.pem", "service-ca.pem"]
            ), entries.namelist()
            for name in entries.namelist():
                (self.folder / name).write_bytes(entries.read(name))
        self.configuration = json.loads((self.folder / "configuration.json").read_text())
        self.endpoints = self.configuration["endpoints"]
        self.ca = self.folder / "service-ca.pem"
        self.thing = None
        # Where MQTT goes on once the device is registered, unless the service names another broker then.
        self.mqtt, self.password = self.endpoints["mqtt"], None

    def claim_link(self, **options):
        return Link(
            self.endpoints["mqtt"], self.ca, self.folder / "claim.certificate.pem", self.folder / "claim.private-key.pem",
            options.pop("client_id", self.configuration["claim_client_id"]), **options,
        )

    def request_certificate(self, link):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of no importance")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        assert link.subscribe("$aws/certificates/create-from-csr/json/+")
        made = link.ask(
            "$aws/certificates/create-from-csr/json",
            {"certificateSigningRequest": request.public_bytes(serialization.Encoding.PEM).decode()},
        )
        (self.folder / "device.certificate.pem").write_text(made["certificatePem"])
        (self.folder / "device.private-key.pem").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
        self.thing = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return made

    def register(self, link, token):
        topic = f"$aws/provisioning-templates/{self.configuration['provisioning_template']}/provision/json"
        assert link.subscribe(topic + "/accepted") and link.subscribe(topic + "/rejected")
        registered = link.ask(topic, {
            "certificateOwnershipToken": token,
            "parameters": {"SerialNumber": "20261122", "SoftwareVersion": "0.1.0"},
        })
        named = registered["deviceConfiguration"]
        if "mqttHost" in named:
            self.mqtt = {"host": named["mqttHost"], "port": int(named["mqttPort"])}
            self.password = named["mqttPassword"]
        return registered

    def provision(self):
        link = self.claim_link()
        made = self.request_certificate(link)
        registered = self.register(link, made["certificateOwnershipToken"])
        assert registered["thingName"] == self.thing, registered
        link.close()

    def link(self, **options):
        return Link(
            self.mqtt, self.ca, self.folder / "device.certificate.pem", self.folder / "device.private-key.pem",
            options.pop("client_id", self.thing), **{"password": self.password, **options},
        )

    def shadow(self, name, operation):
        return f"$aws/things/{self.thing}/shadow/name/{name}/{operation}"

    def jobs(self, operation):
        return f"$aws/things/{self.thing}/jobs/{operation}"

    def credentials(self, certificate="device", alias="belvedere-appliance", thing=None):
        """Short-lived keys, and the status they came with."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate:
            context.load_cert_chain(str(self.folder / f"{certificate}.certificate.pem"), str(self.folder / f"{certificate}.private-key.pem"))
        https = self.endpoints["https"]
        connection = http.client.HTTPSConnection(https["host"], https["port"], context=context, timeout=PATIENCE)
        connection.request("GET", f"/role-aliases/{alias}/credentials", headers={"x-amzn-iot-thingname": thing or self.thing})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
