// SPDX-License-Identifier: MIT
// The host's address space. All CPUs share one table: the image with the rights of its segments, all RAM in
// the direct map (never executable), device registers and stacks in windows of their own. Nothing is writable
// and executable, and nothing is mapped in the lower half once the CPUs have started. Mappings are only ever
// added, so that no TLB has to be shot down.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {
class FrameSource;
}

namespace hv::cpu {

inline constexpr std::uintptr_t kDirectMap = 0xffff'8000'0000'0000;
inline constexpr std::uintptr_t kDeviceWindow = 0xffff'c000'0000'0000;
inline constexpr std::uintptr_t kStackWindow = 0xffff'd000'0000'0000;
inline constexpr std::uintptr_t kImage = 0xffff'ffff'8000'0000;

struct PhysicalRange {
    Hpa start;
    std::uint64_t length;
};

/// Builds the table, which enter_host_memory() then loads, from frames that lie in boot's map of the first 4
/// GiB. `ram` goes into the direct map; `image` is where the image's linked address kImage lies in physical
/// memory.
Expected<void> init_host_memory(FrameSource& early_frames, std::span<const PhysicalRange> ram, Hpa image);
/// Where tables and stacks come from after boot.
void set_host_frames(FrameSource& frames);
/// Turns on what the tables rely on (NX, PAT, global pages, write protection) and what guards them (SMEP,
/// SMAP, UMIP), on the executing CPU, and loads the table.
void enter_host_memory();

/// Maps registers uncached. Error::no_memory.
Expected<volatile std::byte*> map_device_bytes(Hpa start, std::uint64_t length);
template <class T>
Expected<T*> map_device(Hpa start, std::uint64_t length) {
    return reinterpret_cast<T*>(HV_TRY(map_device_bytes(start, length)));
}
/// Makes firmware's tables readable in the direct map where they lie outside RAM. False: no memory, or
/// nonsense.
bool map_firmware(Hpa start, std::uint64_t length);
/// A stack with an unmapped page below it; returns its top.
Expected<std::uintptr_t> map_stack(std::uint64_t size);

/// A root for starting application processors: the host's upper half plus an identity mapping, executable, of
/// `page` alone. It lies below 4 GiB, and there is one at a time. Error::no_memory.
Expected<Hpa> create_trampoline_root(Hpa page);
void destroy_trampoline_root(Hpa root);

[[nodiscard]] Hpa host_root();

}  // namespace hv::cpu
