// SPDX-License-Identifier: MIT
// The boot loader's information, both protocols: the first byte picks one, the rest is memory from kStart on.
#include "boot/multiboot2/multiboot2.hpp"
#include "boot/multiboot2/pvh.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace {

using namespace hv;

constexpr Hpa kStart{0x1000};

class Memory final : public boot::PhysicalMemory {
public:
    explicit Memory(std::span<const std::byte> bytes) : bytes_{bytes} {}
    [[nodiscard]] std::span<const std::byte> bytes(Hpa start, std::uint64_t length) const override {
        if (start < kStart || start - kStart > bytes_.size() || length > bytes_.size() - (start - kStart))
            return {};
        return bytes_.subspan(start - kStart, length);
    }

private:
    std::span<const std::byte> bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0)
        return 0;
    const Memory memory{std::as_bytes(std::span{data + 1, size - 1})};
    const auto info = std::make_unique<boot::BootInfo>();
    if ((data[0] & 1) != 0)
        static_cast<void>(boot::multiboot2::parse(kStart, memory, *info));
    else
        static_cast<void>(boot::pvh::parse(kStart, memory, *info));
    for (std::size_t i = 1; i < info->memory.size(); ++i)
        if (info->memory[i].start < info->memory[i - 1].end())
            __builtin_trap();
    return 0;
}
