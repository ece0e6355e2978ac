// SPDX-License-Identifier: MIT
// How a VM's parts ask for its end.
#pragma once

#include <cstdint>

namespace hv {

/// Why a VM stops running.
enum class VmStop : std::uint8_t {
    none,
    power_off,  ///< the guest powered itself off (ACPI S5)
    reset,      ///< the guest asked for a reset: it starts anew
    exit_code,  ///< the guest wrote the debug exit port; the code tells
    crashed,    ///< triple fault, or something that the VMM cannot do for it
    by_host,    ///< the monitor, or the host's end
};
const char* to_string(VmStop reason);

class VmControl {
public:
    /// Makes all vCPUs stop before their next instruction; the first request counts. Any CPU, with locks of
    /// ranks below scheduler held. `code` goes with exit_code.
    virtual void request_stop(VmStop reason, std::uint32_t code) = 0;
    /// A vCPU has left its CPU because of a request. Without locks.
    virtual void vcpu_parked() = 0;

protected:
    ~VmControl() = default;
};

}  // namespace hv
