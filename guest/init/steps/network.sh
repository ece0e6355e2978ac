# SPDX-License-Identifier: MIT
# Steps of two VMs on one switch. Both start at any time; each waits for the other.

port_echo=5001  # answers with the MD5 sum of what it is sent
port_done=5002  # a connection says that the peer has finished

step_address() {
    begin address
    [ -e /sys/class/net/eth0 ] || fail "there is no network device"
    [ -n "$ip" ] || fail "the kernel command line has no cairn.ip"
    ip link set lo up
    # Before the link is up, so that a peer that sees us can use them.
    nc -ll -p $port_echo -e md5sum &
    nc -ll -p $port_done -e touch /run/peer-done &
    ip addr add "$ip" dev eth0 || fail "cannot give eth0 the address $ip"
    ip link set eth0 up || fail "cannot bring eth0 up"
    read -r mac </sys/class/net/eth0/address
    ok "eth0 $mac has $ip"
}

peer_answers() {
    ping -c 1 -W 1 "$peer" >/dev/null 2>&1
}

step_ping() {
    begin ping
    [ -n "$peer" ] || fail "the kernel command line has no cairn.peer"
    wait_until "$patience" peer_answers || fail "no answer from $peer within $patience s"
    report=$(ping -c 3 -i 0.1 -W 10 "$peer") || fail "$peer fell silent: $report"
    case $report in
    *' 3 packets received, 0% packet loss'*) ok "$peer answers 3 of 3, ${report##*round-trip }" ;;
    *) fail "$report" ;;
    esac
}

send_data() {
    answer=$(timeout "$patience" nc "$peer" $port_echo </tmp/data 2>/dev/null)
}

step_tcp() {
    begin tcp
    need_data
    wait_until "$patience" send_data || fail "cannot send to $peer within $patience s"
    [ "$answer" = "$data_sum" ] || fail "sent $data_sum, but $peer received ${answer:-nothing}"
    ok "$((DATA_BLOCKS / 4)) MiB to $peer, both ends have MD5 ${data_sum%% *}"
}

say_done() {
    # Once the peer has finished, it may be gone and need not be told.
    [ -e /run/peer-done ] || timeout 10 nc "$peer" $port_done </dev/null 2>/dev/null
}

# Neither VM may end while the other still needs it.
step_peer() {
    begin peer
    timeout 10 nc "$peer" $port_done </dev/null 2>/dev/null || wait_until "$patience" say_done ||
        fail "cannot tell $peer that all is done here"
    wait_until "$patience" test -e /run/peer-done || fail "$peer has not finished within $patience s"
    sleep 1 # the last packets of the connection that said so
    ok "$peer has finished too"
}
