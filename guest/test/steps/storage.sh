# SPDX-License-Identifier: MIT
# Steps on disks whose data outlives the VM.

fio_common="--filename=/dev/vdb --direct=1 --ioengine=libaio --rw=randwrite --size=16m --verify=crc32c --verify_fatal=1 \
    --randseed=7 --thread --minimal"

# Writes every block of the first 16 MiB in random order, some of them followed by a flush, and reads them again.
step_load() {
    begin load
    # shellcheck disable=SC2086
    report=$(fio --name=load $fio_common --bsrange=4k-64k --bs_unaligned=0 --iodepth=8 --fdatasync=32 --do_verify=1 2>&1) ||
        fail "$report"
    ok "16 MiB written at random and verified"
}

# After step_load of an earlier run: all of it is there.
step_load_again() {
    begin load-again
    # shellcheck disable=SC2086
    report=$(fio --name=load $fio_common --bsrange=4k-64k --iodepth=8 --verify_only 2>&1) || fail "$report"
    ok "16 MiB of the run before verified"
}

# step_writes DISK NAME: fills the disk's first and last 2 MiB, and reads them again.
step_writes() {
    begin "$2"
    need_data
    read -r size <"/sys/block/$1/size"
    read -r block <"/sys/block/$1/queue/logical_block_size"
    for place in 0 $((size / 512 - DATA_BLOCKS)); do
        dd if=/tmp/data of="/dev/$1" bs=256k seek=$place conv=notrunc,fsync 2>/dev/null || fail "cannot write at $place"
        echo 3 >/proc/sys/vm/drop_caches
        sum=$(dd if="/dev/$1" bs=256k skip=$place count=$DATA_BLOCKS 2>/dev/null | md5sum)
        [ "$sum" = "$data_sum" ] || fail "wrote $data_sum at $place, read $sum"
    done
    ok "$((size / 2)) KiB in blocks of $block, both ends hold ${data_sum%% *}"
}

# step_reads_only DISK NAME: says what the disk holds; it takes no writes.
step_reads_only() {
    begin "$2"
    ! dd if=/bin/busybox of="/dev/$1" bs=4k count=1 conv=notrunc,fsync 2>/dev/null || fail "it took a write"
    sum=$(md5sum <"/dev/$1") || fail "it cannot be read"
    ok "takes no writes, holds ${sum%% *}"
}
