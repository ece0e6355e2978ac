# SPDX-License-Identifier: MIT
# Steps on virtio's smaller devices: entropy, console, sockets.

random_bytes() {
    dd if=/dev/hwrng bs=64 count=1 2>/dev/null | md5sum
}

step_entropy() {
    begin entropy
    read -r source </sys/class/misc/hw_random/rng_current
    [ "$source" = virtio_rng.0 ] || fail "the source is $source"
    first=$(random_bytes)
    second=$(random_bytes)
    [ "$first" != "$second" ] || fail "twice the same bytes: $first"
    ok "$source gives other bytes each time"
}

# Somebody outside has to type ANSWER.
step_console() {
    begin console
    exec 3<>/dev/hvc0 || fail "cannot open /dev/hvc0"
    echo "hvc0: type $1" >&3
    read -r -t "$patience" answer <&3 || fail "nothing typed within $patience s"
    [ "$answer" = "$1" ] || fail "typed was '$1', read was '$answer'"
    exec 3>&-
    ok "hvc0 shows what is written and reads what is typed"
}

# The host's echo on port 7, to several connections at once. Less than Linux' buffer of a socket, for socat reads nothing
# while it waits for room to write.
step_sockets() {
    begin sockets
    size=131072
    head -c $size /dev/urandom >/tmp/sent
    sent=$(md5sum </tmp/sent)
    for connection in 1 2 3; do
        socat -t "$patience" - VSOCK-CONNECT:2:7 </tmp/sent 2>"/run/socat.$connection" | md5sum >"/run/echo.$connection" &
    done
    wait
    for connection in 1 2 3; do
        read -r line <"/run/echo.$connection"
        [ "$line" = "$sent" ] || fail "sent $sent, got $line: $(cat "/run/socat.$connection")"
    done
    ! socat -u OPEN:/dev/null VSOCK-CONNECT:2:8 2>/dev/null || fail "somebody listens on port 8"
    ok "3 times $size bytes to the host and back; nobody on port 8"
}
