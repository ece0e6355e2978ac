// SPDX-License-Identifier: MIT
#include "vmm/core/allocation_failures.hpp"
#include "vmm/core/vm_fixture.hpp"

#include <new>

using namespace hv;
using namespace hv::test;

namespace {

std::uint64_t allocations_left = kUnlimited;

bool may_allocate() {
    if (allocations_left == kUnlimited)
        return true;
    if (allocations_left == 0)
        return false;
    --allocations_left;
    return true;
}

}  // namespace

void hv::test::limit_allocations(std::uint64_t count) {
    allocations_left = count;
}

void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return may_allocate() ? ::operator new(size) : nullptr;
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return may_allocate() ? ::operator new[](size) : nullptr;
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return may_allocate() ? ::operator new(size, alignment) : nullptr;
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
    return may_allocate() ? ::operator new[](size, alignment) : nullptr;
}

TEST_CASE("a VM is built with its RAM mapped, its kernel loaded and its devices on their buses", "[core]") {
    VmFixture f;
    const auto& config = f.add("a");
    const VmServices services = f.services();
    VmFixture::step = config::memory_needed(config) + 77 * kKiB;
    auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug}).value();
    CHECK(vm->stopped());
    CHECK(vm->vcpus().size() == 2);
    CHECK(vm->disks().size() == 2);
    CHECK(vm->nics().size() == 1);
    CHECK(vm->devices().count() == 4);
    CHECK(vm->devices().console() != nullptr);
    CHECK(vm->devices().balloon() != nullptr);
    std::uint64_t mapped = 0;
    for (const auto& [gpa, range] : static_cast<const FakeAddressSpace&>(vm->address_space()).mapped) {
        mapped += range.second;
        CHECK(machine::hva(range.first) == vm->memory().at(Gpa{gpa}, 1));
    }
    CHECK(mapped == config.memory);
    CHECK(vm->memory().load<std::uint32_t>(Gpa{0x100'0000}).value() == 0x6564'6f63);  // "code"
    CHECK(vm->vcpus()[0]->backend().regs.rip == 0x100'0000);
    CHECK(vm->overhead_bytes() == 77 * kKiB);
    vm.reset();
    CHECK(f.stops == 0);
}

TEST_CASE("a NIC has the MTU and the queues of its configuration", "[core]") {
    VmFixture f;
    auto& config = f.add("a");
    config.nics[0].mtu = 9000;
    config.nics[0].queues = 3;
    const VmServices services = f.services();
    auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug}).value();
    IoDevice& ecam = vm->board().pci().ecam();
    constexpr std::uint64_t kNetworkDevice = 0x1041'1af4;
    std::uint64_t nic = 0;
    while (nic < 32 << 15 && ecam.read(nic, 4) != kNetworkDevice)
        nic += 1 << 15;
    REQUIRE(nic < 32 << 15);
    // The window into BARs [virtio1.2 4.1.4.9 PCI configuration access capability]
    std::uint64_t window = nic + ecam.read(nic + pci::kCapabilities, 1);
    while (ecam.read(window, 1) != pci::kCapabilityVendor || ecam.read(window + 3, 1) != 5)
        window = nic + ecam.read(window + 1, 1);
    constexpr std::uint64_t kPairsAndMtu = 8;
    ecam.write(window + 4, 1, 0);
    ecam.write(window + 8, 4, virtio::VirtioPciTransport::kDeviceOffset + kPairsAndMtu);
    ecam.write(window + 12, 4, 4);
    CHECK(ecam.read(window + 16, 4) == (9000u << 16 | 3));
}

TEST_CASE("a VM that cannot be built leaves nothing behind, whichever allocation fails", "[core]") {
    VmFixture f;
    const auto& config = f.add("a");
    const VmServices services = f.services();
    unsigned failures = 0;
    SECTION("objects") {
        for (std::uint64_t allowed = 0;; ++allowed) {
            REQUIRE(allowed < 10'000);
            limit_allocations(allowed);
            auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug});
            limit_allocations(kUnlimited);
            if (vm)
                break;
            ++failures;
            CHECK(vm.error() == Error::no_memory);
            CHECK(f.frames.outstanding() == 0);
        }
    }
    SECTION("frames") {
        for (std::uint64_t allowed = 0;; ++allowed) {
            REQUIRE(allowed < 10'000);
            f.frames.limit(allowed);
            auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug});
            f.frames.limit(kUnlimited);
            if (vm)
                break;
            ++failures;
            CHECK(vm.error() == Error::no_memory);
            CHECK(f.frames.outstanding() == 0);
        }
    }
    CHECK(failures > 3);
    CHECK(f.frames.outstanding() == 0);
    // The switch has kept no port of the failed ones.
    auto again = Vm::create(config, services, {f.consoles.serial, f.consoles.debug});
    CHECK(again.has_value());
}

TEST_CASE("a VM has the small devices that it asks for", "[core]") {
    VmFixture f;
    auto& config = f.add("a");
    config.console = false;
    config.balloon = false;
    config.vsock = 0;
    VmServices services = f.services();
    const auto devices = [&] {
        auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug}).value();
        CHECK(vm->devices().console() == nullptr);
        CHECK(vm->devices().balloon() == nullptr);
        return vm->devices().count();
    };
    CHECK(devices() == 1);
    services.entropy = nullptr;
    CHECK(devices() == 0);
    services.entropy = &f.entropy;
    config.rng = false;
    CHECK(devices() == 0);
}

TEST_CASE("a VM is not built from what is not there", "[core]") {
    VmFixture f;
    auto& config = f.add("a");
    SECTION("kernel") {
        config.kernel = "nothing";
    }
    SECTION("initrd") {
        config.initrd = "nothing";
    }
    SECTION("disk") {
        config.disks[0].name = "nothing";
    }
    SECTION("physical disk") {
        config.disks[0].source = config::DiskSource::disk;
    }
    const VmServices services = f.services();
    const auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug});
    REQUIRE_FALSE(vm.has_value());
    CHECK(vm.error() == Error::not_found);
    CHECK(f.frames.outstanding() == 0);
}

TEST_CASE("a VM stops when all its vCPUs have parked, and says so once", "[core]") {
    VmFixture f;
    const auto& config = f.add("a");
    const VmServices services = f.services();
    auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug}).value();
    vm->start();
    CHECK_FALSE(vm->stopped());
    for (unsigned i = 0; i < 4; ++i)
        f.loop.turn();
    CHECK(vm->vcpus()[1]->state() == SchedEntity::State::blocked);  // waits for its start-up IPI
    vm->request_stop(VmStop::power_off, 0);
    vm->request_stop(VmStop::crashed, 7);
    CHECK_FALSE(vm->stopped());
    for (unsigned i = 0; i < 6; ++i)
        f.loop.turn();
    CHECK(vm->stopped());
    CHECK(vm->stop_reason() == VmStop::power_off);
    CHECK(vm->exit_code() == 0);
    CHECK(f.stops == 1);

    SECTION("a late wake-up changes nothing") {
        vm->vcpus()[0]->poke();
        vm->vcpus()[1]->poke();
        for (unsigned i = 0; i < 6; ++i)
            f.loop.turn();
        CHECK(f.stops == 1);
        CHECK(vm->stopped());
    }
    SECTION("nor does one that is still queued when the VM goes away") {
        vm->vcpus()[0]->poke();
        CHECK(vm->vcpus()[0]->state() == SchedEntity::State::queued);
        vm.reset();
        f.loop.turn();
        CHECK(f.frames.outstanding() == 0);
    }
    SECTION("nor does one that is still queued when the VM starts anew") {
        vm->memory().fill(Gpa{0x100'0000}, std::byte{0}, 4).value();
        vm->vcpus()[0]->poke();
        REQUIRE(vm->reset().has_value());
        CHECK(vm->memory().load<std::uint32_t>(Gpa{0x100'0000}).value() == 0x6564'6f63);
        CHECK(vm->vcpus()[0]->backend().regs.rip == 0x100'0000);
        vm->start();
        for (unsigned i = 0; i < 6; ++i)
            f.loop.turn();
        CHECK(f.extension.backends[0]->runs > 0);
        CHECK_FALSE(vm->stopped());
        vm->request_stop(VmStop::by_host, 0);
        for (unsigned i = 0; i < 6; ++i)
            f.loop.turn();
        CHECK(vm->stopped());
        CHECK(f.stops == 2);
    }
}

TEST_CASE("a reset keeps what is on disks and forgets what is in RAM", "[core]") {
    VmFixture f;
    const auto& config = f.add("a");
    const VmServices services = f.services();
    auto vm = Vm::create(config, services, {f.consoles.serial, f.consoles.debug}).value();
    vm->memory().store(Gpa{0x80'0000}, std::uint32_t{0x1234}).value();
    CHECK(vm->reset().has_value());
    CHECK(vm->memory().load<std::uint32_t>(Gpa{0x80'0000}).value() == 0);
    CHECK(vm->stopped());
}
