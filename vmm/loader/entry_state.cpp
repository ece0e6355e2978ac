// SPDX-License-Identifier: MIT
#include "vmm/loader/entry_state.hpp"

#include "arch/x86_64/defs/cr.hpp"

namespace hv::loader {
namespace {

// Attributes as in Segment: G, D/B or L, P, S and the type with its accessed bit.
constexpr std::uint16_t kCode32 = 0xc9b;
constexpr std::uint16_t kCode64 = 0xa9b;
constexpr std::uint16_t kData = 0xc93;
constexpr std::uint16_t kBusyTss = 0x08b;
constexpr std::uint16_t kLdt = 0x082;

constexpr std::uint64_t kPatAfterReset = 0x0007'0406'0007'0406;  // [sdm3 12.12.4 Programming the PAT]

/// A descriptor of a flat segment: base 0, limit 4 GiB [sdm3 3.4.5 Segment Descriptors].
constexpr std::uint64_t flat_descriptor(std::uint16_t attributes) {
    constexpr std::uint64_t kLimit15To0 = 0xffff;
    constexpr std::uint64_t kLimit19To16 = 0xfULL << 48;
    return kLimit15To0 | kLimit19To16 | (attributes & 0xffULL) << 40 | (attributes & 0xf00ULL) << 44;
}
static_assert(flat_descriptor(kCode32) == 0x00cf'9b00'0000'ffff);
static_assert(flat_descriptor(kCode64) == 0x00af'9b00'0000'ffff);

Expected<EntryState> flat_entry(std::uint64_t entry, std::uint16_t code_attributes, MemoryPlan& plan) {
    EntryState state{};
    CpuState& cpu = state.cpu;
    for (Segment& segment : cpu.segment)
        segment = {kBootDs, kData, 0xffff'ffff, 0};
    cpu.seg(SegmentName::cs) = {kBootCs, code_attributes, 0xffff'ffff, 0};
    cpu.tr = {0, kBusyTss, 0x67, 0};
    cpu.ldtr = {0, kLdt, 0xffff, 0};
    cpu.dr6 = 0xffff'0ff0;
    cpu.dr7 = 0x400;
    cpu.pat = kPatAfterReset;

    const std::uint64_t table[4] = {0, 0, flat_descriptor(code_attributes), flat_descriptor(kData)};
    const Gpa gdt = HV_TRY(plan.put(std::as_bytes(std::span{table})));
    cpu.gdtr = {gdt.raw, sizeof table - 1};
    state.regs.rip = entry;
    state.regs.rflags = RFLAGS_FIXED;
    return state;
}

/// Page tables that map [0, 4 GiB) to itself with 2 MiB pages, which every 64-bit processor has: four page
/// directories, the page directory pointer table, the PML4, a page each. Returns where the last is.
Expected<Gpa> identity_map(MemoryPlan& plan, GuestMemory& memory) {
    constexpr std::uint64_t kPresentWritable = 3;
    constexpr std::uint64_t kLarge = 1 << 7;
    constexpr std::uint64_t kDirectories = 4;
    const Gpa directories = HV_TRY(plan.place_low((kDirectories + 2) * kPageSize, kPageSize, kPageSize));
    const Gpa pointers = directories + kDirectories * kPageSize;
    const Gpa root = pointers + kPageSize;
    for (std::uint64_t i = 0; i < kDirectories * 512; ++i)
        HV_TRY(memory.store(directories + i * 8, i * kPage2M | kLarge | kPresentWritable));
    for (std::uint64_t i = 0; i < kDirectories; ++i)
        HV_TRY(memory.store(pointers + i * 8, (directories.raw + i * kPageSize) | kPresentWritable));
    HV_TRY(memory.store(root, pointers.raw | kPresentWritable));
    return root;
}

}  // namespace

Expected<EntryState> protected_mode_entry(std::uint64_t entry, MemoryPlan& plan) {
    EntryState state = HV_TRY(flat_entry(entry, kCode32, plan));
    state.cpu.cr0 = CR0_PE | CR0_ET;
    return state;
}

Expected<EntryState> long_mode_entry(std::uint64_t entry, MemoryPlan& plan, GuestMemory& memory) {
    EntryState state = HV_TRY(flat_entry(entry, kCode64, plan));
    state.cpu.cr0 = CR0_PE | CR0_ET | CR0_PG;
    state.cpu.cr3 = HV_TRY(identity_map(plan, memory)).raw;
    state.cpu.cr4 = CR4_PAE;
    state.cpu.efer = EFER_LME | EFER_LMA;
    return state;
}

}  // namespace hv::loader
