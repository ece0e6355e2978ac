// SPDX-License-Identifier: MIT
// The configuration file.
#include "vmm/config/config.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto result =
        hv::config::parse_config({reinterpret_cast<const char*>(data), size}, {.host_cpus = 4});
    if (!result)
        return 0;
    // A VM is either right or named by an error.
    for (const auto& vm : result->config.vms)
        if (!vm.valid && result->errors.empty())
            __builtin_trap();
    return 0;
}
