# SPDX-License-Identifier: MIT
# What every role uses. Sourced by process 1, which is why `fail` and `finish` may end the whole guest; neither may be
# called from a subshell.

suite='test' # first word of each line of the report; the demo sets its own
step=start   # the step under way
passed=0
patience=90  # seconds that a step may wait for something; generous, since emulated machines can be very slow

begin() {
    step=$1
}

ok() {
    passed=$((passed + 1))
    echo "$suite: $step: ok $*"
}

fail() {
    echo "$suite: $step: FAILED $*"
    leave failed
}

# The end of a role all of whose steps went well.
finish() {
    [ "$passed" = 0 ] || echo "$suite: $role: all $passed steps ok"
    leave well
}

leave() {
    sync
    [ "$end" = poweroff ] || exec busybox init
    [ "$1" = well ] || debug_exit 1
    poweroff -f
    sleep 60
}

# debug_exit CODE: byte CODE to port 0xf4 ends the VM with that code. Without such a port a triple fault tells of the failure.
debug_exit() {
    # shellcheck disable=SC2059
    printf "\\$(printf %03o "$1")" | dd of=/dev/port bs=1 seek=244 conv=notrunc 2>/dev/null
    triple_fault
}

triple_fault() {
    echo triple >/sys/kernel/reboot/type
    reboot -f
    sleep 60
}

# A kernel panic restarts the machine (CONFIG_PANIC_TIMEOUT=-1). In a test that would run the same role again and again;
# made a triple fault, it ends the VM with an error.
panic_ends_vm() {
    echo triple >/sys/kernel/reboot/type
}

# wait_until SECONDS COMMAND...: repeats COMMAND until it succeeds; fails when the time is over. Counts real time, since
# COMMAND may take long itself.
wait_until() {
    read -r now _ </proc/uptime
    deadline=$((${now%.*} + $1))
    shift
    until "$@"; do
        read -r now _ </proc/uptime
        [ "${now%.*}" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

# Test data and its MD5 sum, made on first use: DATA_BLOCKS blocks of 256 KiB.
DATA_BLOCKS=8
need_data() {
    [ -e /tmp/data ] && return
    dd if=/dev/urandom of=/tmp/data bs=256k count=$DATA_BLOCKS 2>/dev/null
    data_sum=$(md5sum </tmp/data)
}
