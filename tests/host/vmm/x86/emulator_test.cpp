// SPDX-License-Identifier: MIT
// The emulator against the processor that runs the test: the same bytes, registers, flags and memory go to
// both.
#include "catch.hpp"
#include "guest.hpp"
#include "vmm/base/bytes.hpp"
#include "vmm/x86/alu.hpp"
#include "vmm/x86/emulator.hpp"

#include <optional>
#include <random>
#include <sys/mman.h>

extern "C" {
/// Loads `registers` (16 general ones, then RFLAGS), jumps to `code`, which jumps to run_on_cpu_return, and
/// saves them.
void run_on_cpu(std::uint64_t* registers, const void* code);
void run_on_cpu_return();
}

asm(R"(
    .pushsection .bss
    .balign 8
run_on_cpu_stack:     .skip 8
run_on_cpu_registers: .skip 8
run_on_cpu_code:      .skip 8
run_on_cpu_rax:       .skip 8
    .popsection
    .text
    .globl run_on_cpu, run_on_cpu_return
run_on_cpu:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, run_on_cpu_stack(%rip)
    mov %rdi, run_on_cpu_registers(%rip)
    mov %rsi, run_on_cpu_code(%rip)
    mov %rdi, %rax
    pushq 128(%rax)
    popfq
    mov 8(%rax), %rcx
    mov 16(%rax), %rdx
    mov 24(%rax), %rbx
    mov 32(%rax), %rsp
    mov 40(%rax), %rbp
    mov 48(%rax), %rsi
    mov 56(%rax), %rdi
    mov 64(%rax), %r8
    mov 72(%rax), %r9
    mov 80(%rax), %r10
    mov 88(%rax), %r11
    mov 96(%rax), %r12
    mov 104(%rax), %r13
    mov 112(%rax), %r14
    mov 120(%rax), %r15
    mov 0(%rax), %rax
    jmp *run_on_cpu_code(%rip)
run_on_cpu_return:
    mov %rax, run_on_cpu_rax(%rip)
    mov run_on_cpu_registers(%rip), %rax
    mov %rcx, 8(%rax)
    mov %rdx, 16(%rax)
    mov %rbx, 24(%rax)
    mov %rsp, 32(%rax)
    mov %rbp, 40(%rax)
    mov %rsi, 48(%rax)
    mov %rdi, 56(%rax)
    mov %r8, 64(%rax)
    mov %r9, 72(%rax)
    mov %r10, 80(%rax)
    mov %r11, 88(%rax)
    mov %r12, 96(%rax)
    mov %r13, 104(%rax)
    mov %r14, 112(%rax)
    mov %r15, 120(%rax)
    mov run_on_cpu_stack(%rip), %rsp
    pushfq
    popq 128(%rax)
    mov run_on_cpu_rax(%rip), %rcx
    mov %rcx, 0(%rax)
    cld
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
)");

namespace hv::x86 {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t kCode = 0x3000'0000;
constexpr std::uint64_t kData =
    0x3001'0000;  ///< two pages: memory for the processor, a device for the emulator
constexpr std::uint64_t kStack = 0x3002'0000;  ///< one page of memory for both
constexpr std::uint64_t kCodeGpa = 0x10'0000;
constexpr std::uint64_t kStackGpa = 0x10'1000;

constexpr std::uint64_t kCf = 1, kPf = 4, kAf = 16, kZf = 64, kSf = 128, kDf = 1024, kOf = 2048;
constexpr std::uint64_t kStatusFlags = kCf | kPf | kAf | kZf | kSf | kOf;

std::uint8_t* map_host(std::uint64_t address, std::size_t size, int protection) {
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
void with_memory(Twins& twins, Bytes prefixes, unsigned rex, Bytes opcode, unsigned reg, Bytes immediate,
                 std::uint64_t undefined) {
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
void all_sizes(Twins& twins, Bytes opcode, unsigned reg, std::uint64_t undefined, bool byte_form = true,
               unsigned immediate_size = 0) {
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

}  // namespace

TEST_CASE("moves with memory match the processor", "[x86]") {
    Twins twins;
    for (unsigned reg : {0u, 1u, 2u, 6u, 7u}) {
        all_sizes(twins, {0x88}, reg, 0);
        all_sizes(twins, {0x8a}, reg, 0);
        all_sizes(twins, {0x0f, 0xb6}, reg, 0, false);
        all_sizes(twins, {0x0f, 0xb7}, reg, 0, false);
        all_sizes(twins, {0x0f, 0xbe}, reg, 0, false);
        all_sizes(twins, {0x0f, 0xbf}, reg, 0, false);
        with_memory(twins, {}, 8, {0x63}, reg, {}, 0);
        all_sizes(twins, {0x0f, 0x38, 0xf0}, reg, 0, false);
        all_sizes(twins, {0x0f, 0x38, 0xf1}, reg, 0, false);
        with_memory(twins, {}, 8, {0x0f, 0xc3}, reg, {}, 0);  // MOVNTI
    }
    all_sizes(twins, {0xc6}, 0, 0, true, 4);
    for (std::uint8_t cc = 0; cc < 16; ++cc) {
        with_memory(twins, {}, 0, {0x0f, static_cast<std::uint8_t>(0x90 + cc)}, 0, {}, 0);
        all_sizes(twins, {0x0f, static_cast<std::uint8_t>(0x40 + cc)}, 2, 0, false);
    }
}

TEST_CASE("byte registers 4 to 7 without REX are AH to BH", "[x86]") {
    Twins twins;
    for (std::uint8_t opcode : {0x88, 0x8a, 0x00, 0x02, 0x86})
        for (std::uint8_t reg = 4; reg < 8; ++reg) {
            std::uint64_t registers[16];
            for (auto& value : registers)
                value = twins.random();
            registers[RSI] = kData + 0x20;
            registers[RSP] = kStack + 0x800;
            twins.compare({opcode, static_cast<std::uint8_t>(reg << 3 | RSI)}, registers,
                          twins.random_flags(), 0, kData + 0x20);
        }
}

TEST_CASE("arithmetic with memory matches the processor, flags included", "[x86]") {
    Twins twins;
    for (unsigned operation = 0; operation < 8; ++operation) {
        const bool logic = operation == 1 || operation == 4 || operation == 6;
        const std::uint64_t undefined = logic ? kAf : 0;
        const auto base = static_cast<std::uint8_t>(operation * 8);
        all_sizes(twins, {base}, 1, undefined);
        all_sizes(twins, {static_cast<std::uint8_t>(base + 2)}, 2, undefined);
        all_sizes(twins, {0x80}, operation, undefined, true, 4);
        with_memory(twins, {}, 8, {0x83}, operation, {0x9c}, undefined);
        with_memory(twins, {0x66}, 0, {0x83}, operation, {0x7f}, undefined);
    }
    all_sizes(twins, {0x84}, 6, kAf);
    all_sizes(twins, {0xf6}, 0, kAf, true, 4);
    for (unsigned reg : {2u, 3u})
        all_sizes(twins, {0xf6}, reg, 0);
    for (unsigned reg : {0u, 1u})
        all_sizes(twins, {0xfe}, reg, 0);
}

TEST_CASE("locked operations match the processor", "[x86]") {
    Twins twins;
    for (Bytes opcode :
         {Bytes{0x01}, Bytes{0x29}, Bytes{0x31}, Bytes{0x0f, 0xc1}, Bytes{0x0f, 0xb1}, Bytes{0x87}})
        with_memory(twins, {0xf0}, 8, opcode, 2, {}, kAf);
}

TEST_CASE("shifts and rotations of memory match the processor", "[x86]") {
    Twins twins;
    for (unsigned operation : {0u, 1u, 2u, 3u, 4u, 5u, 7u}) {
        const std::uint64_t af = operation >= 4 ? kAf : 0;
        all_sizes(twins, {0xd0}, operation, af);
        for (std::uint8_t count : {0, 1, 3, 7}) {
            const std::uint64_t undefined = af | (count == 1 ? 0 : kOf);
            with_memory(twins, {}, 0, {0xc0}, operation, {count}, undefined);
            with_memory(twins, {0x66}, 0, {0xc1}, operation, {count}, undefined);
            with_memory(twins, {}, 0, {0xc1}, operation, {count}, undefined);
            with_memory(twins, {}, 8, {0xc1}, operation, {count}, undefined);
        }
        all_sizes(twins, {0xd2}, operation, af | kOf | (operation >= 4 ? kCf : 0));
    }
}

TEST_CASE("bit operations match the processor, also far from their operand", "[x86]") {
    Twins twins;
    const std::uint64_t undefined = kOf | kSf | kAf | kPf;
    for (unsigned reg = 4; reg < 8; ++reg)
        for (unsigned rex : {0u, 8u})
            with_memory(twins, {}, rex, {0x0f, 0xba}, reg, {37}, undefined);
    for (std::uint8_t opcode : {0xa3, 0xab, 0xb3, 0xbb})
        for (const Bytes& prefix : {Bytes{}, Bytes{0x66}, Bytes{0x48}})
            for (int index : {0, 5, 63, 64, 200, -1, -77, -300}) {
                Bytes bytes = prefix;
                bytes.insert(bytes.end(), {0x0f, opcode, 0x13});  // [RBX], EDX
                std::uint64_t registers[16];
                for (auto& value : registers)
                    value = twins.random();
                registers[RBX] = kData + 0x300;
                registers[RSP] = kStack + 0x800;
                registers[RDX] = static_cast<std::uint64_t>(static_cast<std::int64_t>(index));
                CAPTURE(bytes, index);
                twins.compare(bytes, registers, twins.random_flags(), undefined, kData + 0x300);
            }
}

TEST_CASE("exchanges match the processor", "[x86]") {
    Twins twins;
    for (unsigned reg : {0u, 2u, 6u}) {
        all_sizes(twins, {0x86}, reg, 0);
        all_sizes(twins, {0x0f, 0xc0}, reg, 0);
        all_sizes(twins, {0x0f, 0xb0}, reg, 0);
    }
    with_memory(twins, {0xf0}, 0, {0x0f, 0xc7}, 1, {}, 0);
}

TEST_CASE("a compare-and-exchange that succeeds stores", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0xf0, 0x0f, 0xb1, 0x0b});  // LOCK CMPXCHG [RBX], ECX
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RBX] = kData;
    regs.gpr[RAX] = 0x1234;
    regs.gpr[RCX] = 0x5678;
    store(guest.bus.bytes.data(), std::uint32_t{0x1234});
    NestedFault fault{};
    fault.gpa = Gpa{RecordingBus::kBase};
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::done);
    CHECK((regs.rflags & kZf) != 0);
    CHECK(load<std::uint32_t>(guest.bus.bytes.data()) == 0x5678);
}

TEST_CASE("pushes, pops and direct addresses match the processor", "[x86]") {
    Twins twins;
    for (const Bytes& prefix : {Bytes{}, Bytes{0x66}}) {
        with_memory(twins, prefix, 0, {0xff}, 6, {}, 0);
        with_memory(twins, prefix, 0, {0x8f}, 0, {}, 0);
    }
    for (std::uint8_t opcode : {0xa0, 0xa1, 0xa2, 0xa3}) {
        std::uint64_t registers[16]{};
        registers[RAX] = twins.random();
        registers[RSP] = kStack + 0x800;
        const std::uint64_t at = kData + 0x48;
        Bytes bytes{opcode};
        for (unsigned i = 0; i < 8; ++i)
            bytes.push_back(static_cast<std::uint8_t>(at >> (8 * i)));
        twins.compare(bytes, registers, twins.random_flags(), 0, at);
    }
}

TEST_CASE("string instructions match the processor in both directions", "[x86]") {
    Twins twins;
    for (std::uint8_t opcode : {0xa4, 0xa6, 0xaa, 0xac, 0xae})
        for (const Bytes& prefix : {Bytes{}, Bytes{0xf3}, Bytes{0xf2}, Bytes{0x67}, Bytes{0xf3, 0x67}})
            for (unsigned size = 0; size < 4; ++size)
                for (const std::uint64_t direction : {std::uint64_t{0}, kDf})
                    for (const std::uint64_t count : {0u, 1u, 7u}) {
                        Bytes bytes = prefix;
                        if (size == 1)
                            bytes.push_back(0x66);
                        if (size == 3)
                            bytes.push_back(0x48);
                        bytes.push_back(static_cast<std::uint8_t>(opcode + (size != 0)));
                        std::uint64_t registers[16];
                        for (auto& value : registers)
                            value = twins.random();
                        registers[RSP] = kStack + 0x800;
                        registers[RSI] = kData + 0x400;
                        registers[RDI] = kData + kPageSize - 5;
                        registers[RCX] = count;
                        CAPTURE(bytes, direction, count);
                        twins.compare(bytes, registers, twins.random_flags() | direction, 0, 0);
                    }
}

TEST_CASE("a move on a device within one page walks no page tables", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0x89, 0x88, 0xb0, 0x00, 0x00, 0x00});  // MOV [RAX + 0xb0], ECX
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RAX] = 0x7000'0000;  // not mapped at all: the exit knows better
    regs.gpr[RCX] = 0x1234'5678;
    NestedFault fault{};
    fault.gpa = Gpa{RecordingBus::kBase + 0xb0};
    fault.write = true;
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::done);
    CHECK(guest.bus.accesses == 1);
    CHECK(guest.bus.last_size == 4);
    CHECK(load<std::uint32_t>(&guest.bus.bytes[0xb0]) == 0x1234'5678);
    SECTION("but not if the exit was caused by the walk") {
        regs.rip = kCode;
        fault.during_walk = true;
        CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::exception);
        CHECK(guest.vcpu.state.cr2 == 0x7000'00b0);
    }
    SECTION("and not if the exit's address is not the operand's") {
        regs.rip = kCode;
        fault.gpa += 4;
        CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::exception);
    }
}

TEST_CASE("a move that was decoded before is not used for what came in its place", "[x86]") {
    Guest guest;
    fake::FakeVcpuBackend& vcpu = guest.vcpu;
    constexpr std::uint64_t kOtherCodeGpa = 0x10'1000;
    constexpr std::uint64_t kOtherRoot = 0x20'0000;
    vcpu.enter_long_mode(Guest::kRoot);
    guest.map(kCode, kCodeGpa, Guest::kPresent);
    guest.poke(kCodeGpa, {0x64, 0x89, 0x08, 0x48});       // MOV FS:[RAX], ECX; in 32-bit code as well
    guest.poke(kOtherCodeGpa, {0x64, 0x88, 0x08, 0x90});  // MOV FS:[RAX], CL
    const auto stores = [&] {
        NestedFault fault{};
        fault.gpa = Gpa{RecordingBus::kBase + 0xb0};
        fault.write = true;
        guest.bus.last_size = 0;
        vcpu.regs.rip = kCode;
        vcpu.regs.gpr[RAX] = 0xb0;
        static_cast<void>(guest.emulator.emulate_mmio(fault));
        return guest.bus.last_size;
    };
    REQUIRE(stores() == 4);
    REQUIRE(stores() == 4);
    SECTION("other bytes") {
        guest.poke(kCodeGpa, {0x64, 0x66, 0x89, 0x08});
        CHECK(stores() == 2);
    }
    SECTION("another page at its address") {
        guest.map(kCode, kOtherCodeGpa, Guest::kPresent);
        CHECK(stores() == 1);
    }
    SECTION("no page at its address") {
        guest.map(kCode, 0, 0);
        CHECK(stores() == 0);
        CHECK(vcpu.state.cr2 == kCode);
    }
    SECTION("another address space") {
        std::memcpy(guest.memory.at(Gpa{kOtherRoot}, kPageSize),
                    guest.memory.at(Gpa{Guest::kRoot}, kPageSize), kPageSize);
        vcpu.state.cr3 = kOtherRoot;
        CHECK(stores() == 4);
        guest.memory.store(Gpa{kOtherRoot + (kCode >> 39) * 8}, std::uint64_t{0}).value();
        CHECK(stores() == 0);
    }
    SECTION("less privilege") {
        vcpu.set_cpl(3);  // the code is not open to users
        CHECK(stores() == 0);
    }
    SECTION("SMEP") {
        guest.map(kCode, kCodeGpa, Guest::kPresent | Guest::kUser);
        CHECK(stores() == 4);
        vcpu.state.cr4 |= CR4_SMEP;
        CHECK(stores() == 0);
    }
    SECTION("another segment base: the operand is not what the exit names") {
        vcpu.state.seg(SegmentName::fs).base = 8;
        CHECK(stores() == 0);
    }
    SECTION("another mode") {
        vcpu.enter_protected_mode();
        vcpu.state.seg(SegmentName::cs).base = kCodeGpa - kCode;
        CHECK(stores() == 4);
        vcpu.state.seg(SegmentName::cs).base = kOtherCodeGpa - kCode;
        CHECK(stores() == 1);
        vcpu.state.seg(SegmentName::cs).base = kCodeGpa - kCode;
        vcpu.state.seg(SegmentName::cs).attributes = 0x9b;  // 16-bit code: MOV FS:[BX+SI], CX
        vcpu.regs.gpr[RBX] = 0xb0;
        vcpu.regs.gpr[RSI] = 0;
        CHECK(stores() == 2);
    }
}

TEST_CASE("a device that nobody provides reads as all ones", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0x8b, 0x00});
    guest.vcpu.regs.rip = kCode;
    NestedFault fault{};
    fault.gpa = Gpa{0xfed4'0000};
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::done);
    CHECK(guest.vcpu.regs.gpr[RAX] == 0xffff'ffff);
}

TEST_CASE("faults are those of the processor and leave registers alone", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    const auto outcome = [&] {
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        CHECK(regs.rip == kCode);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        return guest.vcpu.injected.back();
    };
    SECTION("a store to a read-only page") {
        guest.map(kData, RecordingBus::kBase, Guest::kPresent);
        guest.poke(kCodeGpa, {0x89, 0x03});
        regs.gpr[RBX] = kData + 8;
        const Event event = outcome();
        CHECK(event.vector == EXCEPTION_PF);
        CHECK(event.error_code == (PAGE_FAULT_P | PAGE_FAULT_WR));
        CHECK(guest.vcpu.state.cr2 == kData + 8);
    }
    SECTION("the second page of an operand is missing, and nothing was written") {
        guest.map(kData + kPageSize, 0, 0);
        guest.poke(kCodeGpa, {0x89, 0x03});
        regs.gpr[RBX] = kData + kPageSize - 2;
        regs.gpr[RAX] = ~0ull;
        const Event event = outcome();
        CHECK(event.vector == EXCEPTION_PF);
        CHECK(event.error_code == PAGE_FAULT_WR);
        CHECK(guest.vcpu.state.cr2 == kData + kPageSize);
        CHECK(guest.bus.accesses == 0);
    }
    SECTION("a non-canonical address") {
        guest.poke(kCodeGpa, {0x8b, 0x03});
        regs.gpr[RBX] = 0x8000'0000'0000;
        CHECK(outcome().vector == EXCEPTION_GP);
    }
    SECTION("a non-canonical address through the stack segment") {
        guest.poke(kCodeGpa, {0x8b, 0x45, 0x00});
        regs.gpr[RBP] = 0x8000'0000'0000;
        CHECK(outcome().vector == EXCEPTION_SS);
    }
    SECTION("a jump to a non-canonical address") {
        guest.poke(kCodeGpa, {0xff, 0x23});
        regs.gpr[RBX] = kData;
        store(guest.bus.bytes.data(), std::uint64_t{0x8000'0000'0000});
        CHECK(outcome().vector == EXCEPTION_GP);
    }
}

TEST_CASE("segments limit what 32-bit and 16-bit code reaches", "[x86]") {
    Guest guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = 0x2000;
    SECTION("beyond a limit") {
        guest.vcpu.enter_protected_mode();
        guest.vcpu.state.seg(SegmentName::ds).limit = 0xfff;
        guest.poke(0x2000, {0x8b, 0x03});
        regs.gpr[RBX] = 0xffd;
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        regs.gpr[RBX] = 0xffc;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
    }
    SECTION("real mode pushes no error code") {
        guest.vcpu.enter_real_mode();
        guest.poke(0x2000, {0x66, 0x8b, 0x07});  // MOV EAX, [BX]
        regs.gpr[RBX] = 0xfffd;
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_GP);
        CHECK_FALSE(guest.vcpu.injected.back().has_error_code);
    }
    SECTION("a data segment with a base") {
        guest.vcpu.enter_protected_mode();
        guest.vcpu.state.seg(SegmentName::ds).base = RecordingBus::kBase;
        guest.poke(0x2000, {0xc6, 0x03, 0x5a});
        regs.gpr[RBX] = 0x10;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(guest.bus.bytes[0x10] == 0x5a);
    }
}

TEST_CASE("string I/O moves between ports and memory, in batches", "[x86]") {
    Guest guest;
    guest.vcpu.enter_protected_mode();
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = 0x2000;
    regs.gpr[RDX] = 0x1f0;
    SECTION("OUTS") {
        guest.poke(0x2000, {0xf3, 0x6e});
        guest.poke(0x3000, {'a', 'b', 'c'});
        regs.gpr[RSI] = 0x3000;
        regs.gpr[RCX] = 3;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        REQUIRE(guest.bus.port_writes.size() == 3);
        CHECK(guest.bus.port_writes[2].value == 'c');
        CHECK(guest.bus.port_writes[2].port == 0x1f0);
        CHECK(regs.gpr[RSI] == 0x3003);
        CHECK(regs.rip == 0x2002);
    }
    SECTION("INS gives way after a batch and goes on") {
        guest.poke(0x2000, {0xf3, 0x66, 0x6d});
        regs.gpr[RDI] = 0x4000;
        regs.gpr[RCX] = 300;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == 0x2000);
        CHECK(regs.gpr[RCX] == 44);
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == 0x2003);
        CHECK(regs.gpr[RCX] == 0);
        CHECK(guest.memory.load<std::uint16_t>(Gpa{0x4000 + 2 * 299}).value() == 0x11 + 299);
    }
    SECTION("a single-stepping guest gets its trap after each iteration") {
        guest.poke(0x2000, {0xf3, 0x6e});
        regs.gpr[RSI] = 0x3000;
        regs.gpr[RCX] = 2;
        regs.rflags = 0x102;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.gpr[RCX] == 1);
        CHECK(guest.events.exception_pending());
        CHECK((guest.vcpu.state.dr6 & DR6_BS) != 0);
    }
}

TEST_CASE("double shifts, bit counts and multiplications match the processor", "[x86]") {
    Twins twins;
    const std::uint64_t shifted = kAf | kOf;
    for (std::uint8_t opcode : {0xa4, 0xac})
        for (std::uint8_t count : {0, 1, 5, 15})
            for (const unsigned rex : {0u, 8u}) {
                const std::uint64_t undefined = count == 1 ? kAf : shifted;
                with_memory(twins, {}, rex, {0x0f, opcode}, 2, {count}, undefined);
                if (rex == 0)
                    with_memory(twins, {0x66}, rex, {0x0f, opcode}, 2, {count}, undefined);
            }
    for (std::uint8_t opcode : {0xa5, 0xad})
        for (const unsigned rex : {0u, 8u})
            with_memory(twins, {}, rex, {0x0f, opcode}, 2, {}, shifted);
    for (std::uint8_t opcode : {0xbc, 0xbd})
        all_sizes(twins, {0x0f, opcode}, 2, kCf | kPf | kAf | kSf | kOf, false);
    for (std::uint8_t opcode : {0xb8, 0xbc, 0xbd})
        for (const unsigned rex : {0u, 8u})
            with_memory(twins, {0xf3}, rex, {0x0f, opcode}, 2, {},
                        opcode == 0xb8 ? 0 : kPf | kAf | kSf | kOf);
    const std::uint64_t product = kPf | kAf | kZf | kSf;
    for (unsigned reg : {4u, 5u})
        all_sizes(twins, {0xf6}, reg, product);
    all_sizes(twins, {0x0f, 0xaf}, 2, product, false);
    all_sizes(twins, {0x69}, 2, product, false, 4);
    with_memory(twins, {}, 8, {0x6b}, 2, {0x9c}, product);
}

TEST_CASE("divisions match the processor where they do not fault", "[x86]") {
    Twins twins;
    for (const bool is_signed : {false, true})
        for (const unsigned size : {1u, 2u, 4u, 8u})
            for (unsigned round = 0; round < 200; ++round) {
                // The divisor comes from memory, which compare() fills: a quotient that fits is made by a
                // dividend whose high half is smaller than half of the smallest divisor, which is odd luck
                // for random bytes; so the dividend is small, or the sign of a small number.
                std::uint64_t registers[16]{};
                registers[RBX] = kData + 0x40;
                registers[RSP] = kStack + 0x800;
                const bool negative = is_signed && round % 2 == 1;
                const std::uint64_t small = twins.random() >> (65 - size * 8);
                registers[RAX] = negative ? 0 - small : small;
                registers[RDX] = negative ? ~0ull : 0;
                if (size == 1)
                    registers[RAX] &= 0xffff;
                twins.seed_memory = twins.random() | std::uint64_t{2} << (round % (size * 8 - 1));
                if (cut(*twins.seed_memory, size) == 0 || cut(*twins.seed_memory, size) == cut(~0ull, size))
                    continue;  // #DE
                Bytes bytes;
                if (size == 2)
                    bytes.push_back(0x66);
                if (size == 8)
                    bytes.push_back(0x48);
                bytes.push_back(size == 1 ? 0xf6 : 0xf7);
                bytes.push_back(is_signed ? 0x3b : 0x33);
                CAPTURE(bytes, registers[RAX], *twins.seed_memory);
                twins.compare(bytes, registers, twins.random_flags(), kStatusFlags, kData + 0x40);
            }
}

TEST_CASE("divisions that overflow raise #DE", "[x86]") {
    CHECK_FALSE(divide(Signedness::without, 0, 5, 0, 4));
    CHECK_FALSE(divide(Signedness::without, 7, 0, 7, 4));
    CHECK_FALSE(divide(Signedness::with, 0xffff'ffff, 0x8000'0000, 0xffff'ffff, 4));
    CHECK_FALSE(divide(Signedness::with, 0, 0x80, 1, 1));
    CHECK(divide(Signedness::with, 0xff, 0x80, 1, 1)->quotient == 0x80);
    Twins twins;
    Guest& guest = twins.guest;
    guest.poke(kCodeGpa, {0xf7, 0x33});  // DIV dword [RBX]
    guest.vcpu.regs.rip = kCode;
    guest.vcpu.regs.gpr[RBX] = kData;
    NestedFault fault{};
    fault.gpa = Gpa{RecordingBus::kBase};
    CHECK(guest.emulator.emulate_mmio(fault) == Emulator::Result::exception);
    CHECK(guest.vcpu.regs.rip == kCode);
    CHECK((guest.vcpu.regs.rflags & RFLAGS_RF) != 0);
    CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
    CHECK(guest.vcpu.injected.back().vector == EXCEPTION_DE);
    CHECK_FALSE(guest.vcpu.injected.back().has_error_code);
}

TEST_CASE("a compare-and-exchange of 16 bytes matches the processor", "[x86]") {
    Twins twins;
    for (const bool equal : {false, true}) {
        std::uint64_t registers[16];
        for (auto& value : registers)
            value = twins.random();
        registers[RSP] = kStack + 0x800;
        registers[RSI] = kData + 0x40;
        twins.seed_memory = registers[RAX];
        twins.seed_high = equal ? registers[RDX] : registers[RDX] + 1;
        twins.compare({0xf0, 0x48, 0x0f, 0xc7, 0x0e}, registers, twins.random_flags(), 0, kData + 0x40);
    }
}

TEST_CASE("instructions that reach memory by the stack pointer match the processor", "[x86]") {
    Twins twins;
    for (const Bytes& bytes : {Bytes{0x50}, Bytes{0x54}, Bytes{0x41, 0x57}, Bytes{0x66, 0x53},
                               Bytes{0x6a, 0xf9}, Bytes{0x68, 1, 2, 3, 0x84}, Bytes{0x66, 0x68, 1, 0x92},
                               Bytes{0x58}, Bytes{0x5c}, Bytes{0x66, 0x5b}, Bytes{0x41, 0x5f}, Bytes{0xc9},
                               Bytes{0xc8, 0x38, 0x02, 0x00}, Bytes{0xff, 0xf1}, Bytes{0x8f, 0xc1}})
        for (unsigned round = 0; round < 4; ++round) {
            std::uint64_t registers[16];
            for (auto& value : registers)
                value = twins.random();
            registers[RSP] = kStack + 0x800;
            registers[RBP] = kStack + 0x900;
            CAPTURE(bytes);
            twins.compare(bytes, registers, twins.random_flags(), 0, 0);
        }
}

TEST_CASE("near calls and returns use the stack, in a device as well", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RSP] = kData + 0x100;
    SECTION("CALL") {
        guest.poke(kCodeGpa, {0xe8, 0x10, 0, 0, 0});
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == kCode + 0x15);
        CHECK(regs.gpr[RSP] == kData + 0xf8);
        CHECK(load<std::uint64_t>(&guest.bus.bytes[0xf8]) == kCode + 5);
    }
    SECTION("RET 8") {
        guest.poke(kCodeGpa, {0xc2, 0x08, 0x00});
        store(&guest.bus.bytes[0x100], kCode + 0x40);
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rip == kCode + 0x40);
        CHECK(regs.gpr[RSP] == kData + 0x110);
    }
    SECTION("PUSHF hides RF") {
        guest.poke(kCodeGpa, {0x9c});
        regs.rflags = 0x1'0246;
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(load<std::uint64_t>(&guest.bus.bytes[0xf8]) == 0x246);
    }
    SECTION("POPF at CPL 3 changes neither IF nor IOPL") {
        guest.map(kData, RecordingBus::kBase, Guest::kPresent | Guest::kWritable | Guest::kUser);
        guest.map(kCode, kCodeGpa, Guest::kPresent | Guest::kUser);
        guest.vcpu.set_cpl(3);
        guest.poke(kCodeGpa, {0x9d});
        regs.rflags = 0x202;
        store(&guest.bus.bytes[0x100], std::uint64_t{0x3cd5});
        CHECK(guest.emulator.emulate() == Emulator::Result::done);
        CHECK(regs.rflags == 0xed7);
    }
}

TEST_CASE("vector registers move to and from devices", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    guest.vcpu.state.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    guest.vcpu.xcr0_value = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    for (unsigned i = 0; i < 64; ++i)
        guest.bus.bytes[i] = static_cast<std::uint8_t>(i + 1);
    const auto device = [&](unsigned offset) { return load<std::uint64_t>(&guest.bus.bytes[offset]); };
    regs.gpr[RBX] = kData;
    auto& vectors = guest.vcpu.vectors;
    for (auto& vector : vectors)
        vector = {{0xa0, 0xa1, 0xa2, 0xa3}};
    const auto run = [&](std::initializer_list<int> bytes) {
        guest.poke(kCodeGpa, bytes);
        regs.rip = kCode;
        NestedFault fault{};
        fault.gpa = Gpa{RecordingBus::kBase + (regs.gpr[RBX] - kData)};
        return guest.emulator.emulate_mmio(fault);
    };
    const auto holds = [&](unsigned index, std::uint64_t a, std::uint64_t b, std::uint64_t c,
                           std::uint64_t d) {
        const auto& part = vectors[index].part;
        return part[0] == a && part[1] == b && part[2] == c && part[3] == d;
    };
    constexpr auto kDone = Emulator::Result::done;
    SECTION("loads") {
        CHECK(run({0xf3, 0x0f, 0x6f, 0x0b}) == kDone);  // MOVDQU XMM1: the upper half stays
        CHECK(holds(1, device(0), device(8), 0xa2, 0xa3));
        CHECK(run({0xc5, 0xfa, 0x6f, 0x13}) == kDone);  // VMOVDQU XMM2: it goes
        CHECK(holds(2, device(0), device(8), 0, 0));
        CHECK(run({0xc5, 0x7e, 0x6f, 0x03}) == kDone);  // VMOVDQU YMM8
        CHECK(holds(8, device(0), device(8), device(16), device(24)));
        CHECK(run({0xf3, 0x0f, 0x10, 0x1b}) == kDone);  // MOVSS
        CHECK(holds(3, device(0) & 0xffff'ffff, 0, 0xa2, 0xa3));
        CHECK(run({0x66, 0x48, 0x0f, 0x6e, 0x23}) == kDone);  // MOVQ by REX.W
        CHECK(holds(4, device(0), 0, 0xa2, 0xa3));
        CHECK(run({0x0f, 0x16, 0x2b}) == kDone);  // MOVHPS
        CHECK(holds(5, 0xa0, device(0), 0xa2, 0xa3));
        CHECK(run({0x0f, 0x6f, 0x33}) == kDone);  // MOVQ MM6
        CHECK(holds(16 + 6, device(0), 0xa1, 0xa2, 0xa3));
    }
    SECTION("stores") {
        CHECK(run({0x66, 0x0f, 0x7f, 0x0b}) == kDone);  // MOVDQA
        CHECK((device(0) == 0xa0 && device(8) == 0xa1));
        CHECK(device(16) == 0x1817'1615'1413'1211);
        CHECK(run({0xc5, 0xfd, 0xe7, 0x0b}) == kDone);  // VMOVNTDQ YMM1
        CHECK((device(16) == 0xa2 && device(24) == 0xa3));
        regs.gpr[RBX] = kData + 32;
        CHECK(run({0x66, 0x0f, 0xd6, 0x0b}) == kDone);  // MOVQ
        CHECK((device(32) == 0xa0 && device(40) == 0x302f'2e2d'2c2b'2a29));
    }
    SECTION("across pages") {
        regs.gpr[RBX] = kData + kPageSize - 5;
        CHECK(run({0x0f, 0x11, 0x0b}) == kDone);  // MOVUPS
        CHECK(device(kPageSize - 5) == 0xa0);
        CHECK(device(kPageSize + 3) == 0xa1);
    }
    SECTION("aligned forms fault on what is not") {
        regs.gpr[RBX] = kData + 8;
        CHECK(run({0x66, 0x0f, 0x6f, 0x0b}) == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_GP);
        CHECK(guest.bus.accesses == 0);
    }
    SECTION("what is switched off is undefined") {
        guest.vcpu.xcr0_value = XCR0_X87 | XCR0_SSE;
        CHECK(run({0xc5, 0xfa, 0x6f, 0x13}) == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_UD);
    }
}

TEST_CASE("segment registers and descriptor tables load from devices", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    VcpuRegs& regs = guest.vcpu.regs;
    regs.rip = kCode;
    regs.gpr[RBX] = kData;
    auto& state = guest.vcpu.state;
    state.gdtr = {kStack, 0x2f};
    guest.memory.store(Gpa{kStackGpa + 0x18}, std::uint64_t{0x00cf'9200'0000'ffff}).value();  // data
    guest.memory.store(Gpa{kStackGpa + 0x20}, std::uint64_t{0x00af'9a00'0000'ffff}).value();  // 64-bit code
    guest.memory.store(Gpa{kStackGpa + 0x28}, std::uint64_t{0x00cf'1200'0000'ffff}).value();  // not present
    const auto run = [&](std::initializer_list<int> bytes) {
        guest.poke(kCodeGpa, bytes);
        NestedFault fault{};
        fault.gpa = Gpa{RecordingBus::kBase};
        return guest.emulator.emulate_mmio(fault);
    };
    const auto faults = [&](std::uint16_t selector, std::uint8_t vector, std::uint32_t code) {
        store(guest.bus.bytes.data(), selector);
        CHECK(run({0x8e, 0x1b}) == Emulator::Result::exception);  // MOV DS, [RBX]
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == vector);
        CHECK(guest.vcpu.injected.back().error_code == code);
    };
    SECTION("MOV DS") {
        store(guest.bus.bytes.data(), std::uint16_t{0x18});
        CHECK(run({0x8e, 0x1b}) == Emulator::Result::done);
        CHECK(state.seg(SegmentName::ds).selector == 0x18);
        CHECK(state.seg(SegmentName::ds).limit == 0xffff'ffff);
        CHECK(state.seg(SegmentName::ds).attributes == 0xc93);
        CHECK(guest.memory.load<std::uint8_t>(Gpa{kStackGpa + 0x1d}).value() == 0x93);  // accessed
    }
    SECTION("what the checks refuse") {
        faults(0x28, EXCEPTION_NP, 0x28);
        faults(0x33, EXCEPTION_GP, 0x30);  // beyond the limit
        faults(0x1c, EXCEPTION_GP, 0x1c);  // no LDT
        faults(0x1b, EXCEPTION_GP, 0x18);  // RPL 3 above DPL 0
    }
    SECTION("MOV SS of null in 64-bit mode needs RPL = CPL") {
        store(guest.bus.bytes.data(), std::uint16_t{0});
        CHECK(run({0x8e, 0x13}) == Emulator::Result::done);
        CHECK_FALSE(state.seg(SegmentName::ss).present());
        store(guest.bus.bytes.data(), std::uint16_t{3});
        regs.rip = kCode;
        CHECK(run({0x8e, 0x13}) == Emulator::Result::exception);
    }
    SECTION("MOV from a segment register stores two bytes") {
        store(guest.bus.bytes.data(), ~0u);
        CHECK(run({0x48, 0x8c, 0x1b}) == Emulator::Result::done);
        CHECK(load<std::uint32_t>(guest.bus.bytes.data()) == 0xffff'0010);
    }
    SECTION("JMP FAR") {
        store(guest.bus.bytes.data(), std::uint64_t{kCode + 0x80});
        store(&guest.bus.bytes[8], std::uint16_t{0x20});
        CHECK(run({0x48, 0xff, 0x2b}) == Emulator::Result::done);
        CHECK(regs.rip == kCode + 0x80);
        CHECK(state.seg(SegmentName::cs).selector == 0x20);
        CHECK(state.seg(SegmentName::cs).attributes == 0xa9b);
    }
    SECTION("LGDT and SIDT") {
        store(guest.bus.bytes.data(), std::uint16_t{0xf234});
        store(&guest.bus.bytes[2], std::uint64_t{0x1234'5678'abcd});
        CHECK(run({0x0f, 0x01, 0x13}) == Emulator::Result::done);
        CHECK(state.gdtr.limit == 0xf234);
        CHECK(state.gdtr.base == 0x1234'5678'abcd);
        state.idtr = {0xffff'8000'0000'1000, 0xfff};
        regs.rip = kCode;
        CHECK(run({0x0f, 0x01, 0x0b}) == Emulator::Result::done);
        CHECK(load<std::uint16_t>(guest.bus.bytes.data()) == 0xfff);
        CHECK(load<std::uint64_t>(&guest.bus.bytes[2]) == 0xffff'8000'0000'1000);
    }
}

TEST_CASE("LOCK where it does not belong is undefined", "[x86]") {
    Twins twins;
    Guest& guest = twins.guest;
    guest.vcpu.regs.rip = kCode;
    guest.vcpu.regs.gpr[RBX] = kData;
    for (const auto& bytes :
         {std::initializer_list<int>{0xf0, 0x89, 0x03}, {0xf0, 0x39, 0x03}, {0xf0, 0x03, 0x03}}) {
        guest.poke(kCodeGpa, bytes);
        CHECK(guest.emulator.emulate() == Emulator::Result::exception);
        CHECK(guest.events.deliver(guest.vcpu) == EventQueue::Delivery::delivered);
        CHECK(guest.vcpu.injected.back().vector == EXCEPTION_UD);
        CHECK(guest.bus.accesses == 0);
    }
}

TEST_CASE("what is not emulated is named by its bytes", "[x86]") {
    Guest guest;
    guest.vcpu.enter_protected_mode();
    guest.vcpu.regs.rip = 0x2000;
    guest.poke(0x2000, {0x0f, 0x58, 0x03});  // ADDPS
    CHECK(guest.emulator.emulate() == Emulator::Result::unsupported);
    REQUIRE(guest.emulator.bytes().size() >= 3);
    CHECK(guest.emulator.bytes()[1] == 0x58);
}

}  // namespace hv::x86
