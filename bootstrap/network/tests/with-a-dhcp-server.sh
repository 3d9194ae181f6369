#!/bin/sh
# belvedere-network against a real DHCP server (dnsmasq) and the real kernel, in network namespaces of its own.
#
#   with-a-dhcp-server.sh PROGRAM        (root, or a user who may make user namespaces; needs dnsmasq-base and iproute2)
#
# Port p0 has a DHCP server behind it, p1 has a cable and nobody; then p1 gets a static address, is reverted, and p0's
# cable is pulled and plugged in again. Then p0 is a camera network whose gateway leads nowhere, and p1 has a server that
# gives classless routes, an MTU, name and time servers, and the way to the service. Prints what was seen, ends 0 when it
# was right.
set -eu
program=$(realpath "$1")
if [ -z "${BELVEDERE_INSIDE:-}" ]; then
    BELVEDERE_INSIDE=1 exec unshare --user --map-root-user --net --mount --pid --fork --kill-child "$0" "$@"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mount -t sysfs none /sys
mount -t tmpfs none /run
ip netns add server
ip link set lo up
for n in 0 1; do
    ip link add "p$n" type veth peer name "s$n" netns server
    ip -n server link set "s$n" up
done
ip -n server addr add 192.168.77.1/24 dev s0
ip netns exec server dnsmasq --no-daemon --port=0 --interface=s0 --bind-interfaces --dhcp-range=192.168.77.50,192.168.77.60,2m --dhcp-leasefile="$work/leases" \
    --dhcp-option=option:dns-server,192.168.77.1,9.9.9.9 --user=root --conf-file=/dev/null >"$work/dnsmasq.log" 2>&1 &
mkdir "$work/state"
"$program" --socket "$work/network.sock" --state "$work/state" --resolv-conf "$work/resolv.conf" \
    --front-panel "$work/none.sock" --port p0 --port p1 >"$work/network.log" 2>&1 &

fail() { echo "NOT SEEN: $1"; cat "$work/network.log" "$work/dnsmasq.log"; ip addr; ip route; exit 1; }
until_seen() { # what, command
    for _ in $(seq 100); do if sh -c "$2" >/dev/null 2>&1; then echo "seen: $1"; return; fi; sleep 0.2; done
    fail "$1"
}
call() { # method, parameters: prints the reply
    python3 - "$work/network.sock" "$1" "$2" <<'P'
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1])
s.sendall(json.dumps({"method": "org.belvedere.Network." + sys.argv[2], "parameters": json.loads(sys.argv[3])}).encode() + b"\0")
data = b""
while not data.endswith(b"\0"): data += s.recv(65536)
print(data[:-1].decode())
P
}
until_seen "p0 has a leased address" "ip -4 addr show p0 | grep -q 'inet 192.168.77.5[0-9]/24\|inet 192.168.77.60/24'"
until_seen "the default route goes through it" "ip route | grep -q 'default via 192.168.77.1 dev p0.*metric 100'"
until_seen "the name servers are those of the lease" "grep -q 'nameserver 9.9.9.9' $work/resolv.conf"
call GetStatus '{}' | tee "$work/status" ; grep -q '"ConnectionStatus":"CONNECTED"' "$work/status" || fail "status"
static='{"configuration":{"Ethernet1":{"ConnectionType":"STATIC_IP","StaticIpConnectionInfo":{"IpAddress":"10.9.8.7","Mask":"255.255.255.0","Dns":["10.9.8.1"],"DefaultGateway":"10.9.8.1"}}}}'
call Try "$static" | grep -q '10.9.8.7/24' || fail "the static address in the answer to Try"
until_seen "p1 has the static address" "ip -4 addr show p1 | grep -q 'inet 10.9.8.7/24'"
until_seen "and the second default route" "ip route | grep -q 'default via 10.9.8.1 dev p1.*metric 200'"
[ -e "$work/state/configuration.json" ] && fail "nothing is kept yet"
call Revert '{}' >/dev/null
until_seen "p1 is back to DHCP after Revert" "! ip -4 addr show p1 | grep -q inet"
call Try "$static" >/dev/null; call Keep '{}' >/dev/null
until_seen "what was kept is durable" "grep -q 10.9.8.7 $work/state/configuration.json"
ip -n server link set s0 down
until_seen "without its cable p0 has no address" "! ip -4 addr show p0 | grep -q inet"
ip -n server link set s0 up
until_seen "with its cable it has one again" "ip -4 addr show p0 | grep -q 'inet 192.168.77'"
call Try '{"configuration":{"Ethernet0":{"ConnectionType":"STATIC_IP"}}}' | grep -q invalid_parameter || fail "a refused configuration"

# Field cases camera-port-first, mtu-1400, option-121 and NtpServers: a service and a time server behind p1.
ip -n server addr add 192.168.78.1/24 dev s1
ip -n server addr add 10.50.0.1/32 dev lo && ip -n server link set lo up
ip netns exec server dnsmasq --no-daemon --interface=s1 --bind-interfaces --except-interface=lo --dhcp-range=192.168.78.50,192.168.78.60,2m \
    --dhcp-leasefile="$work/leases1" --no-resolv --no-hosts --address=/service.example/10.50.0.1 --dhcp-option=option:dns-server,192.168.78.1 \
    --dhcp-option=option:mtu,1400 --dhcp-option=option:classless-static-route,0.0.0.0/0,192.168.78.1,10.51.0.0/16,192.168.78.1 \
    --user=root --conf-file=/dev/null >>"$work/dnsmasq.log" 2>&1 &
ip netns exec server python3 - >>"$work/dnsmasq.log" 2>&1 <<'P' &
import socket, struct, threading, time
tcp = socket.create_server(("10.50.0.1", 8883))
threading.Thread(target=lambda: [tcp.accept()[0].close() for _ in range(1000)], daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("10.50.0.1", 123))
stamp = lambda: struct.pack("!II", int(time.time()) + 2208988800, int(time.time() % 1 * 2**32))
for _ in range(1000):
    data, sender = udp.recvfrom(512)
    received = stamp()
    udp.sendto(struct.pack("!BBbbII4s", 0x24, 1, 6, -20, 0, 0, b"LOCL") + stamp() + data[40:48] + received + stamp(), sender)
P
ip -n server link set s0 down; ip -n server addr flush dev s0; ip -n server link set s0 up
camera=$(tr -d '\n' < "$(dirname "$0")/field-cases/camera-port-first.json" | sed 's/}[[:space:]]*$/,"Ntp":{"NtpServers":["10.50.0.1"]}}/')
call Try "{\"configuration\":$camera,\"service\":{\"host\":\"service.example\",\"port\":8883}}" | tee "$work/status"
grep -q '10.20.0.5/24' "$work/status" || fail "the camera port's address in the answer to Try"
until_seen "the way out is the port that reaches the service" "ip route | grep -q 'default via 192.168.78.1 dev p1.*metric 100'"
until_seen "the other gateway is the spare" "ip route | grep -q 'default via 10.20.0.1 dev p0.*metric 200'"
until_seen "the service is reached" "timeout 5 python3 -c 'import socket; socket.create_connection((\"10.50.0.1\", 8883), 4)'"
until_seen "the classless route is there" "ip route | grep -q '10.51.0.0/16 via 192.168.78.1 dev p1'"
until_seen "the MTU is the lease's" "ip link show p1 | grep -q 'mtu 1400'"
until_seen "the time server has answered" "python3 - $work/network.sock <<'P' | grep -q 'CONNECTED.*10.50.0.1.*10.50.0.1'
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1])
s.sendall(b'{\"method\":\"org.belvedere.Network.GetStatus\"}\0')
print(json.loads(s.recv(65536)[:-1])['parameters'].get('NtpStatus'))
P"
call Revert '{}' >/dev/null
until_seen "without that lease the MTU is the usual one" "ip link show p1 | grep -q 'mtu 1500'"
until_seen "and its routes are gone" "! ip route | grep -q '10.51.0.0/16'"
echo "all was seen"
