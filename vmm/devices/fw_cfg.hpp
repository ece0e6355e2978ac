// SPDX-License-Identifier: MIT
// QEMU's firmware configuration device by I/O ports [fw_cfg], read-only: what firmware and test kernels ask
// before they know ACPI, number of processors and size of RAM. No files, no DMA.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/core/io_device.hpp"

#include <cstdint>

namespace hv {

/// Two bytes at guest_map::kFwCfg: the selector, 16 bits wide, and the data port above its low byte.
class FwCfg final : public IoDevice {
public:
    static constexpr std::uint64_t kSize = 2;

    struct Machine {
        std::uint32_t vcpus{1};
        std::uint64_t ram{0};  ///< bytes
    };

    explicit FwCfg(const Machine& machine) : machine_{machine} {}

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset();

private:
    std::uint8_t next_byte();

    const Machine machine_;
    Spinlock lock_{Rank::board};
    std::uint16_t key_{0};
    std::uint32_t position_{0};
};

}  // namespace hv
