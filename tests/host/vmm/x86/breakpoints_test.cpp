// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/vcpu_backend.hpp"
#include "vmm/x86/breakpoints.hpp"

namespace hv::x86 {
namespace {

/// R/W and LEN of breakpoint `n`, enabled globally.
constexpr std::uint64_t dr7_of(unsigned n, unsigned condition, unsigned length) {
    return std::uint64_t{2} << (2 * n) | std::uint64_t{condition | length << 2} << (16 + 4 * n);
}
constexpr unsigned kExecution = 0, kWrites = 1, kPorts = 2, kAccesses = 3;
constexpr unsigned kOne = 0, kTwo = 1, kEight = 2, kFour = 3;

struct Fixture {
    /// DR6.B0 to B3 after `access`, or ~0 without a #DB.
    template <class Access>
    std::uint64_t hits(Access access) {
        vcpu.state.dr6 = DR6_RESET | DR6_BS | 9;
        breakpoints.begin(vcpu.state);
        access(breakpoints);
        EventQueue events;
        breakpoints.raise(vcpu, events);
        if (events.empty()) {
            CHECK(vcpu.state.dr6 == (DR6_RESET | DR6_BS | 9));
            return ~std::uint64_t{0};
        }
        CHECK((vcpu.state.dr6 & ~DR6_B0_B3) == (DR6_RESET | DR6_BS));
        return vcpu.state.dr6 & DR6_B0_B3;
    }
    std::uint64_t memory(std::uint64_t at, unsigned size, Access access) {
        return hits([&](Breakpoints& b) { b.note_memory(at, size, access); });
    }
    std::uint64_t port(std::uint16_t at, unsigned size) {
        return hits([&](Breakpoints& b) { b.note_port(at, size); });
    }
    fake::FakeVcpuBackend vcpu;
    Breakpoints breakpoints;
};

constexpr std::uint64_t kNone = ~std::uint64_t{0};

}  // namespace

TEST_CASE("data breakpoints meet the bytes of their aligned range", "[x86]") {
    Fixture f;
    f.vcpu.state.dr[1] = 0x1006;  // two bytes
    f.vcpu.state.dr7 = dr7_of(1, kWrites, kTwo);
    CHECK(f.memory(0x1004, 2, Access::write) == kNone);
    CHECK(f.memory(0x1004, 4, Access::write) == 2);
    CHECK(f.memory(0x1007, 1, Access::write) == 2);
    CHECK(f.memory(0x1008, 8, Access::write) == kNone);
    CHECK(f.memory(0x1006, 2, Access::read) == kNone);
    f.vcpu.state.dr7 = dr7_of(1, kAccesses, kEight);  // from 0x1000
    CHECK(f.memory(0x1000, 1, Access::read) == 2);
    CHECK(f.memory(0x1007, 1, Access::write) == 2);
    CHECK(f.memory(0xfff, 1, Access::read) == kNone);
    f.vcpu.state.dr7 = dr7_of(1, kAccesses, kFour);  // from 0x1004
    CHECK(f.memory(0x1003, 1, Access::read) == kNone);
    CHECK(f.memory(0x1000, 8, Access::read) == 2);
    f.vcpu.state.dr7 = dr7_of(1, kExecution, kOne);
    CHECK(f.memory(0x1006, 1, Access::read) == kNone);
    f.vcpu.state.dr7 = dr7_of(1, kAccesses, kTwo) & ~DR7_ENABLES;
    CHECK_FALSE(Breakpoints::enabled(f.vcpu.state.dr7));
    CHECK(f.memory(0x1006, 2, Access::read) == kNone);
}

TEST_CASE("one at the end of the address space does not wrap", "[x86]") {
    Fixture f;
    f.vcpu.state.dr[0] = ~std::uint64_t{0};
    f.vcpu.state.dr7 = dr7_of(0, kAccesses, kEight);
    CHECK(f.memory(~std::uint64_t{0}, 1, Access::read) == 1);
    CHECK(f.memory(0, 8, Access::read) == kNone);
}

TEST_CASE("several breakpoints are reported together", "[x86]") {
    Fixture f;
    f.vcpu.state.dr[0] = f.vcpu.state.dr[3] = 0x2000;
    f.vcpu.state.dr[2] = 0x3000;
    f.vcpu.state.dr7 = dr7_of(0, kWrites, kOne) | dr7_of(3, kAccesses, kFour) | dr7_of(2, kAccesses, kFour);
    CHECK(f.memory(0x2000, 4, Access::write) == 9);
    CHECK(f.memory(0x2000, 4, Access::read) == 8);
    CHECK(f.hits([](Breakpoints& b) {
        b.note_memory(0x2000, 1, Access::read);
        b.note_memory(0x3000, 1, Access::write);
    }) == 12);
}

TEST_CASE("port breakpoints want CR4.DE", "[x86]") {
    Fixture f;
    f.vcpu.state.dr[0] = 0x60;
    f.vcpu.state.dr7 = dr7_of(0, kPorts, kTwo);
    CHECK(f.port(0x60, 1) == kNone);
    f.vcpu.state.cr4 = CR4_DE;
    CHECK(f.port(0x60, 1) == 1);
    CHECK(f.port(0x61, 4) == 1);
    CHECK(f.port(0x5f, 1) == kNone);
    CHECK(f.port(0x62, 2) == kNone);
    CHECK(f.memory(0x60, 1, Access::write) == kNone);
}

}  // namespace hv::x86
