// SPDX-License-Identifier: MIT
// The instructions that a payload needs from its CPU, each by its name.
#pragma once

#include <cstdint>

namespace payload {

inline std::uint8_t in8(std::uint16_t port) {
    std::uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
inline std::uint16_t in16(std::uint16_t port) {
    std::uint16_t value;
    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
inline std::uint32_t in32(std::uint16_t port) {
    std::uint32_t value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
inline void out8(std::uint16_t port, std::uint8_t value) {
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
inline void out16(std::uint16_t port, std::uint16_t value) {
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
inline void out32(std::uint16_t port, std::uint32_t value) {
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

struct CpuidResult {
    std::uint32_t eax, ebx, ecx, edx;
};
inline CpuidResult cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) {
    CpuidResult r;
    asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
/// Whether VMMCALL, not VMCALL, is this vendor's hypercall.
inline bool is_amd() {
    return cpuid(0).ebx == 0x6874'7541;
}  // "Auth"enticAMD

inline std::uint64_t rdtsc() {
    std::uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return std::uint64_t{high} << 32 | low;
}
inline std::uint64_t rdmsr(std::uint32_t msr) {
    std::uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return std::uint64_t{high} << 32 | low;
}
inline void wrmsr(std::uint32_t msr, std::uint64_t value) {
    asm volatile("wrmsr"
                 :
                 : "c"(msr), "a"(static_cast<std::uint32_t>(value)),
                   "d"(static_cast<std::uint32_t>(value >> 32))
                 : "memory");
}

inline void cpu_pause() {
    asm volatile("pause" : : : "memory");
}
inline void enable_interrupts() {
    asm volatile("sti" : : : "memory");
}
inline void disable_interrupts() {
    asm volatile("cli" : : : "memory");
}
/// Enables interrupts and halts; the next interrupt ends it. Interrupts are disabled on return.
inline void wait_for_interrupt() {
    asm volatile("sti; hlt; cli" : : : "memory");
}
inline void write_cr3(std::uint64_t value) {
    asm volatile("movq %0, %%cr3" : : "r"(value) : "memory");
}

/// A device register or memory, by physical address: exactly one access of T's width.
template <class T>
T read(std::uint64_t address) {
    T value;
    asm volatile("mov (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}
template <class T>
void write(std::uint64_t address, T value) {
    asm volatile("mov %0, (%1)" : : "r"(value), "r"(address) : "memory");
}

}  // namespace payload
