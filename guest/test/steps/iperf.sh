# SPDX-License-Identifier: MIT
# Steps of two VMs with iperf3, after step_address: one serves, the other one sends and then receives.

step_iperf_server() {
    begin iperf-server
    for way in in out; do
        iperf3 --server --one-off >/run/iperf 2>&1 || fail "$way: $(cat /run/iperf)"
    done
    ok "served both ways"
}

run_iperf() {
    iperf3 --client "$peer" --bytes 4M "$@" >/run/iperf 2>&1
}

step_iperf() {
    begin iperf
    for way in '' --reverse; do
        # shellcheck disable=SC2086
        wait_until "$patience" run_iperf $way || fail "${way:-forward}: $(cat /run/iperf)"
        echo "test: iperf: ${way:-forward} $(grep receiver /run/iperf)"
    done
    ok "4 MiB each way"
}
