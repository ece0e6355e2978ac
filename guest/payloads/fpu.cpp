// SPDX-License-Identifier: MIT
// Every CPU fills x87, XMM and, where offered, YMM, ZMM and opmask registers with values of its own, computes
// for a while, so that others run on the same host CPU in between, and looks whether they are still there.
#include "lib/checks.hpp"
#include "lib/cpu.hpp"
#include "lib/local_apic.hpp"
#include "lib/runtime.hpp"
#include "lib/smp.hpp"

#include <atomic>
#include <cstring>

using namespace payload;

namespace {

constexpr std::uint64_t kRounds = 10;
constexpr std::uint64_t kSpinMs = 20;  // between two looks; longer than others may keep a CPU from us
constexpr std::uint32_t kTimingLeaf = 0x4000'0010;
constexpr std::size_t kAreaSize = 4096;

std::uint64_t components;  ///< XCR0; 0: no XSAVE
std::atomic<unsigned> finished;
std::atomic<unsigned> wrong;
alignas(64) std::uint8_t areas[kMaxCpus][2][kAreaSize];

void enable_state() {
    std::uint64_t cr0 = 0, cr4 = 0;
    asm volatile("movq %%cr0, %0; movq %%cr4, %1" : "=r"(cr0), "=r"(cr4));
    cr0 = (cr0 & ~std::uint64_t{0xc}) | 2;  // EM and TS clear, MP
    cr4 |= 3 << 9;                          // OSFXSR, OSXMMEXCPT
    if (components != 0)
        cr4 |= 1 << 18;
    asm volatile("movq %0, %%cr0; movq %1, %%cr4; fninit" : : "r"(cr0), "r"(cr4));
    if (components != 0)
        asm volatile("xsetbv" : : "c"(0), "a"(static_cast<std::uint32_t>(components)), "d"(0));
}

void load(const std::uint8_t* area) {
    if (components == 0)
        asm volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
    else
        asm volatile("xrstor64 (%0)" : : "r"(area), "a"(~0U), "d"(~0U) : "memory");
}
void save(std::uint8_t* area) {
    if (components == 0)
        asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
    else
        asm volatile("xsave64 (%0)" : : "r"(area), "a"(~0U), "d"(~0U) : "memory");
}

void fill(std::uint8_t* at, std::size_t size, std::uint64_t seed) {
    for (std::size_t i = 0; i < size; ++i) {
        seed = seed * 6'364'136'223'846'793'005 + 1'442'695'040'888'963'407;
        at[i] = static_cast<std::uint8_t>(seed >> 56);
    }
}

/// An area of this CPU's own values, of which each component is in use.
void make_values(std::uint8_t* area, std::uint64_t seed) {
    constexpr std::size_t kX87 = 32, kXmm = 160, kHeader = 512;
    std::memset(area, 0, kAreaSize);
    area[0] = 0x7f;
    area[1] = 0x03;  // FCW as FNINIT leaves it
    area[4] = 0xff;  // all of the stack is in use
    area[24] = 0x80;
    area[25] = 0x1f;  // MXCSR after RESET
    for (unsigned i = 0; i < 8; ++i)
        fill(area + kX87 + 16 * i, 10, seed + i);
    fill(area + kXmm, 256, seed + 8);
    if (components == 0)
        return;
    *reinterpret_cast<std::uint64_t*>(area + kHeader) = components;
    for (unsigned i = 2; i < 8; ++i)
        if ((components >> i & 1) != 0) {
            const CpuidResult part = cpuid(0xd, i);
            CHECK(part.ebx + part.eax <= kAreaSize);
            fill(area + part.ebx, part.eax, seed + 100 * i);
        }
}

bool same(const std::uint8_t* a, const std::uint8_t* b) {
    if (std::memcmp(a + 32, b + 32, 384) != 0)  // x87 and XMM
        return false;
    for (unsigned i = 2; i < 8; ++i)
        if ((components >> i & 1) != 0) {
            const CpuidResult part = cpuid(0xd, i);
            if (std::memcmp(a + part.ebx, b + part.ebx, part.eax) != 0)
                return false;
        }
    return true;
}

void work(unsigned index) {
    enable_state();
    std::uint8_t* mine = areas[index][0];
    std::uint8_t* now = areas[index][1];
    make_values(mine, index + 1);
    const std::uint64_t spin = cpuid(kTimingLeaf).eax * kSpinMs;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
        load(mine);
        for (const std::uint64_t start = rdtsc(); rdtsc() - start < spin;) {
        }
        save(now);
        if (!same(mine, now)) {
            wrong.fetch_add(1);
            break;
        }
    }
    finished.fetch_add(1);
}

/// [sdm3 10.1.1 Processor State After Reset]
void check_reset_state() {
    std::uint16_t control = 0;
    std::uint32_t mxcsr = 0;
    std::uint64_t cr4 = 0;
    asm volatile("movq %%cr4, %0" : "=r"(cr4));
    asm volatile("movq %0, %%cr4" : : "r"(cr4 | 1 << 9 | (components != 0 ? 1 << 18 : 0)));
    asm volatile("fnstcw %0; stmxcsr %1" : "=m"(control), "=m"(mxcsr));
    expect(control == 0x40 && mxcsr == 0x1f80, "FCW 0x%x and MXCSR 0x%x as after RESET", control, mxcsr);
    if (components == 0)
        return;
    std::uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    expect(low == 1 && high == 0, "XCR0 0x%x as after RESET", low);
}

/// Vector and other instructions on device memory, which the hypervisor executes: the register file has to be
/// the guest's own.
void check_device_moves() {
    constexpr std::uint64_t kTestMemory = 0xff00'0000;
    auto* const device = reinterpret_cast<volatile std::uint64_t*>(kTestMemory);
    alignas(32) std::uint64_t memory[4] = {0x1111'2222'3333'4444, 0x5555'6666'7777'8888,
                                           0x9999'aaaa'bbbb'cccc, 0xdddd'eeee'ffff'0123};
    alignas(32) std::uint64_t back[4] = {};
    enable_state();
    asm volatile("movups (%0), %%xmm9; movdqa %%xmm9, (%1); pxor %%xmm9, %%xmm9; movdqu (%1), %%xmm9; "
                 "movups %%xmm9, (%2)"
                 :
                 : "r"(memory), "r"(kTestMemory), "r"(back)
                 : "memory");
    expect(device[0] == memory[0] && device[1] == memory[1] && back[0] == memory[0] && back[1] == memory[1],
           "XMM registers to and from a device: 0x%lx 0x%lx", back[0], back[1]);

    std::uint64_t mmx = 0;
    asm volatile("fninit; fld1; movq (%1), %%mm5; movq %%mm5, 64(%2); movq 8(%2), %%mm3; movq %%mm3, %0; "
                 "emms"
                 : "=m"(mmx)
                 : "r"(memory), "r"(kTestMemory)
                 : "memory");
    expect(device[8] == memory[0] && mmx == memory[1], "MMX registers to and from a device: 0x%lx", mmx);

    if ((components & 4) != 0) {
        asm volatile("vmovdqu (%0), %%ymm11; vmovdqu %%ymm11, 32(%1); vpcmpeqd %%xmm12, %%xmm12, %%xmm12; "
                     "vmovdqu %%ymm11, %%ymm12; vmovdqu 32(%1), %%xmm12; vmovdqu %%ymm12, (%2)"
                     :
                     : "r"(memory), "r"(kTestMemory), "r"(back)
                     : "memory");
        expect(device[6] == memory[2] && device[7] == memory[3] && back[0] == memory[0] &&
                   back[1] == memory[1] && back[2] == 0 && back[3] == 0,
               "YMM registers to and from a device, and a VEX load clears what is above: 0x%lx 0x%lx",
               back[0], back[2]);
        asm volatile("vmovdqu 32(%0), %%ymm13; vmovdqu %%ymm13, (%1)"
                     :
                     : "r"(kTestMemory), "r"(back)
                     : "memory");
        expect(std::memcmp(back, memory, sizeof back) == 0, "a YMM register from a device: 0x%lx", back[3]);
    } else {
        skip("YMM registers and devices", "no AVX");
    }

    std::uint64_t low = 0, high = 0;
    asm volatile("movq %2, %%rax; mulq (%3); movq %%rax, %0; movq %%rdx, %1"
                 : "=m"(low), "=m"(high)
                 : "r"(memory[2]), "r"(kTestMemory)
                 : "rax", "rdx", "memory", "cc");
    std::uint64_t real_low = 0, real_high = 0;
    asm volatile("movq %2, %%rax; mulq %3; movq %%rax, %0; movq %%rdx, %1"
                 : "=m"(real_low), "=m"(real_high)
                 : "r"(memory[2]), "r"(memory[0])
                 : "rax", "rdx", "memory", "cc");
    expect(low == real_low && high == real_high, "MUL by a device: 0x%lx", high);
    std::uint64_t popped = 0;
    asm volatile("movq %%rsp, %%r12; leaq 4096(%1), %%rsp; pushq $-7; callq 1f; 1: popq %%rax; popq %0; "
                 "movq %%r12, %%rsp"
                 : "=&r"(popped)
                 : "r"(kTestMemory)
                 : "rax", "r12", "memory");
    expect(popped == ~6ULL, "a stack in a device: 0x%lx", popped);
}

}  // namespace

int payload_main() {
    if ((cpuid(1).ecx >> 26 & 1) != 0)
        components = cpuid(0xd).eax;
    check_reset_state();
    check_device_moves();
    apic::enable(false);
    const unsigned cpus = cpu_count();
    start_other_cpus(work);
    unsigned own = 0;
    while (apic_id_of(own) != apic::id())
        ++own;
    work(own);
    while (finished.load() != cpus)
        cpu_pause();
    expect(wrong.load() == 0, "%u CPUs keep their registers, XCR0 0x%lx", cpus, components);
    return verdict("fpu");
}
