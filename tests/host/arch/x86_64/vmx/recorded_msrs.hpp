// SPDX-License-Identifier: MIT
// Recorded capability MSRs as an MsrIo, to be spoilt by tests.
#pragma once

#include "arch/x86_64/vmx/controls.hpp"
#include "catch.hpp"
#include "corpus/vmx_capabilities.hpp"

#include <map>
#include <set>

namespace hv::vmx::test {

class RecordedMsrs {
public:
    explicit RecordedMsrs(const corpus::VmxCapabilities& values = corpus::kBochsBroadwell) {
        for (std::uint32_t i = 0; i < values.size(); ++i)
            msrs[Msr::IA32_VMX_BASIC + i] = values[i];
    }
    std::uint64_t read_msr(Msr msr) {
        INFO("MSR " << std::hex << static_cast<std::uint32_t>(msr));
        REQUIRE(msrs.contains(msr));
        read.insert(msr);
        return msrs[msr];
    }
    void write_msr(Msr msr, std::uint64_t value) {
        msrs[msr] = value;
        written.insert(msr);
    }
    /// The processor does not allow `bits` of a control to be 1.
    void forbid(Msr capability, std::uint32_t bits) { msrs[capability] &= ~(std::uint64_t{bits} << 32); }

    std::map<Msr, std::uint64_t> msrs;
    std::set<Msr> read, written;
};

inline Controls broadwell_controls() {
    RecordedMsrs msrs;
    return negotiate(read_capabilities(msrs), ApicUse::all).value();
}

}  // namespace hv::vmx::test
