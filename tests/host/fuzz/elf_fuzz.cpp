// SPDX-License-Identifier: MIT
// Kernels as ELF files, by PVH and by Multiboot: the first byte picks the protocol.
#include "fakes/arena_frames.hpp"
#include "vmm/loader/loader.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace hv;
    if (size == 0)
        return 0;
    static fake::ArenaFrames frames;
    static auto memory = GuestMemory::create(frames, 4 * kMiB);
    loader::LoadRequest request;
    request.vm_name = "fuzz";
    request.protocol = (data[0] & 1) != 0 ? BootProtocol::multiboot : BootProtocol::pvh;
    request.kernel = std::as_bytes(std::span{data + 1, size - 1});
    request.command_line = "a=b";
    const loader::BootModule modules[] = {{request.kernel.first(request.kernel.size() / 2), "half"}};
    request.modules = modules;
    static_cast<void>(loader::load(request, *memory));
    return 0;
}
