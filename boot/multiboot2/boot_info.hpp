// SPDX-License-Identifier: MIT
// What the boot loader told, in one shape for every way in (Multiboot2, PVH). It is a copy: strings and the
// RSDP live in here, so that afterwards only the modules' own bytes have to be kept. Filled before there is a
// heap, hence the fixed capacities; what exceeds them is left out with a log line.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/assert.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace hv::boot {

/// How usable a range of physical memory is, most restrictive last: where two ranges overlap, the later type
/// wins.
enum class MemoryType : std::uint8_t {
    usable,
    acpi_reclaimable,  ///< usable once the ACPI tables have been read
    acpi_nvs,          ///< to be kept as it is
    reserved,
    bad,
};
const char* to_string(MemoryType type);
/// From the numbers that E820, Multiboot2 and PVH share [acpi 15.1 INT 15H, E820H - Query System Address
/// Map].
MemoryType memory_type_of_e820(std::uint32_t type);

struct MemoryRange {
    Hpa start;
    std::uint64_t length;
    MemoryType type;
    [[nodiscard]] constexpr Hpa end() const { return start + length; }
};

struct Module {
    Hpa start;
    std::uint64_t length;
    /// As the boot loader's configuration gave it, unchanged; empty if it gave none (QEMU's -initrd).
    std::string_view command_line;
    /// The last path component of the command line's first word.
    [[nodiscard]] std::string_view name() const;
};

/// A linear frame buffer or a text screen that the boot loader left on.
struct Framebuffer {
    enum class Kind : std::uint8_t { indexed, rgb, text };
    Hpa address;
    std::uint32_t pitch;          ///< bytes per line
    std::uint32_t width, height;  ///< pixels, for text: characters
    std::uint8_t bits_per_pixel;
    Kind kind;
    struct Channel {
        std::uint8_t position, size;  ///< bits
    };
    Channel red, green, blue;  ///< Kind::rgb alone
};

/// At most N values in place.
template <class T, std::size_t N>
class FixedList {
public:
    static constexpr std::size_t kCapacity = N;

    /// False, and nothing happens, when it is full.
    [[nodiscard]] bool push(const T& value) {
        if (size_ == N)
            return false;
        values_[size_++] = value;
        return true;
    }
    /// Forgets all but the first `count`, which is at most size().
    void truncate(std::size_t count) {
        HV_ASSERT(count <= size_);
        size_ = count;
    }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] bool empty() const { return size_ == 0; }
    T& operator[](std::size_t index) {
        HV_ASSERT(index < size_);
        return values_[index];
    }
    const T& operator[](std::size_t index) const {
        HV_ASSERT(index < size_);
        return values_[index];
    }
    T* begin() { return values_.data(); }
    T* end() { return values_.data() + size_; }
    const T* begin() const { return values_.data(); }
    const T* end() const { return values_.data() + size_; }
    [[nodiscard]] std::span<const T> span() const { return {values_.data(), size_}; }

private:
    std::array<T, N> values_{};
    std::size_t size_{0};
};

/// Not on a boot stack: about 16 KiB. Neither copied nor moved, for its strings point into it.
struct BootInfo {
    enum class Protocol : std::uint8_t { none, multiboot2, pvh };

    constexpr BootInfo() = default;
    BootInfo(const BootInfo&) = delete;
    BootInfo& operator=(const BootInfo&) = delete;

    Protocol protocol{Protocol::none};
    /// Ascending, not empty, disjoint; a gap is not memory. Not yet rounded to pages.
    FixedList<MemoryRange, 256> memory;
    /// They do not wrap around, but may lie anywhere else, also outside usable memory.
    FixedList<Module, 64> modules;
    std::string_view command_line;
    std::string_view loader_name;
    /// A copy of the RSDP, 20 bytes (revision 0) or 36 (revision 2 and above), unchecked; empty: the boot
    /// loader knew none.
    [[nodiscard]] std::span<const std::byte> rsdp() const { return {rsdp_bytes.data(), rsdp_size}; }
    std::optional<Framebuffer> framebuffer;
    /// Whether the PC's text screen at 0xb8000 may be written: a BIOS machine whose mode nobody changed.
    [[nodiscard]] bool has_text_screen() const {
        return framebuffer ? framebuffer->kind == Framebuffer::Kind::text : !uefi;
    }
    /// Started by UEFI firmware.
    bool uefi{false};
    /// The boot loader left UEFI's boot services running: the memory map is not ours yet.
    bool boot_services_active{false};

    // --- for the parsers
    // -------------------------------------------------------------------------------------------
    /// Copies `text` to live as long as this does; nothing when the room is used up.
    std::optional<std::string_view> keep(std::string_view text);
    /// Takes the longer of two copies: revision 2 has what revision 0 lacks. Ignores what is too short for an
    /// RSDP.
    void keep_rsdp(std::span<const std::byte> bytes);
    /// Adds a range as firmware reported it: empty and wrapping ones are dropped, overlaps resolved.
    void add_memory(Hpa start, std::uint64_t length, MemoryType type);
    /// Drops one that is empty or wraps around.
    void add_module(Hpa start, std::uint64_t length, std::string_view text);

    std::array<std::byte, 36> rsdp_bytes{};
    std::size_t rsdp_size{0};
    std::array<char, 4096> text{};
    std::size_t text_used{0};
};

/// Turns physical addresses into bytes while the boot loader's tables are read.
class PhysicalMemory {
public:
    /// The bytes of [start, start + length), or an empty span if they cannot be reached.
    [[nodiscard]] virtual std::span<const std::byte> bytes(Hpa start, std::uint64_t length) const = 0;

protected:
    ~PhysicalMemory() = default;
};

}  // namespace hv::boot
