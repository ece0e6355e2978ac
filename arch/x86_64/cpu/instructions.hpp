// SPDX-License-Identifier: MIT
// Privileged and special instructions, one function each. Names and operands as in the SDM.
#pragma once

#include "vmm/base/address.hpp"

#include <cstdint>

namespace hv::cpu {

inline std::uint64_t rdmsr(std::uint32_t index) {
    std::uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return std::uint64_t{high} << 32 | low;
}
inline void wrmsr(std::uint32_t index, std::uint64_t value) {
    asm volatile("wrmsr" ::"c"(index), "a"(static_cast<std::uint32_t>(value)),
                 "d"(static_cast<std::uint32_t>(value >> 32))
                 : "memory");
}
inline std::uint64_t rdtsc() {
    std::uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return std::uint64_t{high} << 32 | low;
}
// False: there is no random number at the moment.
inline bool rdrand(std::uint64_t& value) {
    bool carry;
    asm volatile("rdrand %0" : "=r"(value), "=@ccc"(carry));
    return carry;
}
inline bool rdseed(std::uint64_t& value) {
    bool carry;
    asm volatile("rdseed %0" : "=r"(value), "=@ccc"(carry));
    return carry;
}

struct CpuidLeaf {
    std::uint32_t eax, ebx, ecx, edx;
};
inline CpuidLeaf cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) {
    CpuidLeaf r;
    asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}

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
    asm volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
inline void out16(std::uint16_t port, std::uint16_t value) {
    asm volatile("outw %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
inline void out32(std::uint16_t port, std::uint32_t value) {
    asm volatile("outl %0, %1" ::"a"(value), "Nd"(port) : "memory");
}

#define HV_CONTROL_REGISTER(name)                                                                            \
    inline std::uint64_t read_##name() {                                                                     \
        std::uint64_t value;                                                                                 \
        asm volatile("mov %%" #name ", %0" : "=r"(value)::"memory");                                         \
        return value;                                                                                        \
    }                                                                                                        \
    inline void write_##name(std::uint64_t value) {                                                          \
        asm volatile("mov %0, %%" #name ::"r"(value) : "memory");                                            \
    }
HV_CONTROL_REGISTER(cr0)
HV_CONTROL_REGISTER(cr2)
HV_CONTROL_REGISTER(cr3)
HV_CONTROL_REGISTER(cr4)
HV_CONTROL_REGISTER(cr8)
HV_CONTROL_REGISTER(dr0)
HV_CONTROL_REGISTER(dr1)
HV_CONTROL_REGISTER(dr2)
HV_CONTROL_REGISTER(dr3)
HV_CONTROL_REGISTER(dr6)
HV_CONTROL_REGISTER(dr7)
#undef HV_CONTROL_REGISTER

inline void invlpg(const void* address) {
    asm volatile("invlpg (%0)" ::"r"(address) : "memory");
}
inline void cli() {
    asm volatile("cli" ::: "memory");
}
inline void hlt() {
    asm volatile("hlt" ::: "memory");
}
inline void wbinvd() {
    asm volatile("wbinvd" ::: "memory");
}
inline std::uint64_t rflags() {
    std::uint64_t value;
    asm volatile("pushfq; pop %0" : "=r"(value)::"memory");
    return value;
}
inline std::uint64_t xgetbv(std::uint32_t index) {
    std::uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
    return std::uint64_t{high} << 32 | low;
}
inline void xsetbv(std::uint32_t index, std::uint64_t value) {
    asm volatile("xsetbv" ::"c"(index), "a"(static_cast<std::uint32_t>(value)),
                 "d"(static_cast<std::uint32_t>(value >> 32)));
}

struct [[gnu::packed]] TableRegister {
    std::uint16_t limit;
    std::uint64_t base;
};
inline TableRegister sgdt() {
    TableRegister table;
    asm volatile("sgdt %0" : "=m"(table));
    return table;
}
inline TableRegister sidt() {
    TableRegister table;
    asm volatile("sidt %0" : "=m"(table));
    return table;
}
inline void lgdt(const TableRegister& table) {
    asm volatile("lgdt %0" ::"m"(table));
}
inline void lidt(const TableRegister& table) {
    asm volatile("lidt %0" ::"m"(table));
}
inline void ltr(std::uint16_t selector) {
    asm volatile("ltr %0" ::"r"(selector));
}
inline std::uint16_t str() {
    std::uint16_t selector;
    asm volatile("str %0" : "=r"(selector));
    return selector;
}

}  // namespace hv::cpu
