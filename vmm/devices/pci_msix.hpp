// SPDX-License-Identifier: MIT
// MSI-X: the vector table and pending bit array of a function, as a 4 KiB register block. [pci3 6.8.2 MSI-X
// Capability and Table Structure]
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/core/interrupt.hpp"
#include "vmm/core/io_device.hpp"

#include <array>
#include <cstdint>

namespace hv {

class MsixTable final : public IoDevice {
public:
    static constexpr unsigned kMaxVectors = 64;
    static constexpr std::uint32_t kSize = 0x1000;
    static constexpr std::uint32_t kPendingOffset = 0x800;

    /// `vectors` is 1 to kMaxVectors.
    MsixTable(unsigned vectors, InterruptBus& bus);

    [[nodiscard]] unsigned vectors() const { return vectors_; }
    /// Sends the vector's message, or notes it as pending while masked. Any CPU, while no lock of rank
    /// interrupt or above is held. Without effect for a vector beyond the table.
    void raise(unsigned vector);

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

    /// Message control bits 15 (enable) and 14 (function mask), as the function's configuration space has
    /// them.
    void set_control(bool enabled, bool masked);
    void reset();

private:
    struct Entry {
        std::array<std::uint32_t, 4> words{0, 0, 0, 1};  ///< address, upper address, data, vector control
        [[nodiscard]] bool masked() const { return (words[3] & 1) != 0; }
    };
    struct State {
        std::array<Entry, kMaxVectors> entries{};
        std::uint64_t pending{0};
        bool enabled{false};
        bool masked{false};
    };
    static std::uint8_t byte_at(const State& state, std::uint64_t offset);
    /// Sends what is pending and no longer masked.
    void send_pending();
    void send(const Entry& entry);

    unsigned vectors_;
    InterruptBus& bus_;
    Guarded<State, Rank::leaf> state_{};
};

}  // namespace hv
