// SPDX-License-Identifier: MIT
#include "boot/multiboot2/pvh.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/base/log.hpp"

#include <algorithm>
#include <cstring>

namespace hv::boot::pvh {
namespace {

using log::Topic;

// [pvh hvm_start_info]; all addresses are physical, 0 means absent.
struct StartInfo {
    std::uint32_t magic, version, flags, module_count;
    std::uint64_t modules, command_line, rsdp;
};
struct StartInfoVersion1 {  // follows in version 1 and above
    std::uint64_t memory_map;
    std::uint32_t memory_map_entries, reserved;
};
struct ModuleEntry {
    std::uint64_t start, size, command_line, reserved;
};
struct MemoryMapEntry {
    std::uint64_t start, size;
    std::uint32_t type, reserved;
};
static_assert(sizeof(StartInfo) == 40 && sizeof(StartInfoVersion1) == 16);
static_assert(sizeof(ModuleEntry) == 32 && sizeof(MemoryMapEntry) == 24);

constexpr std::uint32_t kMaxEntries = 4096;  // of a list: a sanity limit on what is walked
constexpr std::uint64_t kMaxString = kPageSize;

template <class T>
std::optional<T> read(const PhysicalMemory& memory, std::uint64_t address) {
    return load_at<T>(memory.bytes(Hpa{address}, sizeof(T)), 0);
}

/// The string at `address`, looked for page by page, since what follows its page may not be reachable.
std::string_view string_at(const PhysicalMemory& memory, std::uint64_t address) {
    if (address == 0)
        return {};
    for (std::uint64_t length = 0; length < kMaxString;) {
        const Hpa next{address + length};
        const auto piece = memory.bytes(next, kPageSize - next.page_offset());
        const auto* const end =
            piece.empty() ? nullptr
                          : static_cast<const std::byte*>(std::memchr(piece.data(), 0, piece.size()));
        if (end != nullptr) {
            length += static_cast<std::uint64_t>(end - piece.data());
            const auto whole = memory.bytes(Hpa{address}, length);
            return {reinterpret_cast<const char*>(whole.data()), whole.size()};
        }
        if (piece.empty())
            break;
        length += piece.size();
    }
    log::warning(Topic::boot, "pvh: no string at 0x%lx", address);
    return {};
}

/// Calls `entry(const T&)` for each of a list's entries.
template <class T, class Entry>
void for_each(const PhysicalMemory& memory, const char* what, std::uint64_t list, std::uint32_t count,
              Entry&& entry) {
    if (count > kMaxEntries)
        log::warning(Topic::boot, "pvh: %u entries in the %s, %u are read", count, what, kMaxEntries);
    count = std::min(count, kMaxEntries);
    for (std::uint32_t i = 0; i < count; ++i) {
        const auto value = read<T>(memory, list + i * sizeof(T));
        if (!value) {
            log::warning(Topic::boot, "pvh: the %s at 0x%lx cannot be reached", what, list);
            return;
        }
        entry(*value);
    }
}

/// 20 bytes, and the other 16 where the revision says that they exist.
void read_rsdp(const PhysicalMemory& memory, Hpa rsdp, BootInfo& out) {
    constexpr std::uint64_t kRevision =
        15;  // [acpi 5.2.5.3 Root System Description Pointer (RSDP) Structure]
    out.keep_rsdp(memory.bytes(rsdp, 20));
    if (!out.rsdp().empty() && std::to_integer<unsigned>(out.rsdp()[kRevision]) >= 2)
        out.keep_rsdp(memory.bytes(rsdp, 36));
}

}  // namespace

Expected<void> parse(Hpa info, const PhysicalMemory& memory, BootInfo& out) {
    const auto start = read<StartInfo>(memory, info.raw);
    if (!start || start->magic != kStartMagic)
        return Unexpected{Error::corrupted};
    out.protocol = BootInfo::Protocol::pvh;
    out.command_line = out.keep(string_at(memory, start->command_line)).value_or(std::string_view{});
    for_each<ModuleEntry>(
        memory, "module list", start->modules, start->module_count, [&](const ModuleEntry& module) {
            out.add_module(Hpa{module.start}, module.size, string_at(memory, module.command_line));
        });
    if (start->rsdp != 0)
        read_rsdp(memory, Hpa{start->rsdp}, out);
    if (start->version < 1)
        return {};
    if (const auto more = read<StartInfoVersion1>(memory, info.raw + sizeof(StartInfo)))
        for_each<MemoryMapEntry>(memory, "memory map", more->memory_map, more->memory_map_entries,
                                 [&](const MemoryMapEntry& range) {
                                     out.add_memory(Hpa{range.start}, range.size,
                                                    memory_type_of_e820(range.type));
                                 });
    return {};
}

}  // namespace hv::boot::pvh
