// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/x86/hypercalls.hpp"

#include <vector>

namespace hv::x86 {
namespace {

struct Fixture final : InterruptBus {
    Fixture() {
        vcpu.enter_long_mode(0);
        cpu.vcpus = 80;
    }
    void deliver(const InterruptMessage& message) override { sent.push_back(message); }
    void broadcast_eoi(std::uint8_t) override {}
    std::int64_t call(std::uint32_t number) {
        vcpu.regs.gpr[RAX] = number;
        return hypercall(cpu, vcpu, *this);
    }
    std::int64_t call(std::uint64_t low, std::uint64_t high, std::uint64_t first, std::uint64_t icr) {
        sent.clear();
        vcpu.regs.gpr[RBX] = low;
        vcpu.regs.gpr[RCX] = high;
        vcpu.regs.gpr[RDX] = first;
        vcpu.regs.gpr[RSI] = icr;
        return call(kSendIpi);
    }
    [[nodiscard]] std::vector<std::uint32_t> destinations() const {
        std::vector<std::uint32_t> all;
        for (const InterruptMessage& message : sent)
            all.push_back(message.destination);
        return all;
    }
    GuestCpu cpu;
    fake::FakeVcpuBackend vcpu;
    std::vector<InterruptMessage> sent;
};

using Ids = std::vector<std::uint32_t>;

}  // namespace

TEST_CASE("one hypercall interrupts all CPUs of a bitmap, of those there are", "[x86]") {
    Fixture f;
    CHECK(f.call(0x8000'0000'0000'0003, 1, 2, 0x40fd) == 4);
    CHECK(f.destinations() == Ids{2, 3, 65, 66});
    for (const InterruptMessage& message : f.sent) {
        CHECK(message.vector == 0xfd);
        CHECK(message.delivery_mode == DeliveryMode::fixed);
        CHECK(message.destination_mode == DestinationMode::physical);
        CHECK(message.trigger_mode == TriggerMode::edge);
    }
    CHECK(f.call(~std::uint64_t{0}, ~std::uint64_t{0}, 79, 0x400) == 1);
    CHECK(f.destinations() == Ids{79});
    CHECK(f.sent.back().delivery_mode == DeliveryMode::nmi);
    CHECK(f.call(0xffff'ffff, 0, 0xffff'ffff, 0) == 0);
    CHECK(f.call(0, 0, 0, 0xfd) == 0);
}

TEST_CASE("outside 64-bit mode the bitmap has 64 bits", "[x86]") {
    Fixture f;
    f.vcpu.enter_protected_mode();
    CHECK(f.call(0xffff'ffff'0000'0001, 0xffff'ffff'0000'0001, 0, 0xfd) == 2);
    CHECK(f.destinations() == Ids{0, 32});
}

TEST_CASE("other calls are unknown, and none is there outside the kernel", "[x86]") {
    Fixture f;
    CHECK(f.call(kSendIpi + 1) == -1000);
    f.vcpu.state.seg(SegmentName::ss).attributes |= 3 << 5;
    CHECK(f.call(kSendIpi + 1) == -1);
    CHECK(f.call(1, 0, 0, 0xfd) == -1);
    CHECK(f.sent.empty());
}

TEST_CASE("only plain interrupts and NMIs are sent so", "[x86]") {
    Fixture f;
    for (const std::uint64_t icr : {0x8fdU, 0x4'00fdU, 0xc'00fdU, 0x5fdU, 0x6fdU, 0x2fdU, 0x00fU})
        CHECK(f.call(1, 0, 0, icr) == -22);
    CHECK(f.sent.empty());
}

}  // namespace hv::x86
