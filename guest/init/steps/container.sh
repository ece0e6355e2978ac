# SPDX-License-Identifier: MIT
# Steps that run the OCI bundle of the image by crun. The bundle's own process is rootfs/container/entry; it prints what
# it sees, one `name value` a line, and these steps compare that with the world outside.

bundle=/containers/demo

run_container() {
    # The bundle's root file system lies on the read-only disk; what the container writes goes to memory.
    mkdir -p /run/container/upper /run/container/work /run/container/rootfs
    mount -t overlay -o "lowerdir=$bundle/rootfs,upperdir=/run/container/upper,workdir=/run/container/work" overlay \
        /run/container/rootfs || fail "cannot mount the overlay"
    timeout "$patience" crun --cgroup-manager=cgroupfs run --bundle $bundle demo >/run/container/output 2>&1 || {
        status=$?
        cat /run/container/output
        fail "crun ended with status $status"
    }
    umount /run/container/rootfs
}

# inside NAME: sets $value to what the container printed under that name.
inside() {
    while read -r name value; do
        [ "$name" != "$1" ] || return 0
    done </run/container/output
    fail "the container did not report its $1"
}

step_container() {
    begin container
    run_container
    inside pid
    [ "$value" = 1 ] || fail "its first process has pid $value"
    inside hostname
    [ "$value" = container ] || fail "its host name is $value"
    inside interfaces
    [ "$value" = lo ] || fail "it sees the network devices $value"
    inside namespaces
    ours=" $(namespaces)"
    for kind in pid net mnt uts ipc cgroup; do
        case " $value" in
        *" $kind:["*) ;;
        *) fail "it did not report its $kind namespace" ;;
        esac
        theirs=${value#*"$kind:["}
        case $ours in
        *" $kind:[${theirs%%]*}]"*) fail "it shares our $kind namespace" ;;
        esac
    done
    ok "runs as pid 1 in its own pid, net, mnt, uts, ipc and cgroup namespaces"
}

# After step_container: what its memory limit did.
step_memory_limit() {
    begin memory-limit
    inside memory.max
    [ "$value" = 16777216 ] || fail "its limit is $value bytes, not 16 MiB"
    inside memory_hog_status
    [ "$value" = 137 ] || fail "a process that took 32 MiB ended with status $value, not by SIGKILL"
    inside oom_kill
    [ "$value" = 1 ] || fail "memory.events counts $value kills"
    ok "32 MiB under a limit of 16 MiB: killed, memory.events has oom_kill 1"
}

namespaces() {
    ls -l /proc/self/ns | while read -r line; do
        case $line in
        *' -> '*) printf '%s ' "${line##* -> }" ;;
        esac
    done
}
