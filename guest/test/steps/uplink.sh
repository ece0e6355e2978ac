# SPDX-License-Identifier: MIT
# Steps on a network with a way out: a host at 10.0.2.2 that serves HTTP, and reaches this guest at 10.0.2.15.

# fetch PATH FILE: a text from the host. (busybox' own wget looks up the port of `http`, which a static C library cannot.)
fetch() {
    printf 'GET /%s HTTP/1.0\r\n\r\n' "$1" | timeout 60 nc 10.0.2.2 "$(parameter port 80)" >/run/answer 2>&1
    head -n 1 /run/answer | grep -q ' 200 ' && sed "1,/^$(printf '\r')\$/d" /run/answer >"$2"
}

step_fetch() {
    begin fetch
    ip link set lo up
    ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up || fail "there is no network device"
    wait_until "$patience" fetch data /tmp/fetched || fail "$(head -n 1 /run/answer)"
    read -r sum _ <<EOF
$(md5sum /tmp/fetched)
EOF
    ok "$(wc -c </tmp/fetched) bytes, MD5 $sum"
}

# The host fetches /data here, and has /done/NAME once it is content.
step_serve() {
    begin serve
    mkdir /tmp/www
    dd if=/dev/urandom of=/tmp/www/data bs=64k count=16 2>/dev/null
    read -r sum _ <<EOF
$(md5sum /tmp/www/data)
EOF
    httpd -p 80 -h /tmp/www || fail "httpd does not start"
    echo "test: serve: MD5 $sum"
    wait_until "$patience" fetch "done/$(parameter name none)" /dev/null || fail "$(head -n 1 /run/answer)"
    ok "the host has it"
}
