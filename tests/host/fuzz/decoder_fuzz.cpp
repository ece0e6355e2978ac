// SPDX-License-Identifier: MIT
// Any bytes decode in any mode, and the length never exceeds what was given.
#include "vmm/x86/decoder.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace hv::x86;
    for (const CodeMode mode : {CodeMode::bits16, CodeMode::bits32, CodeMode::bits64}) {
        Instruction in;
        const DecodeStatus status = decode({data, size}, mode, in);
        if (status == DecodeStatus::ok &&
            (in.length == 0 || in.length > size || in.length > kMaxInstructionLength))
            std::abort();
        if (status == DecodeStatus::need_more && size >= kMaxInstructionLength)
            std::abort();
    }
    return 0;
}
