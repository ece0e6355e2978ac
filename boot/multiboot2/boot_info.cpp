// SPDX-License-Identifier: MIT
#include "boot/multiboot2/boot_info.hpp"

#include "vmm/base/log.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace hv::boot {
namespace {

using log::Topic;

constexpr std::size_t kRsdpRevision0Size =
    20;  // [acpi 5.2.5.3 Root System Description Pointer (RSDP) Structure]

/// Whether [start, start + length) is a range at all.
bool is_range(Hpa start, std::uint64_t length) {
    return length != 0 && length <= std::numeric_limits<std::uint64_t>::max() - start.raw;
}

using Memory = decltype(BootInfo::memory);

/// Inserts before `index`; false when the list is full.
bool insert(Memory& memory, std::size_t index, const MemoryRange& range) {
    if (!memory.push(range))
        return false;
    std::rotate(memory.begin() + index, memory.end() - 1, memory.end());
    return true;
}

/// Gives the part [start, end) of memory[index], which contains it, the more restrictive `type`; with no room
/// to split, all of it: memory that we cannot describe is memory that we do not use.
void restrict(Memory& memory, std::size_t index, Hpa start, Hpa end, MemoryType type) {
    const MemoryRange whole = memory[index];
    const bool before = whole.start < start;
    const bool after = end < whole.end();
    if (memory.size() + (before ? 1 : 0) + (after ? 1 : 0) > Memory::kCapacity) {
        memory[index].type = type;
        return;
    }
    memory[index] = {start, end - start, type};
    bool fits = true;
    if (after)
        fits = insert(memory, index + 1, {end, whole.end() - end, whole.type});
    if (before)
        fits = fits && insert(memory, index, {whole.start, start - whole.start, whole.type});
    HV_ASSERT(fits);
}

/// Joins neighbours of one type.
void merge(Memory& memory) {
    std::size_t kept = 0;
    const std::size_t count = memory.size();
    for (std::size_t i = 1; i < count; ++i) {
        if (memory[kept].end() == memory[i].start && memory[kept].type == memory[i].type)
            memory[kept].length += memory[i].length;
        else
            memory[++kept] = memory[i];
    }
    memory.truncate(count == 0 ? 0 : kept + 1);
}

}  // namespace

const char* to_string(MemoryType type) {
    switch (type) {
    case MemoryType::usable: return "usable";
    case MemoryType::acpi_reclaimable: return "ACPI tables";
    case MemoryType::acpi_nvs: return "ACPI NVS";
    case MemoryType::reserved: return "reserved";
    case MemoryType::bad: return "bad";
    }
    return "unknown";
}

MemoryType memory_type_of_e820(std::uint32_t type) {
    switch (type) {
    case 1: return MemoryType::usable;
    case 3: return MemoryType::acpi_reclaimable;
    case 4: return MemoryType::acpi_nvs;
    case 5: return MemoryType::bad;
    default: return MemoryType::reserved;
    }
}

std::string_view Module::name() const {
    const std::string_view word = command_line.substr(0, command_line.find(' '));
    return word.substr(word.rfind('/') + 1);  // npos + 1 is 0: no slash, all of it
}

std::optional<std::string_view> BootInfo::keep(std::string_view string) {
    if (string.size() > text.size() - text_used)
        return std::nullopt;
    char* const copy = text.data() + text_used;
    std::copy(string.begin(), string.end(), copy);
    text_used += string.size();
    return std::string_view{copy, string.size()};
}

void BootInfo::keep_rsdp(std::span<const std::byte> bytes) {
    const std::size_t size = bytes.size() >= rsdp_bytes.size() ? rsdp_bytes.size() : kRsdpRevision0Size;
    if (bytes.size() < size || size <= rsdp_size)
        return;
    std::memcpy(rsdp_bytes.data(), bytes.data(), size);
    rsdp_size = size;
}

void BootInfo::add_module(Hpa start, std::uint64_t length, std::string_view string) {
    if (!is_range(start, length)) {
        log::warning(Topic::boot, "boot module at 0x%lx, 0x%lx bytes: not a range, skipped", start.raw,
                     length);
        return;
    }
    const auto kept = keep(string);
    if (!kept)
        log::warning(Topic::boot, "boot module at 0x%lx: no room for its command line", start.raw);
    if (!modules.push({start, length, kept.value_or(std::string_view{})}))
        log::warning(Topic::boot, "boot module at 0x%lx: more than %zu modules, skipped", start.raw,
                     modules.size());
}

void BootInfo::add_memory(Hpa start, std::uint64_t length, MemoryType type) {
    if (length == 0)
        return;  // common in firmware's maps
    if (!is_range(start, length)) {
        log::warning(Topic::boot, "memory range at 0x%lx, 0x%lx bytes: wraps around, skipped", start.raw,
                     length);
        return;
    }
    // Walks [start, end) along the ranges known so far: what lies between them is new, what lies in one may
    // restrict it.
    const Hpa end = start + length;
    for (std::size_t i = 0; start < end; ++i) {
        if (i < memory.size() && memory[i].end() <= start)
            continue;
        const Hpa gap_end = i < memory.size() ? std::min(end, memory[i].start) : end;
        if (start < gap_end) {
            if (!insert(memory, i, {start, gap_end - start, type})) {
                log::warning(Topic::boot, "memory range at 0x%lx: more than %zu ranges, skipped", start.raw,
                             memory.size());
                return;
            }
            start = gap_end;
            continue;
        }
        const Hpa shared_end = std::min(end, memory[i].end());
        const std::size_t count = memory.size();
        if (memory[i].type < type)
            restrict(memory, i, start, shared_end, type);
        start = shared_end;
        i += memory.size() - count;
    }
    merge(memory);
}

}  // namespace hv::boot
