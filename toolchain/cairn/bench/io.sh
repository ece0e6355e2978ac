#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# Process 1 of a guest that measures its disk and network: its kernel's virtio modules, an address, and io.c. The kernel's
# command line gives `own`, an address, and `work`, what io.c is to do.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mkdir -p /sys
mount -t sysfs sys /sys
for module in /modules/*; do insmod $module || echo "FAILED: $module"; done
[ -z "$own" ] || { ip link set eth0 up; ip address add $own/24 dev eth0; }
exec io $work
