# SPDX-License-Identifier: MIT
# Steps on the processors.

# ran_on CPU: whether a process bound to CPU runs there (field 39 of its stat file).
ran_on() {
    # shellcheck disable=SC2016
    [ "$(taskset "$(printf %x $((1 << $1)))" sh -c 'read -r line </proc/self/stat; set -- $line; echo ${39}')" = "$1" ]
}

step_smp() {
    begin smp
    online=$(nproc)
    [ "$online" = "${cpus:-$online}" ] || fail "$online CPUs are online instead of $cpus"
    need_data
    cpu=0
    while [ $cpu -lt "$online" ]; do
        ran_on $cpu || fail "nothing runs on CPU $cpu"
        taskset "$(printf %x $((1 << cpu)))" md5sum /tmp/data >/run/smp.$cpu &
        cpu=$((cpu + 1))
    done
    # All at once, each on its own CPU.
    cpu=0
    while [ $cpu -lt "$online" ]; do
        wait_until "$patience" test -s /run/smp.$cpu || fail "CPU $cpu does not get on"
        read -r sum _ </run/smp.$cpu
        [ "$sum" = "${data_sum%% *}" ] || fail "CPU $cpu computed $sum instead of ${data_sum%% *}"
        cpu=$((cpu + 1))
    done
    ok "$online CPUs online, each computed MD5 $sum"
}

# Each processor but the first is taken away and brought back by INIT and start-up IPIs; what is left computes.
step_hotplug() {
    begin hotplug
    online=$(nproc)
    cpu=1
    while [ $cpu -lt "$online" ]; do
        echo 0 >/sys/devices/system/cpu/cpu$cpu/online || fail "CPU $cpu does not go"
        [ "$(nproc)" = $((online - cpu)) ] || fail "$(nproc) CPUs are left after CPU $cpu went"
        cpu=$((cpu + 1))
    done
    ran_on 0 || fail "nothing runs on CPU 0"
    cpu=1
    while [ $cpu -lt "$online" ]; do
        echo 1 >/sys/devices/system/cpu/cpu$cpu/online || fail "CPU $cpu does not come back"
        ran_on $cpu || fail "nothing runs on CPU $cpu after it came back"
        cpu=$((cpu + 1))
    done
    [ "$(nproc)" = "$online" ] || fail "$(nproc) CPUs are back instead of $online"
    ok "$((online - 1)) CPUs went and came back"
}
