// SPDX-License-Identifier: MIT
#include "drivers/acpi/acpi.hpp"

namespace {

/// The input is all of physical memory.
class InputMemory final : public hv::acpi::MemoryReader {
public:
    explicit InputMemory(std::span<const std::byte> bytes) : bytes_{bytes} {}
    std::span<const std::byte> read(hv::Hpa address, std::size_t length) override {
        if (address.raw > bytes_.size() || length > bytes_.size() - address.raw)
            return {};
        return bytes_.subspan(address.raw, length);
    }

private:
    std::span<const std::byte> bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto bytes = std::as_bytes(std::span{data, size});
    InputMemory memory{bytes};
    static_cast<void>(hv::acpi::read_tables(memory, hv::Hpa{0}));
    // What checksums keep the fuzzer from reaching.
    if (size >= hv::acpi::kHeaderSize) {
        static_cast<void>(hv::acpi::parse_madt(hv::acpi::Table{bytes}));
        static_cast<void>(hv::acpi::parse_fadt(hv::acpi::Table{bytes}));
    }
    static_cast<void>(hv::acpi::find_s5(bytes));
    return 0;
}
