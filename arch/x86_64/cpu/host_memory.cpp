// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/host_memory.hpp"

#include "arch/x86_64/cpu/instructions.hpp"
#include "arch/x86_64/paging/frame_tables.hpp"
#include "arch/x86_64/paging/host_format.hpp"
#include "arch/x86_64/paging/radix_table.hpp"
#include "vmm/base/guarded.hpp"
#include "vmm/base/log.hpp"

#include <array>
#include <cstring>
#include <new>

extern "C" const char image_start[];
extern "C" const char text_end[];
extern "C" const char rodata_end[];
extern "C" const char image_end[];

namespace hv::cpu {
namespace {

using paging::CacheType;
using paging::FrameTables;
using paging::HostFormat;

/// Lets the table's source of frames change once boot is over.
class SwitchableFrames final : public FrameSource {
public:
    Expected<Hpa> allocate(unsigned order) override { return current->allocate(order); }
    void free(Hpa frame, unsigned order) override { current->free(frame, order); }
    FrameSource* current{nullptr};
};

using Table = paging::RadixTable<HostFormat, FrameTables>;

struct HostMemory {
    Table* table{nullptr};  ///< in `storage`: it is never destroyed
    alignas(Table) std::array<std::byte, sizeof(Table)> storage{};
    std::uintptr_t next_device{kDeviceWindow};
    std::uintptr_t next_stack{kStackWindow};
    Hpa trampoline_root{};  ///< a frame below 4 GiB: CPUs load it in 32-bit mode
};

constinit SwitchableFrames frames;
constinit Guarded<HostMemory, Rank::paging> host;

constexpr HostFormat::Attributes kReadOnly{false, false};
constexpr HostFormat::Attributes kReadWrite{true, false};
constexpr HostFormat::Attributes kExecute{false, true};
constexpr HostFormat::Attributes kDevice{true, false, true, CacheType::uncached};

constexpr std::uint32_t kMsrPat = 0x277;
constexpr std::uint32_t kMsrEfer = 0xc000'0080;
constexpr std::uint64_t kEferNxe = bit(11);

std::uintptr_t address_of(const char* symbol) {
    return reinterpret_cast<std::uintptr_t>(symbol);
}

Expected<void> map_image(Table& table, Hpa image) {
    const auto map = [&](const char* first, const char* last, const HostFormat::Attributes& attributes) {
        return table.map(address_of(first), image + (address_of(first) - kImage),
                         static_cast<std::uint64_t>(last - first), attributes);
    };
    HV_TRY(map(image_start, text_end, kExecute));
    HV_TRY(map(text_end, rodata_end, kReadOnly));
    return map(rodata_end, image_end, kReadWrite);
}

/// Maps what is not mapped yet, page by page.
Expected<void> map_missing(Table& table, Hpa start, std::uint64_t length) {
    for (std::uint64_t page = align_down(start.raw, kPageSize); page < start.raw + length;
         page += kPageSize) {
        if (!table.translate(kDirectMap + page))
            HV_TRY(table.map(kDirectMap + page, Hpa{page}, kPageSize, kReadOnly));
    }
    return {};
}

}  // namespace

Expected<void> init_host_memory(FrameSource& early_frames, std::span<const PhysicalRange> ram, Hpa image) {
    frames.current = &early_frames;
    const bool has_1g = (cpuid(0x8000'0001).edx & (1U << 26)) != 0;
    return host.with([&](HostMemory& memory) -> Expected<void> {
        memory.table =
            new (memory.storage.data()) Table{HV_TRY(Table::create(HostFormat{has_1g}, FrameTables{frames}))};
        HV_TRY(map_image(*memory.table, image));
        for (const PhysicalRange& range : ram) {
            const std::uint64_t first = align_down(range.start.raw, kPageSize);
            const std::uint64_t last = align_up(range.start.raw + range.length, kPageSize);
            HV_TRY(memory.table->map(kDirectMap + first, Hpa{first}, last - first, kReadWrite));
        }
        memory.trampoline_root = HV_TRY(frames.allocate(0));
        return {};
    });
}

void set_host_frames(FrameSource& source) {
    frames.current = &source;
}

void enter_host_memory() {
    wrmsr(kMsrPat, paging::kHostPat);
    wrmsr(kMsrEfer, rdmsr(kMsrEfer) | kEferNxe);
    write_cr0((read_cr0() | bit(16)) & ~(bit(29) | bit(30)));  // WP; caches on
    write_cr3(host_root().raw);
    std::uint64_t cr4 = read_cr4() | bit(7);  // PGE
    if (cpuid(0).eax >= 7) {
        const CpuidLeaf features = cpuid(7);
        if ((features.ebx & (1U << 7)) != 0)
            cr4 |= bit(20);  // SMEP
        if ((features.ebx & (1U << 20)) != 0)
            cr4 |= bit(21);  // SMAP
        if ((features.ecx & (1U << 2)) != 0)
            cr4 |= bit(11);  // UMIP
    }
    write_cr4(cr4);
}

Expected<volatile std::byte*> map_device_bytes(Hpa start, std::uint64_t length) {
    return host.with([&](HostMemory & memory) -> Expected<volatile std::byte*> {
        const Hpa first = start.page();
        const std::uint64_t size = align_up(start.raw + length, kPageSize) - first.raw;
        HV_TRY(memory.table->map(memory.next_device, first, size, kDevice));
        auto* address = reinterpret_cast<volatile std::byte*>(memory.next_device + start.page_offset());
        memory.next_device += size + kPageSize;
        return address;
    });
}

bool map_firmware(Hpa start, std::uint64_t length) {
    constexpr std::uint64_t kPhysicalLimit = std::uint64_t{1} << 46;
    constexpr std::uint64_t kLargest = 16 * kMiB;
    if (length > kLargest || start.raw > kPhysicalLimit)
        return false;
    return host.with(
        [&](HostMemory& memory) { return map_missing(*memory.table, start, length).has_value(); });
}

Expected<std::uintptr_t> map_stack(std::uint64_t size) {
    return host.with([&](HostMemory& memory) -> Expected<std::uintptr_t> {
        const std::uintptr_t bottom = memory.next_stack + kPageSize;  // the page below stays unmapped
        for (std::uint64_t offset = 0; offset < size; offset += kPageSize) {
            const Hpa frame = HV_TRY(frames.allocate(0));
            HV_TRY(memory.table->map(bottom + offset, frame, kPageSize, kReadWrite));
        }
        memory.next_stack = bottom + size;
        return bottom + size;
    });
}

Hpa host_root() {
    return host.with([](HostMemory& memory) { return memory.table->root(); });
}

Expected<Hpa> create_trampoline_root(Hpa page) {
    // Four tables by hand: a RadixTable would own, and free, the upper half that it shares with the host.
    Hpa tables[4] = {host.with([](HostMemory& memory) { return memory.trampoline_root; })};
    for (unsigned i = 1; i < 4; ++i)
        tables[i] = HV_TRY(frames.allocate(0));
    for (const Hpa table : tables)
        std::memset(machine::hva(table), 0, kPageSize);
    const auto* source = machine::hva<std::uint64_t>(host_root());
    auto* root = machine::hva<std::uint64_t>(tables[0]);
    std::memcpy(root + 256, source + 256, kPageSize / 2);
    const HostFormat format{false};
    root[0] = format.make_table(tables[1]);
    machine::hva<std::uint64_t>(tables[1])[0] = format.make_table(tables[2]);
    machine::hva<std::uint64_t>(tables[2])[0] = format.make_table(tables[3]);
    machine::hva<std::uint64_t>(tables[3])[page.raw >> kPageShift] =
        format.make_leaf(1, page, {false, true, false});
    return tables[0];
}

void destroy_trampoline_root(Hpa root) {
    // The root's own frame stays for the next one.
    Hpa table = HostFormat::address(4, machine::hva<std::uint64_t>(root)[0]);
    for (unsigned level = 3; level > 0; --level) {
        const std::uint64_t entry = machine::hva<std::uint64_t>(table)[0];
        frames.free(table, 0);
        table = HostFormat::address(level, entry);
    }
}

}  // namespace hv::cpu
