// SPDX-License-Identifier: MIT
// Kernels as bzImages.
#include "fakes/arena_frames.hpp"
#include "vmm/loader/loader.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace hv;
    static fake::ArenaFrames frames;
    static auto memory = GuestMemory::create(frames, 4 * kMiB);
    loader::LoadRequest request;
    request.vm_name = "fuzz";
    request.kernel = std::as_bytes(std::span{data, size});
    request.initrd = request.kernel.first(size / 2);
    request.command_line = "a=b";
    static_cast<void>(loader::load(request, *memory));
    return 0;
}
