// SPDX-License-Identifier: MIT
// What all vCPUs on VT-x have in common.
#pragma once

#include "arch/x86_64/vmx/controls.hpp"
#include "arch/x86_64/vmx/owned_frames.hpp"
#include "arch/x86_64/vmx/vpid.hpp"
#include "vmm/base/vec.hpp"

#include <cstdint>

namespace hv::vmx {

/// Used by its CPU alone.
struct CpuSlot {
    OwnedFrames vmxon_region;
    std::uint64_t last_eptp{0};  ///< of the guest that ran here last
};

struct Shared {
    /// `cpus`: how many CPUs may run vCPUs. Error::no_memory.
    static Expected<std::unique_ptr<Shared>> create(FrameSource& frames, const Controls& controls,
                                                    const Mitigations& mitigations, std::uint32_t cpus);

    explicit Shared(FrameSource& source) : frames{source} {}

    FrameSource& frames;
    Controls controls{};
    Mitigations mitigations{};
    OwnedFrames msr_bitmap;
    OwnedFrames x2apic_msr_bitmap;  ///< for guests in x2APIC mode, if the processor delivers interrupts
    OwnedFrames apic_access_page;   ///< likewise for xAPIC mode; of all VMs, never read or written
    OwnedFrames io_bitmaps;         ///< all ones: every port exits
    Vec<CpuSlot> cpus;              ///< by machine::cpu_index()
    VpidPool vpids;
};

}  // namespace hv::vmx
