// SPDX-License-Identifier: MIT
#include "arch/x86_64/vmx/shared.hpp"

#include "arch/x86_64/vmx/vmcs_setup.hpp"

#include <cstring>
#include <span>

namespace hv::vmx {

Expected<std::unique_ptr<Shared>> Shared::create(FrameSource& frames, const Controls& controls,
                                                 const Mitigations& mitigations, std::uint32_t cpus) {
    auto shared = HV_TRY(make<Shared>(frames));
    shared->controls = controls;
    shared->mitigations = mitigations;
    shared->msr_bitmap = HV_TRY(OwnedFrames::create(frames, 0, std::byte{0xff}));
    shared->io_bitmaps = HV_TRY(OwnedFrames::create(frames, 1, std::byte{0xff}));
    HV_TRY(shared->cpus.resize(cpus));
    const std::span<std::byte, kPageSize> bitmap{shared->msr_bitmap.data(), kPageSize};
    for (const Msr msr : kUninterceptedMsrs)
        allow_msr(bitmap, msr);
    if (controls.delivers_interrupts()) {
        shared->x2apic_msr_bitmap = HV_TRY(OwnedFrames::create(frames, 0, std::byte{0xff}));
        shared->apic_access_page = HV_TRY(OwnedFrames::create(frames, 0, std::byte{0}));
        std::memcpy(shared->x2apic_msr_bitmap.data(), bitmap.data(), kPageSize);
        allow_x2apic_msrs(std::span<std::byte, kPageSize>{shared->x2apic_msr_bitmap.data(), kPageSize});
    }
    return shared;
}

}  // namespace hv::vmx
