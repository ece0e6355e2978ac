# SPDX-License-Identifier: MIT
# Steps on disks whose data outlives the VM.

fio_common="--filename=/dev/vdb --direct=1 --ioengine=libaio --rw=randwrite --verify=crc32c --verify_fatal=1 \
    --randseed=7 --thread --minimal --numjobs=2 --cpus_allowed=0,1 --cpus_allowed_policy=split --size=8m --offset_increment=8m"

# Two CPUs write every block of 8 MiB each in random order, some of them followed by a flush, and read them again.
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

# step_discards DISK NAME: of the third 2 MiB, zeroes the second quarter and discards the third. What lies beside them stays.
# BusyBox has a blkdiscard of its own, which cannot zero.
step_discards() {
    begin "$2-discard"
    need_data
    half=524288
    at=$((8 * half))
    dd if=/tmp/data of="/dev/$1" bs=256k seek=16 conv=notrunc,fsync 2>/dev/null || fail "cannot write"
    /sbin/blkdiscard -z -o $((at + half)) -l $half "/dev/$1" || fail "cannot zero"
    /sbin/blkdiscard -o $((at + 2 * half)) -l $half "/dev/$1" || fail "cannot discard"
    echo 3 >/proc/sys/vm/drop_caches
    same_part /tmp/data 0 "/dev/$1" 8 || fail "what was before is gone"
    same_part /dev/zero 0 "/dev/$1" 9 || fail "not zeroes"
    same_part /tmp/data 3 "/dev/$1" 11 || fail "what was behind is gone"
    ok "512 KiB zeroed, 512 KiB discarded"
}

# part_sum FILE N: of its Nth 512 KiB. same_part FILE N OTHER M: whether they have the same.
part_sum() {
    dd if="$1" bs=512k skip="$2" count=1 2>/dev/null | md5sum
}
same_part() {
    [ "$(part_sum "$1" "$2")" = "$(part_sum "$3" "$4")" ]
}

# larger_than DISK SECTORS
larger_than() {
    read -r size <"/sys/block/$1/size"
    [ "$size" -gt "$2" ]
}

# step_grows DISK NAME: waits until the disk is made larger, and goes on as step_writes does.
step_grows() {
    read -r before <"/sys/block/$1/size"
    echo "test: $2: make it larger"
    wait_until "$patience" larger_than "$1" "$before" || fail "it still has $before sectors"
    step_writes "$1" "$2"
}

# step_reads_only DISK NAME: says what the disk holds; it takes no writes.
step_reads_only() {
    begin "$2"
    ! dd if=/bin/busybox of="/dev/$1" bs=4k count=1 conv=notrunc,fsync 2>/dev/null || fail "it took a write"
    sum=$(md5sum <"/dev/$1") || fail "it cannot be read"
    ok "takes no writes, holds ${sum%% *}"
}

# sector_read N, sector_write N: one sector of vdb, from the disk and onto it.
sector_read() {
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vdb of=/dev/null bs=512 skip="$1" count=1 2>/run/dd-said
}
sector_write() {
    dd if=/dev/zero of=/dev/vdb bs=512 seek="$1" count=1 conv=notrunc,fsync 2>/run/dd-said
}

# refused COMMAND...: whether it ends with an I/O error.
refused() {
    ! "$@" && grep -q 'I/O error\|Input/output error' /run/dd-said
}

# Linux reads and writes whole pages, so the sectors beside the bad ones lie in other pages.
step_bad_sector() {
    begin bad-sector
    refused sector_read 4096 || fail "the bad sector can be read: $(cat /run/dd-said)"
    refused sector_write 6144 || fail "the bad sector can be written: $(cat /run/dd-said)"
    for good in 0 4095 4104 6143 6152; do
        sector_write $good && sector_read $good || fail "sector $good: $(cat /run/dd-said)"
    done
    ok "I/O errors on two sectors, none beside them"
}

step_vanish() {
    begin vanish
    sector_write 0 && sector_read 0 || fail "$(cat /run/dd-said)"
    echo "test: vanish: take it"
    wait_until "$patience" refused sector_read 0 || fail "it is still there"
    refused sector_write 0 || fail "it still takes writes"
    ok "I/O errors once it was gone"
}

# Writes records of 4 KiB one behind the other for as long as the machine is on. What was acknowledged is on the disk.
step_records() {
    begin records
    number=0
    while :; do
        number=$((number + 1))
        printf 'record %-4088d\n' $number >/tmp/record
        dd if=/tmp/record of=/dev/vdb bs=4096 seek=$number conv=notrunc,fsync 2>/dev/null || fail "record $number"
        echo "test: records: $number"
    done
}
