# SPDX-License-Identifier: MIT
# Steps on the virtio disks: vda holds the root file system, vdb is an empty writable disk.

# sectors_read DISK: sets $sectors to what the kernel has read from the device so far.
sectors_read() {
    read -r _ _ sectors _ <"/sys/block/$1/stat"
}

# check_region FIRST: writes the data to the device from block FIRST (of 256 KiB) on, and reads it back.
check_region() {
    dd if=/tmp/data of=/dev/vdb bs=256k seek="$1" conv=notrunc,fsync 2>/dev/null || fail "writing /dev/vdb failed"
    sync
    echo 3 >/proc/sys/vm/drop_caches
    sectors_read vdb
    before=$sectors
    sum=$(dd if=/dev/vdb bs=256k skip="$1" count=$DATA_BLOCKS 2>/dev/null | md5sum)
    sectors_read vdb
    [ "$sum" = "$data_sum" ] || fail "wrote $data_sum at block $1, read $sum"
    [ $((sectors - before)) -ge $((DATA_BLOCKS * 512)) ] ||
        fail "only $((sectors - before)) of $((DATA_BLOCKS * 512)) sectors came from the device"
}

step_disk() {
    begin disk
    [ -b /dev/vdb ] || fail "there is no /dev/vdb"
    need_data
    check_region 0
    ok "$((DATA_BLOCKS / 4)) MiB written, synced, caches dropped, read again: MD5 ${data_sum%% *}"
}

step_disk_end() {
    begin disk-end
    read -r size </sys/block/vdb/size
    check_region $((size / 512 - DATA_BLOCKS))
    ! dd if=/tmp/data of=/dev/vdb bs=512 seek="$size" count=1 conv=notrunc,fsync 2>/dev/null ||
        fail "a sector behind the end can be written"
    ok "the last $((DATA_BLOCKS / 4)) MiB of $((size / 2)) KiB hold data, nothing can be written behind them"
}

step_disk_read_only() {
    begin disk-read-only
    read -r read_only </sys/block/vda/ro
    [ "$read_only" = 1 ] || fail "/dev/vda is writable"
    ! dd if=/tmp/data of=/dev/vda bs=512 count=1 conv=notrunc,fsync 2>/dev/null || fail "/dev/vda took a write"
    ok "/dev/vda takes no writes"
}
