// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/core/vm_disk.hpp"

using namespace hv;

TEST_CASE("what the configuration says of a disk reaches its device", "[core]") {
    config::DiskConfig config;
    config.name = "base.img";
    config.rate = 100 * kMiB;
    config.iops = 1234;
    config.queues = 3;
    config.limit = 64 * kMiB;
    virtio::VirtioBlk::Options options = VmDisk::device_options(config);
    CHECK(options.queues == 3);
    CHECK(options.bytes_per_second == 100 * kMiB);
    CHECK(options.requests_per_second == 1234);
    CHECK(options.serial == "base.img");
    config.serial = "Disk 1/2";
    options = VmDisk::device_options(config);
    CHECK(options.serial == "Disk 1/2");
    const CowOverlay::Options overlay = VmDisk::overlay_options(config, "web");
    CHECK(overlay.limit == 64 * kMiB);
    CHECK(overlay.user == "web");
    CHECK(overlay.disk == "base.img");
}
