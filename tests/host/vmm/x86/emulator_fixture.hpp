// SPDX-License-Identifier: MIT
// The emulator against the processor that runs the test: the same bytes, registers, flags and memory go to
// both.
#pragma once

#include "catch.hpp"
#include "fakes/run_on_cpu.hpp"
#include "guest.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/x86/emulator.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <sys/mman.h>
#include <utility>
#include <vector>

namespace hv::x86 {

using Bytes = std::vector<std::uint8_t>;

inline constexpr std::uint64_t kCode = 0x3000'0000;
inline constexpr std::uint64_t kData =
    0x3001'0000;  ///< two pages: memory for the processor, a device for the emulator
inline constexpr std::uint64_t kStack = 0x3002'0000;  ///< one page of memory for both
inline constexpr std::uint64_t kCodeGpa = 0x10'0000;
inline constexpr std::uint64_t kStackGpa = 0x10'1000;

inline constexpr std::uint64_t kCf = 1, kPf = 4, kAf = 16, kZf = 64, kSf = 128, kDf = 1024, kOf = 2048;
inline constexpr std::uint64_t kStatusFlags = kCf | kPf | kAf | kZf | kSf | kOf;

inline std::uint8_t* map_host(std::uint64_t address, std::size_t size, int protection) {
    void* at = mmap(reinterpret_cast<void*>(address), size, protection,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    REQUIRE(at == reinterpret_cast<void*>(address));
    return static_cast<std::uint8_t*>(at);
}

/// The same machine twice.
class Twins {
public:
    Twins() {
        static std::uint8_t* const pages[] = {map_host(kCode, kPageSize, PROT_READ | PROT_WRITE | PROT_EXEC),
                                              map_host(kData, 2 * kPageSize, PROT_READ | PROT_WRITE),
                                              map_host(kStack, kPageSize, PROT_READ | PROT_WRITE)};
        code_ = pages[0];
        data_ = pages[1];
        stack_ = pages[2];
        guest.vcpu.enter_long_mode(Guest::kRoot);
        guest.map(kCode, kCodeGpa, Guest::kPresent);
        guest.map(kData, RecordingBus::kBase, Guest::kPresent | Guest::kWritable);
        guest.map(kData + kPageSize, RecordingBus::kBase + kPageSize, Guest::kPresent | Guest::kWritable);
        guest.map(kStack, kStackGpa, Guest::kPresent | Guest::kWritable);
    }

    /// Runs `bytes` on both from these registers with random memory and flags; flags in `undefined` may
    /// differ.
    void compare(const Bytes& bytes, const std::uint64_t (&registers)[16], std::uint64_t rflags,
                 std::uint64_t undefined, std::uint64_t operand) {
        for (unsigned i = 0; i < 2 * kPageSize; ++i)
            data_[i] = guest.bus.bytes[i] = static_cast<std::uint8_t>(random());
        for (unsigned i = 0; i < kPageSize; ++i) {
            stack_[i] = static_cast<std::uint8_t>(random());
            guest.memory.at(Gpa{kStackGpa + i}, 1)[0] = std::byte{stack_[i]};
        }
        if (seed_memory) {
            const std::uint64_t seeds[2] = {*seed_memory, seed_high};
            std::memcpy(data_ + (operand - kData), seeds, sizeof seeds);
            std::memcpy(guest.bus.bytes.data() + (operand - kData), seeds, sizeof seeds);
        }
        std::uint64_t real[17];
        std::copy_n(registers, 16, real);
        real[16] = rflags;
        write_code(bytes);
        run_on_cpu(real, code_);

        VcpuRegs& regs = guest.vcpu.regs;
        std::copy_n(registers, 16, regs.gpr);
        regs.rip = kCode;
        regs.rflags = rflags;
        NestedFault fault{};
        fault.gpa = Gpa{RecordingBus::kBase + operand - kData};
        const auto result = operand != 0 ? guest.emulator.emulate_mmio(fault) : guest.emulator.emulate();
        INFO("rflags " << std::hex << rflags << " real " << real[16] << " emulated " << regs.rflags);
        REQUIRE(result == Emulator::Result::done);
        CHECK(guest.events.empty());
        CHECK(regs.rip == kCode + bytes.size());
        for (unsigned i = 0; i < 16; ++i) {
            INFO("register " << i);
            CHECK(regs.gpr[i] == real[i]);
        }
        const std::uint64_t mask = (kStatusFlags | kDf) & ~undefined;
        CHECK((regs.rflags & mask) == (real[16] & mask));
        CHECK(std::memcmp(guest.bus.bytes.data(), data_, 2 * kPageSize) == 0);
        CHECK(std::memcmp(guest.memory.at(Gpa{kStackGpa}, kPageSize), stack_, kPageSize) == 0);
    }

    std::uint64_t random_flags() { return 0x202 | (random() & kStatusFlags); }

    Guest guest;
    std::mt19937_64 random{42};
    /// What the operand's first 16 bytes hold, instead of anything.
    std::optional<std::uint64_t> seed_memory;
    std::uint64_t seed_high{0};

private:
    void write_code(const Bytes& bytes) {
        std::copy(bytes.begin(), bytes.end(), code_);
        for (std::size_t i = 0; i < bytes.size(); ++i)
            guest.memory.at(Gpa{kCodeGpa + i}, 1)[0] = std::byte{bytes[i]};
        const std::uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0};  // JMP [next 8 bytes]
        std::copy_n(jump, sizeof jump, code_ + bytes.size());
        const auto target = reinterpret_cast<std::uint64_t>(&run_on_cpu_return);
        std::memcpy(code_ + bytes.size() + sizeof jump, &target, sizeof target);
    }

    std::uint8_t* code_;
    std::uint8_t* data_;
    std::uint8_t* stack_;
};

/// Runs an instruction with the memory operand [RBX + R9 * 4 + 5], within a page and across its end.
inline void with_memory(Twins& twins, Bytes prefixes, unsigned rex, Bytes opcode, unsigned reg,
                        Bytes immediate, std::uint64_t undefined) {
    Bytes bytes = std::move(prefixes);
    bytes.push_back(static_cast<std::uint8_t>(0x42 | rex));  // REX.X: index R9
    bytes.insert(bytes.end(), opcode.begin(), opcode.end());
    bytes.push_back(static_cast<std::uint8_t>(0x44 | reg << 3));
    bytes.push_back(0x8b);
    bytes.push_back(5);
    bytes.insert(bytes.end(), immediate.begin(), immediate.end());
    CAPTURE(bytes);
    for (unsigned round = 0; round < 12; ++round) {
        std::uint64_t registers[16];
        for (auto& value : registers)
            value = twins.random();
        registers[R9] = twins.random() % 16;
        const std::uint64_t operand = kData + (round % 3 == 2 ? kPageSize - 1 - round % 8 : 0x200 + round);
        registers[RBX] = operand - registers[R9] * 4 - 5;
        registers[RSP] = kStack + 0x800;
        if (round % 2 == 0)
            registers[RCX] &= 0xff;
        twins.compare(bytes, registers, twins.random_flags(), undefined, operand);
    }
}

/// All four operand sizes of an opcode whose byte form is `opcode` & ~1 and whose others are `opcode` | 1.
inline void all_sizes(Twins& twins, Bytes opcode, unsigned reg, std::uint64_t undefined,
                      bool byte_form = true, unsigned immediate_size = 0) {
    const auto immediate = [&](unsigned size) {
        Bytes bytes;
        for (unsigned i = 0; i < std::min(size, immediate_size); ++i)
            bytes.push_back(static_cast<std::uint8_t>(twins.random()));
        return bytes;
    };
    Bytes wide = opcode;
    if (byte_form) {
        with_memory(twins, {}, 0, opcode, reg, immediate(1), undefined);
        wide.back() |= 1;
    }
    with_memory(twins, {0x66}, 0, wide, reg, immediate(2), undefined);
    with_memory(twins, {}, 0, wide, reg, immediate(4), undefined);
    with_memory(twins, {}, 8, wide, reg, immediate(4), undefined);
}

}  // namespace hv::x86
