// SPDX-License-Identifier: MIT
// Any instruction with any registers, modes and page tables, all out of the input. Nothing outside the guest
// may be touched, and each call ends.
#include "vmm/x86/guest.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace hv;
    struct Header {
        std::uint64_t gpr[16];
        std::uint64_t rflags, fault_gpa, cr4, dr7;
        std::uint8_t mode, cpl, calls, code[16];
    } header{};
    if (size < sizeof header)
        return 0;
    std::memcpy(&header, data, sizeof header);

    constexpr std::uint64_t kCode = 0x20'0000, kRam = 0x1'0000;
    static auto* const guest = new x86::Guest;
    std::byte* const ram = guest->memory.at(Gpa{0}, kRam);
    for (std::size_t at = 0; at < kRam; ++at)
        ram[at] = std::byte{data[at % size]};
    std::memcpy(guest->memory.at(Gpa{kCode}, sizeof header.code), header.code, sizeof header.code);

    auto& vcpu = guest->vcpu;
    switch (header.mode % 4) {
    case 0: vcpu.enter_real_mode(); break;
    case 1: vcpu.enter_protected_mode(); break;
    case 2:
        vcpu.enter_protected_mode();
        vcpu.state.cr0 |= CR0_PG;
        vcpu.state.cr3 = 0x3000;
        break;
    default:
        vcpu.enter_long_mode(x86::Guest::kRoot);
        std::memset(ram + x86::Guest::kRoot, 0, 0x4000);
        guest->next_table = x86::Guest::kRoot + kPageSize;
        guest->map(kCode, kCode, x86::Guest::kPresent | x86::Guest::kUser);
        std::memcpy(ram + x86::Guest::kRoot + 8, data, 16);  // anything beyond 512 GiB
        break;
    }
    vcpu.state.cr4 ^= header.cr4 & (CR4_PSE | CR4_PAE | CR4_SMEP | CR4_SMAP);
    vcpu.set_cpl(header.cpl & 3);
    if (header.mode % 4 == 0)
        vcpu.state.seg(SegmentName::cs).base = kCode;
    vcpu.regs.rip = header.mode % 4 == 0 ? 0 : kCode;
    vcpu.regs.rflags = (header.rflags & 0x25'7fd5) | RFLAGS_FIXED;
    std::memcpy(vcpu.regs.gpr, header.gpr, sizeof header.gpr);
    vcpu.state.dr7 = header.dr7;
    std::memcpy(vcpu.state.dr, header.gpr, sizeof vcpu.state.dr);
    guest->events.reset();
    guest->bus.port_writes.clear();
    for (unsigned i = 0; i < header.calls % 4U; ++i) {
        NestedFault fault{};
        fault.gpa = Gpa{header.fault_gpa};
        switch ((header.calls / 4U + i) % 4) {
        case 0: static_cast<void>(guest->emulator.emulate_mmio(fault)); break;
        case 1: static_cast<void>(guest->emulator.emulate()); break;
        case 2: static_cast<void>(guest->emulator.emulate_watched()); break;
        default:
            if (const auto fetched = guest->fetcher.fetch(vcpu.state);
                fetched.instruction != nullptr && fetched.instruction->memory) {
                std::uint64_t value = 0;
                const x86::Instruction instruction = *fetched.instruction;
                static_cast<void>(guest->emulator.read_operand(instruction, value));
            }
        }
    }
    return 0;
}
