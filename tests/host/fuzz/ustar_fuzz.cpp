// SPDX-License-Identifier: MIT
// Boot modules as archives.
#include "vmm/loader/module_files.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    hv::loader::ModuleFiles files;
    static_cast<void>(files.add("fuzz.tar", std::as_bytes(std::span{data, size})));
    std::size_t sum = 0;
    for (const auto& file : files.files()) {
        for (const std::byte each : file.bytes)
            sum += std::to_integer<std::size_t>(each);
        if (files.find(file.name()) == nullptr)
            __builtin_trap();
    }
    static_cast<void>(sum);
    return 0;
}
