// SPDX-License-Identifier: MIT
// A vCPU's x87, SSE, AVX and AVX-512 registers while it is not on a CPU. The hypervisor itself uses none of
// them, so they stay in the CPU as long as the vCPU does [sdm1 13.7 Operation of XSAVE].
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/core/cpu_state.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace hv::cpu {

class GuestFpu {
public:
    /// With the state after RESET. Error::no_memory.
    static Expected<GuestFpu> create();

    /// Loads the registers and XCR0 into this CPU.
    void load();
    /// Saves them. They stay loaded until the next owner loads its own over them.
    void save();
    /// RESET, loaded or not.
    void reset();
    /// While loaded. The caller has checked the value against what the processor and the policy allow.
    void set_xcr0(std::uint64_t value);
    [[nodiscard]] std::uint64_t xcr0() const;
    /// VcpuBackend's calls, while loaded.
    void get_vector(VectorFile file, unsigned index, VectorValue& out);
    void set_vector(VectorFile file, unsigned index, const VectorValue& in);

private:
    struct Free {
        void operator()(std::byte* area) const;
    };
    void store_components(std::uint64_t components);
    explicit GuestFpu(std::unique_ptr<std::byte, Free> area) : area_{std::move(area)} {}

    void write_reset_state();

    std::unique_ptr<std::byte, Free> area_;  ///< XSAVE area, 64-byte aligned
    std::uint64_t xcr0_{1};
    bool loaded_{false};
};

/// Turns XSAVE on for the executing CPU, as far as it has it, and remembers which components there are.
void enable_fpu();

}  // namespace hv::cpu
