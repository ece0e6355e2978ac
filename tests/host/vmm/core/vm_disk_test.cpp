// SPDX-License-Identifier: MIT
#include "vmm/core/vm_disk.hpp"
#include "vmm/core/vm_fixture.hpp"

using namespace hv;
using namespace hv::test;

TEST_CASE("a VM's disk is what the configuration says", "[core]") {
    VmFixture f;
    f.add("a").disks[0].queues = 3;
    const VmServices services = f.services();
    const auto vm = Vm::create(f.config.vms[0], services, {f.consoles.serial, f.consoles.debug}).value();
    CHECK(vm->disks()[0]->device().queue_count() == 3);
    CHECK(vm->disks()[0]->overlay_bytes() == 0);
    CHECK(vm->disks()[1]->device().queue_count() == 1);
}

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
